"""Whole runs of a tiny pair: their files, and that a run which was killed and resumed equals one that was not."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.checkpoints import CheckpointError, load_json, load_tensors, verify
from irl_core.config import (
    ConfigError,
    DataConfig,
    DiscriminatorConfig,
    ModelConfig,
    PolicyConfig,
    RunConfig,
    TrainConfig,
)
from irl_core.inspection import Lens
from irl_core.segmentation import make_trace
from tests.tiny import PROBLEM, SOLUTION, changed
from train import models, run
from train.run import Interrupted, train
from train.session import Session

SIZE = ModelConfig(hidden_size=24, layers=2, heads=2, intermediate_size=48, vocab_size=320, context=512)
SFT = TrainConfig(
    run=RunConfig(method="sft", seed=3, steps=5, save_every=2, calibration_problems=2),
    data=DataConfig(train_problems=12, max_completion_tokens=16),
    model=SIZE,
    policy=PolicyConfig(batch_size=4, learning_rate=5e-3, prompt_loss_weight=0.1),
)
LOGGED = {
    "step", "disc/loss", "disc/grad_norm", "rollout/correct", "rollout/truncated", "rollout/length",
    "disc/reward_expert", "disc/reward_policy", "disc/accuracy_expert", "disc/accuracy_policy",
    "time/generate_s", "time/discriminator_s",
}  # fmt: skip
LOGGED_LATER = LOGGED | {
    "policy/loss", "policy/grad_norm", "policy/clip_fraction", "policy/advantage_abs", "time/score_s", "time/policy_s",
}  # fmt: skip


class Killed(BaseException):
    """Stands for a process that dies: nothing in the code may catch it and tidy up."""


def kill_at(step: int) -> run.OnStep:
    def on_step(done: int, total: int, metrics: dict[str, float], seconds_left: float) -> None:
        if done == step:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def sft(folder: Path) -> Path:
    """A finished likelihood training."""
    return train(SFT, folder / "sft")


@pytest.fixture(scope="module")
def irl(sft: Path) -> TrainConfig:
    """Five adversarial rounds from there, with everything that has a state: warm-up, replay, a reference policy."""
    return replace(
        SFT,
        run=replace(SFT.run, method="irl", calibration_problems=4),
        model=replace(SIZE, policy=str(sft)),
        policy=replace(
            SFT.policy, prompts_per_round=2, num_generations=3, learning_rate=2e-3, kl_coefficient=0.1,
            updates_per_round=2, prompt_loss_weight=0.0,
        ),
        discriminator=DiscriminatorConfig(warmup_rounds=2, replay=1.0, learning_rate=1e-3, updates_per_round=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def unbroken(irl: TrainConfig, folder: Path) -> Path:
    return train(irl, folder / "unbroken").parent


def metrics_of(run_dir: Path, *, timed: bool = False) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return lines if timed else [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    files = sorted((run_dir / "final").rglob("*.safetensors"))
    return {f"{path.name}/{path.parent.name}/{k}": v for path in files for k, v in load_tensors(path).items()}


def assert_same_run(found: Path, expected: Path) -> None:
    assert metrics_of(found) == metrics_of(expected)
    one, other = weights_of(found), weights_of(expected)
    assert one.keys() == other.keys()
    for name, value in other.items():
        assert torch.equal(one[name], value), name


def status_of(run_dir: Path) -> dict[str, Any]:
    return load_json(run_dir / "status.json")


# --------------------------------------------------------------------------------------------- what a run leaves


def test_likelihood_training_lowers_its_loss(sft: Path) -> None:
    lines = metrics_of(sft.parent, timed=True)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all({"policy/loss", "policy/grad_norm", "rollout/length", "time/policy_s"} < line.keys() for line in lines)
    # untrained: about log 320 a token
    assert lines[0]["policy/loss"] == pytest.approx(math.log(320), abs=0.3)
    assert lines[-1]["policy/loss"] < lines[0]["policy/loss"] - 0.1


def test_a_round_is_one_line_with_its_keys(unbroken: Path) -> None:
    lines = metrics_of(unbroken, timed=True)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        wanted = LOGGED if line["step"] <= 2 else LOGGED_LATER  # two rounds of warm-up
        assert wanted <= line.keys()
        assert ("policy/loss" in line) == (line["step"] > 2)
        assert all(math.isfinite(value) for value in line.values())


def test_a_finished_run_says_so_and_keeps_its_last_states(unbroken: Path, irl: TrainConfig) -> None:
    status = status_of(unbroken)
    assert (status["state"], status["step"], status["steps"]) == ("finished", 5, 5)
    assert sorted(path.name for path in (unbroken / "checkpoints").iterdir()) == ["step-000002", "step-000004"]
    assert (unbroken / "config.yaml").read_text() == irl.to_yaml()


def test_progress_is_told_after_every_step(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    train(SFT, folder / "told", on_step=lambda step, steps, metrics, left: seen.append((step, steps)))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_the_checkpoint_answers_questions(unbroken: Path) -> None:
    verify(unbroken / "final")
    lens = Lens.load(unbroken / "final", device="cpu")
    (scored,) = lens.score([make_trace(PROBLEM, SOLUTION)])
    assert scored.has_signal
    assert len(scored.raw) == len(scored.encoded.completion_ids)
    located = lens.locate(scored)
    assert located.decision in ("error", "no_error", "uncertain")
    assert lens.name == "unbroken"
    assert lens.provenance["seed"] == 3
    assert lens.provenance["steps"] == 5
    assert lens.familiarity(PROBLEM).percentile is not None


def test_the_checkpoint_is_the_trained_pair(unbroken: Path, irl: TrainConfig) -> None:
    # from the last state one more round leads to the final weights: what is saved is what was trained
    session = Session.start(irl, unbroken, unbroken / "checkpoints" / "step-000004")
    session.round()
    lens = Lens.load(unbroken / "final", device="cpu")
    pairs = ((session.trainer.policy.model, lens.policy), (session.trainer.discriminator.model, lens.discriminator))  # type: ignore[union-attr]
    for trained, loaded in pairs:
        for name, value in trained.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name]), name


def test_outcome_training_runs_from_the_same_command(irl: TrainConfig, folder: Path) -> None:
    config = changed(irl, "run", method="grpo", steps=2)
    verify(train(config, folder / "grpo"))
    assert not any(key.startswith("disc/") for line in metrics_of(folder / "grpo") for key in line)


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
    restore = models.restore_learner
    monkeypatch.setattr(models, "restore_learner", lambda d, n, learner: None if n == name else restore(d, n, learner))
    session = Session.start(irl, unbroken, unbroken / "checkpoints" / "step-000004")
    session.round()
    model = getattr(session.trainer, name).model
    final = load_tensors(unbroken / "final" / name / "model.safetensors")
    state = (model.backbone if name == "discriminator" else model).state_dict()
    assert not all(torch.equal(state[key], value) for key, value in final.items())


SCRIPT = """
import sys, time
from pathlib import Path
from irl_core.config import load_config
from train.run import train

def on_step(step, steps, metrics, left):
    print(step, flush=True)
    if step == 3:
        time.sleep(120)

train(load_config(sys.argv[1]), Path(sys.argv[2]), on_step=on_step)
"""


def test_a_killed_process_leaves_a_run_that_resumes(irl: TrainConfig, unbroken: Path, folder: Path) -> None:
    run_dir, config_file = folder / "process", folder / "process.yaml"
    config = changed(irl, "run", preset="process")
    config_file.write_text(config.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(config_file), str(run_dir)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["1\n", "2\n", "3\n"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()  # type: ignore[union-attr]
    assert status_of(run_dir)["state"] == "running"
    with (run_dir / "metrics.jsonl").open("a") as target:
        target.write('{"step": 4, "disc/lo')  # as a kill in the middle of a write leaves it
    train(config, run_dir, resume=True)
    assert_same_run(run_dir, unbroken)


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


# ----------------------------------------------------------------------------------------------------------- refusals


def test_another_configuration_does_not_resume(irl: TrainConfig, unbroken: Path) -> None:
    before = (unbroken / "metrics.jsonl").read_text()
    with pytest.raises(ConfigError, match="unbroken was started with other settings"):
        train(changed(irl, "run", steps=6), unbroken, resume=True)
    assert (unbroken / "metrics.jsonl").read_text() == before


def test_a_run_is_not_overwritten(irl: TrainConfig, unbroken: Path) -> None:
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        train(irl, unbroken)


def test_nothing_to_resume(irl: TrainConfig, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to resume: nowhere has no config\.yaml; leave out --resume"):
        train(irl, folder / "nowhere", resume=True)
    assert not (folder / "nowhere").exists()


def test_a_missing_start_is_named(irl: TrainConfig, folder: Path) -> None:
    with pytest.raises(ConfigError, match="which is not there; name another folder"):
        train(changed(irl, "model", policy="nowhere/final"), folder / "no-start")
    assert status_of(folder / "no-start")["state"] == "failed"


def test_no_whole_state_to_resume_from(irl: TrainConfig, folder: Path) -> None:
    run_dir = folder / "all-damaged"
    with pytest.raises(Killed):
        train(irl, run_dir, on_step=kill_at(3))
    (run_dir / "checkpoints" / "step-000002" / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no whole checkpoint to resume from"):
        train(irl, run_dir, resume=True)


def test_a_finished_run_resumed_finishes_as_it_was(irl: TrainConfig, unbroken: Path, folder: Path) -> None:
    shutil.copytree(unbroken, folder / "again")
    train(irl, folder / "again", resume=True)
    assert status_of(folder / "again")["state"] == "finished"
    assert_same_run(folder / "again", unbroken)


# ------------------------------------------------------------------------------------------------ schedules by hand


def test_the_learning_rate_by_hand() -> None:
    factor = models.warm_up_then("cosine", 0.2, 10)
    # two steps up: 1/2, 1; then half a cosine over eight: at step 6 half way, at 10 nothing
    assert [factor(n) for n in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0])
    assert models.warm_up_then("linear", 0.2, 10)(6) == pytest.approx(0.5)
    assert models.warm_up_then("constant", 0.0, 10)(9) == 1.0


def test_the_discriminator_learns_fast_first_and_slowly_after() -> None:
    settings = DiscriminatorConfig(
        warmup_rounds=10, updates_per_round=2, warmup_learning_rate=5e-4, learning_rate=5e-5
    )
    config = changed(SFT, "run", method="irl")
    config = replace(config, discriminator=settings)
    session = Session.start(config, Path("unused"))
    learner = session.trainer.discriminator  # type: ignore[union-attr]
    rates = []
    for _ in range(24):
        rates.append([group["lr"] for group in learner.optimizer.param_groups])
        learner.optimizer.step()
        learner.scheduler.step()
    backbone, head = zip(*rates, strict=True)
    assert head == pytest.approx([10 * rate for rate in backbone])
    assert max(backbone[:20]) == pytest.approx(5e-4)
    assert backbone[20:] == pytest.approx([5e-5] * 4)
