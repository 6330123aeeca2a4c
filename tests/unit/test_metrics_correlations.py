"""Correlations with a bootstrap over problems, and with other columns removed: by hand, scipy, least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from irl_core.statistics.correlation import centred, clustered_correlations, partial_correlation

RNG = np.random.default_rng(0)
IDS = np.repeat(np.arange(50), 6)
EASE = RNG.normal(size=50)[IDS]
X = EASE + RNG.normal(size=300)
Y = 0.5 * X + EASE + RNG.normal(size=300)
LENGTH = -X + RNG.normal(size=300)


class TestMatrix:
    def test_agrees_with_scipy(self) -> None:
        columns = {"x": X, "y": Y, "right": Y > 0, "length": LENGTH}
        for kind, reference in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            found = clustered_correlations(columns, IDS, kind)  # type: ignore[arg-type]
            for a, first in columns.items():
                for b, second in columns.items():
                    assert found[a][b].value == pytest.approx(float(reference(first, second).statistic))
                    assert found[a][b] == found[b][a] and found[a][b].n == 300

    def test_the_interval_agrees_with_a_plain_loop(self) -> None:
        figure = clustered_correlations({"x": X, "y": Y}, IDS, seed=4)["x"]["y"]
        rows = [np.flatnonzero(problem == IDS) for problem in range(50)]
        draws = []
        for drawn in np.random.default_rng(4).integers(50, size=(2000, 50)):
            chosen = np.concatenate([rows[problem] for problem in drawn])
            draws.append(np.corrcoef(X[chosen], Y[chosen])[0, 1])
        assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=1e-6)

    def test_spearman_keeps_its_ranks_and_its_interval_is_near_that_of_new_ones(self) -> None:
        figure = clustered_correlations({"x": X, "y": Y}, IDS, "spearman", seed=4)["x"]["y"]
        rows = [np.flatnonzero(problem == IDS) for problem in range(50)]
        draws = []
        for drawn in np.random.default_rng(4).integers(50, size=(1000, 50)):
            chosen = np.concatenate([rows[problem] for problem in drawn])
            draws.append(stats.spearmanr(X[chosen], Y[chosen]).statistic)
        width = np.quantile(draws, 0.975) - np.quantile(draws, 0.025)
        assert figure.low == pytest.approx(np.quantile(draws, 0.025), abs=0.15 * width)
        assert figure.high == pytest.approx(np.quantile(draws, 0.975), abs=0.15 * width)
        assert "ranks kept" in figure.method

    def test_the_interval_is_wider_than_fishers_where_problems_matter(self) -> None:
        # every trace of a problem is the same: 30 problems, not 300 traces
        x, ids = RNG.normal(size=30), np.repeat(np.arange(30), 10)
        y = x + RNG.normal(size=30)
        figure = clustered_correlations({"x": x[ids], "y": y[ids]}, ids)["x"]["y"]
        fisher = stats.pearsonr(x, y).confidence_interval(0.95)
        assert figure.high - figure.low == pytest.approx(fisher.high - fisher.low, rel=0.35)

    def test_by_hand(self) -> None:
        # x 1 2 3 4, y 1 3 2 4: covariance sum 4, both sums of squares 5: r = 0.8; the ranks are the same, and so is all
        # of it three times over
        for kind in ("pearson", "spearman"):
            columns = {"x": [1, 2, 3, 4] * 3, "y": [1, 3, 2, 4] * 3}
            found = clustered_correlations(columns, "aabbccddeeff", kind)  # type: ignore[arg-type]
            assert found["x"]["y"].value == pytest.approx(0.8)
            assert found["x"]["x"].value == pytest.approx(1)

    def test_a_constant_column_is_named(self) -> None:
        found = clustered_correlations({"x": X, "flat": np.zeros(300)}, IDS)
        assert found["x"]["flat"].reason == found["flat"]["flat"].reason == "flat is constant (0)"
        assert found["x"]["x"].defined

    def test_missing_values_are_left_out_pair_by_pair(self) -> None:
        holes = X.copy()
        holes[:7] = math.nan
        for kind, reference in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
            found = clustered_correlations({"x": holes, "y": Y, "l": LENGTH}, IDS, kind)  # type: ignore[arg-type]
            assert found["x"]["y"].n == 293 and found["y"]["l"].n == 300
            assert found["x"]["y"].value == pytest.approx(float(reference(X[7:], Y[7:]).statistic))
        nothing = clustered_correlations({"x": [math.nan] * 300, "y": Y}, IDS)
        assert nothing["x"]["y"].reason == "n is 0; a correlation needs two"

    def test_too_little(self) -> None:
        assert clustered_correlations({"x": [1, 2], "y": [2, 1]}, "aa")["x"]["y"].reason == "fewer than 5 problems (1)"
        # three traces lie on a line in most resamples: r = 1 with an interval of [1, 1] would be no finding
        three = clustered_correlations({"x": [1, 2, 3], "y": [2, 3, 9]}, "abc")["x"]
        assert three["y"].reason == three["x"].reason == "fewer than 5 problems (3)"
        # a pair that is known in three problems of fifty
        rare = np.where(np.arange(300) < 18, X, math.nan)
        assert clustered_correlations({"x": rare, "y": Y}, IDS)["x"]["y"].reason == "fewer than 5 problems (3)"
        assert clustered_correlations({"x": [1], "y": [2]}, "a")["x"]["y"].reason
        assert clustered_correlations({"x": [], "y": []}, [])["x"]["y"].reason

    def test_where_most_resamples_are_constant_it_is_undefined(self) -> None:
        # one trace of one problem differs: 0.98^50 = 36 % of the resamples lack it
        x, y = np.zeros(300), np.zeros(300)
        x[0] = 1
        assert clustered_correlations({"x": x, "y": Y}, IDS)["x"]["y"].defined
        # and another one in y: both are there in 0.64 x 0.64 = 40 %
        y[6] = 1
        figure = clustered_correlations({"x": x, "y": y}, IDS)["x"]["y"]
        assert figure.reason == "constant in most resamples: too few problems vary"

    def test_large_offsets_do_not_cancel(self) -> None:
        found = clustered_correlations({"x": X + 1e8, "y": Y}, IDS)["x"]["y"]
        assert found.value == pytest.approx(stats.pearsonr(X, Y).statistic, rel=1e-5)


class TestPartial:
    def test_by_hand_from_three_correlations(self) -> None:
        # x 1 2 3 4, y 2 1 4 3, z 1 1 2 2: r_xy = 3/5, r_xz = r_yz = 2/sqrt 5
        # (3/5 - 4/5) / (1 - 4/5) = -1; three times over it is the same
        ids = "aabbccddeeff"
        figure = partial_correlation([1, 2, 3, 4] * 3, [2, 1, 4, 3] * 3, [], ids)
        assert figure.value == pytest.approx(0.6)
        removed = partial_correlation([1, 2, 3, 4] * 3, [2, 1, 4, 3] * 3, [[1, 1, 2, 2] * 3], ids)
        assert removed.value == pytest.approx(-1)

    @pytest.mark.parametrize("within", [False, True])
    def test_agrees_with_the_residuals_of_least_squares(self, within: bool) -> None:
        more = RNG.normal(size=300) + 0.3 * Y
        columns = [centred(c, IDS) if within else c for c in (X, Y, LENGTH, more)]
        design = np.column_stack([np.ones(300), *columns[2:]])
        left = [c - design @ np.linalg.lstsq(design, c, rcond=None)[0] for c in columns[:2]]
        figure = partial_correlation(X, Y, [LENGTH, more], IDS, within=within)
        assert figure.value == pytest.approx(np.corrcoef(*left)[0, 1])
        assert figure.low < figure.value < figure.high and figure.n == 300

    def test_without_controls_it_is_r(self) -> None:
        assert partial_correlation(X, Y, [], IDS).value == pytest.approx(stats.pearsonr(X, Y).statistic)

    def test_the_interval_agrees_with_a_plain_loop(self) -> None:
        figure = partial_correlation(X, Y, [LENGTH], IDS, seed=6)
        rows = [np.flatnonzero(problem == IDS) for problem in range(50)]
        draws = []
        for drawn in np.random.default_rng(6).integers(50, size=(2000, 50)):
            chosen = np.concatenate([rows[problem] for problem in drawn])
            (_, a, b), (_, _, c), _ = np.corrcoef([X[chosen], Y[chosen], LENGTH[chosen]])
            draws.append((a - b * c) / math.sqrt((1 - b * b) * (1 - c * c)))
        assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=1e-6)

    def test_what_the_control_explains_is_gone(self) -> None:
        causes = RNG.normal(size=3000)
        ids = np.repeat(np.arange(500), 6)
        x, y = causes + RNG.normal(size=3000), causes + RNG.normal(size=3000)
        assert partial_correlation(x, y, [], ids).low > 0.4
        gone = partial_correlation(x, y, [causes], ids)
        assert gone.low < 0 < gone.high

    def test_knowing_easy_problems_is_gone_within(self) -> None:
        score, right = EASE + 0.01 * RNG.normal(size=300), EASE + RNG.normal(size=300) > 0
        assert partial_correlation(score, right, [LENGTH], IDS).low > 0.3
        within = partial_correlation(score, right, [LENGTH], IDS, within=True)
        assert within.low < 0.1 and within.high < 0.3

    def test_undefined(self) -> None:
        assert "nothing is left" in partial_correlation(X, Y, [2 * X + 1], IDS).reason
        assert partial_correlation(np.ones(300), Y, [LENGTH], IDS).reason == "no variance"
        assert partial_correlation(EASE, Y, [LENGTH], IDS, within=True).reason == "no variance within problems"
        assert partial_correlation(X, Y, [LENGTH], ["a"] * 300).reason == "fewer than 5 problems (1)"
        five, more = [1, 2, 3, 5, 4], [[2, 1, 5, 3, 4], [1, 3, 2, 2, 5], [5, 1, 2, 4, 4]]
        assert partial_correlation(five, five[::-1], more, "abcde").reason == "n is 5; too few solutions"
        assert partial_correlation([], [], [], []).reason == "fewer than 5 problems (0)"

    def test_missing_values_are_left_out(self) -> None:
        holes = LENGTH.copy()
        holes[:6] = math.nan  # a whole problem
        figure = partial_correlation(X, Y, [holes], IDS)
        assert figure.n == 294 and "49 problems" in figure.method
        assert figure.value == pytest.approx(partial_correlation(X[6:], Y[6:], [LENGTH[6:]], IDS[6:]).value)
