"""Calibration of a trained pair: thresholds of the first-error rule, reference statistics, familiarity.

It is measured on problems that neither training nor the reported figures use. For generated problems the first error
of every sample is known. For others only the final answer is: a sample with the right one counts as correct, and the
first error is known of perturbed expert solutions.

It takes long on pretrained models, so samples and scores are made in parts, which are kept until the calibration is
written: one that is interrupted goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from irl_core.config import TrainConfig
from irl_core.data.word_problems.check import first_error
from irl_core.data.word_problems.quantities import WordProblem
from irl_core.distributed import World
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.familiarity import prompt_logprob
from irl_core.policy.protocol import Rollout
from irl_core.reward.calibration import HeldOut, calibrate, candidate_rules
from irl_core.reward.rewards import TRACE_SCORES
from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals, trace_score
from irl_core.statistics.separation import pair_accuracy
from irl_core.text.divergence import value_departure
from irl_core.text.perturbations import ALL_KINDS, perturb, perturbed_trace
from irl_core.training.model_pair import TraceRewards
from irl_core.training.reward_trainer import RewardTrainer
from irl_core.types import EncodedTrace, ScoredTrace, Standardisation, Trace, Truth
from train.data import calibration_traces, demo_problems, in_a_style
from train.kept_parts import KeptParts
from train.labelled_data import labels_to_calibrate
from train.planning.describe import hours

QUANTILES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
TEMPERATURE = 1.0
TOP_P = 0.95
MIN_CORRECT_SAMPLES = 30
# Models do not err by a wrong last line after right steps, but a rule that finds it looks at closing lines.
LOCATED_KINDS = tuple(kind for kind in ALL_KINDS if kind != "swap_answer")
# Labels by value say of every token whether the solution is still right there, which is a level: its lowest or its last
# one in a step names the step on solutions of other authors too. Drops and means win on the policy's own samples alone.
LEVELS_OF_A_STEP = ("min", "last")
UNDECIDED_TRACE_SCORE = "product"  # the usual one of process-reward models
SAMPLES_OF_A_PART, SCORED_IN_A_PART = 128, 64  # what an interruption loses at most
NOTHING_KEPT = KeptParts()


# ------------------------------------------------------------------------------------------------------- the work


@dataclass(slots=True)
class Pace:
    """Tells how far a stage of the calibration is, and the time that it has left by the pace of this process.

    Attributes:
        trainer: whose ``on_progress`` is told.
        what: what is counted, in words.
        total: how many there are.
        kept: how many of them an earlier process made.
    """

    trainer: RewardTrainer
    what: str
    total: int
    kept: int = 0
    started: float = field(default_factory=time.monotonic)

    def reached(self, done: float) -> None:
        """Say that so many are made, those of earlier processes with them."""
        made = done - self.kept
        going = made > 0 and done < self.total
        left = (time.monotonic() - self.started) / made * (self.total - done) if going else None
        words = f"calibrating: {int(done):,} of {self.total:,} {self.what}"
        self.trainer.on_progress(words if left is None else f"{words}, {hours(left)} left")


def work_of(trainer: RewardTrainer, config: TrainConfig) -> str:
    """The sha256 of what the parts of a calibration are made from: the settings, and the weights that were trained."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    for model in (trainer.policy.model, trainer.discriminator.model):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                digest.update(name.encode())
                digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------------- samples


def sample(
    trainer: RewardTrainer, config: TrainConfig, problems: Sequence[str], kept: KeptParts = NOTHING_KEPT
) -> list[list[Rollout]]:
    """``run.calibration_samples`` solutions of each problem; the seed and the text alone decide what is drawn."""
    each = config.run.calibration_samples
    size = max(1, SAMPLES_OF_A_PART // each)
    parts = {f"samples-{start:06d}": problems[start : start + size] for start in range(0, len(problems), size)}
    pace = Pace(trainer, "samples", each * len(problems), each * sum(len(parts[n]) for n in parts if kept.has(n)))
    groups: list[list[Rollout]] = []
    for name, part in parts.items():

        def draw(part: Sequence[str] = part, before: int = len(groups)) -> list[list[tuple[Any, ...]]]:
            drawn = trainer.sampler(
                trainer.policy.model,
                [trainer.encoder.encode_prompt(problem) for problem in part],
                num_samples=each,
                max_new_tokens=config.data.max_completion_tokens,
                seeds=[problem_seed(config.run.seed, problem) for problem in part],
                temperature=TEMPERATURE,
                top_p=TOP_P,
                on_step=lambda done, total: pace.reached(each * (before + len(part) * done / max(1, total))),
            )
            return [[(one.token_ids, one.logprobs, one.finished) for one in group] for group in drawn]

        for group in kept.part(name, draw):
            groups.append([Rollout(tuple(ids), tuple(logprobs), ended) for ids, logprobs, ended in group])
    return groups


def problem_seed(seed: int, problem: str) -> int:
    """The seed of a problem's samples."""
    return random.Random(f"calibrate-{seed}-{problem}").getrandbits(62)


def labelled(encoder: TraceEncoder, problem: WordProblem, rollout: Rollout, number: int) -> Trace:
    """A rollout on a generated problem as a trace with its true first error."""
    text, _ = encoder.spans_of_ids(rollout.token_ids)
    return encoder.sampled_trace(
        problem.text, rollout.token_ids, rollout.logprobs, reference_answer=problem.answer,
        problem_id=problem.problem_id, trace_id=f"{problem.problem_id}/{number}", truth=first_error(problem, text),
        extra={"family": problem.family},
    )  # fmt: skip


def graded_rollout(
    encoder: TraceEncoder, expert: Trace, rollout: Rollout, number: int, *, by_value: bool = False
) -> Trace:
    """A rollout as a trace without an error where its final answer is correct; else its first error is unknown.

    ``by_value``: it is then the step in which its values depart from the expert's.
    """
    trace = encoder.sampled_trace(
        expert.problem, rollout.token_ids, rollout.logprobs, reference_answer=expert.reference_answer,
        problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{number}",
    )  # fmt: skip
    if trace.correct:
        return replace(trace, truth=Truth(None))
    at = value_departure(expert.problem, expert.text, trace.text) if by_value and trace.finished else None
    step = None if at is None else next((n for n, one in enumerate(trace.steps) if one.start <= at < one.end), None)
    if step is None or trace.steps[step].role != "reasoning":
        return trace
    return replace(trace, truth=Truth(step, "departed"))


def perturbed_experts(experts: Sequence[Trace], seed: int) -> list[Trace]:
    """A perturbed copy of each expert trace that a perturbation applies to, with its true first wrong step."""
    copies = []
    for expert in experts:
        change = perturb(expert, random.Random(f"locate-{seed}-{expert.problem}"), LOCATED_KINDS)
        if change is not None:
            copies.append(perturbed_trace(expert, change))
    return copies


# ------------------------------------------------------------------------------------------------------ evidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """Scored held-out traces.

    Attributes:
        samples: the policy's, whose ``correct`` is known.
        located: traces whose first error is known.
        problems: texts of the problems that were sampled.
        origin: where ``samples`` come from.
        note: where ``located`` come from, if not the same.
    """

    samples: Sequence[ScoredTrace]
    located: Sequence[ScoredTrace]
    problems: Sequence[str]
    origin: str
    note: str


def evidence_with_truth(trainer: RewardTrainer, config: TrainConfig, kept: KeptParts = NOTHING_KEPT) -> Evidence:
    """Evidence from generated problems, where every sample's first error is known."""
    problems = demo_problems(config, "calibration", config.run.calibration_problems)
    texts = [problem.text for problem in problems]
    pairs = zip(problems, sample(trainer, config, texts, kept), strict=True)
    traces = [labelled(trainer.encoder, problem, one, n) for problem, rows in pairs for n, one in enumerate(rows)]
    samples = scored_traces(trainer, traces, kept=kept, what="samples scored")
    return Evidence(samples, samples, texts, f"{len(samples):,} samples on {len(problems):,} held-out problems", "")


def evidence_from_answers(trainer: RewardTrainer, config: TrainConfig, kept: KeptParts = NOTHING_KEPT) -> Evidence:
    """Evidence from any held-out problems with an answer.

    Correct samples, or the expert traces where there are fewer than ``MIN_CORRECT_SAMPLES``, stand against perturbed
    expert traces, and against the wrong samples where training too locates a sample's mistake by value.

    Raises:
        ConfigError: too few held-out traces.
    """
    encoder, seed = trainer.encoder, config.run.seed
    experts = calibration_traces(config, encoder)
    if config.data.styles:
        experts = [in_a_style(expert, f"calibrate-{seed}") for expert in experts]
    texts = [expert.problem for expert in experts]
    pairs = zip(experts, sample(trainer, config, texts, kept), strict=True)
    by_value = config.discriminator.policy_labels == "from_departed_value"
    traces = [
        graded_rollout(encoder, expert, one, number, by_value=by_value)
        for expert, rows in pairs
        for number, one in enumerate(rows)
    ]
    samples = scored_traces(trainer, traces, kept=kept, what="samples scored")
    right = [one for one in samples if one.trace.truth == Truth(None)]
    departed = [one for one in samples if one.trace.truth not in (None, Truth(None))]
    wrong = perturbed_experts(experts, seed)
    enough = len(right) >= MIN_CORRECT_SAMPLES
    believed = [] if enough else [replace(expert, truth=Truth(None)) for expert in experts]
    unit, solutions = samples[0].standardisation, [*believed, *wrong]
    others = scored_traces(trainer, solutions, unit, kept=kept, what="solutions scored")
    return Evidence(
        samples, [*(right if enough else ()), *departed, *others], texts,
        f"{len(samples):,} samples on {len(experts):,} held-out problems",
        limits_note(len(right), len(believed), len(wrong), len(departed)),
    )  # fmt: skip


def evidence_from_labels(trainer: RewardTrainer, config: TrainConfig, kept: KeptParts = NOTHING_KEPT) -> Evidence:
    """Evidence from held-out traces by anybody whose first wrong step is labelled. Raises ConfigError for too few."""
    traces = labels_to_calibrate(config, trainer.encoder)
    scored = scored_traces(trainer, traces, kept=kept, what="labelled solutions scored")
    problems = list(dict.fromkeys(trace.problem for trace in traces))
    origin = f"{len(scored):,} labelled solutions of {len(problems):,} held-out problems"
    return Evidence(scored, scored, problems, origin, f"limits, rule and error confidence from {origin}")


def limits_note(right: int, experts: int, wrong: int, departed: int = 0) -> str:
    """Where limits, rule and confidence come from, given the numbers of traces of each kind."""
    limits = f"limits from {right:,} correct samples of the policy"
    if experts:
        limits = f"limits from {experts:,} expert solutions, since {right:,} correct samples are too few"
    if departed:
        return (
            f"{limits}; rule and error confidence from {wrong:,} corrupted expert solutions and {departed:,} wrong "
            "samples, whose first error is where their values depart from the expert's"
        )
    if not wrong:
        return f"{limits}; no expert solution could be corrupted, so the rule was chosen on nothing"
    return f"{limits}; rule and error confidence from {wrong:,} corrupted expert solutions"


def scored_traces(
    trainer: RewardTrainer,
    traces: Sequence[Trace],
    unit: Standardisation | None = None,
    *,
    kept: KeptParts = NOTHING_KEPT,
    what: str = "solutions scored",
) -> list[ScoredTrace]:
    """Scored traces, standardised by ``unit``, or by their own mean and spread where it is None. ``what``: the stage in
    words, of which its kept parts are named."""
    encoded = [trainer.encoder.encode(trace) for trace in traces]
    pair = replace(trainer.pair, world=World())  # one process calibrates, whatever the others do
    size = SCORED_IN_A_PART
    parts = {
        f"{what.replace(' ', '-')}-{start:06d}": encoded[start : start + size] for start in range(0, len(encoded), size)
    }
    pace = Pace(trainer, what, len(encoded), sum(len(parts[name]) for name in parts if kept.has(name)))
    rewards: list[TraceRewards] = []
    for name, part in parts.items():

        def score(part: Sequence[EncodedTrace] = part) -> list[tuple[Any, ...]]:
            return [(one.raw.tolist(), one.logprobs.tolist(), one.prompt_reward) for one in pair.score(part)]

        for raw, logprobs, prompt in kept.part(name, score):
            rewards.append(TraceRewards(np.array(raw, np.float32), np.array(logprobs, np.float32), prompt))
        pace.reached(len(rewards))
    values = np.concatenate([one.raw for one in rewards])
    unit = unit or Standardisation(float(values.mean()), float(values.std(ddof=1)), "held-out solutions")
    return [
        ScoredTrace(trace, one.raw, one.logprobs, one.prompt_reward, unit)
        for trace, one in zip(encoded, rewards, strict=True)
    ]


# --------------------------------------------------------------------------------------------------- calibration


def calibrated(trainer: RewardTrainer, config: TrainConfig, kept: KeptParts = NOTHING_KEPT) -> dict[str, object]:
    """The keys that calibration adds to a checkpoint's ``config.json``. One process alone calls it.

    ``kept``: the parts of an interrupted calibration of the same models (see `work_of`), gone on with.

    Raises:
        ConfigError: too few held-out traces.
        CheckpointError: a part cannot be written.
    """
    trainer.policy.model.eval()
    generated = config.data.source == "demo"
    labelled = evidence_from_labels if config.method.reads_labels else evidence_from_answers
    evidence = (evidence_with_truth if generated else labelled)(trainer, config, kept)
    rules = candidate_rules(("raw", "credit", "discounted"), include_answer=(True,) if generated else (False, True))
    if config.discriminator.policy_labels == "from_departed_value":
        rules = tuple(rule for rule in rules if rule.signal == "raw" and rule.reduction in LEVELS_OF_A_STEP)
    calibration = calibrate(
        [held_out(one) for one in evidence.located], rules, gamma=DEFAULT_GAMMA, seed=config.run.seed
    )
    note = "; ".join(part for part in (calibration.note, evidence.note) if part)
    return {
        "localisation": replace(calibration, note=note).to_json(),
        "reference": reference(evidence, trainer.encoder, trainer.policy.model),
        "default_trace_score": best_trace_score(evidence.samples),
    }


def held_out(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> HeldOut:
    """A scored trace as the calibration reads it. Raises ValueError where its first error is not known."""
    trace = scored.trace
    if trace.truth is None:
        raise ValueError(f"solution {trace.trace_id!r} has no truth; only labelled solutions calibrate")
    return HeldOut(
        named_signals(scored, gamma), scored.encoded.spans, trace.steps, trace.truth.first_error_step, trace.problem_id
    )


def reference(evidence: Evidence, encoder: TraceEncoder, policy: Any) -> dict[str, object]:
    """Statistics of held-out samples and problems that a single pasted solution is compared with."""
    unit = evidence.samples[0].standardisation
    prompts = [prompt_logprob(policy, encoder.encode_prompt(problem)) for problem in evidence.problems]
    return {
        "mean": unit.mean,
        "std": unit.std,
        "prompt_reward_mean": float(np.mean([one.prompt_reward for one in evidence.samples])),
        "prompt_logprob_quantiles": [[q, float(np.quantile(prompts, q))] for q in QUANTILES],
        "n": len(evidence.samples),
        "origin": evidence.origin,
    }


def best_trace_score(scored: Sequence[ScoredTrace]) -> str:
    """The trace score that ranks most correct/incorrect pairs of the same problem right.

    ``UNDECIDED_TRACE_SCORE`` where there is no such pair, or fewer than ``MIN_CORRECT_SAMPLES`` are correct: the best
    of seven on a handful is chance.
    """
    correct = np.array([bool(one.trace.correct) for one in scored])
    if correct.sum() < MIN_CORRECT_SAMPLES:
        return UNDECIDED_TRACE_SCORE
    problem_ids = [one.trace.problem_id for one in scored]
    figures = {
        kind: pair_accuracy(np.array([trace_score(one, kind) for one in scored]), correct, problem_ids)
        for kind in TRACE_SCORES
    }
    defined = [kind for kind, figure in figures.items() if figure.defined]
    return max(defined, key=lambda kind: figures[kind].value, default=UNDECIDED_TRACE_SCORE)
