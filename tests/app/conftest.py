"""The tests of the app share one folder of helpers, and a session with the fake lens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
