"""Figures, Wilson's interval and the bootstrap over problems."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy import stats

from irl_core.statistics import bootstrap as intervals
from irl_core.statistics.bootstrap import (
    Estimate,
    bootstrap,
    mean_over_problems,
    paired_difference,
    point,
    problem_index,
    problem_rows,
    problem_sums,
    ratio,
    share,
    share_difference,
    to_json,
    undefined,
    wilson,
)


def test_a_figure_shows_its_interval_and_n() -> None:
    assert str(Estimate(0.5, 0.25, 0.75, 12, "x")) == "0.500 [0.250, 0.750] (n 12)"
    assert str(Estimate(0.5, 0.25, 0.75, 2560, "x")) == "0.500 [0.250, 0.750] (n 2,560)"
    assert str(undefined(1, "x", "one class")) == "undefined (one class; n 1)"


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(0.5194, 0.4631, 0.5779, 9, "m"), "0.519 [0.463, 0.578]"),
        (Estimate(3.0, 2.0, 4.4, 9, "m", whole=True), "3 [2, 4]"),  # a number of samples
        (point(1.234e-9, 9, "m"), "1.23e-09"),
        (point(0.0, 9, "Welch's test, two-sided"), "under 1e-300"),  # a p too small for a float
        (point(0.0, 9, "m"), "0"),
        (undefined(9, "m", "one class"), "undefined (one class)"),
    ],
)
def test_the_one_rule_of_digits(estimate: Estimate, words: str) -> None:
    assert estimate.words == words


def test_json_has_no_nan() -> None:
    record = undefined(1, "x", "one class").to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == {
        "value": None, "n": 1, "interval": None, "method": "x", "reason": "one class",
    }  # fmt: skip
    assert Estimate(0.5, 0.25, 0.75, 12, "x").to_json() == {
        "value": 0.5, "n": 12, "interval": [0.25, 0.75], "method": "x", "reason": "",
    }  # fmt: skip
    assert Estimate(0.5, -math.inf, 0.75, 12, "x").to_json()["interval"] is None


def test_a_number_without_an_interval_is_defined_all_the_same() -> None:
    p = point(0.0123, 40, "Welch's p")
    assert p.defined and str(p) == "0.0123 (n 40)"
    assert (p.to_json()["value"], p.to_json()["interval"]) == (0.0123, None)
    assert not undefined(1, "x", "one class").defined


def test_a_tree_with_estimates_becomes_strict_json() -> None:
    tree = to_json({"a": [Estimate(1, 0, 2, 3, "x")], "b": {"c": (1, "two")}, "d": None})
    assert tree == {"a": [Estimate(1, 0, 2, 3, "x").to_json()], "b": {"c": [1, "two"]}, "d": None}
    assert to_json({1: (math.inf, 2.0), "a": [None, -math.inf]}) == {"1": [None, 2.0], "a": [None, None]}


@dataclass(frozen=True)
class Inner:
    low: float
    high: float | None


@dataclass(frozen=True)
class Outer:
    since: int = field(metadata={"key": "from"})
    inner: Inner | None = field(default=None, metadata={"flat": True})
    note: str | None = None


def test_a_dataclass_is_written_by_its_fields_without_those_that_hold_their_default() -> None:
    assert to_json(Outer(1, Inner(math.inf, None), "n")) == {"from": 1, "low": None, "high": None, "note": "n"}
    assert to_json([Outer(2)]) == [{"from": 2}]


def test_wilson_by_hand() -> None:
    # 8 of 10, z = 1.96: centre (0.8 + 3.8415 / 20) / (1 + 3.8415 / 10) = 0.71674,
    # half width 1.96 sqrt(0.8 0.2 / 10 + 3.8415 / 400) / 1.38415 = 0.22659
    figure = wilson(8, 10)
    assert (figure.value, figure.n) == (0.8, 10)
    assert (figure.low, figure.high) == pytest.approx((0.49016, 0.94333), abs=1e-4)
    assert wilson(0, 0).reason == "no trials"
    assert wilson(0, 5).low == 0 and 0.4 < wilson(0, 5).high < 0.5


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (1, 2), (0, 30), (29, 30), (313, 1000)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert (wilson(successes, n).low, wilson(successes, n).high) == pytest.approx((interval.low, interval.high))


def test_a_share_of_few_problems_or_without_spread_is_as_uncertain_as_trials_are() -> None:
    two = mean_over_problems([0.5, 0.5])
    assert (two.value, two.low, two.high) == pytest.approx((0.5, wilson(1, 2).low, wilson(1, 2).high))
    assert two.method == "problems; Wilson over 2 problems (fewer than 5 problems (2))"
    same = mean_over_problems([0.1] * 40)  # in the resamples 0.1 but for rounding
    assert (same.low, same.high) == pytest.approx((wilson(4, 40).low, wilson(4, 40).high))
    assert same.method == "problems; Wilson over 40 problems (no spread)"


def test_problems_in_order_of_appearance() -> None:
    count, codes = problem_index(["b", "a", "b", "c"])
    assert (count, codes.tolist()) == (3, [0, 1, 0, 2])
    assert [rows.tolist() for rows in problem_rows(["b", "a", "b", "c"])] == [[0, 2], [1], [3]]
    assert problem_rows([]) == []
    count, codes = problem_index(np.array([7, -1, 7, 3]))  # numbers, in the same order
    assert (count, codes.tolist()) == (3, [0, 1, 0, 2])
    assert problem_index(np.array([], dtype=int))[0] == 0
    assert problem_sums([1, 2, 3, 4], ["b", "a", "b", "c"]).tolist() == [4, 2, 4]


def test_ratio_of_nothing_is_nan() -> None:
    assert ratio(np.array([[1.0, 4.0], [0.0, 0.0]]))[0] == 0.25
    assert math.isnan(ratio(np.array([[0.0, 0.0]]))[0])


def test_bootstrap_agrees_with_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    columns = rng.random((12, 2))
    figure = bootstrap(columns, ratio, n=12, unit="problems", seed=4, resamples=50)
    drawn = np.random.default_rng(4).integers(12, size=(50, 12))
    values = [sum(columns[i, 0] for i in row) / sum(columns[i, 1] for i in row) for row in drawn]
    assert figure.value == pytest.approx(columns[:, 0].sum() / columns[:, 1].sum())
    assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    monkeypatch.setattr(intervals, "KEPT", 0)  # draws that are not kept, one resample a block: the same numbers
    monkeypatch.setattr(intervals, "BLOCK", 1)
    again = bootstrap(columns, ratio, n=12, unit="problems", seed=4, resamples=50)
    assert (again.value, again.low, again.high) == pytest.approx((figure.value, figure.low, figure.high), rel=1e-12)


def test_figures_of_one_seed_share_their_resamples() -> None:
    values = np.random.default_rng(5).random((30, 1))
    ours = intervals.resampled(values, lambda totals: totals[:, 0], seed=2)
    theirs = intervals.resampled(values + 1, lambda totals: totals[:, 0], seed=2)
    assert np.ptp(theirs - ours) == pytest.approx(0, abs=1e-9)
    other = intervals.resampled(values, lambda totals: totals[:, 0], seed=3)
    assert not np.allclose(ours, other)


def test_draws_that_do_not_exist_are_left_out() -> None:
    assert intervals.percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert all(math.isnan(end) for end in intervals.percentile_interval(np.array([np.nan])))


def test_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = np.random.default_rng(2).random(400)
    figure = mean_over_problems(values)
    error = values.std(ddof=1) / 20
    assert figure.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert figure.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_samples_of_one_problem_do_not_narrow_the_interval() -> None:
    flags = np.random.default_rng(3).random(60) < 0.5
    once, often = share(flags, range(60)), share(np.repeat(flags, 10), np.repeat(np.arange(60), 10))
    assert often.n == 600
    assert (often.value, often.low, often.high) == pytest.approx((once.value, once.low, once.high))


def test_a_share_without_spread_keeps_a_width() -> None:
    figure = share([1, 1, 1, 1], ["a", "a", "b", "c"])
    assert figure.value == 1.0
    assert figure.low == pytest.approx(wilson(3, 3).low)  # three problems, not four traces
    assert "Wilson over 3 problems" in figure.method


def test_one_problem_has_no_interval() -> None:
    assert share([1, 0], ["a", "a"]).reason == "fewer than two problems"
    assert mean_over_problems([]).reason == "fewer than two problems"


def test_paired_differences() -> None:
    figure = paired_difference([1, 1, 0, 1], [0, 1, 0, 1])
    assert figure.value == 0.25
    same = paired_difference([1, 0, 1, 0, 1], [1, 0, 1, 0, 1])
    assert (same.value, same.low, same.high) == (0, 0, 0)  # they never differ: no width to invent
    # two problems that agree would give [0.5, 0.5], as if it were certain
    few = paired_difference([1, 1], [0.5, 0.5])
    assert few.value == 0.5 and few.to_json()["interval"] is None
    assert few.method == "problems; no interval: fewer than 5 problems (2)"
    assert share_difference([1, 1, 1], [0, 1, 0], ["a", "a", "b"]).value == pytest.approx(2 / 3)
