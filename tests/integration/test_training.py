"""Whole runs of a tiny pair: the files that they leave, what they refuse, and how they fail."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.checkpoints.manifest import verify
from irl_core.config import DiscriminatorConfig, TrainConfig
from irl_core.distributed import World
from irl_core.errors import CheckpointError, ConfigError
from irl_core.reward.discriminator import HEAD_WEIGHTS, read_head
from irl_core.scorer import Lens
from irl_core.statistics.best_of_n import pass_at_k
from irl_core.storage.provenance import data_hash
from irl_core.text.segmentation import make_trace
from tests.runs import (
    SFT,
    Killed,
    adversarial,
    assert_same_run,
    judge_by_hash,
    kill_at,
    metrics_of,
    status_of,
    tensors_of,
)
from tests.tiny import PROBLEM, SOLUTION, changed
from train import optimizers
from train import run as run_module
from train.data import demo_problems
from train.monitoring import validation
from train.monitoring.validation import evaluate, held_out_problems, short_enough
from train.run import train
from train.training_state import TrainingState

LOGGED = {
    "step", "disc/loss", "disc/grad_norm", "disc/learning_rate", "policy/learning_rate", "rollout/samples",
    "rollout/correct", "rollout/unknown", "rollout/truncated", "rollout/length", "rollout/tokens", "train/tokens",
    "tokens/s",
    "disc/reward_expert", "disc/reward_policy", "disc/accuracy_expert", "disc/accuracy_policy", "memory/rss_gb",
    "time/generate_s", "time/discriminator_s", "time/step_s",
}  # fmt: skip
LOGGED_LATER = LOGGED | {
    "policy/loss", "policy/grad_norm", "policy/clip_fraction", "policy/advantage_abs", "rollout/zero_spread_groups",
    "rollout/logprob_mismatch", "time/score_s", "time/policy_s",
}  # fmt: skip
EVALUATED = {"eval/pass@1", "eval/low", "eval/high", "eval/n", "eval/truncated", "time/evaluate_s"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def sft(folder: Path) -> Path:
    """A finished likelihood training."""
    return train(SFT, folder / "sft")


@pytest.fixture(scope="module")
def irl(sft: Path) -> TrainConfig:
    return adversarial(sft)


@pytest.fixture(scope="module")
def unbroken(irl: TrainConfig, folder: Path) -> Path:
    return train(irl, folder / "unbroken").parent


# --------------------------------------------------------------------------------------------- what a run leaves


def test_likelihood_training_lowers_its_loss(sft: Path) -> None:
    lines = metrics_of(sft.parent, measured=True)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all({"policy/loss", "policy/grad_norm", "rollout/length", "time/policy_s"} < line.keys() for line in lines)
    # untrained: about log 320 a token
    assert lines[0]["policy/loss"] == pytest.approx(math.log(320), abs=0.3)
    assert lines[-1]["policy/loss"] < lines[0]["policy/loss"] - 0.1


def test_a_round_is_one_line_with_its_keys(unbroken: Path) -> None:
    lines = metrics_of(unbroken, measured=True)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        wanted = LOGGED if line["step"] <= 2 else LOGGED_LATER  # two rounds of warm-up
        wanted = wanted | EVALUATED if line["step"] in (2, 4, 5) else wanted
        assert wanted <= line.keys() <= wanted | {"disc/reward_perturbed", "disc/accuracy_perturbed"}
        assert ("policy/loss" in line) == (line["step"] > 2)
        assert all(math.isfinite(value) for value in line.values())


def test_a_finished_run_says_so_and_keeps_its_last_states(unbroken: Path, irl: TrainConfig) -> None:
    status = status_of(unbroken)
    assert (status["state"], status["step"], status["steps"]) == ("finished", 5, 5)
    assert sorted(path.name[-1] for path in (unbroken / "checkpoints").iterdir()) == ["2", "4", "5"]
    assert (unbroken / "config.yaml").read_text() == irl.to_yaml()


def test_progress_is_told_after_every_step_and_during_it(irl: TrainConfig, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    phases: Counter[str] = Counter()
    said: list[str] = []
    train(
        irl, folder / "told", on_step=lambda step, steps, metrics, left: seen.append((step, steps)),
        on_phase=lambda phase: phases.update([phase]), say=said.append,
    )  # fmt: skip
    assert seen == [(n, 5) for n in range(1, 6)]
    calibrating = [phase for phase in phases if phase.startswith("calibrating: ")]
    assert "calibrating: 32 of 32 samples" in calibrating and "calibrating: 32 of 32 samples scored" in calibrating
    assert phases.keys() - set(calibrating) == {
        "loading", "sampling", "discriminator", "scoring", "policy", "evaluating", "saving", "finishing",
    }  # fmt: skip
    assert (phases["sampling"], phases["evaluating"], phases["saving"], phases["finishing"]) == (5, 3, 3, 1)
    assert [line.split(":")[0] for line in said if "pass@1" in line] == ["step 2", "step 4", "step 5"]


def test_the_log_tells_what_was_said_with_its_time(unbroken: Path) -> None:
    lines = [line.split(" ", 1)[1] for line in (unbroken / "log.txt").read_text().splitlines()]
    assert lines[0] == "started at step 0 of 5"
    assert lines[-1] == "finished at step 5 of 5"
    kept = [line for line in lines if line.startswith(("saved", "kept"))]
    best = "kept step 2 as the best so far"
    assert kept == ["saved step-000002", best, "saved step-000004", "saved step-000005"]
    assert "step 4: pass@1 0.000 [0.000, 0.561] (n 3)" in lines  # Wilson, 0 of 3: 3.8415 / 6.8415


def test_what_the_run_was_made_with(unbroken: Path, irl: TrainConfig) -> None:
    found = load_json(unbroken / "provenance.json")
    assert (found["seed"], found["config"], found["processes"]) == (3, irl.fingerprint(), 1)
    assert found["data"]["traces"] == 12
    assert found["data"]["sha256"] == data_hash(TrainingState.start(irl).data.traces)
    assert found["versions"]["torch"] == torch.__version__
    assert found["resumed"] == []


def test_tensorboard_holds_every_step(unbroken: Path) -> None:
    board = EventAccumulator(str(unbroken / "tensorboard")).Reload()
    for key in ("disc/loss", "policy/learning_rate", "tokens/s"):
        logged = [(line["step"], np.float32(line[key])) for line in metrics_of(unbroken, measured=True)]
        assert [(event.step, np.float32(event.value)) for event in board.Scalars(key)] == logged
    assert [event.step for event in board.Scalars("eval/pass@1")] == [2, 4, 5]


def test_tokens_and_learning_rates_are_those_of_the_step(unbroken: Path) -> None:
    lines = metrics_of(unbroken, measured=True)
    for line in lines:
        total = line["rollout/tokens"] + line["train/tokens"]
        assert line["tokens/s"] == pytest.approx(total / line["time/step_s"], rel=1e-6)
        assert line["time/step_s"] >= line["time/generate_s"] + line["time/discriminator_s"]
    # two warm-up rounds of two updates; then three rounds of two updates of the policy, one of the six of them warm-up
    factor = optimizers.warm_up_then("cosine", 0.1, 6)
    assert [line["policy/learning_rate"] for line in lines] == pytest.approx(
        [2e-3 * factor(n) for n in (0, 0, 0, 2, 4)], rel=1e-6
    )


# ------------------------------------------------------------------------------------------- evaluation and the best


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "held_out_row", validation.held_out_row)  # put back afterwards
    judge_by_hash()


def test_pass_at_1_is_that_of_the_samples_that_were_kept(unbroken: Path, irl: TrainConfig) -> None:
    for line in metrics_of(unbroken):
        if "eval/pass@1" not in line:
            continue
        kept = unbroken / f"samples/step-{line['step']:06d}.jsonl"
        rows = [json.loads(text) for text in kept.read_text().splitlines()]
        drawn = [row for row in rows if row["split"] == "held_out"]
        assert Counter(row["number"] for row in drawn) == {0: 2, 1: 2, 2: 2}
        figure = pass_at_k([row["correct"] for row in drawn], [row["number"] for row in drawn], 1, seed=3)
        assert line["eval/pass@1"] == pytest.approx(figure.value)
        assert (line["eval/low"], line["eval/high"]) == pytest.approx((figure.low, figure.high))
        assert line["eval/n"] == 3
        assert line["eval/truncated"] == pytest.approx(sum(not row["finished"] for row in drawn) / 6)


def test_evaluation_problems_are_seen_nowhere_else(irl: TrainConfig, unbroken: Path) -> None:
    problems = held_out_problems(irl)
    assert len(problems) == 3
    asked = {trace.problem for trace in problems}
    session = TrainingState.start(irl)
    assert not asked & {trace.problem for trace in session.data.traces}
    for split, count in (("held_out", 50), ("calibration", irl.run.calibration_problems)):
        assert not asked & {problem.text for problem in demo_problems(irl, split, count)}  # type: ignore[arg-type]


def test_evaluation_leaves_the_training_as_it_was(irl: TrainConfig, unbroken: Path, sft: Path, folder: Path) -> None:
    without = train(adversarial(sft, eval_every=0), folder / "unevaluated").parent
    assert not (without / "best").exists() and not (without / "best.json").exists()
    plain = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in metrics_of(unbroken)]
    assert plain == metrics_of(without)
    one, other = tensors_of(without / "final"), tensors_of(unbroken / "final")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_evaluation_depends_on_seed_and_step_alone(irl: TrainConfig, unbroken: Path) -> None:
    session, problems = TrainingState.start(irl), held_out_problems(irl)

    def texts(step: int, config: TrainConfig = irl) -> list[str]:
        found = evaluate(
            session.trainer.policy.model, session.trainer.encoder, config, problems, step=step, world=World()
        )
        return [row["text"] for row in found.rows]

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = texts(2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert texts(2) == first
    assert texts(4) != first
    assert texts(2, changed(irl, "run", seed=4)) != first
    assert len(set(first)) > 1


class Half(World):
    """One of two processes; what both gathered is given to each."""

    def gather(self, objects: Any) -> list[Any]:
        GATHERED[self.rank] = list(objects)
        return GATHERED[0] + GATHERED[1]


GATHERED: list[list[Any]] = [[], []]


def test_two_processes_evaluate_what_one_would(irl: TrainConfig, unbroken: Path) -> None:
    session, problems = TrainingState.start(irl), held_out_problems(irl)
    policy, encoder = session.trainer.policy.model, session.trainer.encoder
    alone = evaluate(policy, encoder, irl, problems, step=2, world=World())
    found = [evaluate(policy, encoder, irl, problems, step=2, world=Half(rank, 2)) for rank in (0, 1)]
    assert found[1].rows == alone.rows
    assert found[1].figure == alone.figure


def test_the_best_is_kept_with_its_figure(irl: TrainConfig, folder: Path, judged: None) -> None:
    config = changed(irl, "run", eval_every=1, keep=5)
    run_dir = train(config, folder / "judged").parent
    lines = metrics_of(run_dir)
    values = [line["eval/pass@1"] for line in lines]
    assert len(set(values)) > 1
    place = values.index(max(values))
    best = load_json(run_dir / "best.json")
    assert best == {
        "step": place + 1, "value": values[place], "n": 3.0,
        "low": lines[place]["eval/low"], "high": lines[place]["eval/high"],
    }  # fmt: skip
    assert status_of(run_dir)["best"] == best
    verify(run_dir / "best")
    assert load_json(run_dir / "best" / "training" / "progress.json")["round"] == place + 1
    one, other = tensors_of(run_dir / "best"), tensors_of(run_dir / "checkpoints" / f"step-{place + 1:06d}")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_likelihood_training_is_evaluated_too(sft: Path, folder: Path) -> None:
    config = changed(SFT, "run", eval_every=5, eval_problems=2, eval_samples=2)
    run_dir = train(config, folder / "sft-evaluated").parent
    assert [row["step"] for row in metrics_of(run_dir) if "eval/pass@1" in row] == [5]
    (kept,) = (run_dir / "samples").iterdir()
    assert [json.loads(line)["split"] for line in kept.read_text().splitlines()] == ["held_out"] * 4
    plain = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in metrics_of(run_dir)]
    assert plain == metrics_of(sft.parent)


def test_a_best_that_a_kill_left_uncopied_is_made_on_resume(
    irl: TrainConfig, unbroken: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(run: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(run_module.TrainingRun, "keep_best", die)
        with pytest.raises(Killed):
            train(irl, folder / "uncopied")
    assert not (folder / "uncopied" / "best").exists()
    train(irl, folder / "uncopied", resume=True)
    assert_same_run(folder / "uncopied", unbroken)


def test_nothing_to_evaluate_on_is_said_before_the_models_are_loaded(irl: TrainConfig, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.eval_every is 2, and held-out problems to judge by there are 1 "):
        train(changed(irl, "run", eval_problems=1), folder / "one-problem")


def test_problems_that_are_too_long_are_left_out(irl: TrainConfig, unbroken: Path) -> None:
    encoder, problems = TrainingState.start(irl).trainer.encoder, held_out_problems(irl)
    lengths = sorted(len(encoder.encode_prompt(trace.problem)) for trace in problems)
    limit = changed(irl, "data", max_prompt_tokens=lengths[1])
    assert len(short_enough(problems, encoder, limit)) == 2
    with pytest.raises(ConfigError, match=rf"there are 1 \(.* within data.max_prompt_tokens = {lengths[0]}\)"):
        short_enough(problems, encoder, changed(irl, "data", max_prompt_tokens=lengths[0]))
    assert short_enough([], encoder, limit) == []


def test_the_samples_of_a_round_are_kept_with_their_rewards(irl: TrainConfig, unbroken: Path) -> None:
    assert sorted(path.name for path in (unbroken / "samples").iterdir()) == [
        "step-000002.jsonl", "step-000004.jsonl", "step-000005.jsonl",
    ]  # fmt: skip
    session = TrainingState.start(irl, unbroken / "checkpoints" / "step-000002")
    for _ in range(2):
        session.round()
    trainer: Any = session.trainer
    samples = [sample for group in trainer.groups for sample in group.samples]
    scores = trainer.pair.score(samples)
    rows = [json.loads(line) for line in (unbroken / "samples/step-000004.jsonl").read_text().splitlines()]
    drawn = [row for row in rows if row["split"] == "train"]
    assert len(drawn) == 6
    for row, sample, one in zip(drawn, samples, scores, strict=True):
        assert row["text"] == sample.trace.text
        assert row["problem_id"] == sample.trace.problem_id != ""
        assert row["correct"] is bool(sample.trace.correct)
        assert row["reward"] == pytest.approx(float(one.raw.mean()), abs=1e-6)


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
    session = TrainingState.start(irl, unbroken / "checkpoints" / "step-000004")
    session.round()
    lens = Lens.load(unbroken / "final", device="cpu")
    pairs = ((session.trainer.policy.model, lens.policy), (session.trainer.discriminator.model, lens.discriminator))  # type: ignore[union-attr]
    for trained, loaded in pairs:
        for name, value in trained.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name]), name


def test_the_finished_discriminator_is_given_its_anchor_and_the_state_is_not(irl: TrainConfig, folder: Path) -> None:
    settings = replace(irl.discriminator, head="linear", final_anchor=0.25)
    config = replace(irl, discriminator=settings, run=replace(irl.run, steps=2, eval_every=0))
    final = train(config, folder / "anchored")
    state = sorted((folder / "anchored" / "checkpoints").iterdir())[-1]
    assert read_head(final / "discriminator") == ("anchored", "policy")
    assert read_head(state / "discriminator") == ("linear", "own")
    kept, trained = (load_tensors(path / "discriminator" / HEAD_WEIGHTS) for path in (final, state))
    assert kept.pop("anchor").item() == 0.25
    assert kept.keys() == trained.keys() and all(torch.equal(kept[name], trained[name]) for name in kept)
    assert load_json(final / "config.json")["head"] == "anchored"
    (scored,) = Lens.load(final, device="cpu").score([make_trace(PROBLEM, SOLUTION)])
    assert scored.has_signal


def test_outcome_training_runs_from_the_same_command(irl: TrainConfig, folder: Path) -> None:
    config = changed(irl, "run", method="grpo", steps=2)
    final = train(config, folder / "grpo")
    verify(final)
    assert not (final / "discriminator").exists()
    with pytest.raises(CheckpointError, match="is a policy without a discriminator, as the methods sft and grpo"):
        Lens.load(final, device="cpu")
    assert not any(key.startswith("disc/") for line in metrics_of(folder / "grpo") for key in line)
    rows = [json.loads(line) for line in (folder / "grpo/samples/step-000002.jsonl").read_text().splitlines()]
    assert {row["reward"] for row in rows if row["split"] == "train"} == {None}


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
    factor = optimizers.warm_up_then("cosine", 0.2, 10)
    # two steps up: 1/2, 1; then half a cosine over eight: at step 6 half way, at 10 nothing
    assert [factor(n) for n in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.0])
    assert optimizers.warm_up_then("linear", 0.2, 10)(6) == pytest.approx(0.5)
    assert optimizers.warm_up_then("constant", 0.0, 10)(9) == 1.0


def test_the_discriminator_learns_fast_first_and_slowly_after() -> None:
    settings = DiscriminatorConfig(warmup_rounds=10, updates_per_round=2, warmup_learning_rate=5e-4, learning_rate=5e-5)
    config = changed(SFT, "run", method="irl")
    config = replace(config, discriminator=settings)
    session = TrainingState.start(config)
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
