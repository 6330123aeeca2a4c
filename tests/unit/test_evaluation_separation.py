"""Correct against incorrect traces, pooled and within problems: by hand, against scipy and scikit-learn, in words."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from irl_core.evaluation.scores import TITLES
from irl_core.evaluation.separation import BINS, MEAN, Histogram, figures, paragraph, tables
from irl_core.statistics.bootstrap import to_json
from tests.evaluated import check_figures, evaluated, simulated

FIRST = "score_mean_discounted"
TESTS_WITHOUT_INTERVAL = ("t", "p", "clustered_t", "clustered_p")


def rows(problem: str, *pairs: tuple[float | None, int]) -> list[dict[str, object]]:
    return [
        {"problem_id": problem, FIRST: score, "log_prob_mean": -1.0, "correct": bool(right)} for score, right in pairs
    ]


def test_by_hand() -> None:
    # correct 4, 6 and 5; incorrect 1, 3 and 2: means 5 and 2, variances 1: d = 3, t = 3 / sqrt(1/3 + 1/3) = 3.674
    # with 4 degrees of freedom. Every correct one is higher: AUC 1. Pairs: a 2 x 1, b 1 x 2: all 4 right.
    # Less the problem's mean (a 11/3, b 10/3): correct 1/3, 7/3, 5/3; incorrect -8/3, -1/3, -4/3: means 13/9 and -13/9
    found = figures(evaluated(rows("a", (4, 1), (6, 1), (1, 0)) + rows("b", (5, 1), (3, 0), (2, 0)))).scores[FIRST]
    assert (found.correct.value, found.incorrect.value) == (5, 2)
    assert (found.correct.n, found.incorrect.n) == (3, 3)
    pooled, within = found.pooled, found.within
    assert pooled["difference"].value == pytest.approx(3)
    assert pooled["cohens_d"].value == pytest.approx(3)
    assert pooled["t"].value == pytest.approx(3 / math.sqrt(2 / 3))
    assert "4 degrees of freedom" in pooled["t"].method and pooled["t"].interval is None
    assert (pooled["auc"].value, within["pair_accuracy"].value, within["pair_accuracy"].n) == (1, 1, 4)
    assert within["difference"].value == pytest.approx(26 / 9)
    # log-probability is the same everywhere, so half of the pairs: the margin is 1/2
    assert within["minus_log_prob"].value == pytest.approx(0.5)


def test_agrees_with_scipy_and_sklearn() -> None:
    data = simulated(ease=0.5)
    found = figures(evaluated(data))
    right = np.array([row["correct"] for row in data])
    for name, values in (
        (FIRST, np.array([row[FIRST] for row in data])),
        ("shortness", -np.array([row["length"] for row in data])),
        ("log_prob_sum", np.array([row["log_prob_mean"] * row["length"] for row in data])),
    ):
        pooled = found.scores[name].pooled
        welch = stats.ttest_ind(values[right], values[~right], equal_var=False)
        assert (pooled["t"].value, pooled["p"].value) == pytest.approx((welch.statistic, welch.pvalue))
        assert pooled["auc"].value == pytest.approx(roc_auc_score(right, values))


def test_within_agrees_with_plain_loops() -> None:
    data = simulated(problems=20)
    problems: dict[str, list[dict[str, object]]] = {}
    for row in data:
        problems.setdefault(row["problem_id"], []).append(row)
    won, ours, theirs, pairs = 0.0, [], [], 0
    for members in problems.values():
        values = [row[FIRST] for row in members]
        if 0 < sum(row["correct"] for row in members) < len(members):  # type: ignore[misc]
            for row in members:
                (ours if row["correct"] else theirs).append(row[FIRST] - np.mean(values))  # type: ignore[operator]
        for a in members:
            for b in members:
                if a["correct"] and not b["correct"]:
                    pairs += 1
                    won += a[FIRST] > b[FIRST]  # type: ignore[operator]
    within = figures(evaluated(data)).scores[FIRST].within
    assert within["pair_accuracy"].value == pytest.approx(won / pairs) and within["pair_accuracy"].n == pairs
    assert within["t"].value == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).statistic)
    assert within["auc"].value == pytest.approx(roc_auc_score([1] * len(ours) + [0] * len(theirs), ours + theirs))


def test_the_histogram_counts_every_trace_once() -> None:
    data = simulated()
    histogram = figures(evaluated(data)).scores[FIRST].histogram
    right = sum(row["correct"] for row in data)
    assert len(histogram.edges) == BINS + 1 and np.all(np.diff(histogram.edges) > 0)
    assert (sum(histogram.correct), sum(histogram.incorrect)) == (right, len(data) - right)
    low = histogram.edges[1]
    expected = sum(row[FIRST] < low for row in data if not row["correct"])
    assert histogram.incorrect[0] == expected


def test_every_score_is_there_the_papers_first_and_json() -> None:
    found = figures(evaluated(simulated()))
    assert list(found.scores) == list(TITLES)
    assert list(TITLES)[:2] == ["score_mean_discounted", "score_mean_discounted_answer"]
    assert {"log_prob_mean", "log_prob_sum", "shortness"} <= set(TITLES)
    json.dumps(to_json(found), allow_nan=False)
    defined = sum(row.pooled["t"].defined for row in found.scores.values())
    check_figures(found, without_interval=2 * len(TESTS_WITHOUT_INTERVAL) * defined)


def test_missing_scores_are_left_out_and_counted() -> None:
    data = rows("a", (4, 1), (6, 1), (1, 0), (None, 0)) + rows("b", (5, 1), (3, 0), (2, 0), (None, 1))
    found = figures(evaluated(data)).scores
    assert found[FIRST].missing == 2 and found[FIRST].pooled["auc"].n == 6
    assert found["score_last"].missing == 8
    assert found["score_last"].pooled["auc"].reason == "one class: 0 positive, 0 negative"
    assert found["score_last"].histogram == Histogram([], [], [])


@pytest.mark.parametrize("data", [[], rows("a", (1, 1)), rows("a", (1, 1)) + rows("b", (2, 1)), rows("a", (None, 0))])
def test_one_class_or_nothing_is_undefined_and_says_so(data: list[dict[str, object]]) -> None:
    found = figures(evaluated(data))
    check_figures(found)
    assert "nothing to separate" in paragraph(found)


def test_one_sample_a_problem_has_no_within() -> None:
    found = figures(evaluated(simulated(samples=1)))
    within = found.scores[FIRST].within
    assert within["pair_accuracy"].reason == "no problem has both correct and incorrect samples"
    assert within["auc"].defined is False and found.scores[FIRST].pooled["auc"].defined
    text = paragraph(found)
    assert "No problem has both correct and incorrect samples, so it is not known whether this is more" in text
    assert "pooled: mean discounted reward, response 0." in text and "undefined" not in text


def test_ties_count_half() -> None:
    # pairs of a: 2 > 1 and 1 = 1; of b: 2 = 2: (1 + 1/2 + 1/2) / 3
    found = figures(evaluated(rows("a", (2, 1), (1, 1), (1, 0)) + rows("b", (2, 1), (2, 0)))).scores[FIRST]
    assert found.within["pair_accuracy"].value == pytest.approx(2 / 3)
    # pooled: 2 > 1, 2 = 2, 1 = 1, 1 < 2, 2 > 1, 2 = 2: (2 + 3/2) / 6
    assert found.pooled["auc"].value == pytest.approx(3.5 / 6)


def test_a_score_that_never_varies_is_undefined() -> None:
    found = figures(evaluated(rows("a", (1, 1), (1, 0)) + rows("b", (1, 1), (1, 0)))).scores[FIRST]
    assert found.within["pair_accuracy"].value == 0.5
    assert found.pooled["t"].reason == found.pooled["cohens_d"].reason == "no variance"
    assert found.pooled["auc"].reason == "every score is the same"


class TestParagraph:
    def test_strong(self) -> None:
        text = paragraph(figures(evaluated(simulated(reward=3))))
        assert text.count("(strong)") == 4 and "better than it" in text
        assert "which problems are easy" not in text

    def test_nothing(self) -> None:
        text = paragraph(figures(evaluated(simulated(reward=0, seed=2))))
        assert text.count("(not shown to be better than chance)") == 4
        assert "strong" not in text and "better than it" not in text and "no difference shown" in text

    def test_weak(self) -> None:
        text = paragraph(figures(evaluated(simulated(problems=150, reward=0.4))))
        assert "(at least weak)" in text and "strong" not in text

    def test_turned_round(self) -> None:
        text = paragraph(figures(evaluated(simulated(reward=-2))))
        assert text.count("(worse than chance)") == 4 and "worse than it" in text

    def test_knowing_only_the_problem(self) -> None:
        text = paragraph(figures(evaluated(simulated(reward=0, ease=2.0, seed=2))))
        assert text.count("So nothing is shown but that it knows which problems are easy.") == 2
        assert text.count("(at least moderate)") == 2 and "strong" not in text
        assert text.count("(not shown to be better than chance)") == 2


class TestWithinModels:
    """Two models answer the same problems, one of them right more often."""

    @staticmethod
    def answered(style: float) -> list[dict[str, object]]:
        """Traces of both: those of ``b`` are right more often, and score ``style`` higher for how they are written."""
        rng = np.random.default_rng(3)
        rows: list[dict[str, object]] = []
        for row in simulated(problems=40, samples=6, reward=0.5):
            model = "a" if rng.random() < 0.5 else "b"
            right = bool(row["correct"]) if model == "a" else bool(rng.random() < 0.8)
            better = style * (model == "b") + 0.5 * right
            rows.append(row | {"model": model, "correct": right, FIRST: better + float(rng.normal())})
        return rows

    def test_each_models_auc_and_their_mean_are_those_of_sklearn(self) -> None:
        data = self.answered(style=3.0)
        found = figures(evaluated(data)).scores[FIRST].by_model
        areas = {}
        for name in ("a", "b"):
            own = [row for row in data if row["model"] == name]
            areas[name] = roc_auc_score([row["correct"] for row in own], [row[FIRST] for row in own])
            assert found[name].value == pytest.approx(areas[name])
            assert found[name].n == len(own)
        assert found[MEAN].value == pytest.approx((areas["a"] + areas["b"]) / 2)

    def test_style_alone_separates_the_pool_and_not_within_a_model(self) -> None:
        found = figures(evaluated(self.answered(style=6.0))).scores[FIRST]
        plain = figures(evaluated(self.answered(style=0.0))).scores[FIRST]
        assert found.pooled["auc"].value > plain.pooled["auc"].value + 0.05
        assert found.by_model[MEAN].value == pytest.approx(plain.by_model[MEAN].value)

    def test_the_interval_of_the_mean_is_that_of_a_bootstrap_over_problems(self) -> None:
        data = self.answered(style=1.0)
        found = figures(evaluated(data)).scores[FIRST].by_model[MEAN]
        values = np.array([row[FIRST] for row in data], dtype=np.float64)
        right = np.array([bool(row["correct"]) for row in data])
        author = np.array([row["model"] for row in data])
        names, problem = np.unique([str(row["problem_id"]) for row in data], return_inverse=True)
        rows_of = [np.flatnonzero(problem == number) for number in range(len(names))]
        rng, drawn = np.random.default_rng(0), []
        for _ in range(400):
            rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(names), len(names))])
            drawn.append(
                np.mean([roc_auc_score(right[mine], values[mine]) for m in "ab" for mine in [rows[author[rows] == m]]])
            )
        low, high = np.quantile(drawn, [0.025, 0.975])
        assert found.interval == pytest.approx((low, high), abs=0.02)

    def test_one_model_or_none_gives_no_table(self) -> None:
        data = self.answered(style=1.0)
        for rows in ([row | {"model": "a"} for row in data], [row | {"model": None} for row in data]):
            run = evaluated(rows)
            assert figures(run).scores[FIRST].by_model == {}
            assert len(tables(figures(run))) == 2
        told = tables(figures(evaluated(data)))[0]
        assert told.head == ["score", "a", "b", MEAN]
        said = paragraph(figures(evaluated(data)))
        assert f"each of the 2 models, mean AUC: mean discounted reward, response {found_words(data)}" in said


def found_words(data: list[dict[str, object]]) -> str:
    """The mean over the models as the report writes it."""
    return figures(evaluated(data)).scores[FIRST].by_model[MEAN].words
