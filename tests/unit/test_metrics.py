"""Golden figures, agreement with scipy, scikit-learn and plain loops, and every way to be undefined."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import matthews_corrcoef, roc_auc_score

from irl_core.statistics.best_of_n import best_of, oracle, pass_at_k, random_text_top, vote
from irl_core.statistics.correlation import partial_correlation
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED, first_error, mr_gsm8k, oracle_threshold
from irl_core.statistics.separation import auc, pair_accuracy, pair_columns, separation

IDS = ["a"] * 4 + ["b"] * 4
RIGHT = [1, 0, 0, 1, 0, 0, 0, 1]


def random_scores(texts: list[str], seed: int) -> list[float]:
    """A random score a distinct text."""
    rng = np.random.default_rng(seed)
    known = {text: float(rng.random()) for text in dict.fromkeys(texts)}
    return [known[text] for text in texts]


class TestPassAtK:
    def test_golden(self) -> None:
        # a: 2 of 4, 1 - C(2,2)/C(4,2) = 5/6; b: 1 of 4, 1 - C(3,2)/C(4,2) = 1/2; mean 2/3
        figure = pass_at_k(RIGHT, IDS, 2)
        assert figure.value == pytest.approx(2 / 3)
        assert figure.n == 2
        assert pass_at_k(RIGHT, IDS, 1).value == pytest.approx(3 / 8)

    def test_is_the_mean_over_all_draws(self) -> None:
        draws = [any(RIGHT[i] for i in pick) for pick in combinations(range(4), 3)]
        one_problem = pass_at_k([*RIGHT[:4], *RIGHT[:4]], IDS, 3)
        assert one_problem.value == pytest.approx(np.mean(draws))

    def test_problems_of_different_size(self) -> None:
        assert pass_at_k([1, 0, 1], ["a", "a", "b"], 1).value == 0.75  # (1/2 + 1) / 2: problems, not traces

    def test_k_beyond_n_is_undefined(self) -> None:
        figure = pass_at_k(RIGHT, IDS, 5)
        assert math.isnan(figure.value) and figure.reason == "k is 5, but a problem has 4 samples"
        assert pass_at_k(RIGHT, IDS, 0).reason == "k is 0; it must be 1 or more"
        assert pass_at_k([], [], 1).reason == "k is 1, but a problem has 0 samples"


class TestBestOf:
    def test_the_highest_score_is_chosen(self) -> None:
        assert best_of([4, 3, 2, 1, 4, 3, 2, 1], RIGHT, IDS).tolist() == [1, 0]

    def test_ties_are_expected_values(self) -> None:
        # a: the first and second share the top, one of the two is right; b: all four equal, one is right
        assert best_of([5, 5, 1, 1, 2, 2, 2, 2], RIGHT, IDS).tolist() == [0.5, 0.25]

    @pytest.mark.parametrize("k", [1, 2, 3])
    def test_ties_agree_with_all_orders(self, k: int) -> None:
        scores, right = np.array([3, 2, 2, 2, 1]), np.array([0, 1, 0, 0, 1])
        outcomes = []
        for order in permutations(range(5)):
            ranked = sorted(order, key=lambda i: -scores[i])  # stable: ties keep the random order
            outcomes.append(right[ranked[:k]].any())
        assert best_of(scores, right, ["p"] * 5, k)[0] == pytest.approx(np.mean(outcomes))

    def test_missing_scores_rank_last(self) -> None:
        assert best_of([np.nan, -9, np.nan, np.nan], [1, 0, 1, 1], ["a"] * 4).tolist() == [0]

    def test_k_beyond_n(self) -> None:
        with pytest.raises(ValueError, match="k is 5, but a problem has 4 samples"):
            best_of(range(8), RIGHT, IDS, 5)

    def test_all_of_n_is_the_oracle(self) -> None:
        assert best_of(range(8), RIGHT, IDS, 4).tolist() == oracle(RIGHT, IDS).tolist() == [1, 1]
        assert oracle([0, 0, 1], ["a", "a", "b"]).tolist() == [0, 1]

    def test_random_score_a_distinct_text(self) -> None:
        # a: texts x (right, twice), y, z (wrong): 1 of 3 distinct, though 2 of 4 samples
        texts = ["x", "y", "z", "x", "p", "q", "r", "s"]
        assert random_text_top(texts, RIGHT, IDS, 1).tolist() == pytest.approx([1 / 3, 1 / 4])
        drawn = [best_of(random_scores(texts, seed), RIGHT, IDS) for seed in range(4000)]
        assert np.mean(drawn, axis=0) == pytest.approx([1 / 3, 1 / 4], abs=0.03)


class TestVote:
    answers = ("7", "5", "5", "7", "1", "1", "2", "3")

    def test_majority_and_its_ties(self) -> None:
        # a: 7 (right) and 5 have two votes each: 1/2; b: 1 wins, wrong
        assert vote(self.answers, RIGHT, IDS).tolist() == [0.5, 0]

    def test_weights_by_hand(self) -> None:
        # b at temperature 1: weights 1, 1, 1, e: answer 3 has e = 2.72 > 2: right. At temperature 2: e^0.5 = 1.65 < 2
        scores = [0, 0, 0, 0, 0, 0, 0, 1]
        assert vote(self.answers, RIGHT, IDS, scores, 1.0).tolist() == [0.5, 1]
        assert vote(self.answers, RIGHT, IDS, scores, 2.0).tolist() == [0.5, 0]

    def test_limits_of_the_temperature(self) -> None:
        rng = np.random.default_rng(0)
        ids = np.repeat(np.arange(40), 8)
        answers, scores = rng.integers(4, size=320).astype(str).tolist(), rng.normal(size=320)
        right = [answer == "0" for answer in answers]
        assert vote(answers, right, ids, scores, math.inf).tolist() == vote(answers, right, ids).tolist()
        assert vote(answers, right, ids, scores, 1e-6).tolist() == best_of(scores, right, ids).tolist()
        with pytest.raises(ValueError, match="temperature is 0"):
            vote(answers, right, ids, scores, 0)

    def test_missing_answers_do_not_vote(self) -> None:
        answers = [None, None, float("nan"), "7", "", "", "1", "1"]
        assert vote(answers, RIGHT, IDS).tolist() == [1, 0.5]  # b: '1' was given by one wrong and one right sample
        assert vote([None] * 4 + ["3"] * 4, [0] * 4 + [1] * 4, IDS).tolist() == [0, 1]
        assert vote([None] * 8, RIGHT, IDS).tolist() == [0, 0]

    def test_missing_and_infinite_scores(self) -> None:
        assert vote(["1", "2", "1"], [0, 1, 0], "aaa", [np.nan, 5.0, np.nan]).tolist() == [1]
        assert vote(["1", "2", "1"], [0, 1, 0], "aaa", [np.nan] * 3).tolist() == [0]  # nothing known: majority
        assert vote(["1", "2", "1"], [0, 1, 0], "aaa", [-np.inf] * 3).tolist() == [0]
        assert vote(["1", "2", "1"], [0, 1, 0], "aaa", [0, np.inf, 0]).tolist() == [1]


class TestAuc:
    def test_golden(self) -> None:
        # positives 3, 1; negatives 2, 1: pairs 3>2, 3>1, 1<2, 1=1: (1 + 1 + 0 + 1/2) / 4
        assert auc([3, 1, 2, 1], [1, 1, 0, 0]).value == 0.625

    def test_agrees_with_sklearn_and_swaps(self) -> None:
        rng = np.random.default_rng(1)
        labels, scores = rng.random(300) < 0.4, rng.integers(10, size=300) + 2.0
        figure = auc(scores + labels, labels)
        assert figure.value == pytest.approx(roc_auc_score(labels, scores + labels))
        assert auc(-scores - labels, labels).value == pytest.approx(1 - figure.value)

    def test_delong_variance_by_the_plain_sum(self) -> None:
        rng = np.random.default_rng(2)
        yes, no = rng.normal(1, 1, 30), rng.normal(0, 1, 40)
        wins = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
        above, below = wins.mean(1), wins.mean(0)
        error = math.sqrt(above.var(ddof=1) / 30 + below.var(ddof=1) / 40)
        figure = auc([*yes, *no], [1] * 30 + [0] * 40)
        assert figure.value == pytest.approx(wins.mean())
        assert figure.high - figure.value == pytest.approx(1.959964 * error, rel=1e-5)

    def test_interval_covers(self) -> None:
        rng = np.random.default_rng(3)
        true = stats.norm.cdf(1 / math.sqrt(2))  # P(N(1, 1) > N(0, 1))
        covered = 0
        for _ in range(400):
            figure = auc([*rng.normal(1, 1, 40), *rng.normal(0, 1, 40)], [1] * 40 + [0] * 40)
            covered += figure.low <= true <= figure.high
        assert 0.91 <= covered / 400 <= 0.98

    def test_repeating_every_trace_does_not_narrow_the_clustered_interval(self) -> None:
        rng = np.random.default_rng(4)
        scores, labels = rng.normal(size=80), rng.random(80) < 0.5
        plain = auc(scores, labels)
        repeated = auc(np.repeat(scores, 5), np.repeat(labels, 5), np.repeat(np.arange(80), 5))
        assert repeated.high - repeated.low == pytest.approx(plain.high - plain.low, rel=0.02)

    def test_perfect_separation_keeps_a_width(self) -> None:
        figure = auc([1, 2, 3, 4], [0, 0, 1, 1])
        assert figure.value == 1.0 and 0 < figure.low < 0.5
        assert "Wilson over 2" in figure.method

    def test_too_few_units_get_an_interval_as_wide_as_they_are_few(self) -> None:
        # one negative: a half with Wilson's interval of one trial, 0.5 +- 0.4454
        figure = auc([1, 3, 2], [1, 1, 0])
        assert (figure.value, figure.low, figure.high) == pytest.approx((0.5, 0.0546, 0.9454), abs=1e-4)
        # three problems that repeat each other: no spread, which is not that there is none
        figure = auc([1, 2, 3, 4, 2.5] * 3, [0, 0, 1, 1, 1] * 3, "aaaaabbbbbccccc")
        assert figure.value == pytest.approx(1.0) and figure.low < 0.5
        figure = auc([1, 3, 2, 4, 2.5] * 3, [0, 0, 1, 1, 1] * 3, "aaaaabbbbbccccc")
        assert figure.value == pytest.approx(2 / 3) and figure.low < 0.3 and figure.high > 0.9
        assert "fewer than 5 problems (3)" in figure.method

    def test_undefined(self) -> None:
        assert auc([1, 2], [1, 1]).reason == "one class: 2 positive, 0 negative"
        assert auc([1, np.nan], [1, 0]).reason == "1 scores are missing"
        assert auc([], []).reason.startswith("one class")
        assert auc([1, 1, 1, 1], [1, 1, 0, 0]).reason == "every score is the same"


class TestSeparation:
    def test_agrees_with_scipy(self) -> None:
        rng = np.random.default_rng(5)
        yes, no = rng.normal(1, 2, 50), rng.normal(0, 1, 70)
        found = separation([*yes, *no], [1] * 50 + [0] * 70)
        test = stats.ttest_ind(yes, no, equal_var=False)
        assert (found.t, found.p) == pytest.approx((test.statistic, test.pvalue))
        assert found.difference.value == pytest.approx(yes.mean() - no.mean())
        assert found.difference.low < found.difference.value < found.difference.high

    def test_cohens_d_by_hand(self) -> None:
        # correct 4, 6 (mean 5, variance 2), incorrect 1, 3 (mean 2, variance 2): d = 3 / sqrt 2 = 2.1213
        # error sqrt(4 / 4 + 4.5 / 8) = 1.25
        found = separation([4, 6, 1, 3], [1, 1, 0, 0])
        assert found.cohens_d.value == pytest.approx(3 / math.sqrt(2))
        assert found.cohens_d.high == pytest.approx(3 / math.sqrt(2) + 1.959964 * 1.25, rel=1e-6)
        # Welch: 3 / sqrt(2/2 + 2/2) = 2.1213 with 2 degrees of freedom
        assert (found.t, found.degrees) == pytest.approx((3 / math.sqrt(2), 2))

    def test_with_problems_the_intervals_agree_with_a_plain_loop(self) -> None:
        rng = np.random.default_rng(11)
        ids, right = np.repeat(np.arange(25), 6), rng.random(150) < 0.5
        scores = right + rng.normal(size=25)[ids] + rng.normal(size=150) + 100
        found = separation(scores, right, ids, seed=2)
        means, effects = [], []
        for drawn in np.random.default_rng(2).integers(25, size=(2000, 25)):
            chosen = np.concatenate([np.flatnonzero(ids == problem) for problem in drawn])
            yes, no = scores[chosen][right[chosen]], scores[chosen][~right[chosen]]
            pooled = ((yes.size - 1) * yes.var(ddof=1) + (no.size - 1) * no.var(ddof=1)) / (yes.size + no.size - 2)
            means.append(yes.mean() - no.mean())
            effects.append(means[-1] / math.sqrt(pooled))
        for figure, draws in ((found.difference, means), (found.cohens_d, effects)):
            assert (figure.low, figure.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), rel=1e-6)
        plain = separation(scores, right)
        assert found.difference.value == pytest.approx(plain.difference.value)
        assert found.cohens_d.value == pytest.approx(plain.cohens_d.value)
        assert (found.t, found.p) == (plain.t, plain.p) and math.isnan(plain.clustered_t)

    def test_clustered_t_by_the_plain_sum(self) -> None:
        rng = np.random.default_rng(12)
        ids, right, scores = rng.integers(20, size=100), rng.random(100) < 0.4, rng.normal(size=100)
        yes, no = scores[right], scores[~right]
        variance = 0.0
        for problem in set(ids.tolist()):
            mine = ids == problem
            influence = (scores[mine & right] - yes.mean()).sum() / yes.size
            influence -= (scores[mine & ~right] - no.mean()).sum() / no.size
            variance += influence**2
        problems = len(set(ids.tolist()))
        t = (yes.mean() - no.mean()) / math.sqrt(variance * problems / (problems - 1))
        found = separation(scores, right, ids)
        assert found.clustered_t == pytest.approx(t)
        assert found.clustered_p == pytest.approx(2 * stats.t.sf(abs(t), problems - 1))

    def test_clustered_t_is_welchs_where_every_trace_is_a_problem(self) -> None:
        rng = np.random.default_rng(13)
        right, scores = np.arange(400) % 2 == 0, rng.normal(size=400)
        found = separation(scores, right, np.arange(400))
        assert found.clustered_t == pytest.approx(found.t, rel=0.01)

    def test_repeating_every_trace_inflates_welchs_t_and_not_the_clustered(self) -> None:
        rng = np.random.default_rng(14)
        right, scores = np.arange(60) % 2 == 0, rng.normal(size=60)
        once = separation(scores, right, np.arange(60))
        often = separation(np.repeat(scores, 9), np.repeat(right, 9), np.repeat(np.arange(60), 9))
        assert abs(often.t) > 2.9 * abs(once.t)
        assert often.clustered_t == pytest.approx(once.clustered_t)

    def test_undefined(self) -> None:
        assert separation([1, 2, 3], [1, 1, 1]).cohens_d.reason == "3 correct and 0 incorrect; each needs two"
        assert separation([1, 2, 3], [1, 1, 0]).difference.reason == "2 correct and 1 incorrect; each needs two"
        flat = separation([1, 1, 1, 1], [1, 1, 0, 0])
        assert flat.difference.reason == "no variance" and math.isnan(flat.t)
        assert separation([1, np.inf, 1, 2], [1, 1, 0, 0]).difference.reason == "1 scores are not finite"


class TestPairAccuracy:
    def test_golden(self) -> None:
        # a: right 4, 1; wrong 3, 2: 4 beats both, 1 beats none: 2 of 4. b: right 5 against 5, 1, 9: 1/2 + 1 + 0 of 3
        scores = [4, 3, 2, 1, 5, 1, 9, 5]
        assert pair_columns(scores, RIGHT, IDS).tolist() == [[2, 4], [1.5, 3]]
        figure = pair_accuracy(scores, RIGHT, IDS)
        assert figure.value == pytest.approx(3.5 / 7)
        assert figure.n == 7

    def test_agrees_with_a_plain_loop(self) -> None:
        rng = np.random.default_rng(6)
        ids, right, scores = rng.integers(20, size=200), rng.random(200) < 0.5, rng.integers(5, size=200)
        won = total = 0.0
        for i, j in permutations(range(200), 2):
            if ids[i] == ids[j] and right[i] and not right[j]:
                total += 1
                won += 1.0 if scores[i] > scores[j] else 0.5 if scores[i] == scores[j] else 0.0
        assert pair_accuracy(scores, right, ids).value == pytest.approx(won / total)

    def test_ranks_within_problems_are_scipys(self) -> None:
        rng = np.random.default_rng(15)
        ids, right, scores = rng.integers(30, size=400), rng.random(400) < 0.5, rng.integers(4, size=400) * 1.5
        scores[ids == 3], scores[8], scores[9] = np.inf, -np.inf, np.nan  # all of a problem's equal and infinite
        columns = pair_columns(scores, right, ids)
        for number, problem in enumerate(dict.fromkeys(ids.tolist())):
            mine = ids == problem
            yes = int(right[mine].sum())
            ranks = stats.rankdata(scores[mine])[right[mine]].sum() - yes * (yes + 1) / 2
            assert columns[number] == pytest.approx([ranks, yes * (mine.sum() - yes)], nan_ok=True)
        assert int(np.isnan(columns).sum()) == 1
        assert pair_columns([], [], []).shape == (0, 2)

    def test_knowing_easy_problems_earns_nothing(self) -> None:
        # the score is the problem's own share of correct samples: pooled AUC high, within problems all ties
        ids = np.repeat(np.arange(30), 10)
        right = np.arange(300) % 10 < ids % 9 + 1
        scores = ids % 9
        assert auc(scores, right, ids).value > 0.75
        assert pair_accuracy(scores, right, ids).value == 0.5
        assert partial_correlation(scores, right, [], ids, within=True).reason == "no variance within problems"

    def test_undefined(self) -> None:
        assert pair_accuracy([1, 2], [1, 0], ["a", "b"]).reason == "no problem has both correct and incorrect samples"
        assert pair_accuracy([1, 2], [1, 0], ["a", "a"]).reason == "fewer than two problems"
        assert pair_accuracy([1, np.nan, 1, 1], [1, 0, 1, 0], "aabb").reason == "scores are missing"

    def test_perfect_keeps_a_width(self) -> None:
        figure = pair_accuracy([2, 1, 2, 1, 2, 1], [1, 0, 1, 0, 1, 0], "aabbcc")
        assert figure.value == 1.0 and figure.low < 0.5


class TestCorrelationWithinProblems:
    def test_within_problems_by_hand(self) -> None:
        # a: x 1, 3 -> -1, 1; y 0, 1 -> -.5, .5; b: x 10, 14 -> -2, 2; y 1, 0 -> .5, -.5
        # sum xy = 1/2 + 1/2 - 1 - 1 = -1; sum xx = 2 + 8; sum yy = 1: r = -1 / sqrt 10; three times over it is the same
        figure = partial_correlation([1, 3, 10, 14] * 3, [0, 1, 1, 0] * 3, [], "aabbccddeeff", within=True)
        assert figure.value == pytest.approx(-1 / math.sqrt(10))
        assert figure.n == 12
        two = partial_correlation([1, 3, 10, 14], [0, 1, 1, 0], [], "aabb", within=True)
        assert two.reason == "fewer than 5 problems (2)"

    def test_problems_of_one_trace_do_not_count_within(self) -> None:
        # one problem of eight and five of one: what is within problems is within one
        x, y, ids = [*range(8), 1, 2, 3, 4, 5], [0, 1] * 4 + [0, 1, 0, 1, 1], "aaaaaaaabcdef"
        reason = "both vary within fewer than 5 problems (1)"
        assert partial_correlation(x, y, [], ids, within=True).reason == reason


class TestFirstError:
    #         wrong traces: exact, exact, other step, missed, undecided; correct: passed, passed, flagged, undecided
    true = (0, 2, 1, 3, 1, NO_ERROR, NO_ERROR, NO_ERROR, NO_ERROR)
    predicted = (0, 2, 0, NO_ERROR, UNDECIDED, NO_ERROR, NO_ERROR, 1, UNDECIDED)

    def test_golden(self) -> None:
        found = first_error(self.true, self.predicted)
        assert (found.error_acc.value, found.error_acc.n) == (0.4, 5)
        assert (found.correct_acc.value, found.correct_acc.n) == (0.5, 4)
        assert found.f1.value == pytest.approx(2 * 0.4 * 0.5 / 0.9)
        assert found.f1.low < found.f1.value < found.f1.high

    def test_nothing_right_is_zero_and_not_undefined(self) -> None:
        found = first_error([0, 1, NO_ERROR, NO_ERROR], [1, 0, 0, 0])
        assert found.f1.value == 0.0 and found.f1.high > 0

    def test_one_class(self) -> None:
        found = first_error([0, 1], [0, 1])
        assert found.error_acc.value == 1.0
        assert found.correct_acc.reason == "no correct solutions"
        assert found.f1.reason == "one class: 2 wrong, 0 correct"

    def test_mr_gsm8k_golden(self) -> None:
        # verdicts: wrong called wrong 3, missed 1 + undecided 1 = 2; correct called correct 2, flagged 1 + undecided 1
        # MCC = (3*2 - 2*2) / sqrt(5 * 5 * 4 * 4) = 0.1
        found = mr_gsm8k(self.true, self.predicted)
        assert found.step_accuracy.value == 0.4
        assert found.mcc.value == pytest.approx(0.1)

    def test_agrees_with_sklearn(self) -> None:
        rng = np.random.default_rng(8)
        true, guess = rng.integers(-1, 3, size=200), rng.integers(-1, 3, size=200)
        assert mr_gsm8k(true, guess).mcc.value == pytest.approx(matthews_corrcoef(true >= 0, guess >= 0))
        found = first_error(true, guess)
        a, b = np.mean((true == guess)[true >= 0]), np.mean((true == guess)[true < 0])
        assert found.f1.value == pytest.approx(stats.hmean([a, b]))

    def test_mcc_of_one_verdict_is_undefined(self) -> None:
        assert mr_gsm8k([0, NO_ERROR, 1], [0, 0, 0]).mcc.reason == "not defined on these solutions"

    def test_oracle_threshold_agrees_with_trying_all(self) -> None:
        rng = np.random.default_rng(9)
        true, named = rng.integers(-1, 3, size=60), rng.integers(0, 3, size=60)
        suspicion = np.round(rng.normal(size=60), 1)
        suspicion[:3] = np.nan
        tried = []
        for limit in [*np.unique(suspicion[3:]), np.inf]:
            tried.append(first_error(true, np.where(suspicion < limit, named, NO_ERROR)).f1.value)
        threshold, f1 = oracle_threshold(true, named, suspicion)
        assert f1 == pytest.approx(max(tried))
        assert first_error(true, np.where(suspicion < threshold, named, NO_ERROR)).f1.value == pytest.approx(f1)
