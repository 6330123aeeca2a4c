"""Matrices and partial correlations: against scipy and least squares, constant columns, and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from irl_core.evaluation.correlation import COLUMNS, REMOVED, Partial, figures, left_beyond, paragraph
from irl_core.statistics.bootstrap import Estimate, to_json
from tests.evaluated import check_figures, evaluated, simulated

FIRST = "score_mean_discounted"
ASKED = {
    "score_mean", "score_mean_discounted", "score_last", "score_min", "score_credit_sum", "length", "log_prob_mean",
    "correct", "xml_count", "strict_format", "soft_format", "integer_answer", "arithmetic_false",
}  # fmt: skip


def column(data: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in data], dtype=float)


def test_agrees_with_scipy() -> None:
    data = simulated()
    found = figures(evaluated(data))
    names = [name for name in COLUMNS if name in ASKED and name not in found.constant]
    for a in names:
        for b in names:
            x, y = column(data, a), column(data, b)
            assert found.pearson[a][b].value == pytest.approx(float(stats.pearsonr(x, y).statistic))
            assert found.spearman[a][b].value == pytest.approx(float(stats.spearmanr(x, y).statistic))
    assert set(COLUMNS) >= ASKED


def test_by_hand() -> None:
    # scores 1 2 3 4, correct 0 1 0 1: means 2.5 and 0.5; covariance sum 0.75 - 0.25 - 0.25 + 0.75 = 1, squares 5 and 1;
    # three times over, which changes no correlation
    data = [
        {"problem_id": f"{problem}{time}", FIRST: score, "correct": right}
        for time in range(3)
        for problem, score, right in (("a", 1, False), ("a", 2, True), ("b", 3, False), ("b", 4, True))
    ]
    found = figures(evaluated(data))
    assert found.pearson[FIRST]["correct"].value == pytest.approx(1 / np.sqrt(5))
    assert found.partial[FIRST].pooled["nothing"].value == pytest.approx(1 / np.sqrt(5))
    # less the problem's mean: -1/2 1/2 -1/2 1/2, twice
    assert found.partial[FIRST].within["nothing"].value == pytest.approx(1)


def test_partial_correlations_agree_with_least_squares() -> None:
    data = simulated(brevity=1.0)
    found = figures(evaluated(data)).partial["score_min"]
    assert list(found.pooled) == list(REMOVED)
    ids = [row["problem_id"] for row in data]
    for where in ("pooled", "within"):
        columns = {}
        for name in ("score_min", "correct", "length", "log_prob_mean"):
            values = column(data, name)
            means = {p: values[[i for i, q in enumerate(ids) if q == p]].mean() for p in set(ids)}
            columns[name] = values - np.array([means[p] for p in ids]) if where == "within" else values
        design = np.column_stack([np.ones(len(data)), columns["length"], columns["log_prob_mean"]])
        left = [
            columns[name] - design @ np.linalg.lstsq(design, columns[name], rcond=None)[0]
            for name in ("score_min", "correct")
        ]
        value = getattr(found, where)["length_and_log_prob"].value
        assert value == pytest.approx(np.corrcoef(*left)[0, 1])


def test_constant_columns_are_undefined_with_the_reason() -> None:
    found = figures(evaluated(simulated()))
    assert found.constant == {"xml_count": 0.0, "strict_format": 0.0, "soft_format": 0.0}
    assert found.pearson["xml_count"]["correct"].reason == "XML count is constant (0)"
    assert "never vary: XML count, strict format and soft format." in paragraph(found)


def test_all_right_is_undefined_and_said() -> None:
    found = figures(evaluated([{**row, "correct": True} for row in simulated()]))
    assert found.constant["correct"] == 1.0
    assert found.partial[FIRST].pooled["length"].reason == "no variance"
    assert "the correlation with correctness is undefined (no variance)" in paragraph(found)


def test_every_figure_is_whole_and_json() -> None:
    found = figures(evaluated(simulated()))
    check_figures(found)
    json.dumps(to_json(found), allow_nan=False)
    assert list(found.partial["log_prob_mean"].pooled) == ["nothing", "length"]  # it is not removed from itself


@pytest.mark.parametrize("data", [[], simulated(problems=1, samples=1), simulated(problems=1), simulated(samples=1)])
def test_little_data_is_undefined_and_not_an_exception(data: list[dict[str, Any]]) -> None:
    found = figures(evaluated(data))
    check_figures(found)
    assert paragraph(found)


def test_unknown_correctness_is_left_out_of_its_pairs_alone() -> None:
    data = simulated()
    for row in data[:8]:
        row["correct"] = None
    found = figures(evaluated(data))
    assert found.left_out == 8
    assert found.pearson["length"]["correct"].n == len(data) - 8
    assert found.pearson["length"]["log_prob_mean"].n == len(data)


@pytest.mark.parametrize(
    ("pooled", "within", "said"),
    [
        (0.5, -0.5, "goes with which problems are easy, but within a problem against correctness"),
        (0.0, 0.5, "goes with correctness within a problem; over all solutions nothing is shown"),
        (-0.5, 0.5, "goes with correctness within a problem, but against which problems are easy"),
        (-0.5, 0.0, "against which problems are easy, and within a problem nothing is shown"),
        (-0.5, -0.5, "beyond length it goes against correctness"),
        (0.0, -0.5, "against correctness within a problem; over all solutions nothing is shown"),
        (0.0, 0.0, "nothing of correctness is shown beyond length"),
    ],
)
def test_what_is_left_is_said_by_both_signs(pooled: float, within: float, said: str) -> None:
    parts = [{"length": Estimate(v, v - 0.1, v + 0.1, 9, "x")} for v in (pooled, within)]
    assert said in left_beyond(Partial(*parts), "length", "length")


class TestParagraph:
    def test_correctness(self) -> None:
        text = paragraph(figures(evaluated(simulated(problems=100, reward=3))))
        assert "beyond length it still goes with correctness." in text
        assert "beyond length and likelihood it still goes with correctness." in text

    def test_nothing(self) -> None:
        text = paragraph(figures(evaluated(simulated(reward=0, seed=2))))
        assert "nothing of correctness is shown beyond length." in text and "still goes with" not in text

    def test_brevity(self) -> None:
        # the score is shortness, and right samples are shorter: correlated, but not once length is removed
        found = figures(evaluated(simulated(problems=150, reward=0, brevity=3, seed=4)))
        assert found.partial[FIRST].pooled["nothing"].interval[0] > 0.3
        assert "nothing of correctness is shown beyond length." in paragraph(found)

    def test_knowing_only_the_problem(self) -> None:
        text = paragraph(figures(evaluated(simulated(problems=100, reward=0, ease=3, seed=2))))
        assert "beyond length it goes with which problems are easy, and within a problem nothing is shown." in text

    def test_one_sample_a_problem_says_nothing_of_within(self) -> None:
        text = paragraph(figures(evaluated(simulated(problems=100, samples=1, reward=3))))
        assert "what is left beyond length is undefined on these solutions." in text
