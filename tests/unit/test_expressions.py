from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.equations import find_equations
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


def test_a_value_too_large_is_none_and_its_equation_not_judged() -> None:
    thirty = "9" * 30
    assert evaluate("*".join([thirty] * 4)) == Fraction(int(thirty)) ** 4  # 120 digits
    assert evaluate("*".join([thirty] * 9)) is None
    assert evaluate("/".join(["1", *[thirty] * 9])) is None
    assert find_equations("*".join([thirty] * 9) + " = 5") == []
    assert evaluate("1.0325^20") == Fraction(10325, 10000) ** 20  # compound interest


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        (r"\frac{3+1}{2}", Fraction(2)),
        (r"\dfrac12 \cdot 8", Fraction(4)),
        (r"\left(3+4\right) \times 2", Fraction(14)),
        (r"2^{3} - \sqrt{16}", Fraction(4)),
        (r"1\frac{1}{2} + 2½", Fraction(4)),
        ("-2^2", Fraction(-4)),  # the power first
        ("(-2)^2", Fraction(4)),
        ("3 - -2", Fraction(5)),
        ("2 dozen + 5", Fraction(29)),
        (r"10\,000 / 4", Fraction(2500)),
    ],
)
def test_latex_and_words_of_scale(latex: str, value: Fraction) -> None:
    assert evaluate(latex) == value


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    value = evaluate(text)
    assert value is None or isinstance(value, Fraction)
