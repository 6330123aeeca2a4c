"""Metrics as a numerator and a denominator for each problem, so that scored runs, and seeds of a training run, can be
compared problem by problem. No model is involved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.located_traces import column, decided, located, locator_of
from irl_core.evaluation.scores import Graded, answers, graded, score
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
Flags = npt.NDArray[np.bool_]
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
    "correct_acc": "correct solutions: 'no error'",
    "perturbed": "first wrong step of corrupted experts",
}
UNITS = {
    **{name: "pairs of samples of a problem" for name in ("pairs", "pairs_lowest")},
    **{name: "wrong solutions" for name in ("first_step", "error_acc")},
    "correct_acc": "correct solutions",
    "perturbed": "corrupted solutions",
}


def measured(run: EvaluatedRun) -> dict[str, Columns]:
    """Every measure of ``TITLES`` that a scored run allows, by name."""
    columns: dict[str, Columns] = {}
    one = graded(run.frame)
    if one.problems:
        columns |= of_samples(one)
    if (locator := locator_of(run)) is not None:
        frame = located(run.path, locator).frame
        if len(frame):
            wrong = column(frame, "true") != NO_ERROR
            exact, said = column(frame, "reward") == column(frame, "true"), decided(frame) == column(frame, "true")
            columns["first_step"] = _shares(frame, run.frame, exact, wrong)
            columns["error_acc"] = _shares(frame, run.frame, said, wrong)
            columns["correct_acc"] = _shares(frame, run.frame, said, ~wrong)
        frame = located(run.perturbed_path, locator).frame if len(run.perturbed) else frame.iloc[:0]
        if len(frame):
            exact = column(frame, "reward") == column(frame, "true")
            columns["perturbed"] = _shares(frame, run.perturbed, exact, np.ones(len(frame), dtype=bool))
    return {name: columns[name] for name in TITLES if any(total for _, total in columns.get(name, {}).values())}


def of_samples(one: Graded) -> dict[str, Columns]:
    """The measures that need sampled solutions; a problem is known by its text, which is the same in two runs."""
    first = np.unique(one.ids, return_index=True)[1]
    names = [str(text) for text in one.frame["problem"].iloc[first]]
    columns: dict[str, Array] = {}
    for k in (1, 3, 5, 10, 16):
        if k <= one.samples[0]:
            columns[f"pass@{k}"] = pass_values(one.right, one.ids, k)
    spelt = answers(one.frame)
    if one.samples[0] > 1 and any(answer is not None for answer in spelt):
        columns["majority"] = vote(spelt, one.right, one.ids)
    for suffix, name in (("", PAPER), ("_lowest", LOWEST)):
        values = score(one.frame, name)
        if np.isfinite(values).all() and one.samples[0] > 1:
            columns[f"best{suffix}"] = best_of(values, one.right, one.ids, 1)
            columns[f"pairs{suffix}"] = pair_columns(values, one.right, one.ids)
    return {
        name: _columns(names, values if values.ndim == 2 else np.column_stack([values, np.ones_like(values)]))
        for name, values in columns.items()
    }


def _columns(names: Sequence[str], values: Array) -> Columns:
    return {name: (float(right), float(total)) for name, (right, total) in zip(names, values, strict=True)}


def _shares(frame: pd.DataFrame, traces: pd.DataFrame, flags: Flags, among: Flags) -> Columns:
    """The share of flags among some located traces, by the text of the problem."""
    texts = dict(zip(traces["problem_id"], traces["problem"], strict=True))
    problems = [str(texts[name]) for name in frame["problem_id"]]
    totals = np.column_stack([problem_sums(flags & among, problems), problem_sums(among, problems)])
    return _columns(list(dict.fromkeys(problems)), totals)


# ------------------------------------------------------------------------------------------------- one and two runs


def estimate(name: str, columns: Columns, *, seed: int = 0) -> Estimate:
    """The measure of one scored run, with its interval over problems."""
    values = np.array(list(columns.values()), dtype=np.float64)
    return bootstrap(values, ratio, n=int(values[:, 1].sum()), unit=UNITS.get(name, "problems"), seed=seed)


def difference(name: str, ours: Columns, theirs: Columns, *, seed: int = 0) -> Estimate:
    """Ours minus theirs over the problems that both have, which are resampled together."""
    common, unit = [problem for problem in ours if problem in theirs], UNITS.get(name, "problems")
    if not common:
        return undefined(0, unit, "no problem in common")
    values = np.array([(*ours[problem], *theirs[problem]) for problem in common], dtype=np.float64)

    def less(totals: Array) -> Array:
        return ratio(totals[:, :2]) - ratio(totals[:, 2:])

    n = int(min(values[:, 1].sum(), values[:, 3].sum()))
    return bootstrap(values, less, n=n, unit=f"{unit}, paired by problem", bounded=False, seed=seed)


# ------------------------------------------------------------------------------------------------------------ seeds


def over_seeds(name: str, runs: Sequence[Columns], *, seed: int = 0) -> Estimate:
    """The mean over training runs that differ in their seed alone; problems and seeds are both resampled."""
    return _over_seeds(UNITS.get(name, "problems"), [runs], seed)


def difference_over_seeds(name: str, ours: Sequence[Columns], theirs: Sequence[Columns], *, seed: int = 0) -> Estimate:
    """The mean of ours minus theirs, paired by seed; problems and seeds are resampled together. A single one on one
    side (a start that has no seed) stands beside each of the other's."""
    runs, unit = max(len(ours), len(theirs)), UNITS.get(name, "problems")
    sides = [list(side) * runs if len(side) == 1 else list(side) for side in (ours, theirs)]
    if len(sides[0]) != len(sides[1]):
        return undefined(0, unit, f"{len(ours)} seeds against {len(theirs)}")
    return _over_seeds(f"{unit}, paired by problem and seed", sides, seed)


def _over_seeds(unit: str, sides: Sequence[Sequence[Columns]], seed: int) -> Estimate:
    """The mean over seeds of a measure, or of the first side's less the second's."""
    runs = len(sides[0])
    common = [problem for problem in sides[0][0] if all(problem in one for side in sides for one in side)]
    words = f"{runs} seeds and {len(common)} problems" if runs > 1 else f"{len(common)} problems (one seed)"
    method = f"{unit}; mean over seeds, bootstrap over {words}"
    if len(common) < 2:
        return undefined(0, method, "fewer than two problems in common")
    # (P, S, sides, 2): numerator and denominator
    table = np.array(
        [[[side[run][name] for side in sides] for run in range(runs)] for name in common], dtype=np.float64
    )
    rng = np.random.default_rng([seed, runs])

    def by_seed(totals: Array) -> Array:
        ratios = ratio(totals.reshape(-1, 2)).reshape(len(totals), runs, len(sides))
        return ratios[..., 0] - ratios[..., 1] if len(sides) == 2 else ratios[..., 0]

    def drawn(totals: Array) -> Array:
        of_seeds = by_seed(totals)
        chosen = rng.integers(runs, size=of_seeds.shape)
        mean: Array = np.take_along_axis(of_seeds, chosen, axis=1).mean(axis=1)
        return mean

    flat = table.reshape(len(common), -1)
    value = float(by_seed(flat.sum(0, keepdims=True)).mean())
    n = int(table[..., 1].sum(axis=(0, 1)).min())
    if math.isfinite(value) and (few := too_few(len(common))):
        return without_interval(value, n, unit, few)
    low, high = percentile_interval(resampled(flat, drawn, seed=seed))
    if math.isnan(value) or math.isnan(low):
        return undefined(n, method, "not defined on these solutions")
    return Estimate(value, low, high, n, method)
