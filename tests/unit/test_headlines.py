"""The sentence and the numbers that a section begins with say what its estimates allow, and no more."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from irl_core.evaluation import correlation, pass_at_k, reranking, separation
from irl_core.evaluation.report import SECTIONS, make
from irl_core.evaluation.section import Difference, Table
from irl_core.report import figures, headlines
from irl_core.report.terms import TERMS, term_of
from irl_core.statistics.bootstrap import Estimate, undefined
from irl_core.statistics.wording import true_minus
from tests.evaluated import evaluated, simulated

RUN = evaluated(simulated(20, 4))
HOSTILE = "<img src=x onerror=alert(1)> $5"


def estimate(value: float, low: float, high: float, n: int = 160) -> Estimate:
    return Estimate(value, low, high, n, "problems")


@pytest.mark.parametrize(
    ("difference", "words"),
    [
        (estimate(0.098, 0.037, 0.162), "10 points more, clearly better"),
        (estimate(-0.213, -0.26, -0.167), "21 points fewer, clearly worse"),
        (estimate(0.01, -0.02, 0.03), "1 point more, which may be chance"),
        (estimate(0.001, -0.02, 0.03), "the same within a point, which may be chance"),
        (undefined(3, "problems", "no sample has an answer"), "the difference is undefined (no sample has an answer)"),
    ],
)
def test_a_difference_is_called_clear_only_where_its_interval_is(difference: Estimate, words: str) -> None:
    assert headlines.gap(difference) == words


@pytest.mark.parametrize(
    ("ours", "theirs", "digits"),
    [(0.734, 0.636, 1), (0.73, 0.64, 0), (0.7344, 0.6355, 1), (0.7344, 0.6336, 0), (0.5, 0.5, 0)],
)
def test_shares_and_their_difference_add_up_as_they_are_written(ours: float, theirs: float, digits: int) -> None:
    """'73 % right; majority 64 %; 10 points more' made readers stop: 9.8 had been rounded by itself."""
    three = [estimate(value, value - 0.1, value + 0.1) for value in (ours, theirs, ours - theirs)]
    assert headlines.digits_that_add_up(*three) == digits
    written = [float(f"{100 * one.value:.{digits}f}") for one in three]
    assert written[0] - written[1] == pytest.approx(written[2])


def test_shares_of_other_problems_than_their_difference_keep_whole_points() -> None:
    three = [estimate(value, 0.0, 1.0) for value in (0.7, 0.6, 0.3)]
    assert headlines.digits_that_add_up(*three) == 0


def test_the_gain_of_choosing() -> None:
    found = reranking.figures(RUN)
    best, majority = found.by_score[found.vote.score]["1"], found.baselines["majority"]["1"]
    one = headlines.reranking(found)
    assert one is not None
    digits = headlines.digits_that_add_up(best.value, majority, best.minus_majority)
    ours, theirs = (headlines.in_percent(share.value, digits) for share in (best.value, majority))
    start = f"Choosing by the reward: {ours} right; majority {theirs}; "
    assert one.sentence == f"{start}{headlines.gap(best.minus_majority, digits)}."
    assert [number.estimate for number in one.numbers][:2] == [best.value, majority]
    low, high = best.value.interval
    assert one.numbers[0].extent == f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %, n 20"


def test_without_answers_the_rival_is_a_random_sample() -> None:
    one = headlines.reranking(reranking.figures(evaluated([row | {"answer": None} for row in simulated(20, 4)])))
    assert one is not None and "; a random sample " in one.sentence and one.numbers[1].value == "undefined"


@pytest.mark.parametrize("name", list(SECTIONS))
@pytest.mark.parametrize(
    "rows", [[], simulated(1, 1), simulated(6, 1), simulated(20, 4)], ids=["none", "one", "6", "20"]
)
def test_every_section_begins_with_one_sentence(name: str, rows: list[dict[str, Any]]) -> None:
    section = make(evaluated(rows)).sections[name]
    one = headlines.headline(name, section)
    assert one.sentence.endswith(".") and len(one.numbers) <= 3
    assert "nan" not in one.sentence and not re.search(r"\d\.\d{3}", one.sentence.partition(". ")[0][:90])


@pytest.mark.parametrize(
    ("module", "make"),
    [(separation, headlines.separation), (correlation, headlines.correlation), (pass_at_k, headlines.pass_at_k)],
)
def test_three_numbers_with_interval_and_n(module: ModuleType, make: Any) -> None:
    one = make(module.figures(RUN))
    for number in one.numbers:
        assert re.fullmatch(r"[-+\u2212]?[\d.]+( %| points)?", number.value)
        assert re.fullmatch(r"[-+\u2212]?[\d.]+ to [-+\u2212]?[\d.]+( %| points)?, n [\d,]+", number.extent)


def test_a_gap_is_in_points_with_its_sign() -> None:
    one = headlines.Number("pass@1 less that of start", estimate(-0.013, -0.04, 0.015), "gap")
    assert (one.value, one.extent) == ("\u22121 points", "\u22124 to +2 points, n 160")


def test_a_score_without_reward_is_not_called_the_reward() -> None:
    found = separation.figures(RUN)
    assert "the reward" in headlines.separation(found).sentence
    pairs = found.scores[next(iter(found.scores))].within["pair_accuracy"]
    share = f"in {100 * pairs.value:.0f} % of the {pairs.n:,} pairs: "  # a share with its n, which is no count of 100
    assert share in headlines.separation(found).sentence
    assert "shortness puts" in headlines.separation(found, "shortness").sentence
    assert "beside" not in headlines.separation(found, "log_prob_mean").sentence


# ------------------------------------------------------------------------------------------------ tables as HTML


def test_n_stands_once_where_all_have_the_same() -> None:
    table = Table("T", ["", "a"], [["x", estimate(0.5, 0.4, 0.6)], ["y", estimate(0.7, 0.6, 0.8)]])
    one = figures.laid(table)
    assert one.n == "n is 160 for every figure." and [column.head for column in one.columns] == ["", "a"]
    assert [(row.cells[0].value, row.cells[0].beside) for row in one.rows] == [
        ("0.500", "[0.400, 0.600]"), ("0.700", "[0.600, 0.800]")]  # fmt: skip
    assert figures.table_html(table).count("160") == 1


def test_n_is_a_column_where_rows_differ_and_stays_in_the_cell_where_cells_do() -> None:
    small, large = estimate(0.5, 0.4, 0.6, 12), estimate(0.7, 0.6, 0.8, 3000)
    by_row = figures.laid(Table("T", ["", "a", "b"], [["x", small, small], ["y", large, None]]))
    assert by_row.columns[-1].head == "n" and [row.cells[-1].value for row in by_row.rows] == ["12", "3,000"]
    mixed = figures.laid(Table("T", ["", "a", "b"], [["x", small, large]]))
    assert [column.n for column in mixed.columns] == ["", "n 12", "n 3,000"]
    assert mixed.rows[0].cells[1].beside == "[0.600, 0.800]"
    rows = [["x", small, large], ["y", small, large], ["z", small, small]]
    odd = figures.laid(Table("T", ["", "a", "b"], rows)).rows[2].cells
    assert [cell.beside for cell in odd] == ["[0.400, 0.600]", "[0.400, 0.600], n 12"]


def test_bars_share_the_scale_of_their_column() -> None:
    rows = [
        ["x", estimate(-0.1, -0.2, 0.0)],
        ["y", Difference(estimate(0.2, 0.1, 0.3))],
        ["z", undefined(4, "", "none")],
    ]
    one = figures.laid(Table("T", ["", "a"], rows))
    first, second, third = (row.cells[0] for row in one.rows)
    assert first.bar == figures.Bar(0, 40, 20, 40) and second.bar == figures.Bar(60, 100, 80, 40)
    assert second.beside.endswith("higher") and third.bar is None
    assert third.value == "undefined" and third.beside.startswith("none")
    assert figures.laid(replace(Table("T", ["", "a"], rows), mixed=True)).rows[0].cells[0].bar is None


def test_a_bare_number_is_whole() -> None:
    p = Estimate(0.0, float("nan"), float("nan"), 5, "Welch, two-sided")
    assert figures.laid(Table("T", ["", "a"], [["p", p]])).rows[0].cells[0].value == "under 1e-300"


def test_texts_are_data() -> None:
    table = Table(HOSTILE, [HOSTILE, "a"], [[HOSTILE, estimate(0.5, 0.4, 0.6)]], HOSTILE)
    one = headlines.Headline(HOSTILE, (headlines.Number(HOSTILE, estimate(0.5, 0.4, 0.6)),))
    assert "<img" not in figures.table_html(table) + figures.headline_html(one)


def test_every_table_of_a_report_can_be_laid() -> None:
    for section in make(RUN).sections.values():
        for table in section.tables:
            html = figures.table_html(table)
            assert html.count("<tr>") == len(table.rows) + 1


def test_the_longest_term_explains() -> None:
    assert term_of("p of Welch's t") == TERMS["p of Welch's t"]
    assert term_of("mean discounted reward, response") == TERMS["discounted reward"]
    assert term_of("mean discounted reward, answer") == TERMS["discounted reward, answer"]
    assert term_of("pairs of one problem ranked right") == term_of("pairs ranked right") == TERMS["ranked right"]
    assert term_of("pass@1|N less random text") == TERMS["pass@"]
    assert term_of("one, within problems") == TERMS["within problems"]
    assert term_of("family") == term_of("accredited") == ""


def test_numbers_below_zero_have_a_minus_sign_wherever_a_page_writes_them() -> None:
    assert true_minus("-0.027 [-0.052, -0.001], r -.4; -1.2e-05") == (
        "\u22120.027 [\u22120.052, \u22120.001], r \u2212.4; \u22121.2e-05"
    )
    assert true_minus("pass@1-2, gsm8k-0.5b, 2026-11-30, a - b") == "pass@1-2, gsm8k-0.5b, 2026-11-30, a - b"
    (row,) = figures.laid(Table("t", ["name-1", "value", "own"], [["-1", estimate(-0.1, -0.2, 0.0), -0.5]])).rows
    assert row.label == "-1"  # a text is shown as it is
    assert [(cell.value, cell.beside) for cell in row.cells] == [
        ("\u22120.100", "[\u22120.200, 0.000]"), ("\u22120.5", ""),
    ]  # fmt: skip
