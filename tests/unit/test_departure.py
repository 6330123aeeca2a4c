"""Where a solution leaves the expert's way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.divergence import departed_token, departure, first_difference

EXPERT = "The scarves cost <<4*5=20>>20 dollars.\nThe apples cost <<9*6=54>>54 dollars.\n#### 74"


def test_the_expert_never_departs_from_itself() -> None:
    assert departure(EXPERT, EXPERT) is None


def test_other_words_and_other_order_are_no_departure() -> None:
    text = "Apples: <<6*9=54>>54.\nScarves: <<5*4=20>>20.\n#### 74.0"
    assert departure(EXPERT, text) is None


@pytest.mark.parametrize(
    ("wrong", "rest"),
    [
        ("<<4*7=28>>28", "7=28>>28"),  # wrong operand: agrees with 4*5=20 up to "4*"
        ("<<4+5=9>>9", "+5=9>>9"),  # wrong operation
        ("<<4*5=25>>25", "5>>25"),  # slip: "4*5=2" agrees
    ],
)
def test_departs_at_the_first_character_that_is_not_the_experts(wrong: str, rest: str) -> None:
    text = f"The scarves cost {wrong} dollars.\n#### 1"
    position = departure(EXPERT, text)
    assert position is not None
    assert text[position:].startswith(rest)


def test_within_a_step_the_next_expected_equation_is_compared() -> None:
    text = "The scarves cost <<4*5=20>>20 dollars.\nThe apples cost <<9*8=72>>72 dollars.\n#### 92"
    position = departure(EXPERT, text)
    assert position is not None
    assert text[position:].startswith("8=72")  # the waiting equation is 9*6=54


def test_right_steps_with_another_answer_depart_in_the_answer() -> None:
    text = EXPERT.replace("#### 74", "#### 54")
    position = departure(EXPERT, text)
    assert position is not None
    assert text[position:] == "54"


def test_a_solution_without_an_answer_departs_at_its_end() -> None:
    text = "The scarves cost <<4*5=20>>20 dollars."
    assert departure(EXPERT, text) == len(text)


def test_first_difference() -> None:
    assert first_difference([1, 2, 3], [1, 9, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([1, 2], [1, 2]) == 2
    assert first_difference([], [1]) == 0


def test_departed_token() -> None:
    spans = [(0, 3), (3, 5), (5, 9), (9, 9)]
    assert departed_token(spans, 3) == 1
    assert departed_token(spans, 4) == 1
    assert departed_token(spans, 9) == 3  # past the text: the last token, the end of turn
    assert departed_token(spans, None) == 4
    assert departed_token([], None) == 0


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_text_gives_a_position_in_it(expert: str, text: str) -> None:
    position = departure(expert, text)
    assert position is None or 0 <= position <= len(text)
