"""The values on the Inspect page, with a lens whose rewards can be computed by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.inspect import examples, results, serving
from app.inspect.links import pack, unpack
from irl_core.policy.familiarity import Familiarity

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
pytestmark = pytest.mark.usefixtures("fake_lens")


def open_page(**parameters: str) -> AppTest:
    page = AppTest.from_file(str(MAIN), default_timeout=60)
    for name, value in parameters.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def chooser(page: AppTest) -> Any:
    """The chooser of an example; a new one follows where the text is no longer the example's."""
    return next(one for one in page.selectbox if one.label == "Example")


def drawn(page: AppTest) -> list[dict[str, Any]]:
    """The data of each heatmap on the page."""
    return [json.loads(block.proto.json) for block in page.get("bidi_component")]


def ask(page: AppTest, problem: str, solution: str = "", answer: str = "") -> AppTest:
    page.text_area(key="problem").set_value(problem)
    page.text_area(key="solution").set_value(solution)
    page.text_input(key="answer").set_value(answer)
    next(button for button in page.button if button.label == "Inspect").click()
    page.run()
    assert not page.exception
    return page


def test_the_first_example_is_inspected_at_once() -> None:
    (data,) = drawn(open_page())
    assert data["trace"]["text"].startswith("Mara starts with 7 pens.")
    assert data["verdict"]["headline"] == "Step 2: 7 + 4 is 11, not 12" and data["verdict"]["by"] == "arithmetic"
    assert [one["by"] for one in data["verdict"]["findings"]] == ["arithmetic", "answer", "reward"]
    assert data["title"] == "Your solution \u00b7 answer 12, incorrect"
    assert "Layout recognised: GSM8K" in data["caption"]


def test_token_values_are_those_of_the_signals() -> None:
    # raw of 'pens', '=', ' ', '4': 1.5, -3, 0, 0.75; credit: each minus the one before, the first minus 0;
    # standardised with mean 0.5 and deviation 1; discounted from the back, gamma 0.9, the end token's -0.5 last
    (data,) = drawn(ask(open_page(), "How many?", "pens= 4"))
    tokens = data["trace"]["tokens"]
    assert [token["raw"] for token in tokens] == [1.5, -3.0, 0.0, 0.75, 0.0]
    assert [token["credit"] for token in tokens] == [1.5, -4.5, 3.0, 0.75, -0.75]
    assert [token["standardised"] for token in tokens] == [1.0, -3.5, -0.5, 0.25, -0.5]
    assert tokens[3]["discounted"] == pytest.approx(0.25 + 0.9 * -0.5)
    assert [token["id"] for token in tokens] == [100, 101, 102, 103, 104]


def test_sliders_and_views_run_no_model() -> None:
    page = open_page()
    before = dict(fakes.calls)
    assert "gamma" not in [one.key for one in page.slider]  # no effect on credit
    page.session_state["view"] = "discounted"  # as the heatmap tells it
    page.session_state["gamma"] = 0.5
    page.run()
    assert "gamma" not in [one.key for one in page.slider]  # the heatmap asks for it
    (data,) = drawn(page)
    assert (data["gamma"], data["strength"], data["view"]) == (0.5, 1.0, "discounted")
    assert data["ranges"]["discounted"] == pytest.approx(4.2)  # 3 * sqrt(1 / (1 - 0.5))
    assert dict(fakes.calls) == before == {"load": 1, "score": 1}


def test_the_discount_of_the_ranking_is_asked_for_where_the_heatmap_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fakes.FakeLens, "default_trace_score", "mean_discounted")
    page = open_page()
    chooser(page).set_value(None).run()
    ask(page, "How many pens?")
    before = [one["trace"]["trace_score"] for one in drawn(page)]
    page.slider(key="gamma").set_value(0.5).run()
    assert [one["trace"]["trace_score"] for one in drawn(page)] != before
    page.session_state["view"] = "discounted"
    page.run()
    assert "gamma" not in [one.key for one in page.slider] and page.session_state["gamma"] == 0.5
    assert drawn(page)[0]["gamma"] == 0.5 and not page.exception


def test_samples_are_ranked_with_the_majority_marked_and_two_can_be_compared() -> None:
    page = open_page()
    chooser(page).set_value(None).run()  # else the answer would be the example's
    ask(page, "How many pens?", "", "11")
    table = next(one.value for one in page.dataframe if "rank" in one.value)
    assert len(table) == 8 and fakes.calls["sample"] == 1
    assert list(table["score (lowest reward)"]) == sorted(table["score (lowest reward)"], reverse=True)
    answers = list(table["answer"])
    top = max(set(answers), key=answers.count)
    marked = [f"yes, {answers.count(top)} of 8" if answer == top else "" for answer in answers]
    assert list(table["majority"]) == marked
    assert list(table["correct"]) == ["yes" if answer == "11" else "no" for answer in answers]
    page.selectbox(key="versus").set_value(5).run()
    both = drawn(page)
    assert len(both) == 2 and both[0]["ranges"] == both[1]["ranges"]
    assert both[1]["title"].startswith("Solution 6 of 8")
    assert fakes.calls["sample"] == 1


def test_samples_that_the_model_cannot_judge_have_no_rank_and_stand_as_sampled() -> None:
    page = open_page()
    chooser(page).set_value(None).run()
    ask(page, "A quantum of pens?", "", "11")
    (table,) = [one.value for one in page.dataframe if "majority" in one.value]
    assert list(table["solution"]) == list(range(1, 9)) and not {"rank", "score (lowest reward)"} & set(table)
    right = list(table["correct"]).count("yes")
    said = next(one.value for one in page.text if one.value.startswith("Majority answer: "))
    assert said.endswith(
        f" {right} of 8 answers are right. No equation in them is false. The model cannot judge these solutions, which "
        "have no rank and stand in the order in which they were sampled."
    )
    kinds = [one.type for one in page.main]
    assert kinds.index("text") < kinds.index("info")  # what holds without a model first
    assert page.selectbox(key="chosen").options[0].startswith("solution 1 \u00b7 answer ")
    (data,) = drawn(page)
    assert data["title"].startswith("Solution 1 of 8") and "Ranked" not in data["caption"]


def test_only_what_the_model_can_judge_is_ranked() -> None:
    page = open_page()
    chooser(page).set_value(None).run()
    ask(page, "How many pens?", "", "11")
    shown = page.session_state["inspection"]
    assert results.samples_words(shown) == results.majority_words(shown)
    best = results.ranking(shown, 0.9)[0]
    known = [Familiarity(-9.0, 0.0, 0.0, index != best, "by hand") for index in range(8)]
    mixed = replace(shown, familiarity=tuple(known))
    order = results.ranking(mixed, 0.9)
    rows = results.ranking_table(mixed, results.to_result(mixed, 0.9), order)
    assert order[-1] == best and [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6, 7, None]
    assert rows[-1]["score (lowest reward)"] is None is not rows[0]["score (lowest reward)"]
    assert "The model cannot judge 1 of 8 solutions, which have no rank" in results.samples_words(mixed)
    unlike = replace(shown, familiarity=tuple(known[best] for _ in known), written="Written by hand: 9 tokens in all.")
    assert results.written_words(unlike).endswith(
        " tokens in all. The model cannot judge this text, so what its reward chose on the way says nothing."
    )
    assert results.written_words(replace(shown, written="Written by hand.")) == "Written by hand."


@pytest.mark.parametrize(
    ("problem", "solution", "message"),
    [
        ("", "", "The problem is empty"),
        ("  \n ", "x", "The problem is empty"),
        ("a" * 1_000_000, "", "1,000,000 characters; the limit is 20,000"),
        ("How many?", "b" * 20_001, "20,001 characters; the limit is 20,000"),
    ],
)
def test_a_blank_or_overlong_text_is_refused_with_the_limit(problem: str, solution: str, message: str) -> None:
    page = ask(open_page(), problem, solution)
    assert message in page.error[0].value.replace("\\", "")
    assert drawn(page) == []


def test_rewards_that_are_not_numbers_are_no_signal() -> None:
    (data,) = drawn(ask(open_page(), "How many?", "broken 3 = 4"))
    assert data["no_signal"] is True and data["verdict"]["findings"][-1]["says"].startswith("Reward: no signal")
    assert {token["raw"] for token in data["trace"]["tokens"]} == {None}


def test_uncertain_and_no_error_are_said() -> None:
    page = open_page()
    assert (
        drawn(ask(page, "How many?", "unsure 4"))[0]["verdict"]["headline"]
        == "Too uncertain to say: step 1 is more doubtful than is usual in right solutions"
    )
    assert drawn(ask(page, "How many?", "four"))[0]["verdict"]["headline"].startswith("No error found")


def test_the_reward_has_no_say_on_an_unlike_text() -> None:
    page = ask(open_page(), "A quantum of pens?", "7 + 5 = 12\n#### 12", "12")
    (data,) = drawn(page)
    assert data["muted"] is True and data["trace"]["decision"] is None and data["trace"]["confidence"] is None
    said = data["verdict"]
    assert (said["kind"], said["step"]) == ("cannot_judge", None)
    assert said["headline"] == "The answer is right, and its one equation holds; the model cannot judge the rest"
    assert [one["by"] for one in said["findings"]] == ["arithmetic", "answer", "familiarity"]
    assert "load a real model" in page.info[0].value


def test_a_false_equation_is_an_independent_signal() -> None:
    (data,) = drawn(ask(open_page(), "How many?", "7 + 4 = 12\n#### 12"))
    assert [(one["text"], one["value"], one["stated"]) for one in data["trace"]["arithmetic"]] == [
        ("7 + 4 = 12", 11, 12)
    ]


def test_the_address_leads_back_to_the_page() -> None:
    page = ask(open_page(), "How many pens?", "7 + 4 = 11\n#### 11", "11")
    page.session_state["view"] = "raw"
    page.run()
    address = {name: value if isinstance(value, str) else value[0] for name, value in page.query_params.items()}
    assert unpack(address["checkpoint"]) == "fake"  # as the sidebar lists it
    again = open_page(**address)
    assert drawn(again)[0] == drawn(page)[0] and not again.error


@pytest.mark.parametrize(("name", "here"), [("fake", True), ("fake-irl", True), ("", True), ("another", False)])
def test_a_link_names_a_checkpoint_of_the_list_or_by_its_own_name(name: str, here: bool) -> None:
    page = open_page(problem=pack("How many pens?"), solution=pack("7 + 4 = 11"), checkpoint=pack(name))
    assert bool(page.error) is not here and page.selectbox(key="checkpoint").value == "fake"


@pytest.mark.parametrize("parameters", [{"trace": "missing"}, {"problem": "%00"}, {"problem": pack("x"), "n": "99999"}])
def test_a_link_that_is_not_readable_shows_no_trace(parameters: dict[str, str]) -> None:
    page = open_page(**parameters)
    said = page.error[0].value.replace("\\", "")
    assert said.startswith("Not found" if "trace" in parameters else "This link is not readable")
    assert drawn(page) == [] and "score" not in fakes.calls


def test_a_page_too_large_for_a_link_says_so() -> None:
    import random

    noise = "".join(random.Random(2).choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=12_000))
    page = ask(open_page(), "How many?", noise)
    assert any("Too long for a link" in caption.value.replace("\\", "") for caption in page.caption)


def test_a_damaged_checkpoint_is_named_and_not_offered() -> None:
    page = open_page()
    assert page.selectbox(key="checkpoint").options == ["fake"]
    assert any("wrong sha256" in caption.value for caption in page.caption)


def test_torch_is_not_imported_before_the_page_is_drawn() -> None:
    import subprocess
    import sys

    modules = "app.sidebar, app.inspect.session, app.inspect.results, app.inspect.scoring_queue, "
    modules += "app.components.heatmap, irl_core.report.heatmap.export"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=MAIN.parents[1], check=False).returncode == 0


def test_a_result_of_another_problem_is_marked() -> None:
    page = open_page()
    assert not page.warning
    chooser(page).set_value(1).run()
    words = page.warning[0].value.replace("\\", "")
    assert words.startswith("The result of what was asked before, Mara has 7 pens")
    assert any("opacity" in block.proto.body for block in page.get("html"))
    next(button for button in page.button if button.label == "Inspect").click().run()
    assert not page.warning and not page.exception


def test_the_right_answer_of_an_example_is_not_that_of_another_problem() -> None:
    page = open_page()
    page.text_area(key="problem").set_value("How many?")
    next(button for button in page.button if button.label == "Inspect").click().run()
    assert not page.exception
    assert page.text_input(key="answer").value == "" and chooser(page).value is None
    assert page.text_area(key="problem").value == "How many?"
    assert "incorrect" not in drawn(page)[0]["title"]
    assert page.text_input(key="answer").set_value("4") and ask(page, "How many?", "pens= 4", "4")
    assert page.text_input(key="answer").value == "4"
    example = examples.load(examples.file_of("fake"))[0][0]
    assert ask(page, "How many now?", "pens= 4", example.answer)  # one that is the example's too is left alone
    assert page.text_input(key="answer").value == example.answer


def test_a_click_that_another_choice_cut_short_is_served_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_page()
    real, cut = serving.serve, [True]

    def serve(*asked: Any) -> None:
        if cut:
            cut.clear()
            st.stop()  # as a choice that comes between does
        real(*asked)

    monkeypatch.setattr(serving, "serve", serve)
    ask(page, "How many pens?", "7 + 4 = 12")
    page.run()
    (data,) = drawn(page)
    assert data["trace"]["text"] == "7 + 4 = 12"
