"""Calibration: what counts as correct, where errors are known to be, and that config.json says which was used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from irl_core.config import DataConfig, RunConfig, TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.familiarity import prompt_logprob
from irl_core.policy.protocol import Rollout
from irl_core.reward.calibration import split_by_problem
from irl_core.reward.discriminator import Discriminator
from irl_core.reward.localisation import Calibration
from irl_core.reward.rewards import TRACE_SCORES
from irl_core.text.segmentation import segment
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.types import Source, Truth
from tests.tiny import pair_config, scores_by, tiny_lens, tiny_trainer
from train.backends.tiny import build_model, train_tokenizer
from train.calibrate import (
    UNDECIDED_TRACE_SCORE,
    best_trace_score,
    calibrated,
    evidence_from_answers,
    evidence_with_truth,
    held_out,
    perturbed_experts,
    problem_seed,
    scored_traces,
    work_of,
)
from train.data import calibration_traces
from train.kept_parts import KeptParts

HELD_OUT, SAMPLES = 24, 8


def row(number: int) -> dict[str, Any]:
    left, right = 10 + number, 7 + 3 * number
    both = left + right
    steps = [
        f"Both have {left}+{right}=<<{left}+{right}={both}>>{both}.",
        f"Then {both}-2=<<{both}-2={both - 2}>>{both - 2}.",
        f"#### {both - 2}",
    ]
    return {"question": f"Ann has {left}, Bo {right}; 2 go. How many?", "answer": "\n".join(steps)}


class Scripted:
    """A sampler that writes the expert's solution for the first ``right`` samples of a problem, else a wrong one."""

    def __init__(self, encoder: TraceEncoder, right: int, solved: int = HELD_OUT) -> None:
        self.encoder, self.right, self.solved = encoder, right, solved
        self.calls: list[dict[str, Any]] = []
        self.numbers = {tuple(encoder.encode_prompt(row(n + 10)["question"])): n for n in range(HELD_OUT)}

    def __call__(self, model: Any, prompts: Sequence[Sequence[int]], **options: Any) -> list[list[Rollout]]:
        self.calls.append(options | {"prompts": list(prompts)})
        options["on_step"](1, 1)
        numbers = [self.numbers.get(tuple(prompt), HELD_OUT) for prompt in prompts]
        return [[self._one(n, s < self.right and n < self.solved) for s in range(SAMPLES)] for n in numbers]

    def _one(self, number: int, right: bool) -> Rollout:
        text = row(number + 10)["answer"]
        ids = self.encoder.encode_prompt(text if right else text + "1")[1:-1]
        return Rollout((*ids, self.encoder.end_ids[0]), (-0.5,) * (len(ids) + 1), True)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(n)) + "\n" for n in range(10 + HELD_OUT)))
    data = DataConfig(source=str(path), held_out=HELD_OUT, max_prompt_tokens=120, max_completion_tokens=130)
    return replace(pair_config(method="irl"), data=data)


def scripted(config: TrainConfig, right: int, **options: Any) -> tuple[AdversarialTrainer, Scripted]:
    trainer = tiny_trainer(config)
    trainer.sampler = sampler = Scripted(trainer.encoder, right, **options)
    return trainer, sampler


# --------------------------------------------------------------------------------------- evidence from answers


def test_right_answers_count_as_correct_and_corrupted_experts_as_wrong(config: TrainConfig) -> None:
    trainer, sampler = scripted(config, 2)
    phases: list[str] = []
    trainer.on_progress = phases.append
    found = evidence_from_answers(trainer, config)
    experts = calibration_traces(config)
    assert [trace.problem for trace in experts] == [row(n)["question"] for n in range(10, 34)] == found.problems
    assert len(found.samples) == 24 * 8 and sum(bool(one.trace.correct) for one in found.samples) == 48
    right = [one for one in found.located if one.trace.source is Source.POLICY]
    wrong = [one for one in found.located if one.trace.source is Source.PERTURBED]
    assert len(found.located) == len(right) + len(wrong) and len(right) == 48 and len(wrong) == 24
    assert all(one.trace.truth == Truth(None) and one.trace.correct for one in right)
    assert found.note == (
        "limits from 48 correct samples of the policy; rule and error confidence from 24 corrupted expert solutions"
    )
    assert found.origin == "192 samples on 24 held-out problems"
    assert (
        phases[0].startswith("calibrating: 128 of 192 samples, ") and phases[1] == "calibrating: 192 of 192 samples"
    )  # 16 problems of 8 samples are a part
    assert [phase.split(",")[0] for phase in phases[1:]] == [
        "calibrating: 192 of 192 samples", "calibrating: 64 of 192 samples scored",
        "calibrating: 128 of 192 samples scored", "calibrating: 192 of 192 samples scored",
        "calibrating: 24 of 24 solutions scored",
    ]  # fmt: skip
    call = sampler.calls[0]
    drawn = {name: [value for one in sampler.calls for value in one[name]] for name in ("prompts", "seeds")}
    assert drawn["prompts"] == [trainer.encoder.encode_prompt(trace.problem) for trace in experts]
    assert (call["num_samples"], call["max_new_tokens"], call["top_p"], call["temperature"]) == (8, 130, 0.95, 1.0)
    assert drawn["seeds"] == [problem_seed(7, trace.problem) for trace in experts] and len(set(drawn["seeds"])) == 24


def test_with_too_few_correct_samples_the_experts_stand_for_them(config: TrainConfig) -> None:
    trainer, _ = scripted(config, 1, solved=24)  # 24 correct samples, and 30 are needed
    found = evidence_from_answers(trainer, config)
    believed = [one.trace for one in found.located if one.trace.truth == Truth(None)]
    assert [trace.text for trace in believed] == [row(n)["answer"] for n in range(10, 34)]
    assert all(trace.source is Source.EXPERT for trace in believed) and len(found.located) == 48
    assert found.note.startswith("limits from 24 expert solutions, since 24 correct samples are too few; rule and")


@pytest.mark.parametrize(("right", "solved", "enough"), [(2, 15, True), (1, 24, False), (8, 3, False), (8, 4, True)])
def test_thirty_correct_samples_are_enough(config: TrainConfig, right: int, solved: int, enough: bool) -> None:
    trainer, _ = scripted(config, right, solved=solved)
    assert evidence_from_answers(trainer, config).note.startswith(f"limits from {right * solved} corr") is enough


def test_where_a_corrupted_expert_errs_is_where_its_text_first_differs(config: TrainConfig) -> None:
    experts = calibration_traces(config)
    traces = perturbed_experts(experts, 7)
    assert traces == perturbed_experts(experts, 7) != perturbed_experts(experts, 8)
    assert {trace.truth.kind for trace in traces if trace.truth} >= {"offset_number", "flip_operator"}
    for expert, trace in zip(experts, traces, strict=True):
        assert trace.truth is not None and trace.truth.first_error_step is not None
        assert trace.truth.kind != "swap_answer" and trace.problem_id == expert.problem_id
        wrong = trace.truth.first_error_step
        old, new = ([step.text for step in segment(one.text)[1]] for one in (expert, trace))
        assert old[:wrong] == new[:wrong] and old[wrong] != new[wrong]


def test_the_units_are_the_samples_alone(config: TrainConfig) -> None:
    trainer, _ = scripted(config, 2)
    found = evidence_from_answers(trainer, config)
    values = np.concatenate([one.raw for one in found.samples])
    unit = found.samples[0].standardisation
    assert (unit.mean, unit.std) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    assert {one.standardisation for one in found.located} == {unit}


def test_too_few_held_out_problems(config: TrainConfig) -> None:
    few = replace(config, data=replace(config.data, held_out=19))
    trainer, _ = scripted(few, 2)
    with pytest.raises(ConfigError, match=r"^there are 19 held-out solutions .*data\.held_out is 19.*calibration_"):
        calibrated(trainer, few)


# ------------------------------------------------------------------------------------------------- calibration


def test_what_a_lens_needs_is_there(config: TrainConfig) -> None:
    trainer, _ = scripted(config, 2)
    trainer.policy.model.train()
    found = json.loads(json.dumps(calibrated(trainer, config), allow_nan=False))
    calibration = Calibration.from_json(found["localisation"])
    evidence = evidence_from_answers(trainer, config)
    limiting = split_by_problem([held_out(one) for one in evidence.located], 7)[1]
    assert calibration.n == sum(one.first_error_step is None for one in limiting) == 24  # two a problem of its half
    assert calibration.n_wrong == 12 and calibration.gamma == 0.9 and calibration.note == evidence.note
    assert np.isfinite([calibration.threshold, calibration.uncertain_threshold]).all()
    reference = found["reference"]
    prompts = [
        prompt_logprob(trainer.policy.model.eval(), trainer.encoder.encode_prompt(t.problem))
        for t in calibration_traces(config)
    ]
    assert dict(reference["prompt_logprob_quantiles"])[0.5] == pytest.approx(np.median(prompts), abs=1e-5)
    assert reference["n"] == 192 and reference["origin"] == evidence.origin
    assert reference["prompt_reward_mean"] == pytest.approx(np.mean([one.prompt_reward for one in evidence.samples]))
    assert found["default_trace_score"] == best_trace_score(evidence.samples)


def test_the_lens_names_what_its_unit_was_taken_from() -> None:
    lens = tiny_lens()
    assert lens.reference.origin == "held-out solutions of checkpoint tiny"
    lens.config["reference"] = lens.config["reference"] | {"origin": "192 samples on 24 held-out problems"}
    assert lens.reference.origin == "192 samples on 24 held-out problems of checkpoint tiny"


def test_generated_problems_know_every_first_error(config: TrainConfig) -> None:
    demo = replace(
        config, run=RunConfig(seed=7, calibration_problems=6), data=DataConfig(source="demo", max_completion_tokens=6)
    )
    trainer = tiny_trainer(demo)
    found = evidence_with_truth(trainer, demo)
    assert found.located is found.samples and len(found.samples) == 48 and found.note == ""
    assert all(one.trace.truth is not None for one in found.samples)
    assert set(calibrated(trainer, demo)) == {"localisation", "reference", "default_trace_score"}


def test_on_too_few_correct_samples_no_trace_score_is_chosen(config: TrainConfig) -> None:
    few, _ = scripted(config, 1, solved=24)  # 24 correct samples
    samples = evidence_from_answers(few, config).samples
    assert best_trace_score(samples) == UNDECIDED_TRACE_SCORE == "product"
    assert best_trace_score([*samples, *samples]) in TRACE_SCORES  # 48 are enough
    none, _ = scripted(config, 0)
    assert best_trace_score(evidence_from_answers(none, config).samples) == UNDECIDED_TRACE_SCORE


def test_a_discriminator_with_tokens_of_its_own_calibrates_in_the_policys(config: TrainConfig) -> None:
    trainer, _ = scripted(config, 2)
    own = train_tokenizer([], 260)
    trainer.discriminator_encoder = TraceEncoder(own)
    trainer.discriminator.model = Discriminator(build_model(config, own), "anchored", "own")
    traces = calibration_traces(config)[:3]
    for scored, trace in zip(scored_traces(trainer, traces), traces, strict=True):
        encoded = trainer.discriminator_encoder.encode(trace)
        (alone,) = scores_by(trainer.discriminator.model, [encoded])
        assert scored.encoded.spans == trainer.encoder.encode(trace).spans
        assert scored.raw[-1] == pytest.approx(alone.raw[-1], abs=1e-5)
        assert scored.prompt_reward == pytest.approx(alone.prompt_reward)
    assert calibrated(trainer, config)["localisation"]["n"] == 24


# --------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("killed_at", ["calibrating: 192 of 192 samples", "calibrating: 128 of 192 samples scored"])
def test_an_interrupted_calibration_goes_on_with_the_parts_that_are_there(
    config: TrainConfig, tmp_path: Path, killed_at: str
) -> None:
    unbroken = calibrated(scripted(config, 2)[0], config)
    trainer, sampler = scripted(config, 2)

    def stop(phase: str) -> None:
        if phase.startswith(killed_at):
            raise KeyboardInterrupt

    trainer.on_progress = stop
    kept = KeptParts(tmp_path / "calibrating", work_of(trainer, config))
    with pytest.raises(KeyboardInterrupt):
        calibrated(trainer, config, kept)
    phases: list[str] = []
    trainer.on_progress = phases.append
    before = len(sampler.calls)
    if killed_at.endswith("samples"):  # the call that was killed left no part
        sampler.calls.pop()
        before -= 1
    assert calibrated(trainer, config, kept) == unbroken
    assert len(sampler.calls) - before == (1 if killed_at.endswith("samples") else 0)
    assert not any(phase.startswith("calibrating: 128 of 192 samples,") for phase in phases)


def test_parts_of_other_weights_or_a_damaged_file_are_made_anew(config: TrainConfig, tmp_path: Path) -> None:
    trainer, sampler = scripted(config, 2)
    work = work_of(trainer, config)
    assert work == work_of(trainer, config) != work_of(trainer, replace(config, run=replace(config.run, seed=8)))
    kept = KeptParts(tmp_path / "calibrating", work)
    found = calibrated(trainer, config, kept)
    with torch.no_grad():
        next(trainer.pair.discriminator.parameters()).add_(0.01)
    other = work_of(trainer, config)
    assert other != work and not KeptParts(kept.folder, other).has("samples-000000")
    (tmp_path / "calibrating" / "samples-000000.json").write_text('{"work": ')
    with torch.no_grad():
        next(trainer.pair.discriminator.parameters()).sub_(0.01)
    sampler.calls.clear()
    assert not kept.has("samples-000000") and kept.has("samples-000016")
    assert (
        calibrated(trainer, config, KeptParts(kept.folder, work))["default_trace_score"] == found["default_trace_score"]
    )
    assert len(sampler.calls) == 1
    kept.remove()
    assert not (tmp_path / "calibrating").exists()
