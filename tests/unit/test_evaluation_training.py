"""What training did: series, changes and rank correlations over steps, and no more words than they bear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from irl_core.evaluation.training import (
    HELD_OUT,
    REWARD,
    TRAIN,
    Series,
    figures,
    find_training,
    paragraph,
    rank_correlation,
)
from irl_core.statistics.bootstrap import to_json
from tests.evaluated import check_figures, evaluated


def logged(steps: int, *, together: float = 1.0, seed: int = 0) -> list[dict[str, float]]:
    """Steps whose reward goes with correctness by ``together``; correctness rises from 0.2 to 0.6."""
    rng = np.random.default_rng(seed)
    lines: list[dict[str, float]] = []
    for step in range(1, steps + 1):
        right = 0.2 + 0.4 * step / steps + 0.05 * rng.normal()
        reward = together * right + 0.02 * rng.normal()
        lines.append({"step": step, REWARD: reward, TRAIN: right, "disc/reward_expert": 1.0})
    return lines


def evaluated_at(step: int, value: float) -> dict[str, float]:
    return {"step": step, HELD_OUT: value, "eval/low": value - 0.1, "eval/high": value + 0.1, "eval/n": 50}


def test_without_metrics_it_says_so() -> None:
    found = figures(evaluated([]))
    check_figures(found)
    assert found.steps == 0 and "holds no metrics.jsonl" in paragraph(found)


def test_series_are_what_was_logged() -> None:
    lines = logged(30)
    lines[9] |= evaluated_at(10, 0.4)
    del lines[4][TRAIN]
    found = figures(evaluated([], training=lines))
    assert found.steps == 30
    assert found.series[REWARD] == Series(list(range(1, 31)), [line[REWARD] for line in lines])
    assert 5 not in found.series[TRAIN].step and len(found.series[TRAIN].step) == 29
    (point,) = found.held_out
    assert point.step == 10 and point.solved.interval == pytest.approx([0.3, 0.5])
    json.dumps(to_json(found), allow_nan=False)
    check_figures(found)


def test_changes_by_hand() -> None:
    lines = [{"step": i, TRAIN: 0.2 + 0.01 * (i % 2)} for i in range(1, 11)]
    lines += [{"step": i, TRAIN: 0.5 + 0.01 * (i % 2)} for i in range(11, 21)]
    found = figures(evaluated([], training=[*lines, evaluated_at(1, 0.3), evaluated_at(20, 0.45)]))
    change = found.change
    # tenths of two steps: (0.21 + 0.20) / 2 and (0.51 + 0.50) / 2
    assert change[TRAIN].value == pytest.approx(0.3) and change[TRAIN].n == 4
    # half-widths of 0.1 each: sqrt(2) * 0.1 around 0.15
    assert change[HELD_OUT].value == pytest.approx(0.15)
    assert change[HELD_OUT].interval == pytest.approx([0.15 - 0.1 * 2**0.5, 0.15 + 0.1 * 2**0.5])
    assert "better than at the start" in paragraph(found)


@pytest.mark.parametrize("n", [4, 25, 200])
def test_rank_correlation_is_spearmans_with_a_wider_interval_than_that_of_independent_points(n: int) -> None:
    rng = np.random.default_rng(n)
    x = np.cumsum(rng.normal(size=n))
    y = x + rng.normal(size=n)
    figure = rank_correlation(x, y, unit="steps")
    assert figure.value == pytest.approx(stats.spearmanr(x, y).statistic) and figure.n == n
    assert -1 <= figure.low <= figure.value <= figure.high <= 1


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "no steps with both a reward"),
        ([1.0, 2, 3], [1.0, 2, 3], "3 steps; a rank correlation needs 4"),
        ([1.0] * 5, [1.0, 2, 3, 4, 5], "no variance"),
    ],
)
def test_what_has_no_rank_correlation(x: list[float], y: list[float], reason: str) -> None:
    figure = rank_correlation(np.array(x), np.array(y), unit="steps")
    assert not figure.defined and reason in figure.reason


def test_words_follow_the_intervals() -> None:
    assert "it rises with it" in paragraph(figures(evaluated([], training=logged(120))))
    assert "it falls as correctness rises" in paragraph(figures(evaluated([], training=logged(120, together=-1.0))))
    assert "no relation is shown" in paragraph(figures(evaluated([], training=logged(120, together=0.0, seed=3))))
    assert "undefined" in paragraph(figures(evaluated([], training=logged(3))))


def test_a_common_trend_moves_levels_but_not_changes() -> None:
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = [
        {"step": i, REWARD: i + rng.normal(), TRAIN: i + rng.normal()} for i in range(1, 101)
    ]
    ranks = figures(evaluated([], training=lines)).rank_correlation[TRAIN]
    assert ranks["levels"].interval[0] > 0.9
    assert abs(ranks["changes"].value) < 0.3


def test_where_the_metrics_are_found(tmp_path: Path) -> None:
    final = tmp_path / "run" / "final"
    saved = tmp_path / "run" / "checkpoints" / "step-2"
    for folder in (final, saved):
        folder.mkdir(parents=True)
    assert find_training(final) is None
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    assert find_training(final) == find_training(saved) == tmp_path / "run"
    assert find_training(final, tmp_path) is None and find_training(tmp_path, tmp_path / "run") == tmp_path / "run"
