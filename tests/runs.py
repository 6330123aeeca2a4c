"""Whole runs small enough for a test, how two are compared, and a process to be killed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.config import DataConfig, DiscriminatorConfig, ModelConfig, PolicyConfig, RunConfig, TrainConfig
from irl_core.presets import load_config
from train import run
from train.interruption import Interrupted
from train.monitoring import validation

SIZE = ModelConfig(hidden_size=24, layers=2, heads=2, intermediate_size=48, vocab_size=320, context=512)
SFT = TrainConfig(
    run=RunConfig(method="sft", seed=3, steps=5, save_every=2, calibration_problems=2),
    data=DataConfig(train_problems=40, max_completion_tokens=64, held_out=12),  # 12 of the 40 are that short,
    model=SIZE,
    policy=PolicyConfig(batch_size=4, learning_rate=5e-3, prompt_loss_weight=0.1),
)
MEASURED = ("time/", "memory/", "tokens/s")  # differ from run to run


def adversarial(policy: Path, **changes: Any) -> TrainConfig:
    """Five adversarial rounds from a trained policy, with everything that has a state: warm-up of the discriminator,
    replayed samples, a reference policy, evaluations of which the best is kept. ``changes`` are those of ``run``."""
    settings = {"method": "irl", "calibration_problems": 4, "eval_every": 2, "eval_problems": 3, "eval_samples": 2}
    return replace(
        SFT,
        run=replace(SFT.run, **settings | changes),
        model=replace(SIZE, policy=str(policy)),
        policy=replace(
            SFT.policy, prompts_per_round=2, num_generations=3, learning_rate=2e-3, kl_coefficient=0.1,
            updates_per_round=2, prompt_loss_weight=0.0,
        ),
        discriminator=DiscriminatorConfig(warmup_rounds=2, replay=1.0, learning_rate=1e-3, updates_per_round=2),
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------------- comparing


def metrics_of(run_dir: Path, *, measured: bool = False) -> list[dict[str, float]]:
    """The lines of ``metrics.jsonl``; without ``measured`` only what a resumed run shares with an unbroken one."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return lines if measured else [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in lines]


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_tensors(path).items()
    }


def status_of(run_dir: Path) -> dict[str, Any]:
    return load_json(run_dir / "status.json")


def assert_same_run(found: Path, expected: Path) -> None:
    """Equal metrics, best figure and samples; equal weights and optimisers, in the states that both have too."""
    assert metrics_of(found) == metrics_of(expected)
    for name in ("best.json", *(str(path.relative_to(expected)) for path in expected.glob("samples/*"))):
        texts = [(run_dir / name).read_text() if (run_dir / name).exists() else None for run_dir in (found, expected)]
        assert texts[0] == texts[1], name
    states = [{path.name for path in (run_dir / "checkpoints").iterdir()} for run_dir in (found, expected)]
    common = states[0] & states[1]
    assert common
    for name in ("best", "final", *(f"checkpoints/{state}" for state in sorted(common))):
        one, other = tensors_of(found / name), tensors_of(expected / name)
        assert one.keys() == other.keys(), name
        for key, value in other.items():
            assert torch.equal(one[key], value), f"{name}/{key}"


# ------------------------------------------------------------------------------------------------------- killing


class Killed(BaseException):
    """Stands for a process that dies: nothing in the code may catch it and tidy up."""


def kill_at(step: int) -> run.OnStep:
    def on_step(done: int, total: int, metrics: dict[str, float], seconds_left: float) -> None:
        if done == step:
            raise Killed

    return on_step


def judge_by_hash() -> None:
    """An untrained policy solves nothing, and every pass@1 would be 0: let chance, fixed by the text, be the judge."""
    honest = validation.held_out_row

    def row(*arguments: Any) -> dict[str, Any]:
        found = honest(*arguments)
        return found | {"correct": hashlib.sha256(found["text"].encode()).digest()[0] < 128}

    validation.held_out_row = row


def train_in_process(config_file: str, run_dir: str, resume: bool, slow_disk: float = 0.0) -> None:
    """What a process of its own runs: to be killed. ``slow_disk``: seconds that each file takes to reach the disk.

    Its exit status is 0 where the run finished or was interrupted, else 1.
    """
    torch.set_num_threads(1)
    judge_by_hash()
    if slow_disk:
        real = os.fsync

        def fsync(descriptor: int) -> None:
            time.sleep(slow_disk)
            real(descriptor)

        os.fsync = fsync
    said = open(f"{run_dir}.said", "a")  # noqa: SIM115
    try:
        run.train(load_config(config_file), Path(run_dir), resume, say=lambda line: print(line, file=said, flush=True))
    except Interrupted:
        return
