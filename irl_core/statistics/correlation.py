"""Correlation of two columns: Pearson, Spearman, within problems, and with other columns removed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from irl_core.statistics.bootstrap import (
    Array,
    Estimate,
    Groups,
    Values,
    percentile_interval,
    problem_index,
    problem_sums,
    resampled,
    too_few,
    undefined,
)
from irl_core.statistics.ranks import ranks

Kind = Literal["pearson", "spearman"]
MOST = 0.5  # an estimate that does not exist in more than this share of the resamples is undefined
NOTHING_LEFT = 1e-9  # a column of which the controls leave a smaller share of the variance is a function of them


def clustered_correlations(
    columns: Mapping[str, Values], problem_ids: Groups, kind: Kind = "pearson", *, seed: int = 0,
    titles: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Estimate]]:  # fmt: skip
    """The correlation of every pair of columns by their names, both ways round, with a bootstrap over problems.

    A pair is taken over the traces where both are finite; n counts them. Spearman's ranks are those of these traces,
    and are kept in the resamples. A constant column is named in the reason, by its title where ``titles`` has one.
    """
    values = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    names, codes = list(values), problem_index(problem_ids)[1]
    pairs = [(a, b) for index, a in enumerate(names) for b in names[: index + 1]]
    said, sums, reasons, sizes = {name: (titles or {}).get(name, name) for name in names}, [], [], []
    for a, b in pairs:
        both = np.isfinite(values[a]) & np.isfinite(values[b])
        reasons.append(_pair_reason(said[a], values[a][both]) or _pair_reason(said[b], values[b][both]))
        sizes.append(int(both.sum()))
        x, y = (standardised(values[name][both], kind) for name in (a, b))
        sums.append(moments(x, y, codes[both], int(codes.max(initial=-1)) + 1))
    figures = bootstrapped_pearson(np.stack(sums, axis=1), sizes, reasons, kind, seed) if pairs else []
    matrix: dict[str, dict[str, Estimate]] = {name: {} for name in names}
    for (a, b), figure in zip(pairs, figures, strict=True):
        matrix[a][b] = matrix[b][a] = figure
    return {a: {b: matrix[a][b] for b in names} for a in names}


def _pair_reason(name: str, values: Array) -> str:
    if values.size < 2:
        return f"n is {values.size}; a correlation needs two"
    return f"{name} is constant ({values[0]:g})" if np.ptp(values) == 0 else ""


def standardised(values: Array, kind: Kind) -> Array:
    """Values, or their ranks, with mean 0 and standard deviation 1, so that sums of squares do not cancel."""
    numbers = ranks(values) if kind == "spearman" and values.size else values
    spread = numbers.std() if numbers.size else 0.0
    scaled: Array = (numbers - numbers.mean()) / spread if spread > 0 else np.zeros_like(numbers)
    return scaled


def moments(x: Array, y: Array, codes: npt.NDArray[np.int64], problems: int) -> Array:
    """(P, 6): n, sum x, sum y, sum xx, sum yy, sum xy of each problem."""
    parts = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return np.column_stack([np.bincount(codes, weights=part, minlength=problems) for part in parts])


def pearson_of_moments(totals: Array) -> Array:
    """r (...) of sums (..., 6) as `moments` orders them; NaN where a side does not vary."""
    n, x, y, xx, yy, xy = np.moveaxis(totals, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        sides = np.maximum(xx - x * x / n, 0) * np.maximum(yy - y * y / n, 0)
        r = np.where(sides > 1e-12 * n * n, (xy - x * y / n) / np.sqrt(sides), np.nan)
    clipped: Array = np.clip(r, -1.0, 1.0)
    return clipped


def bootstrapped_pearson(
    sums: Array, sizes: Sequence[int], reasons: Sequence[str], kind: Kind, seed: int
) -> list[Estimate]:
    """An estimate for each pair from its moments (P, pairs, 6)."""
    problems, pairs, _ = sums.shape
    method = f"{kind}, solutions; bootstrap over {problems} problems"
    if kind == "spearman":
        method += ", ranks kept"
    if few := too_few(problems):
        return [undefined(n, method, few) for n in sizes]
    draws = resampled(sums.reshape(problems, -1), lambda t: pearson_of_moments(t.reshape(-1, pairs, 6)), seed=seed)
    values, known = (
        pearson_of_moments(sums.sum(axis=0)),
        (sums[:, :, 0] > 0).sum(axis=0),
    )  # problems with a trace of the pair
    whys = [reason or too_few(int(count)) for reason, count in zip(reasons, known, strict=True)]
    return [
        undefined(n, method, why) if why else _bootstrapped(float(value), column, n, method)
        for n, why, value, column in zip(sizes, whys, values, draws.T, strict=True)
    ]


def _bootstrapped(value: float, draws: Array, n: int, method: str) -> Estimate:
    if math.isnan(value):
        return undefined(n, method, "not defined on these solutions")
    if float(np.mean(np.isnan(draws))) > MOST:
        return undefined(n, method, "constant in most resamples: too few problems vary")
    return Estimate(value, *percentile_interval(draws), n, method)


def partial_correlation(
    x: Values, y: Values, controls: Sequence[Values], problem_ids: Groups, *, within: bool = False, seed: int = 0
) -> Estimate:
    """Pearson's r between x and y with the ``controls`` removed from both by least squares; without controls, r itself.

    ``within``: after each problem's mean is subtracted from every column. Taken over the traces where all are finite;
    bootstrap over problems. Undefined where a column is a linear function of the controls: nothing of it is left.
    """
    columns = np.column_stack([np.asarray(column, dtype=np.float64) for column in (x, y, *controls)])
    known = np.isfinite(columns).all(axis=1)
    columns, codes = columns[known], problem_index(np.asarray(problem_index(problem_ids)[1])[known])[1]
    n, problems = len(columns), int(codes.max(initial=-1)) + 1
    method = f"pearson, {'within problems' if within else 'pooled'}, solutions; bootstrap over {problems} problems"
    if reason := too_few(problems) or (f"n is {n}; too few solutions" if n < columns.shape[1] + 1 else ""):
        return undefined(n, method, reason)
    scaled = np.column_stack([standardised(centred(c, codes) if within else c, "pearson") for c in columns.T])
    if not scaled.any(axis=0).all():
        return undefined(n, method, "no variance" + (" within problems" if within else ""))
    if within:  # only problems in which both vary tell how they go together
        varying = np.all([problem_sums(column != 0, codes) > 0 for column in scaled.T[:2]], axis=0)
        few = too_few(int(varying.sum()))
        if few:
            reason = f"both vary within {few}" if varying.any() else "no problem in which both vary"
            return undefined(n, method, reason)
    width = scaled.shape[1]
    rows = np.concatenate([np.ones((n, 1)), scaled], axis=1)
    products = np.einsum("ni,nj->nij", rows, rows).reshape(n, -1)
    sums = np.column_stack([problem_sums(column, codes) for column in products.T])
    value = float(partial_of_products(sums.sum(axis=0)[None], width)[0])
    if math.isnan(value):
        return undefined(n, method, "a linear function of what is removed: nothing is left")
    return _bootstrapped(
        value, resampled(sums, lambda totals: partial_of_products(totals, width), seed=seed), n, method
    )


def partial_of_products(totals: Array, width: int) -> Array:
    """The partial correlation (B,) of the first two columns given the others, from sums of products (B, (1 + w)^2)."""
    sums = totals.reshape(-1, width + 1, width + 1)
    means = sums[:, 0, 1:] / sums[:, :1, 0]
    covariance = sums[:, 1:, 1:] / sums[:, :1, :1] - means[:, :, None] * means[:, None, :]
    left = covariance[:, :2, :2]
    if width > 2:
        removed = covariance[:, :2, 2:] @ np.linalg.pinv(covariance[:, 2:, 2:], hermitian=True)
        left = left - removed @ covariance[:, 2:, :2]
    scale = np.maximum(np.diagonal(covariance, axis1=1, axis2=2)[:, :2], 1e-30)
    something = np.all(np.diagonal(left, axis1=1, axis2=2) > NOTHING_LEFT * scale, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values = left[:, 0, 1] / np.sqrt(left[:, 0, 0] * left[:, 1, 1])
    partial: Array = np.where(something, np.clip(values, -1.0, 1.0), np.nan)
    return partial


def centred(values: Values, problem_ids: Groups) -> Array:
    """Values (M,) less their problem's mean; what is left of rounding becomes 0."""
    codes, numbers = problem_index(problem_ids)[1], np.asarray(values, dtype=np.float64)
    less: Array = numbers - (np.bincount(codes, numbers) / np.bincount(codes))[codes]
    return np.where(np.abs(less) > 1e-12 * np.abs(numbers).max(initial=0.0), less, 0.0)
