from __future__ import annotations

from fractions import Fraction

import pytest

from irl_core.text.calculations import Carried, apply_edits, work_out, written_like
from irl_core.text.segmentation import make_trace


def test_a_sum_is_found_once_with_all_its_copies() -> None:
    text = "She sold 48/2 = $<<48/2=24>>24 clips in 3 days.\nThen <<24+48=72>>72.\n7 * 2 = 14\n#### 72"
    worked = work_out(make_trace("48 clips, half of 10.", text))
    copies = [
        ([text[slice(*left)] for left in one.lefts], [number.text for number in one.results], one.step)
        for one in worked.sums
    ]
    assert copies == [(["48/2", "48/2"], ["24", "24"], 0), (["24+48"], ["72", "72"], 1), (["7 * 2"], ["14"], 2)]
    assert [number.text for number in worked.prose] == ["3", "72"]
    assert worked.known == {Fraction(n) for n in (48, 10, 1, 2, 100)}  # half is 2; 1, 2, 100 are always implied


@pytest.mark.parametrize("text", ["<<4*3=13>>13", "<<4*3=12>>15", "x = 5", "3 + 4 = 7 * 2 = 14", "#### 12"])
def test_a_false_or_chained_or_bare_equation_is_no_sum(text: str) -> None:
    assert work_out(make_trace("", text)).sums == ()


def test_step_numbers_are_no_numbers_of_the_step() -> None:
    worked = work_out(make_trace("", "Step 1: 5 eggs.\nStep 2: 6 eggs."))
    assert [number.text for number in worked.prose] == ["5", "6"]


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [
        (Fraction(5), "12", "5"),
        (Fraction(1234), "5,000", "1,234"),
        (Fraction(5, 2), "1.00", "2.50"),
        (Fraction(1, 4), ".75", ".25"),
        (Fraction(7), "8.0", "7.0"),
        (Fraction(5, 2), "12", None),  # whole stays whole
        (Fraction(1, 3), "0.50", None),
        (Fraction(0), "12", None),
        (Fraction(-3), "12", None),
    ],
)
def test_a_number_is_written_like_another(value: Fraction, like: str, text: str | None) -> None:
    assert written_like(value, like) == text


def test_edits_and_the_first_difference() -> None:
    assert apply_edits("pay 12 or 13", {(10, 12): "15", (4, 6): "14"}) == ("pay 14 or 15", (5, 6))
    assert apply_edits("pay 12", {(4, 6): "120"}) == ("pay 120", (6, 7))
    assert apply_edits("a + b", {(2, 3): "-"}) == ("a - b", (2, 3))


def test_a_changed_value_is_carried_through_sums_prose_and_answer() -> None:
    text = "<<4*3=12>>12\nWith these 12 it is <<12+9=21>>21\n#### 21"
    worked = work_out(make_trace("4, 3 and 9", text))
    carried = Carried(worked, {}, {})
    assert carried.restate(worked.sums[0], Fraction(15))
    assert carried.onward(worked.sums[0].end)
    assert apply_edits(text, carried.edits)[0] == "<<4*3=15>>15\nWith these 15 it is <<15+9=24>>24\n#### 24"
    assert carried.values == {12: 15, 21: 24}
