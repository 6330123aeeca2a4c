"""Measures as a numerator and a denominator a problem, so that runs, and seeds of a run, can be set against each other
problem by problem. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.located_traces import column, decided, judge_of, located
from irl_core.evaluation.scores import Judged, answers, judged, score
from irl_core.statistics.best_of_n import best_of, pass_values, vote
from irl_core.statistics.bootstrap import (
    Estimate,
    bootstrap,
    percentile_interval,
    problem_sums,
    ratio,
    resampled,
    too_few,
    undefined,
    without_interval,
)
from irl_core.statistics.first_error import NO_ERROR
from irl_core.statistics.separation import pair_columns

Array = npt.NDArray[np.float64]
Columns = dict[str, tuple[float, float]]  # problem -> numerator, denominator
PAPER, LOWEST = "score_mean_discounted", "score_credit_minimum"

TITLES = {
    "pass@1": "pass@1",
    "pass@3": "pass@3",
    "pass@5": "pass@5",
    "pass@10": "pass@10",
    "pass@16": "pass@16",
    "majority": "majority vote",
    "best": "best by mean discounted reward",
    "best_lowest": "best by lowest credit",
    "pairs": "pairs within problems, mean discounted reward",
    "pairs_lowest": "pairs within problems, lowest credit",
    "first_step": "first wrong step, exact",
    "error_acc": "first wrong step at the threshold",
    "correct_acc": "correct traces: 'no error'",
    "perturbed": "first wrong step of corrupted experts",
}
UNITS = {
    **{name: "pairs of samples of a problem" for name in ("pairs", "pairs_lowest")},
    **{name: "wrong traces" for name in ("first_step", "error_acc")},
    "correct_acc": "correct traces",
    "perturbed": "corrupted traces",
}


def measured(run: EvaluatedRun) -> dict[str, Columns]:
    """Every measure of ``TITLES`` that this run allows, by name."""
    found: dict[str, Columns] = {}
    one = judged(run.frame)
    if one.problems:
        found |= _sampled(one)
    found |= _located(run)
    return {name: found[name] for name in TITLES if any(total for _, total in found.get(name, {}).values())}


def _sampled(one: Judged) -> dict[str, Columns]:
    names = _names(one)
    found = {}
    for k in (1, 3, 5, 10, 16):
        if k <= one.samples[0]:
            found[f"pass@{k}"] = _means(names, pass_values(one.right, one.ids, k))
    spelt = answers(one.frame)
    if one.samples[0] > 1 and any(answer is not None for answer in spelt):
        found["majority"] = _means(names, vote(spelt, one.right, one.ids))
    for suffix, name in (("", PAPER), ("_lowest", LOWEST)):
        values = score(one.frame, name)
        if np.isfinite(values).all() and one.samples[0] > 1:
            found[f"best{suffix}"] = _means(names, best_of(values, one.right, one.ids, 1))
            found[f"pairs{suffix}"] = _columns(names, pair_columns(values, one.right, one.ids))
    return found


def _located(run: EvaluatedRun) -> dict[str, Columns]:
    judge = judge_of(run)
    if judge is None:
        return {}
    found: dict[str, Columns] = {}
    frame = located(run.path, judge).frame
    if len(frame):
        problems = _problems(frame, run.frame)
        wrong = column(frame, "true") != NO_ERROR
        exact, said = column(frame, "reward") == column(frame, "true"), decided(frame) == column(frame, "true")
        found["first_step"] = _shares(problems, exact, wrong)
        found["error_acc"] = _shares(problems, said, wrong)
        found["correct_acc"] = _shares(problems, said, ~wrong)
    if len(run.perturbed):
        frame = located(run.perturbed_path, judge).frame
        if len(frame):
            exact = column(frame, "reward") == column(frame, "true")
            found["perturbed"] = _shares(_problems(frame, run.perturbed), exact, np.ones(len(frame), dtype=bool))
    return found


def _problems(frame: pd.DataFrame, traces: pd.DataFrame) -> list[str]:
    """The text of each row's problem: what is the same problem in two runs."""
    texts = dict(zip(traces["problem_id"], traces["problem"], strict=True))
    return [str(texts[name]) for name in frame["problem_id"]]


def _names(one: Judged) -> list[str]:
    """The problems' texts in the order of their numbers."""
    first = np.unique(one.ids, return_index=True)[1]
    return [str(text) for text in one.frame["problem"].iloc[first]]


def _means(names: Sequence[str], values: Array) -> Columns:
    return {name: (float(value), 1.0) for name, value in zip(names, values, strict=True)}


def _columns(names: Sequence[str], values: Array) -> Columns:
    return {name: (float(right), float(all_)) for name, (right, all_) in zip(names, values, strict=True)}


def _shares(problems: Sequence[str], flags: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> Columns:
    """The share of flags among some traces."""
    names = list(dict.fromkeys(problems))
    totals = np.column_stack([problem_sums(flags & among, problems), problem_sums(among, problems)])
    return _columns(names, totals)


# ------------------------------------------------------------------------------------------------- one and two runs


def unit_of(name: str) -> str:
    """What a measure counts."""
    return UNITS.get(name, "problems")


def estimate(name: str, columns: Columns, *, seed: int = 0) -> Estimate:
    """The measure of one scored run, with its interval over problems."""
    values = _matrix([columns], list(columns))[:, 0]
    return bootstrap(values, ratio, n=_count(values), unit=unit_of(name), seed=seed)


def difference(name: str, ours: Columns, theirs: Columns, *, seed: int = 0) -> Estimate:
    """Ours minus theirs over the problems that both have, which are resampled together."""
    common = [problem for problem in ours if problem in theirs]
    if not common:
        return undefined(0, unit_of(name), "no problem in common")
    values = _matrix([ours, theirs], common).reshape(len(common), 4)
    n = int(min(values[:, 1].sum(), values[:, 3].sum()))
    statistic = _difference_of_ratios
    return bootstrap(values, statistic, n=n, unit=f"{unit_of(name)}, paired by problem", bounded=False, seed=seed)


def _difference_of_ratios(totals: Array) -> Array:
    result: Array = ratio(totals[:, :2]) - ratio(totals[:, 2:])
    return result


def _matrix(rows: Sequence[Columns], problems: Sequence[str]) -> Array:
    """(P, R, 2): numerators and denominators of each run on each problem; 0 of 0 where a run has none."""
    return np.array([[row.get(problem, (0.0, 0.0)) for row in rows] for problem in problems], dtype=np.float64)


def _count(values: Array) -> int:
    return int(values[:, 1].sum())


# ------------------------------------------------------------------------------------------------------------ seeds


def over_seeds(name: str, runs: Sequence[Columns], *, seed: int = 0) -> Estimate:
    """The mean over runs that differ in their seed alone, its interval over problems and seeds: both are resampled."""
    return _over_seeds(name, [runs], _only, seed)


def difference_over_seeds(name: str, ours: Sequence[Columns], theirs: Sequence[Columns], *, seed: int = 0) -> Estimate:
    """The mean of ours minus theirs, run by run of the same seed; problems and seeds are resampled together. A single
    run on one side (a start that has no seed) stands beside each of the other's."""
    runs = max(len(ours), len(theirs))
    sides = [list(side) * runs if len(side) == 1 else list(side) for side in (ours, theirs)]
    if len(sides[0]) != len(sides[1]):
        return undefined(0, unit_of(name), f"{len(ours)} seeds against {len(theirs)}")
    return _over_seeds(name, sides, _first_less_second, seed)


def _only(ratios: Array) -> Array:
    return ratios[..., 0]


def _first_less_second(ratios: Array) -> Array:
    result: Array = ratios[..., 0] - ratios[..., 1]
    return result


def _over_seeds(
    name: str, sides: Sequence[Sequence[Columns]], combine: Callable[[Array], Array], seed: int
) -> Estimate:
    runs = len(sides[0])
    common = [problem for problem in sides[0][0] if all(problem in one for side in sides for one in side)]
    unit = unit_of(name) + (", paired by problem and seed" if len(sides) == 2 else "")
    words = f"{runs} seeds and {len(common)} problems" if runs > 1 else f"{len(common)} problems (one seed)"
    method = f"{unit}; mean over seeds, bootstrap over {words}"
    if len(common) < 2:
        return undefined(0, method, "fewer than two problems in common")
    # (P, S, sides, 2), flat but for the problems
    table = np.stack([_matrix(side, common) for side in sides], axis=2)
    rng = np.random.default_rng([seed, runs])

    def values(totals: Array) -> Array:
        return combine(_ratios(totals.reshape(len(totals), runs, len(sides), 2)))

    def drawn(totals: Array) -> Array:
        by_run = values(totals)
        chosen = rng.integers(runs, size=by_run.shape)
        result: Array = np.take_along_axis(by_run, chosen, axis=1).mean(axis=1)
        return result

    flat = table.reshape(len(common), -1)
    value = float(values(flat.sum(0, keepdims=True)).mean())
    n = int(table[..., 1].sum(axis=(0, 1)).min())
    if math.isfinite(value) and (few := too_few(len(common))):
        return without_interval(value, n, unit, few)
    low, high = percentile_interval(resampled(flat, drawn, seed=seed))
    if math.isnan(value) or math.isnan(low):
        return undefined(n, method, "not defined on these traces")
    return Estimate(value, low, high, n, method)


def _ratios(totals: Array) -> Array:
    """(..., 2) -> (...): numerator over denominator, NaN where that is 0."""
    result: Array = np.full(totals.shape[:-1], np.nan)
    np.divide(totals[..., 0], totals[..., 1], out=result, where=totals[..., 1] > 0)
    return result
