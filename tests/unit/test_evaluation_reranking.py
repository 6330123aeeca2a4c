"""Best of N, votes and fewer samples: by hand, against plain loops, ties, missing answers, and what is said of it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest

from irl_core.errors import StoreError
from irl_core.evaluation.reranking import TEMPERATURES, TIES, Curves, VoteRule, choose_vote, figures, paragraph
from irl_core.evaluation.scores import REWARD_SCORES, TITLES
from irl_core.statistics.best_of_n import vote
from irl_core.statistics.bootstrap import to_json
from tests.evaluated import check_figures, evaluated, frame, simulated

FIRST = "score_mean_discounted"


def rows(problem: str, *samples: tuple[str | None, float]) -> list[dict[str, Any]]:
    """Samples as (answer, score); the right answer is 0."""
    return [
        {"problem_id": problem, "answer": answer, "correct": answer == "0", FIRST: score} for answer, score in samples
    ]


HAND = rows("a", ("0", 1.0), ("1", 3.0), ("1", 0.0)) + rows("b", ("0", 2.0), ("0", 1.0), ("2", 0.0))


class TestByHand:
    found = figures(evaluated(HAND, provenance={"vote": {"score": FIRST, "temperature": 1.0}}))

    def test_best_of(self) -> None:
        # a: the highest is 1, wrong; b: the highest is 0, right
        assert self.found.by_score[FIRST]["1"].value.value == 0.5
        # a: 3 samples hold a right one; so do b's
        assert self.found.by_score[FIRST]["3"].value.value == 1.0

    def test_baselines(self) -> None:
        base = self.found.baselines
        assert base["random_sample"]["1"].value == pytest.approx((1 / 3 + 2 / 3) / 2)
        # texts '#### 0' and '#### 1', and '#### 0' and '#### 2': one of two each
        assert base["random_text"]["1"].value == 0.5
        assert base["majority"]["1"].value == 0.5  # a elects 1, b elects 0
        assert base["oracle"]["1"].value == 1.0

    def test_the_weighted_vote(self) -> None:
        # a: 0 has e^1, 1 has e^3 + e^0: wrong. b: 0 has e^2 + e^1, 2 has e^0: right
        assert self.found.weighted_vote.value.value == 0.5
        assert self.found.weighted_vote.minus_majority.value == 0.0
        assert self.found.vote == VoteRule(FIRST, 1.0, True)

    def test_curves(self) -> None:
        curves = self.found.curves
        assert curves.sizes == [1, 2, 3]
        # best of two: a draws {0 1.0, 1 3.0} wrong, {0 1.0, 1 0.0} right, {1, 1} wrong: 1/3; b: all three right: 1
        assert [figure.value for figure in curves.by_way["best_of"]] == pytest.approx([1 / 2, 2 / 3, 1 / 2])
        # any right of two: a 2/3, b 1
        assert [figure.value for figure in curves.by_way["oracle"]] == pytest.approx([1 / 2, 5 / 6, 1])
        # majority of two: a: {0, 1} a tie, 1/2, twice, and {1, 1}: 1/3; b: {0, 0} 1 and {0, 2} 1/2 twice: 2/3: 1/2
        assert [figure.value for figure in curves.by_way["majority"]] == pytest.approx([1 / 2, 1 / 2, 1 / 2], abs=0.03)
        assert curves.by_way["majority"][0].value == pytest.approx(1 / 2)

    def test_samples_needed(self) -> None:
        needed = self.found.samples_needed
        assert needed["target"].value == 0.5
        assert needed["oracle"].value == needed["best_of"].value == 1

    def test_it_is_json_and_says_its_rule_for_ties(self) -> None:
        json.dumps(to_json(self.found), allow_nan=False)
        check_figures(self.found)
        assert self.found.ties == TIES


def test_votes_agree_with_a_plain_loop() -> None:
    data = simulated(problems=30)
    problems: dict[str, list[dict[str, Any]]] = {}
    for row in data:
        problems.setdefault(row["problem_id"], []).append(row)
    scores = [row[FIRST] for row in data]
    temperature = float(np.std(scores))
    elected, weighted, best = [], [], []
    for members in problems.values():
        votes = Counter(row["answer"] for row in members)
        winners = [answer for answer in votes if votes[answer] == max(votes.values())]
        elected.append(np.mean([answer == "0" for answer in winners]))
        weights: dict[str, float] = {}
        for row in members:
            weights[row["answer"]] = weights.get(row["answer"], 0.0) + np.exp(row[FIRST] / temperature)
        weighted.append(max(weights, key=lambda answer: weights[answer]) == "0")
        best.append(max(members, key=lambda row: row[FIRST])["correct"])
    found = figures(evaluated(data))
    assert found.baselines["majority"]["1"].value == pytest.approx(np.mean(elected))
    assert found.votes[FIRST].value.value == pytest.approx(np.mean(weighted))
    assert found.votes[FIRST].minus_majority.value == pytest.approx(np.mean(weighted) - np.mean(elected))
    assert found.by_score[FIRST]["1"].value.value == pytest.approx(np.mean(best))
    assert found.by_score[FIRST]["1"].minus_majority.value == pytest.approx(np.mean(best) - np.mean(elected))
    assert found.weighted_vote.temperature == pytest.approx(temperature)
    assert found.curves.by_way["weighted_vote"][-1].value == pytest.approx(np.mean(weighted))
    assert found.curves.by_way["best_of"][-1].value == pytest.approx(np.mean(best))


def test_paired_differences_agree_with_a_plain_loop() -> None:
    data = simulated(problems=30)
    row = figures(evaluated(data), seed=5).by_score[FIRST]["1"].minus_random_sample
    problems: dict[str, list[dict[str, Any]]] = {}
    for one in data:
        problems.setdefault(one["problem_id"], []).append(one)
    less = np.array(
        [
            max(members, key=lambda one: one[FIRST])["correct"] - np.mean([one["correct"] for one in members])
            for members in problems.values()
        ]
    )
    draws = less[np.random.default_rng(5).integers(30, size=(2000, 30))].mean(1)
    assert row.value == pytest.approx(less.mean())
    assert row.interval == pytest.approx(list(np.quantile(draws, [0.025, 0.975])))


def test_answers_that_mean_the_same_vote_together() -> None:
    data = rows("a", ("1,000", 0), ("$1000.00", 0), ("2", 0), ("2", 0), ("1000", 0)) + rows("b", *[("0", 0)] * 5)
    for row in data[:5]:
        row["correct"] = row["answer"] != "2"
    assert figures(evaluated(data)).baselines["majority"]["1"].value == 1.0


def test_missing_answers_do_not_vote() -> None:
    data = rows("a", (None, 9), (None, 9), ("0", 0)) + rows("b", (None, 0), (None, 0), (None, 0))
    found = figures(evaluated(data))
    assert found.baselines["majority"]["1"].value == found.weighted_vote.value.value == 0.5
    silent = figures(evaluated(rows("a", (None, 9), (None, 1)) + rows("b", (None, 9), (None, 1))))
    assert silent.baselines["majority"]["1"].reason == "no sample has an answer"
    assert silent.samples_needed["weighted_vote"].reason == "no sample has an answer"
    assert "undefined (no sample has an answer)" in paragraph(silent)
    for entry in (silent.by_score[FIRST]["1"], silent.weighted_vote):
        assert entry.minus_majority.reason == "no sample has an answer"
    assert silent.weighted_vote.minus_random_sample.reason == "no sample has an answer"
    assert silent.by_score[FIRST]["1"].minus_random_sample.value == 0
    assert {one.reason for one in silent.curves.by_way["majority"]} == {"no sample has an answer"}
    assert silent.samples_needed["target"].defined is False
    check_figures(silent)


def test_k_beyond_n_is_undefined() -> None:
    found = figures(evaluated(simulated(samples=3)))
    assert found.by_score[FIRST]["5"].value.reason == "a problem has 3 samples, fewer than k"
    assert found.baselines["random_text"]["5"].defined is False
    assert found.by_score[FIRST]["3"].value.defined


def test_the_smallest_problem_limits_the_curves() -> None:
    data = simulated(problems=10, samples=4) + rows("z", ("0", 1.0), ("1", 0.0))
    found = figures(evaluated(data))
    assert found.samples == [2, 4] and found.curves.sizes == [1, 2]


def test_a_score_that_is_missing_is_undefined() -> None:
    found = figures(evaluated(HAND))
    assert found.by_score["score_last"]["1"].value.reason == "every score is missing"
    assert found.votes["score_last"].value.reason == "every score is missing"


def test_many_samples_have_curves_of_bounded_length() -> None:
    found = figures(evaluated(simulated(problems=4, samples=200)))
    sizes = found.curves.sizes
    assert sizes[0] == 1 and sizes[-1] == 200 and len(sizes) <= 64
    assert sizes[:5] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("data", [[], [{"problem_id": "a", "correct": None, "answer": "1"}]])
def test_nothing_to_judge(data: list[dict[str, Any]]) -> None:
    found = figures(evaluated(data))
    assert found.by_score == {} and "Choosing is undefined: no solution with a known" in paragraph(found)
    json.dumps(to_json(found), allow_nan=False)


def test_one_sample_a_problem() -> None:
    found = figures(evaluated(simulated(samples=1)))
    assert paragraph(found) == "Choosing is undefined: no problem has two samples."
    assert (
        found.by_score == found.baselines == {} and found.curves == Curves()
    )  # not the share of right samples, 17 times


def test_a_problem_of_one_sample_beside_others_of_three() -> None:
    data = [row for place, row in enumerate(simulated(problems=20, samples=3)) if place not in (0, 1)]
    found = figures(evaluated(data))
    assert found.samples == [1, 3] and "with 1 to 3 samples each, the sample with" in paragraph(found)
    assert found.by_score[FIRST]["1"].value.n == 20
    assert found.samples_needed["weighted_vote"].reason.startswith("one sample a problem")
    check_figures(found)


def test_one_problem_has_no_interval() -> None:
    found = figures(evaluated(simulated(problems=1)))
    assert found.by_score[FIRST]["1"].value.reason == "fewer than two problems"
    assert "fewer than two problems" in paragraph(found)
    check_figures(found)


class TestTheRule:
    def test_without_calibration_it_is_fixed_and_said(self) -> None:
        found = figures(evaluated(simulated()))
        assert found.vote.score == FIRST and found.vote.chosen_on_calibration is False
        assert "fixed, not chosen on other problems" in paragraph(found)

    def test_the_provenance_has_it(self) -> None:
        rule = {"score": "score_min", "temperature": 0.5}
        found = figures(evaluated(simulated(), provenance={"vote": rule}))
        assert found.vote == VoteRule("score_min", 0.5, True)
        assert found.weighted_vote.temperature == 0.5
        assert "exp(lowest reward / 0.5), chosen on calibration problems" in paragraph(found)

    @pytest.mark.parametrize(
        "rule",
        [{"score": "colour", "temperature": 1.0}, {"score": FIRST, "temperature": 0}, {"temperature": 1.0},
         {"score": FIRST, "temperature": "1"}, {"score": FIRST, "temperature": True}, {"score": FIRST}, [FIRST, 1.0]],
    )  # fmt: skip
    def test_a_rule_that_cannot_be_followed_is_refused(self, rule: Any) -> None:
        with pytest.raises(StoreError, match=r"run\.parquet: its provenance holds the vote .* it needs a temperature"):
            figures(evaluated(simulated(), provenance={"vote": rule}))

    def test_choosing_it_agrees_with_trying_all(self) -> None:
        data = frame(simulated(problems=40, seed=3))
        rule, answers = choose_vote(data), data["answer"].tolist()
        best = 0.0
        for name in REWARD_SCORES:
            for times in TEMPERATURES:
                temperature = times * float(data[name].std(ddof=0))
                accuracy = vote(answers, data["correct"], data["problem_id"], data[name], temperature).mean()
                best = max(best, float(accuracy))
        values = data[rule.score]
        elected = vote(answers, data["correct"], data["problem_id"], values, rule.temperature)
        assert elected.mean() == pytest.approx(best)

    def test_of_equals_the_first_score_and_the_highest_temperature(self) -> None:
        data = frame([{**row, "answer": "0", "correct": True} for row in simulated(problems=5)])
        rule = choose_vote(data)
        assert (rule.score, rule.temperature) == (FIRST, pytest.approx(5 * float(data[FIRST].std(ddof=0))))
        with pytest.raises(ValueError, match="no solution with a known right answer"):
            choose_vote(frame([]))


def test_the_seed_makes_it_repeatable() -> None:
    data = evaluated(simulated(problems=20))
    first, again, other = (to_json(figures(data, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


class TestParagraph:
    def test_strong(self) -> None:
        text = paragraph(figures(evaluated(simulated(problems=120, reward=3, seed=1))))
        assert text.count("], better)") == 3 and "], better." in text and "it saves" in text
        assert "no difference shown" not in text

    @pytest.mark.parametrize("seed", range(4))
    def test_nothing(self, seed: int) -> None:
        text = paragraph(figures(evaluated(simulated(reward=0, seed=seed))))
        assert "], better" not in text and "it saves 1" not in text and "not reached with 8 samples" in text

    def test_no_saving(self) -> None:
        # a score that is nearly constant votes like the majority
        data = [{**row, FIRST: 1e-6 * row[FIRST]} for row in simulated(reward=0)]
        text = paragraph(figures(evaluated(data, provenance={"vote": {"score": FIRST, "temperature": 1.0}})))
        assert "a saving is not shown." in text and "], no difference shown. It reaches" in text

    def test_worse(self) -> None:
        text = paragraph(figures(evaluated(simulated(problems=120, reward=-3, seed=1))))
        assert text.count("], worse)") == 3 and "], worse." in text
        assert "The samples that it saves are undefined: not reached with 8 samples." in text

    def test_every_title_is_a_score(self) -> None:
        assert set(figures(evaluated(simulated(problems=3))).by_score) == set(TITLES)
