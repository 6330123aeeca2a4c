from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import irl_core.text.answers
import irl_core.text.verifiable
from irl_core.text.segmentation import make_trace, segment
from irl_core.text.verifiable import integer_answer, soft_format, strict_format, xml_count

GOOD = "<think>\n3 * 4 = 12\nHalf is 6.\n</think>\n<answer>\n6\n</answer>\n"
LOOSE = "<think>3 * 4 = 12</think> <answer>12 apples</answer> Bye"
GSM8K = "Mia pays <<3*4=12>>12 dollars.\n#### 12"


def is_correct(completion: str, reference: str) -> bool | None:
    return make_trace("", completion, reference_answer=reference).correct


def test_correctness_compares_numbers() -> None:
    completions, references = [GOOD, LOOSE, GSM8K, "No idea."], ["6.0", "$12", "13", "12"]
    assert list(map(is_correct, completions, references)) == [True, True, False, None]
    assert is_correct("#### 1,000", "1000.0")


def test_xml_count() -> None:
    assert list(map(xml_count, [GOOD, GSM8K, ""])) == [0.5, 0.0, 0.0]
    assert xml_count("<think>\nHalve.\n</think>\n") == 0.25  # two tags of four
    assert xml_count(GOOD + GOOD) == 0.0  # every tag twice
    assert xml_count(GOOD.rstrip() + "1234567890") == pytest.approx(0.49)  # 0.5 - 10 * 0.001


def test_strict_format() -> None:
    assert list(map(strict_format, [GOOD, GOOD.rstrip(), LOOSE, GSM8K])) == [0.5, 0.5, 0.0, 0.0]
    for text in (" " + GOOD, GOOD + "more", GOOD.replace("\n</think>", "</think>"), "<think>\n</answer>"):
        assert strict_format(text) == 0.0


def test_soft_format() -> None:
    assert list(map(soft_format, [GOOD, LOOSE, GSM8K])) == [0.5, 0.5, 0.0]
    for text in ("<think>a</think>b<answer>c</answer>", "<think>a</think><answer>c", "a<think>b"):
        assert soft_format(text) == 0.0


def test_integer_answer() -> None:
    texts = [GOOD, LOOSE, GSM8K, "#### 1,000", "#### -3", "#### 3.0", "#### $3", "Three."]
    rewards = [integer_answer(segment(text)[2]) for text in texts]
    assert rewards == [0.5, 0.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0]


@given(st.text())
def test_every_text_has_rewards_in_their_range(completion: str) -> None:
    assert xml_count(completion) <= 0.5
    assert {strict_format(completion), soft_format(completion), integer_answer(completion)} <= {0.0, 0.5}


def test_model_output_is_never_executed() -> None:
    """Fault 10: answers are parsed; nothing in these modules can run them."""
    names = ("answers", "verifiable", "segmentation", "equations", "expressions", "perturbations")
    folder = Path(irl_core.text.verifiable.__file__).parent
    for name in names:
        source = (folder / f"{name}.py").read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])(eval|exec|compile|__import__|literal_eval)\(", source), name
    assert not is_correct("#### __import__('os').getpid()", "1")
