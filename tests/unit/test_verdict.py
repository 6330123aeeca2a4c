"""The verdict: checker first, then reward; nothing of the reward where the model cannot judge."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from irl_core.report.heatmap.payload import tone_of
from irl_core.reward.verdict import Judge, Judged, Ruling, Verdict, cell_of, rule_on, to_record, verdict_on
from irl_core.reward.wording import amount, rule_words
from irl_core.text.segmentation import make_trace
from irl_core.types import Decision, Localisation

KNOWN = Judge(familiar=True, reason="usual words")
SOUND = "A pen costs 3 dollars.\n4 pens cost 4*3=12 dollars.\n#### 12"
FALSE = "A pen costs 3 dollars.\n4 pens cost 4*3=14 dollars.\n#### 12"


def judged(
    text: str, answer: str | None = None, judge: Judge = KNOWN, decision: Decision = "no_error",
    step: int | None = None, scores: tuple[float, ...] = (-1.0, -3.51, -9.0), rule: str = "raw/min/argmin",
) -> Verdict:  # fmt: skip
    where = Localisation(decision, step, 0.93, rule, -4.08, scores)
    return verdict_on(make_trace("How many?", text, reference_answer=answer), where, judge)


def unread(text: str) -> Verdict:
    """The verdict on a text that no model has read."""
    return verdict_on(make_trace("How many?", text), None, Judge())


def said(verdict: Verdict, by: str) -> list[str]:
    return [finding.says for finding in verdict.findings if finding.by == by]


def test_a_false_equation_comes_before_the_reward_and_says_what_is_false() -> None:
    found = judged(FALSE, "12", decision="error", step=0, scores=(-5.0, -3.0, -9.0))
    assert found.ruling == Ruling("error", "arithmetic", 1)
    assert found.headline == "Step 2: 4*3 is 12, not 14"
    assert said(found, "arithmetic") == ["Arithmetic: its one equation does not hold: 4*3 is 12, not 14 (step 2)."]
    assert said(found, "answer") == ["Answer: right answer, broken reasoning (12)."]
    assert said(found, "reward")[0].startswith(
        "Reward: by itself it would say step 1 of 2 (step score \u22125.00, threshold"
    )  # one first error is told
    same = judged(FALSE, "12", decision="error", step=1, scores=(-1.0, -5.0, -9.0))
    assert said(same, "reward")[0].startswith("Reward: by itself it would say the same step (step score")
    assert said(judged(FALSE, "12"), "reward")[0].startswith("Reward: by itself it flags no step (")


def test_the_number_that_decides_is_the_number_shown() -> None:
    """The closing line scores lower than the threshold and may not be named: it decides nothing and is not shown."""
    found = judged(SOUND, "12")
    assert found.headline == "No error found" and found.ruling == Ruling("no_error")
    assert said(found, "reward") == [
        "Reward: no step is flagged (lowest step score \u22123.51, of step 2; threshold \u22124.08; lower is more "
        "doubtful; rule: the step with the lowest reward of a token)."
    ]
    with_answer = judged(SOUND, "12", rule="raw/min/argmin+answer", decision="error", step=2)
    assert said(with_answer, "reward")[0].startswith(
        "Reward: the first error is the answer line (step score \u22129.00"
    )
    assert with_answer.headline == "First error: the answer line, says the reward (right in 93% of such cases)"
    assert said(with_answer, "answer") == ["Answer: right (12), though the reward doubts a step."]


def test_how_often_such_a_word_was_right_is_measured_and_said_in_plain_words() -> None:
    """Where most of the solutions that it was calibrated on were wrong, 'no error found' was seldom right: a figure of
    the calibration, told with the others, and no warning that stands on every solution."""
    where = Localisation("no_error", None, 0.25, "raw/min/argmin", -4.08, (-1.0, -3.51, -9.0))
    found = verdict_on(make_trace("How many?", SOUND), where, KNOWN)
    assert found.headline == "No step is flagged" and tone_of(to_record(found)) == "neutral"
    assert "; of the held-out solutions that scored so, 25% were right; " in said(found, "reward")[0]
    sure = verdict_on(make_trace("How many?", SOUND), replace(where, confidence=0.9), KNOWN)
    assert sure.headline == "No error found" and "90% were right" in said(sure, "reward")[0]
    assert tone_of(to_record(sure)) == "good"
    assert tone_of(to_record(judged(FALSE))) == "error" and tone_of(to_record(judged(SOUND, "13"))) == "neutral"
    unknown = verdict_on(make_trace("How many?", SOUND), where, Judge())
    assert unknown.headline == "No error found" and "own probability of that is 25%" in said(unknown, "reward")[0]
    named = Localisation("error", 1, 0.25, "raw/min/argmin", -3.0, (-1.0, -3.51, -9.0))
    found = verdict_on(make_trace("How many?", SOUND), named, KNOWN)
    assert found.headline == "First error: step 2 of 2, says the reward (right in 25% of such cases)"
    # a model that is not compared with held-out solutions was calibrated on none: there are no such cases
    alone = verdict_on(make_trace("How many?", SOUND), named, Judge())
    assert alone.headline == "First error: step 2 of 2, says the reward (its own probability of that is 25%)"


def test_a_share_is_not_told_where_it_does_not_rise_with_the_score() -> None:
    where = Localisation("no_error", None, 0.27, "raw/min/argmin", -6.22, (-1.0, -5.11, -9.0), score_tells=False)
    (told,) = said(verdict_on(make_trace("How many?", SOUND), where, KNOWN), "reward")
    assert "; the score says little about whether the whole is right; " in told and "were right" not in told


def test_a_stored_trace_that_does_not_say_whether_the_score_tells_tells_no_share() -> None:
    where = Localisation("no_error", None, 0.27, "raw/min/argmin", -6.22, (-1.0, -5.11, -9.0), score_tells=None)
    (told,) = said(verdict_on(make_trace("How many?", SOUND), where, KNOWN), "reward")
    assert "threshold \u22126.22, that of uncertain is not stored; " in told and "were right" not in told
    assert "; how much the score says about the whole is not stored; score it again to see; " in told


def test_the_limit_of_uncertain_stands_beside_the_threshold() -> None:
    where = Localisation("uncertain", None, 0.3, "raw/min/argmin", -6.22, (-1.0, -5.68, -9.0), -5.61)
    limits = "threshold \u22126.22, uncertain below \u22125.61; lower is more doubtful; "
    (told,) = said(verdict_on(make_trace("How many?", SOUND), where, KNOWN), "reward")
    assert told.startswith("Reward: too uncertain to say (lowest step score \u22125.68, of step 2; " + limits)
    unlimited = replace(where, threshold=-math.inf, uncertain_threshold=math.inf)
    assert "uncertain below" not in said(verdict_on(make_trace("How many?", SOUND), unlimited, KNOWN), "reward")[0]


def test_what_the_solution_never_uses_is_said_beside_the_verdict() -> None:
    problem = "A pen costs 3 dollars and a cup 8. How much are 4 pens and a cup?"
    text = "4 pens cost 4*3=12 dollars.\nTwo are 2*3=6.\nThat is 6+6=12.\n#### 12"
    where = Localisation("no_error", None, 0.93, "raw/min/argmin", -4.08, (-1.0, -2.0, -3.0, -9.0))

    def on(text: str, answer: str | None = None, judge: Judge = KNOWN) -> Verdict:
        return verdict_on(make_trace(problem, text, reference_answer=answer), where, judge)

    assert on(text).headline == "No error found. The 8 of the problem is never used"
    assert said(on(text), "quantities") == ["Quantities: the 8 of the problem is never used."]
    assert on(text, "20").headline.endswith("The 8 of the problem is never used")
    assert on(text, "12").headline == "No error found"  # the answer is right: the problem may say more than is needed
    strange = on(text, judge=Judge(familiar=False, reason="odd words"))
    assert strange.headline.endswith("the model cannot judge the rest. The 8 of the problem is never used")
    skipped = on("4 pens cost 4*3=12 dollars.\nWith a cup 3+8=11.\nTwice that is 11*2=22.\n#### 22")
    assert skipped.headline == "No error found. The 12 of step 1 is never used"
    assert said(skipped, "quantities") == [
        "Quantities: the 12 of step 1 is never used."
    ]  # the 3, used twice, is not odd
    assert on(text.replace("2*3=6.", "2*3=7.")).headline == "Step 2: 2*3 is 6, not 7"  # what is false comes first


def test_of_many_false_equations_six_are_named_and_the_others_counted() -> None:
    (found,) = said(unread("\n".join(f"{number} + 1 = {number}" for number in range(2, 42))), "arithmetic")
    assert found.startswith("Arithmetic: 40 of 40 equations do not hold: 2 + 1 is 3, not 2 (step 1); ")
    assert found.endswith("; 7 + 1 is 8, not 7 (step 6); and 34 more.")


def test_an_equation_that_counts_for_nothing_is_named_with_the_reason() -> None:
    """What is false as read and has an excuse is neither true nor false: it is told, and not passed over."""
    found = unread("5 boxes hold 5*3=15.\n410 / 15 = 27, so 27 full trips.\n27 trips need 27*2=54 hours.\n#### 54")
    assert said(found, "arithmetic") == [
        "Arithmetic: 2 of 3 equations hold exactly. "
        "Right within rounding (step 2): 410 / 15 is about 27.333333, given as 27."
    ]
    assert said(unread("Then twice 5 + 3 = 13 are there.\n#### 13"), "arithmetic") == [
        "Arithmetic: no equation that can be checked exactly. Not checked (step 1): 5 + 3 = 13, since something beside "
        "it belongs to it and was not read."
    ]
    assert said(unread("17 / 5 = 3 remainder 2\n6*2=13\n#### 12"), "arithmetic") == [
        "Arithmetic: its one equation does not hold: 6*2 is 12, not 13 (step 2). "
        "Right within rounding (step 1): 17 / 5 is 3.4, given as 3."
    ]
    strange = unread("6 / 2(1+2) = 1\n2*2=4\n#### 4")
    assert strange.headline == "1 of 2 equations holds exactly; no model has read it"
    assert "since it can be read in two ways" in said(strange, "arithmetic")[0]


@pytest.mark.parametrize(
    ("equation", "words"),
    [
        ("410 / 15 = 27", "410 / 15 is about 27.333333, and 27 only when rounded"),
        ("410 / 15 = 28", "410 / 15 is about 27.333333, and 28 only when rounded up"),
        ("45 / 2 = 22", "45 / 2 is 22.5, and 22 only when rounded down"),
        ("410 / 15 = 26", "410 / 15 is about 27.333333, not 26"),
        ("1 / 2 = 1", "1 / 2 is 0.5, not 1"),
        ("1.5 * 3 = 4", "1.5 * 3 is 4.5, not 4"),
    ],
)
def test_a_quotient_that_is_rounded_without_a_word_is_false_and_called_rounded(equation: str, words: str) -> None:
    found = unread(f"{equation}\n#### 27")
    assert found.headline == f"Step 1: {words}" and found.ruling.by == "arithmetic"


def test_an_answer_line_that_departs_from_the_last_calculation_is_said() -> None:
    text = "A box has 4*3=12 pens.\nSix boxes have 12*6=72 pens.\n#### 70"
    clause = "says 70, but the last calculation comes to 72 (step 2)"
    assert judged(text).headline == f"No error found. The answer line {clause}"
    assert judged(text).ruling == Ruling("no_error")  # a signal of its own: the reward decides as it did
    assert said(judged(text), "answer_line") == [f"Answer line: {clause}."]
    assert judged(text, "70").headline == "No error found"  # the answer is right: the last calculation may be a check
    assert judged(text, "70").findings[2].by == "answer_line"
    unsure = "The answer is 70, not 72; step unsure (most doubtful: step 2)"
    assert judged(text, "72").headline == f"{unsure}. The answer line {clause}"
    assert said(judged(text.replace("70", "72")), "answer_line") == []


def test_a_cell_says_that_the_answer_is_wrong_and_that_the_step_is_unsure() -> None:
    assert cell_of(Ruling("uncertain"), False) == "wrong answer, step unsure"
    assert cell_of(Ruling("uncertain"), None) == "too uncertain to say"
    assert cell_of(Ruling("error", "reward", 1), False) == "step 2, reward"


def test_a_wrong_answer_is_not_called_free_of_errors() -> None:
    for decision in ("no_error", "uncertain"):
        found = judged(SOUND, "13", decision=decision)  # type: ignore[arg-type]
        assert found.ruling == Ruling("uncertain")
        assert (
            found.headline == "The answer is 12, not 13; step unsure (most doubtful: step 2)"
        )  # an analyst who knows it is wrong asks where
    unsure = judged(SOUND, decision="uncertain")
    assert unsure.headline == "Too uncertain to say: step 2 is more doubtful than is usual in right solutions"
    assert unsure.ruling == Ruling("uncertain")
    no_limit = Localisation("uncertain", None, 0.5, "raw/min/argmin", -math.inf, (-1.0, -3.51, -9.0))
    found = verdict_on(make_trace("How many?", SOUND), no_limit, KNOWN)
    assert found.headline == "Too uncertain to say; most doubtful: step 2"  # too few right ones to know what is usual
    unstated = judged("It is many pens.", "13", scores=(-1.0,))
    assert unstated.headline == "No error found"
    assert said(unstated, "answer") == ["Answer: no final answer is stated; the right one is 13."]


def test_an_equation_in_latex_is_told_plainly() -> None:
    found = unread("So $54 \\cdot 5 = 280$.\n#### 280")
    assert found.headline == "Step 1: 54 \u00d7 5 is 270, not 280"
    assert said(found, "arithmetic") == [f"Arithmetic: its one equation does not hold: {found.headline[8:]} (step 1)."]
    rounded = unread("We get \\( \\frac{12}{5} = 2 \\).\n2*2=4\n#### 4")
    assert rounded.headline == "Step 1: 12/5 is 2.4, and 2 only when rounded"


def test_an_answer_in_words_is_not_said_to_be_none() -> None:
    def stated(text: str) -> list[str]:
        return said(verdict_on(make_trace("How many?", text, reference_answer="35"), None, Judge()), "answer")

    assert stated("Five bags hold 7 each.\nSo they have thirty-five marbles.") == [
        "Answer: no final answer in figures is stated; the right one is 35."
    ]
    for text in ("Thirty-five bags.\nSo they have marbles.", "Five bags. They have many."):
        assert stated(text) == ["Answer: no final answer is stated; the right one is 35."]


def test_beside_a_wrong_answer_the_reward_does_not_say_that_there_is_no_error() -> None:
    (told,) = said(judged(SOUND, "13", decision="no_error"), "reward")
    assert told.startswith("Reward: by itself it flags no step (lowest step score")


@pytest.mark.parametrize(
    ("text", "answer", "headline"),
    [
        (SOUND, "12", "The answer is right, and its one equation holds; the model cannot judge the rest"),
        (SOUND, "13", "The answer is 12, not 13; its one equation holds; the model cannot judge the rest"),
        (SOUND, None, "Its one equation holds; the model cannot judge the rest"),
        ("1 + 1 = 2, 2 + 2 = 4", None, "Both equations hold; the model cannot judge the rest"),
        ("1+1=2\n2+1=3\n3+1=4\n4+1=5", None, "All 4 equations hold; the model cannot judge the rest"),
        ("So be it.", None, "The model cannot judge this text"),
        (FALSE, None, "Step 2: 4*3 is 12, not 14"),
    ],
)
def test_what_holds_is_said_where_the_model_cannot_judge(text: str, answer: str | None, headline: str) -> None:
    steps = len(make_trace("How many?", text).steps)
    strange = Judge(familiar=False, reason="odd words")
    found = judged(text, answer, strange, "error", 0, scores=(-9.0,) * steps)
    assert found.headline == headline and not said(found, "reward")
    assert "93" not in found.sentence and "threshold" not in found.sentence
    assert said(found, "familiarity")[0].endswith("so its reward says nothing here: odd words.")


def test_no_signal_not_measured_and_not_read_are_said() -> None:
    silent = judged(SOUND, judge=Judge(familiar=True, signal=False), scores=(math.nan,) * 3)
    assert silent.ruling == Ruling("cannot_judge") and said(silent, "reward")[0].startswith("Reward: no signal")
    assert said(judged(SOUND, judge=Judge()), "familiarity") == ["Familiarity: not measured."]
    unread = verdict_on(make_trace("How many?", SOUND), None, Judge())
    assert unread.ruling == Ruling("unread")
    assert unread.headline == "Its one equation holds; no model has read it"
    assert said(unread, "reward") == ["Reward: no reward model has read this solution."]


@pytest.mark.parametrize(
    ("found", "ruling", "cell"),
    [
        ((2, 1, "error", 0, None, None), Ruling("error", "arithmetic", 1), "step 2, arithmetic"),
        ((1, None, "no_error", None, False, None), Ruling("error", "arithmetic"), "an error, arithmetic"),
        ((0, None, "error", 2, None, True), Ruling("error", "reward", 2), "step 3, reward"),
        ((0, None, "error", 2, False, True), Ruling("cannot_judge"), "the model cannot judge"),
        ((0, None, "no_error", None, True, True), Ruling("no_error"), "no error found"),
        ((0, None, "no_error", None, True, False), Ruling("uncertain"), "too uncertain to say"),
        ((0, None, None, None, None, None), Ruling("unread"), "no model has read it"),
    ],
)
def test_the_ruling_is_checker_then_reward(found: Any, ruling: Ruling, cell: str) -> None:
    assert rule_on(*found) == ruling and ruling.cell == cell


def test_values_and_rules_in_words() -> None:
    assert [amount(Fraction(*pair)) for pair in ((69, 1), (-5, 2), (2, 3), (10**25, 1))] == [
        "69", "\u22122.5", "about 0.666667", "1" + 25 * "0"
    ]  # fmt: skip
    assert rule_words("credit/min/argmin+answer") == "the step with the lowest credit of a token, closing lines too"
    assert rule_words("what is none") == "what is none"


def test_the_record_is_plain_data() -> None:
    record = to_record(judged(FALSE, "12"))
    assert (record["kind"], record["by"], record["step"]) == ("error", "arithmetic", 1)
    assert record["findings"][0]["by"] == "arithmetic" and record["findings"][0]["step"] == 1
    assert record["step_number"] == record["findings"][0]["step_number"] == 2  # as pages number it
    assert record["findings"][1]["step_number"] is None


def test_counts_of_what_cannot_be_judged_in_words() -> None:
    assert Judged.of([None, None], [None, None]).words == "familiarity: not measured"
    alike = "solutions are like those that the checkpoint was made for"
    assert Judged.of([False, False], [True, True]).words == f"all 2 {alike}"
    assert Judged.of([False, None], [True, None]).words == f"1 of 2 {alike}; familiarity not measured in 1"
    assert Judged.of([True, None, False], [False, None, True]).words == (
        "the model cannot judge 1 of 3 solutions (1 unlike those that the checkpoint was made for); "
        "familiarity not measured in 1"
    )
    both = Judged.of([True, True, True, True, False], [False, False, True, None, True])
    assert (both.unfamiliar, both.without_signal) == (2, 2)
    assert both.words.startswith(
        "the model cannot judge 4 of 5 solutions (2 unlike those that the checkpoint was made for, 2 without a signal)"
    )
    assert both.cell == "4 of 5 (2 unfamiliar, 2 without a signal)"
    silent = Judged.of([True, None], [None, None])
    assert silent.words == "the model cannot judge 1 of 2 solutions (1 without a signal); familiarity not measured in 2"
    assert (silent.cell, Judged.of([None], [None]).cell) == ("1 of 2 (1 without a signal)", "not measured")
    assert Judged.of([False, None], [True, None]).cell == "0 of 2"
