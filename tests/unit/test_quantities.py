"""Quantities of the problem that a solution never uses, or uses twice."""

from __future__ import annotations

import pytest

from irl_core.text.calculations import Number, operands
from irl_core.text.quantities import odd_quantities, overruled_result, unused_results, unused_words
from irl_core.text.segmentation import make_trace

BIKE = "The way to school is 5 km. The bike is 26 years old. On 3 days a week Nora cycles there and back."


@pytest.mark.parametrize(
    ("problem", "solution", "said"),
    [
        (BIKE, "5*2=<<5*2=10>>10\n10*3=30\n#### 30", "the 26 of the problem is never used"),
        (BIKE, "5*2=10\n10*3=30\n30+5=35", "the 26 of the problem is never used"),
        (BIKE, "At 26 she rides 5*2=10\n10*3=30", ""),  # it is spoken of
        (BIKE, "She rides 30 km.", ""),  # no equation: what is calculated with cannot be told
        ("Ann has 4 pens, Bo has 4 pens and 9 cups.", "4+4=8", "the 9 of the problem is never used"),
        ("20% of 50 pens are red.", "0.2*50=10", ""),
        ("20% of 50 pens are red.", "50*0.8=40", ""),
        ("20% of 50 pens are red.", "50/4=12.5", "the 20 of the problem is never used"),
        ("He buys 6 pens and 7 cups.", "2+1=3", "the 6 and 7 of the problem are never used"),
        ("He has 6 pens, buys 3 and eats 2.", "3+3=6\n6-2=4\n6-2=4", ""),
    ],
)  # fmt: skip
def test_what_is_never_used(problem: str, solution: str, said: str) -> None:
    assert unused_words(odd_quantities(problem, solution)) == said


def test_uses_are_counted_but_not_of_a_number_that_is_also_a_result() -> None:
    assert [(one.text, one.uses) for one in odd_quantities(BIKE, "5*2=10\n10*3=30\n30+5=35")] == [("5", 2), ("26", 0)]
    assert not odd_quantities("He has 6 pens, buys 3 and eats 2.", "3+3=6\n6-2=4\n6-2=4")


@pytest.mark.parametrize(
    ("solution", "values"),
    [
        ("4*3=12\n5+2=7\n7*2=14\n#### 14", ["12"]),
        ("4*3=12\n5+2=7\n7+12=19\n#### 19", []),
        ("4*3=12 in all\n5+2=7\nSo there are 12 and 7.", []),  # it is spoken of
        ("4*3=<<4*3=12>>12\n5+2=<<5+2=7>>7\n7*2=<<7*2=14>>14", ["12"]),
        ("4*3=12", []),  # the last one is the answer
        ("28/3=9.33\n10*6=60\n#### 60", []),  # rounded up, and used next
        ("28/3=9.33\n9*6=54\n#### 54", []),  # rounded down
        ("10/8=1.25\n1.3*6=7.8", ["1.25"]),  # to tenths is another number
        ("31/16=1.9375\n1.94*6=11.64", []),  # to cents
        ("28/3=9.33\n8*6=48\n#### 48", ["9.33"]),
        ("28/3=9.33\n4+6=10\n#### 10", ["9.33"]),  # the next result is no use of it
        ("28/3=9.33\n4*6=24\n24+10=34\n#### 34", ["9.33"]),  # not used next
        ("4*3=12\n11+13=24\n#### 24", ["12"]),  # a whole number is not rounded
    ],
)
def test_a_value_that_is_calculated_and_never_used(solution: str, values: list[str]) -> None:
    assert [one.text for one in unused_results(solution)] == values


def test_a_long_solution_is_read_once_and_not_once_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest text that is taken has a thousand sums; to read it again for each took minutes."""
    reads = []

    def counted(text: str, left: tuple[int, int]) -> list[Number]:
        reads.append(left)
        return operands(text, left)

    monkeypatch.setattr("irl_core.text.quantities.operands", counted)
    found = unused_results("\n".join(f"{number} * 1000 = {number * 1000}" for number in range(2, 102)))
    assert [one.text for one in found] == [str(number * 1000) for number in range(2, 101)]
    assert len(reads) == 100


def test_many_are_listed_and_counted() -> None:
    numbers = " ".join(f"{n} pens," for n in range(11, 20))
    assert unused_words(odd_quantities(numbers, "1+2=3")) == (
        "the 11, 12, 13, 14, 15, 16 and 3 more of the problem are never used"
    )
    assert unused_words([], ["the 12 of step 1"]) == "the 12 of step 1 is never used"
    assert unused_words(odd_quantities(BIKE, "5*2=10\n10*3=30"), ["the 7 of step 2"]) == (
        "the 26 of the problem and the 7 of step 2 are never used"
    )


def test_the_place_is_that_in_the_problem() -> None:
    (one,) = odd_quantities(BIKE, "5*2=10\n10*3=30")
    assert BIKE[one.start : one.end] == one.text == "26" and one.uses == 0


@pytest.mark.parametrize(
    ("solution", "last"),
    [
        ("4*3=12\n12*6=72\n#### 70", "12*6=72"),
        ("4*3=12\n12*6=72\nThe answer is 12.", "12*6=72"),
        ("<think>4*3=12\n12*6=72</think><answer>70</answer>", "12*6=72"),
        ("4*3=12\n#### 12", None),
        ("4*3=12\nThat leaves 8 of the 20.\n#### 8", None),  # a sentence between them states it
        ("4*3=14\n#### 12", None),  # the arithmetic says what is wrong here
        ("7/2=3.5\n#### 4", None),
        ("2/3=0.667\n#### 0.67", None),
        ("1/4=0.25\n#### 25", None),  # in percent, or in cents
        ("5-8=-3\n#### 3", None),
        ("She has 12 pens.\n#### 11", None),  # no calculation
        ("4*3=12\n#### blue", None),
        ("4*3=12\n12*6=72", None),  # no answer line
        ("410 / 15 = 27 full boxes\n#### 26", "410 / 15 = 27"),
    ],
)  # fmt: skip
def test_an_answer_line_that_departs_from_the_last_calculation(solution: str, last: str | None) -> None:
    found = overruled_result(make_trace("How many?", solution))
    assert (None if found is None else found.text) == last
