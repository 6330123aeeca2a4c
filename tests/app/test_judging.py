"""The form of the Failures page: what is said of a solution is kept by text and annotator, changed, undone, settled."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import access
from app.analysis import annotating
from irl_core import errors
from irl_core.data.annotations import Annotations, to_jsonl
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run
from tests.app.failures_page import drawn, listed, open_page, own_lines, press, said, told
from train import calibrate_annotated

pytestmark = pytest.mark.usefixtures("fake_lens")


def test_two_annotators_on_a_trace_are_both_kept(store: Annotations) -> None:
    page = open_page()
    for name, label in (("ada", "Step 1"), ("ben", "Unsure")):
        page.text_input(key="annotator").set_value(name).run()
        assert not drawn(page)  # what another has said reveals nothing
        press(page, label)
        press(page, "Save")
    first, second = store.all()
    assert (first.annotator, first.label, second.annotator, second.label) == ("ada", "step 1", "ben", "unsure")
    assert first.trace_id == second.trace_id and second.blind


COUNTED_FROM_0 = ("Step 0: He has 3 + 4 = 7 pens.", "Step 1: He gives 2 away, 7 - 2 = 6.", "The answer is 6.")


@pytest.fixture
def counted_from_0(store: Annotations, tmp_path: Path) -> None:
    """A solution that numbers its own steps from 0 as the first of the run, wrong by its label in its second step."""
    path = tmp_path / "mine" / "run.parquet"
    rows = read_run(path).to_pylist()
    text, steps = "\n".join(COUNTED_FROM_0), []
    for place, words in enumerate(COUNTED_FROM_0):
        start = text.index(words)
        steps.append({"start": start, "end": start + len(words), "text": words, "score": None,
                      "role": "reasoning" if place < 2 else "answer"})  # fmt: skip
    rows[0] |= {"text": text, "steps": steps, "true_first_error_step": 1, "arithmetic_first_false_step": 1,
                "arithmetic_false": 1, "prompt_reward": None, "decision": None}  # fmt: skip
    write_run(path, rows, {"checkpoint": "demo"})


@pytest.mark.usefixtures("counted_from_0")
def test_a_step_goes_by_the_number_of_the_text_and_its_key_by_its_place(store: Annotations) -> None:
    page = open_page()
    choices = {one.key: one.label for one in page.button if str(one.key).startswith("choice_")}
    assert [choices[f"choice_{place}"] for place in range(3)] == ["Step 0", "Step 1", "Answer line"]
    keys = "Keys: 1 is step 0, 2 is step 1, 3 is the answer line, 0 none, U unsure."
    assert keys in said(page) and any(keys in one.help for one in page.markdown if one.help)
    assert COUNTED_FROM_0[0] in [one.value for one in page.text]
    press(page, "Step 1")
    press(page, "Save")
    (one,) = store.all()
    assert one.step == 1  # what is stored counts by position
    assert told(page).startswith("Saved: step 1 in ")
    assert own_lines(page)[0] == "**You** said: step 1." and own_lines(page)[2].startswith("**The label**: step 1")
    assert page.dataframe[0].value["mine"][0] == "step 1"
    press(page, "Step 0")
    assert "Save notes step 0 beside it." in said(page)
    page.toggle(key="model_first").set_value(True).run()
    first = page.dataframe[0].value.iloc[0]
    assert first["verdict"] == "step 1, arithmetic" and first["true_first_error_step"] == "step 1"
    press(page, "Next")
    assert "Keys: 1 to 9 a step, 0 none, U unsure." in said(page)
    assert next(one.label for one in page.button if one.key == "choice_0") == "Step 1"


@pytest.mark.usefixtures("counted_from_0")
def test_steps_in_which_words_are_marked_show_the_number_of_the_text_once(store: Annotations) -> None:
    page = open_page()
    page.toggle(key="more_asked").set_value(True).run()
    (component,) = drawn(page)
    assert [one["name"] for one in json.loads(component.proto.json)["steps"]] == ["", "", "Answer line"]


def test_what_was_saved_is_told_to_who_saved_it_on_that_run(store: Annotations) -> None:
    """A toast of the annotator before stood over the page after another had taken over."""
    page = open_page()
    page.text_input(key="annotator").set_value("ada").run()
    assert not told(page)
    press(page, "Step 1")
    press(page, "Save")
    name = store.all()[0].trace_id
    assert told(page) == f"Saved: step 1 in {name}. Undo with Z."
    press(page, "Next")
    assert told(page) == f"Saved: step 1 in {name}."  # Z is of the solution in sight
    page.text_input(key="annotator").set_value("ben").run()
    assert not told(page)
    page.text_input(key="annotator").set_value("ada").run()
    assert not told(page) and not page.toast


def test_what_cannot_be_saved_is_said_and_the_choice_stays(store: Annotations, monkeypatch: pytest.MonkeyPatch) -> None:
    from irl_core.data import annotations as module

    page = open_page()
    press(page, "Step 1")

    def full(*args: Any) -> None:
        raise errors.AnnotationError("annotations.sqlite: the disk is full")

    monkeypatch.setattr(module.Annotations, "add", full)
    press(page, "Save")
    assert any("Not saved" in one.value and "the disk is full" in one.value for one in page.error)
    assert page.session_state["choice"] == "0" and not store.all()


def test_a_second_answer_is_said_not_to_count_beside_a_blind_one(store: Annotations) -> None:
    page = open_page()
    press(page, "Step 1")
    press(page, "Save")
    assert "counts" not in told(page)
    press(page, "Unsure")
    assert "You said step 1 before you saw the model's answer" in said(page)
    assert "that goes on counting; Save notes unsure beside it." in said(page)
    press(page, "Save")
    assert [(one.label, one.blind) for one in store.all()] == [("step 1", True), ("unsure", False)]
    assert "What counts is your blind answer before" in told(page)
    assert own_lines(page)[0] == (
        "**You** said: step 1, before you saw the model's answer; later you noted: unsure, which does not count."
    )


def test_undo_takes_back_the_newest_answer_first_and_says_which(store: Annotations) -> None:
    """It withdrew the blind one, and the later one, which had not counted, counted then."""
    page = open_page()
    for choice in ("Step 1", "Unsure"):
        press(page, choice)
        press(page, "Save")
    button = next(one for one in page.button if one.label == "Undo")
    assert button.help == "Withdraws what you noted last, unsure. Your blind answer, step 1, goes on counting."
    press(page, "Undo")
    assert [(one.label, one.blind) for one in store.all()] == [("step 1", True)]
    assert told(page) == ("Undone: unsure, which you noted last. What counts is your blind answer: step 1.")
    assert own_lines(page)[0] == "**You** said: step 1."
    press(page, "Undo")
    assert store.all() == [] and told(page) == "Undone: step 1."


def test_a_judgement_that_is_changed_is_said_before_and_after(store: Annotations) -> None:
    page = open_page()
    page.toggle(key="model_first").set_value(True)
    press(page, "Step 1")
    assert "You said" not in said(page)
    for button in ("Save", "Step 1"):
        press(page, button)
    assert "You said step 1 before. Save keeps that" in said(page)
    press(page, "Save")
    assert told(page).startswith("As before") and len(store.all()) == 1
    press(page, "Step 2")
    assert "You said step 1 before. Save changes it to step 2." in said(page)
    press(page, "Save")
    assert "Changed from step 1 to step 2 in " in told(page) and "Undo with Z" in told(page)
    press(page, "Undo")
    assert [one.label for one in store.all()] == ["step 1"]


def test_a_second_enter_before_the_page_is_drawn_anew_saves_once_and_goes_on(store: Annotations) -> None:
    """It saved a second time, not blind, or did nothing, as the first had come so far."""
    page = open_page()
    ids = listed(page)
    press(page, "Step 1")
    once, words = annotating.save, annotating.judgements.saved_words

    def cut(*_: Any) -> None:
        raise InterruptedError  # as Streamlit ends a run for the next one, at any look into the session

    def save(*asked: Any) -> None:
        with pytest.MonkeyPatch.context() as first, pytest.raises(InterruptedError):
            first.setattr(annotating.judgements, "saved_words", cut)
            once(*asked)
        assert annotating.judgements.saved_words is words
        once(*asked)

    page.session_state["choice"] = "0"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(annotating, "save", save)
        page.run()
        press(page, "Save")
    assert [(one.label, one.blind) for one in store.all()] == [("step 1", True)]
    assert page.session_state["failure"] == ids[1]
    press(page, "Step 1")
    press(page, "Save")
    assert page.session_state["failure"] == ids[1] and len(store.all()) == 2


def test_what_was_said_stands_with_the_answer_and_in_the_form(store: Annotations) -> None:
    """Severity, words, category and note were gone from the page after Save."""
    page = open_page()
    page.toggle(key="more_asked").set_value(True).run()
    placeholders = {name: page.text_input(key=name).placeholder for name in ("note", "wrong_words")}
    assert placeholders == {"note": "Note", "wrong_words": "Wrong words"}  # what is longer is cut off
    press(page, "Step 1")
    said_of = {"category": "arithmetic", "note": "carries on", "severity": "major", "wrong_words": "gains"}
    page.selectbox(key="category").set_value(said_of["category"])
    page.selectbox(key="severity").set_value(said_of["severity"])
    page.text_input(key="note").set_value(said_of["note"])
    page.text_input(key="wrong_words").set_value(said_of["wrong_words"])
    press(page, "Save")
    whole = "**You** said: step 1 (arithmetic, major, the words \u201cgains\u201d, note \u201ccarries on\u201d)."
    assert own_lines(page)[0] == whole
    assert {name: page.session_state[name] for name in said_of} == said_of
    press(page, "Step 1")
    press(page, "Save")
    assert len(store.all()) == 1  # the form began with what was said, and nothing was changed
    press(page, "Step 2")  # which does not hold the words
    assert page.text_input(key="wrong_words").value == "" and page.selectbox(key="severity").value == "major"
    press(page, "Save")
    assert store.all()[-1].label == "step 2" and own_lines(page)[0].startswith(whole[:-1])
    page.text_input(key="annotator").set_value("ben").run()
    assert page.text_input(key="note").value == "" and page.selectbox(key="category").value == ""
    press(page, "Next")
    press(page, "Step 1")
    assert page.text_input(key="wrong_words").value == "" and page.selectbox(key="severity").value == ""


def test_an_answer_is_undone_and_the_next_one_is_not_blind(store: Annotations) -> None:
    page = open_page()
    assert "Undo" not in [one.label for one in page.button]
    press(page, "Step 1")
    press(page, "Save")
    press(page, "Undo")
    assert store.all() == [] and not drawn(page) and not own_lines(page)
    press(page, "No step is wrong")
    press(page, "Save")
    assert [(one.label, one.blind) for one in store.all()] == [("none", False)]  # the model's answer was shown


def test_a_disagreement_is_settled_in_the_name_of_all(store: Annotations) -> None:
    page = open_page()
    for name, label in (("ada", "Step 1"), ("ben", "No step is wrong")):
        page.text_input(key="annotator").set_value(name).run()
        press(page, label)
        press(page, "Save")
    page.text_input(key="annotator").set_value("cy")
    page.toggle(key="adjudicate").set_value(True).run()
    assert len(page.dataframe[0].value) == 1 and not drawn(page)  # nobody has settled it: it is blind
    assert "ada: step 1\nben: none" in [one.value for one in page.text]
    press(page, "Step 1")
    press(page, "Save")
    last = store.all()[-1]
    assert (last.annotator, last.label, last.note, last.blind) == ("adjudicated", "step 1", "cy", True)
    assert page.text_input(key="note").value == ""  # who settles it is no note
    assert calibrate_annotated.agreed_labels(store.all()).steps == {last.text_sha256: 0}
    page.toggle(key="adjudicate").set_value(False)
    page.text_input(key="annotator").set_value("adjudicated").run()
    press(page, "Next")
    press(page, "Step 1")
    press(page, "Save")
    assert any("take your own" in one.value for one in page.error) and len(store.all()) == 3


@pytest.fixture
def visitor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Ada, who is logged in on a server where she may annotate."""
    someone: dict[str, Any] = {"is_logged_in": True, "email": "ada@example.org"}
    (tmp_path / "access.toml").write_text('annotate = ["ada@example.org"]\n')
    monkeypatch.setenv(access.VARIABLE, str(tmp_path / "access.toml"))
    monkeypatch.setattr(access, "user", lambda: someone)
    return someone


def test_the_name_is_that_of_who_is_logged_in_whatever_the_widget_sends(
    store: Annotations, visitor: dict[str, Any]
) -> None:
    page = open_page()
    press(page, "Step 1")
    field = page.text_input(key="annotator")
    field.proto.disabled = False  # a browser is made to send it all the same
    field.set_value("ben@example.org")
    press(page, "Save")
    (one,) = store.all()
    assert (one.annotator, one.label) == ("ada@example.org", "step 1")


def test_a_right_withdrawn_since_the_page_was_drawn_does_not_write(
    store: Annotations, visitor: dict[str, Any], tmp_path: Path
) -> None:
    page = open_page()
    press(page, "Step 1")
    (tmp_path / "access.toml").write_text("annotate = []\n")
    press(page, "Save")
    assert store.all() == []
    assert [one.value.replace("\\", "").replace("\u2060", "") for one in page.error] == [
        "Not saved: ada@example.org may not annotate here; ask who runs this server."
    ]


def test_who_has_logged_out_since_the_page_was_drawn_does_not_write(
    store: Annotations, visitor: dict[str, Any]
) -> None:
    page = open_page()
    press(page, "Step 1")
    visitor["is_logged_in"] = False
    press(page, "Save")
    assert store.all() == [] and page.error[0].value.replace("\\", "") == "Not saved: Log in to annotate."


def test_a_save_without_a_choice_writes_nothing(store: Annotations) -> None:
    page = open_page()
    next(one for one in page.button if one.label == "Save").proto.disabled = False
    press(page, "Save")
    assert store.all() == []


def test_an_import_is_written_down_with_who_imported_it(store: Annotations, visitor: dict[str, Any]) -> None:
    page = open_page()
    press(page, "Step 1")
    press(page, "Save")
    (own,) = store.all()
    forged = replace(own, annotator="ben@example.org", created="2020-01-01T00:00:00+00:00")
    page.file_uploader(key="import").upload("all.jsonl", to_jsonl([own, forged]).encode(), "application/x-ndjson").run()
    press(page, "Import")
    assert store.all() == [own, replace(forged, importer="ada@example.org")]
