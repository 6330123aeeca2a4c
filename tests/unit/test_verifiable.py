from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import irl_core.text.answers
import irl_core.text.verifiable
from irl_core.text.verifiable import correctness, integer_answer, soft_format, strict_format, xml_count

GOOD = "<think>\n3 * 4 = 12\nHalf is 6.\n</think>\n<answer>\n6\n</answer>\n"
LOOSE = "<think>3 * 4 = 12</think> <answer>12 apples</answer> Bye"
GSM8K = "Mia pays <<3*4=12>>12 dollars.\n#### 12"


def test_correctness_compares_numbers() -> None:
    assert correctness([GOOD, LOOSE, GSM8K, "No idea."], ["6.0", "$12", "13", "12"]) == [2.0, 2.0, 0.0, 0.0]
    assert correctness(["#### 1,000"], ["1000.0"]) == [2.0]


def test_correctness_needs_one_reference_a_completion() -> None:
    with pytest.raises(ValueError, match="2 completions with 1 references"):
        correctness([GOOD, GOOD], ["6"])


def test_xml_count() -> None:
    assert xml_count([GOOD, GSM8K, ""]) == [0.5, 0.0, 0.0]
    assert xml_count(["<think>\nHalve.\n</think>\n"]) == [0.25]  # two tags of four
    assert xml_count([GOOD + GOOD]) == [0.0]  # every tag twice
    assert xml_count([GOOD.rstrip() + "1234567890"]) == [pytest.approx(0.49)]  # 0.5 - 10 * 0.001


def test_strict_format() -> None:
    assert strict_format([GOOD, GOOD.rstrip(), LOOSE, GSM8K]) == [0.5, 0.5, 0.0, 0.0]
    assert strict_format([" " + GOOD, GOOD + "more", GOOD.replace("\n</think>", "</think>")]) == [0.0, 0.0, 0.0]
    assert strict_format(["<think>\n</answer>"]) == [0.0]


def test_soft_format() -> None:
    assert soft_format([GOOD, LOOSE, GSM8K]) == [0.5, 0.5, 0.0]
    assert soft_format(["<think>a</think>b<answer>c</answer>", "<think>a</think><answer>c", "a<think>b"]) == [0.0] * 3


def test_integer_answer() -> None:
    assert integer_answer([GOOD, LOOSE, GSM8K]) == [0.5, 0.0, 0.5]
    assert integer_answer(["#### 1,000", "#### -3", "#### 3.0", "#### $3", "Three."]) == [0.5, 0.5, 0.0, 0.0, 0.0]


@given(st.lists(st.text(), max_size=4))
def test_one_reward_a_completion_for_any_text(completions: list[str]) -> None:
    functions: list[Callable[[Sequence[str]], list[float]]] = [xml_count, strict_format, soft_format, integer_answer]
    for function in functions:
        assert len(function(completions)) == len(completions)
    assert len(correctness(completions, ["1"] * len(completions))) == len(completions)


def test_model_output_is_never_executed() -> None:
    """Fault 10: answers are parsed; nothing in these modules can run them."""
    names = ("answers", "verifiable", "segmentation", "equations", "expressions", "perturbations")
    folder = Path(irl_core.text.verifiable.__file__).parent
    for name in names:
        source = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])(eval|exec|compile|__import__|literal_eval)\(", source), name
    assert correctness(["#### __import__('os').getpid()"], ["1"]) == [0.0]
