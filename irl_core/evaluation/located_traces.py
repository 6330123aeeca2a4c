"""The step that each method names in each trace of a scored run, read from its stored tokens. Runs no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.errors import StoreError
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.reward.localisation import Calibration, Rule, locate, most_suspect, step_scores, token_steps
from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import COLUMNS, ScoredRow
from irl_core.storage.scored_run import read_batches, read_provenance
from irl_core.types import ScoredTrace, Step
from irl_core.validation import validated

Array = npt.NDArray[np.float64]
Steps = npt.NDArray[np.int64]

CALIBRATION, LIKELIHOOD = "calibration", "likelihood_calibration"  # keys of a run's provenance
ANCHOR = "anchor.parquet"  # the run's traces as the model read them that the discriminator started from
LEAST_LIKELY = Rule("logprob", "min", "argmin")
EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class Locator:
    """How a wrong step is located: the reward's rule with its threshold and, where the provenance holds them, the
    calibration behind it and that of the rule over log-probabilities. Without ``answer_lines`` closing lines are never
    named."""

    rule: Rule
    threshold: float
    answer_lines: bool
    calibration: Calibration | None = None
    likelihood: Calibration | None = None

    @property
    def gamma(self) -> float:
        known = self.calibration.gamma if self.calibration else None
        return DEFAULT_GAMMA if known is None else known


def locator_of(run: EvaluatedRun, answer_lines: bool | None = None) -> Locator | None:
    """The locator that the traces were scored with; None where no discriminator has read any of them.

    ``answer_lines`` None: closing lines may be named where the rule says so, but not where all labels come from
    outside, since these count reasoning steps alone.

    Raises:
        StoreError: the run was scored by several rules, or by another than the calibration in its provenance.
    """
    names = sorted({str(name) for frame in (run.frame, run.perturbed) for name in frame["rule"].dropna()})
    if not names:
        return None
    calibration, likelihood = (_calibration(run, key) for key in (CALIBRATION, LIKELIHOOD))
    if len(names) > 1 or (calibration is not None and calibration.rule.name != names[0]):
        known = f" and its provenance {calibration.rule.name}" if calibration else ""
        raise StoreError(f"{run.path.name}: holds the rules {', '.join(names)}{known}; score it with one checkpoint")
    rule = parse_rule(names[0])
    if likelihood is not None and likelihood.rule.signal != LEAST_LIKELY.signal:
        raise StoreError(f"{run.path.name}: its provenance's {LIKELIHOOD} reads {likelihood.rule.signal}, not logprob")
    if answer_lines is None:
        sources = run.frame.loc[run.frame["true_first_error_step"].notna(), "source"]
        answer_lines = not (len(sources) and (sources == EXTERNAL).all())
    if not answer_lines:  # barred from every rule
        rule = replace(rule, include_answer=False)
        calibration, likelihood = (
            one and replace(one, rule=replace(one.rule, include_answer=False)) for one in (calibration, likelihood)
        )
    if calibration:
        return Locator(rule, calibration.threshold, answer_lines, calibration, likelihood)
    frame = run.frame if run.frame["rule"].notna().any() else run.perturbed
    limits = frame.loc[frame["rule"].notna(), "threshold"].astype("float64").fillna(-math.inf).unique()
    if len(limits) > 1:
        raise StoreError(f"{run.path.name}: was scored with {len(limits)} thresholds; score it with one checkpoint")
    return Locator(rule, float(limits[0]), answer_lines, None, likelihood)  # a null threshold flags nothing


def _calibration(run: EvaluatedRun, key: str) -> Calibration | None:
    record = run.provenance.get(key)
    try:
        return None if record is None else Calibration.from_json(record)
    except ValueError as error:
        raise StoreError(f"{run.path.name}: its provenance's {key} cannot be read: {error}") from error


def parse_rule(name: str) -> Rule:
    """The rule with this name, as ``Rule.name`` writes it."""
    plain, _, answer = name.partition("+")
    parts = plain.split("/")
    if len(parts) != 3:
        raise StoreError(f"{name!r} is no rule such as credit/min/argmin; score the run again")
    document = dict(zip(("signal", "reduction", "choice"), parts, strict=True)) | {"include_answer": answer == "answer"}
    return validated(Rule, document, StoreError, f"{name!r} is no rule; score the run again: ")


# ------------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True, slots=True)
class Located:
    """Traces whose first error is known, one row a trace, with the step that each method names.

    ``frame``: ``trace_id``, ``problem_id``, ``true`` (`NO_ERROR` where there is none), ``kind``, ``right_answer``;
    ``reward`` and ``reward_suspicion`` (the step that the rule names were the trace known to be wrong, and its lowest
    step score, NaN without a signal), ``decision`` and ``confidence``; ``least_likely``; ``likelihood`` and
    ``likelihood_decision`` where that rule is known, and the same of the ``anchor``, the model that the discriminator
    started from, where its file lies beside the run; ``arithmetic`` (`NO_ERROR` where the checker finds none);
    ``first``, ``middle``, ``last`` of the steps that may be named and ``chance``, that of a random one to be right.
    ``scores``: the step scores of each row, NaN where a step may not be named.
    """

    frame: pd.DataFrame
    scores: Sequence[Array] = field(default_factory=list)


def located(path: Path, locator: Locator, anchor: Path | None = None) -> Located:
    """Every scored trace of a run whose first error is known, in the file's order; a row group in memory at a time.
    ``anchor``: the file of the same traces as another model read them, where there is one."""
    rows, scores = [], []
    for table in read_batches(path, COLUMNS.names):
        for row in table.to_pylist():
            if row["true_first_error_step"] is not None and row["prompt_reward"] is not None:
                cells, eligible = _row(row, locator)
                rows.append(cells)
                scores.append(eligible)
    frame = pd.DataFrame(rows)
    if len(frame) and anchor is not None and anchor.exists():
        frame = frame.merge(_anchored(anchor, locator), on="trace_id", validate="one_to_one")
    return Located(frame, scores)


def _anchored(path: Path, locator: Locator) -> pd.DataFrame:
    """The least likely step under the anchor, by the rule in its file's provenance."""
    record = read_provenance(path).get("likelihood_calibration")
    known = None if record is None else Calibration.from_json(record)
    bare = known.rule if known else LEAST_LIKELY
    rule = replace(bare, include_answer=locator.rule.include_answer)
    rows = []
    for table in read_batches(path, ["trace_id", "tokens", "steps"]):
        for row in table.to_pylist():
            spans = [(token["start"], token["end"]) for token in row["tokens"]]
            steps = [Step(step["start"], step["end"], step["text"], step["role"]) for step in row["steps"]]
            signals = {"logprob": np.array([token["logprob"] for token in row["tokens"]], dtype=np.float32)}
            named = most_suspect(signals, spans, steps, rule, known.threshold if known else -math.inf)
            cells = {"trace_id": row["trace_id"], "anchor": UNDECIDED if named is None else named}
            if known:
                cells["anchor_decision"] = locate(signals, spans, steps, replace(known, rule=rule)).decision
            rows.append(cells)
    return pd.DataFrame(rows)


def _row(row: ScoredRow, locator: Locator) -> tuple[dict[str, Any], Array]:
    """A row of `Located.frame`, and its step scores."""
    scored, true = scored_of(row), row["true_first_error_step"]
    spans, steps = scored.encoded.spans, scored.trace.steps
    signals = signals_of(scored, locator)
    eligible = eligible_scores(scored, signals, locator.rule)
    named = most_suspect(signals, spans, steps, locator.rule, locator.threshold)
    suspicion = math.nan if named is None else float(np.nanmin(eligible))
    decision, confidence = row["decision"], row["confidence"]
    if locator.calibration is not None:
        where = locate(signals, spans, steps, locator.calibration)
        decision, confidence = where.decision, where.confidence
    elif decision == "error" and not suspicion < locator.threshold:  # flagged for a closing line that is barred now
        decision, confidence = "uncertain", math.nan
    least = most_suspect(signals, spans, steps, replace(LEAST_LIKELY, include_answer=locator.rule.include_answer))
    false = row["arithmetic_first_false_step"]
    may = [place for place, step in enumerate(steps) if locator.rule.include_answer or step.role == "reasoning"]
    cells: dict[str, Any] = {
        "trace_id": row["trace_id"],
        "problem_id": row["problem_id"],
        "true": true,
        "kind": row["perturbed_kind"] or row["kind"],
        "right_answer": row["correct"],
        "reward": UNDECIDED if named is None else named,
        "reward_suspicion": suspicion,
        "decision": decision,
        "confidence": confidence,
        "arithmetic": NO_ERROR if false is None else false,
        "least_likely": UNDECIDED if least is None else least,
        "first": may[0] if may else UNDECIDED,
        "middle": may[(len(may) - 1) // 2] if may else UNDECIDED,
        "last": may[-1] if may else UNDECIDED,
        "chance": 1 / len(may) if true in may else 0.0,
    }
    if known := locator.likelihood:
        likely = most_suspect(signals, spans, steps, known.rule, known.threshold)
        cells["likelihood"] = UNDECIDED if likely is None else likely
        cells["likelihood_decision"] = locate(signals, spans, steps, known).decision
    return cells, eligible


def signals_of(scored: ScoredTrace, locator: Locator) -> dict[str, npt.NDArray[Any]]:
    """The signals that the locator's rules read, each (T,); the same values as those of
    `irl_core.reward.token_scores`."""
    cheap = {
        "raw": scored.raw,
        "credit": np.diff(scored.raw, prepend=np.float32(scored.prompt_reward)),
        "logprob": scored.logprobs,
    }
    return cheap if locator.rule.signal in cheap else {**named_signals(scored, locator.gamma), **cheap}


def eligible_scores(scored: ScoredTrace, signals: Mapping[str, npt.NDArray[Any]], rule: Rule) -> Array:
    """The score of each step by a rule, NaN where it has no token or may not be named."""
    steps = scored.trace.steps
    values = step_scores(signals[rule.signal], token_steps(scored.encoded.spans, steps), len(steps), rule.reduction)
    barred = [step.role == "answer" and not rule.include_answer for step in steps]
    return np.where(barred, np.nan, values)


# ------------------------------------------------------------------------------------------------ reading it


def column(frame: pd.DataFrame, name: str) -> Steps:
    """A column of steps (M,)."""
    return frame[name].to_numpy(dtype=np.int64)


def decided(frame: pd.DataFrame, named: str = "reward", decision: str = "decision") -> Steps:
    """Steps, `NO_ERROR` and `UNDECIDED`, by a method's own threshold."""
    said = frame[decision].to_numpy(dtype=str)
    return np.where(said == "error", column(frame, named), np.where(said == "no_error", NO_ERROR, UNDECIDED))
