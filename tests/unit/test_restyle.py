"""A solution in another style: the same values in the same order, the same answer."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irl_core.text.answers import answers_agree
from irl_core.text.equations import find_equations, read_equations
from irl_core.text.restyle import restyled, with_operators, with_restated_facts
from irl_core.text.segmentation import segment

PROBLEM = "A stall sells 14 jars at $3 each and 6 loaves at $2 each. Half of what it takes is rent. What is left?"
SOLUTION = (
    "The jars bring 14*3=$<<14*3=42>>42.\nThe loaves bring 6*2=$<<6*2=12>>12.\n"
    "Together it takes 42+12=$<<42+12=54>>54.\n"
    "What is left is 54/2=$<<54/2=27>>27.\n#### 27"
)


def results(text: str) -> list[object]:
    """The values that the visible equations state, in order."""
    return [one.stated for one in read_equations(re.sub(r"<<[^<>]*>>", "", text))]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6))
def test_values_their_order_and_the_answer_stay(seed: int) -> None:
    text = restyled(PROBLEM, SOLUTION, random.Random(seed))
    assert results(text) == results(SOLUTION)
    assert all(one.true for one in find_equations(text))
    assert answers_agree(segment(text)[2] or "", "27")


def test_many_styles_and_the_same_one_for_the_same_seed() -> None:
    texts = [restyled(PROBLEM, SOLUTION, random.Random(seed)) for seed in range(60)]
    assert texts == [restyled(PROBLEM, SOLUTION, random.Random(seed)) for seed in range(60)]
    assert len(set(texts)) > 30
    assert SOLUTION in texts
    for mark in ("Step 1: ", "<<14*3=42>>", "×", "\\times", "The answer is", "\n\n", "A stall sells"):
        assert any(mark in text for text in texts), mark


@pytest.mark.parametrize("text", ["", "no closing line, 3*4=12", "<think>3*4=12</think><answer>12</answer>"])
def test_what_has_no_answer_or_is_laid_out_by_tags_stays(text: str) -> None:
    assert all(restyled(PROBLEM, text, random.Random(seed)) == text for seed in range(20))


def test_operators_between_operands_alone_are_rewritten() -> None:
    line = "From 10-12 boxes, 3*4=12 and 5-2 = 3 of the half-price ones; <<3*4=12>> stays."
    assert with_operators(line, " × ", True) == (
        "From 10-12 boxes, 3 × 4=12 and 5-2 = 3 of the half-price ones; <<3*4=12>> stays."
    )


def test_facts_are_restated_before_the_step_that_needs_them() -> None:
    lines = with_restated_facts(PROBLEM, ["14*3=42", "42/2=21"], random.Random(1))
    facts = [line for line in lines if line.startswith("A stall")]
    assert lines == [*facts, "14*3=42", "42/2=21"]
