"""Runs that were killed or asked to stop at any moment, and resumed: they equal one that nothing happened to."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.checkpoints.find import newest_verified
from irl_core.checkpoints.load import load_tensors
from irl_core.checkpoints.manifest import verify
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from tests.runs import (
    SFT,
    Killed,
    adversarial,
    assert_same_run,
    kill_at,
    metrics_of,
    status_of,
    train_in_process,
)
from tests.tiny import changed
from train import optimizers
from train.interruption import Interrupted
from train.run import train
from train.training_state import TrainingState

SLOW_DISK = 0.004  # seconds a file, so that a save takes a good part of a step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def sft(folder: Path) -> Path:
    return train(SFT, folder / "sft")


@pytest.fixture(scope="module")
def irl(sft: Path) -> TrainConfig:
    return adversarial(sft)


@pytest.fixture(scope="module")
def unbroken(irl: TrainConfig, folder: Path) -> Path:
    return train(irl, folder / "unbroken").parent


# -------------------------------------------------------------------------------------- killed and resumed (fault 8)


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_killed_and_resumed_equals_unbroken(step: int, irl: TrainConfig, unbroken: Path, folder: Path) -> None:
    # 1: before the first save; 2: after the step, before its save; 3: one step lost; 5: before the last save
    run_dir = folder / f"killed-{step}"
    with pytest.raises(Killed):
        train(irl, run_dir, on_step=kill_at(step))
    assert status_of(run_dir)["state"] == "failed"
    train(irl, run_dir, resume=True)
    assert_same_run(run_dir, unbroken)


def test_killed_twice_and_while_the_policy_waits(irl: TrainConfig, folder: Path, unbroken: Path) -> None:
    # a save after every step: the first holds a policy whose optimiser has never stepped
    run_dir = folder / "killed-twice"
    config = changed(irl, "run", save_every=1)
    with pytest.raises(Killed):
        train(config, run_dir, on_step=kill_at(2))
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["step-000001"]
    with pytest.raises(Killed):
        train(config, run_dir, resume=True, on_step=kill_at(4))
    train(config, run_dir, resume=True)
    assert_same_run(run_dir, unbroken)


def test_likelihood_training_resumes_too(sft: Path, folder: Path) -> None:
    with pytest.raises(Killed):
        train(SFT, folder / "sft-killed", on_step=kill_at(3))
    train(SFT, folder / "sft-killed", resume=True)
    assert_same_run(folder / "sft-killed", sft.parent)


@pytest.mark.parametrize("name", ["policy", "discriminator"])
def test_the_comparison_would_notice_a_lost_optimiser(
    name: str, irl: TrainConfig, unbroken: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore = optimizers.restore_learner
    monkeypatch.setattr(
        optimizers, "restore_learner", lambda d, n, learner: None if n == name else restore(d, n, learner)
    )
    session = TrainingState.start(irl, unbroken / "checkpoints" / "step-000004")
    session.round()
    model = getattr(session.trainer, name).model
    final = load_tensors(unbroken / "final" / name / "model.safetensors")
    state = (model.backbone if name == "discriminator" else model).state_dict()
    assert not all(torch.equal(state[key], value) for key, value in final.items())


def test_a_damaged_state_is_passed_over(
    irl: TrainConfig, unbroken: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = folder / "damaged"
    config = changed(irl, "run", save_every=1)
    with pytest.raises(Killed):
        train(config, run_dir, on_step=kill_at(5))
    weights = run_dir / "checkpoints" / "step-000004" / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    train(config, run_dir, resume=True)
    assert "passed over step-000004" in capsys.readouterr().err
    assert_same_run(run_dir, unbroken)


# ----------------------------------------------------------------------------------------------------- asked to stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_saves_and_goes_on_later(
    number: signal.Signals, irl: TrainConfig, unbroken: Path, folder: Path
) -> None:
    run_dir = folder / f"stopped-{number.name}"
    before = signal.getsignal(number)

    def ask(step: int, steps: int, metrics: dict[str, float], left: float) -> None:
        if step == 3:
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    with pytest.raises(Interrupted, match="stopped at step 3 of 5; go on with --resume"):
        train(irl, run_dir, on_step=ask)
    assert signal.getsignal(number) is before
    assert (status_of(run_dir)["state"], status_of(run_dir)["step"]) == ("interrupted", 3)
    verify(run_dir / "checkpoints" / "step-000003")
    train(irl, run_dir, resume=True)
    assert_same_run(run_dir, unbroken)


def test_a_stop_request_while_the_models_are_loaded_makes_no_step(
    irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*arguments: Any) -> TrainingState:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("loading went on")

    run_dir = folder / "asked-early"
    with monkeypatch.context() as patched:
        patched.setattr(TrainingState, "start", asked)
        with pytest.raises(Interrupted, match="stopped at step 0 of 5"):
            train(irl, run_dir)
    assert status_of(run_dir)["state"] == "interrupted"
    assert not (run_dir / "metrics.jsonl").exists() and not (run_dir / "checkpoints").exists()


@pytest.mark.parametrize("when", ["after the last step", "in the middle"])
def test_a_stop_request_while_it_finishes_is_obeyed_since_all_is_saved(
    when: str, irl: TrainConfig, unbroken: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = folder / f"finishing-{when.replace(' ', '-')}"

    def ask(step: int, steps: int, metrics: dict[str, float], left: float) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    def finish(session: TrainingState, directory: Path) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")

    with monkeypatch.context() as patched:
        if when == "in the middle":
            patched.setattr(TrainingState, "finish", finish)
        with pytest.raises(Interrupted, match="stopped at step 5 of 5; go on with --resume"):
            train(irl, run_dir, on_step=ask if when == "after the last step" else None)
    assert (status_of(run_dir)["state"], status_of(run_dir)["step"]) == ("interrupted", 5)
    assert not (run_dir / "final").exists()
    train(irl, run_dir, resume=True)
    assert status_of(run_dir)["state"] == "finished"
    assert_same_run(run_dir, unbroken)


# ------------------------------------------------------------------------------------------- processes that are killed


@pytest.fixture(scope="module")
def spawn(folder: Path) -> Iterator[Callable[..., Any]]:
    """Start a training in a process of its own; a server that has the libraries loaded already forks it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tests.runs", "train.training_state", "train.monitoring.validation", "train.calibrate"]
    )
    begun: list[Any] = []

    def start(config_file: Path, run_dir: Path, resume: bool, slow_disk: float = 0.0) -> Any:
        process = context.Process(target=train_in_process, args=(str(config_file), str(run_dir), resume, slow_disk))
        process.start()
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.is_alive():
            process.kill()
        process.join(30)


@pytest.fixture(scope="module")
def config_file(irl: TrainConfig, folder: Path) -> Path:
    """Four rounds, with an evaluation and a save after each."""
    path = folder / "processes.yaml"
    path.write_text(in_processes(irl).to_yaml())
    return path


def in_processes(irl: TrainConfig) -> TrainConfig:
    return changed(irl, "run", preset="processes", steps=4, eval_every=1, eval_samples=16, keep=2)


@pytest.fixture(scope="module")
def untouched(config_file: Path, spawn: Callable[..., Any], folder: Path) -> tuple[Path, float]:
    """The run that nobody disturbs, and the seconds that it took."""
    started = time.monotonic()
    process = spawn(config_file, folder / "untouched", False, SLOW_DISK)
    process.join(240)
    assert process.exitcode == 0
    assert len({row["eval/pass@1"] for row in metrics_of(folder / "untouched") if "eval/pass@1" in row}) > 1
    return folder / "untouched", time.monotonic() - started


def finish(config_file: Path, run_dir: Path, spawn: Callable[..., Any]) -> None:
    process = spawn(config_file, run_dir, (run_dir / "config.yaml").exists())
    process.join(240)
    assert process.exitcode == 0
    assert status_of(run_dir)["state"] == "finished"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments_it_equals_the_untouched_run(
    seed: int, config_file: Path, untouched: tuple[Path, float], spawn: Callable[..., Any], folder: Path
) -> None:
    expected, seconds = untouched
    rng, run_dir = random.Random(seed), folder / f"random-{seed}"
    for _ in range(3):
        process = spawn(config_file, run_dir, (run_dir / "config.yaml").exists(), SLOW_DISK)
        process.join(rng.uniform(0.1, 0.9) * seconds)
        if process.exitcode is not None:
            break
        process.kill()
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    finish(config_file, run_dir, spawn)
    assert_same_run(run_dir, expected)


@pytest.mark.parametrize(
    "name", ["checkpoints/step-000001.new", "checkpoints/step-000003.new", "best.new", "final.new"]
)
def test_killed_in_the_middle_of_a_save(
    name: str, config_file: Path, untouched: tuple[Path, float], spawn: Callable[..., Any], folder: Path
) -> None:
    run_dir = folder / f"saving-{name.replace('/', '-')}"
    process = spawn(config_file, run_dir, False, 5 * SLOW_DISK)
    while not (run_dir / name).exists():
        assert process.is_alive(), f"{name} was never seen"
        time.sleep(0.001)
    time.sleep(2 * SLOW_DISK)
    process.kill()
    process.join(30)
    assert (run_dir / name).exists()
    assert status_of(run_dir)["state"] == "running"
    finish(config_file, run_dir, spawn)
    assert_same_run(run_dir, untouched[0])
    said = Path(f"{run_dir}.said").read_text()
    assert f"the process {process.pid} that trained {run_dir.name} is gone; taking over" in said
    assert ("passed over step-000001.new: a first save that was not finished" in said) == ("step-000001" in name)


def wait_for(run_dir: Path, process: Any, **wanted: Any) -> None:
    """Until the status says so."""
    while True:
        assert process.is_alive(), "it ended before"
        if (run_dir / "status.json").exists():
            status = status_of(run_dir)
            if all(status[key] == value for key, value in wanted.items()):
                return
        time.sleep(0.002)


def test_a_second_start_is_refused_while_the_first_lives(
    config_file: Path, untouched: tuple[Path, float], irl: TrainConfig, spawn: Callable[..., Any], folder: Path
) -> None:
    run_dir = folder / "twice"
    process = spawn(config_file, run_dir, False, 5 * SLOW_DISK)
    wait_for(run_dir, process, step=2)
    second = spawn(config_file, run_dir, True)
    second.join(240)
    assert second.exitcode == 1
    for resume in (False, True):
        with pytest.raises(ConfigError, match=rf"twice is being trained by process {process.pid} \(step \d\)"):
            train(in_processes(irl), run_dir, resume)
    process.join(240)
    assert process.exitcode == 0
    assert_same_run(run_dir, untouched[0])


def test_signals_upon_signals_corrupt_nothing(
    config_file: Path, untouched: tuple[Path, float], spawn: Callable[..., Any], folder: Path
) -> None:
    run_dir = folder / "impatient"
    process = spawn(config_file, run_dir, False, 5 * SLOW_DISK)
    wait_for(run_dir, process, step=1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        if process.is_alive():
            os.kill(process.pid, number)
            time.sleep(0.02)
    process.join(240)
    assert process.exitcode == 0
    status = status_of(run_dir)
    assert status["state"] == "interrupted" and 1 <= status["step"] < 4
    newest, passed_over = newest_verified(run_dir)
    assert (newest.name, passed_over) == (f"step-{status['step']:06d}", [])
    assert [row["step"] for row in metrics_of(run_dir)] == list(range(1, status["step"] + 1))
    finish(config_file, run_dir, spawn)
    assert_same_run(run_dir, untouched[0])


def test_the_heart_beats_during_a_step(irl: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a step of many parts, each reported: the status is written while it goes on
    written: list[str] = []
    moments = iter(range(0, 10_000, 3))
    monkeypatch.setattr("train.run_folder.time.monotonic", lambda: next(moments))
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        real(source, target)
        if Path(target).name == "status.json":
            written.append(json.loads(Path(target).read_text())["phase"])

    monkeypatch.setattr("train.run_folder.os.replace", replace)
    train(changed(irl, "run", steps=3), folder / "beating", say=lambda line: None)
    assert {"sampling", "discriminator", "scoring", "policy", "evaluating"} <= set(written)
    assert written.count("sampling") > 10
