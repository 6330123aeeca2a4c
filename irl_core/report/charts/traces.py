"""Charts of traces: a score's distribution by class, its traces as points, and any two columns against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from irl_core.evaluation.scores import TITLES
from irl_core.evaluation.scores import score as score_of
from irl_core.report.charts.style import DASHES, colours, cycled, faded, labelled, note, styled, text

Array = npt.NDArray[np.float64]
Runs = Mapping[str, pd.DataFrame]

MOST_POINTS: Final = 2_000  # drawn of a run: a browser slows down beyond
BINS: Final = 40
NAME_WIDTH: Final = 14  # characters of a run's name in a line under its boxes
SEED: Final = 0
CLASSES: Final = ("correct", "incorrect")
COLUMNS: Final = {"length": "length in tokens", "arithmetic_false": "equations that do not hold"}
SYMBOL: Final = {"correct": "circle", "incorrect": "x", "not judged": "diamond-open"}


def title_of(name: str) -> str:
    """The title of a column."""
    return TITLES.get(name) or COLUMNS.get(name) or name.replace("_", " ")


def classes_of(frame: pd.DataFrame) -> npt.NDArray[np.object_]:
    """The class of each trace (M,): ``correct``, ``incorrect`` or ``not judged``."""
    classes = np.full(len(frame), "not judged", dtype=object)
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


def _by_class(runs: Runs, name: str) -> tuple[list[tuple[str, int, str, Array]], Array]:
    """(run, its place, class, values) of the classes that have one, and the edges of bins that all share."""
    series = []
    for place, (run, frame) in enumerate(runs.items()):
        values, classes = values_of(frame, name), classes_of(frame)
        for kind in CLASSES:
            kept = values[(classes == kind) & np.isfinite(values)]
            if kept.size:
                series.append((run, place, kind, kept))
    every = np.concatenate([values for *_, values in series] or [np.zeros(0)])
    return series, np.histogram_bin_edges(every, BINS).astype(np.float64)


def histogram(runs: Runs, score: str, *, theme: str = "light") -> go.Figure:
    """Shares a unit of the score, of correct and of incorrect traces, with a smooth density over them."""
    look, figure = colours(theme), go.Figure()
    series, edges = _by_class(runs, score)
    for run, place, kind, values in series:
        colour = look.of(kind)
        heights, _ = np.histogram(values, edges, density=True)
        figure.add_scatter(
            x=np.repeat(edges, 2)[1:-1], y=np.repeat(heights, 2), mode="lines", fill="tozeroy",
            name=text(f"{labelled(run, kind, len(runs))} (n {len(values):,})"), legendgroup=f"{place}{kind}",
            fillcolor=faded(colour, 0.25 if place == 0 else 0.08),
            line={"color": colour, "width": 1, "dash": cycled(DASHES, place)},
            hovertemplate="%{x:.3g}: density %{y:.3g}<extra></extra>",
        )  # fmt: skip
        smooth = _density(values, edges)
        if smooth is not None:
            figure.add_scatter(
                x=smooth[0], y=smooth[1], mode="lines", showlegend=False, legendgroup=f"{place}{kind}",
                line={"color": colour, "width": 2.5, "dash": cycled(DASHES, place)}, hoverinfo="skip",
            )  # fmt: skip
    styled(figure, theme, title_of(score), "share of traces a unit")
    if not series:
        note(figure, "undefined: no judged trace has this score")
    return figure


def _density(values: Array, edges: Array) -> tuple[Array, Array] | None:
    """A Gaussian kernel density, by Scott's rule; None where the values do not vary."""
    from scipy.stats import gaussian_kde

    if len(values) < 3 or np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())):
        return None
    across: Array = np.linspace(edges[0], edges[-1], 200)
    return across, np.asarray(gaussian_kde(values)(across), dtype=np.float64)


def histogram_table(runs: Runs, score: str) -> pd.DataFrame:
    """The bins: a row a run, class and bin, with its ``low`` and ``high`` edge, count and density, and the class' n."""
    series, edges = _by_class(runs, score)
    rows = []
    for run, _, kind, values in series:
        for low, high, count in zip(edges[:-1], edges[1:], np.histogram(values, edges)[0], strict=True):
            density = count / (len(values) * (high - low))
            rows.append((run, kind, float(low), float(high), int(count), float(density), len(values)))
    return pd.DataFrame(rows, columns=["run", "class", "low", "high", "count", "density", "n"])


# ----------------------------------------------------------------------------------------------- traces as points


def strip(runs: Runs, score: str, *, theme: str = "light") -> go.Figure:
    """A box of each class with its traces beside it; at most ``MOST_POINTS`` of a run, drawn at random."""
    look, figure = colours(theme), go.Figure()
    names, cut = [], []
    for place, (run, frame) in enumerate(runs.items()):
        values, classes = values_of(frame, score), classes_of(frame)
        known = np.isfinite(values)
        drawn = _drawn(known & (classes != "not judged"))
        if len(drawn) < int((known & (classes != "not judged")).sum()):
            cut.append(f"{len(drawn):,} of {int((known & (classes != 'not judged')).sum()):,}")
        for side, kind in enumerate(CLASSES):
            middle = 2 * place + side
            rows = np.flatnonzero(known & (classes == kind))
            lines = [text(line) for line in wrap(run, NAME_WIDTH)] if len(runs) > 1 else []
            names.append("<br>".join([*lines, kind, f"n {len(rows):,}"]))
            if not len(rows):
                continue
            colour = look.of(kind)
            figure.add_box(
                y=values[rows], x=np.full(len(rows), middle - 0.22), boxpoints=False, width=0.3, hoverinfo="y",
                name=names[-1], line={"color": colour}, fillcolor=faded(colour, 0.2),
            )  # fmt: skip
            points = drawn[np.isin(drawn, rows)]
            # places beside the box: a trace has the same one in every drawing
            beside = middle + 0.05 + 0.35 * np.random.default_rng([SEED, middle]).random(len(points))
            _points(figure, frame, run, points, beside, values[points], colour, kind)
    styled(figure, theme, _cut(cut), title_of(score))
    ticks = list(range(len(names)))
    figure.update_xaxes(tickvals=ticks, ticktext=names, tickangle=0, range=[-0.6, len(names) - 0.4])
    figure.update_layout(showlegend=False)
    if not figure.data:
        note(figure, "undefined: no judged trace has this score")
    return figure


def _cut(counts: Sequence[str]) -> str:
    """The number of traces that have a point, where not all have one."""
    return f"points: {'; '.join(counts)} traces,<br>drawn at random" if counts else ""


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
        x=x, y=y, mode="markers", name=text(name or kind), showlegend=legend,
        marker={"color": colour, "symbol": SYMBOL[kind], "size": 6, "opacity": 0.6},
        customdata=[[run, str(one)] for one in ids],
        hovertext=[text(f"{one} ({kind})") for one in ids], hoverinfo="text+y" if not legend else "text+x+y",
    )  # fmt: skip


def strip_table(runs: Runs, score: str) -> pd.DataFrame:
    """Every judged trace with the score: run, trace, class and value."""
    parts = []
    for run, frame in runs.items():
        values, classes = values_of(frame, score), classes_of(frame)
        kept = np.isfinite(values) & (classes != "not judged")
        ids = frame["trace_id"].to_numpy()[kept]
        parts.append(pd.DataFrame({"run": run, "trace": ids, "class": classes[kept], "value": values[kept]}))
    empty = pd.DataFrame({"run": [], "trace": [], "class": [], "value": np.zeros(0)})
    return pd.concat(parts, ignore_index=True) if parts else empty


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
        note(figure, "undefined: no trace has both")
    return figure


def scatter_table(runs: Runs, x: str, y: str) -> pd.DataFrame:
    """Every trace that has both: run, trace, class, and the two values under their titles."""
    heads = (title_of(x), title_of(y) if y != x else f"{title_of(y)} (up)")
    parts = []
    for run, frame in runs.items():
        across, up, classes = values_of(frame, x), values_of(frame, y), classes_of(frame)
        kept = np.isfinite(across) & np.isfinite(up)
        ids = frame["trace_id"].to_numpy()[kept]
        columns = {"run": run, "trace": ids, "class": classes[kept], heads[0]: across[kept], heads[1]: up[kept]}
        parts.append(pd.DataFrame(columns))
    empty = pd.DataFrame({"run": [], "trace": [], "class": [], heads[0]: np.zeros(0), heads[1]: np.zeros(0)})
    return pd.concat(parts, ignore_index=True) if parts else empty
