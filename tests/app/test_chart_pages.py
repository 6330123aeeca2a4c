"""The pages on distributions, correlations and reranking: their tables, words, choices, and the undefined cases."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app.analysis import chooser, panel, sections
from app.analysis.catalogue import RunInfo, of_upload, run_info
from app.analysis.upload_records import ABOUT
from app.components import chart
from irl_core.evaluation.scores import TITLES
from irl_core.statistics.wording import true_minus
from tests.evaluated import simulated
from tests.scored import written

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
VIEWS = MAIN.with_name("views")
PAGES = ("distributions", "correlations", "reranking")
SCORE = "score_mean_discounted"
TABLES = {
    "distributions": ("distribution", "traces", "separation", "scores"),
    "correlations": ("correlations", "partial correlations", "scatter"),
    "reranking": ("reranking", "every choice", "samples needed", "pass-at-k"),
}
HOSTILE = "<img src=x onerror=alert(1)> $5 and $10 =cmd()"
pytestmark = pytest.mark.usefixtures("fake_lens")


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes runs of rows, by name, and chooses them."""

    def chosen(**rows: list[dict[str, Any]]) -> None:
        infos = [
            run_info(name, written(tmp_path / f"{name}.parquet", found, checkpoint="demo-irl", data="demo"))
            for name, found in rows.items()
        ]
        monkeypatch.setattr(chooser, "choose", lambda multiple: infos)

    return chosen


TITLE = "mine (uploaded 2026-01-02 03:04 UTC)"
INNER = "uploads/mine-1"


def upload(folder: Path) -> RunInfo:
    """An upload with a title, whose folder has another name."""
    path = written(folder / "run.parquet", simulated(20), checkpoint="demo-irl", input="traces.csv")
    about = {"title": "mine", "created": "2026-01-02T03:04:05+00:00", "file": "mine.csv"}
    (folder / ABOUT).write_text(json.dumps(about))
    return of_upload(run_info(INNER, path))


def test_an_upload_has_its_title_and_its_file_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "choose", lambda multiple: [upload(tmp_path)])
    told = "\n".join(one.value for one in open_page("distributions").caption).replace("\\", "")
    assert f"{TITLE}: checkpoint demo-irl, input mine.csv" in told
    assert "traces.csv" not in told and INNER not in told


@pytest.mark.parametrize("name", PAGES)
def test_an_upload_beside_another_run_has_its_title_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = run_info("other", written(tmp_path / "other.parquet", simulated(12, 4), checkpoint="demo-irl"))
    monkeypatch.setattr(chooser, "choose", lambda multiple: [upload(tmp_path), other])
    opened: list[tuple[str, str]] = []
    monkeypatch.setattr(chart, "open_trace", lambda run, trace: opened.append((run, trace)))
    page = open_page(name)
    assert sentence(page).startswith(f"{TITLE}: ") and f"{TITLE}, that score on each page" in words(page)
    told = [words(page), *(str(box.options) for box in page.selectbox)]
    told += [frame.value.to_csv() for frame in page.dataframe]
    told += [one.proto.spec for one in page.get("plotly_chart")]
    assert not [one for one in told if INNER in one]
    assert {TITLE, "other"} == {run for frame in page.dataframe for run in frame.value.get("run", [TITLE])}
    if name == "correlations":
        assert page.selectbox(key="matrix_run").options == [TITLE, "other"]
        return
    assert page.selectbox(key="surprising").options[0].startswith(f"{TITLE} \u00b7 ")
    next(one for one in page.button if one.label == "Open in Inspect").click().run()
    assert opened[0][0] == INNER  # the link goes by the name that stays


def open_page(name: str) -> AppTest:
    page = AppTest.from_file(str(VIEWS / f"{name}.py"), default_timeout=60)
    page.run()
    assert not page.exception
    return page


def words(page: AppTest) -> str:
    parts = [*page.markdown, *page.caption, *page.text, *page.error, *page.info, *page.header, *page.subheader]
    texts = [str(part.value) for part in parts] + [html.unescape(re.sub(r"<[^>]*>", " ", one)) for one in drawn(page)]
    return "\n".join(texts).replace("\\", "")


def table(page: AppTest, name: str) -> pd.DataFrame:
    """A table by its name; the page's tables come in the order of ``TABLES``."""
    shown = next(names for names in TABLES.values() if name in names)
    assert len(page.dataframe) == len(shown)
    frame: pd.DataFrame = page.dataframe[shown.index(name)].value
    return frame


def drawn(page: AppTest) -> list[str]:
    """The HTML that a page shows, without its styles."""
    return [re.sub(r"<style>.*?</style>", "", one.proto.body, flags=re.DOTALL) for one in page.get("html")]


def read(page: AppTest, place: int = 0) -> pd.DataFrame:
    """A table as it is read: value and interval of a cell, without bars."""
    shown = [one for one in drawn(page) if "<table>" in one and 'aria-label="Values"' not in one][place]
    shown = re.sub(r'(<th scope="col".*?)<span class="beside">[^<]*</span></th>', r"\1</th>", shown)
    rows = [
        [" ".join(html.unescape(re.sub(r"<[^>]*>", "", cell)).split())
         for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
        for row in re.findall(r"<tr>(.*?)</tr>", shown, re.DOTALL)
    ]  # fmt: skip
    return pd.DataFrame(rows[1:], columns=rows[0])


def sentence(page: AppTest, place: int = 0) -> str:
    """The sentence that a page begins with."""
    found = re.findall(r'<p class="sentence">(.*?)</p>', "".join(drawn(page)), re.DOTALL)
    return html.unescape(found[place])


@pytest.mark.parametrize(("name", "section"), [*zip(PAGES, ("separation", "correlation", "reranking"), strict=True)])
def test_a_page_says_the_paragraph_of_the_report_and_where_it_comes_from(
    choose: Any, tmp_path: Path, name: str, section: str
) -> None:
    choose(one=simulated(12, 4))
    page = open_page(name)
    path = tmp_path / "one.parquet"
    found = sections.section(section, path, sections.sample(path))
    said = words(page)
    lines = sections.sentences(found.paragraph)
    assert all(f"- {true_minus(line)}" in said for line in lines) and len(lines) > 3
    assert "one: checkpoint demo-irl, data demo; all 48 solutions of 12 problems; familiarity: not measured." in said
    assert "bootstrap over problems (2,000 resamples, seed 0)" in said
    assert json.loads(page.json[0].value)["checkpoint"] == "demo-irl"


def test_the_tests_follow_the_chosen_score(choose: Any, tmp_path: Path) -> None:
    choose(one=simulated(12, 4))
    page = open_page("distributions")
    path = tmp_path / "one.parquet"
    found = sections.section("separation", path, sections.sample(path)).figures
    for score in (SCORE, "score_min"):
        page.selectbox(key="score_shown").set_value(score).run()
        auc = found.scores[score].pooled["auc"]
        shown = read(page).set_index("figure").loc["AUC", "pooled"]
        assert shown == f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"
        pairs = found.scores[score].within["pair_accuracy"]
        assert f"higher in {100 * pairs.value:.0f} % of the {pairs.n:,} pairs" in sentence(page)
    assert page.selectbox(key="score_shown").options == list(found.titles.values())


def test_several_runs_stand_beside_each_other(choose: Any) -> None:
    choose(first=simulated(12, 4), second=simulated(12, 4, seed=1))
    page = open_page("distributions")
    assert sentence(page).startswith("first: ") and sentence(page, 1).startswith("second: ")
    assert read(page).columns.tolist() == [
        "figure", "first, pooled", "first, within problems", "second, pooled", "second, within problems"]  # fmt: skip
    assert set(table(page, "separation")["run"]) == {"first", "second"}
    assert set(table(page, "distribution")["run"]) == {"first", "second"}
    page = open_page("correlations")
    assert page.selectbox(key="matrix_run").options == ["first", "second"]
    assert set(table(page, "scatter")["run"]) == {"first", "second"}
    page = open_page("reranking")
    assert set(table(page, "reranking")["run"]) == {"first", "second"}
    assert set(table(page, "samples needed")["run"]) == {"first", "second"}


def test_within_problems_only_those_with_both_classes_are_drawn(choose: Any) -> None:
    rows = [
        {"problem_id": p, "correct": c, SCORE: s, "answer": "1"}
        for p, c, s in [("a", True, 3.0), ("a", False, 1.0), ("b", True, 2.0), ("b", True, 4.0)]
    ]
    choose(one=rows)
    page = open_page("distributions")
    assert len(table(page, "traces")) == 4
    page.segmented_control(key="compared").set_value("Within problems").run()
    assert not page.exception
    assert sorted(table(page, "traces").select_dtypes("float").iloc[:, 0]) == [-1.0, 1.0]


def test_the_matrix_has_both_kinds_with_the_rule_of_ties(choose: Any) -> None:
    choose(one=simulated(12, 4))
    page = open_page("correlations")
    before = table(page, "correlations")
    page.segmented_control(key="kind").set_value("spearman").run()
    after = table(page, "correlations")
    assert before.shape == after.shape and not before.equals(after)
    assert sections.TIES_OF_RANKS in words(page)


def test_a_run_of_one_class_is_undefined_with_n(choose: Any) -> None:
    choose(one=[row | {"correct": True} for row in simulated(4, 3)])
    page = open_page("distributions")
    assert read(page).set_index("figure").loc["AUC", "pooled"].startswith("undefined one class:")
    assert sentence(page).startswith("Whether correct solutions score higher is undefined")
    assert "undefined" in words(open_page("correlations"))
    assert not open_page("reranking").exception


def test_where_some_problems_have_one_solution_it_is_said_and_the_headlines_number_is_in_the_chart(choose: Any) -> None:
    choose(mine=[row for place, row in enumerate(simulated(12, 3)) if place % 3 == 0 or place >= 24])
    page = open_page("reranking")
    assert "8 of 12 problems have one solution, which leaves nothing to choose; 4 have more, up to 3." in words(page)
    drawn = table(page, "reranking").set_index("chosen by")["value"]
    told = re.search(r"Choosing by the reward: ([\d.]+) % right; majority ([\d.]+) %", sentence(page))
    assert told is not None
    for way, share in zip(("highest reward", "majority vote"), told.groups(), strict=True):
        assert f"{100 * drawn[f'{way}, of all 1 to 3 samples']:.{len(share.partition('.')[2])}f}" == share


def test_a_file_to_save_is_made_when_it_is_asked_for(choose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is made at once lies at an address, which a browser that looks a moment later finds empty: 404."""
    made: list[pd.DataFrame] = []
    monkeypatch.setattr(chart.csv_export, "csv_of", made.append)
    choose(one=simulated(12, 4))
    page = open_page("reranking")
    assert len([one for one in page.get("download_button") if one.proto.label == "Save as CSV"]) > 2 and not made


def test_of_one_sample_a_problem_no_choice_is_drawn(choose: Any) -> None:
    choose(one=simulated(12, 1))
    page = open_page("reranking")
    assert "Choosing is undefined: no problem has two samples." in words(page)
    assert "Choosing needs several samples of a problem" in words(page)
    assert len(page.dataframe) == 1  # pass@1 alone


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([row | {"correct": None} for row in simulated(4, 3)], id="answers missing"),
        pytest.param([row | {SCORE: 1.0} for row in simulated(4, 3)], id="zero variance"),
        pytest.param([row | {SCORE: None} for row in simulated(4, 3)], id="scores missing"),
        pytest.param(simulated(1, 1), id="one solution"),
        pytest.param(simulated(6, 1), id="k beyond the samples"),
        pytest.param([], id="no solution"),
    ],
)
def test_what_is_undefined_is_said_and_nothing_breaks(choose: Any, name: str, rows: list[dict[str, Any]]) -> None:
    choose(one=rows)
    page = open_page(name)
    assert any(word in words(page) for word in ("undefined", "nothing to", "no solution", "equal scores"))


def test_no_run_chosen_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chooser, "choose", lambda multiple: [])
    for name in PAGES:
        assert not open_page(name).dataframe


@pytest.mark.parametrize("name", PAGES)
def test_a_file_that_is_no_run_is_named_and_the_others_are_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    broken, whole = tmp_path / "broken.parquet", written(tmp_path / "whole.parquet", simulated(6, 3))
    broken.write_bytes(b"PAR1 and nothing else")
    infos = [run_info("broken", broken), run_info("gone", tmp_path / "gone.parquet"), run_info("whole", whole)]
    monkeypatch.setattr(chooser, "choose", lambda multiple: infos)
    page = open_page(name)
    errors = [error.value.replace("\\", "") for error in page.error]
    assert errors[0].startswith("broken: broken.parquet: is not a readable Parquet file")
    assert errors[1] == "gone: cannot be read: No such file or directory"
    assert page.dataframe and str(tmp_path) not in words(page)


def test_a_vote_that_cannot_be_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(6, 3), vote={"score": "nonsense", "temperature": 1})
    monkeypatch.setattr(chooser, "choose", lambda multiple: [run_info("run", path)])
    page = open_page("reranking")
    assert page.error[0].value.replace("\\", "").startswith("run: run.parquet: its provenance holds the vote")


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names_ids_and_texts_are_literal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    rows = [row | {"trace_id": f"=cmd() {HOSTILE} {i}", "text": HOSTILE} for i, row in enumerate(simulated(6, 3))]
    path = written(tmp_path / "run.parquet", rows, checkpoint=HOSTILE, data=":red[x] $1 and $2")
    monkeypatch.setattr(chooser, "choose", lambda multiple: [run_info(HOSTILE, path)])
    page = open_page(name)
    for part in (*page.markdown, *page.caption):
        assert not re.search(r"(?<!\\)(<img|\$5|\$1|:red)", part.value)
    assert HOSTILE in words(page)


def test_the_surprising_trace_is_opened_in_inspect(choose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"problem_id": p, "correct": c, SCORE: s, "answer": "1"}
        for p, c, s in [("a", True, 3.0), ("a", False, 7.0), ("b", True, 2.0), ("b", True, 4.0)]
    ]
    choose(one=rows)
    opened: list[tuple[str, str]] = []
    monkeypatch.setattr(chart, "open_trace", lambda run, trace: opened.append((run, trace)))
    page = open_page("distributions")
    assert page.selectbox(key="surprising").options[0] == "t1: incorrect, scored high (7)"
    page.selectbox(key="surprising").select_index(1)
    next(one for one in page.button if one.label == "Open in Inspect").click().run()
    assert opened == [("one", "t2")]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([{"customdata": ["called one", "t1"]}], ("one", "t1")),
        ([{"customdata": {"0": "called one", "1": "t1"}}], ("one", "t1")),
        ([{"x": 1}, {"customdata": ["called one", "t2", 3]}], ("one", "t2")),
        ([{"customdata": ["another", "t1"]}], None),
        ([{"customdata": ["called one", 5]}], None),
        ([{"customdata": ["one", "t1"]}], None),  # what it is called in links alone
        ([{"customdata": "called one"}], None),
        ([], None),
    ],
)
def test_only_a_trace_of_a_chosen_run_is_opened(points: list[Any], expected: tuple[str, str] | None) -> None:
    found = chart.chosen_trace({"selection": {"points": points}}, {"called one": "one"})
    assert found == expected


def test_figures_are_computed_once_a_file(choose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    choose(one=simulated(6, 3))
    calls: list[str] = []
    section = sections.section
    monkeypatch.setattr(sections, "section", lambda *given: calls.append(given[0]) or section(*given))
    panel.section_of.clear()
    page = open_page("distributions")
    page.selectbox(key="score_shown").set_value("score_min").run()
    open_page("distributions")
    assert calls == ["separation"]


def test_charts_are_not_imported_before_they_are_needed() -> None:
    code = "import sys, app.analysis.panel, app.components.chart, irl_core.report.figure_tables; "
    code += "print([m for m in ('irl_core.report.charts.evaluation', 'scipy', 'torch') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=MAIN.parents[1], check=True, capture_output=True, text=True)
    assert found.stdout == "[]\n"


def test_every_score_that_is_offered_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = MAIN.parents[1] / "assets" / "scored_run" / "run.parquet"
    monkeypatch.setattr(chooser, "choose", lambda multiple: [run_info("bundled", bundled)])
    page = open_page("distributions")
    offered = page.selectbox(key="score_shown").options
    assert len(offered) == len(TITLES)  # the start's log-probability is a figure, but stands in no row
    for place in (0, len(offered) - 1):
        page.selectbox(key="score_shown").select_index(place).run()
        assert not page.exception
