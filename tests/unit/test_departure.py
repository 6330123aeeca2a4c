"""Where a solution leaves the expert's way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.divergence import departed_token, departure, first_difference, value_departure

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


@pytest.mark.parametrize(
    ("expert", "sample"),
    [
        ("3*4=<<3*4=12>>12", r"3 \times 4 = 12"),
        ("3*4=<<3*4=12>>12", "3 boxes * 4 pens = 12"),
        ("1200*2=<<1200*2=2400>>2400", "$1,200 * 2 = $2,400"),
        ("12/4=<<12/4=3>>3", r"\frac{12}{4} = 3"),
        ("12/4=<<12/4=3>>3", "12 ÷ 4 = 3"),
        ("2+3+4=<<2+3+4=9>>9", "4 + 2 + 3 = 9"),
        ("3*4=<<3*4=12>>12", "12 = 4 · 3"),
        ("10-4=<<10-4=6>>6", "10 − 4 = 6.0"),
        ("10-4=<<10-4=6>>6", r"\(10 - 4 = \boxed{6}\)"),
        ("5*.5=<<5*.5=2.5>>2.5", "5 * 0.50 = 2.5"),
        ("2*(3+4)=<<2*(3+4)=14>>14", "(4 + 3) x 2 = 14"),
        ("3^2=<<3^2=9>>9", "3² = 9"),
        ("1200+1=<<1200+1=1201>>1201", "1{,}200 + 1 = 1{,}201"),
    ],
)
def test_another_spelling_of_an_equation_is_no_departure(expert: str, sample: str) -> None:
    assert departure(expert, sample) is None


@pytest.mark.parametrize(
    ("expert", "sample", "rest"),
    [
        ("3*4=<<3*4=12>>12", r"3 \times 5 = 15", "5 = 15"),
        ("1200*2=<<1200*2=2400>>2400", "$1,300 * 2 = $2,600", ",300 * 2 = $2,600"),
        ("10-4=<<10-4=6>>6", "4 - 10 = -6", "4 - 10 = -6"),
        ("12/4=<<12/4=3>>3", "12 boxes * 4 = 48", "* 4 = 48"),
    ],
)
def test_other_operators_and_values_are_a_departure_however_spelt(expert: str, sample: str, rest: str) -> None:
    position = departure(expert, sample)
    assert position is not None
    assert sample[position:] == rest


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


# ------------------------------------------------------------------------------------------------ by value

TICKETS = "A club of 18 sells 5 tickets each at $4. Costs are $60. How much is left?"
TICKETS_EXPERT = (
    "They sell <<18*5=90>>90 tickets.\nThat is <<90*4=360>>360 dollars.\n<<360-60=300>>300 are left.\n#### 300"
)


@pytest.mark.parametrize(
    "text",
    [
        "Each brings 5*4 = 20, so all bring 18*20 = 360.\n360 - 60 = 300\n#### 300",  # another way to the same values
        "18*5 = 90 and 90*4 = 360, less 60 gives 300.\nThe answer is 300.",
        "Half the club brings 9*5*4 = 180, both halves 2*180 = 360. 360-60=300\n#### 300",
    ],
)
def test_another_way_to_the_experts_answer_is_no_departure(text: str) -> None:
    assert value_departure(TICKETS, TICKETS_EXPERT, text) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        # a value that the expert does not have and that leads nowhere
        ("18*5 = 90 tickets.\nThat is 90+4 = 94 dollars.\n94-60 = 34\n#### 34", "90+4"),
        # the detour leads to the expert's 360, so the mistake is behind it
        ("Each brings 5*4 = 20, all bring 18*20 = 360.\n360+60 = 420\n#### 420", "360+60"),
        # a slip, though its result is used and the answer comes out right
        ("18*5 = 95 tickets, 90*4 = 360.\n360-60 = 300\n#### 300", "18*5"),
        # a number outside any equation
        ("They sell 90 tickets, which is 380 dollars.\nSo 320 are left.\n#### 320", "380"),
        # right values, another answer
        ("18*5 = 90. 90*4 = 360. 360-60 = 300\n#### 360", "60"),
    ],
)
def test_departs_at_the_first_value_that_leads_nowhere(text: str, rest: str) -> None:
    position = value_departure(TICKETS, TICKETS_EXPERT, text)
    assert position is not None
    assert text[position:].startswith(rest)


def test_percentages_and_usual_constants_are_no_new_values() -> None:
    problem, expert = "Of 80 eggs 25% break. How many are left?", "80*0.25 = 20 break, 80-20 = 60.\n#### 60"
    text = "25/100 = 0.25, so 80*.25 = 20 break.\n80-20 = 70\n#### 70"
    assert value_departure(problem, expert, text) == text.index("80-20")
