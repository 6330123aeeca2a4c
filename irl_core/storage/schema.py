"""The columns of a scored run and the type of its rows; ``irl_core.storage.rows`` makes them of traces.

``docs/scored-runs.md`` describes every column. Conventions:

- spans and step numbers are those of ``irl_core.types``: character offsets into ``text``, 0-based steps;
- ``true_first_error_step``: null = not known, -1 = known to have no error; ``predicted_step``: null = none predicted;
- a score that is not defined is null, and so is a text that does not exist (``reference_answer``, ``answer``, ...);
- ``familiar``, ``familiarity``, ...: null = not measured, as in every file of schema version 2, which has none of them;
  ``cannot_judge``: the reward's decision on the trace is no verdict; ``model``, the author of the text where the input
  names one, is null in every file before version 4, and ``score_product`` before version 5;
- ``uncertain_threshold`` and ``score_tells`` are null in every file before version 6: not known;
- what only some traces have (their author, a perturbation's kind and first changed token, a probe's name, the honest
  trace they were made of) comes from ``Trace.extra``, under the names of ``EXTRA_COLUMNS``, and stays there too.
"""

from __future__ import annotations

from typing import Literal, TypedDict

import pyarrow as pa

from irl_core.types import Decision

SCHEMA_VERSION = 6
READABLE_VERSIONS = (2, 3, 4, 5, SCHEMA_VERSION)  # what a file of an earlier version lacks is null
NO_ERROR = -1
ANSWER_SCORE = "score_mean_discounted_answer"
FORMAT_COLUMNS = ("xml_count", "strict_format", "soft_format", "integer_answer")
EXTRA_COLUMNS = ("model", "perturbed_kind", "perturbed_from_token", "probe", "honest_trace_id")

STEP = pa.struct(
    {"start": pa.int32(), "end": pa.int32(), "text": pa.string(), "score": pa.float32(), "role": pa.string()}
)
TOKEN = pa.struct(
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
        "uncertain_threshold": pa.float64(),
        "score_tells": pa.bool_(),
        "cannot_judge": pa.bool_(),
        "familiar": pa.bool_(),
        "familiarity": pa.float64(),
        "familiarity_percentile": pa.float64(),
        "unknown_share": pa.float64(),
        "familiarity_reason": pa.string(),
        "n_steps": pa.int32(),
        "length": pa.int32(),
        "score_min": pa.float64(),
        "score_mean": pa.float64(),
        "score_mean_discounted": pa.float64(),
        "score_last": pa.float64(),
        "score_product": pa.float64(),
        "score_credit_sum": pa.float64(),
        "score_credit_minimum": pa.float64(),
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
        "model": pa.string(),
        "finished": pa.bool_(),
        "sampled": pa.bool_(),
        "perturbed_kind": pa.string(),
        "perturbed_from_token": pa.int32(),
        "probe": pa.string(),
        "honest_trace_id": pa.string(),
        "extra": pa.map_(pa.string(), pa.string()),
        "prompt_ids": pa.list_(pa.int32()),
        "steps": pa.list_(STEP),
        "tokens": pa.list_(TOKEN),
    }
)
FROM_0 = "index of a step, from 0; pages, reports and texts number steps from 1"
STEP_COLUMNS = ("true_first_error_step", "predicted_step", "arithmetic_first_false_step")
for _name in STEP_COLUMNS:  # a file that is opened elsewhere says it of itself
    _place = COLUMNS.get_field_index(_name)
    COLUMNS = COLUMNS.set(_place, COLUMNS.field(_place).with_metadata({"description": FROM_0}))
ADDED_COLUMNS = (  # those that a file of an earlier version may lack
    "uncertain_threshold", "score_tells", "score_product", "model", "cannot_judge", "familiar", "familiarity",
    "familiarity_percentile", "unknown_share", "familiarity_reason",
)  # fmt: skip
NESTED_COLUMNS = ("extra", "prompt_ids", "steps", "tokens")
SUMMARY_COLUMNS = [name for name in COLUMNS.names if name not in NESTED_COLUMNS]


class StepRow(TypedDict):
    """A step of a row; ``score``: None where it has no token, or where no discriminator has read the trace."""

    start: int
    end: int
    text: str
    score: float | None
    role: Literal["reasoning", "answer"]


class TokenRow(TypedDict):
    """A token of a row; ``raw``: its reward, None where no discriminator has read the trace."""

    start: int
    end: int
    raw: float | None
    logprob: float
    id: int


class RewardColumns(TypedDict):
    """The columns that need a discriminator: None in a row that none has read."""

    decision: Decision | None
    predicted_step: int | None
    confidence: float | None
    rule: str | None
    threshold: float | None
    uncertain_threshold: float | None
    score_tells: bool | None
    score_min: float | None
    score_mean: float | None
    score_mean_discounted: float | None
    score_last: float | None
    score_product: float | None
    score_credit_sum: float | None
    score_credit_minimum: float | None
    score_mean_discounted_answer: float | None
    standardisation_mean: float | None
    standardisation_std: float | None
    standardisation_origin: str | None
    prompt_reward: float | None


class FamiliarityColumns(TypedDict):
    """Whether the text is like those that the checkpoint was made for, and whether the model can judge it: None where
    it was not measured."""

    cannot_judge: bool | None
    familiar: bool | None
    familiarity: float | None
    familiarity_percentile: float | None
    unknown_share: float | None
    familiarity_reason: str | None


class TraceColumns(TypedDict):
    """The columns of a trace itself, with the policy's log-probabilities."""

    run_id: str
    trace_id: str
    problem_id: str
    family: str | None
    problem: str
    text: str
    reference_answer: str | None
    reference_solution: str | None
    answer: str | None
    correct: bool | None
    true_first_error_step: int | None
    kind: str | None
    n_steps: int
    length: int
    log_prob_mean: float | None
    log_prob_min: float | None
    arithmetic_false: int
    arithmetic_first_false_step: int | None
    xml_count: float
    strict_format: float
    soft_format: float
    integer_answer: float
    checkpoint: str
    layout: str
    source: str
    model: str | None
    finished: bool
    sampled: bool
    perturbed_kind: str | None
    perturbed_from_token: int | None
    probe: str | None
    honest_trace_id: str | None
    extra: list[tuple[str, str]]
    prompt_ids: list[int]
    steps: list[StepRow]
    tokens: list[TokenRow]


class ScoredRow(TraceColumns, RewardColumns, FamiliarityColumns):
    """One row of a scored run, by column name."""


class RefusedRow(TypedDict, total=False):
    """A row of the input that could not be scored: where it stands (a place in a file, or an id), and why."""

    file: str
    line: int
    field: str
    trace_id: str
    problem_id: str
    message: str
