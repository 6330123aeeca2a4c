"""The chart of figures beside each other: where its marks, intervals and words are."""

from __future__ import annotations

import math

import pytest

from irl_core.report.charts.forest_plot import RUN_PIXELS, intervals
from irl_core.report.charts.style import SYMBOLS, THEMES
from irl_core.statistics.bootstrap import Estimate

HOSTILE = "<img src=x onerror=alert(1)>"


def rows(*cells: tuple[str, str, float | None, float | None, float | None, int]) -> list[tuple[str, str, Estimate]]:
    """Marks of (scored run, label, value, low, high, n)."""
    nan, found = math.nan, []
    for run, label, *numbers, n in cells:
        value, low, high = (nan if number is None else number for number in numbers)
        found.append((run, label, Estimate(value, low, high, n, "x", "" if value == value else "one class")))
    return found


def test_marks_have_their_intervals_and_n() -> None:
    figure = intervals(rows(("a", "AUC", 0.8, 0.7, 0.95, 1200), ("a", "share", 0.5, 0.4, 0.6, 3)), unit="share")
    (mark,) = figure.data
    assert list(mark.x) == [0.8, 0.5] and list(mark.y) == [0, 1]
    assert list(mark.error_x.array) == pytest.approx([0.15, 0.1])
    assert list(mark.error_x.arrayminus) == pytest.approx([0.1, 0.1])
    assert mark.hovertext[0] == "a<br>AUC<br>0.800 [0.700, 0.950] (n 1,200)"
    assert figure.layout.yaxis.ticktext == ("AUC", "share") and not figure.layout.annotations
    assert figure.layout.xaxis.title.text == "share" and not figure.layout.showlegend


def test_runs_differ_in_colour_symbol_and_place() -> None:
    figure = intervals(rows(("a", "AUC", 0.8, 0.7, 0.9, 9), ("b", "AUC", 0.6, 0.5, 0.7, 9)), unit="AUC")
    first, second = figure.data
    assert (first.marker.symbol, second.marker.symbol) == SYMBOLS[:2]
    assert first.marker.color != second.marker.color and figure.layout.showlegend
    # two runs on a line of 26 + 12 pixels stand 12 pixels apart
    assert second.y[0] - first.y[0] == pytest.approx(RUN_PIXELS / 38)


def test_what_is_undefined_is_written_on_its_line() -> None:
    found = rows(("a", "AUC", None, None, None, 2), ("b", "AUC", 0.6, 0.5, 0.7, 9), ("a", "share", 0.6, 0.5, 0.7, 9))
    figure = intervals(found, unit="AUC")
    (words,) = figure.layout.annotations
    assert (words.text, words.y) == ("undefined: a", 0) and list(figure.data[0].x) == [0.6]


def test_a_run_without_any_value_is_said_once() -> None:
    figure = intervals(rows(("a", "AUC", None, None, None, 2), ("b", "AUC", 0.6, 0.5, 0.7, 9)), unit="AUC")
    assert not figure.layout.annotations and figure.layout.showlegend
    assert [data.name for data in figure.data] == ["a: undefined", "b"]


def test_without_an_interval_no_ends_are_invented() -> None:
    figure = intervals(rows(("a", "AUC", 0.8, None, None, 2)), unit="AUC")
    assert figure.data[0].hovertext == ("a<br>AUC<br>0.8 (n 2)",) and list(figure.data[0].error_x.array) == [0.0]


def test_names_are_not_markup() -> None:
    figure = intervals(rows((HOSTILE, HOSTILE, 0.6, 0.5, 0.7, 9), ("b", "x", None, None, None, 1)), unit="AUC")
    assert "<img" not in figure.to_json().replace("\\u003c", "<")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_reference_line_and_the_ink_follow_the_theme(theme: str) -> None:
    found = rows(("a", "AUC", 0.6, 0.5, 0.7, 9))
    figure = intervals(found, unit="AUC", reference=0.5, reference_words="chance", theme=theme)
    ink = THEMES[theme].text
    assert figure.layout.shapes[0].x0 == 0.5 and figure.layout.shapes[0].line.color == ink
    assert figure.layout.xaxis.title.text == "AUC<br>(dotted: chance)" and figure.layout.font.color == ink
