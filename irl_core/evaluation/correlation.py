"""Correlations of scores, correctness, length and format, and partial ones with length and likelihood removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import REWARD_SCORES, TITLES, Array, Counts, extent, graded, score
from irl_core.evaluation.section import Section, Table
from irl_core.statistics.bootstrap import Estimate, problem_index
from irl_core.statistics.correlation import clustered_correlations, partial_correlation
from irl_core.statistics.wording import listed, side

COLUMNS = {
    **REWARD_SCORES,
    "length": "length",
    "log_prob_mean": "log-probability, mean",
    "correct": "correctness",
    "xml_count": "XML count",
    "strict_format": "strict format",
    "soft_format": "soft format",
    "integer_answer": "integer answer",
    "arithmetic_false": "arithmetic errors",
}
# what is left once something is removed, pooled and within problems
VERDICTS = {
    ("above", "above"): "beyond {} it still goes with correctness.",
    ("above", "neither"): "beyond {} it goes with which problems are easy, and within a problem nothing is shown.",
    ("above", "below"): "beyond {} it goes with which problems are easy, but within a problem against correctness.",
    ("neither", "above"): "beyond {} it goes with correctness within a problem; over all solutions nothing is shown.",
    ("neither", "neither"): "nothing of correctness is shown beyond {}.",
    (
        "neither",
        "below",
    ): "beyond {} it goes against correctness within a problem; over all solutions nothing is shown.",
    ("below", "above"): "beyond {} it goes with correctness within a problem, but against which problems are easy.",
    ("below", "neither"): "beyond {} it goes against which problems are easy, and within a problem nothing is shown.",
    ("below", "below"): "beyond {} it goes against correctness.",
}
REMOVED = {
    "nothing": (),
    "length": ("length",),
    "length_and_log_prob": ("length", "log_prob_mean"),
}


@dataclass(frozen=True, slots=True)
class Partial:
    """A score's correlation with correctness by what is removed (a key of ``REMOVED``): over all traces, and after each
    problem's mean is subtracted."""

    pooled: dict[str, Estimate]
    within: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlations(Counts):
    """Correlations between the columns of an evaluation, with intervals by a bootstrap over problems.

    Attributes:
        titles: of the columns.
        constant: the columns that do not vary, with their value; None where no trace has one.
        pearson: every pair of columns, over the traces that have both.
        spearman: the same of their ranks.
        partial: each score with correctness, others removed.
    """

    titles: dict[str, str]
    constant: dict[str, float | None]
    pearson: dict[str, dict[str, Estimate]]
    spearman: dict[str, dict[str, Estimate]]
    partial: dict[str, Partial]


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[Correlations]:
    """Correlation as a section of the report."""
    correlations = figures(run, seed=seed)
    return Section("Correlation", correlations, paragraph(correlations), tables(correlations))


def figures(run: EvaluatedRun, *, seed: int = 0) -> Correlations:
    """The correlations of an evaluation. ``seed``: of the bootstrap."""
    frame = run.frame
    columns = {name: column_of(frame, name) for name in COLUMNS}
    ids = problem_index(list(frame["problem_id"]))[1]
    constant: dict[str, float | None] = {}
    for name, values in columns.items():
        known = values[np.isfinite(values)]
        if not known.size or np.ptp(known) == 0:
            constant[name] = float(known[0]) if known.size else None
    return Correlations(
        **asdict(graded(frame).counts()),
        titles=dict(COLUMNS),
        constant=constant,
        pearson=clustered_correlations(columns, ids, "pearson", seed=seed, titles=COLUMNS),
        spearman=clustered_correlations(columns, ids, "spearman", seed=seed, titles=COLUMNS),
        partial={name: partial_of(name, columns, ids, seed) for name in (*REWARD_SCORES, "log_prob_mean")},
    )


def column_of(frame: pd.DataFrame, name: str) -> Array:
    """A column as numbers, NaN where it has none."""
    if name in TITLES:
        return score(frame, name)
    return pd.to_numeric(frame[name].astype("object").where(frame[name].notna(), np.nan)).to_numpy(dtype=np.float64)


def partial_of(name: str, columns: Mapping[str, Array], ids: npt.NDArray[np.int64], seed: int) -> Partial:
    """A column's correlation with correctness, others removed."""
    pooled, within = (
        {
            key: partial_correlation(
                columns[name], columns["correct"], [columns[one] for one in controls], ids, within=inside, seed=seed
            )
            for key, controls in REMOVED.items()
            if name not in controls
        }
        for inside in (False, True)
    )
    return Partial(pooled, within)


def paragraph(correlations: Correlations) -> str:
    """The answer to: is the reward correctness, or brevity, or likelihood?"""
    name = next(iter(REWARD_SCORES))
    partial, rows = correlations.partial[name], correlations.pearson[name]
    if not partial.pooled["nothing"].defined:
        return f"On {extent(correlations)}, the correlation with correctness is {partial.pooled['nothing'].words}."
    both = {key: f"{partial.pooled[key].words} pooled, within problems {partial.within[key].words}" for key in REMOVED}
    others = [f"{COLUMNS[other]} {rows[other].words}" for other in ("length", "log_prob_mean", "arithmetic_false")]
    text = (
        f"On {extent(correlations)}, {COLUMNS[name]} correlates with correctness at r {both['nothing']}; with "
        f"{listed(others)}. With length removed r is {both['length']}: {left_beyond(partial, 'length', 'length')} With "
        f"log-probability removed too it is {both['length_and_log_prob']}: "
        f"{left_beyond(partial, 'length_and_log_prob', 'length and likelihood')}"
    )
    if correlations.constant:
        text += f" Undefined because they never vary: {listed([COLUMNS[column] for column in correlations.constant])}."
    return text


def left_beyond(partial: Partial, key: str, removed: str) -> str:
    """What is left once something is removed, by both intervals."""
    sides = [side(part[key]) for part in (partial.pooled, partial.within)]
    if "undefined" in sides:
        return f"what is left beyond {removed} is undefined on these solutions."
    return VERDICTS[sides[0], sides[1]].format(removed)


def tables(correlations: Correlations) -> tuple[Table, ...]:
    """The matrices (reward scores against the rest), and what is left once something is removed."""
    titles, rest = correlations.titles, [name for name in correlations.titles if name not in REWARD_SCORES]
    matrices = [
        Table(
            f"{kind} correlation",
            ["", *(titles[name] for name in rest)],
            [[titles[name], *(rows[name][other] for other in rest)] for name in REWARD_SCORES],
            "report.json holds every pair.",
        )
        for kind, rows in (("Pearson", correlations.pearson), ("Spearman", correlations.spearman))
    ]
    removed = ("nothing removed", "length removed", "length and log-probability removed")
    partial = Table(
        "Correlation with correctness, with length and likelihood removed",
        ["score", *(f"{where}, {what}" for where in ("pooled", "within problems") for what in removed)],
        [
            [titles[name], *(part.get(key) for part in (one.pooled, one.within) for key in REMOVED)]
            for name, one in correlations.partial.items()
        ],
    )
    return (*matrices, partial)
