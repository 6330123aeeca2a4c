"""The Failures page: blind until answered, kept by trace and annotator, read-only where the file is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from app import access
from app.analysis import annotating, catalogue, chooser, failures, slices
from irl_core import errors
from irl_core.data.annotations import Annotations, text_hash, to_jsonl
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import PROVENANCE_KEY, read_run
from train import calibrate_annotated

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
BUNDLED = MAIN.parents[1] / "assets" / "scored_run" / "run.parquet"
pytestmark = pytest.mark.usefixtures("fake_lens")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Annotations:
    """A run of five wrong traces as the only one, and a database of its own."""
    rows = [row for row in read_run(BUNDLED).slice(0, 200).to_pylist() if row["correct"] is False]
    found = list({(row["problem"], row["text"]): row for row in rows}.values())[:5]
    write_run(tmp_path / "mine" / "run.parquet", found, {"checkpoint": "demo"})
    monkeypatch.setattr(catalogue, "default_roots", lambda: (tmp_path,))
    monkeypatch.setattr(failures, "DATABASE", tmp_path / "annotations.sqlite")
    chooser.catalogue.clear()
    return Annotations(tmp_path / "annotations.sqlite")


def open_page() -> AppTest:
    page = AppTest.from_file(str(MAIN.with_name("views") / "failures.py"), default_timeout=60)
    page.run()
    assert not page.exception
    return page


def press(page: AppTest, label: str) -> None:
    next(one for one in page.button if one.label == label).click().run()
    assert not page.exception


def listed(page: AppTest) -> list[str]:
    """The ids of the solutions in the list, which calls them by their rows while one judges blind."""
    found = catalogue.find("mine")
    assert found is not None
    ids = read_run(found.path).column("trace_id").to_pylist()
    return [ids[int(name.removeprefix("row ")) - 1] for name in page.dataframe[0].value["trace_id"]]


def said(page: AppTest) -> str:
    return " ".join(one.value.replace("\\", "") for one in (*page.markdown, *page.caption))


def drawn(page: AppTest) -> list[Any]:
    return list(page.get("bidi_component"))


def test_nothing_of_the_model_is_shown_before_the_answer(store: Annotations) -> None:
    page = open_page()
    assert not drawn(page) and not page.success
    assert not set(failures.TELLING) & set(page.dataframe[0].value.columns)
    press(page, "Step 1")
    assert not drawn(page) and not store.all()  # chosen, not saved
    press(page, "Save")
    (one,) = store.all()
    assert (one.label, one.blind, one.annotator) == ("step 1", True, "local")
    words = page.success[0].value.replace("\\", "")
    (heatmap,) = drawn(page)
    said = json.loads(heatmap.proto.json)["verdict"]
    assert words.startswith(f"You said: step 1. {said['headline']}.") and "reward" in [
        f["by"] for f in said["findings"]
    ]


def test_an_id_tells_nothing_before_the_answer(store: Annotations, tmp_path: Path) -> None:
    """Ids such as 'slip/wrong' answered what was asked, in the list and in the heading."""
    path = tmp_path / "mine" / "run.parquet"
    rows = [row | {"trace_id": f"slip-{number}/wrong"} for number, row in enumerate(read_run(path).to_pylist())]
    write_run(path, rows, {"checkpoint": "demo"})
    page = open_page()
    names = page.dataframe[0].value["trace_id"].tolist()
    assert all(name.startswith("row ") for name in names) and page.subheader[0].value == names[0]
    press(page, "Step 1")
    press(page, "Save")
    place = int(names[0].removeprefix("row ")) - 1
    assert page.subheader[0].value == f"slip\\-{place}/wrong"
    assert page.dataframe[0].value["trace_id"][0] == f"slip-{place}/wrong"
    assert page.dataframe[0].value["trace_id"][1:].tolist() == names[1:]
    press(page, "Next")
    assert page.dataframe[0].value["here"][0] == "\u2713 1"


def test_who_saw_the_model_first_is_not_blind(store: Annotations) -> None:
    page = open_page()
    page.toggle(key="model_first").set_value(True).run()
    assert drawn(page) and "verdict" in page.dataframe[0].value.columns
    press(page, "No step is wrong")
    press(page, "Save")
    assert [(one.label, one.blind) for one in store.all()] == [("none", False)]


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


def test_a_damaged_file_is_left_and_the_page_reads_on(store: Annotations) -> None:
    store.path.write_bytes(b"no database" * 100)
    page = open_page()
    assert "is damaged" in page.error[0].value and len(page.dataframe[0].value) == 5
    assert "Save" not in [one.label for one in page.button]
    press(page, "Next")
    assert store.path.read_bytes() == b"no database" * 100


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


def test_any_place_of_the_list_is_gone_to(store: Annotations) -> None:
    page = open_page()
    ids = listed(page)
    place = page.number_input(key="place")
    assert (place.value, place.min, place.max) == (1, 1, 5)
    place.set_value(3).run()
    assert page.session_state["failure"] == ids[2]
    for label, expected in (("Last", 5), ("Previous", 4), ("First", 1)):
        press(page, label)
        assert page.session_state["failure"] == ids[expected - 1] and page.number_input(key="place").value == expected


def test_next_goes_through_traces_of_one_id_and_an_answer_stays_with_its_own(
    store: Annotations, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "mine" / "run.parquet"
    write_run(path, [row | {"trace_id": "same"} for row in read_run(path).to_pylist()], {"checkpoint": "demo"})
    fifth = read_run(path, ["problem", "text"]).to_pylist()[4]
    page = open_page()
    for place in range(1, 5):
        press(page, "Step 1")
        press(page, "Next")
        assert page.number_input(key="place").value == place + 1 and page.session_state["choice"] is None
    press(page, "Step 1")
    press(page, "Save")
    assert page.number_input(key="place").value == 5
    assert [one.text_sha256 for one in store.all()] == [text_hash(fifth["problem"], fifth["text"])]


def test_one_bad_file_closes_no_page(store: Annotations, tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "mine" / "run.parquet")
    metadata = dict(table.schema.metadata) | {PROVENANCE_KEY: b"[1]"}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "bad.parquet")
    page = AppTest.from_file(str(MAIN), default_timeout=60).run()
    for name in ("failures", "distributions", "correlations", "reranking"):
        page.switch_page(f"views/{name}.py").run()
        assert not page.exception and not page.main.error
        words = [one.value.replace("\\", "") for one in page.main.caption]
        assert any(
            one.startswith("Not offered: bad. bad.parquet: its provenance is not a JSON object") for one in words
        )


def test_an_order_that_tells_the_answer_is_warned_of_where_one_answers(store: Annotations) -> None:
    page = open_page()
    assert not page.warning
    page.selectbox(key="sort").set_value("score_mean_discounted").run()
    assert page.warning[0].value.startswith("Not blind:")
    press(page, "Step 1")
    press(page, "Save")
    assert [one.blind for one in store.all()] == [False] and not page.warning


def test_a_second_answer_is_said_not_to_count_beside_a_blind_one(store: Annotations) -> None:
    page = open_page()
    press(page, "Step 1")
    press(page, "Save")
    assert "counts" not in page.toast[0].value
    press(page, "Unsure")
    assert "You said step 1 before you saw the model's answer" in said(page)
    assert "that goes on counting; Save notes unsure beside it." in said(page)
    press(page, "Save")
    assert [(one.label, one.blind) for one in store.all()] == [("step 1", True), ("unsure", False)]
    assert "What counts is your blind answer before" in page.toast[0].value


def test_a_judgement_that_is_changed_is_said_before_and_after(store: Annotations) -> None:
    page = open_page()
    page.toggle(key="model_first").set_value(True)
    press(page, "Step 1")
    assert "You said" not in said(page)
    for button in ("Save", "Step 1"):
        press(page, button)
    assert "You said step 1 before. Save keeps that" in said(page)
    press(page, "Save")
    assert page.toast[0].value.startswith("As before") and len(store.all()) == 1
    press(page, "Step 2")
    assert "You said step 1 before. Save changes it to step 2." in said(page)
    press(page, "Save")
    assert "Changed from step 1 to step 2 in " in page.toast[0].value and "Undo with Z" in page.toast[0].value
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


def test_an_answer_is_undone_and_the_next_one_is_not_blind(store: Annotations) -> None:
    page = open_page()
    assert "Undo" not in [one.label for one in page.button]
    press(page, "Step 1")
    press(page, "Save")
    press(page, "Undo")
    assert store.all() == [] and not drawn(page) and not page.success
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
    assert calibrate_annotated.agreed_labels(store.all()).steps == {last.text_sha256: 0}
    page.toggle(key="adjudicate").set_value(False)
    page.text_input(key="annotator").set_value("adjudicated").run()
    press(page, "Next")
    press(page, "Step 1")
    press(page, "Save")
    assert any("take your own" in one.value for one in page.error) and len(store.all()) == 3


def test_an_expression_filters_and_one_that_is_none_is_said(store: Annotations) -> None:
    page = open_page()
    ids = page.dataframe[0].value["trace_id"].tolist()
    lengths = page.dataframe[0].value["length"].tolist()
    page.text_input(key="where").set_value(f"length == {lengths[0]}").run()
    assert page.dataframe[0].value["trace_id"].tolist() == [
        one for one, length in zip(ids, lengths, strict=True) if length == lengths[0]
    ]
    for wrong, said in (("length <", "is not complete"), ("length == 'a'", "compares a number with a text")):
        page.text_input(key="where").set_value(wrong).run()
        assert not page.exception and said in page.error[0].value.replace("\\", "")


def test_a_link_opens_the_page_on_its_filters(store: Annotations) -> None:
    page = AppTest.from_file(str(MAIN.with_name("views") / "failures.py"), default_timeout=60)
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
    page = AppTest.from_file(str(MAIN.with_name("views") / "failures.py"), default_timeout=60)
    page.query_params[slices.PARAMETER] = slices.parameters("gone", query)[slices.PARAMETER]
    page.run()
    assert "is not here" in page.warning[0].value and page.text_input(key="where").value == ""
    page.query_params[slices.PARAMETER] = "damaged"
    page.run()
    assert not page.exception and "not readable" in page.error[0].value and len(page.dataframe[0].value) == 5


def test_the_reference_is_shown_with_the_differences(store: Annotations) -> None:
    page = open_page()
    assert any(":green-background[" in one.value for one in page.markdown)
    page.toggle(key="differences").set_value(False).run()
    assert not any("-background[" in one.value for one in page.markdown)


# ------------------------------------------------------------------------------------------------- who it is, and may


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
