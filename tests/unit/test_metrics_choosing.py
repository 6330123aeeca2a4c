"""Curves over fewer samples, pass@k|N of a score that knows only the text, and the samples that a vote saves."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest

from irl_core.statistics.best_of_n import (
    best_of,
    best_of_curve,
    draws_for,
    oracle,
    pass_at_k,
    pass_curve,
    pass_values,
    random_text_top,
    samples_needed,
    samples_saved,
    vote,
    vote_curve,
)

IDS = ["a"] * 4 + ["b"] * 4
RIGHT = [1, 0, 0, 1, 0, 0, 0, 1]
ANSWERS = ["7", "5", "5", "7", "1", "1", "2", "3"]


class TestPassValues:
    def test_a_value_a_problem(self) -> None:
        # a: 1 - C(2,2)/C(4,2) = 5/6; b: 1 - C(3,2)/C(4,2) = 1/2
        assert pass_values(RIGHT, IDS, 2).tolist() == pytest.approx([5 / 6, 1 / 2])
        assert pass_curve(RIGHT, IDS, [1, 2, 4]).tolist() == [[0.5, pytest.approx(5 / 6), 1], [0.25, 0.5, 1]]
        assert pass_at_k(RIGHT, IDS, 2).value == pytest.approx(2 / 3)

    def test_k_beyond_n(self) -> None:
        with pytest.raises(ValueError, match="k is 5, but a problem has 4 samples"):
            pass_values(RIGHT, IDS, 5)
        with pytest.raises(ValueError, match="k is 5, but a problem has 4 samples"):
            pass_curve(RIGHT, IDS, [1, 5])


class TestRandomTextTop:
    def test_by_hand(self) -> None:
        # x (right, twice), y, z: two places. First x: right. First y: then x (1/2) fills with right, or z with wrong.
        # P = 1/3 + 2/3 * 1/2 = 2/3
        assert random_text_top(["x", "y", "z", "x"], RIGHT[:4], ["a"] * 4, 2).tolist() == pytest.approx([2 / 3])
        # y has both places to itself: y first is wrong, z first leaves one place: x or y. P = 1/3 + 1/3 * 1/2 = 1/2
        assert random_text_top(["x", "y", "y", "z"], [1, 0, 0, 0], ["a"] * 4, 2).tolist() == pytest.approx([1 / 2])

    def test_one_place_is_the_share_of_texts(self) -> None:
        texts = ["x", "y", "z", "x", "p", "q", "r", "s"]
        # a: x is right, y and z are not; b: s is right, p, q and r are not
        assert random_text_top(texts, RIGHT, IDS, 1).tolist() == pytest.approx([1 / 3, 1 / 4])

    @pytest.mark.parametrize("k", [2, 3, 5])
    def test_agrees_with_all_orders_of_the_texts(self, k: int) -> None:
        texts = ["x", "y", "y", "z", "z", "z", "v", "w"]
        verdict = {"x": 1, "y": 0, "z": 0, "v": 0, "w": 1}
        outcomes = []
        for order in permutations(verdict):
            places = [verdict[text] for text in order for _ in range(texts.count(text))]
            outcomes.append(any(places[:k]))
        found = random_text_top(texts, [verdict[text] for text in texts], ["p"] * 8, k)
        assert found[0] == pytest.approx(np.mean(outcomes))

    def test_agrees_with_drawn_scores(self) -> None:
        texts = ["x", "y", "z", "x", "p", "p", "r", "s"]
        codes = [list(dict.fromkeys(texts)).index(text) for text in texts]
        drawn = [best_of(np.random.default_rng(seed).random(6)[codes], RIGHT, IDS, 3) for seed in range(3000)]
        assert np.mean(drawn, axis=0) == pytest.approx(random_text_top(texts, RIGHT, IDS, 3), abs=0.03)

    def test_ends(self) -> None:
        assert random_text_top(["x"] * 3, [1, 1, 1], "aaa", 3).tolist() == [1]
        assert random_text_top(["x"] * 3, [0, 0, 0], "aaa", 3).tolist() == [0]
        with pytest.raises(ValueError, match="k is 4, but a problem has 3 samples"):
            random_text_top(["x"] * 3, [1, 1, 1], "aaa", 4)


class TestBestOfCurve:
    @pytest.mark.parametrize("scores", [[4, 3, 2, 1], [5, 5, 1, 1], [2, 2, 2, 2], [math.nan, 1, math.nan, 0]])
    def test_agrees_with_all_subsets(self, scores: list[float]) -> None:
        curve = best_of_curve(scores, RIGHT[:4], ["a"] * 4, [1, 2, 3, 4])
        for size in (1, 2, 3, 4):
            outcomes = []
            for chosen in map(list, combinations(range(4), size)):
                outcomes.append(best_of([scores[i] for i in chosen], [RIGHT[i] for i in chosen], ["a"] * size)[0])
            assert curve[0, size - 1] == pytest.approx(np.mean(outcomes)), size

    def test_its_ends_are_pass_at_1_and_best_of_all(self) -> None:
        rng = np.random.default_rng(0)
        ids, right, scores = np.repeat(np.arange(30), 8), rng.random(240) < 0.4, rng.integers(5, size=240)
        curve = best_of_curve(scores, right, ids, [1, 8])
        assert curve[:, 0] == pytest.approx(pass_values(right, ids, 1))
        assert curve[:, 1] == pytest.approx(best_of(scores, right, ids))

    def test_a_perfect_score_is_the_oracle_at_every_size(self) -> None:
        assert best_of_curve(RIGHT, RIGHT, IDS, [1, 2, 3, 4]) == pytest.approx(pass_curve(RIGHT, IDS, [1, 2, 3, 4]))

    def test_beyond_n(self) -> None:
        with pytest.raises(ValueError, match="k is 5"):
            best_of_curve([1] * 8, RIGHT, IDS, [1, 5])


class TestVoteCurve:
    @pytest.mark.parametrize("scores", [None, [0.0, 3.0, -1.0, 0.5], [math.nan, 1.0, math.nan, 0.0]])
    def test_agrees_with_all_subsets(self, scores: list[float] | None) -> None:
        curve = vote_curve(ANSWERS[:4], RIGHT[:4], ["a"] * 4, [1, 2, 3, 4], scores, draws=20_000)
        for size in (1, 2, 3, 4):
            outcomes = []
            for chosen in map(list, combinations(range(4), size)):
                part = None if scores is None else [scores[i] for i in chosen]
                answers, right = [ANSWERS[i] for i in chosen], [RIGHT[i] for i in chosen]
                outcomes.append(vote(answers, right, ["a"] * size, part)[0])
            assert curve[0, size - 1] == pytest.approx(np.mean(outcomes), abs=0.015), size

    @pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, math.inf])
    def test_all_samples_are_the_vote_itself(self, temperature: float) -> None:
        rng = np.random.default_rng(1)
        ids = np.repeat(np.arange(60), 8)
        answers: list[str | None] = [None if a == "4" else a for a in rng.integers(5, size=480).astype(str)]
        right, scores = [answer == "0" for answer in answers], rng.normal(size=480)
        scores[:20], scores[30], scores[31], scores[40:48] = math.nan, math.inf, -math.inf, -math.inf
        curve = vote_curve(answers, right, ids, [1, 8], scores, temperature, draws=3)
        assert curve[:, 1] == pytest.approx(vote(answers, right, ids, scores, temperature))

    def test_one_sample_is_pass_at_1_where_every_sample_has_an_answer(self) -> None:
        curve = vote_curve(ANSWERS, RIGHT, IDS, [1], draws=1)
        assert curve[:, 0] == pytest.approx([0.5, 0.25])  # exact: every order is begun at every sample

    def test_scores_that_underflow_as_weights_still_order_answers(self) -> None:
        # exp(-2000) is 0 in floating point; among the two low ones 'right' still has the higher weight
        curve = vote_curve(["x", "right", "y"], [0, 1, 0], "aaa", [2], [0.0, -2000.0, -2001.0], draws=6000)
        assert curve[0, 0] == pytest.approx(1 / 3, abs=0.03)  # right wins only without x

    def test_missing_answers(self) -> None:
        assert vote_curve([None, "", math.nan], [0, 0, 0], "aaa", [1, 3]).tolist() == [[0, 0]]
        assert vote_curve([None, "7"], [0, 1], "aa", [1, 2], draws=4000)[0] == pytest.approx([0.5, 1], abs=0.03)

    def test_the_seed_decides(self) -> None:
        answers = np.random.default_rng(0).integers(4, size=9).astype(str).tolist()
        right = [answer == "0" for answer in answers]
        curves = [vote_curve(answers, right, ["a"] * 9, [4, 5], draws=9, seed=seed).tolist() for seed in (1, 1, 2)]
        one, same, other = curves
        assert one == same != other

    def test_how_many_draws(self) -> None:
        assert [draws_for(problems) for problems in (1, 160, 1000, 100_000)] == [400, 250, 40, 20]

    def test_faults(self) -> None:
        with pytest.raises(ValueError, match="temperature is 0"):
            vote_curve(ANSWERS, RIGHT, IDS, [1], [0.0] * 8, 0)
        with pytest.raises(ValueError, match="k is 5"):
            vote_curve(ANSWERS, RIGHT, IDS, [5])


class TestSamplesNeeded:
    def test_by_hand(self) -> None:
        # means of the curve 0.25, 0.5, 0.75, 1; the target's mean 0.6: three samples
        curve = np.tile([0.25, 0.5, 0.75, 1.0], (20, 1))
        figure = samples_needed(curve, [0.6] * 20, [1, 2, 4, 8])
        assert (figure.value, figure.low, figure.high, figure.n) == (4, 4, 4, 20)

    def test_reaching_counts_equality(self) -> None:
        curve = np.tile([0.1, 0.3], (7, 1))
        assert samples_needed(curve, [0.3] * 7, [1, 2]).value == 2

    def test_the_interval_agrees_with_a_plain_loop(self) -> None:
        rng = np.random.default_rng(2)
        curve = np.sort(rng.random((40, 6)), axis=1)
        goal = curve[:, 3] + rng.normal(0, 0.05, 40)
        figure = samples_needed(curve, goal, [1, 2, 3, 4, 5, 6], seed=3)
        needed = []
        for drawn in np.random.default_rng(3).integers(40, size=(2000, 40)):
            means = curve[drawn].mean(0)
            needed.append(next((n + 1 for n in range(6) if means[n] >= goal[drawn].mean() - 1e-9), 7))
        assert (figure.low, figure.high) == tuple(np.quantile(needed, [0.025, 0.975]))
        assert figure.low <= figure.value <= figure.high

    def test_never_reached(self) -> None:
        figure = samples_needed(np.full((9, 3), 0.2), [0.5] * 9, [1, 2, 3])
        assert figure.reason == "not reached with 3 samples" and math.isnan(figure.value)
        assert samples_needed(np.full((1, 3), 0.2), [0.5], [1, 2, 3]).reason == "fewer than two problems"

    def test_not_reached_in_some_resamples_shows_in_the_interval(self) -> None:
        rng = np.random.default_rng(4)
        curve, goal = rng.random((30, 2)), rng.random(30)
        goal += curve.mean(0).max() - goal.mean() - 1e-3
        figure = samples_needed(curve, goal, [1, 2])
        assert figure.high == 3 and "3 = more than 2" in figure.method


class TestSamplesSaved:
    def test_agrees_with_a_plain_loop(self) -> None:
        rng = np.random.default_rng(6)
        ours = np.sort(rng.random((40, 5)) + 0.3, axis=1)
        theirs = np.sort(rng.random((40, 5)), axis=1)
        sizes, goal = [1, 2, 4, 8, 16], theirs[:, -1]

        def needed(means: np.ndarray, target: float) -> int:
            return next((n for n, mean in zip(sizes, means, strict=True) if mean >= target - 1e-9), 17)

        figure = samples_saved(ours, theirs, goal, sizes, seed=3)
        draws = []
        for drawn in np.random.default_rng(3).integers(40, size=(2000, 40)):
            target = goal[drawn].mean()
            draws.append(needed(theirs[drawn].mean(0), target) - needed(ours[drawn].mean(0), target))
        assert figure.value == needed(theirs.mean(0), goal.mean()) - needed(ours.mean(0), goal.mean()) > 0
        assert (figure.low, figure.high) == tuple(np.quantile(draws, [0.025, 0.975]))

    def test_the_same_curve_saves_nothing(self) -> None:
        curve = np.sort(np.random.default_rng(7).random((9, 3)), axis=1)
        figure = samples_saved(curve, curve, curve[:, -1], [1, 2, 3])
        assert (figure.value, figure.low, figure.high) == (0, 0, 0)

    def test_few_problems_claim_no_interval(self) -> None:
        ours, theirs = np.array([[1.0, 1.0]] * 4), np.array([[0.0, 1.0]] * 4)
        for figure in (samples_saved(ours, theirs, theirs[:, -1], [1, 2]), samples_needed(ours, ours[:, -1], [1, 2])):
            assert figure.value == 1 and figure.to_json()["interval"] is None
            assert figure.method == "samples a problem; no interval: fewer than 5 problems (4)"

    def test_undefined_where_it_is_not_reached(self) -> None:
        low, high = np.full((9, 2), 0.1), np.full((9, 2), 0.9)
        assert samples_saved(low, high, high[:, -1], [1, 2]).reason == "not reached with 2 samples"
        assert samples_saved(high, low, high[:, -1], [1, 2]).reason == "not reached with 2 samples"


def test_an_oracle_needs_fewer_samples_than_a_majority() -> None:
    rng = np.random.default_rng(5)
    ids = np.repeat(np.arange(80), 8)
    answers = [str(a) for a in rng.choice(4, size=640, p=[0.4, 0.3, 0.2, 0.1])]
    right = np.array([answer == "0" for answer in answers])
    sizes = list(range(1, 9))
    majority = vote(answers, right, ids)
    perfect = samples_needed(best_of_curve(right, right, ids, sizes), majority, sizes)
    assert perfect.value < samples_needed(vote_curve(answers, right, ids, sizes), majority, sizes).value
    assert pass_curve(right, ids, [8])[:, 0].tolist() == oracle(right, ids).tolist()
