"""Figures in words: a claim is made by the whole interval or not at all."""

from __future__ import annotations

import math

import pytest

from irl_core.evaluation.scores import Counts, extent
from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import difference, listed, ranking, side


def figure(value: float | None, low: float | None = None, high: float | None = None, reason: str = "") -> Estimate:
    nan = math.nan
    value, low, high = (nan if number is None else number for number in (value, low, high))
    return Estimate(value, low, high, 9, "m", reason)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.2, "above"), (-0.2, -0.1, "below"), (-0.1, 0.1, "neither"), (0.0, 0.1, "neither"), (-0.1, 0.0, "neither")],
)
def test_side(low: float, high: float, expected: str) -> None:
    assert side(figure((low + high) / 2, low, high)) == expected
    assert side(figure(None, reason="x")) == side(figure(0.3)) == "undefined"


@pytest.mark.parametrize(
    ("value", "low", "high", "word"),
    [
        (0.9, 0.75, 0.95, "strong"),
        (0.9, 0.74, 0.95, "at least moderate"),  # the value alone would be strong
        (0.7, 0.59, 0.8, "at least weak"),
        (0.7, 0.49, 0.9, "not shown to be better than chance"),
        (0.3, 0.2, 0.4, "worse than chance"),
    ],
)
def test_ranking_goes_by_the_end_nearer_to_chance(value: float, low: float, high: float, word: str) -> None:
    assert ranking(figure(value, low, high)) == word
    assert ranking(figure(None, reason="x")) == "undefined"


def test_difference() -> None:
    assert difference(figure(0.1, 0.05, 0.2)) == "0.100 [0.050, 0.200], higher"
    assert difference(figure(-0.1, -0.2, -0.05), "better", "worse") == "-0.100 [-0.200, -0.050], worse"
    assert difference(figure(0.1, -0.05, 0.2)) == "0.100 [-0.050, 0.200], no difference shown"
    assert difference(figure(None, reason="no problem in common")) == "undefined (no problem in common)"


def test_listed() -> None:
    assert [listed(parts) for parts in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def counts(problems: int, samples: list[int], left_out: int) -> Counts:
    return Counts(problems=problems, samples=samples, traces=0, correct=0, left_out=left_out)


def test_extent() -> None:
    assert extent(counts(160, [16, 16], 0)) == "160 problems with 16 samples each"
    assert extent(counts(1, [1, 1], 0)) == "1 problem with 1 sample each"
    mixed = extent(counts(3, [1, 4], 2))
    assert mixed == "3 problems with 1 to 4 samples each (2 solutions without a known right answer are left out)"
    assert extent(counts(0, [], 5)) == "no solution with a known right answer (5 without one)"
