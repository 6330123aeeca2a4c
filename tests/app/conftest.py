"""The tests of the app share one folder of helpers, and a session with the fake lens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from irl_core.data.annotations import Annotations

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]


@pytest.fixture(autouse=True)
def main_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit puts a page in the place of ``__main__``, and a process forked later would run that page first."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture
def fake_lens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import fakes

    from app.inspect import examples, scoring_queue

    monkeypatch.setattr(scoring_queue, "sources", scoring_queue.Sources(fakes.load, fakes.catalogue))
    monkeypatch.setattr(examples, "PROBLEMS", HERE / "problems.jsonl")
    scoring_queue.open_desk.clear()
    fakes.calls.clear()
    yield
    scoring_queue.open_desk.clear()


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Annotations:
    """A run of five wrong traces as the only one, and a database of its own."""
    from app.analysis import catalogue, chooser, failures
    from irl_core.data.annotations import Annotations
    from irl_core.storage.run_writer import write_run
    from irl_core.storage.scored_run import read_run

    bundled = HERE.parents[1] / "assets" / "scored_run" / "run.parquet"
    rows = [row for row in read_run(bundled).slice(0, 200).to_pylist() if row["correct"] is False]
    found = list({(row["problem"], row["text"]): row for row in rows}.values())[:5]
    write_run(tmp_path / "mine" / "run.parquet", found, {"checkpoint": "demo"})
    monkeypatch.setattr(catalogue, "default_roots", lambda: (tmp_path,))
    monkeypatch.setattr(failures, "DATABASE", tmp_path / "annotations.sqlite")
    chooser.catalogue.clear()
    return Annotations(tmp_path / "annotations.sqlite")
