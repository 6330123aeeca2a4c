"""A trace as a row of a scored run, and back: the schema, what its columns hold, and how older files get the new ones.

``docs/scored-runs.md`` describes every column. Conventions:

- spans and step numbers as in ``irl_core.types``: character offsets into ``text``, 0-based steps;
- ``true_first_error_step``: null = not known, -1 = known to have no error; ``predicted_step``: null = none predicted;
- a score that is not defined is null; ``reference_answer`` and all other texts are null where there is none;
- what only some traces have (a perturbation's kind and first changed token, a probe's name, the honest trace beside
  it) comes from ``Trace.extra``, under the names of ``EXTRA_COLUMNS``, and stays there too.

Everything is computed from what a `ScoredTrace` holds, so the columns that version 1 lacks are computed from a
version-1 file when it is read (`upgraded`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from irl_core.reward.localisation import token_steps
from irl_core.reward.token_scores import DEFAULT_GAMMA, trace_score
from irl_core.text.divergence import departed_token, first_difference
from irl_core.text.equations import find_equations, first_false_step
from irl_core.text.verifiable import INTEGER_REWARD, is_integer, soft_format, strict_format, xml_count
from irl_core.types import (
    EncodedTrace,
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

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
NO_ERROR = -1
STORED_SCORES = {
    "score_min": "minimum",
    "score_mean": "mean",
    "score_mean_discounted": "mean_discounted",
    "score_last": "last",
    "score_credit_sum": "credit_sum",
    "score_credit_minimum": "credit_minimum",
}
ANSWER_SCORE = "score_mean_discounted_answer"
FORMAT_COLUMNS = ("xml_count", "strict_format", "soft_format", "integer_answer")
EXTRA_COLUMNS = ("perturbed_kind", "perturbed_from_token", "probe", "honest_trace_id")
SPREAD = 1e-6  # a standard deviation below this share of the mean is 'no signal', as in irl_core.rewards

_STEP = pa.struct(
    {"start": pa.int32(), "end": pa.int32(), "text": pa.string(), "score": pa.float32(), "role": pa.string()}
)
_TOKEN = pa.struct(
    {"start": pa.int32(), "end": pa.int32(), "raw": pa.float32(), "logprob": pa.float32(), "id": pa.int32()}
)
COLUMNS = pa.schema(
    {
        "run_id": pa.string(),
        "trace_id": pa.string(),
        "problem_id": pa.string(),
        "family": pa.string(),
        "problem": pa.string(),
        "text": pa.string(),
        "reference_answer": pa.string(),
        "reference_solution": pa.string(),
        "answer": pa.string(),
        "correct": pa.bool_(),
        "true_first_error_step": pa.int32(),
        "kind": pa.string(),
        "decision": pa.string(),
        "predicted_step": pa.int32(),
        "confidence": pa.float32(),
        "rule": pa.string(),
        "threshold": pa.float64(),
        "n_steps": pa.int32(),
        "length": pa.int32(),
        **{name: pa.float64() for name in STORED_SCORES},
        ANSWER_SCORE: pa.float64(),
        "log_prob_mean": pa.float64(),
        "log_prob_min": pa.float64(),
        "arithmetic_false": pa.int32(),
        "arithmetic_first_false_step": pa.int32(),
        **{name: pa.float64() for name in FORMAT_COLUMNS},
        "standardisation_mean": pa.float64(),
        "standardisation_std": pa.float64(),
        "standardisation_origin": pa.string(),
        "prompt_reward": pa.float64(),
        "checkpoint": pa.string(),
        "layout": pa.string(),
        "source": pa.string(),
        "finished": pa.bool_(),
        "sampled": pa.bool_(),
        "perturbed_kind": pa.string(),
        "perturbed_from_token": pa.int32(),
        "probe": pa.string(),
        "honest_trace_id": pa.string(),
        "extra": pa.map_(pa.string(), pa.string()),
        "prompt_ids": pa.list_(pa.int32()),
        "steps": pa.list_(_STEP),
        "tokens": pa.list_(_TOKEN),
    }
)
NESTED_COLUMNS = ("extra", "prompt_ids", "steps", "tokens")
SUMMARY_COLUMNS = [name for name in COLUMNS.names if name not in NESTED_COLUMNS]
SINCE_VERSION_2 = ("score_credit_minimum", ANSWER_SCORE, *FORMAT_COLUMNS, *EXTRA_COLUMNS)


# ------------------------------------------------------------------------------------------------ trace -> row


def row_of(scored: ScoredTrace, where: Localisation, *, run_id: str, gamma: float = DEFAULT_GAMMA) -> dict[str, Any]:
    """One row of a run, by column name."""
    trace, unit = scored.trace, scored.standardisation
    return {
        **_encoded_columns(scored.encoded, scored.logprobs),
        "run_id": run_id,
        "decision": where.decision,
        "predicted_step": where.first_error_step,
        "confidence": where.confidence,
        "rule": where.rule,
        "threshold": _finite(where.threshold),
        **{name: _finite(trace_score(scored, kind, gamma)) for name, kind in STORED_SCORES.items()},
        ANSWER_SCORE: _answer_score(scored.raw, scored.encoded.spans, trace.steps, trace.answer, unit, gamma),
        "standardisation_mean": unit.mean,
        "standardisation_std": unit.std,
        "standardisation_origin": unit.origin,
        "prompt_reward": scored.prompt_reward,
        "checkpoint": scored.checkpoint,
        "steps": _step_structs(trace.steps, where.step_scores),
        "tokens": _token_structs(scored.encoded, scored.raw.tolist(), scored.logprobs),
    }


def unscored_row(
    encoded: EncodedTrace, logprobs: npt.NDArray[np.float32], *, run_id: str, checkpoint: str = ""
) -> dict[str, Any]:
    """The row of a trace that no discriminator has read: what needs one is null. ``logprobs`` (T,): the policy's."""
    steps, nothing = encoded.trace.steps, [None] * len(encoded.completion_ids)
    return {
        **dict.fromkeys(COLUMNS.names),
        **_encoded_columns(encoded, logprobs),
        "run_id": run_id,
        "checkpoint": checkpoint,
        "steps": _step_structs(steps, [math.nan] * len(steps)),
        "tokens": _token_structs(encoded, nothing, logprobs),
    }


def _encoded_columns(encoded: EncodedTrace, logprobs: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What a row holds without a discriminator."""
    trace = encoded.trace
    honest = trace.extra.get("reference_solution")
    kind = trace.truth.kind if trace.truth else None
    return {
        **_trace_columns(trace),
        "n_steps": len(trace.steps),
        "length": len(encoded.completion_ids),
        "log_prob_mean": _finite(logprobs.mean()) if logprobs.size else None,
        "log_prob_min": _finite(logprobs.min()) if logprobs.size else None,
        **_arithmetic_columns(trace),
        **_format_columns(trace.text, trace.answer),
        **_extra_columns(trace.extra, trace.source, kind, trace.text, honest, encoded.spans),
        "prompt_ids": list(encoded.prompt_ids),
    }


def _trace_columns(trace: Trace) -> dict[str, Any]:
    extra = dict(trace.extra)
    return {
        "trace_id": trace.trace_id,
        "problem_id": trace.problem_id,
        "family": extra.pop("family", None),
        "problem": trace.problem,
        "text": trace.text,
        "reference_answer": trace.reference_answer,
        "reference_solution": extra.pop("reference_solution", None),
        "answer": trace.answer,
        "correct": trace.correct,
        "true_first_error_step": _true_step(trace.truth),
        "kind": trace.truth.kind if trace.truth else None,
        "layout": trace.layout.value,
        "source": trace.source.value,
        "finished": trace.finished,
        "sampled": trace.token_ids is not None,
        "extra": list(extra.items()),
    }


def _true_step(truth: Truth | None) -> int | None:
    if truth is None:
        return None
    return NO_ERROR if truth.first_error_step is None else truth.first_error_step


def _arithmetic_columns(trace: Trace) -> dict[str, int | None]:
    false = sum(not equation.true for equation in find_equations(trace.text))
    return {"arithmetic_false": false, "arithmetic_first_false_step": first_false_step(trace) if false else None}


def _step_structs(steps: Sequence[Step], scores: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"start": step.start, "end": step.end, "text": step.text, "score": _finite(score), "role": step.role}
        for step, score in zip(steps, scores, strict=True)
    ]


def _token_structs(
    encoded: EncodedTrace, raw: Sequence[float | None], logprobs: npt.NDArray[np.float32]
) -> list[dict[str, Any]]:
    rows = zip(encoded.spans, raw, logprobs.tolist(), encoded.completion_ids, strict=True)
    return [
        {"start": start, "end": end, "raw": reward, "logprob": logprob, "id": token}
        for (start, end), reward, logprob, token in rows
    ]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


# ------------------------------------------------------------------------------- columns that version 1 lacks


def answer_tokens(spans: Sequence[Span], steps: Sequence[Step], answer: str | None) -> npt.NDArray[np.bool_]:
    """Which tokens (T,) are the answer scope: those of the steps with the role ``answer``. A trace without such a step
    that states an answer all the same ('So she pays \\boxed{7}.') has it in its last step that holds that text."""
    owners = token_steps(spans, steps)
    closing = [number for number, step in enumerate(steps) if step.role == "answer"]
    if not closing and answer:
        closing = [number for number, step in enumerate(steps) if answer in step.text][-1:]
    return np.isin(owners, closing)


def _answer_score(
    raw: npt.NDArray[Any],
    spans: Sequence[Span],
    steps: Sequence[Step],
    answer: str | None,
    unit: Standardisation,
    gamma: float,
) -> float | None:
    """Mean of the standardised rewards discounted within the answer scope (eq. 5); None where it has no token."""
    values = np.asarray(raw, dtype=np.float64)[answer_tokens(spans, steps, answer)]
    if not values.size:
        return None
    no_signal = unit.std <= SPREAD * max(abs(unit.mean), 1.0)
    running = total = 0.0
    for value in (np.zeros_like(values) if no_signal else (values - unit.mean) / unit.std)[::-1]:
        running = float(value) + gamma * running
        total += running
    return _finite(total / values.size)


def _credit_minimum(raw: npt.NDArray[Any], prompt_reward: float) -> float | None:
    values = np.asarray(raw, dtype=np.float64)
    return _finite(np.diff(values, prepend=prompt_reward).min()) if values.size else None


def _format_columns(text: str, answer: str | None) -> dict[str, float]:
    values = [reward([text])[0] for reward in (xml_count, strict_format, soft_format)]
    return dict(zip(FORMAT_COLUMNS, [*values, INTEGER_REWARD * is_integer(answer)], strict=True))


def _extra_columns(
    extra: Mapping[str, str], source: Source, kind: str | None, text: str, honest: str | None, spans: Iterable[Span]
) -> dict[str, Any]:
    """The columns of ``EXTRA_COLUMNS``. Where a perturbed trace does not say its kind or its first changed token, they
    are the kind of its mistake, and the first token past the first character that differs from the honest text."""
    found: dict[str, Any] = {name: extra.get(name) for name in EXTRA_COLUMNS}
    if found["perturbed_from_token"] is not None:
        found["perturbed_from_token"] = int(found["perturbed_from_token"])
    if source is Source.PERTURBED:
        found["perturbed_kind"] = found["perturbed_kind"] or kind
        if found["perturbed_from_token"] is None and honest is not None and honest != text:
            found["perturbed_from_token"] = departed_token(spans, first_difference(text, honest))
    return found


class _Tokens(NamedTuple):
    """One row's tokens as arrays: rewards (T,), and spans, T pairs."""

    raw: npt.NDArray[np.float32]
    spans: list[Span]


def _tokens_of(table: pa.Table) -> Iterator[_Tokens]:
    lists = table.column("tokens").combine_chunks()
    offsets = lists.offsets.to_numpy()
    raw, start, end = (lists.values.field(name).to_numpy(zero_copy_only=False) for name in ("raw", "start", "end"))
    spans = list(zip(start.tolist(), end.tolist(), strict=True))
    for low, high in pairwise(offsets.tolist()):
        yield _Tokens(raw[low:high], spans[low:high])


_Row = Mapping[str, Any]


def _credit_minimum_of(row: _Row, tokens: _Tokens) -> dict[str, Any]:
    return {"score_credit_minimum": _credit_minimum(tokens.raw, row["prompt_reward"])}


def _answer_score_of(row: _Row, tokens: _Tokens) -> dict[str, Any]:
    unit = Standardisation(row["standardisation_mean"], row["standardisation_std"], "")
    steps = _steps_of(row)
    return {ANSWER_SCORE: _answer_score(tokens.raw, tokens.spans, steps, row["answer"], unit, DEFAULT_GAMMA)}


def _formats_of(row: _Row, _: _Tokens) -> dict[str, Any]:
    return {**_format_columns(row["text"], row["answer"])}


def _extras_of(row: _Row, tokens: _Tokens) -> dict[str, Any]:
    extra, source = dict(row["extra"] or []), Source(row["source"])
    return _extra_columns(extra, source, row["kind"], row["text"], row["reference_solution"], tokens.spans)


class _Added(NamedTuple):
    """Columns that are computed together, those that they are computed from beside the tokens, and how."""

    names: tuple[str, ...]
    sources: tuple[str, ...]
    compute: Callable[[_Row, _Tokens], dict[str, Any]]


_ADDED = (
    _Added(("score_credit_minimum",), ("prompt_reward",), _credit_minimum_of),
    _Added((ANSWER_SCORE,), ("steps", "answer", "standardisation_mean", "standardisation_std"), _answer_score_of),
    _Added(FORMAT_COLUMNS, ("text", "answer"), _formats_of),
    _Added(EXTRA_COLUMNS, ("extra", "source", "kind", "text", "reference_solution"), _extras_of),
)


def stored_in_version_1(names: Iterable[str]) -> list[str]:
    """The columns of a version-1 file that are needed for columns ``names`` of this version, in the schema's order."""
    asked = set(names)
    needed = asked - set(SINCE_VERSION_2)
    for added in _ADDED:
        if asked & set(added.names):
            needed |= {"tokens", *added.sources}
    return [name for name in COLUMNS.names if name in needed]


def upgraded(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """``table``, rows of a version-1 file with the columns of `stored_in_version_1`, and those of ``names`` that
    version 1 lacks, computed from its texts and tokens. The discount is that of every version-1 file, 0.9."""
    asked = set(names)
    for added in _ADDED:
        wanted = [name for name in added.names if name in asked]
        if wanted:
            pairs = zip(table.select(added.sources).to_pylist(), _tokens_of(table), strict=True)
            rows = [added.compute(row, tokens) for row, tokens in pairs]
            for field in map(COLUMNS.field, wanted):
                table = table.append_column(field, pa.array([row[field.name] for row in rows], field.type))
    return table


# ------------------------------------------------------------------------------------------------ row -> trace


def trace_of(row: Mapping[str, Any]) -> Trace:
    """The trace of a row (a mapping of every column)."""
    extra = dict(row["extra"] or [])
    extra |= {name: row[name] for name in ("family", "reference_solution") if row[name] is not None}
    sampled = row["sampled"]
    return Trace(
        problem=row["problem"],
        text=row["text"],
        steps=_steps_of(row),
        layout=Layout(row["layout"]),
        source=Source(row["source"]),
        trace_id=row["trace_id"],
        problem_id=row["problem_id"],
        answer=row["answer"],
        reference_answer=row["reference_answer"],
        correct=row["correct"],
        truth=_truth_of(row),
        token_ids=tuple(token["id"] for token in row["tokens"]) if sampled else None,
        logprobs=tuple(token["logprob"] for token in row["tokens"]) if sampled else None,
        finished=row["finished"],
        extra=extra,
    )


def _steps_of(row: Mapping[str, Any]) -> tuple[Step, ...]:
    return tuple(Step(step["start"], step["end"], step["text"], step["role"]) for step in row["steps"])


def _truth_of(row: Mapping[str, Any]) -> Truth | None:
    step = row["true_first_error_step"]
    return None if step is None else Truth(None if step == NO_ERROR else step, row["kind"])


def scored_of(row: Mapping[str, Any]) -> ScoredTrace:
    """The scored trace of a row (a mapping of every column).

    Raises:
        ValueError: no discriminator has read this trace (see `unscored_row`).
    """
    if row["prompt_reward"] is None:
        raise ValueError(f"trace {row['trace_id']!r} has no rewards: no discriminator has read it")
    tokens = row["tokens"]
    spans = tuple((token["start"], token["end"]) for token in tokens)
    ids = tuple(token["id"] for token in tokens)
    unit = Standardisation(row["standardisation_mean"], row["standardisation_std"], row["standardisation_origin"])
    return ScoredTrace(
        EncodedTrace(trace_of(row), tuple(row["prompt_ids"]), ids, spans),
        np.array([token["raw"] for token in tokens], dtype=np.float32),
        np.array([token["logprob"] for token in tokens], dtype=np.float32),
        row["prompt_reward"],
        unit,
        row["checkpoint"],
    )


def localisation_of(row: Mapping[str, Any]) -> Localisation:
    """What was decided about a row when the run was scored."""
    return Localisation(
        decision=row["decision"],
        first_error_step=row["predicted_step"],
        confidence=row["confidence"],
        rule=row["rule"],
        threshold=math.nan if row["threshold"] is None else row["threshold"],
        step_scores=tuple(math.nan if step["score"] is None else step["score"] for step in row["steps"]),
    )
