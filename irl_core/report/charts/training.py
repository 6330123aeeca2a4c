"""Charts of a training run's metrics over its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from irl_core.evaluation.training import TITLES as METRICS
from irl_core.evaluation.training import held_out_of
from irl_core.report.charts.names import HIGH, LOGGED, LOW
from irl_core.report.charts.style import (
    DASHES,
    band,
    colours,
    cycled,
    folded,
    labelled,
    note,
    styled,
    text,
    whole_numbers,
)
from irl_core.statistics.wording import true_minus


def training(
    runs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str], *, smooth: int = 1, theme: str = "light",
    several: str = "value", logarithmic: bool = False,
) -> go.Figure:  # fmt: skip
    """Metrics over the steps of each training: the mean of the last ``smooth`` values, the values themselves faintly.
    Held-out pass@1 has its 95 % band and is never smoothed; a mean of seeds has that from the lowest to the highest. Of
    several runs the colour is the run and the dashes the metric. ``several``: what the axis shows of many.
    ``logarithmic``: the axis of the values, on which those of 0 and below have no place."""
    look, figure = colours(theme), go.Figure()
    for place, (run, lines) in enumerate(runs.items()):
        for number, metric in enumerate(metrics):
            known = [line for line in lines if metric in line and "step" in line]
            if known:
                name = labelled(run, METRICS.get(metric, metric), len(runs))
                of_run, of_metric = (place, number) if len(runs) > 1 else (number, 0)
                style = (cycled(look.series, of_run), cycled(DASHES, of_metric))
                _metric(figure, known, metric, name, smooth, style)
    styled(figure, theme, "step", text(METRICS.get(metrics[0], metrics[0])) if len(metrics) == 1 else several)
    whole_numbers(figure, [step for one in figure.data for step in one.x])
    figure.update_layout(showlegend=True)
    if logarithmic:
        figure.update_yaxes(type="log", dtick="D2")  # 1, 2 and 5 of each tenfold
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
    if metric == "eval/pass@1" and metric + LOW not in lines[-1]:
        band(figure, x, [line.get("eval/low") for line in lines], [line.get("eval/high") for line in lines], colour)
    elif any(metric + LOW in line for line in lines):
        band(figure, x, [line.get(metric + LOW) for line in lines], [line.get(metric + HIGH) for line in lines], colour)
    if smooth > 1 and not evaluated:
        figure.add_scatter(x=x, y=y, mode="lines", line={"color": colour, "width": 1}, opacity=0.25,
                           showlegend=False, hoverinfo="skip")  # fmt: skip
        y = pd.Series(y).rolling(smooth, min_periods=1).mean().tolist()
    held_out = metric == "eval/pass@1" and all(line.keys() >= LOGGED for line in lines)
    values = [str(held_out_of(line)) for line in lines] if held_out else [f"{value:.4g}" for value in y]
    figure.add_scatter(
        x=x, y=y, name=folded(name), mode="lines+markers" if evaluated or len(x) < 3 else "lines",
        line={"color": colour, "dash": dash, "width": 2}, marker={"size": 7}, customdata=list(map(true_minus, values)),
        hovertemplate=f"%{{x:,}}: %{{customdata}}<extra>{text(name)}</extra>",
    )  # fmt: skip


def training_table(
    runs: Mapping[str, Sequence[Mapping[str, float]]], metrics: Sequence[str], across: str = "step"
) -> pd.DataFrame:
    """A row a run and step with a column a metric, and the interval and n of pass@1 where that is among them.

    ``across``: what the lines hold as their step."""
    names = [*metrics, *(["eval/low", "eval/high", "eval/n"] if "eval/pass@1" in metrics else [])]
    names += [name + end for name in metrics for end in (LOW, HIGH)
              if any(name + end in line for lines in runs.values() for line in lines)]  # fmt: skip
    rows = [
        {"run": run, across: line["step"], **{name: line.get(name) for name in names}}
        for run, lines in runs.items()
        for line in lines
        if any(name in line for name in names)
    ]
    return pd.DataFrame(rows, columns=["run", across, *names])
