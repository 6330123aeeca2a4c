"""Separation of two classes by a score: Welch's test, Cohen's d, AUC, pairs of the same problem.

Samples are flat arrays with one entry a trace, and a parallel array of problem ids. Intervals come from a bootstrap
over problems, since samples of one problem are not independent. An estimate that does not exist (one class, n < 2, no
variance, a missing score) is *undefined*: NaN, with the reason. A pair of equal scores counts half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irl_core.statistics.bootstrap import (
    SAME,
    Array,
    Estimate,
    Groups,
    Values,
    Z,
    bootstrap,
    problem_index,
    problem_rows,
    problem_sums,
    ratio,
    too_few,
    undefined,
    wilson,
    without_interval,
)
from irl_core.statistics.ranks import ranks, two_sided, welch


@dataclass(frozen=True, slots=True)
class Separation:
    """The scores of correct traces against those of incorrect ones.

    ``difference`` of the means, ``cohens_d`` with the pooled standard deviation, ``auc``; ``t``, ``degrees`` of freedom
    and two-sided ``p`` of Welch's test, which takes traces as independent, and ``clustered_t``, ``clustered_p`` with a
    standard error clustered by problem (sandwich estimator, degrees = problems - 1).
    """

    difference: Estimate
    t: float
    degrees: float
    p: float
    clustered_t: float
    clustered_p: float
    cohens_d: Estimate
    auc: Estimate


def separation(scores: Values, correct: Values, problem_ids: Groups | None = None, *, seed: int = 0) -> Separation:
    """Correct against incorrect traces. With problem ids the intervals are clustered by problem (bootstrap, for the
    AUC clustered DeLong); else they are Welch's, Hedges and Olkin's, and DeLong's."""
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    yes, no = values[right], values[~right]
    missing = int((~np.isfinite(values)).sum())
    reason = f"{missing} scores are not finite" if missing else ""
    if min(yes.size, no.size) < 2:
        reason = f"{yes.size} correct and {no.size} incorrect; each needs two"
    area, nan = auc(values, right, problem_ids), math.nan
    if reason := reason or ("no variance" if not yes.std() + no.std() > 0 else ""):
        nothing = (undefined(values.size, method, reason) for method in ("difference of means", "Cohen's d"))
        return Separation(next(nothing), nan, nan, nan, nan, nan, next(nothing), area)
    test = welch(yes, no)
    if problem_ids is not None:
        clustered = clustered_t_test(values, right, problem_ids)
        difference, size = _resampled_separation(values, right, problem_ids, seed)
    else:
        m, n, less = yes.size, no.size, float(yes.mean() - no.mean())
        clustered, difference = (nan, nan), Estimate(less, test.low, test.high, m + n, "Welch, solutions")
        d = less / math.sqrt(((m - 1) * yes.var(ddof=1) + (n - 1) * no.var(ddof=1)) / (m + n - 2))
        error = math.sqrt((m + n) / (m * n) + d * d / (2 * (m + n)))
        size = Estimate(d, d - Z * error, d + Z * error, m + n, "Cohen's d, solutions")
    return Separation(difference, test.t, test.degrees, test.p, *clustered, size, area)


def clustered_t_test(values: Array, right: npt.NDArray[np.bool_], problem_ids: Groups) -> tuple[float, float]:
    """(t, two-sided p): the difference of the means over its standard error from the problems' influences on it."""
    pull = np.where(right, values - values[right].mean(), values[~right].mean() - values)
    pull = pull / np.where(right, right.sum(), (~right).sum())
    influence = problem_sums(pull, problem_ids)
    problems = influence.size
    variance = float(influence @ influence) * problems / (problems - 1) if problems > 1 else 0.0
    if not variance > 0:
        return math.nan, math.nan
    t = float(values[right].mean() - values[~right].mean()) / math.sqrt(variance)
    return t, two_sided(t, problems - 1)


def _resampled_separation(
    values: Array, right: npt.NDArray[np.bool_], problem_ids: Groups, seed: int
) -> tuple[Estimate, Estimate]:
    """(difference of the means, Cohen's d) with a bootstrap over problems."""
    scaled = (values - values.mean()) / values.std()
    parts = [part for side in (right, ~right) for part in (side * 1.0, side * scaled, side * scaled**2)]
    columns = np.column_stack([problem_sums(part, problem_ids) for part in parts])
    spread, n = float(values.std()), values.size

    def difference(totals: Array) -> Array:
        return (ratio(totals[:, [1, 0]]) - ratio(totals[:, [4, 3]])) * spread

    def effect(totals: Array) -> Array:
        m, k = totals[:, 0], totals[:, 3]
        squares = sum(totals[:, i + 2] - ratio(totals[:, [i + 1, i]]) * totals[:, i + 1] for i in (0, 3))
        pooled = ratio(np.column_stack([np.maximum(squares, 0), m + k - 2]))
        return difference(totals) / spread * ratio(np.column_stack([np.ones_like(pooled), np.sqrt(pooled)]))

    means = bootstrap(columns, difference, n=n, unit="solutions", bounded=False, seed=seed)
    return means, bootstrap(columns, effect, n=n, unit="Cohen's d, solutions", bounded=False, seed=seed)


def auc(scores: Values, labels: Values, groups: Groups | None = None) -> Estimate:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half.

    The interval is DeLong's (1988), or with ``groups`` its extension to clustered data (Obuchowski 1997). Where that
    has no width, or too few units to estimate it, Wilson's with the number of units of the smaller class.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    m, n = int(positive.sum()), int((~positive).sum())
    method = "solutions, DeLong" if groups is None else "solutions, clustered DeLong"
    missing = int(np.isnan(values).sum())
    if not m or not n or missing:
        reason = f"{missing} scores are missing" if missing else f"one class: {m} positive, {n} negative"
        return undefined(m + n, method, reason)
    above, below = placements(values, positive)
    area = float(above.mean())
    clusters = np.arange(m + n) if groups is None else problem_index(groups)[1]
    if np.ptp(values) == 0:
        return undefined(m + n, method, "every score is the same")
    error = math.sqrt(clustered_variance(above, below, clusters[positive], clusters[~positive], area))
    few = groups is not None and too_few(np.unique(clusters).size)
    if few or not error > SAME:  # NaN too: a class of one unit
        units = min(np.unique(clusters[positive]).size, np.unique(clusters[~positive]).size)
        edge = wilson(area * units, units)
        return Estimate(area, edge.low, edge.high, m + n, f"solutions, Wilson over {units} ({few or 'no spread'})")
    return Estimate(area, max(0.0, area - Z * error), min(1.0, area + Z * error), m + n, method)


def mean_auc(scores: Values, labels: Values, strata: Groups, groups: Groups) -> Estimate:
    """The mean over strata of the AUC within each: the chance that a positive scores above a negative of its stratum.

    Each stratum counts the same. The interval is DeLong's with influences summed over ``groups``, which may lie across
    the strata (several models answer one problem). Undefined where a stratum has one class, or a score is missing.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    method = "solutions, mean of the strata, clustered DeLong"
    rows_of = problem_rows(strata)
    reason = "scores are missing" if np.isnan(values).any() else "" if rows_of else "no solution"
    areas, influence = [], np.zeros(values.size)
    for rows in rows_of:
        right = positive[rows]
        if reason or right.all() or not right.any():
            return undefined(values.size, method, reason or "a stratum has one class alone")
        above, below = placements(values[rows], right)
        areas.append(float(above.mean()))
        influence[rows[right]] = (above - areas[-1]) / above.size
        influence[rows[~right]] = (below - areas[-1]) / below.size
    area, sums = float(np.mean(areas)), problem_sums(influence, groups) / len(areas)
    if few := too_few(sums.size):
        return without_interval(area, values.size, method, few)
    error = math.sqrt(sums.size / (sums.size - 1) * float(sums @ sums))
    return Estimate(area, max(0.0, area - Z * error), min(1.0, area + Z * error), values.size, method)


def placements(values: Array, positive: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, for each negative the share of positives above it, ties half:
    DeLong's structural components, of which both means are the AUC."""
    placed, yes, no = ranks(values), values[positive], values[~positive]
    return (placed[positive] - ranks(yes)) / no.size, 1 - (placed[~positive] - ranks(no)) / yes.size


def clustered_variance(above: Array, below: Array, yes: Array, no: Array, area: float) -> float:
    """Obuchowski's variance of the AUC from placements and the clusters of positives and negatives; with clusters
    of one trace each it is DeLong's."""
    size = int(max(yes.max(), no.max())) + 1
    excess_yes = np.bincount(yes, weights=above - area, minlength=size)
    excess_no = np.bincount(no, weights=below - area, minlength=size)
    i, j, all_of = np.unique(yes).size, np.unique(no).size, np.unique(np.concatenate([yes, no])).size
    if min(i, j) < 2:
        return math.nan
    s_yes = i / (i - 1) * float(excess_yes @ excess_yes) / above.size**2
    s_no = j / (j - 1) * float(excess_no @ excess_no) / below.size**2
    both = all_of / (all_of - 1) * float(excess_yes @ excess_no) / (above.size * below.size)
    return max(0.0, s_yes + s_no + 2 * both)


def pair_accuracy(scores: Values, correct: Values, problem_ids: Groups, *, seed: int = 0) -> Estimate:
    """The share of (correct, incorrect) pairs of the same problem whose correct one scores higher, ties half.

    All pairs count the same; n counts pairs. Undefined where no problem has both classes or a score is NaN.
    """
    columns = pair_columns(scores, correct, problem_ids)
    pairs = int(columns[:, 1].sum())
    if np.isnan(columns).any() or not pairs:
        reason = "no problem has both correct and incorrect samples" if not pairs else "scores are missing"
        return undefined(pairs, "pairs", reason)
    return bootstrap(columns[columns[:, 1] > 0], ratio, n=pairs, unit="pairs", seed=seed)


def pair_columns(scores: Values, correct: Values, problem_ids: Groups) -> Array:
    """(P, 2): pairs ranked right (ties half), and pairs, of each problem."""
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    problems, codes = problem_index(problem_ids)
    yes, total, ranks = (
        np.bincount(codes, weights=weights, minlength=problems)
        for weights in (right, np.ones_like(right), right * ranks_within(values, codes))
    )
    pairs = yes * (total - yes)
    return np.column_stack([np.where(pairs > 0, ranks - yes * (yes + 1) / 2, 0.0), pairs])


def ranks_within(values: Array, codes: npt.NDArray[np.int64]) -> Array:
    """Ranks (M,) of the values among their problem's, from 1; equal ones share the mean. NaN where one is NaN."""
    order = np.lexsort((values, codes))
    problem, ordered = codes[order], values[order]
    new = np.append(True, (problem[1:] != problem[:-1]) | (ordered[1:] != ordered[:-1]))[: len(values)]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (sizes + 1) / 2, sizes) - np.searchsorted(problem, problem)
    missing = np.bincount(codes, weights=np.isnan(values)) > 0 if len(codes) else np.zeros(0, dtype=bool)
    return np.where(missing[codes], np.nan, ranks)
