"""Whole runs of two processes under ``accelerate launch``: one set of files, one end, and no process left waiting."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import failure
from irl_core.presets import load_config
from tests.launching import SECONDS, finished, launch, process_of, wait_until
from tests.runs import metrics_of, status_of, tensors_of
from tests.small_models import save_model
from tests.tiny import tiny_tokenizer
from train.run import train

pytestmark = pytest.mark.timeout(900)  # several launches a test, each of two processes

STEPS = 8
TINY: dict[str, Any] = {
    "run": {
        "seed": 3, "steps": STEPS, "save_every": 2, "calibration_problems": 4,
        "eval_every": 4, "eval_problems": 3, "eval_samples": 2,
    },
    "data": {"train_problems": 20, "max_completion_tokens": 100},
    "model": {
        "hidden_size": 24, "layers": 2, "heads": 2, "intermediate_size": 48, "vocab_size": 320, "context": 1024,
    },
    "policy": {"prompts_per_round": 3, "num_generations": 3, "learning_rate": 2e-3},
    "discriminator": {"warmup_rounds": 1, "replay": 1.0, "learning_rate": 1e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("launched")
    (path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return path


def command(folder: Path, name: str, *options: str) -> list[str]:
    return ["train", str(folder / "tiny.yaml"), "--run-dir", str(folder / name), *options]


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> tuple[Path, str]:
    """A run of two processes, and what it printed."""
    printed = finished(launch("train.cli.main", *command(folder, "unbroken")))
    return folder / "unbroken", printed


def assert_same_end(run_dir: Path, unbroken: Path) -> None:
    """In every figure and every bit of every weight."""
    assert status_of(run_dir)["state"] == "finished"
    assert metrics_of(run_dir) == metrics_of(unbroken)
    found, expected = tensors_of(run_dir / "final"), tensors_of(unbroken / "final")
    assert found.keys() == expected.keys()
    assert all((found[name] == value).all() for name, value in expected.items())


def test_two_processes_leave_one_run(folder: Path, unbroken: tuple[Path, str]) -> None:
    run_dir, printed = unbroken
    assert [row["step"] for row in metrics_of(run_dir)] == list(range(1, STEPS + 1))
    assert status_of(run_dir)["state"] == "finished"
    assert failure(run_dir / "final") is None
    assert load_json(run_dir / "provenance.json")["processes"] == 2
    assert printed.count("Finished:") == 1
    log = (run_dir / "log.txt").read_text()
    assert log.count("started at step 0") == log.count("finished at step 8") == log.count("saved step-000006") == 1
    samples = (run_dir / "samples" / "step-000004.jsonl").read_text().splitlines()
    assert len(samples) == 3 * 2 + 3 * 3  # of the evaluation and of the round: those of both processes
    assert not list(run_dir.rglob("*.tmp"))


def test_two_processes_begin_as_one_would(folder: Path, unbroken: tuple[Path, str]) -> None:
    config = load_config(str(folder / "tiny.yaml"), ["run.steps=2", "run.eval_every=0"])
    alone = metrics_of(train(config, folder / "alone").parent)
    together = metrics_of(unbroken[0])
    for found, expected in zip(together[:2], alone, strict=True):
        shared = {key: value for key, value in expected.items() if "learning_rate" not in key}
        assert {key: found[key] for key in shared} == pytest.approx(shared, rel=2e-3, abs=1e-5)


def test_asked_to_stop_killed_and_resumed_a_run_ends_as_an_unbroken_one(
    folder: Path, unbroken: tuple[Path, str]
) -> None:
    run_dir = folder / "broken"
    launcher = launch("train.cli.main", *command(folder, "broken"))
    wait_until(lambda: (run_dir / "checkpoints" / "step-000002").is_dir(), launcher)
    process_of(launcher, 1).send_signal(signal.SIGTERM)  # one is asked, both stop after the same step
    printed = finished(launcher)
    status = status_of(run_dir)
    assert status["state"] == "interrupted"
    assert failure(run_dir / "checkpoints" / f"step-{status['step']:06d}") is None
    assert printed.count("Go on with the same command and --resume") == 1

    launcher = launch("train.cli.main", *command(folder, "broken", "--resume"))
    wait_until(lambda: (run_dir / "checkpoints" / "step-000006").is_dir(), launcher)
    victim = process_of(launcher, 1)
    victim.kill()
    started = time.monotonic()
    launcher.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert launcher.returncode != 0
    status = status_of(run_dir)
    assert status["state"] == "failed"
    assert status["reason"].startswith(f"ProcessLost: process 1 (pid {victim.pid} on ")
    assert "is gone without a word" in status["reason"]

    finished(launch("train.cli.main", *command(folder, "broken", "--resume")))
    assert_same_end(run_dir, unbroken[0])


def test_processes_that_the_launcher_starts_again_go_on_with_the_run(folder: Path, unbroken: tuple[Path, str]) -> None:
    again = command(folder, "again")
    printed = finished(launch("tests.launching", "is_killed_in_its_fourth_step", *again, restarts=1))
    assert "exitcode: -9" in printed
    log = (folder / "again" / "log.txt").read_text()
    assert log.count("started at step 0") == log.count("resumed at step 2") == 1
    assert_same_end(folder / "again", unbroken[0])


def test_a_run_of_before_is_not_taken_over_by_starting_again(folder: Path, unbroken: tuple[Path, str]) -> None:
    launcher = launch("train.cli.main", *command(folder, "unbroken"), restarts=1)
    printed = launcher.communicate(timeout=SECONDS)[0]
    assert launcher.returncode != 0
    assert "unbroken already holds a run; add --resume" in printed


def test_one_process_goes_on_from_the_state_of_two(folder: Path, unbroken: tuple[Path, str]) -> None:
    run_dir = folder / "alone after two"
    shutil.copytree(unbroken[0], run_dir)
    for name in ("final", "checkpoints/step-000008"):
        shutil.rmtree(run_dir / name)
    status = status_of(run_dir) | {"state": "interrupted", "step": 6}
    (run_dir / "status.json").write_text(json.dumps(status))
    said: list[str] = []
    train(load_config(str(folder / "tiny.yaml")), run_dir, resume=True, say=said.append)
    assert any("processes was 2 and is 1" in line for line in said)
    for found, expected in zip(metrics_of(run_dir), metrics_of(unbroken[0]), strict=True):
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)


def test_the_error_of_another_process_is_the_run_s(folder: Path) -> None:
    launcher = launch("tests.launching", "fails_at_the_second_step", *command(folder, "failing"))
    printed = launcher.communicate(timeout=100)[0]
    assert launcher.returncode != 0
    status = status_of(folder / "failing")
    assert (status["state"], status["step"]) == ("failed", 1)
    assert status["reason"] == "ProcessLost: process 1 failed: ValueError: a fault of one machine"
    assert "irl-lens: process 1 failed: ValueError: a fault of one machine" in printed


def test_other_settings_on_one_process_are_refused(folder: Path) -> None:
    launcher = launch("tests.launching", "has_other_settings", *command(folder, "differing"))
    printed = launcher.communicate(timeout=100)[0]
    assert launcher.returncode != 0
    assert printed.count("has other settings than process 0 on") == 2
    assert "Traceback" not in printed.partition("elastic")[0]
    assert not (folder / "differing").exists()


# ---------------------------------------------------------------------------------------------------------- FSDP


@pytest.fixture(scope="module")
def pretrained(folder: Path) -> list[str]:
    """Settings of a pair with adapters on random models."""
    for name, seed in (("policy", 1), ("reader", 2)):
        save_model(folder / name, "llama", tiny_tokenizer(), seed=seed)
    settings = (
        "run.steps=4", "model.backend=transformers", f"model.policy={folder / 'policy'}",
        f"model.discriminator={folder / 'reader'}", "model.lora.rank=4", "policy.kl_coefficient=0.1",
        "data.max_completion_tokens=200", "data.max_prompt_tokens=300",
    )  # fmt: skip
    return [part for setting in settings for part in ("--set", setting)]


def test_sharded_runs_equal_whole_ones_and_are_resumed(folder: Path, pretrained: list[str]) -> None:
    finished(launch("train.cli.main", *command(folder, "whole", *pretrained)))
    launcher = launch("train.cli.main", *command(folder, "sharded", *pretrained), configuration="fsdp.yaml")
    run_dir = folder / "sharded"
    wait_until(lambda: (run_dir / "checkpoints" / "step-000002").is_dir(), launcher)
    process_of(launcher, 0).send_signal(signal.SIGTERM)
    finished(launcher)
    assert status_of(run_dir)["state"] == "interrupted"
    finished(launch("train.cli.main", *command(folder, "sharded", *pretrained, "--resume"), configuration="fsdp.yaml"))
    assert_same_end(run_dir, folder / "whole")
    assert (run_dir / "final" / "policy" / "adapter_model.safetensors").is_file()
