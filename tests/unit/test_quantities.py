"""Quantities of the problem that a solution never uses, or uses twice."""

from __future__ import annotations

import pytest

from irl_core.text.quantities import in_words, odd_quantities

BIKE = "The way to school is 5 km. The bike is 26 years old. On 3 days a week Nora cycles there and back."


@pytest.mark.parametrize(
    ("problem", "solution", "said"),
    [
        (BIKE, "5*2=<<5*2=10>>10\n10*3=30\n#### 30", "Quantities: 26 of the problem is never used."),
        (BIKE, "5*2=10\n10*3=30\n30+5=35", "Quantities: 26 of the problem is never used; used more than once: 5 in 2"
         " calculations."),
        (BIKE, "At 26 she rides 5*2=10\n10*3=30", ""),  # it is spoken of
        (BIKE, "She rides 30 km.", ""),  # no equation: what is calculated with cannot be told
        ("Ann has 4 pens, Bo has 4 pens and 9 cups.", "4+4=8", "Quantities: 9 of the problem is never used."),
        ("20% of 50 pens are red.", "0.2*50=10", ""),
        ("20% of 50 pens are red.", "50*0.8=40", ""),
        ("20% of 50 pens are red.", "50/4=12.5", "Quantities: 20 of the problem is never used."),
        ("He buys 6 pens and 7 cups.", "2+1=3", "Quantities: 6, 7 of the problem are never used."),
        ("He has 6 pens, buys 3 and eats 2.", "3+3=6\n6-2=4\n6-2=4", ""),  # 6 is a result too, 2 may be implied
    ],
)  # fmt: skip
def test_what_is_odd(problem: str, solution: str, said: str) -> None:
    if "3+3" in solution:
        assert "6 in" not in in_words(odd_quantities(problem, solution))
    else:
        assert in_words(odd_quantities(problem, solution)) == said


def test_the_place_is_that_in_the_problem() -> None:
    (one,) = odd_quantities(BIKE, "5*2=10\n10*3=30")
    assert BIKE[one.start : one.end] == one.text == "26" and one.uses == 0
