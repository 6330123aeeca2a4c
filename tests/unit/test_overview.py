"""Rows, tables and files behind the pages on distributions, correlations and reranking."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.analysis import sections
from irl_core.errors import StoreError
from irl_core.report import csv_export, figure_tables
from irl_core.report.tables import numbers, texts
from irl_core.statistics.bootstrap import to_json
from tests.evaluated import frame, simulated
from tests.scored import written

ROOT = Path(__file__).resolve().parents[2]
SCORE = "score_mean_discounted"


def two_problems() -> list[dict[str, Any]]:
    """Problem a: right 3, wrong 1; problem b: right 2 and 4, no wrong one; problem c is not judged."""
    rows = [("a", True, 3.0), ("a", False, 1.0), ("b", True, 2.0), ("b", True, 4.0), ("c", None, 9.0)]
    return [{"problem_id": p, "correct": c, SCORE: s, "answer": "1"} for p, c, s in rows]


def test_a_small_run_is_shown_whole(tmp_path: Path) -> None:
    shown = sections.sample(written(tmp_path / "run.parquet", two_problems(), checkpoint="demo"))
    assert (shown.traces, shown.problems, len(shown.frame), shown.whole) == (5, 3, 5, True)
    assert list(shown.frame.columns) == list(sections.COLUMNS)
    assert shown.words() == "all 5 solutions of 3 problems; familiarity: not measured"
    assert shown.provenance == {"checkpoint": "demo"}


def test_whole_problems_are_drawn_of_a_large_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MOST_TRACES", 50)
    path = written(tmp_path / "run.parquet", simulated(20, 8))
    shown = sections.sample(path)
    # 50 // 8 = 6 problems with all of their 8 traces
    assert shown.frame.groupby("problem_id").size().tolist() == [8] * 6 and not shown.whole
    assert shown.words() == (
        "48 of 160 solutions: 6 of 20 problems, drawn at random (seed 0) with all their solutions; the limits of "
        "these pages are 50 solutions and 5,000 problems; familiarity: not measured"
    )
    assert sections.sample(path).frame["trace_id"].tolist() == shown.frame["trace_id"].tolist()
    monkeypatch.setattr(sections, "MOST_PROBLEMS", 4)
    assert sections.sample(path).frame["problem_id"].nunique() == 4


def test_a_problem_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MOST_TRACES", 5)
    path = written(tmp_path / "run.parquet", simulated(2, 8))
    with pytest.raises(StoreError, match=r"run\.parquet: a problem has more than 5 solutions"):
        sections.sample(path)


@pytest.mark.parametrize("section", ["separation", "correlation", "reranking", "pass_at_k"])
def test_figures_are_those_of_the_report(section: str, tmp_path: Path) -> None:
    from importlib import import_module

    from irl_core.evaluation.evaluated_run import load

    path = written(tmp_path / "run.parquet", simulated(10, 4))
    module = import_module(f"irl_core.evaluation.{section}")
    found = sections.section(section, path, sections.sample(path))
    assert to_json(found.figures) == to_json(module.figures(load(path)))
    assert found.paragraph == module.paragraph(found.figures)


def test_figures_of_an_evaluation_are_those_of_its_report() -> None:
    from irl_core.evaluation import pass_at_k
    from irl_core.evaluation.evaluated_run import load

    folder = ROOT / "assets" / "scored_run"
    found = sections.section("pass_at_k", folder / "run.parquet", sections.sample(folder / "run.parquet"))
    assert "minus that of the others" in found.paragraph
    assert to_json(found.figures) == to_json(pass_at_k.figures(load(folder)))


def test_other_policies_are_read_on_the_problems_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "run.parquet", simulated(20, 8))
    (tmp_path / "compare").mkdir()
    written(tmp_path / "compare" / "start.parquet", simulated(20, 8, seed=1))
    monkeypatch.setattr(sections, "MOST_TRACES", 50)
    found = sections.section("pass_at_k", path, sections.sample(path)).figures
    assert found.counts["start"].problems == found.problems == 6


def test_what_lies_beside_a_run_is_known_by_time_and_size(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(3, 2))
    assert sections.beside(path) == ()
    anchor = written(tmp_path / "anchor.parquet", simulated(3, 2))
    first = sections.beside(path)
    assert [name for name, _, _ in first] == [str(anchor)]
    written(anchor, simulated(3, 3))
    assert sections.beside(path) != first
    assert sections.beside(path.rename(tmp_path / "other.parquet")) == ()


def test_the_table_of_separation_holds_every_figure(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(10, 4))
    found = sections.section("separation", path, sections.sample(path)).figures
    table = numbers(figure_tables.separation_table({"a": found, "b": found}, SCORE)).set_index(
        ["run", "where", "figure"]
    )
    assert len(table) == 2 * (2 + 7 + 9)
    auc = found.scores[SCORE].pooled["auc"]
    row = table.loc[("b", "pooled", "AUC")]
    assert [row["value"], row["low"], row["high"], row["n"]] == [auc.value, *auc.interval, auc.n]
    t = found.scores[SCORE].within["t"]
    row = table.loc[("a", "within problems", "Welch's t")]
    assert row["value"] == t.value and np.isnan(row["low"]) and "Welch" in row["method"]


def test_one_class_is_undefined_with_its_reason(tmp_path: Path) -> None:
    rows = [row | {"correct": True} for row in simulated(4, 3)]
    path = written(tmp_path / "run.parquet", rows)
    found = {"run": sections.section("separation", path, sections.sample(path)).figures}
    table = numbers(figure_tables.separation_table(found, SCORE))
    auc = table[(table["figure"] == "AUC") & (table["where"] == "pooled")].iloc[0]
    assert np.isnan(auc["value"]) and auc["n"] == 12 and auc["undefined because"]


def test_tables_of_nothing_judged_are_empty(tmp_path: Path) -> None:
    rows = [row | {"correct": None} for row in simulated(4, 3)]
    path = written(tmp_path / "run.parquet", rows)
    found = {"run": sections.section("reranking", path, sections.sample(path)).figures}
    assert numbers(figure_tables.choices_table(found)).empty and numbers(figure_tables.saved_table(found)).empty


def test_the_tables_of_choices_and_savings(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(12, 4))
    found = sections.section("reranking", path, sections.sample(path)).figures
    table = numbers(figure_tables.choices_table({"run": found})).set_index(["chosen by", "k", "figure"])
    best = found.by_score[SCORE]["3"].minus_random_text
    title = found.titles[SCORE]
    assert table.loc[(f"best by {title}", 3, "less random per text"), "value"] == best.value
    # k = 5 of 4 samples
    row = table.loc[(f"best by {title}", 5, "accuracy")]
    assert np.isnan(row["value"]) and "4 samples, fewer than k" in row["undefined because"]
    saved = numbers(figure_tables.saved_table({"run": found})).set_index("figure")
    assert saved.loc["saved beside the majority", "value"] == found.samples_needed["saved_to_majority"].value


def test_the_table_of_partial_correlations(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(12, 4))
    found = sections.section("correlation", path, sections.sample(path)).figures
    table = numbers(figure_tables.partial_table({"run": found})).set_index(["score", "where", "removed"])
    expected = found.partial[SCORE].within["length"]
    row = table.loc[(found.titles[SCORE], "within problems", "length")]
    assert [row["value"], row["low"], row["high"]] == [expected.value, *expected.interval]


def test_surprising_traces_come_in_turns() -> None:
    found = sections.surprising(frame(two_problems()), SCORE)
    # the only incorrect one first, then the correct from the lowest; the one that is not judged is not there
    assert found == [
        ("t1", "incorrect, scored high (1)"), ("t2", "correct, scored low (2)"),
        ("t0", "correct, scored low (3)"), ("t3", "correct, scored low (4)"),
    ]  # fmt: skip


def test_centred_scores_are_those_of_problems_with_both() -> None:
    # problem a: 3 and 1, mean 2; problem b has no incorrect trace, c is not judged
    kept = sections.centred(frame(two_problems()), SCORE)
    assert dict(zip(kept["trace_id"], kept[SCORE], strict=True)) == {"t0": 1.0, "t1": -1.0}


def test_a_csv_holds_no_formula_and_keeps_numbers() -> None:
    names = ["=cmd()", "+1", "-x", "@a", "\tb", "<img src=x>"]
    table = pd.DataFrame({"=run": names, "value": [-1.5, 2, None, 0, 1, 3]})
    rows = list(csv.reader(io.StringIO(csv_export.csv_of(table))))
    assert rows[0] == ["'=run", "value"]
    assert [row[0] for row in rows[1:]] == ["'=cmd()", "'+1", "'-x", "'@a", "'\tb", "<img src=x>"]
    assert [row[1] for row in rows[1:]] == ["-1.5", "2.0", "", "0.0", "1.0", "3.0"]
    assert table.columns.tolist() == ["=run", "value"]


def test_a_paragraph_in_sentences() -> None:
    words = "On 12 problems, r is 0.756 [0.650, 0.8]; a is 1. Beyond it. Undefined because they never vary: B."
    expected = [words[:48], "Beyond it.", "Undefined because they never vary: B."]
    assert sections.sentences(words) == expected


def test_the_origin_of_a_run_in_words() -> None:
    known = {"checkpoint": "demo", "seed": 0, "data": "gsm8k", "long": "x" * 300}
    assert sections.origin_line(known) == "checkpoint demo, data gsm8k, seed 0"
    assert sections.origin_line(known, "the one listed").startswith("checkpoint the one listed, ")
    assert sections.origin_line({}) == "checkpoint and data not said"
    assert sections.origin_line({"data": "x" * 300}) == "data " + "x" * 200 + " \u2026"


def test_the_tests_are_summed_up_in_words(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(12, 4))
    found = sections.section("separation", path, sections.sample(path)).figures
    alone = texts(figure_tables.tests_summary({"a": found}, SCORE))
    assert alone.columns.tolist() == ["figure", "pooled", "within problems"]
    figure = found.scores[SCORE].within["auc"]
    words = f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] (n {figure.n})"
    assert alone.set_index("figure").loc["AUC", "within problems"] == words
    both = texts(figure_tables.tests_summary({"a": found, "b": found}, SCORE))
    assert both.columns.tolist() == [
        "figure", "a, pooled", "a, within problems", "b, pooled", "b, within problems"]  # fmt: skip


def test_an_undefined_figure_is_summed_up_with_its_reason_and_n(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", [row | {"correct": True} for row in simulated(4, 3)])
    shown = sections.sample(path)
    table = texts(figure_tables.tests_summary({"run": sections.section("separation", path, shown).figures}, SCORE))
    assert table.set_index("figure").loc["AUC", "pooled"].startswith("undefined (")
    assert table.set_index("figure").loc["AUC", "pooled"].endswith("; n 12)")
    partial = texts(figure_tables.partial_summary({"run": sections.section("correlation", path, shown).figures}))
    assert partial["length removed"].str.startswith("undefined (").all()


def test_choices_are_summed_up_with_their_margins(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(12, 4))
    found = sections.section("reranking", path, sections.sample(path)).figures
    table = texts(figure_tables.choices_summary({"run": found})).set_index("chosen by")
    entry = found.by_score[SCORE]["1"]
    for column, key in (("accuracy", "value"), ("less majority", "minus_majority")):
        one = getattr(entry, key)
        words = f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}] (n {one.n})"
        assert table.loc[f"best by {found.titles[SCORE]}", column] == words
    assert table.loc["majority vote", "less majority"] == ""
    rule_alone = replace(found, by_score={}, votes={}, baselines={})
    assert texts(figure_tables.choices_summary({"run": rule_alone})).shape[0] == 1


def test_a_p_below_every_float_is_not_zero(tmp_path: Path) -> None:
    rows = simulated(200, 20, reward=12.0)
    path = written(tmp_path / "run.parquet", rows)
    found = sections.section("separation", path, sections.sample(path)).figures
    table = texts(figure_tables.tests_summary({"run": found}, SCORE)).set_index("figure")
    assert found.scores[SCORE].pooled["p"].value == 0
    assert table.loc["p of Welch's t", "pooled"] == "under 1e-300 (n 4,000)"


def test_names_of_runs_are_inert_in_the_texts_to_read(tmp_path: Path) -> None:
    path = written(tmp_path / "run.parquet", simulated(12, 4))
    shown = sections.sample(path)
    found = sections.section("reranking", path, shown).figures
    both = {"=cmd()": found, "b": found}
    assert set(texts(figure_tables.choices_summary(both))["run"]) == {"'=cmd()", "b"}
    saved = texts(figure_tables.saved_summary(both))
    assert saved.columns.tolist() == ["figure", "'=cmd()", "b"]
    figure = found.samples_needed["saved_to_majority"]
    assert saved.set_index("figure").loc["saved beside the majority", "b"] == (
        f"{figure.value:.0f} [{figure.low:.0f}, {figure.high:.0f}] (n {figure.n})"  # samples are whole
    )
    separated = sections.section("separation", path, shown).figures
    assert texts(figure_tables.tests_summary({"=x": separated, "b": separated}, SCORE)).columns[1] == "'=x, pooled"
    correlated = sections.section("correlation", path, shown).figures
    assert set(texts(figure_tables.partial_summary({"=x": correlated, "b": correlated}))["run"]) == {"'=x", "b"}


def test_what_is_waited_for_is_said_with_about_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "run.parquet", simulated(10, 4))
    shown = sections.sample(path)
    rows = len(shown.frame)
    monkeypatch.setattr(sections, "took", {"reranking": 12.0 / rows, "pass_at_k": 0.001})
    assert sections.waiting_words("reranking", "mine", shown) == (
        f"mine: computing what choosing gains over {rows} solutions, with intervals; about 12 s \u2026"
    )
    assert sections.waiting_words("pass_at_k", "mine", shown).endswith("; a moment \u2026")
    sections.section("pass_at_k", path, shown)
    assert sections.took["pass_at_k"] == 0.001  # of so few nothing is learned
    monkeypatch.setattr(sections, "LARGE", 1)
    sections.section("pass_at_k", path, shown)
    assert sections.took["pass_at_k"] != 0.001
