"""The form of the Inspect page: what stands in it, whose result is shown, what is said before a model has spoken."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import fakes
import pytest
from streamlit.testing.v1 import AppTest
from test_inspect_page import ask, chooser, drawn, open_page

from app.inspect import history, scoring_queue, serving, session
from app.inspect.scoring_queue import Refused

pytestmark = pytest.mark.usefixtures("fake_lens")


def kinds(page: AppTest) -> list[str]:
    """The chosen kinds of solution: of an example one, of a text of one's own none."""
    return [str(one.value) for one in page.segmented_control if one.key == "solution_kind"]


def test_a_text_of_ones_own_is_no_example() -> None:
    page = open_page()
    assert kinds(page) == ["with a mistake"]
    wrong = page.text_area(key="solution").value
    page.text_area(key="solution").set_value("7 + 4 = 11\n#### 11, says I").run()
    assert not page.exception and kinds(page) == []
    assert chooser(page).value is None  # the example's name does not stay over another text
    ask(page, "How many cups?", "7 + 4 = 11")
    assert kinds(page) == [] and page.text_area(key="problem").value == "How many cups?"
    chooser(page).set_value(None).run()
    assert page.text_area(key="problem").value == "How many cups?"
    chooser(page).set_value(0).run()
    assert kinds(page) == ["with a mistake"] and page.text_area(key="solution").value == wrong


def test_what_a_callback_wrote_outlives_a_run_that_was_cut_short() -> None:
    page = open_page()
    page.session_state["fills"] = {"solution": "what was put there"}  # and no run has drawn the field since
    page.text_area(key="solution").set_value("what the browser still has").run()
    assert page.text_area(key="solution").value == "what was put there"
    page.text_area(key="solution").set_value("what is typed next").run()
    assert page.text_area(key="solution").value == "what is typed next"


def test_a_chooser_that_the_browser_has_not_heard_of_takes_no_text_away() -> None:
    page = open_page()
    old = chooser(page)
    page.text_area(key="problem").set_value("How many cups?").run()
    assert chooser(page).key != old.key
    page.session_state[old.key] = 0  # as the browser still has it
    page.run()
    assert page.text_area(key="problem").value == "How many cups?" and chooser(page).value is None


def test_a_result_by_another_checkpoint_than_the_chosen_one_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = fakes.catalogue()
    both = [first, replace(first, name="other", path=Path("/nonexistent/other"))]
    monkeypatch.setattr(scoring_queue, "sources", scoring_queue.Sources(fakes.load, lambda: both))
    page = ask(open_page(), "How many pens?", "pens= 4")
    assert not page.warning
    page.selectbox(key="checkpoint").set_value("other").run()
    assert "by fake" in page.warning[0].value and len(drawn(page)) == 1
    ask(page, "How many pens?", "pens= 4")
    assert not page.warning


def test_equations_and_the_answer_are_told_although_the_model_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_page()

    def busy(*_: object, **__: object) -> None:
        raise Refused("Busy: 3 requests are ahead, the most allowed.")

    monkeypatch.setattr(serving, "inspected", busy)
    ask(page, "How many?", "7 + 4 = 12\n#### 12", "13")
    told = " ".join(one.value.replace("\\", "") for one in page.markdown)
    assert "Known without the model" in told and "7 + 4 is 11, not 12" in told and "the answer is 12, not 13" in told
    assert "3 requests are ahead" in page.error[0].value and drawn(page) == []


def test_the_history_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ask(open_page(), "How many pens?", "pens= 4")
    newest = page.session_state["history"][0]
    assert history.size_of(newest) == 4 * len("How many pens?pens= 4") + 400 * len(newest.scored[0].raw)
    monkeypatch.setattr(history, "MOST_BYTES", 2 * history.size_of(newest))
    ask(page, "How many cups?", "cups= 4")
    assert [one.request.problem for one in page.session_state["history"]] == ["How many cups?", "How many pens?"]
    monkeypatch.setattr(history, "MOST_BYTES", 1)
    ask(page, "How many hats?", "hats= 4")
    assert [one.request.problem for one in page.session_state["history"]] == ["How many hats?"]


def test_many_at_once_has_an_example_to_try() -> None:
    page = open_page()
    for label in ("Put in an example", "Inspect them all"):
        next(button for button in page.button if button.label == label).click().run()
        assert not page.exception
    assert any(re.match(r"[1-4] inspected: ", text.value) for text in page.text)


def test_inspect_that_is_pressed_twice_in_a_moment_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    page = ask(open_page(), "How many pens?", "pens= 4")
    calls = fakes.calls["score"]
    ask(page, "How many pens?", "pens= 4")
    assert fakes.calls["score"] == calls and len(drawn(page)) == 1
    monkeypatch.setattr(session, "TWICE", timedelta(0))
    ask(page, "How many pens?", "pens= 4")
    assert fakes.calls["score"] == calls + 1
