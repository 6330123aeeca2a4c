"""What moves with what: Pearson and Spearman matrices, and whether the reward is correctness or brevity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import REWARD_SCORES, TITLES, Array, judged, score
from irl_core.evaluation.wording import extent, listed, shown, side
from irl_core.statistics.bootstrap import Figure, plain, problem_index
from irl_core.statistics.correlation import clustered_correlations, partial_correlation

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
    ("neither", "above"): "beyond {} it goes with correctness within a problem; over all traces nothing is shown.",
    ("neither", "neither"): "nothing of correctness is shown beyond {}.",
    ("neither", "below"): "beyond {} it goes against correctness within a problem; over all traces nothing is shown.",
    ("below", "above"): "beyond {} it goes with correctness within a problem, but against which problems are easy.",
    ("below", "neither"): "beyond {} it goes against which problems are easy, and within a problem nothing is shown.",
    ("below", "below"): "beyond {} it goes against correctness.",
}
REMOVED = {
    "nothing": (),
    "length": ("length",),
    "length_and_log_prob": ("length", "log_prob_mean"),
}


def figures(run: EvaluatedRun, *, seed: int = 0) -> dict[str, Any]:
    """``pearson`` and ``spearman``: every pair of ``columns``, over the traces that have both. ``partial``: each score
    with correctness, ``pooled`` and ``within`` problems, with nothing, length, or length and log-probability removed.
    Intervals: bootstrap over problems."""
    frame, one = run.frame, judged(run.frame)
    columns = {name: _column(frame, name) for name in COLUMNS}
    ids = problem_index(list(frame["problem_id"]))[1]
    found = {
        **one.counts(),
        "titles": dict(COLUMNS),
        "constant": _constant(columns),
        "pearson": clustered_correlations(columns, ids, "pearson", seed=seed, titles=COLUMNS),
        "spearman": clustered_correlations(columns, ids, "spearman", seed=seed, titles=COLUMNS),
        "partial": {name: _partials(name, columns, ids, seed) for name in (*REWARD_SCORES, "log_prob_mean")},
    }
    return dict(plain(found))


def _column(frame: pd.DataFrame, name: str) -> Array:
    """A column as numbers, NaN where it has none."""
    if name in TITLES:
        return score(frame, name)
    return pd.to_numeric(frame[name].astype("object").where(frame[name].notna(), np.nan)).to_numpy(dtype=np.float64)


def _constant(columns: dict[str, Array]) -> dict[str, float | None]:
    """The columns that do not vary, with their value; None where no trace has one."""
    found: dict[str, float | None] = {}
    for name, values in columns.items():
        known = values[np.isfinite(values)]
        if not known.size or np.ptp(known) == 0:
            found[name] = float(known[0]) if known.size else None
    return found


def _partials(
    name: str, columns: dict[str, Array], ids: npt.NDArray[np.int64], seed: int
) -> dict[str, dict[str, Figure]]:
    removed = {key: controls for key, controls in REMOVED.items() if name not in controls}
    return {
        where: {
            key: partial_correlation(
                columns[name], columns["correct"], [columns[control] for control in controls], ids,
                within=where == "within", seed=seed,
            )
            for key, controls in removed.items()
        }
        for where in ("pooled", "within")
    }  # fmt: skip


def paragraph(found: dict[str, Any]) -> str:
    """Is it correctness, or brevity, or likelihood?"""
    name = next(iter(REWARD_SCORES))
    pooled, within = found["partial"][name]["pooled"], found["partial"][name]["within"]
    if pooled["nothing"]["value"] is None:
        return f"On {extent(found)}, the correlation with correctness is {shown(pooled['nothing'])}."
    rows = found["pearson"][name]
    others = [f"{COLUMNS[other]} {shown(rows[other])}" for other in ("length", "log_prob_mean", "arithmetic_false")]
    text = (
        f"On {extent(found)}, {COLUMNS[name]} correlates with correctness at r {_both(pooled, within, 'nothing')}; "
        f"with {listed(others)}. With length removed r is {_both(pooled, within, 'length')}: "
        f"{_verdict(pooled, within, 'length', 'length')} With log-probability removed too it is "
        f"{_both(pooled, within, 'length_and_log_prob')}: "
        f"{_verdict(pooled, within, 'length_and_log_prob', 'length and likelihood')}"
    )
    if found["constant"]:
        text += f" Undefined because they never vary: {listed([COLUMNS[column] for column in found['constant']])}."
    return text


def _both(pooled: dict[str, Any], within: dict[str, Any], key: str) -> str:
    return f"{shown(pooled[key])} pooled, within problems {shown(within[key])}"


def _verdict(pooled: dict[str, Any], within: dict[str, Any], key: str, removed: str) -> str:
    """What is left once something is removed, by both intervals."""
    sides = [side(part[key]) for part in (pooled, within)]
    if "undefined" in sides:
        return f"what is left beyond {removed} is undefined on these traces."
    return VERDICTS[sides[0], sides[1]].format(removed)
