"""Charts of figures that are computed already: what ``irl_core.evaluation`` says of a run, and a training's metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from irl_core.evaluation.scores import REWARD_SCORES
from irl_core.evaluation.training import TITLES as METRICS
from irl_core.report.charts.style import (
    DASHES,
    HEIGHT,
    SYMBOLS,
    Shown,
    band,
    cells,
    colours,
    curve,
    cycled,
    dots,
    labelled,
    note,
    styled,
    text,
    words,
)

Found = Mapping[str, Any]
ROW: Final = 34  # pixels of a row of dots
LEGEND_ROW: Final = 20  # pixels
LEGEND_COLUMNS: Final = 3
DIVERGING: Final = ((0.0, "#B35806"), (0.5, "#F7F7F7"), (1.0, "#2166AC"))  # orange, white, blue
WAYS: Final = {
    "weighted_vote": "vote weighted by the reward",
    "best_of": "highest reward",
    "majority": "majority vote",
    "log_prob_vote": "vote weighted by log-probability",
    "oracle": "oracle (any sample right)",
}
MEASURES: Final = {
    "f1": "F1",
    "error_acc": "error found at its step",
    "correct_acc": "correct traces cleared",
    "exact": "step named, when one must be",
}
FIGURE_COLUMNS: Final = ["value", "low", "high", "n", "undefined because"]


def _table(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> pd.DataFrame:
    found = pd.DataFrame(list(rows), columns=[*first, *FIGURE_COLUMNS])
    for name in ("value", "low", "high"):
        found[name] = pd.to_numeric(found[name])
    return found


def _height(rows: int) -> int:
    return max(HEIGHT, 120 + ROW * rows)


# ---------------------------------------------------------------------------------------------------- correlations


def correlation_matrix(found: Found, kind: str, *, theme: str = "light") -> go.Figure:
    """``pearson`` or ``spearman`` correlations, with their values; an undefined one says why on hovering."""
    names, titles = list(found[kind]), [text(found["titles"][name]) for name in found[kind]]
    rows = [[found[kind][one][other] for other in names] for one in names]
    figure = go.Figure(
        go.Heatmap(
            x=titles, y=titles, z=[[one["value"] for one in row] for row in rows], zmin=-1, zmax=1,
            colorscale=[list(step) for step in DIVERGING], xgap=1, ygap=1,
            hovertext=[
                [text(f"{found['titles'][a]} and {found['titles'][b]}: {words(one)}")
                 for b, one in zip(names, row, strict=True)]
                for a, row in zip(names, rows, strict=True)
            ],
            hoverinfo="text", colorbar={"title": {"text": kind.capitalize(), "side": "right"}, "thickness": 14},
        )
    )  # fmt: skip
    for a, row in zip(titles, rows, strict=True):
        for b, one in zip(titles, row, strict=True):
            value = one["value"]
            ink = colours(theme).text if value is None else "#ffffff" if abs(value) > 0.7 else "#1a1a1a"
            figure.add_annotation(x=b, y=a, text=_short(value), showarrow=False, font={"size": 11, "color": ink})
    styled(figure, theme, "", "", height=max(HEIGHT, 220 + 30 * len(names)))
    figure.update_xaxes(tickangle=-45, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    if not names:
        note(figure, "undefined: nothing to correlate")
    return figure


def _short(value: float | None) -> str:
    """Two digits as narrow as a cell: .91, \u2212.41, 1.00."""
    if value is None:
        return "\u2013"
    return f"{round(value, 2) + 0:.2f}".replace("-", "\u2212").replace("0.", ".", 1)


def correlation_matrix_table(found: Found, kind: str) -> pd.DataFrame:
    """A row a pair, each pair once."""
    names = list(found[kind])
    rows = [
        {"one": found["titles"][a], "other": found["titles"][b], **cells(found[kind][a][b])}
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    ]
    return _table(rows, ("one", "other"))


# ------------------------------------------------------------------------------------------------------- reranking


def _ways(one: Found) -> Iterator[tuple[str, list[int], list[Shown]]]:
    curves = one.get("curves") or {}
    for name in WAYS:
        if name in curves and curves.get("sizes"):
            yield name, curves["sizes"], curves[name]


def reranking(found: Mapping[str, Found], *, theme: str = "light") -> go.Figure:
    """Accuracy of each way to choose among 1 to N samples, with 95 % bands; a random sample as a level."""
    look, figure = colours(theme), go.Figure()
    for place, (run, one) in enumerate(found.items()):
        dash = cycled(DASHES, place)
        for way, across, values in _ways(one):
            number = list(WAYS).index(way)
            name = labelled(run, WAYS[way], len(found))
            curve(
                figure, across, values, name=name, colour=cycled(look.series, number), dash=dash,
                symbol=cycled(SYMBOLS, number),
            )  # fmt: skip
        level = {str(k): value for k, value in one["baselines"].get("random_sample", {}).items()}.get("1")
        sizes = (one.get("curves") or {}).get("sizes")
        if level and level["value"] is not None and sizes:
            name = labelled(run, "random sample", len(found))
            curve(figure, [sizes[0], sizes[-1]], [level, level], name=name, colour=look.unknown,
                  dash="dot" if place == 0 else dash, symbol="line-ew")  # fmt: skip
    title = f"samples to choose from, N ({_counted(found)})" if figure.data else ""
    rows = math.ceil(len(figure.data) / 2 / LEGEND_COLUMNS)  # a curve has its band
    styled(figure, theme, title, "share of problems answered right", height=HEIGHT + 50 + LEGEND_ROW * rows)
    figure.update_layout(legend={"y": -60 / HEIGHT, "yanchor": "top"})
    if not _any_value(figure):
        note(figure, f"undefined: {'fewer than two problems' if figure.data else 'no problem has two samples'}")
    return figure


def _any_value(figure: go.Figure) -> bool:
    return any(value is not None for drawn in figure.data for value in drawn.y)


def _counted(found: Mapping[str, Found]) -> str:
    sizes = sorted({one["problems"] for one in found.values()})
    noun = "problem" if sizes == [1] else "problems"
    return f"{' and '.join(f'{n:,}' for n in sizes)} {noun}; bands: 95 %"


def reranking_table(found: Mapping[str, Found]) -> pd.DataFrame:
    """A row a run, way and number of samples."""
    rows = [
        {"run": run, "chosen by": WAYS[way], "samples": size, **cells(value)}
        for run, one in found.items()
        for way, sizes, values in _ways(one)
        for size, value in zip(sizes, values, strict=True)
    ]
    return _table(rows, ("run", "chosen by", "samples"))


def _policies(found: Mapping[str, Found]) -> Iterator[tuple[str, str, dict[int, Shown]]]:
    for run, one in found.items():
        for policy, by_k in one["policies"].items():
            yield run, policy, {int(k): value for k, value in by_k.items()}


def pass_at_k(found: Mapping[str, Found], *, theme: str = "light") -> go.Figure:
    """pass@k of each policy of each run, with 95 % bands; k beyond the samples is a gap."""
    look, figure = colours(theme), go.Figure()
    for place, (run, policy, by_k) in enumerate(_policies(found)):
        curve(
            figure, list(by_k), list(by_k.values()), name=labelled(run, policy, len(found)),
            colour=cycled(look.series, place), dash=cycled(DASHES, list(found).index(run)),
            symbol=cycled(SYMBOLS, place),
        )  # fmt: skip
    styled(figure, theme, f"samples, k ({_counted(found)})", "share of problems solved, pass@k")
    if not _any_value(figure):
        note(figure, "undefined: fewer than two problems have judged samples")
    return figure


def pass_at_k_table(found: Mapping[str, Found]) -> pd.DataFrame:
    """A row a run, policy and k."""
    rows = [
        {"run": run, "policy": policy, "k": k, **cells(value)}
        for run, policy, by_k in _policies(found)
        for k, value in by_k.items()
    ]
    return _table(rows, ("run", "policy", "k"))


# ---------------------------------------------------------------------------------------------------- localisation


def localisation(found: Found, *, theme: str = "light") -> go.Figure:
    """How well each way finds the first wrong step, with 95 % intervals."""
    look, figure = colours(theme), go.Figure()
    methods = found.get("methods", {})
    for place, (measure, title) in enumerate(MEASURES.items()):
        rows = [(found["titles"][name], one[measure]) for name, one in methods.items() if measure in one]
        dots(figure, rows, name=title, colour=cycled(look.series, place), symbol=cycled(SYMBOLS, place))
    styled(figure, theme, "share (95 % intervals, over problems)", "", height=_height(len(methods)))
    figure.update_yaxes(autorange="reversed", categoryorder="array",
                        categoryarray=[text(found["titles"][name]) for name in methods])  # fmt: skip
    if not methods:
        note(figure, f"undefined: {found.get('reason') or 'no trace has a known first wrong step'}")
    return figure


def localisation_table(found: Found) -> pd.DataFrame:
    """A row a way and measure."""
    rows = [
        {"located by": found["titles"][name], "figure": MEASURES[measure], **cells(one[measure])}
        for name, one in found.get("methods", {}).items()
        for measure in MEASURES
        if measure in one
    ]
    return _table(rows, ("located by", "figure"))


def kinds(found: Found, *, theme: str = "light") -> go.Figure:
    """The share of first wrong steps named exactly, by kind of mistake and way."""
    look, figure = colours(theme), go.Figure()
    names = [name for name in found.get("titles", {}) if any(name in one for one in found.get("kinds", {}).values())]
    for place, name in enumerate(names):
        rows = [(kind, one[name]) for kind, one in found["kinds"].items() if name in one]
        dots(figure, rows, name=found["titles"][name], colour=cycled(look.series, place), symbol=cycled(SYMBOLS, place))
    styled(figure, theme, "share named exactly (95 % intervals)", "", height=_height(len(found.get("kinds", {}))))
    figure.update_yaxes(autorange="reversed")
    if not figure.data:
        note(figure, "undefined: the kinds of mistakes are not known")
    return figure


def kinds_table(found: Found) -> pd.DataFrame:
    """A row a kind and way; ``share`` is the kind's own share of the wrong traces."""
    rows = [
        {"kind": kind, "figure": found["titles"].get(name, name), **cells(figure)}
        for kind, one in found.get("kinds", {}).items()
        for name, figure in one.items()
        if isinstance(figure, Mapping) and "value" in figure
    ]
    return _table(rows, ("kind", "figure"))


def distance(found: Found, *, theme: str = "light") -> go.Figure:
    """How many steps too early (below 0) or too late the named step is, in wrong traces."""
    look = colours(theme)
    counts = {int(step): int(count) for step, count in found.get("distance", {}).get("distribution", {}).items()}
    figure = go.Figure()
    if counts:
        order = sorted(counts)
        figure.add_bar(
            x=order, y=[counts[step] for step in order], marker={"color": look.series[0]},
            hovertemplate="%{x} steps: %{y:,} traces<extra></extra>",
        )  # fmt: skip
    styled(figure, theme, f"named step less the true one (n {sum(counts.values()):,} wrong traces)", "traces")
    if not counts:
        note(figure, "undefined: no wrong trace with a known first wrong step")
    return figure


def distance_table(found: Found) -> pd.DataFrame:
    """A row a distance with its count."""
    counts = found.get("distance", {}).get("distribution", {})
    return pd.DataFrame([(int(step), int(count)) for step, count in counts.items()], columns=["steps", "traces"])


def reliability(found: Found, *, theme: str = "light") -> go.Figure:
    """The share of right decisions against the confidence that was stated; on the diagonal the two are equal."""
    look, figure = colours(theme), go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as stated", line={"color": look.unknown, "dash": "dot"},
        hoverinfo="skip",
    )  # fmt: skip
    bins = [one for one in found.get("reliability", {}).get("bins", []) if one["right"]["value"] is not None]
    ece = found.get("reliability", {}).get("ece")
    if bins:
        curve(
            figure, [one["confidence"] for one in bins], [one["right"] for one in bins], name="decisions",
            colour=look.series[0], dash="solid", symbol="circle",
        )  # fmt: skip
    styled(figure, theme, "confidence stated", "share of decisions that are right")
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1])
    if ece:
        figure.update_xaxes(title_text=text(f"confidence stated (expected calibration error {words(ece)})"))
    return figure


def reliability_table(found: Found) -> pd.DataFrame:
    """A row a bin of confidence."""
    rows = [
        {"from": one["low"], "to": one["high"], "confidence": one["confidence"], **cells(one["right"])}
        for one in found.get("reliability", {}).get("bins", [])
    ]
    return _table(rows, ("from", "to", "confidence"))


# --------------------------------------------------------------------------------------------------------- probes


def probes(found: Found, *, theme: str = "light", scores: Sequence[str] = tuple(REWARD_SCORES)[:3]) -> go.Figure:
    """How often a probe scores higher than the honest trace that it was made of; above a half it fools the score."""
    look, figure = colours(theme), go.Figure()
    shown = found.get("probes", {})
    for place, score in enumerate(scores):
        rows = [
            (found["probe_titles"][name], one["scores"][score]["fooled"])
            for name, one in shown.items()
            if score in one["scores"]
        ]
        title = found["titles"].get(score, score)
        dots(figure, rows, name=title, colour=cycled(look.series, place), symbol=cycled(SYMBOLS, place))
    styled(figure, theme, "share of pairs in which the probe scores higher", "", height=_height(len(shown)))
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(autorange="reversed")
    if shown:
        figure.add_vline(x=0.5, line={"color": look.unknown, "dash": "dot"})
    else:
        note(figure, f"undefined: {found.get('reason') or 'no probes'}")
    return figure


def probes_table(found: Found) -> pd.DataFrame:
    """A row a probe and score."""
    rows = [
        {"probe": found["probe_titles"][name], "score": found["titles"].get(score, score), **cells(figures["fooled"])}
        for name, one in found.get("probes", {}).items()
        for score, figures in one["scores"].items()
    ]
    return _table(rows, ("probe", "score"))


# ------------------------------------------------------------------------------------------------------- training


def training(
    runs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str], *, smooth: int = 1, theme: str = "light",
    several: str = "value",
) -> go.Figure:  # fmt: skip
    """Metrics over the steps of each training: the mean of the last ``smooth`` values, the values themselves faintly.
    Held-out pass@1 has its 95 % band and is never smoothed. ``several``: what the axis shows of many."""
    look, figure = colours(theme), go.Figure()
    for place, (run, lines) in enumerate(runs.items()):
        for number, metric in enumerate(metrics):
            known = [line for line in lines if metric in line and "step" in line]
            if known:
                name = labelled(run, METRICS.get(metric, metric), len(runs))
                style = (cycled(look.series, number + (place if len(metrics) == 1 else 0)), cycled(DASHES, place))
                _metric(figure, known, metric, name, smooth, style)
    styled(figure, theme, "step", text(METRICS.get(metrics[0], metrics[0])) if len(metrics) == 1 else several)
    figure.update_layout(showlegend=True)
    if not figure.data:
        note(figure, "no values yet")
    return figure


def _metric(
    figure: go.Figure, lines: Sequence[Mapping[str, float]], metric: str, name: str, smooth: int,
    style: tuple[str, str],
) -> None:  # fmt: skip
    colour, dash = style
    x, y = [line["step"] for line in lines], [line[metric] for line in lines]
    evaluated = metric.startswith("eval/")
    if metric == "eval/pass@1":
        band(figure, x, [line.get("eval/low") for line in lines], [line.get("eval/high") for line in lines], colour)
    if smooth > 1 and not evaluated:
        figure.add_scatter(x=x, y=y, mode="lines", line={"color": colour, "width": 1}, opacity=0.25,
                           showlegend=False, hoverinfo="skip")  # fmt: skip
        y = pd.Series(y).rolling(smooth, min_periods=1).mean().tolist()
    beside = [_held_out(line) if metric == "eval/pass@1" else "" for line in lines]
    figure.add_scatter(
        x=x, y=y, name=text(name), mode="lines+markers" if evaluated or len(x) < 3 else "lines",
        line={"color": colour, "dash": dash, "width": 2}, marker={"size": 7}, customdata=beside,
        hovertemplate=f"%{{x:,}}: %{{y:.4g}}%{{customdata}}<extra>{text(name)}</extra>",
    )  # fmt: skip


def _held_out(line: Mapping[str, float]) -> str:
    """The interval and n of a held-out evaluation, as it was logged."""
    ends = f" [{line['eval/low']:.3f}, {line['eval/high']:.3f}]" if {"eval/low", "eval/high"} <= line.keys() else ""
    return ends + (f", n {line['eval/n']:,.0f}" if "eval/n" in line else "")


def training_table(
    runs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str], across: str = "step"
) -> pd.DataFrame:
    """A row a run and step with a column a metric, and the interval and n of pass@1 where that is among them.

    ``across``: what the lines hold as their step."""
    extra = ["eval/low", "eval/high", "eval/n"] if "eval/pass@1" in metrics else []
    names = [*metrics, *extra]
    rows = [
        {"run": run, across: line["step"], **{name: line.get(name) for name in names}}
        for run, lines in runs.items()
        for line in lines
        if any(name in line for name in names)
    ]
    return pd.DataFrame(rows, columns=["run", across, *names])
