"""Pretrained pairs on CUDA: precisions, quantised bases, 8-bit and paged optimisers, float16's scaler, unsloth."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.config import (
    DataConfig,
    DiscriminatorConfig,
    LoraConfig,
    ModelConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from irl_core.scorer import Lens
from irl_core.training.adversarial import AdversarialTrainer
from tests.small_models import save_model
from tests.tiny import CALIBRATION, REFERENCE, tiny_tokenizer
from train.training_state import TrainingState

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

LORA = LoraConfig(rank=8, alpha=16)
NF4 = {"lora": LORA, "dtype": "bfloat16", "quantisation": "nf4", "gradient_checkpointing": True}
HELD: dict[str, dict[str, Any]] = {
    "full bfloat16": {"dtype": "bfloat16"},
    "full float16": {"dtype": "float16"},
    "adapters bfloat16": {"lora": LORA, "dtype": "bfloat16", "packing": True},
    "adapters float16": {"lora": LORA, "dtype": "float16"},
    "nf4": NF4 | {"optimiser": "adamw_8bit"},
    "nf4 paged": NF4 | {"optimiser": "paged_adamw_8bit", "packing": True},
    "nf4 float16": NF4 | {"dtype": "float16"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four heads of width 64."""
    path = tmp_path_factory.mktemp("models") / "small"
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    return save_model(path, "llama", tiny_tokenizer(), dtype="bfloat16", contrast=1.0, **shape)


@pytest.fixture(autouse=True)
def calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration has tests of its own, and a random model nothing to calibrate."""
    from train import calibrate

    found = {"reference": REFERENCE, "localisation": CALIBRATION.to_json(), "default_trace_score": "minimum"}
    monkeypatch.setattr(calibrate, "calibrated", lambda trainer, config, kept: found)


def configured(folder: Path, **model: Any) -> TrainConfig:
    return TrainConfig(
        run=RunConfig(seed=3, steps=3, save_every=1),
        data=DataConfig(train_problems=24, max_prompt_tokens=300, max_completion_tokens=200),
        model=ModelConfig(**({"backend": "transformers", "policy": str(folder)} | model)),
        policy=PolicyConfig(prompts_per_round=2, num_generations=2, learning_rate=1e-3, kl_coefficient=0.05),
        discriminator=DiscriminatorConfig(learning_rate=1e-3),
    )


def started(config: TrainConfig, state: Path | None = None) -> tuple[TrainingState, AdversarialTrainer]:
    session = TrainingState.start(config, state)
    assert isinstance(session.trainer, AdversarialTrainer)
    return session, session.trainer


def check_run(config: TrainConfig, tmp_path: Path) -> None:
    """Three rounds; resumed after the first; loaded with the rewards of the discriminator in memory."""
    session, trainer = started(config)
    assert trainer.policy.device == trainer.discriminator.device == torch.device("cuda", 0)
    session.round()
    session.save(tmp_path / "step-000001")
    for _ in range(2):
        metrics = session.round()
    assert all(math.isfinite(metrics[key]) for key in ("disc/loss", "policy/loss", "disc/reward_expert"))
    for learner in (trainer.policy, trainer.discriminator):
        trained = [p for p in learner.model.parameters() if p.requires_grad]
        assert {p.dtype for p in trained} == {torch.float32}
        assert all(torch.isfinite(p).all() for p in trained)
        assert (learner.scaler is not None) == (config.model.dtype == "float16")
    resumed, again = started(config, tmp_path / "step-000001")
    assert math.isfinite(resumed.round()["disc/loss"])
    if config.model.optimiser == "paged_adamw_8bit":
        states = again.policy.optimizer.state.values()
        large = [state["state1"] for state in states if state["state1"].numel() >= 1e5]
        assert all(getattr(moment, "is_paged", False) for moment in large)
    lens = Lens.load(session.finish(tmp_path / "final"), "cuda")
    trace = session.data.traces[0]
    (scored,) = lens.score([trace])
    (expected,) = trainer.pair.score([trainer.encoder.encode(trace)])
    # 8 bits of bfloat16 (10 of float16) over four products a layer
    torch.testing.assert_close(torch.from_numpy(scored.raw), torch.from_numpy(expected.raw), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("held", list(HELD))
def test_a_run_on_the_gpu(held: str, folder: Path, tmp_path: Path) -> None:
    if HELD[held].get("quantisation", "none") != "none" or "8bit" in HELD[held].get("optimiser", ""):
        pytest.importorskip("bitsandbytes")
    check_run(configured(folder, **HELD[held]), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed")
@pytest.mark.parametrize("quantisation", ["none", "nf4"])
def test_a_run_with_unsloth(quantisation: str, folder: Path, tmp_path: Path) -> None:
    config = configured(folder, **NF4 | {"backend": "unsloth", "quantisation": quantisation})
    check_run(replace(config, policy=replace(config.policy, sampler="generate")), tmp_path)
