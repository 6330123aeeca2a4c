"""Charts of traces: a score's distribution by class, its traces as points, and any two columns against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from textwrap import wrap
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from irl_core.evaluation.scores import TITLES
from irl_core.evaluation.scores import score as score_of
from irl_core.report.charts.style import DASHES, colours, cycled, faded, folded, labelled, note, styled, text
from irl_core.statistics.ranks import density
from irl_core.statistics.wording import true_minus

Array = npt.NDArray[np.float64]
Runs = Mapping[str, pd.DataFrame]

MOST_POINTS: Final = 2_000  # drawn of a run: a browser slows down beyond
BINS: Final = 40
TAILS: Final = (0.01, 0.99)  # beyond these shares of all values a long tail has one bin
FEWEST: Final = 30  # traces of a class of which a shape is drawn
NAME_WIDTH: Final = 14  # characters of a run's name in a line of the label of its classes
SEED: Final = 0
CLASSES: Final = ("correct", "incorrect")
COLUMNS: Final = {"length": "length in tokens", "arithmetic_false": "equations that do not hold"}
JUDGED: Final = ("cannot_judge", "familiar")  # as a scored run names them; empty where it was not measured
SYMBOL: Final = {"correct": "circle", "incorrect": "x", "not known": "diamond-open"}


def title_of(name: str) -> str:
    """The title of a column."""
    return TITLES.get(name) or COLUMNS.get(name) or name.replace("_", " ")


def classes_of(frame: pd.DataFrame) -> npt.NDArray[np.object_]:
    """The class of each trace (M,): ``correct``, ``incorrect`` or ``not known``."""
    classes = np.full(len(frame), "not known", dtype=object)
    known = frame["correct"].notna().to_numpy()
    right = frame["correct"].to_numpy()[known].astype(bool)
    classes[known] = np.where(right, "correct", "incorrect")
    return classes


def values_of(frame: pd.DataFrame, name: str) -> Array:
    """The column as numbers, NaN where it is not defined."""
    if name in frame:
        column = frame[name].astype("float64") if name == "correct" else pd.to_numeric(frame[name], errors="coerce")
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)
    return np.asarray(score_of(frame, name), dtype=np.float64)


def _by_class(runs: Runs, name: str) -> list[tuple[str, int, str, Array]]:
    """(run, its place, class, values) of the classes that have one."""
    series = []
    for place, (run, frame) in enumerate(runs.items()):
        values, classes = values_of(frame, name), classes_of(frame)
        for kind in CLASSES:
            kept = values[(classes == kind) & np.isfinite(values)]
            if kept.size:
                series.append((run, place, kind, kept))
    return series


def bins(series: Sequence[Array]) -> Array:
    """The edges of the bins that all share.

    Of values with a long tail the bins cover the middle, and the last one on that side, as wide as the others, takes
    everything beyond: its outer edge is infinite."""
    every = np.concatenate(series or [np.zeros(0)])
    if not every.size:
        return np.histogram_bin_edges(every, BINS).astype(np.float64)
    low, high = np.quantile(every, TAILS)
    first, last = float(every.min()), float(every.max())
    margin = 0.25 * (high - low)  # a tail that is no longer than this needs no bin of its own
    starts, ends = (low if first < low - margin else first), (high if last > high + margin else last)
    edges: Array = np.histogram_bin_edges(every[(every >= starts) & (every <= ends)], BINS).astype(np.float64)
    return np.concatenate([[-np.inf] if starts > first else [], edges, [np.inf] if ends < last else []])


def drawn_edges(edges: Array) -> Array:
    """The edges as they are drawn: a bin without an end is as wide as its neighbour."""
    drawn = edges.copy()
    if np.isneginf(drawn[0]):
        drawn[0] = 2 * drawn[1] - drawn[2]
    if np.isposinf(drawn[-1]):
        drawn[-1] = 2 * drawn[-2] - drawn[-3]
    return drawn


def histogram(runs: Runs, score: str, *, theme: str = "light") -> go.Figure:
    """Shares of correct and of incorrect traces by score, with a smooth density over them; a point a trace where a
    class has fewer than ``FEWEST``."""
    look, figure = colours(theme), go.Figure()
    series = _by_class(runs, score)
    if any(len(values) < FEWEST for *_, values in series):
        return _few(series, score, len(runs), theme)
    edges = bins([values for *_, values in series])
    shown = drawn_edges(edges)
    for run, place, kind, values in series:
        colour = look.of(kind)
        heights = np.histogram(values, edges)[0] / len(values)
        figure.add_scatter(
            x=np.repeat(shown, 2)[1:-1], y=np.repeat(heights, 2), mode="lines", fill="tozeroy",
            name=folded(f"{labelled(run, kind, len(runs))} (n {len(values):,})"), legendgroup=f"{place}{kind}",
            fillcolor=faded(colour, 0.25 if place == 0 else 0.08),
            line={"color": colour, "width": 1, "dash": cycled(DASHES, place)},
            text=np.repeat([text(_bin_words(*ends)) for ends in pairwise(edges)], 2),
            hovertemplate="%{text}: %{y:.1%}<extra></extra>",
        )  # fmt: skip
        smooth = _density(values, shown)
        if smooth is not None:
            figure.add_scatter(
                x=smooth[0], y=smooth[1], mode="lines", showlegend=False, legendgroup=f"{place}{kind}",
                line={"color": colour, "width": 2.5, "dash": cycled(DASHES, place)}, hoverinfo="skip",
            )  # fmt: skip
    styled(figure, theme, title_of(score), "share of solutions")
    figure.update_yaxes(tickformat=".0%")
    for edge, outer, side in ((edges[1], edges[0], "below"), (edges[-2], edges[-1], "above")):
        if series and np.isinf(outer):
            beyond = sum(int((values < edge if side == "below" else values >= edge).sum()) for *_, values in series)
            figure.add_annotation(
                x=shown[0 if side == "below" else -1], y=1, yref="paper", yanchor="top", showarrow=False,
                text=text(true_minus(f"{side} {edge:.3g}: {beyond:,}")), xanchor="left" if side == "below" else "right",
                font={"size": 11},
            )  # fmt: skip
    if not series:
        note(figure, "undefined: no solution known to be right or wrong has this score")
    return figure


def _bin_words(low: float, high: float) -> str:
    words = (
        f"below {high:.3g}" if np.isinf(low) else f"above {low:.3g}" if np.isinf(high) else f"{low:.3g} to {high:.3g}"
    )
    return true_minus(words)


def _few(series: Sequence[tuple[str, int, str, Array]], score: str, runs: int, theme: str) -> go.Figure:
    """A line of points a class: a shape drawn of so few would be made up."""
    look, figure = colours(theme), go.Figure()
    for run, _, kind, values in series:
        name = _under(run, kind, len(values), runs)
        figure.add_scatter(
            x=values, y=[name] * len(values), mode="markers", name=name, showlegend=False,
            marker={"color": look.of(kind), "symbol": SYMBOL[kind], "size": 9, "opacity": 0.6},
            hovertext=[true_minus(f"{value:.3g}") for value in values], hoverinfo="text",
        )  # fmt: skip
    styled(figure, theme, f"{title_of(score)}<br>(points: fewer than {FEWEST} of a class)", "")
    return figure


def _under(run: str, kind: str, n: int, runs: int) -> str:
    """The label of a class on an axis, narrow enough to stand beside others: its run where there are several, n."""
    lines = [text(line) for line in wrap(run, NAME_WIDTH)] if runs > 1 else []
    return "<br>".join([*lines, kind, f"n {n:,}"])


def _density(values: Array, edges: Array) -> tuple[Array, Array] | None:
    """A Gaussian kernel density in shares a bin; None where the values do not vary."""
    if len(values) < 3 or np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return None
    across: Array = np.linspace(edges[0], edges[-1], 200)
    return across, density(values, across) * float(edges[1] - edges[0])


def histogram_table(runs: Runs, score: str) -> pd.DataFrame:
    """The bins: a row a run, class and bin, with its ``low`` and ``high`` edge (none where it takes all beyond), count
    and share, and the class' n."""
    series = _by_class(runs, score)
    edges = bins([values for *_, values in series])
    rows = []
    for run, _, kind, values in series:
        for low, high, count in zip(edges[:-1], edges[1:], np.histogram(values, edges)[0], strict=True):
            ends = (float(one) if np.isfinite(one) else None for one in (low, high))
            rows.append((run, kind, *ends, int(count), float(count / len(values)), len(values)))
    return pd.DataFrame(rows, columns=["run", "class", "low", "high", "count", "share", "n"])


# ----------------------------------------------------------------------------------------------- traces as points


def strip(runs: Runs, score: str, *, theme: str = "light") -> go.Figure:
    """A box of each class with its traces beside it; at most ``MOST_POINTS`` of a run, drawn at random."""
    look, figure = colours(theme), go.Figure()
    names, cut, middles = [], [], []
    for place, (run, frame) in enumerate(runs.items()):
        values, classes = values_of(frame, score), classes_of(frame)
        known = np.isfinite(values)
        drawn = _drawn(known & (classes != "not known"))
        if len(drawn) < int((known & (classes != "not known")).sum()):
            cut.append(f"{len(drawn):,} of {int((known & (classes != 'not known')).sum()):,}")
        for side, kind in enumerate(CLASSES):
            middle = 2 * place + side
            rows = np.flatnonzero(known & (classes == kind))
            names.append(_under(run, kind, len(rows), len(runs)))
            if not len(rows):
                continue
            colour = look.of(kind)
            middles.append(values[rows])
            if len(rows) >= FEWEST:
                figure.add_box(
                    y=values[rows], x=np.full(len(rows), middle - 0.22), boxpoints=False, width=0.3, hoverinfo="y",
                name=names[-1], line={"color": colour}, fillcolor=faded(colour, 0.2),
                )  # fmt: skip
            points = drawn[np.isin(drawn, rows)]
            # places beside the box: a trace has the same one in every drawing
            beside = middle + 0.05 + 0.35 * np.random.default_rng([SEED, middle]).random(len(points))
            _points(figure, frame, run, points, beside, values[points], colour, kind)
    edges = bins(middles)
    beyond = sum(int((np.isinf(edges[0]) & (one < edges[1])).sum() + (np.isinf(edges[-1]) & (one > edges[-2])).sum())
                 for one in middles)  # fmt: skip
    said = [f"{beyond:,} beyond the axis,<br>a double click shows them"] if beyond else []
    styled(figure, theme, "<br>".join([part for part in (_cut(cut), *said) if part]), title_of(score))
    if beyond:
        low, high = drawn_edges(edges)[[0, -1]]
        figure.update_yaxes(range=[low, high])
    ticks = list(range(len(names)))
    figure.update_xaxes(tickvals=ticks, ticktext=names, tickangle=0, range=[-0.6, len(names) - 0.4])
    figure.update_layout(showlegend=False)
    if not figure.data:
        note(figure, "undefined: no solution known to be right or wrong has this score")
    return figure


def _cut(counts: Sequence[str]) -> str:
    """The number of traces that have a point, where not all have one."""
    return f"points: {'; '.join(counts)} solutions,<br>drawn at random" if counts else ""


def _drawn(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """The rows whose points are drawn."""
    rows = np.flatnonzero(known)
    if len(rows) <= MOST_POINTS:
        return rows
    return np.sort(np.random.default_rng(SEED).choice(rows, MOST_POINTS, replace=False))


def _points(
    figure: go.Figure, frame: pd.DataFrame, run: str, rows: npt.NDArray[np.intp], x: Array, y: Array, colour: str,
    kind: str, *, name: str = "", legend: bool = False,
) -> None:  # fmt: skip
    ids = frame["trace_id"].to_numpy()[rows]
    figure.add_scatter(
        x=x, y=y, mode="markers", name=folded(name or kind), showlegend=legend,
        marker={"color": colour, "symbol": SYMBOL[kind], "size": 6, "opacity": 0.6},
        customdata=[[run, str(one)] for one in ids],
        hovertext=[text(f"{one} ({kind})") for one in ids], hoverinfo="text+y" if not legend else "text+x+y",
    )  # fmt: skip


def strip_table(runs: Runs, score: str) -> pd.DataFrame:
    """Every trace known to be right or wrong with the score: run, solution, class, value, and what of ``JUDGED`` is
    known of it."""
    parts = []
    for run, frame in runs.items():
        values, classes = values_of(frame, score), classes_of(frame)
        kept = np.isfinite(values) & (classes != "not known")
        parts.append(_told(run, frame, kept, {"value": values}))
    return pd.concat(parts, ignore_index=True) if parts else _nothing("value")


def _told(run: str, frame: pd.DataFrame, kept: npt.NDArray[np.bool_], values: Mapping[str, Array]) -> pd.DataFrame:
    """The kept traces of a run with their values. A value of a trace that the model cannot judge says nothing, so that
    each row says whether it is one."""
    columns = {"run": run, "solution": frame["trace_id"].to_numpy()[kept], "class": classes_of(frame)[kept]}
    flags = frame[list(JUDGED)].astype(object)
    judged = {name: flags[name].where(flags[name].notna(), None).to_numpy()[kept] for name in JUDGED}
    return pd.DataFrame(columns | {name: column[kept] for name, column in values.items()} | judged)


def _nothing(*values: str) -> pd.DataFrame:
    """The table of no run."""
    heads = ("run", "solution", "class", *values, *JUDGED)
    return pd.DataFrame({name: np.zeros(0) if name in values else [] for name in heads})


def scatter(runs: Runs, x: str, y: str, *, theme: str = "light") -> go.Figure:
    """Any two columns, a point a trace; at most ``MOST_POINTS`` of a run, drawn at random."""
    look, figure = colours(theme), go.Figure()
    cut = []
    for place, (run, frame) in enumerate(runs.items()):
        across, up, classes = values_of(frame, x), values_of(frame, y), classes_of(frame)
        known = np.isfinite(across) & np.isfinite(up)
        drawn = _drawn(known)
        if len(drawn) < int(known.sum()):
            cut.append(f"{len(drawn):,} of {int(known.sum()):,}")
        for kind in SYMBOL:
            rows = drawn[classes[drawn] == kind]
            if not len(rows):
                continue
            colour = look.of(kind) if len(runs) == 1 else cycled(look.series, place)
            name = f"{labelled(run, kind, len(runs))} (n {int((known & (classes == kind)).sum()):,})"
            _points(figure, frame, run, rows, across[rows], up[rows], colour, kind, name=name, legend=True)
    styled(figure, theme, title_of(x) + (f"<br>({_cut(cut)})" if cut else ""), title_of(y))
    if not figure.data:
        note(figure, "undefined: no solution has both")
    return figure


def scatter_table(runs: Runs, x: str, y: str) -> pd.DataFrame:
    """Every trace that has both: run, solution, class, the two values under their titles, and what of ``JUDGED`` is
    known of it."""
    heads = (title_of(x), title_of(y) if y != x else f"{title_of(y)} (up)")
    parts = []
    for run, frame in runs.items():
        across, up = values_of(frame, x), values_of(frame, y)
        kept = np.isfinite(across) & np.isfinite(up)
        parts.append(_told(run, frame, kept, {heads[0]: across, heads[1]: up}))
    return pd.concat(parts, ignore_index=True) if parts else _nothing(*heads)
