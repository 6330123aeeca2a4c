"""Two processes on two GPUs (NCCL): whole and sharded runs begin alike, and a lost process ends a run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.launching import finished, launch, process_of, wait_until
from tests.runs import metrics_of, status_of
from tests.small_models import save_model
from tests.tiny import tiny_tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"),
]
SETTINGS = (
    "seed=3", "steps=6", "run.save_every=2", "run.calibration_problems=4", "run.eval_every=0",
    "data.source=demo", "data.train_problems=40", "data.max_completion_tokens=200", "data.max_prompt_tokens=300",
    "model.backend=transformers", "model.dtype=bfloat16", "model.lora.rank=8", "model.gradient_checkpointing=true",
    "policy.prompts_per_round=3", "policy.num_generations=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    for name, seed in (("policy", 1), ("reader", 2)):
        save_model(folder / name, "llama", tiny_tokenizer(), dtype="bfloat16", contrast=1.0, seed=seed, **shape)
    named = (f"model.policy={folder / 'policy'}", f"model.discriminator={folder / 'reader'}")
    return [part for setting in (*SETTINGS, *named) for part in ("--set", setting)]


def command(run_dir: Path, options: list[str]) -> list[str]:
    empty = run_dir.parent / "pair.yaml"
    empty.write_text("{}\n")
    return ["train", str(empty), "--run-dir", str(run_dir), *options]


def test_sharded_runs_begin_as_whole_ones_and_are_resumed(tmp_path: Path, options: list[str]) -> None:
    for name in ("ddp", "fsdp"):
        finished(launch("train.cli.main", *command(tmp_path / name, options), configuration=f"{name}.yaml", gpus="0,1"))
        assert status_of(tmp_path / name)["state"] == "finished"
    whole, sharded = (metrics_of(tmp_path / name)[0] for name in ("ddp", "fsdp"))
    for key in ("disc/loss", "rollout/length", "disc/reward_expert"):  # of the first step, before any update
        assert sharded[key] == pytest.approx(whole[key], rel=0.02), key
    again = [*command(tmp_path / "fsdp", options), "--resume"]
    finished(launch("train.cli.main", *again, configuration="fsdp.yaml", gpus="0,1"))


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_killed_process_ends_the_run(tmp_path: Path, options: list[str], kind: str) -> None:
    run_dir = tmp_path / "killed"
    options = [*options, "--set", "steps=1000"]
    launcher = launch("train.cli.main", *command(run_dir, options), configuration=f"{kind}.yaml", gpus="0,1")
    wait_until(lambda: (run_dir / "checkpoints" / "step-000002").is_dir(), launcher)
    process_of(launcher, 1).kill()
    started = time.monotonic()
    launcher.communicate(timeout=120)
    assert time.monotonic() - started < 40
    status = status_of(run_dir)
    assert status["state"] == "failed"
    assert "is gone without a word" in status["reason"]
