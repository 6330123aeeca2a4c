"""What turns a trained pair into a checkpoint that answers questions: thresholds, reference statistics, familiarity.

All of it is measured on problems of the ``calibration`` split, which neither training nor the reported figures use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from irl_core.adversarial import AdversarialTrainer
from irl_core.config import TrainConfig
from irl_core.discriminator import Discriminator, score_traces
from irl_core.encoding import TraceEncoder
from irl_core.inspection import prompt_logprob
from irl_core.localisation import HeldOut, calibrate, candidate_rules
from irl_core.metrics import pair_accuracy
from irl_core.policy import sample
from irl_core.rewards import TRACE_SCORES
from irl_core.signals import DEFAULT_GAMMA, named_signals, trace_score
from irl_core.types import ScoredTrace, Standardisation, Trace
from irl_core.word_problems import WordProblem, first_error
from train.data import demo_problems

QUANTILES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def sampled_traces(
    policy: Any,
    encoder: TraceEncoder,
    problems: Sequence[WordProblem],
    *,
    num_samples: int,
    seed: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 0.95,
    prompts_per_batch: int = 32,
) -> list[list[Trace]]:
    """``num_samples`` solutions of each problem with their true first error, from the generator's checker."""
    groups: list[list[Trace]] = []
    for start in range(0, len(problems), prompts_per_batch):
        chosen = problems[start : start + prompts_per_batch]
        rollouts = sample(
            policy, [encoder.encode_prompt(p.text) for p in chosen], num_samples=num_samples,
            max_new_tokens=max_new_tokens, end_ids=encoder.end_ids, pad_id=encoder.pad_id,
            generator=torch.Generator(next(policy.parameters()).device).manual_seed(seed + start),
            temperature=temperature, top_p=top_p,
        )  # fmt: skip
        for problem, rows in zip(chosen, rollouts, strict=True):
            groups.append([labelled(encoder, problem, r.token_ids, r.logprobs, n) for n, r in enumerate(rows)])
    return groups


def labelled(
    encoder: TraceEncoder, problem: WordProblem, ids: Sequence[int], logprobs: Sequence[float], number: int
) -> Trace:
    """A rollout as a trace that knows its truth."""
    text, _ = encoder.spans_of_ids(ids)
    return encoder.sampled_trace(
        problem.text, ids, logprobs, reference_answer=problem.answer, problem_id=problem.problem_id,
        trace_id=f"{problem.problem_id}/{number}", truth=first_error(problem, text), extra={"family": problem.family},
    )  # fmt: skip


def scored_traces(
    discriminator: Discriminator, encoder: TraceEncoder, traces: Sequence[Trace], unit: Standardisation | None = None
) -> list[ScoredTrace]:
    """Traces (with recorded log-probabilities) scored; standardised by ``unit``, or all together where it is None."""
    encoded = [encoder.encode(trace) for trace in traces]
    scores = score_traces(discriminator, None, encoded, pad_id=encoder.pad_id)
    values = np.concatenate([raw for raw, _, _ in scores])
    unit = unit or Standardisation(float(values.mean()), float(values.std(ddof=1)), "held-out solutions")
    return [
        ScoredTrace(e, raw, logprobs, start, unit) for e, (raw, logprobs, start) in zip(encoded, scores, strict=True)
    ]


def held_out(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> HeldOut:
    """A scored trace with known truth, as the calibration reads it."""
    trace = scored.trace
    if trace.truth is None:
        raise ValueError(f"trace {trace.trace_id!r} has no truth; only labelled traces calibrate")
    return HeldOut(
        named_signals(scored, gamma), scored.encoded.spans, trace.steps, trace.truth.first_error_step, trace.problem_id
    )


def calibrated(trainer: AdversarialTrainer, config: TrainConfig) -> dict[str, Any]:
    """The keys of a checkpoint's ``config.json`` that calibration adds."""
    problems = demo_problems(config, "calibration", config.run.calibration_problems)
    encoder, policy = trainer.encoder, trainer.policy.model
    groups = sampled_traces(
        policy, encoder, problems, num_samples=8, seed=config.run.seed, max_new_tokens=config.data.max_completion_tokens
    )
    scored = scored_traces(trainer.discriminator.model, encoder, [trace for group in groups for trace in group])
    rules = candidate_rules(("raw", "credit", "discounted"), include_answer=(True,))
    calibration = calibrate([held_out(one) for one in scored], rules, gamma=DEFAULT_GAMMA, seed=config.run.seed)
    return {
        "localisation": calibration.to_json(),
        "reference": reference(scored, encoder, policy, problems),
        "default_trace_score": best_trace_score(scored),
    }


def reference(
    scored: Sequence[ScoredTrace], encoder: TraceEncoder, policy: Any, problems: Sequence[WordProblem]
) -> dict[str, Any]:
    """Statistics that a single pasted solution is shown against."""
    unit = scored[0].standardisation
    prompts = [prompt_logprob(policy, encoder.encode_prompt(problem.text)) for problem in problems]
    return {
        "mean": unit.mean,
        "std": unit.std,
        "prompt_reward_mean": float(np.mean([one.prompt_reward for one in scored])),
        "prompt_logprob_quantiles": [[q, float(np.quantile(prompts, q))] for q in QUANTILES],
        "n": len(scored),
    }


def best_trace_score(scored: Sequence[ScoredTrace]) -> str:
    """The trace score that ranks most correct/incorrect pairs of the same problem right."""
    correct = np.array([bool(one.trace.correct) for one in scored])
    problem_ids = [one.trace.problem_id for one in scored]

    def pairs(kind: str) -> float:
        scores = np.array([trace_score(one, kind) for one in scored])
        return pair_accuracy(scores, correct, problem_ids).value

    return max(TRACE_SCORES, key=pairs)
