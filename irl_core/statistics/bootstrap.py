"""Estimates, each a value with its n and 95 % interval, and the bootstrap over problems.

Intervals come from a bootstrap over problems, since samples of one problem are not independent. An estimate that does
not exist is *undefined*: NaN, with the reason.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.uint16]
Values = npt.ArrayLike
Groups = Sequence[Hashable] | npt.NDArray[Any]

LEVEL = 0.95
Z = 1.959963984540054  # the normal quantile of 0.975, written out so that showing an estimate does not import scipy
RESAMPLES = 2000
LEAST_PROBLEMS = 5  # of fewer the bootstrap shows less spread than there is: two equal differences give [0.5, 0.5]
SAME = 1e-12  # ends of an interval that differ by less are the same but for rounding
BLOCK = 2_000_000  # draws held at once by the bootstrap: 16 MB
KEPT = 40_000_000  # draws kept between estimates, as counts of two bytes: 80 MB a seed and number of problems


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: NaN where the estimate is undefined.
        low: lower end of the interval, NaN without one.
        high: upper end of the interval, NaN without one.
        n: the number of units that ``method`` names.
        method: unit, and how the interval was computed.
        reason: why the estimate is undefined; empty where it is defined.
        whole: the value is a count, which is shown without decimals.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    reason: str = ""
    whole: bool = False

    @property
    def defined(self) -> bool:
        """Whether there is a value; it may still have no interval (see `point`)."""
        return math.isfinite(self.value)

    @property
    def interval(self) -> tuple[float, float] | None:
        """``(low, high)``, or None without two finite ends."""
        return (self.low, self.high) if math.isfinite(self.low) and math.isfinite(self.high) else None

    @property
    def words(self) -> str:
        """The estimate in text, without its n: '0.519 [0.463, 0.578]', or 'undefined (one class)'.

        The one rule of digits: three decimals with an interval, since intervals over some hundred problems are wider
        than a thousandth; three significant digits for a bare number (a test statistic, a p); none for a count."""
        if not self.defined:
            return f"undefined ({self.reason})"
        if self.interval is None:
            underflow = self.value == 0 and "two-sided" in self.method  # a p too small for a float
            return "under 1e-300" if underflow else f"{self.value:.3g}"
        digits = 0 if self.whole else 3
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def __str__(self) -> str:
        """The estimate in text with its n: '0.519 [0.463, 0.578] (n 2,560)', 'undefined (one class; n 12)'."""
        return f"{self.words} (n {self.n:,})" if self.defined else f"undefined ({self.reason}; n {self.n:,})"

    def to_json(self) -> dict[str, Any]:
        """``value``, ``n``, ``interval`` ([low, high] or None), ``method``, ``reason``: how files hold an estimate.

        A number that is not finite becomes None."""
        return {
            "value": self.value if self.defined else None,
            "n": self.n,
            "interval": None if self.interval is None else list(self.interval),
            "method": self.method,
            "reason": self.reason,
        }


def undefined(n: int, method: str, reason: str) -> Estimate:
    """An estimate that does not exist, with the reason."""
    return Estimate(math.nan, math.nan, math.nan, n, method, reason)


def too_few(problems: int) -> str:
    """Why there is no interval over so few problems; empty where they are enough."""
    return f"fewer than {LEAST_PROBLEMS} problems ({problems})" if problems < LEAST_PROBLEMS else ""


def point(value: float, n: int, method: str) -> Estimate:
    """A number without an interval, such as a test statistic or its p value; ``method`` says what it is."""
    return Estimate(value, math.nan, math.nan, n, method)


def without_interval(value: float, n: int, unit: str, reason: str) -> Estimate:
    """A value over problems whose interval cannot be given."""
    return point(value, n, f"{unit}; no interval: {reason}")


def to_json(value: Any) -> Any:
    """A tree of dataclasses, dicts and lists as strict JSON data: the edge between estimates and files.

    A field is written under its name, or under ``metadata["key"]``, and with ``metadata["flat"]`` its own fields in its
    place; one that holds its default is left out. What has a ``to_json`` of its own is written by that. A number that
    is not finite becomes None."""
    if hasattr(value, "to_json"):
        return to_json(value.to_json())
    if dataclasses.is_dataclass(value):
        document: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            if (held := getattr(value, field.name)) != field.default:
                part = to_json(held)
                document |= part if field.metadata.get("flat") else {field.metadata.get("key", field.name): part}
        return document
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def wilson(successes: float, n: int) -> Estimate:
    """A share with Wilson's score interval (Wilson 1927), for independent trials.

    Trials may be values in [0, 1] with their sum as ``successes``: of all such values with one mean, successes and
    failures spread most, so that the interval is rather too wide. Trials of unequal weight could make it too narrow."""
    if n < 1:
        return undefined(n, "Wilson", "no trials")
    p, z = successes / n, Z * Z / n
    middle, reach = p + z / 2, math.sqrt(z * (p * (1 - p) + z / 4))
    return Estimate(p, max(0.0, (middle - reach) / (1 + z)), min(1.0, (middle + reach) / (1 + z)), int(n), "Wilson")


def bootstrap(
    columns: Array,
    statistic: Callable[[Array], Array],
    *,
    n: int,
    unit: str,
    bounded: bool = True,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """The percentile bootstrap over problems of a statistic of column sums.

    ``columns`` (P, C) holds C sums a problem; ``statistic`` takes (B, C) totals to (B,) values, NaN where it does
    not exist. ``n`` and ``unit`` say what the figure counts. A ``bounded`` figure (in [0, 1]) that is the same in
    every resample, or of fewer than ``LEAST_PROBLEMS``, gets Wilson's interval with n = problems, since resamples
    without spread do not mean that there is none. An unbounded figure then has no interval.
    """
    problems = len(columns)
    method = f"{unit}; bootstrap over {problems} problems"
    if problems < 2:
        return undefined(n, method, "fewer than two problems")
    value = float(statistic(columns.sum(0, keepdims=True))[0])
    few = too_few(problems)
    if few and math.isfinite(value):
        return _over_few(value, n, problems, unit, few) if bounded else without_interval(value, n, unit, few)
    low, high = percentile_interval(resampled(columns, statistic, seed=seed, resamples=resamples))
    if math.isnan(value) or math.isnan(low):
        return undefined(n, method, "not defined on these solutions")
    if bounded and high - low < SAME:
        return _over_few(value, n, problems, unit, "no spread")
    return Estimate(value, low, high, n, method)


def _over_few(value: float, n: int, problems: int, unit: str, why: str) -> Estimate:
    """A share whose resamples would show too little spread: with Wilson's interval."""
    value = min(max(value, 0.0), 1.0)  # sums round
    edge = wilson(value * problems, problems)
    return Estimate(value, edge.low, edge.high, n, f"{unit}; Wilson over {problems} problems ({why})")


def percentile_interval(draws: Array) -> tuple[float, float]:
    """The 95 % interval of bootstrap draws (B,), those left out that do not exist (NaN); NaN twice where none does."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resampled(
    columns: Array, statistic: Callable[[Array], Array], *, seed: int = 0, resamples: int = RESAMPLES
) -> Array:
    """A statistic in each resample of the P problems.

    One seed and one number of problems always draw the same resamples, so that figures are paired with each other.

    Args:
        columns: (P, C), sums of each problem.
        statistic: of column sums (b, C) of b resamples.
        seed: of the resamples.
        resamples: their number.
    """
    values = np.ascontiguousarray(columns, dtype=np.float64)
    problems = len(values)
    draw = _kept_counts if problems * resamples <= KEPT else _drawn_counts
    blocks: Iterable[Counts] = draw(problems, seed, resamples)
    return np.concatenate([statistic(counts.astype(np.float64) @ values) for counts in blocks])


@lru_cache(maxsize=4)
def _kept_counts(problems: int, seed: int, resamples: int) -> tuple[Counts, ...]:
    return tuple(_drawn_counts(problems, seed, resamples))


def _drawn_counts(problems: int, seed: int, resamples: int) -> Iterator[Counts]:
    """The number of times each problem is drawn, in blocks (b, P) that together have ``resamples`` rows."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK // problems)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(problems, size=(rows, problems)) + problems * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * problems).reshape(rows, problems).astype(np.uint16)


def ratio(totals: Array) -> Array:
    """Column 0 over column 1, NaN where the latter is 0."""
    result: Array = np.full(len(totals), np.nan)
    np.divide(totals[:, 0], totals[:, 1], out=result, where=totals[:, 1] > 0)
    return result


def problem_index(problem_ids: Groups) -> tuple[int, npt.NDArray[np.int64]]:
    """(number of problems, the problem's number of each trace), problems in order of appearance."""
    if isinstance(problem_ids, np.ndarray) and problem_ids.dtype.kind in "iu":
        # for 100,000 traces a hundred times as fast as the loop
        distinct, first, numbers = np.unique(problem_ids, return_index=True, return_inverse=True)
        place = np.empty(distinct.size, dtype=np.int64)
        place[np.argsort(first)] = np.arange(distinct.size)
        return int(distinct.size), place[numbers]
    known: dict[Hashable, int] = {}
    codes = np.array([known.setdefault(problem, len(known)) for problem in problem_ids], dtype=np.int64)
    return len(known), codes


def problem_rows(problem_ids: Groups) -> list[npt.NDArray[np.int64]]:
    """The trace numbers of each problem, problems in order of appearance."""
    problems, codes = problem_index(problem_ids)
    order = np.argsort(codes, kind="stable")
    return list(np.split(order, np.cumsum(np.bincount(codes, minlength=problems))[:-1])) if problems else []


def problem_sums(values: Values, problem_ids: Groups) -> Array:
    """(P,): the sum of a trace's value over each problem."""
    problems, codes = problem_index(problem_ids)
    return np.bincount(codes, weights=np.asarray(values, dtype=np.float64), minlength=problems).astype(np.float64)


def mean_over_problems(values: Values, *, unit: str = "problems", bounded: bool = True, seed: int = 0) -> Estimate:
    """The mean of one value a problem, in [0, 1] where ``bounded``."""
    column = np.asarray(values, dtype=np.float64)
    columns = np.column_stack([column, np.ones_like(column)])
    return bootstrap(columns, ratio, n=column.size, unit=unit, bounded=bounded, seed=seed)


def paired_difference(ours: Values, theirs: Values, *, seed: int = 0) -> Estimate:
    """The mean of ours - theirs, one value a problem each, the problems resampled together."""
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return mean_over_problems(difference, bounded=False, seed=seed)


def share(
    flags: Values, problem_ids: Groups, *, unit: str = "solutions", bounded: bool = True, seed: int = 0
) -> Estimate:
    """The share of traces with a flag, or the mean of a value a trace (in [0, 1] where ``bounded``)."""
    values = np.asarray(flags, dtype=np.float64)
    if not values.size:
        return undefined(0, unit, f"no {unit.partition(',')[0]}")
    columns = np.column_stack([problem_sums(v, problem_ids) for v in (values, np.ones_like(values))])
    return bootstrap(columns, ratio, n=values.size, unit=unit, bounded=bounded, seed=seed)


def share_difference(
    ours: Values, theirs: Values, problem_ids: Groups, *, unit: str = "solutions", seed: int = 0
) -> Estimate:
    """The share of ours minus that of theirs on the same traces, the problems resampled together."""
    values = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return share(values, problem_ids, unit=unit, bounded=False, seed=seed)
