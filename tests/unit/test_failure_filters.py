"""Filters of the Failures page as an expression, slices, the link to them, and differences word by word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from app.analysis import expression, slices
from app.analysis.differences import differences
from app.analysis.expression import ExpressionError, read
from app.analysis.failures import Query
from app.components.markdown import marked_differences, marked_quantities
from app.inspect.links import LinkError, pack
from irl_core.text.quantities import odd_quantities

TABLE = pa.table(
    {
        "score_mean_discounted": pa.array([-3.0, -1.0, None, 2.0], pa.float32()),
        "family": pa.array(["rates", "rates", "money", None]),
        "true_first_error_step": pa.array([0, 1, -1, None], pa.int32()),
        "correct": pa.array([False, None, True, False]),
        "length": pa.array([10, 20, 30, 40], pa.int32()),
        "kind": pa.array(["a", 'quo"te', None, "a"]),
    }
)


def rows(text: str) -> list[int]:
    numbered = TABLE.append_column("row", pa.array(range(4)))
    return numbered.filter(read(text).filter).column("row").to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('score < -2 and family == "rates"', [0]),
        ("score < -2 or score > 1", [0, 3]),
        ("-2 < score <= 2", [1, 3]),
        ("not correct", [0, 3]),
        ("correct", [2]),
        ("family == None", [3]),
        ("family is not None and length >= 20", [1, 2]),
        ('family in ("rates", "money") and not (length == 10)', [1, 2]),
        ("true_step == 1", [0]),  # steps count from 1
        ("true_step == 0", [2]),  # known to have none
        ("kind == 'quo\"te'", [1]),
        ("length > true_step", [0, 1, 2]),  # two of the same kind; nothing is compared with what is not known
        ("kind != family", [0, 1]),
    ],
)
def test_an_expression_filters(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("score <", "an example"),
        ("__import__('os').system('x')", "is no condition"),
        ("scores < 2", "'scores' is not known; did you mean score"),
        ("zebra < 2", "'zebra' is not known; the . beside the field lists the names"),
        ("correct == 1", "correct is a yes-or-no, 1 a number"),
        ("length > 3 and and correct", "near 'and correct'; an example"),
        ("score.real < 2", "is no name"),
        ("score < family", "score is a number, family a text"),
        ("correct == length", "correct is a yes-or-no, length a number"),
        ("score < unknown", "'unknown' is not known"),
        ("length = 3", "'is equal' is written ==; an example"),
        ("score < [x for x in y]", "is no value"),
        ("score + 1", "is no condition"),
        ("family in 'rates'", "is no list"),
        ("score < None", "with a value"),
        ("None < score", "stands on the right"),
        ("score < -'a'", "no opposite"),
        ("not " * 30 + "correct", "nested more than"),
        ("(" * 400 + ")", "an example"),
        ("a" * 501, "the limit is 500"),
        ("", "an example"),
        ("score < 1\0", "an example"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("", 'family == "rates"', [0, 1]),
        ("length < 20 or length > 30", 'family == "rates"', [0]),
        ("length > 10 # the longer ones", "length <= 30 and length > 20", [2]),
        ("family == 'rates'", 'family == "rates"', [0, 1]),
    ],
)
def test_two_expressions_ask_for_what_both_ask_for(first: str, second: str, expected: list[int]) -> None:
    assert rows(expression.both(first, second)) == expected


def test_an_expression_that_is_narrowed_again_and_again_stays_flat() -> None:
    text = ""
    for number in range(25):
        text = expression.both(text, f"length > {number}")
    assert rows(text) == [2, 3] and "(" not in text and expression.both(text, "length > 3") == text


def test_slices_by_kind_tell_the_label_of_few_solutions_or_of_one_kind() -> None:
    found = [slices.Slice("a", "", 9, 9, 9), slices.Slice("b", "", 1, 1, 1)]
    assert not slices.tells(found, "kind") and slices.tells(found[:1], "kind")
    assert slices.tells([replace(found[0], traces=8), found[1]], "kind") and not slices.tells(found[:1], "family")


def test_what_says_something_of_the_model_is_told() -> None:
    assert not read('family == "a" and length < 3 and not correct').telling
    assert all(read(f"{name} == None").telling for name in set(expression.NAMES) - expression.NEUTRAL)
    assert Query(where="score < 1").telling and not Query(where="length < 1").telling


@pytest.mark.parametrize("by", list(slices.BY))
def test_every_trace_is_in_one_slice_that_its_expression_asks_for(by: str) -> None:
    found = slices.slices(TABLE, by)
    numbers = sorted(number for one in found for number in rows(one.where))
    assert numbers == [0, 1, 2, 3] and [one.traces for one in found] == [len(rows(one.where)) for one in found]
    assert sum(one.wrong for one in found) == 2 and sum(one.known for one in found) == 3


def test_a_link_leads_back_to_the_slice() -> None:
    query = Query("all", ("a",), (), (-1, 2), (), (-1.5, 2.0), "pens", "length", True, "score < 1")
    found = slices.opened(slices.parameters("runs/x", query))
    assert found == slices.Opened("runs/x", query)
    assert slices.opened({"problem": "x"}) is None


@pytest.mark.parametrize(
    "value",
    [
        "", "%%%", "x" * 9000, pack("[1]"), pack("{}"), pack('{"run": 1}'), pack("[" * 5000),
        pack('{"run": "a", "outcome": "x", "kinds": [], "verdicts": [], "true_steps": [], "verdict_steps": [],'
             ' "scores": null, "words": "", "sort": "row", "descending": false, "where": ""}'),
        pack('{"run": "a", "outcome": "all", "kinds": [], "verdicts": [], "true_steps": ["1"], "verdict_steps": [],'
             ' "scores": null, "words": "", "sort": "row", "descending": false, "where": ""}'),
        pack('{"run": "a", "outcome": "all", "kinds": [], "verdicts": [], "true_steps": [], "verdict_steps": [],'
             ' "scores": null, "words": "", "sort": "row", "descending": false, "where": "x("}'),
    ],
)  # fmt: skip
def test_a_damaged_link_is_refused(value: str) -> None:
    with pytest.raises(LinkError, match="not readable"):
        slices.opened({slices.PARAMETER: value})


def test_differences_are_words() -> None:
    parts: Any = differences("11+3=16 litres.\nDone", "11+3=14 litres.\nAll done")
    assert "".join(one.text for one in parts if one.side != "other") == "11+3=16 litres.\nDone"
    assert "".join(one.text for one in parts if one.side != "here") == "11+3=14 litres.\nAll done"
    drawn = marked_differences(parts)
    assert r"11\+3=:red-background[~~16~~]:green-background[14] litres\.  " in drawn
    assert differences("a " * 2000, "b " * 2000) is None


def test_marked_differences_stay_text() -> None:
    parts: Any = differences("![](http://x.invalid/) ]~~ $5", ":red[x] <b> $6")
    drawn = marked_differences(parts)
    assert "![" not in drawn and "<b>" not in drawn.replace("\\", "!") and ":red[x]" not in drawn


def test_odd_quantities_are_marked_in_the_problem_and_the_rest_stays_text() -> None:
    problem = "Ben has 12 *pens* and\n    3 nuts. He buys 4. :red[x] How many nuts?"
    drawn = marked_quantities(problem, odd_quantities(problem, "3 + 4 = 7\n#### 7"))
    assert drawn == (
        "Ben has :orange-background[12] \\*pens\\* and  \n3 nuts\\. He buys 4\\. \\:red\\[x\\] How many nuts?"
    )
