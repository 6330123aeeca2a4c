"""Charts: what is drawn equals what is tabled, undefined is said, texts of others stay texts."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from irl_core.evaluation import correlation, pass_at_k, reranking
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import TITLES
from irl_core.report.charts import evaluation as charts
from irl_core.report.charts import style, traces
from irl_core.report.charts.forest_plot import intervals
from irl_core.report.charts.training import training, training_table
from irl_core.report.csv_export import csv_of
from irl_core.statistics.bootstrap import Estimate
from tests.evaluated import frame, simulated

SCORE = "score_mean_discounted"
HOSTILE = "<img src=x onerror=alert(1)> <b>x</b> $5 and $10"


def evaluated(found: pd.DataFrame, **parts: Any) -> EvaluatedRun:
    return EvaluatedRun(Path("run.parquet"), found, found.iloc[:0], found.iloc[:0], **parts)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return frame(simulated(12, 4))


def texts(figure: go.Figure) -> list[str]:
    """Every text of a figure that plotly reads tags in."""
    found: list[str] = []

    def walk(value: Any, key: str = "") -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name != "customdata":
                    walk(inner, name)
        elif isinstance(value, list | tuple | np.ndarray):
            for inner in value:
                walk(inner, key)
        elif isinstance(value, str):
            found.append(value)

    walk(figure.to_dict())
    return found


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    """Enough traces of both classes for a shape."""
    return frame(simulated(30, 6))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_histogram_is_of_shares_and_its_table_has_the_counts(many: pd.DataFrame, theme: str) -> None:
    figure, table = traces.histogram({"a": many}, SCORE, theme=theme), traces.histogram_table({"a": many}, SCORE)
    for kind in ("correct", "incorrect"):
        part = table[table["class"] == kind]
        values = many[many["correct"] == (kind == "correct")][SCORE].dropna()
        assert part["count"].sum() == len(values) == part["n"].iloc[0]
        assert part["share"].sum() == pytest.approx(1)
        drawn = next(one for one in figure.data if (one.name or "").startswith(f"{kind} ("))
        assert drawn.name == f"{kind} (n {len(values)})"
        assert np.asarray(drawn.y)[::2] == pytest.approx(part["share"].to_numpy())
        smooth = next(one for one in figure.data if one.legendgroup == drawn.legendgroup and one.name is None)
        width = float(part["high"].iloc[3] - part["low"].iloc[3])
        assert 0.8 < np.trapezoid(smooth.y, smooth.x) / width <= 1.01
    assert figure.layout.font.color == style.THEMES[theme].text


def test_a_long_tail_is_one_bin_and_does_not_stretch_the_axis(many: pd.DataFrame) -> None:
    far = many.copy()
    far.loc[far.index[:2], SCORE] = [-1e6, -9e5]
    table, figure = traces.histogram_table({"a": far}, SCORE), traces.histogram({"a": far}, SCORE)
    assert table.loc[table["low"].isna(), "count"].sum() == 2 and table["high"].notna().all()
    assert table["count"].sum() == len(far)
    across = np.concatenate([np.asarray(one.x, dtype=float) for one in figure.data])
    assert across.min() > -100
    assert any(note.text.endswith(": 2") and note.text.startswith("below") for note in figure.layout.annotations)
    strip = traces.strip({"a": far}, SCORE)
    assert strip.layout.yaxis.range[0] > -100 and "2 beyond the axis" in strip.layout.xaxis.title.text
    drawn = [y for one in strip.data if one.customdata is not None for y in one.y]
    assert min(drawn) == -1e6  # still there for whoever looks
    assert traces.strip({"a": many}, SCORE).layout.yaxis.range is None


def test_of_few_traces_points_are_drawn_and_no_shape() -> None:
    few = frame(simulated(5, 4))
    figure = traces.histogram({"a": few}, SCORE)
    assert {one.mode for one in figure.data} == {"markers"}
    assert sum(len(one.x) for one in figure.data) == len(few)
    assert "fewer than 30" in figure.layout.xaxis.title.text
    below = [
        (value, said) for one in figure.data for value, said in zip(one.x, one.hovertext, strict=True) if value < 0
    ]
    assert below and all(said == f"\u2212{-value:.3g}" for value, said in below)
    assert not any(one.type == "box" for one in traces.strip({"a": few}, SCORE).data)


def test_every_point_names_its_run_and_trace(rows: pd.DataFrame) -> None:
    for figure in (traces.strip({"a": rows}, SCORE), traces.scatter({"a": rows}, SCORE, "length")):
        points = [tuple(one) for trace in figure.data if trace.customdata is not None for one in trace.customdata]
        known = rows[rows[SCORE].notna() & rows["correct"].notna()]
        assert sorted(points) == sorted(("a", one) for one in known["trace_id"])
        drawn = [trace for trace in figure.data if trace.customdata is not None]
        values = {tuple(one): y for trace in drawn for one, y in zip(trace.customdata, trace.y, strict=True)}
        column = SCORE if figure.layout.yaxis.title.text.startswith("mean disc") else "length"
        for row in known.to_dict("records"):
            assert values["a", row["trace_id"]] == pytest.approx(row[column])


def test_the_tables_of_points_hold_every_trace(rows: pd.DataFrame) -> None:
    known = rows[rows[SCORE].notna() & rows["correct"].notna()]
    assert traces.strip_table({"a": rows, "b": rows}, SCORE).groupby("run").size().tolist() == [len(known)] * 2
    table = traces.scatter_table({"a": rows}, SCORE, SCORE)
    assert table.shape == (int(rows[SCORE].notna().sum()), 7)
    assert (table.iloc[:, 3] == table.iloc[:, 4]).all()


def test_the_tables_of_points_say_what_the_model_cannot_judge(rows: pd.DataFrame) -> None:
    known = rows[rows[SCORE].notna() & rows["correct"].notna()].head(3)
    told = known.assign(cannot_judge=[True, False, None], familiar=[False, True, None])
    for table in (traces.strip_table({"a": told}, SCORE), traces.scatter_table({"a": told}, SCORE, "length")):
        read = pd.read_csv(io.StringIO(csv_of(table)))  # as a reader of the saved file has them
        assert read["cannot_judge"].tolist()[:2] == [True, False] and read["cannot_judge"].isna()[2]
        assert read["familiar"].tolist()[:2] == [False, True] and read["familiar"].isna()[2]
    for empty in (traces.strip_table({}, SCORE), traces.scatter_table({}, SCORE, "length")):
        assert list(empty)[-2:] == ["cannot_judge", "familiar"] and empty.empty


def test_more_points_than_the_limit_are_drawn_at_random_and_it_says_so(
    rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from irl_core.report.charts import traces

    monkeypatch.setattr(traces, "MOST_POINTS", 10)
    figure = traces.strip({"a": rows}, SCORE)
    drawn = [one for trace in figure.data if trace.customdata is not None for one in trace.customdata]
    assert len(drawn) == 10
    axis = figure.layout.xaxis.title.text
    assert f"points: 10 of {len(rows)} solutions,<br>drawn at random" in axis and not figure.layout.annotations
    assert ["<br>n " in label for label in figure.layout.xaxis.ticktext] == [True, True]
    again = traces.strip({"a": rows}, SCORE)
    assert [list(one) for t in again.data if t.customdata is not None for one in t.customdata] == [
        list(one) for one in drawn
    ]


@pytest.mark.parametrize(
    "change",
    [{"correct": None}, {SCORE: None}, {SCORE: float("nan")}],
    ids=["not judged", "no score", "not a number"],
)
def test_nothing_to_draw_is_said(change: dict[str, Any]) -> None:
    found = frame([row | change for row in simulated(3, 2)])
    figure = traces.histogram({"a": found}, SCORE)
    assert not figure.data and figure.layout.annotations[0].text.startswith("undefined")
    assert traces.histogram_table({"a": found}, SCORE).empty
    assert traces.strip({"a": found}, SCORE).layout.annotations[0].text.startswith("undefined")


def test_constant_scores_have_no_smooth_density() -> None:
    figure = traces.histogram({"a": frame([row | {SCORE: 2.0} for row in simulated(30, 6)])}, SCORE)
    assert all("(n " in one.name for one in figure.data)  # the bins alone


def test_figures_are_drawn_as_they_were_computed(rows: pd.DataFrame) -> None:
    run = evaluated(rows)
    found = correlation.figures(run)
    matrix = charts.correlation_matrix(found, "pearson")
    names = list(found.pearson)
    assert matrix.data[0].z[0][names.index("length")] == found.pearson[names[0]]["length"].value
    table = charts.correlation_matrix_table(found, "pearson")
    assert len(table) == len(names) * (len(names) - 1) // 2
    ranks = {"a": reranking.figures(run)}
    sizes = ranks["a"].curves.sizes
    ends = [(one.legendrank, one.y[-1]) for one in charts.reranking(ranks).data if one.name]
    assert [value for _, value in sorted(ends)] == sorted((value for _, value in ends), reverse=True)
    oracle = next(one for one in charts.reranking(ranks).data if (one.name or "").startswith("oracle"))
    assert list(oracle.x) == sizes
    assert list(oracle.y) == [one.value for one in ranks["a"].curves.by_way["oracle"]]
    assert len(charts.reranking_table(ranks)) == 5 * len(sizes)
    solved = {"a": pass_at_k.figures(run)}
    drawn = [one for one in charts.pass_at_k(solved).data if one.name]
    policies = solved["a"].policies
    assert [dict(zip(one.x, one.y, strict=True)) for one in drawn] == [
        {int(k): f.value for k, f in by_k.items() if f.defined} for by_k in policies.values()
    ]


def test_no_line_of_a_title_or_a_legend_is_longer_than_a_narrow_chart_holds(rows: pd.DataFrame) -> None:
    run = evaluated(rows, compare={"a policy with a name that is longer than any line of a legend": rows})
    runs = {"uploads/solutions-of-the-spring-term-1f2e3d4c": rows, "two": rows}
    ranks, solved = ({name: made.figures(run) for name in runs} for made in (reranking, pass_at_k))
    figures = [
        *(drawn(given, score) for drawn in (traces.histogram, traces.strip) for score in TITLES
          for given in (runs, {"few": frame(simulated(5, 4))}, {"none": rows.head(0)})),
        traces.scatter(runs, SCORE, "score_mean_discounted_answer"), traces.scatter({}, SCORE, "length"),
        charts.reranking(ranks), charts.reranking({}), charts.pass_at_k(solved), charts.pass_at_k({}),
        training({name: [{"step": 1.0, "a": 1.0}] for name in runs}, ["a"]),
        intervals(
            [(name, "AUC", Estimate(0.6, 0.5, 0.7, 9, "pairs")) for name in runs],
            unit="share of the pairs of one problem ranked right", reference=0.5, reference_words="chance",
        ),
    ]  # fmt: skip
    said = [
        words
        for one in figures
        for words in (one.layout.xaxis.title.text, one.layout.yaxis.title.text, *(each.name for each in one.data))
    ]
    lines = [html.unescape(line) for words in said if words for line in words.split("<br>")]
    assert len(lines) > 100 and max(map(len, lines)) <= style.LINE
    notes = [note.text for one in figures for note in one.layout.annotations]
    assert len(notes) > 5 and all(len(line) <= style.NOTE_LINE for words in notes for line in words.split("<br>"))


def test_numbers_of_samples_have_no_fractions_and_end_where_the_samples_do() -> None:
    run = evaluated(frame(simulated(12, 2)))
    chosen, solved = (
        charts.reranking({"a": reranking.figures(run)}),
        charts.pass_at_k({"a": pass_at_k.figures(run)}),
    )
    for figure in (chosen, solved, training({"a": [{"step": 1.0, "a": 1.0}, {"step": 3.0, "a": 2.0}]}, ["a"])):
        assert figure.layout.xaxis.dtick == 1
    assert {x for one in solved.data for x in one.x} == {x for one in chosen.data for x in one.x} == {1, 2}
    hours = training({"a": [{"step": 0.5, "a": 1.0}, {"step": 2.25, "a": 2.0}]}, ["a"])
    assert hours.layout.xaxis.dtick is None


def test_runs_stand_apart_in_the_legend_and_what_is_chosen_among_all_is_where_it_is() -> None:
    """Of a run whose problems have one to three samples, the line at one sample would be a pile of equal points."""
    some = [row for place, row in enumerate(simulated(12, 3)) if place % 3 == 0 or place >= 24]
    uneven, even = (reranking.figures(evaluated(frame(rows))) for rows in (some, simulated(12, 2)))
    figure = charts.reranking({"mine": uneven, "two": even})
    groups = {one.legendgrouptitle.text for one in figure.data}
    assert groups == {"mine", "two"} and figure.layout.legend.orientation == "h"
    mine = {one.name.replace("<br>", " "): one for one in figure.data if one.name and one.legendgroup == "0"}
    assert len(mine) == 4 and all(max(one.x) == 3 for one in mine.values())
    best = mine["highest reward, of all 1 to 3 samples"]
    assert list(best.y) == [uneven.by_score[uneven.vote.score]["1"].value.value] and list(best.x) == [3]
    assert best.hovertext[0].startswith("mine: highest reward")
    assert len([one for one in figure.data if one.name and one.legendgroup == "1"]) == 6
    table = charts.reranking_table({"mine": uneven})
    assert list(table["samples"]) == [3, 3, 3] and table["value"][0] == best.y[0]


def test_a_line_under_another_is_seen_on_both_its_sides() -> None:
    figure = charts.reranking({"a": reranking.figures(evaluated(frame(simulated(12, 2))))})
    lines = {one.name: one for one in figure.data if one.name}
    under, over = lines["vote weighted by the reward"], lines["highest reward"]
    assert list(under.y) == list(over.y) and list(figure.data).index(under) < list(figure.data).index(over)
    assert under.line.width == over.line.width + style.ON_TOP
    assert under.marker.size == over.marker.size + style.ON_TOP
    lone = [one for name, one in lines.items() if [list(each.y) for each in lines.values()].count(list(one.y)) == 1]
    assert lone and {one.line.width for one in lone} == {2}


def test_bands_are_drawn_where_they_can_be_told_apart(rows: pd.DataFrame) -> None:
    def bands(figure: Any) -> list[str]:
        return [one.fillcolor for one in figure.data if one.fill == "toself"]

    run = evaluated(rows)
    figure = charts.reranking({"a": reranking.figures(run)})
    best = next(one for one in figure.data if one.name == "highest reward")
    assert bands(figure) == [style.faded(best.line.color, 0.15)]
    assert figure.layout.xaxis.title.text.endswith("95 % band: highest reward")
    alone = charts.pass_at_k({"a": pass_at_k.figures(run)})
    many = charts.pass_at_k({"a": pass_at_k.figures(evaluated(rows, compare=dict.fromkeys("bcd", rows)))})
    assert len(bands(alone)) == len(bands(many)) == 1
    assert alone.layout.xaxis.title.text.endswith("bands: 95 %")
    assert many.layout.xaxis.title.text.endswith("95 % band: this run")


def test_an_undefined_correlation_is_no_zero(rows: pd.DataFrame) -> None:
    found = correlation.figures(evaluated(rows.assign(xml_count=1.0)))
    matrix = charts.correlation_matrix(found, "spearman")
    place = list(found.spearman).index("xml_count")
    assert matrix.data[0].z[place][0] is None
    assert "undefined (" in matrix.data[0].hovertext[place][0]
    # the values are one trace of texts: an annotation a cell took plotly seconds
    assert not matrix.layout.annotations and len(matrix.data[1].text) == len(found.spearman) ** 2
    assert matrix.data[1].text[place] == "\u2013"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_values_of_the_matrix_are_read_on_every_colour(theme: str) -> None:
    scale = style.colours(theme).diverging
    shades = [style.between(scale, share / 50) for share in range(51)]
    assert (shades[0], shades[25], shades[50]) == tuple(colour.lower() for colour in scale)
    assert min(style.contrast(style.ink_on(shade), shade) for shade in shades) >= 4.5
    # where two columns do not go together the cell is nearly the page's own
    assert style.contrast(shades[25], style.colours(theme).paper) < 1.3


def test_training_is_smoothed_with_its_values_faintly_and_pass_at_1_never() -> None:
    lines = [{"step": float(i), "disc/loss": float(i % 2)} for i in range(1, 7)]
    lines[5] |= {"eval/pass@1": 0.5, "eval/low": 0.4, "eval/high": 0.6, "eval/n": 9.0}
    lines[2] |= {"eval/pass@1": 0.3, "eval/low": 0.2, "eval/high": 0.4, "eval/n": 9.0}
    figure = training({"a": lines}, ["disc/loss", "eval/pass@1"], smooth=2)
    loss = next(one for one in figure.data if one.name == "disc/loss")
    assert list(loss.y) == [1, 0.5, 0.5, 0.5, 0.5, 0.5]  # the mean of a value and the one before
    held_out = next(one for one in figure.data if one.name == "pass@1 on held-out problems")
    assert (list(held_out.x), list(held_out.y)) == ([3, 6], [0.3, 0.5])
    assert list(held_out.customdata) == ["0.300 [0.200, 0.400] (n 9)", "0.500 [0.400, 0.600] (n 9)"]
    table = training_table({"a": lines}, ["eval/pass@1"])
    assert table.to_dict("records")[0] == {
        "run": "a", "step": 3.0, "eval/pass@1": 0.3, "eval/low": 0.2, "eval/high": 0.4, "eval/n": 9.0,
    }  # fmt: skip
    assert list(training_table({"a": lines}, ["disc/loss"], "hours").columns) == ["run", "hours", "disc/loss"]
    assert training({"a": []}, ["disc/loss"]).layout.annotations[0].text == "no values yet"


@pytest.mark.parametrize(("problems", "samples", "why"), [(1, 8, "fewer than two problems"), (9, 1, "two samples")])
def test_an_accuracy_without_a_value_says_why(problems: int, samples: int, why: str) -> None:
    found = {"a": reranking.figures(evaluated(frame(simulated(problems, samples))))}
    assert why in charts.reranking(found).layout.annotations[0].text
    solved = charts.pass_at_k({"a": pass_at_k.figures(evaluated(frame(simulated(1))))}).layout
    assert "fewer than two problems" in solved.annotations[0].text and "(1 problem)<br>" in solved.xaxis.title.text


def test_texts_of_others_stay_texts() -> None:
    found = frame([row | {"trace_id": f"{HOSTILE}{i}"} for i, row in enumerate(simulated(4, 3))])
    run = evaluated(found)
    runs = {HOSTILE: found, f"{HOSTILE}2": found}
    figures = [
        traces.histogram(runs, SCORE), traces.strip(runs, SCORE), traces.scatter(runs, SCORE, "length"),
        charts.reranking({name: reranking.figures(run) for name in runs}),
        charts.pass_at_k({name: pass_at_k.figures(run) for name in runs}),
        training({name: [{"step": 1.0, "<b>": 1.0}] for name in runs}, ["<b>"]),
    ]  # fmt: skip
    for figure in figures:
        for one in texts(figure):
            assert "<img" not in one and "<b>" not in one and "$" not in one.replace("<extra></extra>", ""), one


def test_an_unknown_theme_is_named() -> None:
    with pytest.raises(ValueError, match="theme is 'blue'; it is one of light, dark"):
        traces.histogram({}, SCORE, theme="blue")


def test_seeds_are_a_mean_with_a_band_on_a_log_axis_where_wanted() -> None:
    from app.jobs.training_runs import mean_of_seeds

    one = [{"step": 1.0, "disc/loss": 2.0}, {"step": 2.0, "disc/loss": 1.0}, {"step": 3.0, "disc/loss": 9.0}]
    two = [{"step": 1.0, "disc/loss": 4.0}, {"step": 2.0, "disc/loss": 3.0, "eval/low": 0.1}]
    mean = mean_of_seeds([one, two], [one, two])
    assert mean == [  # step 3 is of one seed alone
        {"step": 1.0, "disc/loss": 3.0, "disc/loss (lowest)": 2.0, "disc/loss (highest)": 4.0},
        {"step": 2.0, "disc/loss": 2.0, "disc/loss (lowest)": 1.0, "disc/loss (highest)": 3.0},
    ]
    figure = training({"mean": mean}, ["disc/loss"], logarithmic=True)
    assert figure.layout.yaxis.type == "log"
    assert [list(trace.y) for trace in figure.data] == [[4.0, 3.0, 1.0, 2.0], [3.0, 2.0]]  # the band, and the mean
    assert list(training_table({"mean": mean}, ["disc/loss"]).columns)[2:] == [
        "disc/loss", "disc/loss (lowest)", "disc/loss (highest)"]  # fmt: skip


def test_of_several_runs_the_colour_is_the_run() -> None:
    lines = [{"step": 1.0, "disc/loss": 2.0, "policy/loss": 1.0}, {"step": 2.0, "disc/loss": 1.0, "policy/loss": 1.0}]
    figure = training({"a": lines, "b": lines}, ["disc/loss", "policy/loss"])
    colours = [trace.line.color for trace in figure.data]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [trace.line.dash for trace in figure.data] == ["solid", "dash", "solid", "dash"]
