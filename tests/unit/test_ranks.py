"""What the library computes of its own in the place of ``scipy.stats`` is what that computes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from irl_core.statistics.ranks import density, ranks, two_sided, welch

ROOT = Path(__file__).resolve().parents[2]
DRAWN = np.random.default_rng(0)


@pytest.mark.parametrize("values", [[], [3.0], [1.0, 1.0, 1.0], [2.0, -1.0, 2.0, 0.0, 2.0], DRAWN.integers(9, size=99)])
def test_ranks(values: list[float]) -> None:
    assert ranks(values).tolist() == stats.rankdata(values).tolist()


def test_a_missing_value_leaves_no_rank() -> None:
    assert np.isnan(ranks([1.0, math.nan, 2.0])).all()


@pytest.mark.parametrize(("size", "shift", "scale"), [(2, 0.0, 1.0), (40, 0.5, 3.0), (900, 4.0, 1e-3)])
def test_welch(size: int, shift: float, scale: float) -> None:
    ours, theirs = DRAWN.normal(shift, 1, size), DRAWN.normal(0, scale, size + 3)
    found, expected = welch(ours, theirs), stats.ttest_ind(ours, theirs, equal_var=False)
    assert (found.t, found.degrees) == pytest.approx((expected.statistic, expected.df))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_welch_of_what_does_not_vary() -> None:
    assert math.isnan(welch(np.full(3, 1.0), np.full(4, 2.0)).p)


def test_the_tail_of_students_t_far_out() -> None:
    for t, degrees in ((0.0, 3.0), (-2.5, 159.0), (60.0, 500.0)):
        assert two_sided(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), rel=1e-6, abs=0)


@pytest.mark.parametrize("size", [3, 40, 20_000])
def test_density(size: int) -> None:
    values = DRAWN.normal(2, 3, size)
    across = np.linspace(values.min(), values.max(), 50)
    expected = stats.gaussian_kde(values)(across)
    assert density(values, across) == pytest.approx(expected, rel=0.01, abs=0.01 * expected.max())


def test_the_sections_do_without_scipy_stats() -> None:
    code = "import sys, irl_core.evaluation.report, irl_core.report.charts.traces; print('scipy.stats' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout == "False\n"
