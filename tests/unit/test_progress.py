"""The progress bar of long command-line work, on a terminal, in a log and not at all."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from irl_core.progress import progress_bar


def written(*, terminal: bool, shown: bool = True) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with progress_bar("Scoring", 9, console=console, shown=shown) as bar:
        bar.update(4, beside="2 min left")
        bar.log("Scored 4 of 9")
        bar.update(title="reporting", beside="1 min left")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_gets_lines_and_the_last_state() -> None:
    lines = written(terminal=False).splitlines()
    assert lines[0] == "Scored 4 of 9"
    assert lines[1].startswith("reporting") and lines[1].endswith("4/9 1 min left") and "\x1b" not in lines[1]


def test_a_terminal_gets_the_bar_alone() -> None:
    text = written(terminal=True)
    assert "Scored" not in text and "reporting" in text and "4/9" in text


def test_what_is_not_shown_writes_nothing() -> None:
    assert written(terminal=False, shown=False) == ""


def test_the_default_is_stderr_and_the_total_may_come_later(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("Sampling 8") as bar:
        bar.update(3, total=12)
    out, err = capsys.readouterr()
    assert out == "" and "Sampling 8" in err and "3/12" in err
