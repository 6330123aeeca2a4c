"""Is the confidence honest, and is the promise about correct traces kept?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from irl_core.evaluation.first_error_table import Array, Judge, decided, share_of
from irl_core.reward.calibration import at_level
from irl_core.statistics.bootstrap import (
    Figure,
    percentile_interval,
    problem_sums,
    resampled,
    too_few,
    undefined,
    without_interval,
)
from irl_core.statistics.first_error import NO_ERROR

BINS = 10
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


def reliability(frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """How often a decision is right among those of about the same confidence, and the expected calibration error.

    A decision ``error`` is right where the named step is the true one, ``no_error`` where the trace is correct.
    ``uncertain`` is no answer, and left out."""
    said, confidence = frame["decision"].to_numpy(dtype=str), frame["confidence"].to_numpy(dtype=np.float64)
    kept = (said != "uncertain") & np.isfinite(confidence)
    part, confidence = frame[kept], confidence[kept]
    right, ids = decided(part) == part["true"].to_numpy(), part["problem_id"].to_numpy()
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    rows = []
    for number in range(BINS):
        mine = bins == number
        rows.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "confidence": float(confidence[mine].mean()) if mine.any() else None,
                "right": share_of(right[mine], ids[mine], "decisions", seed),
            }
        )
    return {"left_out": int((~kept).sum()), "bins": rows, "ece": calibration_error(confidence, right, ids, seed=seed)}


def calibration_error(
    confidence: Array, right: npt.NDArray[np.bool_], problem_ids: npt.NDArray[Any], *, seed: int = 0
) -> Figure:
    """Expected calibration error over ``BINS`` equal bins (Guo et al. 2017): sum of |right - confidence| over n.

    Resampling adds noise to every bin and so only ever raises it: the interval is bias-corrected (Efron 1981), and
    reaches at least to the value."""
    n, unit = len(confidence), "decisions"
    if not n:
        return undefined(0, unit, "no decision with a confidence")
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    signed = np.zeros((n, BINS + 1))
    signed[np.arange(n), bins], signed[:, BINS] = right - confidence, 1.0
    columns = np.column_stack([problem_sums(column, problem_ids) for column in signed.T])
    problems, method = len(columns), f"{unit}; bias-corrected bootstrap over {len(columns)} problems"
    if problems < 2:
        return undefined(n, method, "fewer than two problems")

    def error(totals: Array) -> Array:
        found: Array = np.abs(totals[:, :BINS]).sum(1) / np.maximum(totals[:, BINS], 1)
        return found

    value = float(error(columns.sum(0, keepdims=True))[0])
    if few := too_few(problems):
        return without_interval(value, n, unit, few)
    draws = resampled(columns, error, seed=seed)
    low, high = bias_corrected(value, draws)
    return Figure(value, min(low, value), max(high, value), n, method)


def bias_corrected(value: float, draws: Array) -> tuple[float, float]:
    """Efron's bias-corrected 95 % interval of bootstrap draws; the percentile interval where all lie on one side."""
    below = float((draws < value).mean() + 0.5 * (draws == value).mean())
    if not 0 < below < 1:
        return percentile_interval(draws)
    shift = 2 * stats.norm.ppf(below)
    low, high = np.quantile(draws, stats.norm.cdf([shift + stats.norm.ppf(q) for q in (0.025, 0.975)]))
    return float(low), float(high)


def conformal(frame: pd.DataFrame, judge: Judge, seed: int) -> dict[str, Any]:
    """The share of correct traces that are flagged, against the promise, at several levels.

    The promise is of the mean over calibrations. ``expected`` is where 95 % of the flagged shares of calibrations of
    this size lie, were traces independent (a beta distribution); several samples a problem spread it further."""
    part = frame[(frame["true"] == NO_ERROR) & frame["reward_suspicion"].notna()]
    suspicion, ids = part["reward_suspicion"].to_numpy(dtype=np.float64), part["problem_id"].to_numpy()
    known = judge.calibration

    def level(alpha: float | None, threshold: float, promised: bool) -> dict[str, Any]:
        flagged = share_of(suspicion < threshold, ids, "correct traces", seed)
        expected = _expected(alpha, known.n) if known and alpha is not None else None
        limit = threshold if math.isfinite(threshold) else None
        return {
            "alpha": alpha, "threshold": limit, "promised": promised, "flagged": flagged,
            "verdict": "" if alpha is None else _verdict(flagged, alpha), "expected": expected,
        }  # fmt: skip

    if known is None:
        reason = "the run's provenance holds no calibration: the promised level is not known"
        return {"reason": reason, "n": 0, "levels": [level(None, judge.threshold, True)]}
    levels = sorted({*ALPHAS, known.alpha})
    rows = [level(alpha, at_level(known, alpha).threshold, alpha == known.alpha) for alpha in levels]
    return {"reason": "", "n": known.n, "levels": rows}


def _expected(alpha: float, n: int) -> list[float]:
    """The 95 % range of the flagged share, over calibrations on n independent correct traces."""
    rank = math.floor(alpha * (n + 1) + 1e-9)
    if not rank:
        return [0.0, 0.0]
    low, high = stats.beta.ppf([0.025, 0.975], rank, n + 1 - rank) if rank <= n else (1.0, 1.0)
    return [float(low), float(high)]


def _verdict(flagged: Figure, alpha: float) -> str:
    if not flagged.defined:
        return "undefined"
    return "more than promised" if flagged.low > alpha else "as promised" if flagged.value <= alpha else "not refuted"
