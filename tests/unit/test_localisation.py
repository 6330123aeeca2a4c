"""Steps from tokens, rules, the conformal guarantee, decisions and their round trip through JSON."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irl_core.reward.calibration import HeldOut, at_level, calibrate, candidate_rules, score_rules, split_by_problem
from irl_core.reward.localisation import (
    Calibration,
    Rule,
    conformal_threshold,
    locate,
    most_suspect,
    step_scores,
    token_steps,
)
from irl_core.types import Step

TEXT = "ab cd\nef\n#### 7"
STEPS = (Step(0, 5, "ab cd"), Step(6, 8, "ef"), Step(9, 15, "#### 7", role="answer"))
SPANS = ((0, 2), (2, 5), (5, 6), (6, 8), (8, 9), (9, 13), (13, 15), (15, 15))
OWNERS = [0, 0, 0, 1, 1, 2, 2, -1]


def fixed(**changes: Any) -> Calibration:
    base = Calibration(
        rule=Rule("raw", "min"),
        threshold=-1.0,
        uncertain_threshold=0.0,
        alpha=0.25,
        uncertain_alpha=0.5,
        n=3,
        null_scores=(-1.0, 0.0, 1.0),
        error_logit=(-1.0, 0.0),
        correct_logit=(2.0, 0.0),
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("logit", "n", "tells"),
    [
        ((2.0, 0.0), 200, True),
        ((-0.11, -1.5), 200, False),  # a lower score would be called more often right
        ((0.1, 0.0), 200, False),  # 0.48 to 0.52, and such a share is known to 0.07
        ((2.0, 0.0), 2, False),  # 0.12 to 0.88, of two traces
        ((1.0, 0.0), 0, True),  # the model's own probability: there is nothing to compare it with
    ],
)
def test_a_score_tells_where_the_share_of_right_traces_rises_with_it(
    logit: tuple[float, float], n: int, tells: bool
) -> None:
    found = fixed(correct_logit=logit, n=n, null_scores=tuple(np.linspace(-1.0, 1.0, n)))
    assert found.score_tells is tells
    raw = np.array([1.0, 1, 1, 1, 1, 1, 1, 1])
    raw[0] = -0.5
    where = locate({"raw": raw}, SPANS, STEPS, found)
    assert (where.score_tells, where.uncertain_threshold) == (tells, 0.0)


class TestTokenSteps:
    def test_newlines_close_the_step_before_them_and_the_end_token_belongs_to_none(self) -> None:
        assert token_steps(SPANS, STEPS).tolist() == OWNERS

    def test_a_token_over_a_boundary_goes_where_most_of_its_characters_are(self) -> None:
        # (4, 8) holds 1 character of step 0 and 2 of step 1; (3, 7) holds 2 and 1; (4, 7) one each: the earlier
        assert token_steps([(4, 8), (3, 7), (4, 7)], STEPS).tolist() == [1, 0, 0]

    def test_a_token_over_three_steps(self) -> None:
        steps = (Step(0, 1, "a"), Step(1, 4, "bcd"), Step(4, 5, "e"))
        assert token_steps([(0, 5)], steps).tolist() == [1]

    def test_only_the_token_right_behind_a_step_closes_it(self) -> None:
        steps = (Step(2, 4, "ab"), Step(8, 9, "c"))
        # before the first step; the closing newline; a second blank; a tag that starts later; in step 1; after it
        spans = [(0, 2), (4, 5), (5, 6), (6, 8), (8, 9), (9, 10), (10, 11)]
        assert token_steps(spans, steps).tolist() == [-1, 0, -1, -1, 1, 1, -1]

    def test_byte_pieces_of_one_character_share_its_step(self) -> None:
        assert token_steps([(6, 7), (6, 7), (7, 8)], STEPS).tolist() == [1, 1, 1]

    def test_nothing_in_nothing_out(self) -> None:
        assert token_steps([], STEPS).tolist() == []
        assert token_steps([(0, 1), (1, 2)], ()).tolist() == [-1, -1]

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=20))
    def test_agrees_with_a_plain_loop(self, pieces: list[int], widths: list[int]) -> None:
        edges = np.cumsum([0, *pieces])  # steps and gaps in turn
        steps = tuple(Step(int(a), int(b), "x" * int(b - a)) for a, b in zip(edges[:-1:2], edges[1::2], strict=False))
        cuts = np.cumsum([0, *widths])
        spans = [(int(a), int(b)) for a, b in pairwise(cuts)]
        expected = []
        for start, end in spans:
            shared = [max(0, min(end, step.end) - max(start, step.start)) for step in steps]
            closed = [i for i, step in enumerate(steps) if step.end == start and end > start]
            owner = shared.index(max(shared)) if max(shared) else closed[0] if closed else -1
            expected.append(owner)
        assert token_steps(spans, steps).tolist() == expected


class TestStepScores:
    values = np.array([1.0, -2.0, 4.0, 3.0, 5.0, 0.5, 0.0, 99.0])
    owners = np.array(OWNERS)

    @pytest.mark.parametrize(
        ("reduction", "expected"),
        [
            ("min", [-2.0, 3.0, 0.0]),
            ("mean", [1.0, 4.0, 0.25]),  # (1 - 2 + 4) / 3; (3 + 5) / 2; 0.5 / 2. 99 belongs to no step
            ("sum", [3.0, 8.0, 0.5]),
            ("last", [4.0, 5.0, 0.0]),
        ],
    )
    def test_golden(self, reduction: Any, expected: list[float]) -> None:
        assert step_scores(self.values, self.owners, 3, reduction).tolist() == expected

    @pytest.mark.parametrize("reduction", ["min", "mean", "sum", "last"])
    def test_a_step_without_a_token_has_no_score(self, reduction: Any) -> None:
        scores = step_scores(np.array([1.0, 2.0]), np.array([0, 2]), 4, reduction)
        assert np.isnan(scores).tolist() == [False, True, False, True]

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(ValueError, match="one value a token"):
            step_scores(np.zeros(3), self.owners, 3, "min")


class TestRules:
    def test_names(self) -> None:
        assert Rule("credit", "min").name == "credit/min/argmin"
        assert Rule("raw", "last", "first_below", True).name == "raw/last/first_below+answer"

    def test_an_unknown_part_is_named(self) -> None:
        with pytest.raises(ValueError, match="'median'"):
            Rule("raw", "median")  # type: ignore[arg-type]

    def test_the_default_candidates_read_the_reward_alone(self) -> None:
        rules = candidate_rules()
        assert len(rules) == 4 * 4 * 2 * 2 == len(set(rules))
        assert "logprob" not in {rule.signal for rule in rules}


class TestLocate:
    #                 step 0: -0.5        step 1: -3    answer: -9
    raw = np.array([2.0, -0.5, 1.0, -3.0, 1.0, -9.0, 1.0, 5.0])

    def test_an_error_is_named_and_closing_lines_are_not(self) -> None:
        found = locate({"raw": self.raw}, SPANS, STEPS, fixed())
        assert (found.decision, found.first_error_step, found.rule) == ("error", 1, "raw/min/argmin")
        assert found.step_scores == (-0.5, -3.0, -9.0)
        assert found.confidence == pytest.approx(1 / (1 + math.exp(-3)))  # slope -1 at suspicion -3

    def test_closing_lines_count_where_the_rule_says_so(self) -> None:
        found = locate({"raw": self.raw}, SPANS, STEPS, fixed(rule=Rule("raw", "min", "argmin", True)))
        assert found.first_error_step == 2

    def test_first_below_names_the_first_step_under_the_threshold(self) -> None:
        rule = Rule("raw", "min", "first_below")
        assert locate({"raw": self.raw}, SPANS, STEPS, fixed(rule=rule, threshold=-0.2)).first_error_step == 0
        assert locate({"raw": self.raw}, SPANS, STEPS, fixed(rule=rule)).first_error_step == 1

    @pytest.mark.parametrize(
        ("lowest", "decision"),
        [(-1.5, "error"), (-1.0, "uncertain"), (-0.1, "uncertain"), (0.0, "no_error"), (0.5, "no_error")],
    )
    def test_limits_are_strict(self, lowest: float, decision: str) -> None:
        raw = np.array([2.0, 3.0, 2.0, lowest, 2.0, 2.0, 2.0, 2.0])
        found = locate({"raw": raw}, SPANS, STEPS, fixed())
        assert found.decision == decision
        error, correct = 1 / (1 + math.exp(lowest)), 1 / (1 + math.exp(-2 * lowest))
        expected = {"error": error, "no_error": correct, "uncertain": max(error, correct)}[decision]
        assert found.confidence == pytest.approx(expected)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_a_signal_that_is_not_finite_is_uncertain(self, bad: float) -> None:
        raw = self.raw.copy()
        raw[3] = bad
        found = locate({"raw": raw}, SPANS, STEPS, fixed())
        assert (found.decision, found.first_error_step, found.confidence) == ("uncertain", None, 0.0)

    def test_constant_empty_single_and_stepless_are_uncertain(self) -> None:
        cases = [
            (np.zeros(8), SPANS, STEPS),
            (np.zeros(0), (), STEPS),
            (np.array([-5.0]), ((0, 2),), STEPS),
            (self.raw, SPANS, ()),
            (self.raw[:2], ((15, 15), (15, 15)), STEPS),
            (self.raw[5:7], ((9, 13), (13, 15)), STEPS[2:]),  # nothing but a closing line
        ]
        for raw, spans, steps in cases:
            found = locate({"raw": raw}, spans, steps, fixed())
            assert (found.decision, found.first_error_step, found.confidence) == ("uncertain", None, 0.0)
            assert most_suspect({"raw": raw}, spans, steps, fixed().rule) is None

    def test_a_missing_signal_is_named(self) -> None:
        with pytest.raises(ValueError, match="needs the signal 'raw'; given: credit"):
            locate({"credit": self.raw}, SPANS, STEPS, fixed())

    def test_most_suspect_ignores_the_threshold(self) -> None:
        assert most_suspect({"raw": self.raw + 100}, SPANS, STEPS, fixed().rule) == 1

    def test_equal_scores_name_the_earlier_step(self) -> None:
        raw = np.array([-3.0, 1.0, 1.0, -3.0, 1.0, 1.0, 1.0, 1.0])
        assert locate({"raw": raw}, SPANS, STEPS, fixed()).first_error_step == 0


class TestConformal:
    def test_golden(self) -> None:
        null = [5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0]  # n = 9
        assert conformal_threshold(null, 0.1) == 1.0  # floor(0.1 * 10) = 1st smallest
        assert conformal_threshold(null, 0.3) == 3.0  # 3rd, though 0.3 * 10 may come out as 2.999...
        assert conformal_threshold(null, 0.09) == -math.inf  # floor(0.9) = 0
        assert conformal_threshold(null, 1.0) == math.inf
        assert conformal_threshold([], 0.1) == -math.inf

    @pytest.mark.parametrize(("n", "alpha"), [(19, 0.1), (50, 0.1), (30, 0.25), (12, 0.05)])
    def test_at_most_alpha_of_new_correct_traces_is_flagged(self, n: int, alpha: float) -> None:
        # Over many draws the flagged share is floor(alpha (n + 1)) / (n + 1), whatever the distribution.
        rng = np.random.default_rng(7)
        draws = 20_000
        null = np.sort(rng.gamma(0.7, size=(draws, n)), axis=1)
        new = rng.gamma(0.7, size=draws)
        flagged = np.mean([new[i] < conformal_threshold(null[i], alpha) for i in range(draws)])
        expected = math.floor(alpha * (n + 1)) / (n + 1)
        assert expected <= alpha
        assert flagged == pytest.approx(expected, abs=4 * math.sqrt(alpha / draws))

    def test_ties_flag_fewer_never_more(self) -> None:
        rng = np.random.default_rng(3)
        flagged = [rng.integers(3) < conformal_threshold(rng.integers(3, size=19), 0.1) for _ in range(5_000)]
        assert np.mean(flagged) <= 0.1

    def test_whole_calibration_keeps_the_share_on_new_problems(self) -> None:
        rng = np.random.default_rng(5)
        shares = []
        for draw in range(25):
            calibration = calibrate(simulated(rng, 80), [Rule("raw", "min")], alpha=0.2, seed=draw)
            fresh = [trace for trace in simulated(rng, 60) if trace.first_error_step is None]
            flags = [locate(t.signals, t.spans, t.steps, calibration).decision == "error" for t in fresh]
            shares.append(np.mean(flags))
        assert np.mean(shares) <= 0.2 + 2 * np.std(shares) / math.sqrt(len(shares))
        assert np.mean(shares) > 0.1  # it does flag: not kept by never speaking


def simulated(rng: np.random.Generator, problems: int) -> list[HeldOut]:
    """Three steps of two tokens; in wrong traces (2 of 4) the wrong step's second token is lowered by 3."""
    steps = (Step(0, 2, "ab"), Step(2, 4, "cd"), Step(4, 6, "ef"))
    spans = tuple((i, i + 1) for i in range(6))
    traces = []
    for problem in range(problems):
        hardness = rng.normal()  # traces of one problem resemble each other
        for sample in range(4):
            raw = rng.normal(size=6) + 0.5 * hardness
            wrong = int(rng.integers(3)) if sample % 2 else None
            if wrong is not None:
                raw[2 * wrong + 1] -= 3
            traces.append(HeldOut({"raw": raw, "credit": rng.normal(size=6)}, spans, steps, wrong, f"p{problem}"))
    return traces


class TestCalibrate:
    traces = simulated(np.random.default_rng(0), 60)

    def test_halves_share_no_problem(self) -> None:
        one, two = split_by_problem(self.traces, seed=4)
        assert len(one) == len(two) == 120
        assert not {t.problem_id for t in one} & {t.problem_id for t in two}
        assert [t.problem_id for t in one] == [t.problem_id for t in split_by_problem(self.traces, seed=4)[0]]

    def test_the_rule_that_locates_wins(self) -> None:
        rules = [Rule("credit", "min"), Rule("credit", "mean"), Rule("raw", "last")]
        found = calibrate(self.traces, rules, seed=1)
        assert found.rule == Rule("raw", "last")  # the lowered token is always the step's last
        assert found.n == 60 and found.n_wrong == 60
        assert found.exact is not None and found.exact > 0.8

    def test_threshold_is_the_order_statistic_of_the_second_half(self) -> None:
        found = calibrate(self.traces, [Rule("raw", "min")], alpha=0.1, seed=1)
        second = split_by_problem(self.traces, seed=1)[1]
        null = sorted(float(t.signals["raw"].min()) for t in second if t.first_error_step is None)
        assert found.null_scores == pytest.approx(null)
        assert found.threshold == null[5]  # floor(0.1 * 61) = 6th smallest
        assert found.uncertain_threshold == null[14]  # floor(0.25 * 61) = 15th

    def test_confidence_follows_the_truth(self) -> None:
        found = calibrate(self.traces, [Rule("raw", "last")], seed=1)
        fresh = simulated(np.random.default_rng(9), 200)
        named = [locate(t.signals, t.spans, t.steps, found) for t in fresh]
        errors = [(r.confidence, r.first_error_step == t.first_error_step) for r, t in zip(named, fresh, strict=True)
                  if r.decision == "error"]  # fmt: skip
        stated, true = np.mean([c for c, _ in errors]), np.mean([hit for _, hit in errors])
        assert len(errors) > 100
        assert stated == pytest.approx(true, abs=0.1)
        assert found.error_logit[0] < 0 < found.correct_logit[0]

    def test_too_few_correct_traces_flag_nothing_and_say_so(self) -> None:
        few = [t for t in self.traces if t.problem_id in {"p0", "p1"}]  # 2 correct traces in the second half
        found = calibrate(few, [Rule("raw", "min")], alpha=0.1)
        assert (found.threshold, found.uncertain_threshold) == (-math.inf, math.inf)
        assert found.note.startswith("2 correct solutions are too few for alpha 0.1 (it needs 9)")
        assert locate(few[0].signals, few[0].spans, few[0].steps, found).decision == "uncertain"

    def test_unusable_traces_count_as_misses_and_not_as_null(self) -> None:
        broken = replace(self.traces[1], signals={"raw": np.full(6, math.nan)})
        assert broken.first_error_step is not None
        score = score_rules([broken, *self.traces[2:4]], [Rule("raw", "min")], alpha=0.5)[0]
        assert (score.n_wrong, score.n_correct) == (2, 1)
        assert score.exact <= 0.5

    def test_f1_by_hand(self) -> None:
        # correct traces' minima 1, 2, 3: alpha 0.5 gives the floor(0.5 * 4) = 2nd, threshold 2: 1 of 3 is flagged.
        # wrong traces: named right at -1 (below 2: counts), named right at 2.5 (not below), named wrong.
        def trace(raw: list[float], truth: int | None) -> HeldOut:
            steps = (Step(0, 1, "a"), Step(1, 2, "b"))
            return HeldOut({"raw": np.array(raw)}, ((0, 1), (1, 2)), steps, truth, "p")

        traces = [trace([1, 5], None), trace([2, 5], None), trace([3, 5], None)]
        traces += [trace([-1, 5], 0), trace([2.5, 5], 0), trace([0, 5], 1)]
        score = score_rules(traces, [Rule("raw", "min")], alpha=0.5)[0]
        error_acc, correct_acc = 1 / 3, 2 / 3
        assert score.exact == pytest.approx(2 / 3)
        assert score.f1 == pytest.approx(2 * error_acc * correct_acc / (error_acc + correct_acc))

    def test_f1_criterion_picks_its_own_winner(self) -> None:
        rules = [Rule("credit", "min"), Rule("raw", "min")]
        assert calibrate(self.traces, rules, criterion="f1").rule == Rule("raw", "min")

    def test_nothing_to_split_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="give two problems"):
            calibrate(self.traces[:4], [Rule("raw", "min")])

    def test_same_seed_same_result(self) -> None:
        shuffled = list(self.traces)
        random.Random(1).shuffle(shuffled)
        rules = [Rule("raw", "min"), Rule("raw", "last")]
        one, two = calibrate(self.traces, rules), calibrate(shuffled, rules)
        assert (one.rule, one.threshold, one.null_scores) == (two.rule, two.threshold, two.null_scores)

    def test_another_level_without_a_model(self) -> None:
        found = calibrate(self.traces, [Rule("raw", "min")], alpha=0.1, seed=1)
        moved = at_level(found, 0.2)
        assert moved == calibrate(self.traces, [Rule("raw", "min")], alpha=0.2, seed=1)
        assert at_level(found, 0.001).threshold == -math.inf


class TestJson:
    @pytest.mark.parametrize(
        "calibration",
        [fixed(), fixed(threshold=-math.inf, uncertain_threshold=math.inf, exact=0.5, n_wrong=4, gamma=0.9, note="x")],
    )
    def test_round_trip(self, calibration: Calibration) -> None:
        text = json.dumps(calibration.to_json(), allow_nan=False)
        assert Calibration.from_json(json.loads(text)) == calibration

    def test_unknown_and_missing_keys_are_named(self) -> None:
        record = fixed().to_json()
        with pytest.raises(ValueError, match="unknown key 'treshold'"):
            Calibration.from_json({**record, "treshold": 1})
        with pytest.raises(ValueError, match=r"calibration: unknown key 'rule\.mode'"):
            Calibration.from_json({**record, "rule": {**record["rule"], "mode": 1}})
        del record["threshold"]
        with pytest.raises(ValueError, match="calibration: threshold is missing"):
            Calibration.from_json(record)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("threshold", "low", r"threshold is 'low' \(text\); a number is expected"),
            ("alpha", True, r"alpha is True \(true/false\); a number is expected"),
            ("null_scores", 3, r"null_scores is 3 \(a whole number\); a list"),
            ("error_logit", [1.0], "error_logit has 1 entries; 2 are expected"),
            ("n", 4, "n is 4, but there are 3 null scores"),
            ("rule", "raw", "rule is 'raw'; keys with values are expected"),
            ("uncertain_threshold", -2.0, "lies above"),
            ("threshold", math.nan, "calibrate again"),
        ],
    )
    def test_a_bad_value_is_refused(self, key: str, value: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Calibration.from_json({**fixed().to_json(), key: value})
