"""How a run fails: with a reason, a mend, and everything from before whole. And when it stops by itself."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.config import TrainConfig
from irl_core.errors import CheckpointError, ConfigError
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.optimizer_step import Learner
from tests.runs import SFT, Killed, adversarial, assert_same_run, kill_at, metrics_of, status_of
from tests.tiny import changed
from train.interruption import Stopped
from train.run import train

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full, the device that is always full")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failures")


@pytest.fixture(scope="module")
def sft(folder: Path) -> Path:
    return train(SFT, folder / "sft")


@pytest.fixture(scope="module")
def irl(sft: Path) -> TrainConfig:
    return adversarial(sft, save_every=1)


@pytest.fixture(scope="module")
def unbroken(irl: TrainConfig, folder: Path) -> Path:
    return train(irl, folder / "unbroken").parent


def log_of(run_dir: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in (run_dir / "log.txt").read_text().splitlines()]


# --------------------------------------------------------------------------------------------------- not a number


def spoilt(step: int, real: Callable[..., float]) -> Callable[..., float]:
    """A policy whose gradient is not finite at this step (counted from 1)."""

    def spoil(learner: Learner, *arguments: Any) -> float:
        if learner.scheduler.last_epoch == step - 1:
            next(p for p in learner.model.parameters() if p.grad is not None).grad.fill_(math.nan)
        return real(learner, *arguments)

    return spoil


def test_a_gradient_that_is_no_number_saves_nothing_new(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, run_dir = changed(SFT, "run", save_every=1), folder / "nan"
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "step", spoilt(4, Learner.step))
        with pytest.raises(FloatingPointError, match=r"norm is nan\. The checkpoints are whole .* a new run with"):
            train(config, run_dir)
    status = status_of(run_dir)
    assert (status["state"], status["step"]) == ("failed", 3)
    assert "FloatingPointError" in status["reason"] and "policy.learning_rate" in status["reason"]
    assert [row["step"] for row in metrics_of(run_dir)] == [1, 2, 3]
    states = sorted((run_dir / "checkpoints").iterdir())
    assert [path.name for path in states] == ["step-000001", "step-000002", "step-000003"]
    for state in states:
        verify(state)
    assert log_of(run_dir)[-1].startswith("failed at step 3 of 5: FloatingPointError: ")


def test_a_loss_that_is_no_number_is_not_written(
    irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AdversarialTrainer.round

    def spoil(trainer: AdversarialTrainer, experts: Any) -> dict[str, float]:
        metrics = real(trainer, experts)
        return metrics | ({"disc/loss": math.inf} if trainer.round_number == 2 else {})

    monkeypatch.setattr(AdversarialTrainer, "round", spoil)
    with pytest.raises(FloatingPointError, match="disc/loss is inf"):
        train(irl, folder / "inf")
    assert [row["step"] for row in metrics_of(folder / "inf")] == [1]
    assert [path.name for path in (folder / "inf" / "checkpoints").iterdir()] == ["step-000001"]


# ------------------------------------------------------------------------------------------------------- full disks


@needs_full
@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt", "status.json", "best.json", "samples", "provenance.json"])
def test_a_full_disk_ends_the_run_with_the_reason(
    name: str, irl: TrainConfig, unbroken: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = folder / f"full-{name}"

    def fill(step: int, steps: int, metrics: dict[str, float], left: float) -> None:
        if step == 1:
            fill_up(run_dir, name)

    if name == "provenance.json":
        run_dir.mkdir()
        fill_up(run_dir, name)
    expected = "step-000002.jsonl" if name == "samples" else name
    with pytest.raises(CheckpointError, match=rf"{expected} could not be written \(No space left on device\); free"):
        train(irl, run_dir, on_step=fill)
    for path in run_dir.rglob("*"):
        if path.is_symlink():
            path.unlink()  # space is freed
    if name != "status.json":
        status = status_of(run_dir)
        assert status["state"] == "failed"
        assert f"CheckpointError: {expected} could not be written (No space left on device)" in status["reason"]
    if name == "status.json":
        force_failed(run_dir)
    if name == "metrics.jsonl":
        (run_dir / name).write_text((folder / "full-saved").read_text())
    train(irl, run_dir, resume=name != "provenance.json")
    assert_same_run(run_dir, unbroken)


def fill_up(run_dir: Path, name: str) -> None:
    """From now on the disk is full wherever this file is written."""
    if name in ("metrics.jsonl", "log.txt"):
        if name == "metrics.jsonl":
            (run_dir.parent / "full-saved").write_text((run_dir / name).read_text())
        (run_dir / name).unlink()
        (run_dir / name).symlink_to(FULL)
    elif name == "samples":
        (run_dir / "samples").mkdir(exist_ok=True)
        (run_dir / "samples" / "step-000002.jsonl.tmp").symlink_to(FULL)
    else:
        (run_dir / f"{name}.tmp").symlink_to(FULL)


def force_failed(run_dir: Path) -> None:
    """What could not be written: this process, which lives on, no longer trains."""
    status = load_json(run_dir / "status.json")
    (run_dir / "status.json").write_text(json.dumps(status | {"state": "failed"}))


def test_an_error_that_cannot_be_written_down_is_still_the_first_one(
    irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = folder / "twice"

    def fail(step: int, steps: int, metrics: dict[str, float], left: float) -> None:
        (run_dir / "status.json.tmp").symlink_to(FULL)
        raise RuntimeError("the first")

    with pytest.raises(RuntimeError, match="the first") as caught:
        train(irl, run_dir, on_step=fail)
    assert any("status.json and log.txt do not say so" in note for note in caught.value.__notes__)


# ------------------------------------------------------------------------------------------------------ by itself


def collapsed(real: Callable[..., dict[str, float]], since: int) -> Callable[..., dict[str, float]]:
    """Rounds that report a perfect discriminator from step ``since`` on, and a middling one before."""

    def round_(trainer: AdversarialTrainer, experts: Any) -> dict[str, float]:
        metrics = real(trainer, experts)
        value = 1.0 if trainer.round_number >= since else 0.7
        return metrics | {f"disc/accuracy_{name}": value for name in ("expert", "policy", "perturbed")}

    return round_


def test_a_collapsed_discriminator_warns_and_then_stops(
    irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AdversarialTrainer, "round", collapsed(AdversarialTrainer.round, 2))
    config, run_dir = changed(irl, "run", steps=12, patience=2, save_every=10, eval_every=0), folder / "collapsed"
    said: list[str] = []
    with pytest.raises(Stopped, match=r"stopped at step 5 of 12: the discriminator is right on every solution"):
        train(config, run_dir, say=said.append)
    warnings = [line for line in said if line.startswith("warning") and "discriminator" in line]
    assert len(warnings) == 1 and "step 3" in warnings[0] and "lower discriminator.learning_rate" in warnings[0]
    status = status_of(run_dir)
    assert (status["state"], status["step"]) == ("stopped", 5)
    assert "(for 4 steps); lower discriminator.learning_rate" in status["reason"]
    assert status["warnings"] == sum(line.startswith("warning") for line in said)
    verify(run_dir / "checkpoints" / "step-000005")
    # who goes on all the same gets as many steps again, and is not warned again
    with pytest.raises(Stopped, match="stopped at step 9 of 12"):
        train(config, run_dir, resume=True, say=said.append)
    assert [line for line in said if line.startswith("warning") and "discriminator" in line] == warnings
    train(config, run_dir, resume=True, say=said.append)
    assert status_of(run_dir)["state"] == "finished"


def test_warnings_are_counted_alike_after_a_resume(
    irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = AdversarialTrainer.round

    def cut_off(trainer: AdversarialTrainer, experts: Any) -> dict[str, float]:
        metrics = real(trainer, experts)
        return metrics | {"rollout/truncated": float(trainer.round_number in (1, 3, 4))}

    monkeypatch.setattr(AdversarialTrainer, "round", cut_off)
    run_dir, config = folder / "counted", changed(irl, "run", save_every=2)
    with pytest.raises(Killed):
        train(config, run_dir, on_step=kill_at(3))
    said: list[str] = []
    train(config, run_dir, resume=True, say=said.append)  # step 3 is made, and warned of, again
    assert status_of(run_dir)["warnings"] == 2
    assert [line.split(":")[1] for line in said if line.startswith("warning")] == [" step 3"]
    assert "step 5: over, after 2 in a row: all truncated" in said
    assert sum(line.startswith("warning") for line in log_of(run_dir)) == 3  # the log tells of all processes


# ----------------------------------------------------------------------------------------------- before it begins


def test_a_tracker_that_is_missing_is_named_before_anything_is_trained(
    irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(changed(irl, "run", trackers=("wandb",)), folder / "untracked")
    assert not (folder / "untracked").exists()


def test_other_data_does_not_resume(irl: TrainConfig, folder: Path, unbroken: Path) -> None:
    run_dir = folder / "other-data"
    with pytest.raises(Killed):
        train(irl, run_dir, on_step=kill_at(3))
    found = load_json(run_dir / "provenance.json")
    found["data"]["sha256"] = "0" * 64
    (run_dir / "provenance.json").write_text(json.dumps(found))
    before = (run_dir / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match=r"the data of 'demo' is not what other-data was started with"):
        train(irl, run_dir, resume=True)
    assert (run_dir / "metrics.jsonl").read_text() == before


def test_other_code_or_machines_are_said_and_written_down(irl: TrainConfig, folder: Path, unbroken: Path) -> None:
    run_dir = folder / "other-code"
    with pytest.raises(Killed):
        train(irl, run_dir, on_step=kill_at(3))
    found = load_json(run_dir / "provenance.json")
    found["versions"]["torch"] = "1.0"
    (run_dir / "provenance.json").write_text(json.dumps(found))
    said: list[str] = []
    train(irl, run_dir, resume=True, say=said.append)
    assert any(f"torch was 1.0 and is {torch.__version__}" in line for line in said)
    (entry,) = load_json(run_dir / "provenance.json")["resumed"]
    assert (entry["step"], entry["versions"]["torch"]) == (2, torch.__version__)
    assert_same_run(run_dir, unbroken)
