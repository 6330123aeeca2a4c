from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.expressions import evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("3*(4+1)", Fraction(15)),
        ("20% of 50", Fraction(10)),
        ("1 1/2", Fraction(3, 2)),
        ("-2 * -3", Fraction(6)),
        ("2^-1", Fraction(1, 2)),
        ("10-4-3", Fraction(3)),
        ("100/5/4", Fraction(5)),
        ("$1,000.50", Fraction(2001, 2)),
    ],
)
def test_values(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "x",
        "3*",
        "3 4",
        "(3",
        "1/0",
        "0^-1",
        "2^0.5",
        "9^9^9",
        "1+" * 60 + "1",
        "(" * 3000,
        "__import__('os')",
        "3*4;1",
    ],
)
def test_what_is_no_bounded_expression_is_none(expression: str) -> None:
    assert evaluate(expression) is None


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    value = evaluate(text)
    assert value is None or isinstance(value, Fraction)
