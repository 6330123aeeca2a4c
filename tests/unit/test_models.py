"""Optimisers and discriminators in files: what is restored goes on exactly as what was saved would have."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file

from irl_core.checkpoints.load import load_tensors
from irl_core.checkpoints.save import save_checkpoint
from irl_core.config import LoraConfig, ModelConfig, TrainConfig
from irl_core.errors import CheckpointError, ConfigError
from irl_core.models import pretrained
from irl_core.models.batching import collate
from irl_core.models.pretrained import Base
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator, HeadKind, load_discriminator
from irl_core.training.optimizer_step import Learner
from tests.small_models import save_model
from tests.tiny import expert_traces, pair_config, tiny_tokenizer
from train import optimizers

Optimiser = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
every_optimiser = pytest.mark.parametrize("optimiser", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
BATCH = collate(expert_traces(TraceEncoder(tiny_tokenizer())), 0)


def configured(optimiser: Optimiser = "adamw", **model: Any) -> TrainConfig:
    return TrainConfig(
        run=pair_config().run, policy=pair_config().policy, discriminator=pair_config().discriminator,
        model=ModelConfig(optimiser=optimiser, **model),
    )  # fmt: skip


def network() -> torch.nn.Sequential:
    """A matrix of more than 4,096 numbers, from which on bitsandbytes keeps 8 bit, and two smaller tensors."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(96, 64), torch.nn.Linear(64, 2, bias=False))


def steps(learner: Learner, numbers: range) -> None:
    for number in numbers:
        torch.manual_seed(number)
        learner.backward(learner.model(torch.randn(8, 96)).square().mean())
        learner.step(1.0)


def save_learner(learner: Learner, directory: Path) -> None:
    described = {"format": 1, "name": "t", "kind": "tiny"}
    save_checkpoint(directory, optimizers.learner_files("policy", learner) | {"config.json": described})


# ------------------------------------------------------------------------------------------------------ optimisers


@every_optimiser
@pytest.mark.parametrize("saved_after", [0, 1, 3])
def test_a_restored_optimiser_goes_on_exactly(optimiser: Optimiser, saved_after: int, tmp_path: Path) -> None:
    config = configured(optimiser)
    unbroken, killed = (optimizers.policy_learner(network(), config) for _ in range(2))
    steps(unbroken, range(6))
    steps(killed, range(saved_after))
    save_learner(killed, tmp_path / "state")
    model = network()
    model.load_state_dict(killed.model.state_dict())
    resumed = optimizers.policy_learner(model, config)
    optimizers.restore_learner(tmp_path / "state", "policy", resumed)
    steps(resumed, range(saved_after, 6))
    for one, other in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.scheduler.get_last_lr() == unbroken.scheduler.get_last_lr()


@pytest.mark.parametrize("optimiser", ["adamw_8bit", "paged_adamw_8bit"])
def test_moments_of_8_bit_are_kept_as_such(optimiser: Optimiser, tmp_path: Path) -> None:
    learner = optimizers.policy_learner(network(), configured(optimiser))
    steps(learner, range(2))
    save_learner(learner, tmp_path / "state")
    tensors = load_tensors(tmp_path / "state" / "training" / "policy.safetensors")
    kinds = {key.rpartition(".")[2]: value.dtype for key, value in tensors.items() if key.startswith("0.")}
    assert kinds["state1"] == kinds["state2"] == torch.uint8
    assert kinds["absmax1"] == kinds["qmap1"] == torch.float32
    small = {key.rpartition(".")[2]: value.dtype for key, value in tensors.items() if key.startswith("1.")}
    assert small == {"state1": torch.float32, "state2": torch.float32}
    numbers = json.loads((tmp_path / "state" / "training" / "policy.json").read_text())
    assert numbers["state"] == {"0": {"step": 2}, "1": {"step": 2}, "2": {"step": 2}}


@every_optimiser
def test_a_lost_moment_would_be_noticed(optimiser: Optimiser, tmp_path: Path) -> None:
    config = configured(optimiser)
    unbroken, fresh = (optimizers.policy_learner(network(), config) for _ in range(2))
    steps(unbroken, range(3))
    fresh.model.load_state_dict(unbroken.model.state_dict())
    for learner in (unbroken, fresh):
        steps(learner, range(3, 4))
    pairs = zip(unbroken.model.parameters(), fresh.model.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    learner = optimizers.policy_learner(network(), configured())
    steps(learner, range(1))
    save_learner(learner, tmp_path / "state")
    other = optimizers.policy_learner(torch.nn.Linear(96, 64), configured())
    with pytest.raises(CheckpointError, match=r"training/policy\.safetensors is of another model; start a new run"):
        optimizers.restore_learner(tmp_path / "state", "policy", other)
    wider = optimizers.policy_learner(torch.nn.Sequential(torch.nn.Linear(90, 64), network()[1]), configured())
    with pytest.raises(CheckpointError, match="is of another model"):
        optimizers.restore_learner(tmp_path / "state", "policy", wider)


def test_bitsandbytes_is_needed_only_for_8_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("bitsandbytes"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    optimizers.policy_learner(network(), configured())
    wanted = r"model\.optimiser is 'adamw_8bit', which needs bitsandbytes: pip install bitsandbytes, or set it to adamw"
    with pytest.raises(ConfigError, match=wanted):
        optimizers.policy_learner(network(), configured("adamw_8bit"))


@every_optimiser
def test_the_head_has_its_own_rate_and_betas_are_the_configured_ones(optimiser: Optimiser) -> None:
    discriminator = small_discriminator("anchored")
    config = configured(optimiser)
    learner = optimizers.discriminator_learner(discriminator, config)
    backbone, head = learner.optimizer.param_groups
    assert head["lr"] == pytest.approx(10 * backbone["lr"])
    assert tuple(backbone["betas"]) == config.policy.betas == (0.9, 0.99)
    assert [p.shape for p in head["params"]] == [p.shape for p in discriminator.head.parameters()]


def test_the_scale_of_float16_gradients_is_restored(tmp_path: Path) -> None:
    first, second = (optimizers.policy_learner(network(), configured()) for _ in range(2))
    for learner in (first, second):
        learner.scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    steps(first, range(2))
    assert first.scaler is not None and first.scaler.get_scale() == 16.0  # it grew
    save_learner(first, tmp_path / "state")
    optimizers.restore_learner(tmp_path / "state", "policy", second)
    assert second.scaler is not None and second.scaler.state_dict() == first.scaler.state_dict()


def test_no_scaler_where_gradients_are_not_taken_in_float16_on_a_gpu() -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        assert optimizers.policy_learner(network(), configured(dtype=dtype)).scaler is None


# -------------------------------------------------------------------------------------------------- discriminators


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "small", "llama", tiny_tokenizer())


def small_discriminator(kind: HeadKind, folder: Path | None = None, **base: Any) -> Discriminator:
    """With a head that is not zero, on adapters that change their base (or a whole random model)."""
    from tests.tiny import tiny_model

    if folder is None:
        backbone = tiny_model()
    else:
        lora = LoraConfig(rank=4, targets=("q_proj", "up_proj"))
        backbone = pretrained.with_adapters(pretrained.load_base(Base(str(folder), **base)), lora)
    discriminator = Discriminator(backbone, kind).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in discriminator.named_parameters():
            if "lora_B" in name or name.startswith("head"):
                parameter.normal_(std=0.3)
    return discriminator


def saved(discriminator: Discriminator, directory: Path) -> Path:
    described = {"format": 1, "name": "t", "kind": "transformers"}
    save_checkpoint(directory, optimizers.discriminator_files(discriminator) | {"config.json": described})
    return directory / "discriminator"


@pytest.mark.parametrize("kind", ["linear", "anchored", "cumulative"])
@pytest.mark.parametrize("held", [{}, {"dtype": "bfloat16"}, {"quantisation": "nf4", "dtype": "bfloat16"}])
@torch.no_grad()
def test_adapters_and_head_come_back_with_the_same_rewards(
    kind: HeadKind, held: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    discriminator = small_discriminator(kind, base, **held)
    loaded = load_discriminator(saved(discriminator, tmp_path / "checkpoint"))
    assert {p.dtype for p in loaded.head.parameters()} == {torch.float32}
    for name, value in discriminator.head.state_dict().items():
        assert torch.equal(value, loaded.head.state_dict()[name]), name
    expected, found = discriminator(BATCH), loaded(BATCH)
    # where the base is not quantised, the adapters are added to its weights, rounded to their type
    rounding = 0.0 if "quantisation" in held else 0.05 if held else 1e-4
    spread = float(expected.logits[BATCH.response_mask].std())
    error = (found.logits - expected.logits)[BATCH.response_mask].square().mean().sqrt()
    assert error <= rounding * max(1.0, spread) and spread > 0.01
    torch.testing.assert_close(found.prompt_logit, expected.prompt_logit, atol=2 * rounding, rtol=2 * rounding)


def test_a_discriminator_in_int8_is_refused_with_the_reason(base: Path, tmp_path: Path) -> None:
    folder = saved(small_discriminator("anchored", base, quantisation="int8"), tmp_path / "checkpoint")
    with pytest.raises(
        CheckpointError, match=r"held in int8, in which a solution's rewards depend on the solutions beside it"
    ):
        load_discriminator(folder)


def test_a_head_in_another_precision_is_refused(base: Path, tmp_path: Path) -> None:
    folder = saved(small_discriminator("anchored", base), tmp_path / "checkpoint")
    tensors = load_tensors(folder / "head.safetensors")
    save_file({name: value.bfloat16() for name, value in tensors.items()}, folder / "head.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.safetensors holds torch\.bfloat16; a head is kept in float32"):
        load_discriminator(folder)


def test_the_base_is_not_saved(base: Path, tmp_path: Path) -> None:
    folder = saved(small_discriminator("anchored", base), tmp_path / "checkpoint")
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "base.json", "head.json", "head.safetensors",
    ]  # fmt: skip
    weights = load_tensors(folder / "adapter_model.safetensors")
    # 2 layers; q_proj 64 -> 64 and up_proj 64 -> 128 by rank 4, in float32
    assert sum(value.numel() for value in weights.values()) == 2 * 4 * (64 + 64 + 64 + 128)
    assert {value.dtype for value in weights.values()} == {torch.float32}


# ------------------------------------------------------------------------------------------------------ tokenizers


def test_a_second_tokenizer_has_a_folder_of_its_own(tmp_path: Path) -> None:
    files = optimizers.tokenizer_files(tiny_tokenizer(), tmp_path, "discriminator/tokenizer")
    assert "discriminator/tokenizer/tokenizer.json" in files
    assert all(name.startswith("discriminator/tokenizer/") for name in files)
    assert files["discriminator/tokenizer/tokenizer.json"].read_bytes()
    assert "tokenizer.json" in optimizers.tokenizer_files(tiny_tokenizer(), tmp_path)
