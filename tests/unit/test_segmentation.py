from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irl_core.text.segmentation import make_trace, segment
from irl_core.types import Layout

SHARED = Path(os.environ.get("IRL_LENS_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared"))
SOLUTIONS = SHARED / "data" / "traces" / "model_solutions_dev.jsonl"
GSM8K = SHARED / "data" / "gsm8k" / "train.jsonl"

PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "Step 1: ",
        "Step 2: ",
        "1. ",
        "2. ",
        "#### ",
        "12",
        "\n",
        "\r\n",
        " ",
        "The answer is 12.",
        "A: 12",
        "\\boxed{",
        "}",
        "She pays 3.5. ",
        "<<3*4=12>>",
        "\xa0",
        "\u2028",
        "é",
        "🙂",
        "。",
        "**",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join))


def outline(text: str) -> list[tuple[str, str]]:
    return [(step.role[0], step.text) for step in segment(text)[1]]


def outside_steps(text: str) -> str:
    position, rest = 0, []
    for step in segment(text)[1]:
        rest.append(text[position : step.start])
        position = step.end
    return "".join([*rest, text[position:]])


@given(TEXTS)
def test_steps_are_exact_ordered_and_not_blank(text: str) -> None:
    _, steps, answer = segment(text)
    position = 0
    for step in steps:
        assert text[step.start : step.end] == step.text
        assert step.text.strip() == step.text != ""
        assert step.start >= position
        position = step.end
    assert bool(steps) == bool(text.strip())
    assert answer is None or answer.strip() == answer != ""


@given(TEXTS)
def test_steps_cover_every_character_outside_tags(text: str) -> None:
    rest = outside_steps(text)
    if segment(text)[0] is Layout.THINK_ANSWER:
        for tag in ("<think>", "</think>", "<answer>", "</answer>"):
            rest = rest.replace(tag, "", 1)
    assert rest.strip() == ""


def test_plain_lines_are_steps() -> None:
    assert outline("Three boxes hold 12.\nSo one holds 4.\nThe answer is 4.") == [
        ("r", "Three boxes hold 12."),
        ("r", "So one holds 4."),
        ("a", "The answer is 4."),
    ]


def test_one_paragraph_splits_into_sentences_but_not_inside_numbers_or_after_titles() -> None:
    text = "Mr. Smith pays $1,000.00 for 3.5 kg, e.g. rice. Then he rests! Is it enough? The answer is 12."
    assert outline(text) == [
        ("r", "Mr. Smith pays $1,000.00 for 3.5 kg, e.g. rice."),
        ("r", "Then he rests!"),
        ("r", "Is it enough?"),
        ("a", "The answer is 12."),
    ]


def test_a_closing_sentence_leaves_the_last_line() -> None:
    assert outline("One holds 4.\nTwo hold 8. The answer is 8.") == [
        ("r", "One holds 4."),
        ("r", "Two hold 8."),
        ("a", "The answer is 8."),
    ]


def test_gsm8k_lines_with_windows_line_ends() -> None:
    layout, steps, answer = segment("Mia pays <<4*3=12>>12 dollars.\r\nShe waits.\r\n#### 1,000\r\n")
    assert layout is Layout.GSM8K
    assert [step.text for step in steps] == ["Mia pays <<4*3=12>>12 dollars.", "She waits.", "#### 1,000"]
    assert [step.role for step in steps] == ["reasoning", "reasoning", "answer"]
    assert answer == "1,000"


def test_hashes_at_the_end_of_a_line_are_a_step() -> None:
    assert outline("She pays 12. #### 12") == [("r", "She pays 12."), ("a", "#### 12")]


def test_a_markdown_heading_is_no_answer() -> None:
    assert outline("#### 1. Find the cost\nIt is 12.")[0][0] == "r"


def test_numbered_steps_keep_their_lines_together() -> None:
    text = "Let us see.\nStep 1: Boxes.\n  3 * 4 = 12\nStep 2: Halve.\n12 / 2 = 6\nStep 3: #### 6"
    layout, steps, answer = segment(text)
    assert layout is Layout.NUMBERED
    assert [step.text for step in steps] == [
        "Let us see.\nStep 1: Boxes.\n  3 * 4 = 12",
        "Step 2: Halve.\n12 / 2 = 6",
        "Step 3: #### 6",
    ]
    assert steps[-1].role == "answer"
    assert answer == "6"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Let's solve it.\n\nStep 1: 3*4=12\nStep 2: 12+1=13", "Let's solve it.\n\nStep 1: 3*4=12"),
        ("Sure!\nHere it is.\n1. Add.\n2. Halve.", "Sure!\nHere it is.\n1. Add."),
        ("Answer:\n12\nSo 12.", "Answer:\n12"),
        ("We have 3*4=12.\n1. Add.\n2. Halve.", "We have 3*4=12."),  # it calculates: a step
        ("Here is my solution:\n3*4=12\n12+1=13", "Here is my solution:\n3*4=12"),
        ("Let's think step by step.\n3*4=12. Then 12+1=13.", "Let's think step by step.\n3*4=12."),
        ("She has 4 pens:\n3*4=12\n12+1=13", "She has 4 pens:"),
        ("Solution:\nThe answer is 5", "Solution:"),  # nothing to belong to
    ],
)
def test_a_preamble_belongs_to_the_first_step(text: str, first: str) -> None:
    assert outline(text)[0][1] == first


ANNOUNCED = (
    "Let me solve this problem.", "We need the total cost, so let us work it out.",
    "Okay, so I need to figure out the cost.", "Sure!", "First, let me understand the problem.",
    "To find the cost, we will look at the boxes.", "Let us begin.",
    "Here\u2019s how I would solve it.", "We are asked to find her age, so let\u2019s go.", "We want to know the cost.",
    "I'm going to work through this.", "Alright, let's break this down.", "Great question!",
)  # fmt: skip
REASONED = (
    "Since each box holds the same, we multiply.", "We need to add the boxes.", "She has four pens.",
    "Let x be the price.", "Let's find half of the pens.", "Ann is older than Ben.",
    "Let me find the difference of the prices.",
    "Now we can take away the broken pens.", "To find the cost, we combine the boxes.", "We know the boxes are full.",
    "We need to find the cost of a box, so the price goes on top.", "Let us find it by splitting the price.",
)  # fmt: skip


@pytest.mark.parametrize("join", ["\n", " "])
@pytest.mark.parametrize("sentence", [*ANNOUNCED, *REASONED])
def test_a_sentence_that_announces_is_no_step_and_one_that_reasons_is(sentence: str, join: str) -> None:
    rest = ["She buys 2*6=12 pens.", "She gives 2 away: 12-2=10.", "The answer is 10."]
    begun = [sentence + join + rest[0], *rest[1:]] if sentence in ANNOUNCED else [sentence, *rest]
    assert [text for _, text in outline(join.join([sentence, *rest]))] == begun


def test_several_sentences_announce_and_a_claim_behind_them_is_a_step() -> None:
    found = outline("Okay. Let me think.\nLet us begin. Ann has pens.\nShe buys 2*6=12.\nThe answer is 12.")
    assert [text for _, text in found][:2] == [
        "Okay. Let me think.\nLet us begin. Ann has pens.", "She buys 2*6=12.",
    ]  # fmt: skip
    # nothing for it to belong to
    assert outline("Let me solve this.\nThe answer is 5.") == [("r", "Let me solve this."), ("a", "The answer is 5.")]


def test_numbered_steps_in_one_line() -> None:
    assert [text for _, text in outline("Step 1: Add 3. Step 2: Add 4. Step 3: Stop.")] == [
        "Step 1: Add 3.",
        "Step 2: Add 4.",
        "Step 3: Stop.",
    ]


def test_a_list_counts_up_from_one_and_a_lone_number_is_a_line() -> None:
    assert segment("1. Add.\nmore\n2. Halve.\n**Answer:** 12")[0] is Layout.NUMBERED
    assert [text for _, text in outline("1. Add.\nmore\n2. Halve.\n**Answer:** 12")] == [
        "1. Add.\nmore",
        "2. Halve.",
        "**Answer:** 12",
    ]
    assert segment("7. Add.\nHalve.")[0] is Layout.PLAIN


def test_think_and_answer_tags() -> None:
    layout, steps, answer = segment("<think>\n3 * 4 = 12\nHalf is 6.\n</think>\n<answer>\n6 apples\n</answer>")
    assert layout is Layout.THINK_ANSWER
    assert [(step.role, step.text) for step in steps] == [
        ("reasoning", "3 * 4 = 12"),
        ("reasoning", "Half is 6."),
        ("answer", "6 apples"),
    ]
    assert answer == "6 apples"


def test_think_without_answer_and_answer_without_think() -> None:
    assert outline("<think>Halve.</think>\nThe answer is 6.") == [("r", "Halve."), ("a", "The answer is 6.")]
    assert segment("<think>Halve.</think>\n6")[2] == "6"
    assert outline("Halve it.\n<answer>6</answer>") == [("r", "Halve it."), ("a", "6")]


@pytest.mark.parametrize(
    "text",
    [
        "<think>Halve it.",
        "Halve it.</think>",
        "<think><think>Halve it.</think></think>",
        "<answer>Halve<answer>it</answer>",
        "<think>Halve <answer>it</answer></think>",
        "</think>Halve it.<think>",
        "<think></think>",
    ],
)
def test_unclosed_nested_or_empty_tags_are_text(text: str) -> None:
    assert segment(text)[0] is Layout.PLAIN
    assert outside_steps(text).strip() == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 12.", "12"),
        ("So, the final answer is: $12$.", "12"),
        ("Therefore, the answer is **12**.", "12"),
        ("A: 12", "12"),
        ("**Answer:** 12", "12"),
        ("Final answer: 12", "12"),
        ("Step 7: A: $12", "$12"),
        ("#### -1,000.50", "-1,000.50"),
        ("\\boxed{12}", "12"),
        ("The total is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("The answer is 3 + 4 = 7 dollars.", "7 dollars"),
        ("<answer>The answer is 12.</answer>", "12"),
        ("#### 11\n#### 12", "12"),
        ("The answer is found by adding.", None),
        ("She has 12 eggs.", None),
        ("", None),
    ],
)
def test_the_final_answer(text: str, answer: str | None) -> None:
    assert segment(text)[2] == answer


def test_the_answer_tag_comes_before_other_answers() -> None:
    assert segment("<think>The answer is 5.</think><answer>6</answer>")[2] == "6"


@pytest.mark.parametrize(
    "unit",
    [
        "Ab. Cd. ",
        "#### ",
        "#### 1 ",
        "\\boxed{",
        "<think>",
        ".",
        "Step 1: ",
        "Step 1. ",
        "#",
        "1,",
        "*",
        "<<",
        "<answer></answer>",
        "The answer is 1",
        "\t",
        "a #### 1",
        "\\boxed{}",
        "<<1=1>>",
        "> Step 1",
    ],
)
def test_a_megabyte_on_one_line_takes_linear_time(unit: str) -> None:
    text = "x" + unit * (1_000_000 // len(unit))
    started = time.perf_counter()
    assert segment(text)[1]
    assert time.perf_counter() - started < 20.0  # quadratic work would take hours


def test_make_trace_compares_with_the_reference() -> None:
    trace = make_trace("How many?", "3 * 4 = 12\n#### 1,000", reference_answer="1000.0", problem_id="p1")
    assert (trace.answer, trace.correct, trace.problem_id) == ("1,000", True, "p1")
    assert make_trace("How many?", "#### 12", reference_answer="13").correct is False
    assert make_trace("How many?", "No idea.", reference_answer="13").correct is None  # not wrong: unknown
    assert make_trace("How many?", "#### 12").correct is None


def test_a_completion_cut_off_is_never_correct() -> None:
    """Fault 11: '#### 12' may have been on its way to '#### 125'."""
    trace = make_trace("How many?", "#### 12", reference_answer="12", finished=False)
    assert (trace.answer, trace.correct, trace.finished) == ("12", False, False)


@pytest.mark.skipif(not SOLUTIONS.exists(), reason="shared/data/traces is not beside this checkout")
def test_answers_of_real_solutions_agree_with_their_labels() -> None:
    agree, total, unknown = 0, 0, 0
    for line in SOLUTIONS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        reference = segment(row["reference"])[2]
        trace = make_trace(row["question"], row["solution"], reference_answer=reference)
        total += 1
        agree += trace.correct == row["is_correct"]
        unknown += trace.correct is None and trace.answer is None
    assert (total, agree, unknown) == (2640, 2632, 8)  # the 8 break off before an answer


@pytest.mark.skipif(not GSM8K.exists(), reason="shared/data/gsm8k is not beside this checkout")
def test_gsm8k_lines_are_steps_and_the_last_is_the_answer() -> None:
    for line in GSM8K.read_text(encoding="utf-8").splitlines()[:500]:
        text = json.loads(line)["answer"]
        layout, steps, answer = segment(text)
        assert layout is Layout.GSM8K
        assert answer == text.rpartition("#### ")[2].strip()
        assert [step.role for step in steps] == ["reasoning"] * (len(steps) - 1) + ["answer"]
