"""Charts of an evaluation: correlations, choosing among samples, pass@k, and what fools the reward."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import pandas as pd
import plotly.graph_objects as go

from irl_core.evaluation.correlation import Correlations
from irl_core.evaluation.pass_at_k import THIS, PassAtK
from irl_core.evaluation.reranking import MAJORITY, ORACLE, Reranking
from irl_core.evaluation.reward_hacking import Probes
from irl_core.evaluation.scores import REWARD_SCORES, Counts
from irl_core.evaluation.section import Cell, Table
from irl_core.report.charts.style import (
    DASHES,
    HEIGHT,
    SYMBOLS,
    apart,
    between,
    colours,
    curve,
    cycled,
    dots,
    folded,
    height_of,
    ink_on,
    labelled,
    note,
    styled,
    text,
    whole_numbers,
)
from irl_core.report.tables import numbers
from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import true_minus

LEGEND_ROW: Final = 20  # pixels
RUNS_BESIDE: Final = 2  # in a legend, whose names are a column a run
WAYS: Final = {
    "weighted_vote": "vote weighted by the reward",
    "best_of": "highest reward",
    "majority": "majority vote",
    "log_prob_vote": "vote weighted by log-probability",
    "oracle": "oracle (any sample right)",
}
BANDED: Final = "best_of"  # the way that the page's sentence is about; bands of all of them are one brown mass
MOST_BANDS: Final = 2  # lines whose bands can be told apart


def correlation_matrix(correlations: Correlations, kind: str, *, theme: str = "light") -> go.Figure:
    """``pearson`` or ``spearman`` correlations, with their values; an undefined one says why on hovering."""
    matrix = correlations.pearson if kind == "pearson" else correlations.spearman
    names, title_of, scale = list(matrix), correlations.titles, colours(theme).diverging
    steps = [[place / 2, colour] for place, colour in enumerate(scale)]
    titles = [text(title_of[name]) for name in names]
    figure = go.Figure(
        go.Heatmap(
            x=titles, y=titles, zmin=-1, zmax=1, colorscale=steps, xgap=1, ygap=1,
            z=[[matrix[a][b].value if matrix[a][b].defined else None for b in names] for a in names],
            hovertext=[
                [text(f"{title_of[a]} and {title_of[b]}: {true_minus(str(matrix[a][b]))}") for b in names]
                for a in names
            ],
            hoverinfo="text", colorbar={"title": {"text": kind.capitalize(), "side": "right"}, "thickness": 14},
        )
    )  # fmt: skip
    cells = [
        (x, y, matrix[a][b]) for a, y in zip(names, titles, strict=True) for b, x in zip(names, titles, strict=True)
    ]
    figure.add_scatter(
        x=[x for x, _, _ in cells], y=[y for _, y, _ in cells], text=[short(one) for *_, one in cells], mode="text",
        textfont={"size": 11, "color": [
            ink_on(between(scale, (one.value + 1) / 2)) if one.defined else colours(theme).text for *_, one in cells
        ]},
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    styled(figure, theme, "", "", height=max(HEIGHT, 220 + 30 * len(names)))
    figure.update_xaxes(tickangle=-45, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    if not names:
        note(figure, "undefined: nothing to correlate")
    return figure


def short(one: Estimate) -> str:
    """A correlation in two digits, as narrow as a cell: .91, −.41, 1.00; a dash where it is undefined."""
    return true_minus(f"{round(one.value, 2) + 0:.2f}").replace("0.", ".", 1) if one.defined else "\u2013"


def correlation_matrix_table(correlations: Correlations, kind: str) -> pd.DataFrame:
    """A row a pair, each pair once."""
    matrix = correlations.pearson if kind == "pearson" else correlations.spearman
    names = list(matrix)
    rows: list[list[Cell]] = [
        [correlations.titles[a], correlations.titles[b], matrix[a][b]]
        for place, a in enumerate(names)
        for b in names[place + 1 :]
    ]
    return numbers(Table("Correlations", ("one", "other", "value"), rows))


# ------------------------------------------------------------------------------------------------ choosing, pass@k


def curves_of(reranked: Reranking) -> Iterator[tuple[str, str, list[int], list[Estimate]]]:
    """Yield (way to choose, its words, numbers of samples, accuracies).

    Lines end where the problem with the fewest samples does; at one sample there is nothing to choose, and no line.
    Where other problems have more, what is chosen among all samples stands at the most of them.
    """
    by_way, sizes = reranked.curves.by_way or {}, reranked.curves.sizes or []
    for name in WAYS:
        if name in by_way and len(sizes) > 1:
            yield name, WAYS[name], sizes, by_way[name]
    fewest, most = reranked.samples or (0, 0)
    if sizes and fewest < most:
        of_all = {BANDED: reranked.by_score[reranked.vote.score]["1"].value} | {
            name: reranked.baselines[name]["1"] for name in (MAJORITY, ORACLE)
        }
        for name, value in of_all.items():
            yield name, f"{WAYS[name]}, of all {fewest} to {most} samples", [most], [value]


def reranking(by_run: Mapping[str, Reranking], *, theme: str = "light") -> go.Figure:
    """Accuracy of each way to choose among 1 to N samples; the highest reward's with its 95 % band, since bands of all
    hide each other. A random sample as a level."""
    look, figure = colours(theme), go.Figure()
    for place, (run, one) in enumerate(by_run.items()):
        dash = cycled(DASHES, place)
        before, sizes = len(figure.data), one.curves.sizes
        for way, words, across, values in curves_of(one):
            number = list(WAYS).index(way)
            curve(
                figure, across, values, name=words, colour=cycled(look.series, number), dash=dash,
                symbol=cycled(SYMBOLS, number), banded=way == BANDED,
            )  # fmt: skip
        level = one.baselines.get("random_sample", {}).get("1")
        if level and level.defined and sizes:
            curve(figure, [sizes[0], max(sizes[-1], one.samples[1])], [level, level], name="random sample",
                  colour=look.unknown, dash="dot" if place == 0 else dash, symbol="line-ew", banded=False)  # fmt: skip
        if len(by_run) > 1:
            grouped(figure.data[before:], run, str(place))
    title = counted("samples, N", by_run, WAYS[BANDED]) if figure.data else ""
    curves = [one.legendgroup for one in figure.data if one.name]
    rows = max(map(curves.count, curves), default=0)
    if len(by_run) > 1:
        names = max(folded(run).count("<br>") + 1 for run in by_run)
        rows = (rows + names) * math.ceil(len(by_run) / RUNS_BESIDE)
    styled(figure, theme, title, "share of problems answered right", height=HEIGHT + 40 + LEGEND_ROW * rows)
    apart(figure)
    whole_numbers(figure, [size for one in figure.data for size in one.x])
    legend = {"y": -90 / HEIGHT, "yanchor": "top", "orientation": "h" if len(by_run) > 1 else "v"}
    figure.update_layout(legend=legend | {"groupclick": "toggleitem"}, margin_t=8)  # a run's names are a column
    named = [one for one in figure.data if one.name]
    named.sort(key=lambda one: -next((value for value in reversed(one.y) if value is not None), -1.0))
    for rank, one in enumerate(named, start=1):
        one.legendrank = rank  # the names in the order of the lines' ends
    if not any_value(figure):
        note(figure, f"undefined: {'fewer than two problems' if figure.data else 'no problem has two samples'}")
    return figure


def grouped(drawn: Sequence[go.Scatter], run: str, group: str) -> None:
    """Put the lines of a run under its name in the legend; what the mouse is over says it with each."""
    for one in drawn:
        one.update(legendgroup=group, legendgrouptitle_text=folded(run))
        if one.hovertext is not None:
            one.hovertext = [f"{text(run)}: {words}" for words in one.hovertext]


def any_value(figure: go.Figure) -> bool:
    """Whether anything was drawn."""
    return any(value is not None for drawn in figure.data for value in drawn.y)


def counted(axis: str, by_run: Mapping[str, Counts], banded: str = "") -> str:
    """The title of an axis with the number of problems behind the lines, and whose 95 % bands are drawn: all have one,
    or ``banded`` alone."""
    sizes = sorted({one.problems for one in by_run.values()})
    noun = "problem" if sizes == [1] else "problems"
    told = f"95 % band: {banded}" if banded else "bands: 95 %"
    return f"{axis} ({' and '.join(f'{n:,}' for n in sizes)} {noun})<br>{told}"


def reranking_table(by_run: Mapping[str, Reranking]) -> pd.DataFrame:
    """A row a scored run, way to choose and number of samples."""
    rows: list[list[Cell]] = [
        [run, words, size, value]
        for run, one in by_run.items()
        for _, words, sizes, values in curves_of(one)
        for size, value in zip(sizes, values, strict=True)
    ]
    return numbers(Table("Choosing", ("run", "chosen by", "samples", "value"), rows))


def pass_at_k(by_run: Mapping[str, PassAtK], *, theme: str = "light") -> go.Figure:
    """pass@k of each policy of each scored run; k beyond the samples is left out. Of more than ``MOST_BANDS`` lines the
    runs' own policies alone have their 95 % bands."""
    look, figure = colours(theme), go.Figure()
    policies = [(run, policy, by_k) for run, one in by_run.items() for policy, by_k in one.policies.items()]
    few = len(policies) <= MOST_BANDS
    for place, (run, policy, by_k) in enumerate(policies):
        known = {int(k): estimate for k, estimate in by_k.items() if estimate.defined}
        curve(
            figure, list(known), list(known.values()), name=labelled(run, policy, len(by_run)),
            colour=cycled(look.series, place), dash=cycled(DASHES, list(by_run).index(run)),
            symbol=cycled(SYMBOLS, place), banded=few or policy == THIS,
        )  # fmt: skip
    apart(figure)
    words = counted("samples, k", by_run, "" if few else THIS)
    styled(figure, theme, words, "share of problems solved, pass@k")
    whole_numbers(figure, [k for one in figure.data for k in one.x])
    if not any_value(figure):
        note(figure, "undefined: fewer than two problems have samples known to be right or wrong")
    return figure


def pass_at_k_table(by_run: Mapping[str, PassAtK]) -> pd.DataFrame:
    """A row a scored run, policy and k."""
    rows: list[list[Cell]] = [
        [run, policy, int(k), value]
        for run, one in by_run.items()
        for policy, by_k in one.policies.items()
        for k, value in by_k.items()
    ]
    return numbers(Table("pass@k", ("run", "policy", "k", "value"), rows))


# ------------------------------------------------------------------------------------------------ probes


def probes(estimates: Probes, *, theme: str = "light", scores: Sequence[str] = tuple(REWARD_SCORES)[:3]) -> go.Figure:
    """How often a probe scores higher than the honest trace that it was made of; above a half it fools the score."""
    look, figure = colours(theme), go.Figure()
    for place, score in enumerate(scores):
        rows = [(estimates.probe_titles[name], one.scores[score]["fooled"]) for name, one in estimates.probes.items()]
        dots(
            figure, rows, name=estimates.titles[score], colour=cycled(look.series, place), symbol=cycled(SYMBOLS, place)
        )
    styled(
        figure, theme, "share of pairs in which the probe scores higher", "", height=height_of(len(estimates.probes))
    )
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(autorange="reversed")
    if estimates.probes:
        figure.add_vline(x=0.5, line={"color": look.unknown, "dash": "dot"})
    else:
        note(figure, f"undefined: {estimates.reason or 'no probes'}")
    return figure
