"""The Inspect page around its heatmap: what was inspected before, many at once, steps by hand, rendered text."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from test_inspect_page import ask, drawn, open_page

from app.inspect import history, many, scoring_queue, serving, session
from app.inspect.request import Inspection, Request

pytestmark = pytest.mark.usefixtures("fake_lens")


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception
    return page


def test_what_was_inspected_is_opened_again_without_a_model() -> None:
    page = ask(ask(open_page(), "How many pens?", "pens= 4"), "How many cups?", "7 + 4 = 11", "11")
    before = [one.request.problem for one in page.session_state["history"]]
    assert before[:2] == ["How many cups?", "How many pens?"] and before[2].startswith("Mara has 7 pens.")
    (table,) = [one.value for one in page.dataframe if "in words" in one.value]
    assert list(table["verdict"])[:2] == ["step 1, reward"] * 2
    assert list(table["problem"])[:2] == ["How many cups?", "How many pens?"]
    assert list(table["solution"])[:2] == ["7 + 4 = 11", "pens= 4"] and next(iter(table)) == "problem"
    assert all(re.fullmatch(r"\d\d:\d\d( UTC)?", when) for when in table["when"])
    assert set(table["checkpoint"]) == {"fake"}
    calls = dict(fakes.calls)
    page.session_state["opens"] = page.session_state["history"][1]
    page.run()
    assert page.text_area(key="problem").value == "How many pens?" and page.text_area(key="solution").value == "pens= 4"
    assert drawn(page)[0]["trace"]["text"] == "pens= 4" and dict(fakes.calls) == calls and not page.warning


def test_a_pasted_file_is_inspected_row_by_row() -> None:
    page = open_page()
    rows = [("Cups?", "3 + 4 = 8"), ("Pens?", "four"), ("A quantum of tea?", "two"), ("Long?", "x" * 30_000)]
    given = [{"question": question, "solution": solution} for question, solution in rows]
    given.append({"question": "Hats?", "solution": "#### 4", "answer": "5"})
    page.text_area(key="pasted").set_value("\n".join(map(json.dumps, given)))
    press(page, "Inspect them all")
    said = (
        "4 of 5 inspected: 1 with an error, 1 with a wrong answer, step unsure, 1 with no error found, "
        "1 that the model cannot judge; 1 refused."
    )
    assert said in [text.value for text in page.text]
    assert any("4 of 5" in text.value and "the limit is 20,000" in text.value for text in page.text)
    assert drawn(page)[0]["trace"]["text"] == "3 + 4 = 8" and page.text_area(key="problem").value == "Cups?"
    assert len(page.session_state["history"]) == 5
    unsure = page.session_state["batch"].inspections[-1]  # the same words in the summary, its row and its headline
    assert history.row(unsure)["verdict"] == "wrong answer, step unsure"
    assert history.row(unsure)["in words"].startswith("The answer is 4, not 5; step unsure")
    assert "The box at the start of a row opens it." in [caption.value for caption in page.caption]
    press(page, "Close this list")
    assert said not in [text.value for text in page.text]
    # what was typed while the list was worked through stays; a row of the list opens with a click
    page.text_area(key="problem").set_value("Mine?").run()
    page.session_state["form_before_batch"] = ("Cups?", "3 + 4 = 8", "")
    page.session_state["batch_pending"] = many.Work(many.read_pasted("7 + 4 = 12", "Hats?", ""))
    page.run()
    assert page.text_area(key="problem").value == "Mine?"
    assert any(text.value.startswith("1 inspected") for text in page.text)
    page.text_area(key="pasted").set_value("{")
    press(page, "Inspect them all")
    assert "not recognised" in page.error[0].value.replace("\\", "")


def test_what_was_stopped_before_its_first_solution_says_only_that() -> None:
    assert many.words([], 0, 4) == "Stopped before the first of 4 was inspected."


def test_a_pasted_file_goes_on_after_another_choice_and_stops_when_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is clicked begins the page anew: the file was dropped then, without a word."""
    real, begun, cuts = serving.inspected, list[str](), {"2 of 3: ": st.stop}

    def inspected(*asked: Any) -> Inspection:
        begun.append(asked[-1])
        cuts.pop(asked[-1], lambda: None)()
        return real(*asked)

    monkeypatch.setattr(serving, "inspected", inspected)
    page = open_page()
    begun.clear()
    page.text_area(key="pasted").set_value("4 + 4 = 8\n---\n4 + 5 = 9\n---\n4 + 6 = 10")
    press(page, "Inspect them all")
    assert not [text.value for text in page.text if "inspected" in text.value]
    page.run()
    assert begun == ["1 of 3: ", "2 of 3: ", "2 of 3: ", "3 of 3: "]
    assert any(text.value.startswith("3 inspected: ") for text in page.text)

    def stop() -> None:
        history.stop_batch()  # the button's callback, and the run that it begins
        st.stop()

    cuts["2 of 3: "] = stop
    press(page, "Inspect them all")
    page.run()
    assert "1 of 3 inspected: 1 with an error; stopped before the other 2." in [text.value for text in page.text]
    assert history.PENDING not in page.session_state


def test_a_stopped_request_is_said_and_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    page, begun = open_page(), list[str]()

    def inspected(request: Request, *_: Any) -> None:
        begun.append(request.solution)
        session.stop()  # the button's callback, and the run that it begins
        st.stop()

    monkeypatch.setattr(serving, "inspected", inspected)
    ask(page, "How many pens?", "7 + 4 = 12")
    page.run()
    assert [one.value for one in page.info] == ["Stopped. *Inspect* begins anew."] and not drawn(page)
    assert begun == ["7 + 4 = 12"]
    assert not page.run().info and not page.exception


def test_steps_are_split_and_joined_by_hand() -> None:
    page = ask(open_page(), "How many?", "7 + 4 = 11. That is all.\nTwice: 22\n#### 22")

    def steps() -> list[str]:
        return [step["text"] for step in drawn(page)[0]["trace"]["steps"]]

    def mark(text: str) -> None:
        next(area for area in page.text_area if (area.key or "").startswith("marked_")).set_value(text)
        press(page, "Use these steps")

    mark("7 + 4 = 11.\n---\nThat is all.\nTwice: 22\n---\n#### 22")
    assert steps() == ["7 + 4 = 11.", "That is all.\nTwice: 22", "#### 22"]
    address = {name: value if isinstance(value, str) else value[0] for name, value in page.query_params.items()}
    assert address["steps"] == "0.11.12.34.35.42" and drawn(open_page(**address)) == drawn(page)
    mark("7 + 4 = 12")
    assert page.error[0].value.startswith("Step 1 is not in the solution")
    press(page, "As they were read")
    assert steps() == ["7 + 4 = 11. That is all.", "Twice: 22", "#### 22"]


def test_a_text_with_maths_is_rendered_below_the_exact_one() -> None:
    page = open_page()
    assert not [one for one in page.expander if one.label.startswith("As it reads")]
    ask(page, "How many?", r"So \(x = 4\), ![](http://x.invalid/) for $5")
    assert not page.exception and len(drawn(page)) == 1
    (below,) = (one for one in page.expander if one.label.startswith("As it reads"))
    assert not below.proto.expanded
    assert any(
        one.value == r"So $x = 4$, \!\[\](http\:" + "\u2060" + r"//x.invalid/) for \$5" for one in below.markdown
    )


def test_sampling_is_asked_for_where_there_is_no_solution() -> None:
    page = open_page()
    assert "n" not in [slider.key for slider in page.slider]
    page.text_area(key="solution").set_value("").run()
    assert page.slider(key="n").value == 8
    assert any(one.label == "Sampling" for one in page.expander)
    assert any(one.value == "8 solutions, seed 0, temperature 1." for one in page.caption)


def test_a_second_checkpoint_reads_the_same_solution_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = fakes.catalogue()
    both = [first, replace(first, name="other", path=Path("/nonexistent/other"))]
    monkeypatch.setattr(scoring_queue, "sources", scoring_queue.Sources(fakes.load, lambda: both))
    page = ask(open_page(), "How many pens?", "pens= 4")
    assert len(drawn(page)) == 1
    page.selectbox(key="second_checkpoint").set_value("other").run()
    one, two = drawn(page)
    assert not page.exception and fakes.calls["load"] == 2
    assert one["trace"]["text"] == two["trace"]["text"] and one["ranges"] == two["ranges"]
    assert {one["title"], two["title"]} == {"Your solution \u00b7 no final answer", "By other"}
    calls = dict(fakes.calls)
    page.session_state["view"] = "raw"  # as the heatmap tells it
    page.run()
    assert dict(fakes.calls) == calls and len(drawn(page)) == 2
    page.selectbox(key="second_checkpoint").set_value(None).run()
    assert len(drawn(page)) == 1
