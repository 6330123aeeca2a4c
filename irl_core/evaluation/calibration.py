"""Calibration of the confidence, and the flagged share of correct traces against the promised one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from irl_core.evaluation.located_traces import Array, Locator, decided
from irl_core.evaluation.section import Table
from irl_core.reward.calibration import at_level
from irl_core.statistics.bootstrap import (
    Estimate,
    percentile_interval,
    problem_sums,
    resampled,
    share,
    too_few,
    undefined,
    without_interval,
)
from irl_core.statistics.first_error import NO_ERROR

BINS = 10
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)


@dataclass(frozen=True, slots=True)
class Bin:
    """The decisions whose confidence lies between ``low`` and ``high``: their mean confidence, None without one, and
    the share of them that is right."""

    low: float
    high: float
    confidence: float | None
    right: Estimate


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often a decision is right among those of about the same confidence, and the expected calibration error.
    ``left_out``: traces that were left undecided, or have no confidence."""

    left_out: int
    bins: list[Bin]
    ece: Estimate


def reliability(frame: pd.DataFrame, seed: int) -> Reliability:
    """The reliability of the decisions on located traces. A decision ``error`` is right where the named step is the
    true one, ``no_error`` where the trace is correct."""
    said, confidence = frame["decision"].to_numpy(dtype=str), frame["confidence"].to_numpy(dtype=np.float64)
    kept = (said != "uncertain") & np.isfinite(confidence)
    part, confidence = frame[kept], confidence[kept]
    right, ids = decided(part) == part["true"].to_numpy(), part["problem_id"].to_numpy()
    numbers = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in range(BINS):
        mine = numbers == number
        mean = float(confidence[mine].mean()) if mine.any() else None
        correct = share(right[mine], ids[mine], unit="decisions", seed=seed)
        bins.append(Bin(number / BINS, (number + 1) / BINS, mean, correct))
    return Reliability(int((~kept).sum()), bins, calibration_error(confidence, right, ids, seed=seed))


def reliability_table(reliability: Reliability) -> Table:
    """A row a bin that has a decision."""
    return Table(
        "Confidence and how often it is right",
        ["confidence", "mean", "decision right"],
        [
            [f"{one.low:.1f} to {one.high:.1f}", f"{one.confidence:.3f}", one.right]
            for one in reliability.bins
            if one.confidence is not None
        ],
        f"Expected calibration error: {reliability.ece}. Undecided solutions left out: {reliability.left_out}.",
    )


def calibration_error(
    confidence: Array, right: npt.NDArray[np.bool_], problem_ids: npt.NDArray[Any], *, seed: int = 0
) -> Estimate:
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
        errors: Array = np.abs(totals[:, :BINS]).sum(1) / np.maximum(totals[:, BINS], 1)
        return errors

    value = float(error(columns.sum(0, keepdims=True))[0])
    if few := too_few(problems):
        return without_interval(value, n, unit, few)
    draws = resampled(columns, error, seed=seed)
    low, high = bias_corrected(value, draws)
    return Estimate(value, min(low, value), max(high, value), n, method)


def bias_corrected(value: float, draws: Array) -> tuple[float, float]:
    """Efron's bias-corrected 95 % interval of bootstrap draws; the percentile interval where all lie on one side."""
    below = float((draws < value).mean() + 0.5 * (draws == value).mean())
    if not 0 < below < 1:
        return percentile_interval(draws)
    shift = 2 * special.ndtri(below)
    low, high = np.quantile(draws, special.ndtr([shift + special.ndtri(q) for q in (0.025, 0.975)]))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Level:
    """A share of correct traces that may be flagged, and the share that is.

    Attributes:
        alpha: the share at most, None where it is not known. promised: whether the calibration was made for it.
        threshold: of the step score; None where nothing is flagged.
        flagged: the share of correct traces below the threshold. verdict: what that says of the promise.
        expected: where 95 % of the flagged shares of calibrations of this size lie, were traces independent (a beta
            distribution); several samples a problem spread it further.
    """

    alpha: float | None
    threshold: float | None
    promised: bool
    flagged: Estimate
    verdict: str
    expected: list[float] | None


@dataclass(frozen=True, slots=True)
class Conformal:
    """The share of correct traces that is flagged, against the promise, at several levels. The promise is of the mean
    over calibrations. ``n``: correct traces of the calibration; ``reason``: why the promise is not known."""

    reason: str
    n: int
    levels: list[Level]


def conformal(frame: pd.DataFrame, locator: Locator, seed: int) -> Conformal:
    """The flagged share of the correct traces at the levels ``ALPHAS`` and the promised one (split conformal)."""
    part = frame[(frame["true"] == NO_ERROR) & frame["reward_suspicion"].notna()]
    suspicion, ids = part["reward_suspicion"].to_numpy(dtype=np.float64), part["problem_id"].to_numpy()
    known = locator.calibration
    if known is None:
        flagged = share(suspicion < locator.threshold, ids, unit="correct solutions", seed=seed)
        limit = locator.threshold if math.isfinite(locator.threshold) else None
        reason = "the run's provenance holds no calibration: the promised level is not known"
        return Conformal(reason, 0, [Level(None, limit, True, flagged, "", None)])
    levels = []
    for alpha in sorted({*ALPHAS, known.alpha}):
        threshold = at_level(known, alpha).threshold
        flagged = share(suspicion < threshold, ids, unit="correct solutions", seed=seed)
        rank = math.floor(alpha * (known.n + 1) + 1e-9)
        expected = [0.0, 0.0]
        if rank:
            ends = special.betaincinv(rank, known.n + 1 - rank, [0.025, 0.975]) if rank <= known.n else (1.0, 1.0)
            expected = [float(end) for end in ends]
        verdict = "as promised" if flagged.value <= alpha else "not refuted"
        if not flagged.defined:
            verdict = "undefined"
        elif flagged.low > alpha:
            verdict = "more than promised"
        limit = threshold if math.isfinite(threshold) else None
        levels.append(Level(alpha, limit, alpha == known.alpha, flagged, verdict, expected))
    return Conformal("", known.n, levels)


def conformal_table(conformal: Conformal) -> Table:
    """A row a level."""
    rows = [
        [
            "not known" if one.alpha is None else f"{one.alpha:g}" + (" (promised)" if one.promised else ""),
            one.flagged,
            one.verdict,
            None if one.expected is None else f"{one.expected[0]:.3f} to {one.expected[1]:.3f}",
        ]
        for one in conformal.levels
    ]
    known = (
        f"Calibrated on {conformal.n} correct solutions of other problems; the range holds 95 % of such calibrations."
    )
    head = ["at most", "flagged", "verdict", "range expected"]
    return Table("Correct solutions that are flagged", head, rows, conformal.reason or known)
