"""Calibration of a trained pair: thresholds of the first-error rule, reference statistics, familiarity.

It is measured on problems that neither training nor the reported figures use. For generated problems the first error
of every sample is known. For others only the final answer is: a sample with the right one counts as correct, and the
first error is known of perturbed expert solutions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

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
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.types import ScoredTrace, Standardisation, Trace, Truth
from train.data import calibration_traces, demo_problems, in_a_style

QUANTILES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
TEMPERATURE = 1.0
TOP_P = 0.95
MIN_CORRECT_SAMPLES = 30
# Models do not err by a wrong last line after right steps, but a rule that finds it looks at closing lines.
LOCATED_KINDS = tuple(kind for kind in ALL_KINDS if kind != "swap_answer")
# Labels by value say of every token whether the solution is still right there, which is a level: its lowest or its last
# one in a step names the step on solutions of other authors too. Drops and means win on the policy's own samples alone.
LEVELS_OF_A_STEP = ("min", "last")
UNDECIDED_TRACE_SCORE = "minimum"


# ------------------------------------------------------------------------------------------------------- samples


def sample(trainer: AdversarialTrainer, config: TrainConfig, problems: Sequence[str]) -> list[list[Rollout]]:
    """``run.calibration_samples`` solutions of each problem; the seed and the text alone decide what is drawn."""
    return trainer.sampler(
        trainer.policy.model,
        [trainer.encoder.encode_prompt(problem) for problem in problems],
        num_samples=config.run.calibration_samples,
        max_new_tokens=config.data.max_completion_tokens,
        seeds=[problem_seed(config.run.seed, problem) for problem in problems],
        temperature=TEMPERATURE,
        top_p=TOP_P,
        on_step=lambda done, total: trainer.on_progress("calibrating"),
    )


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


def evidence_with_truth(trainer: AdversarialTrainer, config: TrainConfig) -> Evidence:
    """Evidence from generated problems, where every sample's first error is known."""
    problems = demo_problems(config, "calibration", config.run.calibration_problems)
    texts = [problem.text for problem in problems]
    pairs = zip(problems, sample(trainer, config, texts), strict=True)
    traces = [labelled(trainer.encoder, problem, one, n) for problem, rows in pairs for n, one in enumerate(rows)]
    samples = scored_traces(trainer, traces)
    return Evidence(samples, samples, texts, f"{len(samples):,} samples on {len(problems):,} held-out problems", "")


def evidence_from_answers(trainer: AdversarialTrainer, config: TrainConfig) -> Evidence:
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
    pairs = zip(experts, sample(trainer, config, texts), strict=True)
    by_value = config.discriminator.policy_labels == "from_departed_value"
    traces = [
        graded_rollout(encoder, expert, one, number, by_value=by_value)
        for expert, rows in pairs
        for number, one in enumerate(rows)
    ]
    samples = scored_traces(trainer, traces)
    right = [one for one in samples if one.trace.truth == Truth(None)]
    departed = [one for one in samples if one.trace.truth not in (None, Truth(None))]
    wrong = perturbed_experts(experts, seed)
    enough = len(right) >= MIN_CORRECT_SAMPLES
    believed = [] if enough else [replace(expert, truth=Truth(None)) for expert in experts]
    others = scored_traces(trainer, [*believed, *wrong], samples[0].standardisation)
    return Evidence(
        samples, [*(right if enough else ()), *departed, *others], texts,
        f"{len(samples):,} samples on {len(experts):,} held-out problems",
        limits_note(len(right), len(believed), len(wrong), len(departed)),
    )  # fmt: skip


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
    trainer: AdversarialTrainer, traces: Sequence[Trace], unit: Standardisation | None = None
) -> list[ScoredTrace]:
    """Scored traces, standardised by ``unit``, or by their own mean and spread where it is None."""
    encoded = [trainer.encoder.encode(trace) for trace in traces]
    rewards = replace(trainer.pair, world=World()).score(encoded)  # one process calibrates, whatever the others do
    values = np.concatenate([one.raw for one in rewards])
    unit = unit or Standardisation(float(values.mean()), float(values.std(ddof=1)), "held-out solutions")
    return [
        ScoredTrace(trace, one.raw, one.logprobs, one.prompt_reward, unit)
        for trace, one in zip(encoded, rewards, strict=True)
    ]


# --------------------------------------------------------------------------------------------------- calibration


def calibrated(trainer: AdversarialTrainer, config: TrainConfig) -> dict[str, object]:
    """The keys that calibration adds to a checkpoint's ``config.json``. One process alone calls it.

    Raises:
        ConfigError: too few held-out traces.
    """
    trainer.policy.model.eval()
    generated = config.data.source == "demo"
    evidence = (evidence_with_truth if generated else evidence_from_answers)(trainer, config)
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
        raise ValueError(f"trace {trace.trace_id!r} has no truth; only labelled traces calibrate")
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

    ``UNDECIDED_TRACE_SCORE`` where there is no such pair.
    """
    correct = np.array([bool(one.trace.correct) for one in scored])
    problem_ids = [one.trace.problem_id for one in scored]
    figures = {
        kind: pair_accuracy(np.array([trace_score(one, kind) for one in scored]), correct, problem_ids)
        for kind in TRACE_SCORES
    }
    defined = [kind for kind, figure in figures.items() if figure.defined]
    return max(defined, key=lambda kind: figures[kind].value, default=UNDECIDED_TRACE_SCORE)
