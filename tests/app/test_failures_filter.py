"""The filter of the Failures page: what is listed, the slices of it, the link to it, and what it tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.analysis import expression, failures, slices
from irl_core.data.annotations import Annotations
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run
from tests.app.failures_page import PAGE, open_page, press, rename, said

pytestmark = pytest.mark.usefixtures("fake_lens")


def test_an_order_that_tells_the_answer_is_warned_of_where_one_answers(store: Annotations) -> None:
    page = open_page()
    assert "Not blind" not in said(page)
    page.selectbox(key="sort").set_value("score_mean_discounted").run()
    assert "**Not blind:** the filters or the order" in said(page)
    press(page, "Step 1")
    press(page, "Save")
    assert [one.blind for one in store.all()] == [False] and "Not blind" not in said(page)


def test_an_expression_filters_and_one_that_is_none_is_said(store: Annotations) -> None:
    page = open_page()
    ids = page.dataframe[0].value["trace_id"].tolist()
    lengths = page.dataframe[0].value["length"].tolist()
    page.text_input(key="where").set_value(f"length == {lengths[0]}").run()
    assert page.dataframe[0].value["trace_id"].tolist() == [
        one for one, length in zip(ids, lengths, strict=True) if length == lengths[0]
    ]
    told = page.text_input(key="where").help.splitlines()
    assert len(told) == len(expression.NAMES)
    assert any(
        one.startswith("- **steps**, a number: ") and "the line of its final answer is none" in one for one in told
    )
    for wrong, words in (
        ("length <", "not complete, or not one, at its end; an example: "),
        ("length == 'a'", "length is a number, 'a' a text: they cannot be compared"),
        ("lenght > 3", "'lenght' is not known; did you mean length?"),
    ):
        page.text_input(key="where").set_value(wrong).run()
        assert not page.exception and said(page).count(words) == 1  # once, and no list of all names beside it
        assert [one.value for one in page.error] == [
            "The expression is not applied: the Filter says what is wrong with it."
        ]
        assert "false_equations" not in said(page)


def test_steps_are_counted_in_filters_and_in_the_list_as_the_page_numbers_them(store: Annotations) -> None:
    """``steps > 3`` listed a solution of three steps: its answer line was counted."""
    page = open_page()
    counts = page.dataframe[0].value["n_steps"].tolist()
    keyed = [one.label for one in page.button if str(one.key).startswith("choice_") and one.label.startswith("Step ")]
    assert counts[0] == len(keyed)
    page.text_input(key="where").set_value(f"steps == {counts[0]}").run()
    assert page.dataframe[0].value["n_steps"].tolist() == [one for one in counts if one == counts[0]]
    page.toggle(key="model_first").set_value(True).run()
    assert set(page.dataframe[0].value["n_steps"]) == {counts[0]}


def test_a_link_opens_the_page_on_its_filters(store: Annotations) -> None:
    page = AppTest.from_file(str(PAGE), default_timeout=60)
    query = failures.Query("all", words="a", sort="length", descending=True, where="steps > 0")
    for name, value in slices.parameters("mine", query).items():
        page.query_params[name] = value
    page.run()
    assert not page.exception and page.segmented_control(key="outcome").value == "all"
    assert page.text_input(key="where").value == "steps > 0" and page.selectbox(key="sort").value == "length"
    lengths = page.dataframe[0].value["length"].tolist()
    assert lengths == sorted(lengths, reverse=True)
    page.text_input(key="where").set_value("").run()  # it is opened once, and changed from there on
    assert page.text_input(key="where").value == ""
    page = AppTest.from_file(str(PAGE), default_timeout=60)
    page.query_params[slices.PARAMETER] = slices.parameters("gone", query)[slices.PARAMETER]
    page.run()
    assert "is not here" in page.warning[0].value and page.text_input(key="where").value == ""
    page.query_params[slices.PARAMETER] = "damaged"
    page.run()
    assert not page.exception and "not readable" in page.error[0].value and len(page.dataframe[0].value) == 5


def test_words_are_not_looked_for_in_ids_while_one_judges_blind(store: Annotations, tmp_path: Path) -> None:
    """'slip' as a word of an id said which solutions have a slip, and left the answers blind."""
    rename(tmp_path, "slip-{}/wrong")
    page = open_page()
    field = page.text_input(key="words")
    assert field.label == "Words in problem or solution"
    field.set_value("slip-3").run()
    assert "None of the 5 solutions passes these filters." in page.info[0].value
    assert not page.exception and "No solution passes the filter" in said(page)  # slices of nothing ended the page
    page.toggle(key="model_first").set_value(True).run()
    assert page.text_input(key="words").value == "slip-3"
    assert page.text_input(key="words").label == "Words in problem, solution or its id"
    assert page.dataframe[0].value["trace_id"].tolist() == ["slip-3/wrong"]


def filters_on(page: AppTest) -> list[str]:
    """The filters that are said to be on, above the list."""
    return [one.label.replace("\\", "") for one in page.button if str(one.key).startswith("active_")]


def test_filters_that_are_on_are_named_and_each_is_taken_off(store: Annotations) -> None:
    page = AppTest.from_file(str(PAGE), default_timeout=60)
    query = failures.Query(
        "incorrect", verdicts=("error", "unread"), true_steps=(-1, 0), words="a", sort="n_steps", descending=True,
        where="steps > 0", scores=(-2.0, 3.0),
    )  # fmt: skip
    page.query_params.update(slices.parameters("mine", query))
    page.run()
    found = filters_on(page)
    assert found == [
        "answer incorrect", "with \u201ca\u201d", "steps > 0", "verdict: an error", "true first error: step 1",
        "mean discounted reward \u22122.00 to +3.00", "by number of steps, highest first",
    ]  # fmt: skip
    while found:
        press(page, next(one.label for one in page.button if str(one.key).startswith("active_")))
        left = filters_on(page)
        assert left == found[1:]
        found = left
    assert page.session_state["outcome"] == "all" and len(page.dataframe[0].value) == 5
    page.toggle(key="adjudicate").set_value(True).run()
    assert "None of the 5 solutions passes" in page.info[0].value and filters_on(page) == ["annotators disagree"]
    press(page, "annotators disagree")
    assert len(page.dataframe[0].value) == 5 and not filters_on(page)


def choose_slice(page: AppTest, place: int) -> None:
    next(one for one in page.selectbox if one.label == "Choose of Slices").set_value(place).run()
    assert not page.exception


def test_slices_are_of_the_rows_that_pass_and_a_choice_narrows_the_filter(store: Annotations, tmp_path: Path) -> None:
    """They were of the whole run, and a choice threw the filter away and showed the right solutions too."""
    path = tmp_path / "mine" / "run.parquet"
    rows = read_run(path).to_pylist()
    for number, row in enumerate(rows):
        row |= {"family": ("rates", "money")[number % 2], "length": 10 * (number + 1), "correct": number == 4}
    write_run(path, rows, {"checkpoint": "demo"})
    page = open_page()
    page.text_input(key="where").set_value("length < 40 or length > 90").run()
    assert "2 slices of the 3 solutions after the filter." in said(page)
    table = page.dataframe[1].value
    assert table[["slice", "solutions"]].values.tolist() == [["rates", 2], ["money", 1]]
    choose_slice(page, 0)
    assert page.text_input(key="where").value == "(length < 40 or length > 90) and family == 'rates'"
    assert page.segmented_control(key="outcome").value == "incorrect"
    assert page.dataframe[0].value["length"].tolist() == [10, 30]
    assert "1 slice of the 2 solutions after the filter." in said(page)
    page.segmented_control(key="outcome").set_value("all")
    page.text_input(key="where").set_value("").run()
    assert page.dataframe[1].value[["slice", "wrong"]].values.tolist() == [["money", 2], ["rates", 2]]


def test_a_filter_that_nothing_passes_leaves_the_page_whole(store: Annotations) -> None:
    page = open_page()
    for field, value in (("where", "length > 100000"), ("words", "zebra")):
        page.text_input(key="where").set_value("")
        page.text_input(key="words").set_value("")
        page.text_input(key=field).set_value(value).run()
        assert not page.exception and "passes these filters" in page.info[0].value
        for by in ("family", "kind", "length"):
            next(one for one in page.segmented_control if one.label == "Slices by").set_value(by).run()
            assert not page.exception and "No solution passes the filter" in said(page)


def test_kinds_of_few_solutions_are_not_listed_while_one_judges_blind(store: Annotations) -> None:
    page = open_page()
    page.segmented_control[-1].set_value("kind").run()
    assert "a list of the kinds would tell you the label" in said(page) and len(page.dataframe) == 1
    page.toggle(key="model_first").set_value(True).run()
    assert len(page.dataframe) == 2
