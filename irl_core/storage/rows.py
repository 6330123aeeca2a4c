"""A trace as a row of a scored run, and back. ``irl_core.storage.schema`` says what the columns hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from irl_core.policy.familiarity import Familiarity
from irl_core.reward.localisation import token_steps
from irl_core.reward.token_scores import DEFAULT_GAMMA, trace_score
from irl_core.reward.verdict import Judge, Verdict, verdict_on
from irl_core.storage.schema import NO_ERROR, FamiliarityColumns, RewardColumns, ScoredRow, TraceColumns
from irl_core.text.divergence import departed_token, first_difference
from irl_core.text.equations import find_equations, first_false_step
from irl_core.text.verifiable import integer_answer, soft_format, strict_format, xml_count
from irl_core.types import (
    EncodedTrace,
    Floats,
    Layout,
    Localisation,
    ScoredTrace,
    Source,
    Span,
    Standardisation,
    Step,
    Trace,
    Truth,
)

SPREAD = 1e-6  # a standard deviation below this share of the mean is 'no signal', as in irl_core.reward.rewards
NO_REWARDS: RewardColumns = {
    "decision": None, "predicted_step": None, "confidence": None, "rule": None, "threshold": None,
    "uncertain_threshold": None, "score_tells": None,
    "score_min": None, "score_mean": None, "score_mean_discounted": None, "score_last": None,
    "score_product": None,
    "score_credit_sum": None, "score_credit_minimum": None, "score_mean_discounted_answer": None,
    "standardisation_mean": None, "standardisation_std": None, "standardisation_origin": None, "prompt_reward": None,
}  # fmt: skip
NOT_MEASURED: FamiliarityColumns = {
    "cannot_judge": None, "familiar": None, "familiarity": None, "familiarity_percentile": None,
    "unknown_share": None, "familiarity_reason": None,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ trace -> row


def row_of(
    scored: ScoredTrace,
    where: Localisation,
    *,
    run_id: str,
    familiarity: Familiarity | None = None,
    gamma: float = DEFAULT_GAMMA,
) -> ScoredRow:
    """The row of a scored trace.

    Args:
        scored: the trace with its rewards.
        where: the localisation at the time of scoring.
        run_id: the scored run that the row belongs to.
        familiarity: of its text; None where it was not measured.
        gamma: the discount of the discounted scores.
    """
    unit = scored.standardisation
    rewards: RewardColumns = {
        "decision": where.decision,
        "predicted_step": where.first_error_step,
        "confidence": where.confidence,
        "rule": where.rule,
        "threshold": finite_or_none(where.threshold),
        "uncertain_threshold": None if where.uncertain_threshold is None else finite_or_none(where.uncertain_threshold),
        "score_tells": where.score_tells,
        "score_min": finite_or_none(trace_score(scored, "minimum", gamma)),
        "score_mean": finite_or_none(trace_score(scored, "mean", gamma)),
        "score_mean_discounted": finite_or_none(trace_score(scored, "mean_discounted", gamma)),
        "score_last": finite_or_none(trace_score(scored, "last", gamma)),
        "score_product": finite_or_none(trace_score(scored, "product", gamma)),
        "score_credit_sum": finite_or_none(trace_score(scored, "credit_sum", gamma)),
        "score_credit_minimum": finite_or_none(trace_score(scored, "credit_minimum", gamma)),
        "score_mean_discounted_answer": answer_score(scored, gamma),
        "standardisation_mean": unit.mean,
        "standardisation_std": unit.std,
        "standardisation_origin": unit.origin,
        "prompt_reward": scored.prompt_reward,
    }
    raw, known = scored.raw.tolist(), {"run_id": run_id, "checkpoint": scored.checkpoint}
    columns = trace_columns(scored.encoded, scored.logprobs, raw, where.step_scores, **known)
    return {**columns, **rewards, **familiarity_columns(scored, familiarity)}


def judge_of(scored: ScoredTrace, familiarity: Familiarity | None) -> Judge:
    """Whether the reward's word counts on a trace."""
    if familiarity is None:
        return Judge(signal=scored.has_signal)
    return Judge(familiarity.familiar, familiarity.reason, scored.has_signal)


def familiarity_columns(scored: ScoredTrace, familiarity: Familiarity | None) -> FamiliarityColumns:
    """The columns that say whether the model can judge a trace."""
    can = judge_of(scored, familiarity).can
    if familiarity is None:
        return {**NOT_MEASURED, "cannot_judge": None if can is None else not can}
    return {
        "cannot_judge": None if can is None else not can,
        "familiar": familiarity.familiar,
        "familiarity": finite_or_none(familiarity.score),
        "familiarity_percentile": familiarity.percentile,
        "unknown_share": familiarity.unknown_share,
        "familiarity_reason": familiarity.reason,
    }


def unscored_row(encoded: EncodedTrace, logprobs: Floats, *, run_id: str, checkpoint: str = "") -> ScoredRow:
    """The row of a trace that no discriminator has read: what needs one is null.

    Args:
        encoded: the trace as T tokens.
        logprobs: (T,), the policy's log-probability of each token.
        run_id: the scored run that the row belongs to.
        checkpoint: the name of the policy's checkpoint.
    """
    raw, step_scores = [None] * len(encoded.completion_ids), [math.nan] * len(encoded.trace.steps)
    columns = trace_columns(encoded, logprobs, raw, step_scores, run_id=run_id, checkpoint=checkpoint)
    return {**columns, **NO_REWARDS, **NOT_MEASURED}


def trace_columns(
    encoded: EncodedTrace,
    logprobs: Floats,
    raw: Sequence[float | None],
    step_scores: Sequence[float],
    *,
    run_id: str,
    checkpoint: str,
) -> TraceColumns:
    """The columns of a trace with T tokens; ``raw`` and ``logprobs`` have T values, ``step_scores`` one a step."""
    trace = encoded.trace
    truth, extra = trace.truth, dict(trace.extra)
    family, honest = extra.pop("family", None), extra.pop("reference_solution", None)
    first_error = truth.first_error_step if truth else None
    if truth and first_error is None:
        first_error = NO_ERROR
    false_equations = sum(not equation.true for equation in find_equations(trace.text))
    kind, changed = extra.get("perturbed_kind"), extra.get("perturbed_from_token")
    first_changed = None if changed is None else int(changed)
    if trace.source is Source.PERTURBED:  # that does not say what was changed: the kind of its mistake, and the first
        kind = kind or (truth.kind if truth else None)  # token past the first character that differs from honest text
        if first_changed is None and honest is not None and honest != trace.text:
            first_changed = departed_token(encoded.spans, first_difference(trace.text, honest))
    tokens = zip(encoded.spans, raw, logprobs.tolist(), encoded.completion_ids, strict=True)
    return {
        "run_id": run_id,
        "trace_id": trace.trace_id,
        "problem_id": trace.problem_id,
        "family": family,
        "problem": trace.problem,
        "text": trace.text,
        "reference_answer": trace.reference_answer,
        "reference_solution": honest,
        "answer": trace.answer,
        "correct": trace.correct,
        "true_first_error_step": first_error,
        "kind": truth.kind if truth else None,
        "n_steps": len(trace.steps),
        "length": len(encoded.completion_ids),
        "log_prob_mean": finite_or_none(logprobs.mean()) if logprobs.size else None,
        "log_prob_min": finite_or_none(logprobs.min()) if logprobs.size else None,
        "arithmetic_false": false_equations,
        "arithmetic_first_false_step": first_false_step(trace) if false_equations else None,
        "xml_count": xml_count(trace.text),
        "strict_format": strict_format(trace.text),
        "soft_format": soft_format(trace.text),
        "integer_answer": integer_answer(trace.answer),
        "checkpoint": checkpoint,
        "layout": trace.layout.value,
        "source": trace.source.value,
        "model": extra.get("model"),
        "finished": trace.finished,
        "sampled": trace.token_ids is not None,
        "perturbed_kind": kind,
        "perturbed_from_token": first_changed,
        "probe": extra.get("probe"),
        "honest_trace_id": extra.get("honest_trace_id"),
        "extra": list(extra.items()),
        "prompt_ids": list(encoded.prompt_ids),
        "steps": [
            {"start": step.start, "end": step.end, "text": step.text, "score": finite_or_none(score), "role": step.role}
            for step, score in zip(trace.steps, step_scores, strict=True)
        ],
        "tokens": [
            {"start": start, "end": end, "raw": reward, "logprob": logprob, "id": token}
            for (start, end), reward, logprob, token in tokens
        ],
    }


def finite_or_none(value: float) -> float | None:
    """The value as a Python float; None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None


def answer_tokens(spans: Sequence[Span], steps: Sequence[Step], answer: str | None) -> npt.NDArray[np.bool_]:
    """Which tokens (T,) are the answer scope: those of the steps with the role ``answer``. A trace without such a step
    that states an answer all the same ('So she pays \\boxed{7}.') has it in its last step that holds that text."""
    closing = [number for number, step in enumerate(steps) if step.role == "answer"]
    if not closing and answer:
        closing = [number for number, step in enumerate(steps) if answer in step.text][-1:]
    return np.isin(token_steps(spans, steps), closing)


def answer_score(scored: ScoredTrace, gamma: float) -> float | None:
    """Mean of the standardised rewards, discounted within the answer scope (eq. 5); None where it has no token."""
    trace, unit = scored.trace, scored.standardisation
    values = scored.raw.astype(np.float64)[answer_tokens(scored.encoded.spans, trace.steps, trace.answer)]
    if not values.size:
        return None
    no_signal = unit.std <= SPREAD * max(abs(unit.mean), 1.0)
    discounted = total = 0.0
    for value in (np.zeros_like(values) if no_signal else (values - unit.mean) / unit.std)[::-1]:
        discounted = float(value) + gamma * discounted
        total += discounted
    return finite_or_none(total / values.size)


# ------------------------------------------------------------------------------------------------ row -> trace


def trace_of(row: ScoredRow) -> Trace:
    """The trace of a row."""
    extra = dict(row["extra"] or [])
    if row["family"] is not None:
        extra["family"] = row["family"]
    if row["reference_solution"] is not None:
        extra["reference_solution"] = row["reference_solution"]
    error = row["true_first_error_step"]
    return Trace(
        problem=row["problem"],
        text=row["text"],
        steps=tuple(Step(step["start"], step["end"], step["text"], step["role"]) for step in row["steps"]),
        layout=Layout(row["layout"]),
        source=Source(row["source"]),
        trace_id=row["trace_id"],
        problem_id=row["problem_id"],
        answer=row["answer"],
        reference_answer=row["reference_answer"],
        correct=row["correct"],
        truth=None if error is None else Truth(None if error == NO_ERROR else error, row["kind"]),
        token_ids=tuple(token["id"] for token in row["tokens"]) if row["sampled"] else None,
        logprobs=tuple(token["logprob"] for token in row["tokens"]) if row["sampled"] else None,
        finished=row["finished"],
        extra=extra,
    )


def scored_of(row: ScoredRow) -> ScoredTrace:
    """The scored trace of a row.

    Raises:
        ValueError: no discriminator has read this trace (see `unscored_row`).
    """
    mean, std, origin = row["standardisation_mean"], row["standardisation_std"], row["standardisation_origin"]
    if row["prompt_reward"] is None or mean is None or std is None or origin is None:
        raise ValueError(f"trace {row['trace_id']!r} has no rewards: no discriminator has read it")
    tokens = row["tokens"]
    spans, ids = tuple((token["start"], token["end"]) for token in tokens), tuple(token["id"] for token in tokens)
    return ScoredTrace(
        EncodedTrace(trace_of(row), tuple(row["prompt_ids"]), ids, spans),
        np.array([token["raw"] for token in tokens], dtype=np.float32),
        np.array([token["logprob"] for token in tokens], dtype=np.float32),
        row["prompt_reward"],
        Standardisation(mean, std, origin),
        row["checkpoint"],
    )


def localisation_of(row: ScoredRow) -> Localisation:
    """The localisation at the time of scoring.

    Raises:
        ValueError: no discriminator has read this trace.
    """
    if row["decision"] is None or row["confidence"] is None or row["rule"] is None:
        raise ValueError(f"trace {row['trace_id']!r} has no localisation: no discriminator has read it")
    return Localisation(
        decision=row["decision"],
        first_error_step=row["predicted_step"],
        confidence=row["confidence"],
        rule=row["rule"],
        threshold=math.nan if row["threshold"] is None else row["threshold"],
        step_scores=tuple(math.nan if step["score"] is None else step["score"] for step in row["steps"]),
        uncertain_threshold=row["uncertain_threshold"],
        score_tells=row["score_tells"],
    )


def familiarity_of(row: ScoredRow) -> Familiarity | None:
    """The familiarity of a row's text; None where it was not measured."""
    score, unknown = row["familiarity"], row["unknown_share"]
    if score is None or unknown is None:
        return None
    reason = row["familiarity_reason"] or ""
    return Familiarity(score, row["familiarity_percentile"], unknown, row["familiar"], reason)


def verdict_of(row: ScoredRow) -> Verdict:
    """The verdict on the trace of a row."""
    if row["decision"] is None:
        return verdict_on(trace_of(row), None, Judge())
    return verdict_on(trace_of(row), localisation_of(row), judge_of(scored_of(row), familiarity_of(row)))
