"""The three lines of a notebook, with what a notebook calls to draw: the display hooks themselves."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pandas as pd
import pytest

import irl_core
from irl_core.errors import InputError
from irl_core.notebook import COLUMNS, NotebookLens, Shown
from irl_core.scorer import Lens

PROBLEM = "Tom has 3 bags with 4 pens. How many pens?"
RIGHT, WRONG = "3 * 4 = 12\n#### 12", "3 * 4 = 13\n#### 13"


@pytest.fixture
def notebook(lens: Lens) -> NotebookLens:
    return NotebookLens(lens)


def test_load_is_the_way_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lens: Lens) -> None:
    asked = []
    monkeypatch.setattr("irl_core.models.bundled.checkpoint_folder", lambda name, on_note: tmp_path / name)
    monkeypatch.setattr(Lens, "load", lambda path, device: asked.append((path, device)) or lens)
    assert repr(irl_core.load("mine", device="cpu")) == f"irl-lens with checkpoint {lens.name} on {lens.device}"
    assert asked == [(tmp_path / "mine", "cpu")]


def test_an_inspection_is_drawn_in_a_frame_that_reaches_nothing(notebook: NotebookLens, tmp_path: Path) -> None:
    shown = notebook.show(PROBLEM, WRONG, answer="12")
    frame = shown._repr_html_()
    assert re.match(r'<iframe title="irl-lens" sandbox="allow-scripts allow-downloads" srcdoc="', frame)
    inside = re.search(r'srcdoc="([^"]*)"', frame)
    assert inside and html.unescape(inside[1]) == shown.page and "default-src 'none'" in shown.page
    assert repr(shown) == "Step 1: 3 * 4 is 12, not 13" and shown.result["traces"][0]["correct"] is False
    shown.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == shown.page
    with pytest.raises(InputError, match="cannot be written"):
        shown.save(tmp_path / "nowhere" / "page.html")


def test_hostile_text_does_not_leave_the_frame(notebook: NotebookLens) -> None:
    frame = notebook.show(PROBLEM, '"></iframe><img src=x onerror=alert(1)>\n#### 1')._repr_html_()
    assert frame.count("<iframe") == frame.count("</iframe>") == 1 and "<img" not in frame


def test_without_a_solution_the_policy_writes_some(notebook: NotebookLens) -> None:
    shown = notebook.show(PROBLEM, samples=2, answer="12")
    assert len(shown.result["traces"]) == 2
    scores = [trace["trace_score"] for trace in shown.result["traces"]]
    assert scores == sorted(scores, reverse=True)
    assert notebook.show(PROBLEM, samples=2, answer="12").page == shown.page  # the seed is the same


def test_scores_are_a_frame_with_a_row_a_solution(notebook: NotebookLens) -> None:
    rows = [
        {"problem": PROBLEM, "solution": WRONG, "answer": 12},
        {"problem": PROBLEM, "solution": RIGHT, "answer": "12"},
        {"problem": PROBLEM, "solution": RIGHT, "answer": None},
    ]
    found = notebook.score(rows)
    assert list(found.columns) == list(COLUMNS) and len(found) == 3
    assert found["correct"].tolist() == [False, True, None]
    first = found.iloc[0]
    assert (first["found_by"], first["first_wrong_step"], first["kind"]) == ("arithmetic", 1, "error")
    assert found["score"].notna().all()
    pd.testing.assert_frame_equal(notebook.score(pd.DataFrame(rows)), found)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"solution": RIGHT}, "Row 1 has no text in 'problem'"),
        ({"problem": PROBLEM, "solution": 5}, "Row 1 has no text in 'solution'"),
        ({"problem": PROBLEM, "solution": " "}, "Row 1: The solution is empty"),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(notebook: NotebookLens, row: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        notebook.score([{"problem": PROBLEM, "solution": RIGHT}, row])


def test_an_unknown_view_is_refused(notebook: NotebookLens) -> None:
    with pytest.raises(InputError, match="Unknown view 'sepia'"):
        notebook.show(PROBLEM, RIGHT, view="sepia")


def test_no_row_is_an_empty_frame(notebook: NotebookLens) -> None:
    assert notebook.score([]).empty


def test_several_traces_are_drawn_taller() -> None:
    def height(traces: int) -> int:
        trace = {"text": "x\n" * 4, "verdict": {"headline": "h"}}
        shown = Shown({"checkpoint": "c", "problem": "p", "traces": [trace] * traces}, "page")  # type: ignore[typeddict-item]
        return int(re.search(r"height: (\d+)px", shown._repr_html_())[1])  # type: ignore[index]

    assert height(1) < height(2) <= height(9)
