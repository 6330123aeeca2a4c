"""Which step every way to locate names in each trace of a scored run, read from its tokens. Runs no model."""

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
from irl_core.statistics.bootstrap import Estimate, share, undefined
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
class Judge:
    """The reward's rule with its limit, and, where the provenance holds them, the calibration behind it and the one of
    the rule over log-probabilities. Without ``answer_lines`` closing lines are never named."""

    rule: Rule
    threshold: float
    answer_lines: bool
    calibration: Calibration | None = None
    likelihood: Calibration | None = None

    @property
    def gamma(self) -> float:
        known = self.calibration.gamma if self.calibration else None
        return DEFAULT_GAMMA if known is None else known


def judge_of(run: EvaluatedRun, answer_lines: bool | None = None) -> Judge | None:
    """How the run's traces were judged; None where no discriminator has read any of them.

    ``answer_lines`` None: closing lines may be named where the rule says so, but not where all labels come from
    outside, since these count reasoning steps alone.

    Raises:
        StoreError: the run was scored by several rules, or by another than the calibration in its provenance.
    """
    names = sorted({str(name) for frame in (run.frame, run.perturbed) for name in frame["rule"].dropna()})
    if not names:
        return None
    calibration = _calibration(run, CALIBRATION)
    if len(names) > 1 or (calibration is not None and calibration.rule.name != names[0]):
        known = f" and its provenance {calibration.rule.name}" if calibration else ""
        raise StoreError(f"{run.path.name}: holds the rules {', '.join(names)}{known}; score it with one checkpoint")
    rule = parse_rule(names[0])
    likelihood = _calibration(run, LIKELIHOOD)
    if likelihood is not None and likelihood.rule.signal != LEAST_LIKELY.signal:
        raise StoreError(f"{run.path.name}: its provenance's {LIKELIHOOD} reads {likelihood.rule.signal}, not logprob")
    named = _generated(run.frame) if answer_lines is None else answer_lines
    limit = calibration.threshold if calibration else _threshold(run)
    return _barred(Judge(rule, limit, named, calibration, likelihood))


def _calibration(run: EvaluatedRun, key: str) -> Calibration | None:
    record = run.provenance.get(key)
    try:
        return None if record is None else Calibration.from_json(record)
    except ValueError as error:
        raise StoreError(f"{run.path.name}: its provenance's {key} cannot be read: {error}") from error


def _generated(frame: pd.DataFrame) -> bool:
    """Whether closing lines may be named: unless all labels are from outside."""
    labelled = frame[frame["true_first_error_step"].notna()]
    return not (len(labelled) and (labelled["source"] == EXTERNAL).all())


def _threshold(run: EvaluatedRun) -> float:
    """The one limit that the run was scored with; a null one flags nothing."""
    frame = run.frame if run.frame["rule"].notna().any() else run.perturbed
    known = frame.loc[frame["rule"].notna(), "threshold"].astype("float64").fillna(-math.inf).unique()
    if len(known) > 1:
        raise StoreError(f"{run.path.name}: was scored with {len(known)} thresholds; score it with one checkpoint")
    return float(known[0])


def _barred(judge: Judge) -> Judge:
    """The same with closing lines barred from its rules, where they must not be named."""
    if judge.answer_lines:
        return judge

    def bar(one: Calibration | None) -> Calibration | None:
        return None if one is None else replace(one, rule=replace(one.rule, include_answer=False))

    rule = replace(judge.rule, include_answer=False)
    return replace(judge, rule=rule, calibration=bar(judge.calibration), likelihood=bar(judge.likelihood))


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
    """Traces with a known truth, one row a trace, and what each method makes of them.

    ``frame``: ``trace_id``, ``problem_id``, ``true`` (`NO_ERROR` where there is none), ``kind``, ``right_answer``;
    ``reward`` and ``reward_suspicion`` (the step that the rule names were the trace known to be wrong, and its lowest
    step score, NaN without a signal), ``decision`` and ``confidence``; ``least_likely``; ``likelihood`` and
    ``likelihood_decision`` where that rule is known, and the same of the ``anchor``, the model that the discriminator
    started from, where its file lies beside the run; ``arithmetic`` (`NO_ERROR` where the checker is silent);
    ``first``, ``middle``, ``last`` of the steps that may be named and ``chance``, that of a random one to be right.
    ``scores``: the step scores of each row, NaN where a step may not be named.
    """

    frame: pd.DataFrame
    scores: Sequence[Array] = field(default_factory=list)


def located(path: Path, judge: Judge, anchor: Path | None = None) -> Located:
    """Every scored trace of a run whose first error is known, in the file's order; a row group in memory at a time.
    ``anchor``: the file of the same traces as another model read them, where there is one."""
    rows, scores = [], []
    for table in read_batches(path, COLUMNS.names):
        for row in table.to_pylist():
            if row["true_first_error_step"] is not None and row["prompt_reward"] is not None:
                found, eligible = _row(row, judge)
                rows.append(found)
                scores.append(eligible)
    frame = pd.DataFrame(rows)
    if len(frame) and anchor is not None and anchor.exists():
        frame = frame.merge(_anchored(anchor, judge), on="trace_id", validate="one_to_one")
    return Located(frame, scores)


def _anchored(path: Path, judge: Judge) -> pd.DataFrame:
    """What the least likely step is under the anchor, by the rule in its file's provenance."""
    record = read_provenance(path).get("likelihood_calibration")
    known = None if record is None else Calibration.from_json(record)
    bare = known.rule if known else LEAST_LIKELY
    rule = replace(bare, include_answer=judge.rule.include_answer)
    rows = []
    for table in read_batches(path, ["trace_id", "tokens", "steps"]):
        for row in table.to_pylist():
            spans = [(token["start"], token["end"]) for token in row["tokens"]]
            steps = [Step(step["start"], step["end"], step["text"], step["role"]) for step in row["steps"]]
            signals = {"logprob": np.array([token["logprob"] for token in row["tokens"]], dtype=np.float32)}
            named = most_suspect(signals, spans, steps, rule, known.threshold if known else -math.inf)
            found = {"trace_id": row["trace_id"], "anchor": _step(named, UNDECIDED)}
            if known:
                found["anchor_decision"] = locate(signals, spans, steps, replace(known, rule=rule)).decision
            rows.append(found)
    return pd.DataFrame(rows)


def _row(row: ScoredRow, judge: Judge) -> tuple[dict[str, Any], Array]:
    scored = scored_of(row)
    signals = signals_of(scored, judge)
    eligible = eligible_scores(scored, signals, judge.rule)
    named = most_suspect(signals, scored.encoded.spans, scored.trace.steps, judge.rule, judge.threshold)
    suspicion = math.nan if named is None else float(np.nanmin(eligible))
    found = {
        "trace_id": row["trace_id"],
        "problem_id": row["problem_id"],
        "true": row["true_first_error_step"],
        "kind": row["perturbed_kind"] or row["kind"],
        "right_answer": row["correct"],
        "reward": UNDECIDED if named is None else named,
        "reward_suspicion": suspicion,
        **_decision(row, scored, signals, suspicion, judge),
        "arithmetic": _step(row["arithmetic_first_false_step"], NO_ERROR),
        **_without_reward(scored, signals, judge),
        **_fixed_steps(scored, judge.rule.include_answer, row["true_first_error_step"]),
    }
    return found, eligible


def signals_of(scored: ScoredTrace, judge: Judge) -> dict[str, npt.NDArray[Any]]:
    """The signals that the judge's rules read, each (T,); the same values as those of
    `irl_core.reward.token_scores`."""
    cheap = {
        "raw": scored.raw,
        "credit": np.diff(scored.raw, prepend=np.float32(scored.prompt_reward)),
        "logprob": scored.logprobs,
    }
    return cheap if judge.rule.signal in cheap else {**named_signals(scored, judge.gamma), **cheap}


def eligible_scores(scored: ScoredTrace, signals: Mapping[str, npt.NDArray[Any]], rule: Rule) -> Array:
    """The score of each step by a rule, NaN where it has no token or may not be named."""
    steps = scored.trace.steps
    values = step_scores(signals[rule.signal], token_steps(scored.encoded.spans, steps), len(steps), rule.reduction)
    barred = [step.role == "answer" and not rule.include_answer for step in steps]
    return np.where(barred, np.nan, values)


def _decision(
    row: Mapping[str, Any],
    scored: ScoredTrace,
    signals: Mapping[str, npt.NDArray[Any]],
    suspicion: float,
    judge: Judge,
) -> dict[str, Any]:
    """Decision and confidence: computed where the calibration is known, else those that were stored. A trace that was
    flagged for a closing line which may not be named is then undecided, and has no confidence."""
    if judge.calibration is not None:
        where = locate(signals, scored.encoded.spans, scored.trace.steps, judge.calibration)
        return {"decision": where.decision, "confidence": where.confidence}
    if row["decision"] == "error" and not suspicion < judge.threshold:
        return {"decision": "uncertain", "confidence": math.nan}
    return {"decision": row["decision"], "confidence": row["confidence"]}


def _without_reward(scored: ScoredTrace, signals: Mapping[str, npt.NDArray[Any]], judge: Judge) -> dict[str, int | str]:
    spans, steps = scored.encoded.spans, scored.trace.steps
    rule = replace(LEAST_LIKELY, include_answer=judge.rule.include_answer)
    found: dict[str, int | str] = {"least_likely": _step(most_suspect(signals, spans, steps, rule), UNDECIDED)}
    if judge.likelihood is not None:
        known = judge.likelihood
        found["likelihood"] = _step(most_suspect(signals, spans, steps, known.rule, known.threshold), UNDECIDED)
        found["likelihood_decision"] = locate(signals, spans, steps, known).decision
    return found


def _step(found: int | None, otherwise: int) -> int:
    return otherwise if found is None else found


def _fixed_steps(scored: ScoredTrace, answer_lines: bool, true: int | None) -> dict[str, float]:
    """What needs no score: the first, middle and last step that may be named, and a random one's chance."""
    numbers = [i for i, step in enumerate(scored.trace.steps) if answer_lines or step.role == "reasoning"]
    if not numbers:
        return {"first": UNDECIDED, "middle": UNDECIDED, "last": UNDECIDED, "chance": 0.0}
    middle = numbers[(len(numbers) - 1) // 2]
    chance = 1 / len(numbers) if true in numbers else 0.0
    return {"first": numbers[0], "middle": middle, "last": numbers[-1], "chance": chance}


# ------------------------------------------------------------------------------------------------ reading it


def column(frame: pd.DataFrame, name: str) -> Steps:
    """A column of steps (M,)."""
    return frame[name].to_numpy(dtype=np.int64)


def decided(frame: pd.DataFrame, named: str = "reward", decision: str = "decision") -> Steps:
    """Steps, `NO_ERROR` and `UNDECIDED`, by a method's own threshold."""
    said = frame[decision].to_numpy(dtype=str)
    return np.where(said == "error", column(frame, named), np.where(said == "no_error", NO_ERROR, UNDECIDED))


def share_of(
    values: npt.NDArray[Any], ids: npt.NDArray[Any], unit: str, seed: int, *, bounded: bool = True
) -> Estimate:
    """The share of traces with a flag, or their mean; undefined where there is no such trace."""
    if not len(values):
        return undefined(0, unit, f"no {unit}")
    return share(values, ids, unit=unit, bounded=bounded, seed=seed)
