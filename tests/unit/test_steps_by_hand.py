"""Steps set by hand, many solutions at once, and foreign texts that are rendered: no page, no model."""

from __future__ import annotations

import json
import re

import pytest

from app.components.markdown import has_markup, rendered
from app.inspect.many import MOST, ManyError, read_pasted
from app.inspect.request import Request
from app.inspect.steps import StepsError, fits, marked, read_marked, with_steps
from irl_core.text.segmentation import make_trace

TEXT = "7 + 4 = 11. That is all.\nTwice: 22\n#### 22"


def test_steps_are_split_and_joined_by_lines_of_dashes() -> None:
    trace = make_trace("How many?", TEXT)
    said = marked(TEXT, trace.steps)
    assert said == "7 + 4 = 11. That is all.\n---\nTwice: 22\n---\n#### 22"
    assert read_marked(TEXT, said) == tuple((step.start, step.end) for step in trace.steps)
    split = read_marked(TEXT, "7 + 4 = 11.\n---\nThat is all.\nTwice: 22\n ----\n#### 22")
    changed = with_steps(trace, split)
    assert [step.text for step in changed.steps] == ["7 + 4 = 11.", "That is all.\nTwice: 22", "#### 22"]
    assert [step.role for step in changed.steps] == ["reasoning", "reasoning", "answer"]


@pytest.mark.parametrize("said", ["7 + 4 = 12", "#### 22\n---\nTwice: 22", "---\n---", ""])
def test_steps_are_words_of_the_solution_in_their_order(said: str) -> None:
    with pytest.raises(StepsError):
        read_marked(TEXT, said)


@pytest.mark.parametrize(
    ("spans", "fit"),
    [(((0, 11), (12, 24)), True), (((0, 11), (10, 24)), False), (((24, 25),), False), (((0, 99),), False), ((), True)],
)
def test_spans_of_a_link_fit_its_text(spans: tuple[tuple[int, int], ...], fit: bool) -> None:
    assert fits(TEXT, spans) is fit


def test_a_pasted_file_is_rows_or_solutions_of_the_problem() -> None:
    rows = "\n".join(json.dumps({"question": f"Q{n}", "solution": "3 + 4 = 7", "answer": "7"}) for n in range(3))
    pasted = read_pasted(rows + '\n{"question": 1}')
    assert pasted.requests == tuple(Request(f"Q{n}", "3 + 4 = 7", "7") for n in range(3))
    assert len(pasted.faults) == 1 and pasted.faults[0].startswith("line 4")
    pasted = read_pasted("a = 1\n---\n\nb = 2\n", "Q", "2")
    assert pasted.requests == (Request("Q", "a = 1", "2"), Request("Q", "b = 2", "2"))


def test_a_table_may_be_pasted_too_and_a_sentence_with_a_comma_is_none() -> None:
    for separator in (",", ";", "\t"):
        rows = [["question", "solution", "answer"], ["Q1", '"3 + 4 = 7\nThat is 7."', "7"], ["Q2", "1 + 1 = 2", "2"]]
        pasted = read_pasted("\n".join(map(separator.join, rows)))
        assert pasted.requests == (Request("Q1", "3 + 4 = 7\nThat is 7.", "7"), Request("Q2", "1 + 1 = 2", "2"))
    for text in ("First, we add\n1 + 1 = 2", "question\n1 + 1 = 2"):
        assert read_pasted(text, "Q").requests == (Request("Q", text),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "Nothing is pasted"),
        ("a\n---\nb", "no problem in the form"),
        ("{}", "not recognised"),
        ("{" * 600_000, "the limit is 500,000"),
        ("\n".join(json.dumps({"question": "Q", "solution": f"{n} = {n}"}) for n in range(MOST + 1)), "limit is 50"),
    ],
)
def test_a_pasted_file_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ManyError, match=message):
        read_pasted(text)


def test_maths_is_drawn_and_prices_are_not() -> None:
    assert rendered(r"So \(x = \frac{1}{2}\) and \[ y \] hold.") == r"So $x = \frac{1}{2}$ and $$y$$ hold."
    assert rendered("It costs $5 and then $10.") == r"It costs \$5 and then \$10."
    assert rendered("$x^2$ for $5") == r"$x^2$ for \$5"
    assert rendered("a\nb\n\n- **c**\n| d |\n| e |") == "a  \nb\n\n- **c**\n| d |\n| e |"


@pytest.mark.parametrize(
    "formula",
    ["$56 + 6 = 62$", "$x$", "$3x - 4 = 11$", "$12*3=36$", "$(2 + 3) \u00d7 4$", "$n > 5$", "$1,200 + 50.5 = 1,250.5$"],
)
def test_an_equation_between_single_dollars_is_drawn_beside_amounts_that_stay_money(formula: str) -> None:
    assert rendered(f"So {formula}.") == f"So {formula}." and has_markup(f"So {formula}.")
    assert rendered(f"She pays $5, {formula} and $6 more") == rf"She pays \$5, {formula} and \$6 more"
    assert rendered(f"$5,{formula}") == rf"\$5,{formula}"


@pytest.mark.parametrize(
    "money",
    [
        "$5 + $6 = $11", "$5+$6=$11", "$5=$5", "$5*2=$10", "$5-$10", "between $5-10$ each", "$5 a box, $6 a bag",
        "$5/h,$6/h", "$5 = 5 dollars, $6", "$5+1=6 and $7", "($5)($6)", "$12", "12$ + 5$ = 17$", "$5+6,$7",
    ],
)  # fmt: skip
def test_amounts_of_dollars_stay_money(money: str) -> None:
    assert rendered(money).count(r"\$") == money.count("$") and not has_markup(money)


def test_a_share_in_a_formula_is_no_comment_of_latex() -> None:
    assert rendered("$50% * 8 = 4$") == r"$50\% * 8 = 4$"
    assert rendered(r"\(50\% + 1%\)") == r"$50\% + 1\%$"


@pytest.mark.parametrize(
    "hostile",
    [
        "![](http://x.invalid/a.png)", "[a](javascript:alert(1))", "<img src=x onerror=alert(1)>", ":red[x] :smile:",
        r"$\a ![](http://x.invalid) $b", r"\[ [a](http://x.invalid) \]", r"\( <b> \)", "`` ` `` [a](//b)", "[a]: http://x",
    ],
)  # fmt: skip
def test_nothing_else_is_drawn(hostile: str) -> None:
    drawn = rendered(hostile)
    assert not re.search(r"(?<!\\)[\[\]<>!:]", drawn), drawn


def test_a_plain_solution_has_no_markup() -> None:
    assert not has_markup("7 + 4 = <<7+4=11>>11 pens cost $5.\n#### 11")
    assert all(map(has_markup, (r"\(x\)", "**So** 5", "# Head", "| a | b |", r"\frac{1}{2}")))


def test_solutions_that_only_blank_lines_part_are_not_taken_for_one() -> None:
    pasted = "4*3=12\n#### 12\n\n4*3=13\n#### 13"
    with pytest.raises(ManyError, match=r"^Solution 1 has 2 closing lines; a line of --- goes between solutions\.$"):
        read_pasted(pasted, "How much?")
    assert len(read_pasted(pasted.replace("\n\n", "\n---\n"), "How much?").requests) == 2
