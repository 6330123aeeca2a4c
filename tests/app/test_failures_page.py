"""The Failures page: blind until answered, walked through, read-only where the file is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from streamlit.testing.v1 import AppTest

from app.analysis import failures, listing
from app.analysis.upload_records import ABOUT
from app.inspect import links
from irl_core.data.annotations import Annotations, text_hash
from irl_core.data.scored_rows import PROVENANCE_KEY
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run
from irl_core.text.segmentation import make_trace
from tests.app.failures_page import MAIN, captions, drawn, listed, open_page, own_lines, press, rename, said

pytestmark = pytest.mark.usefixtures("fake_lens")


def test_nothing_of_the_model_is_shown_before_the_answer(store: Annotations) -> None:
    page = open_page()
    assert not drawn(page) and not own_lines(page)
    assert not set(failures.TELLING) & set(page.dataframe[0].value.columns)
    press(page, "Step 1")
    assert not drawn(page) and not store.all()  # chosen, not saved
    press(page, "Save")
    (one,) = store.all()
    assert (one.label, one.blind, one.annotator) == ("step 1", True, "local")
    (heatmap,) = drawn(page)
    verdict = json.loads(heatmap.proto.json)["verdict"]
    assert "reward" in [one["by"] for one in verdict["findings"]] and verdict["by"] == "arithmetic"
    assert own_lines(page) == [  # a line for each who speaks
        "**You** said: step 1.",
        f"**The arithmetic check**: {verdict['headline']}.",
        "**The label**: step 1 (slip of arithmetic).",
    ]


def test_an_id_tells_nothing_before_the_answer(
    store: Annotations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids such as 'slip/wrong' answered what was asked, in the list, in the heading and in the saved CSV."""
    rename(tmp_path, "slip-{}/wrong")
    saved: list[list[str]] = []

    def kept(make: Callable[[pd.DataFrame], str], rows: pd.DataFrame) -> str:  # at once, and not when it is asked for
        saved.append(rows["trace_id"].tolist())
        return make(rows)

    monkeypatch.setattr(listing, "partial", kept)
    page = open_page()
    names = page.dataframe[0].value["trace_id"].tolist()
    assert all(name.startswith("row ") for name in names) and page.subheader[0].value == f"{names[0]} of the file"
    assert saved[-1] == names
    press(page, "Step 1")
    press(page, "Save")
    place = int(names[0].removeprefix("row ")) - 1
    assert page.subheader[0].value == f"slip\\-{place}/wrong"
    assert page.dataframe[0].value["trace_id"].tolist() == saved[-1] == [f"slip-{place}/wrong", *names[1:]]
    press(page, "Next")
    assert page.dataframe[0].value["here"][0] == "\u2713 1"
    page.toggle(key="model_first").set_value(True).run()
    assert all(one.startswith("slip-") for one in saved[-1])


def test_the_best_correct_sample_has_no_id_or_score_before_the_answer(store: Annotations, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "run.parquet"
    wrong = read_run(path).to_pylist()[0]
    right = wrong | {"trace_id": "same/right", "text": f"{wrong['text']} Sure.", "correct": True,
                     "score_mean_discounted": -0.25}  # fmt: skip
    write_run(path, [wrong, right], {"checkpoint": "demo"})
    page = open_page()
    assert "row 2" in captions(page) and "same/right" not in said(page) and "0.25" not in said(page)
    press(page, "Step 1")
    press(page, "Save")
    assert "row 2, mean discounted reward \u22120.25" in captions(page)  # it is not judged itself
    page.toggle(key="model_first").set_value(True).run()
    assert "same/right, mean discounted reward \u22120.25" in captions(page)


def test_what_there_is_to_compare_with_is_open_first(store: Annotations, tmp_path: Path) -> None:
    path = tmp_path / "mine" / "run.parquet"
    wrong = read_run(path).to_pylist()[0]
    right = wrong | {"trace_id": "right", "text": f"{wrong['text']} Sure.", "correct": True}
    for reference, opened in (("As it is.", "Reference"), (None, "Best correct sample")):
        write_run(path, [wrong | {"reference_solution": reference}, right], {"checkpoint": "demo"})
        (tabs,) = open_page().get("tab_container")
        assert ["Reference", "Best correct sample"][tabs.proto.tab_container.default_tab_index] == opened


def test_a_solution_that_no_link_can_name_is_said_so_where_it_stands(store: Annotations, tmp_path: Path) -> None:
    """It was said on the next page that was opened, on Inspect."""
    rename(tmp_path, "x" * links.MAX_LINK + "{}")
    page = open_page()
    page.toggle(key="model_first").set_value(True).run()
    press(page, "Open in Inspect")
    assert "id is too long for a link" in page.error[0].value and "link_error" not in page.session_state


def test_the_run_of_an_upload_has_its_title(store: Annotations, tmp_path: Path) -> None:
    about = {"title": "My solutions", "created": "2026-01-02T03:04:05+00:00"}
    (tmp_path / "mine" / ABOUT).write_text(json.dumps(about))
    page = open_page()
    assert any(one.startswith("My solutions (uploaded 2026-01-02 03:04 UTC): checkpoint") for one in captions(page))
    assert not any(one.startswith("mine:") for one in captions(page))
    press(page, "Step 1")
    press(page, "Save")
    assert "of the scored run My solutions (uploaded" in json.loads(drawn(page)[0].proto.json)["caption"]
    (said_of,) = store.all()
    assert said_of.run == "mine"  # what is kept goes by the name that stays


def test_the_caption_counts_the_solutions_that_are_listed(store: Annotations, tmp_path: Path) -> None:
    """Where disagreements alone are listed, it counted all that pass the filters."""
    path = tmp_path / "mine" / "run.parquet"
    rows = read_run(path).to_pylist()
    more = [rows[0] | {"trace_id": f"again {number}"} for number in range(2)]
    write_run(path, [*rows, *more, rows[1] | {"trace_id": "long", "length": 9_000}], {"checkpoint": "demo"})
    page = open_page()
    assert "5 texts of 8 solutions after the filters, of 8 in all; 1 to 5 are listed; " in said(page)
    assert page.dataframe[0].value["copies"].tolist() == ["\u00d73", "\u00d72", "", "", ""]
    page.text_input(key="where").set_value("length < 9000").run()
    assert "5 texts of 7 solutions after the filters, of 8 in all" in said(page)
    assert page.dataframe[0].value["copies"].tolist() == ["\u00d73", "", "", "", ""]
    for name, label in (("ada", "Step 1"), ("ben", "Unsure"), ("cy", "No step is wrong")):
        page.text_input(key="annotator").set_value(name).run()
        press(page, label)
        press(page, "Save")
    page.toggle(key="adjudicate").set_value(True).run()
    assert "1 text of 3 solutions after the filters, on which annotators disagree, of 8 in all" in said(page)
    assert len(page.dataframe[0].value) == 1


def test_what_is_read_first_stands_first_in_the_list_and_is_not_cut(store: Annotations) -> None:
    """The problem and what one had said stood behind the id and an empty column, in what was left of the width."""
    page = open_page()
    assert list(page.dataframe[0].value)[:3] == ["here", "problem", "trace_id"]
    press(page, "Step 1")
    press(page, "Save")
    frame = page.dataframe[0]
    assert list(frame.value)[:4] == ["here", "mine", "problem", "trace_id"] and "copies" not in frame.value
    columns = json.loads(frame.proto.columns)
    assert sum(columns[name]["width"] for name in ("here", "mine", "problem")) <= 276
    assert "the line of its final answer is none" in columns["n_steps"]["help"]


def test_who_saw_the_model_first_is_not_blind(store: Annotations) -> None:
    page = open_page()
    page.toggle(key="model_first").set_value(True).run()
    assert drawn(page) and "verdict" in page.dataframe[0].value.columns
    press(page, "No step is wrong")
    press(page, "Save")
    assert [(one.label, one.blind) for one in store.all()] == [("none", False)]


def test_a_damaged_file_is_left_and_the_page_reads_on(store: Annotations) -> None:
    store.path.write_bytes(b"no database" * 100)
    page = open_page()
    assert "is damaged" in page.error[0].value and len(page.dataframe[0].value) == 5
    assert "Save" not in [one.label for one in page.button]
    press(page, "Next")
    assert store.path.read_bytes() == b"no database" * 100


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


def test_the_reference_is_shown_with_the_differences(store: Annotations) -> None:
    page = open_page()
    assert any(":green-background[" in one.value for one in page.markdown)
    page.toggle(key="differences").set_value(False).run()
    assert not any("-background[" in one.value for one in page.markdown)


def test_a_step_that_numbers_itself_gets_no_second_number(store: Annotations, tmp_path: Path) -> None:
    """They read '1.  Step 1: ...'."""
    text = "Step 1: 3 + 4 = 7.\nStep 2: 7 + 1 = 9.\nThe answer is 9."
    path = tmp_path / "mine" / "run.parquet"
    row = read_run(path).to_pylist()[0]
    steps = [dict(row["steps"][0], start=one.start, end=one.end, text=one.text, role=one.role)
             for one in make_trace(row["problem"], text).steps]  # fmt: skip
    write_run(path, [row | {"text": text, "steps": steps}], {"checkpoint": "demo"})
    page = open_page()
    shown = [one.value for one in page.text]
    assert {"Step 1: 3 + 4 = 7.", "Step 2: 7 + 1 = 9.", "Answer:  The answer is 9."} <= set(shown)
    page.toggle(key="more_asked").set_value(True).run()
    sent = json.loads(drawn(page)[0].proto.json)
    assert [one["name"] for one in sent["steps"]] == ["", "", "Answer line"]
