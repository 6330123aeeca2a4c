"""Colours by theme, layout, escaped text, and estimates as curves and dots: what all charts share."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Final

import plotly.graph_objects as go
from plotly.io import templates
from plotly.offline import get_plotlyjs

from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import true_minus


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of text, grid and series. On dark paper the series are the lighter ones of the palette."""

    text: str
    grid: str
    paper: str
    series: tuple[str, ...]
    correct: str
    incorrect: str
    unknown: str
    diverging: tuple[str, str, str]  # of -1, 0 and 1

    def of(self, kind: str) -> str:
        """The colour of a class of traces."""
        return {"correct": self.correct, "incorrect": self.incorrect}.get(kind, self.unknown)


THEMES: Final = {
    "light": Theme(
        "#22262b", "#dfe3e8", "#ffffff", ("#0072B2", "#D55E00", "#009E73", "#AA4488", "#B07D00", "#3B9BD1", "#5B5F66"),
        "#0072B2", "#D55E00", "#5B5F66", ("#B35806", "#F7F7F7", "#2166AC"),
    ),
    "dark": Theme(
        "#e8e6e3", "#3d4148", "#171614", ("#56B4E9", "#F0803C", "#2CC295", "#E08BC0", "#F0C05A", "#9AD2F2", "#B4B8BF"),
        "#56B4E9", "#F0803C", "#B4B8BF", ("#E8883A", "#262422", "#5AA9E6"),
    ),
}  # fmt: skip
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS: Final = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star")
HEIGHT: Final = 380
ROW: Final = 34  # pixels of a row of dots
LINE: Final = 34  # characters of a line in a title or a legend: what a chart of 350 pixels holds beside its labels
NOTE_LINE: Final = 40  # the same of a note, which has the whole chart
FONT: Final = 13
FEW_WHOLE: Final = 10  # a whole number on an axis that spans no more has a tick of its own
ON_TOP: Final = 4  # pixels that a line is wider than one that covers it exactly


def colours(theme: str) -> Theme:
    """The colours of a theme. Raises ValueError for a name that is none."""
    if theme not in THEMES:
        raise ValueError(f"theme is {theme!r}; it is one of {', '.join(THEMES)}")
    return THEMES[theme]


@contextmanager
def plain_template() -> Iterator[None]:
    """Draw with plotly's own template inside the block: streamlit sets another one for the whole process."""
    before, templates.default = templates.default, "plotly"
    try:
        yield
    finally:
        templates.default = before


def plotly_source() -> str:
    """The JavaScript of plotly, for pages that need no network."""
    return str(get_plotlyjs())


def text(value: object) -> str:
    """Escape a text of others for a place where plotly reads tags, entities and formulas."""
    clean = "".join(sign if sign.isprintable() else " " for sign in str(value))
    return html.escape(clean).replace("$", "&#36;")


def in_lines(title: str) -> str:
    """A title in lines that a narrow chart holds, for plotly breaks none by itself: it cuts them at the edge. The
    breaks that it has already stay."""
    lines = (wrap(part, LINE, break_long_words=False, break_on_hyphens=False) or [part] for part in title.split("<br>"))
    return "<br>".join(line for part in lines for line in part)


def folded(words: str, width: int = LINE) -> str:
    """A name or a note as escaped text, in lines that a narrow chart holds; one without blanks is broken anywhere."""
    return "<br>".join(map(text, wrap(words, width)))


def faded(colour: str, share: float) -> str:
    """``#rrggbb`` with an opacity."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share})"


def between(colours: Sequence[str], share: float) -> str:
    """The colour at a share, from 0 to 1, of the way along evenly spaced ones."""
    place = min(max(share, 0.0), 1.0) * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    parts = ([int(one[at : at + 2], 16) for at in (1, 3, 5)] for one in colours[first : first + 2])
    return "#" + "".join(f"{round(a + (b - a) * (place - first)):02x}" for a, b in zip(*parts, strict=True))


def luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb`` (WCAG 2), from 0 to 1."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours (WCAG 2), from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink_on(colour: str) -> str:
    """Black or white, which of them is read better on a colour; the contrast is 4.5 at least."""
    return max("#000000", "#ffffff", key=lambda ink: contrast(ink, colour))


def cycled(values: Sequence[str], place: int) -> str:
    return values[place % len(values)]


def styled(figure: go.Figure, theme: str, x: str, y: str, *, height: int = HEIGHT) -> go.Figure:
    """Give a chart the layout that all have. ``x`` and ``y``: titles of the axes."""
    look = colours(theme)
    axis = {
        "gridcolor": look.grid, "zerolinecolor": look.grid, "linecolor": look.grid, "automargin": True,
        "title": {"standoff": 10, "font": {"size": FONT}},
    }  # fmt: skip
    figure.update_layout(
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": look.text, "family": "system-ui, sans-serif", "size": FONT},
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title_text": ""},
        hoverlabel={"align": "left", "bgcolor": look.paper, "font": {"color": look.text}},
        hovermode="closest",
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return titled(figure, x=x, y=y)


def titled(figure: go.Figure, *, x: str | None = None, y: str | None = None) -> go.Figure:
    """Give axes their titles, in lines that fit; None leaves one as it is."""
    if x is not None:
        figure.update_xaxes(title_text=in_lines(x))
    if y is not None:
        figure.update_yaxes(title_text=in_lines(y))
    return figure


def whole_numbers(figure: go.Figure, values: Iterable[float]) -> None:
    """Keep fractions off the horizontal axis of counts: plotly halves the steps of one that spans only a few."""
    held = [float(value) for value in values]
    if held and all(value.is_integer() for value in held) and max(held) - min(held) <= FEW_WHOLE:
        figure.update_xaxes(tick0=0, dtick=1)


def apart(figure: go.Figure) -> None:
    """Let lines that cover each other exactly all be seen: each is drawn wider than those above it."""
    above: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
    for one in reversed([drawn for drawn in figure.data if drawn.name]):
        place = (tuple(one.x), tuple(None if value is None else round(value, 9) for value in one.y))
        covered = ON_TOP * above.count(place)
        one.update(line_width=one.line.width + covered, marker_size=(one.marker.size or 0) + covered)
        above.append(place)


def note(figure: go.Figure, words: str) -> None:
    """Write words into a chart: why nothing is drawn, or what was left out."""
    place: dict[str, Any] = {"x": 0.5, "y": 0.5, "xanchor": "center"} if not figure.data else {"x": 1, "y": 1}
    figure.add_annotation(
        text=folded(words, NOTE_LINE), xref="paper", yref="paper", showarrow=False, **({"xanchor": "right"} | place)
    )


def height_of(rows: int) -> int:
    """Height in pixels of a chart with so many rows of dots."""
    return max(HEIGHT, 120 + ROW * rows)


def band(figure: go.Figure, x: Sequence[float], low: Sequence[Any], high: Sequence[Any], colour: str) -> None:
    """Draw an interval as a band, where it is known."""
    known = [place for place in range(len(x)) if low[place] is not None and high[place] is not None]
    if len(known) < 2:
        return
    across = [x[place] for place in known]
    figure.add_scatter(
        x=[*across, *reversed(across)],
        y=[*(high[place] for place in known), *(low[place] for place in reversed(known))],
        fill="toself", fillcolor=faded(colour, 0.15), line={"width": 0}, mode="lines", hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip


def curve(
    figure: go.Figure,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    *,
    name: str,
    colour: str,
    dash: str,
    symbol: str,
    banded: bool = True,
) -> None:
    """Draw estimates as a line with markers and, where it is to be ``banded``, a band of their intervals; an undefined
    one is a gap."""
    if banded:
        intervals = [one.interval or (None, None) for one in estimates]
        band(figure, x, [low for low, _ in intervals], [high for _, high in intervals], colour)
    figure.add_scatter(
        x=list(x), y=[one.value if one.defined else None for one in estimates], name=folded(name), mode="lines+markers",
        line={"color": colour, "dash": dash, "width": 2}, marker={"symbol": symbol, "size": 7},
        hovertext=[text(f"{name}: {true_minus(str(one))}") for one in estimates], hoverinfo="x+text",
    )  # fmt: skip


def dots(figure: go.Figure, rows: Iterable[tuple[str, Estimate]], *, name: str, colour: str, symbol: str) -> None:
    """Draw estimates as points with whiskers, a row each; an undefined one has no point."""
    drawn = [(row, one) for row, one in rows if one.defined]
    lows = [one.value - one.low if one.interval else 0 for _, one in drawn]
    highs = [one.high - one.value if one.interval else 0 for _, one in drawn]
    figure.add_scatter(
        y=[text(row) for row, _ in drawn], x=[one.value for _, one in drawn], name=folded(name), mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 10},
        error_x={"type": "data", "array": highs, "arrayminus": lows, "color": colour, "thickness": 1.5},
        hovertext=[text(f"{row}, {name}: {true_minus(str(one))}") for row, one in drawn], hoverinfo="text",
    )  # fmt: skip


def labelled(run: str, name: str, runs: int) -> str:
    """A series' name, with its run where there are several."""
    return f"{run}: {name}" if runs > 1 else name
