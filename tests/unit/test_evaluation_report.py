"""The report of an evaluation: its keys, strict JSON, the choice of examples, Markdown that no text can break."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from irl_core.evaluation.examples import RULE, choose
from irl_core.evaluation.report import KEYS, QUESTIONS, WAYS, make, to_text
from irl_core.evaluation.section import Table
from irl_core.report import published
from irl_core.report.markdown import SHOWN, summary, to_markdown
from irl_core.report.tables import escaped, markdown
from tests.evaluated import evaluated, figures_in, frame, simulated

HOSTILE = "<img src=x onerror=alert(1)>|`x` **b** _i_ $5 and $10 [a](http://x) ![](http://y) @me www.z.org :red[x]\n# h"


def scored(name: str, value: float | None, right: bool, **more: Any) -> dict[str, Any]:
    known = {"trace_id": name, "problem_id": name[0], "text": name, "correct": right}
    return {**known, "score_mean_discounted": value, **more}


class TestReport:
    def test_keys_are_exactly_the_sections(self) -> None:
        report = make(evaluated(simulated(problems=12, samples=4))).to_json()
        assert tuple(report) == KEYS == (
            "provenance", "pass_at_k", "separation", "reranking", "correlation", "localisation", "training", "probes",
        )  # fmt: skip
        assert all(report[name]["paragraph"].endswith(".") for name in KEYS[1:])
        assert {name for names in QUESTIONS.values() for name in names} == {*KEYS[1:], WAYS}

    def test_every_figure_has_n_and_an_interval_or_a_reason(self) -> None:
        report = make(evaluated(simulated(problems=12, samples=4))).to_json()
        found = figures_in({name: report[name] for name in KEYS[1:]})
        assert len(found) > 500
        for figure in found:
            assert isinstance(figure["n"], int) and figure["method"]
            bare = figure["value"] is not None and figure["interval"] is None
            assert not bare or figure["method"].startswith(("Welch", "t test")), figure  # test statistics have none
            assert (figure["value"] is None) == bool(figure["reason"])

    def test_it_is_strict_json_whatever_the_run_holds(self) -> None:
        data = simulated(problems=4, samples=2)
        for row in data:
            row["score_last"] = math.inf
        run = evaluated(data, provenance={"threshold": -math.inf, "nested": [{"x": math.nan}], "odd": "\ud800"})
        run.training.append({"step": 1, "rollout/correct": math.nan})
        text = to_text(make(run))
        found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert found["provenance"]["threshold"] is None and found["provenance"]["nested"] == [{"x": None}]
        text.encode("utf-8")

    def test_it_counts_what_the_model_cannot_judge_and_what_is_unfamiliar(self) -> None:
        data = simulated(problems=2, samples=2)
        flags = [(True, False), (True, True), (False, True), (None, None)]  # the second is without a signal
        for row, (barred, known) in zip(data, flags, strict=True):
            row |= {"cannot_judge": barred, "familiar": known}
        report = make(evaluated(data))
        counted = {"traces": 4, "cannot": 2, "not_measured": 1, "unfamiliar": 1}
        assert report.to_json()["provenance"]["report"]["judged"] == counted
        assert (
            "cannot judge 2 of 4 solutions (1 unlike those that the checkpoint was made for, 1 without a signal)"
            in to_markdown(report)
        )

    def test_nothing_is_a_report_too(self) -> None:
        report = make(evaluated([]))
        assert tuple(report.to_json()) == KEYS
        assert report.examples.traces == []
        assert to_markdown(report).startswith("# Evaluation of a scored run")

    def test_same_seed_same_text_and_the_seed_counts(self) -> None:
        run = evaluated(simulated(problems=10, samples=3))
        assert to_text(make(run, seed=3)) == to_text(make(run, seed=3)) != to_text(make(run, seed=4))

    def test_sections_are_told_as_they_come(self) -> None:
        told: list[str] = []
        make(evaluated([]), on_section=told.append)
        assert tuple(told) == KEYS[1:]


class TestExamples:
    def test_the_median_and_the_worst_judged_of_each_class(self) -> None:
        rows = [scored(f"c{i}", value, True) for i, value in enumerate((5.0, 1.0, 3.0))]
        rows += [scored(f"w{i}", value, False) for i, value in enumerate((0.0, 9.0, 2.0, 4.0))]
        found = choose(evaluated(rows))
        # correct in order: 1 3 5; wrong: 0 2 4 9, of whose two middle ones the lower
        assert [(one.trace_id, one.why) for one in found.traces] == [
            ("c2", "median"), ("c1", "lowest"), ("w2", "median"), ("w1", "highest"),
        ]  # fmt: skip
        assert found.reason == "" and found.rule == RULE and found.traces[1].score == 1.0
        assert [one.kind for one in found.traces] == ["correct", "correct", "wrong", "wrong"]

    def test_two_of_a_class_are_both_shown_and_one_alone_once(self) -> None:
        found = choose(evaluated([scored("a", 1.0, True), scored("b", 2.0, True), scored("w", 3.0, False)]))
        assert [one.trace_id for one in found.traces] == ["b", "a", "w"]
        assert found.traces[1].why == "lowest" and found.reason == "wrong solutions with a score: 1"

    def test_a_wrong_step_behind_a_right_answer_is_no_correct_example(self) -> None:
        rows = [scored("a", 1.0, True, true_first_error_step=2), scored("b", 2.0, True, true_first_error_step=-1)]
        assert [one.trace_id for one in choose(evaluated(rows)).traces] == ["b"]

    def test_scores_that_are_missing_and_texts_that_repeat_are_passed_over(self) -> None:
        rows = [scored("a", None, True), scored("b", 2.0, True), scored("c", 2.0, True) | {"text": "b"}]
        found = choose(evaluated(rows))
        assert [one.trace_id for one in found.traces] == ["b"]
        assert found.reason == "correct solutions with a score: 1; wrong solutions with a score: 0"


class TestMarkdown:
    report = make(
        evaluated(
            simulated(problems=10, samples=3),
            provenance={"checkpoint": HOSTILE, "input": HOSTILE, "seed": 1},
            compare={HOSTILE: frame(simulated(problems=10, samples=3, seed=1))},
        )
    )

    def test_hostile_text_stays_text(self) -> None:
        text = to_markdown(self.report)
        assert "<img" not in text and "](http://" not in text and "http://" not in text
        assert "\n# h" not in text and "**b**" not in text and "`x`" not in text
        assert not re.search(r"(?<!\\)\$5", text) and not re.search(r"(?<!\\)\|`", text)
        assert text.count("&lt;img src=x onerror=alert(1)&gt;") >= 4

    def test_rows_have_as_many_cells_as_their_head(self) -> None:
        tables = [part for part in to_markdown(self.report).split("\n\n") if part.startswith("| ")]
        assert len(tables) > 10
        for table in tables:
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().splitlines()}) == 1, table

    def test_published_figures_stand_in_tables_of_their_own_with_their_source(self) -> None:
        text = to_markdown(self.report)
        for table in published.TABLES:
            part = text.partition(f"### Published: {escaped(table.title)}\n")[2].partition("\n### ")[0]
            assert "Cited, not measured here." in part and table.seen in part
        measured = "\n".join(markdown(one) for section in self.report.sections.values() for one in section.tables)
        assert "Llama" not in measured and "PRM" not in measured
        assert all(escaped(line) in text for line in published.NOT_FOUND)

    def test_the_questions_come_first_with_their_answers(self) -> None:
        text = to_markdown(self.report)
        places = [text.index(f"## {question}") for question in self.report.questions] + [text.index("## pass@k")]
        assert places == sorted(places) and len(places) == len(QUESTIONS)  # without the ways, which nobody asked for
        assert escaped(self.report.sections["reranking"].paragraph) in text

    def test_a_summary_shows_tables_that_there_are(self) -> None:
        text = summary(self.report, 3)
        assert "### Does training" in text and "### Best of N" in text
        titles = {title for names in SHOWN.values() for title in names}
        assert "pass@k by policy" in titles and text.count("\n### ") >= len(self.report.questions) + 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.519 [0.463, 0.578] (n 160)", "0.519 [0.463, 0.578] (n 160)"),
        ("error_acc, pass@1, -0.3", "error_acc, pass@1, -0.3"),
        ("a|b", "a\\|b"),
        ("# x", "\\# x"),
        ("- x", "\\- x"),
        ("[a](b)", "[a\\](b)"),
        ("![a]", "\\![a]"),
        ("_i_", "\\_i\\_"),
        ("x\n\n  y", "x y"),
        ("http://x", "http:\\//x"),
        ("@me", "\\@me"),
        ("a\u202eb", "aU+202Eb"),
        ("a & <b>", "a &amp; &lt;b&gt;"),
    ],
)
def test_escaped(text: str, expected: str) -> None:
    assert escaped(text) == expected


def test_a_tables_own_words_are_escaped() -> None:
    text = markdown(Table("<t>", ["a|b"], [["`c`"]], "*n*"))
    assert text == "### &lt;t&gt;\n\n| a\\|b |\n| --- |\n| \\`c\\` |\n\n\\*n\\*\n"
