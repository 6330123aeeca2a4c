"""Whole rounds with the models on a pretended GPU (``tests.device_police``): nothing meets a tensor of another device,
and nothing waits for the GPU more often than it must."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from irl_core.checkpoints.save import save_checkpoint
from irl_core.distributed import World
from irl_core.policy.generate import GenerateSampler
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.grpo import GRPOTrainer
from irl_core.training.sft import SFTTrainer
from tests.device_police import GPU, Police, WrongDevice
from tests.tiny import changed, expert_traces, pair_config, tiny_model
from tests.worlds import CASES, Case, trainer_of
from train import optimizers
from train.monitoring.validation import round_samples
from train.training_state import learners_of

Trainer = AdversarialTrainer | GRPOTrainer | SFTTrainer
MOVED = ("packed", "gradient penalty", "reference", "other tokens", "grpo", "sft", "adapters")


def moved(police: Police, case: Case) -> Trainer:
    trainer = trainer_of(case, World())
    parts = [learner.model for learner in learners_of(trainer).values()]
    if not isinstance(trainer, SFTTrainer) and trainer.reference:
        parts.append(trainer.reference)
    for part in parts:
        police.move(part)
    return trainer


def test_the_police_see_what_cuda_would_refuse() -> None:
    police = Police()
    on_gpu, on_cpu = police.mark(torch.ones(3)), torch.ones(3)
    with police.watching():
        assert (on_gpu.device, on_gpu.is_cuda, (2 * on_gpu).device) == (GPU, True, GPU)
        assert (on_cpu.device, on_gpu.cpu().device, on_cpu.to(GPU).device) == (on_cpu.device, on_cpu.device, GPU)
        assert (on_gpu + on_cpu.to(GPU)).tolist() == [2.0, 2.0, 2.0]
        assert torch.zeros(2, device=GPU).is_cuda and not torch.zeros(2).is_cuda
        with pytest.raises(WrongDevice, match=r"aten.add.Tensor: \(3,\) on the GPU, \(3,\) on the CPU"):
            on_gpu + on_cpu
        with pytest.raises(WrongDevice, match=r"\(3,\) on the GPU, \(1,\) on the CPU"):
            on_gpu[torch.tensor([0])]
        with pytest.raises(WrongDevice, match="no numpy array"):
            on_gpu.numpy()


@pytest.mark.parametrize("name", MOVED)
def test_a_round_keeps_to_its_device(name: str) -> None:
    police = Police()
    trainer = moved(police, CASES[name])
    with police.watching():
        assert trainer.policy.device == GPU
        metrics = trainer.round(expert_traces(trainer.encoder))
        rows = round_samples(trainer)
    assert metrics["policy/grad_norm"] > 0
    assert len(rows) == (0 if name == "sft" else 12)
    # Of a draw: the id, its log-probability and whether it can be; transformers looks at the mask once a pass.
    assert police.waits["sampling._decode"] <= 3 * 12 + 1
    assert 2 * police.waits["policy_step.sampler_mismatch"] <= police.waits["policy_step.policy_loss"]  # a micro-batch
    assert police.waits["model_pair.policy_reading"] == 0


def test_generate_draws_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    police = Police()
    trainer = moved(police, Case())
    assert isinstance(trainer, AdversarialTrainer)
    trainer.sampler = GenerateSampler(trainer.encoder.end_ids, trainer.encoder.pad_id)
    with police.watching():
        groups = trainer.sample_groups(expert_traces(trainer.encoder))
    assert [len(group.samples) for group in groups] == [3] * len(groups)
    assert emptied == [True]  # what the cache leaves in pieces is given back before the updates


@pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit"])
def test_a_restored_optimiser_lies_where_its_weights_do(optimiser: str, tmp_path: Path) -> None:
    """Files are read into main memory, and the moments must go to the weights."""
    config = changed(pair_config(), "model", optimiser=optimiser)
    first, second = (optimizers.policy_learner(tiny_model(seed), config) for seed in (1, 2))
    first.backward(first.model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss)
    first.step(1.0)
    described = {"config.json": {"format": 1, "name": "state", "kind": "tiny"}}
    save_checkpoint(tmp_path / "state", optimizers.learner_files("policy", first) | described)
    police = Police()
    police.move(second.model)
    with police.watching():
        optimizers.restore_learner(tmp_path / "state", "policy", second)
    moments = [
        value for state in second.optimizer.state.values() for key, value in state.items()
        if key in ("exp_avg", "exp_avg_sq", "state1", "state2")
    ]  # fmt: skip
    assert len(moments) == 2 * len(list(second.model.parameters()))
    assert all(map(police.holds, moments))
