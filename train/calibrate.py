"""What turns a trained pair into a checkpoint that answers questions: thresholds, reference statistics, familiarity.

All of it is measured on problems that neither training nor the reported figures use. For generated problems the truth
of every sample is known. For others the final answer alone is: a sample with the right one counts as correct, and
where a trace goes wrong is known of corrupted expert solutions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from irl_core.config import TrainConfig
from irl_core.data.word_problems.check import first_error
from irl_core.data.word_problems.quantities import WordProblem
from irl_core.distributed import World
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.familiarity import prompt_logprob
from irl_core.policy.protocol import Rollout, Sampler
from irl_core.reward.calibration import HeldOut, calibrate, candidate_rules
from irl_core.reward.rewards import TRACE_SCORES
from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals, trace_score
from irl_core.statistics.separation import pair_accuracy
from irl_core.text.perturbations import ALL_KINDS, corrupt, perturbed_trace
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.types import ScoredTrace, Standardisation, Trace, Truth
from train.data import calibration_traces, demo_problems

QUANTILES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
SAMPLES = 8
MIN_CORRECT_SAMPLES = 30
# A wrong last line after right steps is no error that models make, but a rule that finds it looks at closing lines.
LOCATED_KINDS = tuple(kind for kind in ALL_KINDS if kind != "swap_answer")
UNDECIDED_TRACE_SCORE = "minimum"


# ------------------------------------------------------------------------------------------------------- samples


def sampled_traces(
    sampler: Sampler,
    policy: Any,
    encoder: TraceEncoder,
    problems: Sequence[WordProblem],
    *,
    num_samples: int,
    seed: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 0.95,
    on_step: Callable[[int, int], None] | None = None,
) -> list[list[Trace]]:
    """``num_samples`` solutions of each problem with their true first error, from the generator's checker.

    What is drawn for a problem depends on ``seed`` and its text alone.
    """
    groups = sampler(
        policy,
        [encoder.encode_prompt(problem.text) for problem in problems],
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        seeds=[problem_seed(seed, problem.text) for problem in problems],
        temperature=temperature,
        top_p=top_p,
        on_step=on_step,
    )
    return [
        [labelled(encoder, problem, rollout, number) for number, rollout in enumerate(rollouts)]
        for problem, rollouts in zip(problems, groups, strict=True)
    ]


def problem_seed(seed: int, problem: str) -> int:
    """The seed of a problem's samples."""
    return random.Random(f"calibrate-{seed}-{problem}").getrandbits(62)


def labelled(encoder: TraceEncoder, problem: WordProblem, rollout: Rollout, number: int) -> Trace:
    """A rollout as a trace that knows its truth."""
    text, _ = encoder.spans_of_ids(rollout.token_ids)
    return encoder.sampled_trace(
        problem.text, rollout.token_ids, rollout.logprobs, reference_answer=problem.answer,
        problem_id=problem.problem_id, trace_id=f"{problem.problem_id}/{number}", truth=first_error(problem, text),
        extra={"family": problem.family},
    )  # fmt: skip


def judged(encoder: TraceEncoder, expert: Trace, rollout: Rollout, number: int) -> Trace:
    """A rollout as a trace that counts as correct where its final answer is right; else where it errs is not known."""
    trace = encoder.sampled_trace(
        expert.problem, rollout.token_ids, rollout.logprobs, reference_answer=expert.reference_answer,
        problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{number}",
    )  # fmt: skip
    return replace(trace, truth=Truth(None)) if trace.correct else trace


def corrupted(experts: Sequence[Trace], seed: int) -> list[Trace]:
    """A corrupted copy of each expert trace that a corruption fits, with its first wrong step as the truth."""
    found = []
    for expert in experts:
        change = corrupt(expert, random.Random(f"locate-{seed}-{expert.problem}"), LOCATED_KINDS)
        if change is not None:
            found.append(perturbed_trace(expert, change))
    return found


# ------------------------------------------------------------------------------------------------------ evidence


@dataclass(frozen=True, slots=True)
class Evidence:
    """Held-out traces, scored. ``samples``: the policy's, of whom ``correct`` is known; ``located``: those whose first
    error is known; ``problems``: what was sampled for; ``origin`` and ``note`` say where the two come from."""

    samples: Sequence[ScoredTrace]
    located: Sequence[ScoredTrace]
    problems: Sequence[str]
    origin: str
    note: str


def evidence_with_truth(trainer: AdversarialTrainer, config: TrainConfig) -> Evidence:
    """On generated problems: every sample's first error is known."""
    problems = demo_problems(config, "calibration", config.run.calibration_problems)
    groups = sampled_traces(
        trainer.sampler, trainer.policy.model, trainer.encoder, problems, num_samples=SAMPLES, seed=config.run.seed,
        max_new_tokens=config.data.max_completion_tokens, on_step=_sign_of_life(trainer),
    )  # fmt: skip
    samples = scored_traces(trainer, [trace for group in groups for trace in group])
    return Evidence(samples, samples, [p.text for p in problems], _origin(samples, problems), "")


def evidence_from_answers(trainer: AdversarialTrainer, config: TrainConfig) -> Evidence:
    """On any held-out problems with an answer: correct samples where there are enough, else the experts, against
    corrupted experts.

    Raises:
        ConfigError: too few held-out traces.
    """
    encoder, seed = trainer.encoder, config.run.seed
    experts = calibration_traces(config, encoder)
    groups = trainer.sampler(
        trainer.policy.model, [encoder.encode_prompt(expert.problem) for expert in experts], num_samples=SAMPLES,
        max_new_tokens=config.data.max_completion_tokens, temperature=1.0, top_p=0.95,
        seeds=[problem_seed(seed, expert.problem) for expert in experts], on_step=_sign_of_life(trainer),
    )  # fmt: skip
    pairs = zip(experts, groups, strict=True)
    traces = [judged(encoder, expert, one, number) for expert, rows in pairs for number, one in enumerate(rows)]
    samples = scored_traces(trainer, traces)
    right = [one for one in samples if one.trace.truth is not None]
    wrong = corrupted(experts, seed)
    enough = len(right) >= MIN_CORRECT_SAMPLES
    believed = [] if enough else [replace(expert, truth=Truth(None)) for expert in experts]
    others = scored_traces(trainer, [*believed, *wrong], samples[0].standardisation)
    return Evidence(
        samples, [*right, *others] if enough else others, [expert.problem for expert in experts],
        _origin(samples, experts), _limits_note(len(right), len(believed), len(wrong)),
    )  # fmt: skip


def _limits_note(right: int, experts: int, wrong: int) -> str:
    limits = f"limits from {right:,} correct samples of the policy"
    if experts:
        limits = f"limits from {experts:,} expert solutions, since {right:,} correct samples are too few"
    if not wrong:
        return f"{limits}; no expert solution could be corrupted, so the rule was chosen on nothing"
    return f"{limits}; rule and error confidence from {wrong:,} corrupted expert solutions"


def _origin(samples: Sequence[ScoredTrace], problems: Sequence[Any]) -> str:
    return f"{len(samples):,} samples on {len(problems):,} held-out problems"


def _sign_of_life(trainer: AdversarialTrainer) -> Callable[[int, int], None]:
    return lambda done, total: trainer.on_progress("calibrating")


def scored_traces(
    trainer: AdversarialTrainer, traces: Sequence[Trace], unit: Standardisation | None = None
) -> list[ScoredTrace]:
    """Traces scored, standardised by ``unit``, or all together where it is None."""
    encoded = [trainer.encoder.encode(trace) for trace in traces]
    rewards = replace(trainer.pair, world=World()).score(encoded)  # one process calibrates, whatever the others do
    values = np.concatenate([one.raw for one in rewards])
    unit = unit or Standardisation(float(values.mean()), float(values.std(ddof=1)), "held-out solutions")
    return [
        ScoredTrace(trace, one.raw, one.logprobs, one.prompt_reward, unit)
        for trace, one in zip(encoded, rewards, strict=True)
    ]


# --------------------------------------------------------------------------------------------------- calibration


def calibrated(trainer: AdversarialTrainer, config: TrainConfig) -> dict[str, Any]:
    """The keys of a checkpoint's ``config.json`` that calibration adds. One process alone calls it.

    Raises:
        ConfigError: too few held-out traces.
    """
    trainer.policy.model.eval()
    generated = config.data.source == "demo"
    found = (evidence_with_truth if generated else evidence_from_answers)(trainer, config)
    rules = candidate_rules(("raw", "credit", "discounted"), include_answer=(True,) if generated else (False, True))
    calibration = calibrate([held_out(one) for one in found.located], rules, gamma=DEFAULT_GAMMA, seed=config.run.seed)
    note = "; ".join(part for part in (calibration.note, found.note) if part)
    return {
        "localisation": replace(calibration, note=note).to_json(),
        "reference": reference(found, trainer.encoder, trainer.policy.model),
        "default_trace_score": best_trace_score(found.samples),
    }


def held_out(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> HeldOut:
    """A scored trace with known truth, as the calibration reads it."""
    trace = scored.trace
    if trace.truth is None:
        raise ValueError(f"trace {trace.trace_id!r} has no truth; only labelled traces calibrate")
    return HeldOut(
        named_signals(scored, gamma), scored.encoded.spans, trace.steps, trace.truth.first_error_step, trace.problem_id
    )


def reference(found: Evidence, encoder: TraceEncoder, policy: Any) -> dict[str, Any]:
    """Statistics that a single pasted solution is shown against."""
    unit = found.samples[0].standardisation
    prompts = [prompt_logprob(policy, encoder.encode_prompt(problem)) for problem in found.problems]
    return {
        "mean": unit.mean,
        "std": unit.std,
        "prompt_reward_mean": float(np.mean([one.prompt_reward for one in found.samples])),
        "prompt_logprob_quantiles": [[q, float(np.quantile(prompts, q))] for q in QUANTILES],
        "n": len(found.samples),
        "origin": found.origin,
    }


def best_trace_score(scored: Sequence[ScoredTrace]) -> str:
    """The trace score that ranks most correct/incorrect pairs of the same problem right; where there is no such pair,
    ``UNDECIDED_TRACE_SCORE``."""
    correct = np.array([bool(one.trace.correct) for one in scored])
    problem_ids = [one.trace.problem_id for one in scored]
    figures = {
        kind: pair_accuracy(np.array([trace_score(one, kind) for one in scored]), correct, problem_ids)
        for kind in TRACE_SCORES
    }
    defined = [kind for kind, figure in figures.items() if figure.defined]
    return max(defined, key=lambda kind: figures[kind].value, default=UNDECIDED_TRACE_SCORE)
