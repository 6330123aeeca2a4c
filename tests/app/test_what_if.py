"""Why, and what instead, on the Inspect page: other tokens, other words of a step, samples that go on from there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import fakes
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from test_inspect_page import ask, drawn, open_page
from test_inspect_screen import press

from app.inspect import serving, what_if, why
from app.inspect.request import Inspection
from irl_core.text.equations import find_equations
from irl_core.text.segmentation import make_trace

pytestmark = pytest.mark.usefixtures("fake_lens")
SOLUTION = "Mara starts with 7 pens.\n7 + 4 = 12 pens.\n#### 12"


def table(page: AppTest, column: str) -> list[dict[str, object]]:
    (found,) = [one.value for one in page.dataframe if column in one.value]
    return found.to_dict("records")


def words_of_step(page: AppTest) -> object:
    return next(one for one in page.text_input if (one.key or "").startswith("words_"))


def test_the_flagged_token_stands_beside_what_else_may_stand_there() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION, "11")
    (data,) = drawn(page)
    at = data["picked"]  # where the equation that does not hold departs from its value, which is 11
    assert data["pickable"] and SOLUTION[data["trace"]["tokens"][at]["start"] :].startswith("2 pens")
    told = [one.value.replace("\\", "") for one in page.caption]
    assert any(one.startswith("At the token \u201c2\u201d in step 2: the tokens likeliest there") for one in told)
    rows = table(page, "probability")
    assert [row["token"] for row in rows] == ["\u201c2\u201d  (as written)", "\u201c1\u201d", "\u201c(the end)\u201d"]
    # the fake lens: a digit 0.75, the end 0, after a digit
    assert [(row["reward"], row["credit"]) for row in rows] == [(0.75, 0.0), (0.75, 0.0), (0.0, -0.75)]
    assert [row["probability"] for row in rows] == ["60.65%", "22.31%", "8.21%"]
    assert fakes.calls["score"] == 2  # the example and this: what else may stand there is no further scoring


@pytest.mark.parametrize(
    ("equation", "at"),
    [
        ("36 - 9 = 28", "8"),  # 27
        ("36 - 9 = $1,028", "1,028"),
        ("300 * 4 = 1,300", "300"),  # 1200
        ("36 - 9 = 2", "2"),  # the right number goes on
        ("36 - 9 = 270", "0"),
        ("5 - 9 = 4", "4"),  # its sign differs
        ("5 - 9 = -5", "5"),
        ("5 / 2 = 2.4", "4"),
        ("2 / 3 = 0.7654", "7654"),
    ],
)  # fmt: skip
def test_a_false_equation_departs_at_the_first_digit_that_is_not_right(equation: str, at: str) -> None:
    (false,) = find_equations(equation)
    assert equation[why.departure(equation, false) :] == at


def test_a_probability_that_is_next_to_nothing_is_not_called_none() -> None:
    assert [why.percent(share) for share in (1.0, 0.1234, 0.0001, 0.00009, 0.0)] == [
        "100.00%", "12.34%", "0.01%", "<0.01%", "<0.01%"
    ]  # fmt: skip


def test_the_reward_flags_the_token_with_the_lowest_credit_of_its_step() -> None:
    (data,) = drawn(ask(open_page(), "How many?", "pens= 4"))
    assert data["trace"]["tokens"][data["picked"]]["text"] == "="
    page = ask(open_page(), "How many?", "four")
    assert drawn(page)[0]["picked"] is None and "probability" not in str([list(one.value) for one in page.dataframe])


def test_another_token_is_looked_at() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION)
    shown = page.session_state["inspection"]
    page.session_state["what_if_asked"] = what_if.Asked(shown, replace(shown.request, at=2), -1)
    page.run()
    assert (
        drawn(page)[0]["picked"] == 2 and table(page, "probability")[0]["token"] == "\u201cstarts\u201d  (as written)"
    )
    assert words_of_step(page).label == "Step 1 in other words" and not page.exception
    page.session_state["what_if_asked"] = what_if.Asked(
        page.session_state["inspection"], replace(shown.request, at=10**9), -1
    )
    page.run()
    assert not page.exception


def test_a_token_of_ones_own_is_put_in_the_place_of_the_flagged_one() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION, "11")

    def typed() -> Any:
        return next(one for one in page.text_input if (one.key or "").startswith("typed_"))

    at = page.session_state["inspection"].at
    start, end = drawn(page)[0]["trace"]["tokens"][at]["start"], drawn(page)[0]["trace"]["tokens"][at]["end"]
    assert typed().label == "A token of your own (at most 40 characters)" and typed().max_chars == what_if.MOST_TYPED
    typed().set_value("eleven or 1").run()
    assert drawn(page)[1]["trace"]["text"] == SOLUTION[:start] + "eleven or 1" + SOLUTION[end:]
    calls = fakes.calls["score"]
    typed().set_value(SOLUTION[start:end]).run()  # what is there already
    typed().set_value("").run()
    assert fakes.calls["score"] == calls and not page.exception


def test_what_is_typed_keeps_the_blank_of_the_token() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION)
    shown = page.session_state["inspection"]
    spans = list(shown.scored[0].encoded.spans)
    at = next(n for n, (start, end) in enumerate(spans) if SOLUTION[start:end] == "with")
    spans[at] = (spans[at][0] - 1, spans[at][1])  # as tokenizers have it whose tokens begin with a blank
    encoded = replace(shown.scored[0].encoded, spans=tuple(spans))
    blank = replace(shown, at=at, scored=(replace(shown.scored[0], encoded=encoded),))
    assert why.with_typed(blank, "off").solution.startswith("Mara starts off 7 pens.")
    assert why.with_typed(blank, "\noff").solution.startswith("Mara starts\noff 7 pens.")


def test_a_step_in_other_words_is_seen_at_once_and_can_be_kept() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION, "11")
    words_of_step(page).set_value("7 + 4: 11 pens.").run()
    said = [one.value.replace("\\", "") for one in page.markdown]
    assert any(one.startswith("Before: Step 2: 7 + 4 is 11, not 12. Now:") for one in said)
    before, now = drawn(page)
    assert before["trace"]["text"] == SOLUTION and now["title"] == "With the change"
    assert now["trace"]["text"] == SOLUTION.replace("7 + 4 = 12 pens.", "7 + 4: 11 pens.")
    row = table(page, "before")[1]
    # '=' has -3 behind a blank; without it the lowest credit of the step is that behind a word or a digit
    assert (row["step"], row["before"], row["now"]) == ("step 2", -3.0, -1.5)
    press(page, "Keep the change")
    assert page.text_area(key="solution").value == now["trace"]["text"] and len(drawn(page)) == 1


def test_tries_that_the_page_was_left_for_are_begun_anew_or_called_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ask(open_page(), "How many pens?", SOLUTION)
    real, words, left = serving.inspected, list[str](), [True]

    def inspected(*asked: Any) -> Inspection:
        words.append(asked[-1])
        if left.pop():
            st.stop()  # as another page does that is chosen
        return real(*asked)

    monkeypatch.setattr(serving, "inspected", inspected)
    page.number_input(key="tries").set_value(1)
    left[:] = [False, True]
    press(page, "Try again from here")
    assert what_if.FOUND not in page.session_state
    page.run()
    assert words == [
        "Trying again from step 2 on: ",
        "Trying again from step 2 on, begun anew since the page was left: ",
    ]
    assert len(page.session_state["what_if"].found.scored) == 1 and what_if.ASKED not in page.session_state
    left[:] = [False, True]
    press(page, "Try again from here")
    page.session_state["opens"] = page.session_state["history"][1]
    page.run()
    assert [one.value for one in page.info] == [
        "Trying again from step 2 on was given up: another solution is shown now."
    ]
    assert not page.run().info and not page.exception


def test_samples_go_on_from_the_flagged_step() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION, "11.0")  # not the example's: that goes with its problem
    page.number_input(key="tries").set_value(3)
    press(page, "Try again from here")
    tries = page.session_state["what_if"].found
    assert [one.trace.text.startswith("Mara starts with 7 pens.\nShe has") for one in tries.scored] == [True] * 3
    rows = table(page, "goes on")
    assert len(rows) == 3 and all(str(row["goes on"]).startswith("She has") for row in rows)
    right = sum(row["right"] == "yes" for row in rows)
    said = [one.value.replace("\\", "") for one in page.markdown]
    assert f"Tried 3 times from step 2 on: {right} of 3 right. Answers: 11." in said
    assert drawn(page)[0]["trace"]["text"] == SOLUTION  # what was asked is still what is shown
    press(page, "Forget them")
    assert "goes on" not in str([list(one.value) for one in page.dataframe])


def test_answers_that_are_not_listed_are_counted() -> None:
    page = ask(open_page(), "How many pens?", SOLUTION)
    one = page.session_state["inspection"]
    scored = [
        replace(one.scored[0], encoded=replace(one.scored[0].encoded, trace=make_trace("How many?", f"#### {answer}")))
        for answer in (32, 12, 940, 150, 14, 24, 12, 36, 24)
    ]
    words = why.tries_words(replace(one, scored=tuple(scored)), "step 2")
    assert words.endswith(" Answers: 32, 12, 940, 150, 14, 24 and 1 more.")
    assert why.tries_words(replace(one, scored=tuple(scored[:7])), "step 2").endswith(" 150, 14, 24.")


def test_a_text_that_the_model_cannot_judge_has_no_panel() -> None:
    page = ask(open_page(), "A quantum of pens?", SOLUTION)
    assert "Try again from here" not in [button.label for button in page.button]


def test_quantities_that_are_never_used_are_said_in_the_heading() -> None:
    page = ask(open_page(), "Mara, 12 years old, has 7 pens and buys 4 more.", "7 + 4 = 11")
    (data,) = drawn(page)
    assert data["verdict"]["headline"].endswith(". The 12 of the problem is never used")
    assert data["problem"][6:8] == "12"  # it is marked in the problem's text
    assert data["trace"]["quantities"] == [{"start": 6, "end": 8, "text": "12", "uses": 0}]
    assert [one["by"] for one in data["verdict"]["findings"]] == ["arithmetic", "quantities", "reward"]
