"""The checker: each kind of mistake at its step, other orders accepted, no text makes it raise."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from irl_core.data.word_problems.check import MistakeKind, first_error
from irl_core.data.word_problems.generate import problem
from irl_core.data.word_problems.quantities import Quantity, WordProblem
from irl_core.data.word_problems.stated import four_operations, number, stated_equations
from irl_core.text.expressions import value
from irl_core.text.segmentation import segment
from irl_core.types import Truth

# 4 apples at 3 dollars and 5 pears at 6 dollars, paid from 50 dollars; 9 plums cost nothing here.
# apples 4*3=12, pears 5*6=30, total 12+30=42, left 50-42=8.
SHOP = WordProblem(
    problem_id="shop",
    family="shopping",
    text="An apple costs 3 dollars and a pear 6. Mia has 50 dollars and 9 plums. She buys 4 apples and 5 pears. "
    "How many dollars are left?",
    solution="The apples cost <<4*3=12>>12 dollars.\nThe pears cost <<5*6=30>>30 dollars.\n"
    "Mia pays <<12+30=42>>42 dollars.\nMia has <<50-42=8>>8 dollars left.\n#### 8",
    answer="8",
    target="left",
    quantities=(
        Quantity("apples", 4, "given"),
        Quantity("apple price", 3, "given"),
        Quantity("pears", 5, "given"),
        Quantity("pear price", 6, "given"),
        Quantity("money", 50, "given"),
        Quantity("plums", 9, "distractor"),
        Quantity("apple cost", 12, "derived", "*", "apples", "apple price"),
        Quantity("pear cost", 30, "derived", "*", "pears", "pear price"),
        Quantity("total", 42, "derived", "+", "apple cost", "pear cost"),
        Quantity("left", 8, "derived", "-", "money", "total"),
    ),
)


def judge(*lines: str) -> tuple[int | None, str | None]:
    truth = first_error(SHOP, "\n".join(lines))
    return truth.first_error_step, truth.kind


@pytest.mark.parametrize(
    "lines",
    [
        ("<<4*3=12>>12", "<<5*6=30>>30", "<<12+30=42>>42", "<<50-42=8>>8", "#### 8"),
        ("<<6*5=30>>30", "<<3*4=12>>12", "<<30+12=42>>42", "<<50-42=8>>8", "#### 8"),  # other order
        ("<<4*3=12>>12", "<<50-12=38>>38", "<<5*6=30>>30", "<<38-30=8>>8", "#### 8"),  # pays one by one
        ("<<4*3+5*6=42>>42", "<<50-42=8>>8", "#### 8"),  # two steps in one
        ("4 * 3 = 12", "5 x 6 = 30", "12 + 30 = 42", "50 - 42 = 8", "#### 8"),  # without annotation
        ("<<4*3=12>>12", "Pears next.", "<<5*6=30>>30", "<<12+30=42>>42", "<<50-42=8>>8", "#### 8"),  # neutral line
        ("<<4*3=12>>12", "<<4*3=12>>12", "<<5*6=30>>30", "<<12+30=42>>42", "<<50-42=8>>8", "#### 8.0"),
    ],
)
def test_right_in_any_order(lines: tuple[str, ...]) -> None:
    assert judge(*lines) == (None, None)


@pytest.mark.parametrize(
    ("lines", "step", "kind"),
    [
        (("<<4*3=13>>13", "#### 8"), 0, MistakeKind.SLIP),
        (("<<4*3=12>>21", "#### 8"), 0, MistakeKind.SLIP),
        (("<<4*3=12>>12", "<<5*9=45>>45", "#### 8"), 1, MistakeKind.OPERAND),  # the plums
        (("<<4*6=24>>24", "#### 8"), 0, MistakeKind.OPERAND),  # the price of the other fruit
        (("<<4*3=12>>12", "<<77-12=65>>65", "#### 65"), 1, MistakeKind.OPERAND),  # 77 is nowhere
        (("<<4+3=7>>7", "#### 8"), 0, MistakeKind.OPERATION),
        (("<<4*3=12>>12", "<<5*6=30>>30", "<<30-12=18>>18", "#### 8"), 2, MistakeKind.OPERATION),
        (("<<4*3=12>>12", "<<12+5=17>>17", "#### 8"), 1, MistakeKind.SKIPPED),  # pears, not their cost
        (("<<4*3=12>>12", "<<12+30=42>>42", "#### 8"), 1, MistakeKind.SKIPPED),  # 30 comes from nowhere
        (("<<4*3=12>>12", "<<50-12=38>>38", "#### 38"), 1, MistakeKind.SKIPPED),  # the pears never paid
        (("<<4*3=12>>12", "<<5*6=30>>30", "<<12+30=42>>42", "#### 42"), 3, MistakeKind.QUANTITY),
        (("<<4*3=12>>12", "#### 50"), 1, MistakeKind.QUANTITY),
        (("<<4*=12>>12", "#### 8"), 0, MistakeKind.UNREADABLE),
        (("<<4*3=12", "#### 8"), 0, MistakeKind.UNREADABLE),
        (("<<4*3=12>>12", "<<5*6=30>>30"), 1, MistakeKind.UNFINISHED),
    ],
)
def test_each_mistake_at_its_step(lines: tuple[str, ...], step: int, kind: MistakeKind) -> None:
    assert judge(*lines) == (step, kind)


def test_an_empty_text_has_no_step_to_blame() -> None:
    assert judge("") == (None, MistakeKind.UNFINISHED)


def test_a_distractor_for_an_operand_is_a_wrong_operand() -> None:
    tried = 0
    for seed in range(400):
        one = problem(seed)
        spare = [q.value for q in one.quantities if q.role == "distractor"]
        match = re.search(r"<<(\d+)([-+*])(\d+)=", one.solution)
        if not spare or not match or match.group(3) == "2":
            continue
        left, op, right = int(match.group(1)), match.group(2), max(spare)
        result = {"+": left + right, "-": left - right, "*": left * right}[op]
        broken = re.sub(r"<<.*?>>\d+", f"<<{left}{op}{right}={result}>>{result}", one.solution.split("\n")[0])
        index = one.solution[: match.start()].count("\n")
        if index == 0 and result >= 0:
            truth = first_error(one, "\n".join([broken, *one.solution.split("\n")[1:]]))
            tried += 1
            assert truth == Truth(0, MistakeKind.OPERAND), (one, broken)
    assert tried > 80


def test_another_operator_is_a_wrong_operation_and_another_value_a_slip() -> None:
    operations = 0
    for seed in range(300):
        one = problem(seed)
        lines = one.solution.split("\n")
        step = random.Random(seed).randrange(len(lines) - 1)
        match = re.search(r"<<(\d+)([-+*/])(\d+)=(\d+)>>\d+", lines[step])
        assert match
        a, b, result = int(match.group(1)), int(match.group(3)), int(match.group(4))
        slip = lines[step].replace(match.group(), f"<<{a}{match.group(2)}{b}={result + 1}>>{result + 1}")
        assert first_error(one, "\n".join([*lines[:step], slip, *lines[step + 1 :]])) == Truth(step, MistakeKind.SLIP)
        other, outcome = ("*", a * b) if match.group(2) != "*" else ("+", a + b)
        wrong = lines[step].replace(match.group(), f"<<{a}{other}{b}={outcome}>>{outcome}")
        truth = first_error(one, "\n".join([*lines[:step], wrong, lines[-1].replace(one.answer, "777")]))
        assert truth.first_error_step in (step, step + 1)
        operations += truth == Truth(step, MistakeKind.OPERATION)
    assert operations > 285  # the rest are partial results that another order of steps would need


def test_another_quantity_as_the_answer() -> None:
    for seed in range(300):
        one = problem(seed)
        *steps, _ = one.solution.split("\n")
        for quantity in one.quantities:
            if quantity.name != one.target:
                truth = first_error(one, "\n".join([*steps, f"#### {quantity.value}"]))
                assert truth == Truth(len(steps), MistakeKind.QUANTITY)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=300), st.text(alphabet="0123456789+-*/=<>()#. \n$,%x×", max_size=200)))
@example("<<" * 500)
@example("1" * 5000 + "=1")
@example("(" * 5000)
@example("<<1/0=0>>0\n#### 8")
@example("#### \n#### 8")
@example("<<4*3=12>>" + "9" * 5000)
@example("<<²*3=12>>12")
def test_any_text_gives_a_truth_within_its_steps(text: str) -> None:
    truth = first_error(SHOP, text)
    assert isinstance(truth, Truth)
    assert truth.first_error_step is None or truth.first_error_step < len(segment(text)[1])


def test_expressions_are_parsed_exactly() -> None:
    parsed = four_operations("(1,000 - 2.5) × 2 / 5")  # 997.5 * 2 / 5 = 399
    assert parsed is not None and value(parsed) == 399
    assert four_operations("2+") is None and four_operations("") is None and four_operations("2**3") is None
    assert number("1e9") is None
    assert [one.stated for one in stated_equations("He has 3 + 4 = 7 and 7*2 = 14.")] == [7, 14]
