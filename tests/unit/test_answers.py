from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.answers import answers_agree, normalise_answer, parse_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,000", Fraction(1000)),
        ("1000.0", Fraction(1000)),
        ("$5", Fraction(5)),
        ("-$5", Fraction(-5)),
        ("$-5", Fraction(-5)),
        ("\\$5.50", Fraction(11, 2)),
        ("50%", Fraction(50)),
        ("3/4", Fraction(3, 4)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("1 1/2 cups", Fraction(3, 2)),  # 1 + 1/2
        ("-2", Fraction(-2)),
        ("−2", Fraction(-2)),
        (".5", Fraction(1, 2)),
        ("12.", Fraction(12)),
        ("12 dollars", Fraction(12)),
        ("**12**", Fraction(12)),
        ("x = 12", Fraction(12)),
        ("12 m^2", Fraction(12)),
        ("1,234,567.25", Fraction(123456725, 100)),
    ],
)
def test_numbers_as_people_write_them(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "twelve",
        "1,00",
        "1,0000",
        "12:30",
        "3 apples and 4 pears",
        "1/0",
        "1e5x",
        "1.2.3",
        "9" * 201,
        "٣",
        "__import__('os').system('true')",
        "2**9**9",
        "(1).__class__(2)",
    ],
)
def test_what_is_not_one_number_is_none_and_never_run(text: str) -> None:
    assert parse_number(text) is None


@given(st.text(max_size=60))
def test_any_text_is_read_without_an_error(text: str) -> None:
    parse_number(text)
    assert normalise_answer(normalise_answer(text)) == normalise_answer(text)


@given(st.integers(-(10**9), 10**9))
def test_an_integer_is_itself_however_it_is_grouped(n: int) -> None:
    assert parse_number(f"{n:,}") == parse_number(f"{n}.00") == n
    assert normalise_answer(f"${n:,}") == str(n)


def test_one_spelling() -> None:
    assert normalise_answer("$1,000.00") == "1000"
    assert normalise_answer("1/2") == "0.5"
    assert normalise_answer("-1/8") == "-0.125"
    assert normalise_answer("1/3") == "1/3"
    assert normalise_answer(" Half  Past two. ") == "half past two"


@pytest.mark.parametrize(
    ("a", "b", "agree"),
    [
        ("1,000", "1000.0", True),
        ("50%", "50", True),
        ("0.5", "1/2", True),
        ("12 dollars", "$12", True),
        ("12", "13", False),
        ("12", "-12", False),
        ("Monday", "monday.", True),
        ("12:30", "12:30", True),
        ("", "", False),
        ("12", "", False),
    ],
)
def test_agreement(a: str, b: str, agree: bool) -> None:
    assert answers_agree(a, b) is agree
    assert answers_agree(b, a) is agree
