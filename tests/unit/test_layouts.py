"""Expert solutions written as think and answer: golden texts, and every row of GSM8K."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from irl_core.data.gsm8k import gsm8k
from irl_core.text.answers import answers_agree
from irl_core.text.segmentation import make_trace
from irl_core.text.think_answer import as_think_answer
from irl_core.text.verifiable import integer_answer, soft_format, strict_format, xml_count
from irl_core.types import Layout, Source, Trace

PROBLEM = "Mira packs 3 crates of 12 pears and gives 6 pears away. How many pears are left?"
EXPERT = "She packs 3*12=<<3*12=36>>36 pears.\nThen 36-6=<<36-6=30>>30 are left.\n#### 30"
RENDERED = "<think>\nShe packs 3*12=36 pears.\nThen 36-6=30 are left.\n</think>\n<answer>\n30\n</answer>"


def expert(text: str, **known: Any) -> Trace:
    return make_trace(PROBLEM, text, source=Source.EXPERT, trace_id="t", problem_id="p", **known)


def test_gsm8k_loses_its_annotations_and_its_last_line() -> None:
    trace = as_think_answer(expert(EXPERT, reference_answer="30", extra={"a": "b"}))
    assert trace.text == RENDERED
    assert (trace.layout, trace.answer, trace.correct) == (Layout.THINK_ANSWER, "30", True)
    assert [(step.text, step.role) for step in trace.steps] == [
        ("She packs 3*12=36 pears.", "reasoning"),
        ("Then 36-6=30 are left.", "reasoning"),
        ("30", "answer"),
    ]
    assert (trace.source, trace.trace_id, trace.problem_id, trace.extra) == (Source.EXPERT, "t", "p", {"a": "b"})


def test_what_is_in_the_layout_stays_as_it_is_and_what_is_nearly_is_made_so() -> None:
    done = expert(RENDERED)
    assert as_think_answer(done) is done
    nearly = expert("<think>She packs 3*12=36 pears.\nThen 36-6=30 are left.</think> <answer>30</answer>")
    assert as_think_answer(nearly).text == RENDERED
    untagged = expert("<think>\nShe packs 3*12=36 pears.\nThen 36-6=30 are left.\n</think>\n30")
    assert as_think_answer(untagged).text == RENDERED


@pytest.mark.parametrize(
    ("text", "reference", "rendered"),
    [
        ("It is 5 + 1 = 6. The answer is 6.", None, "It is 5 + 1 = 6."),
        ("It is 5 + 1 = 6.\n\n  So they have 6.", "6", "It is 5 + 1 = 6.\nSo they have 6."),  # the row has the answer
        ("The answer is 5.\nNo: 5 + 1 = 6.\n#### 6", None, "The answer is 5.\nNo: 5 + 1 = 6."),
        ("<<5+1=6>>\nIt is 6.\n#### 6", None, "It is 6."),  # nothing is left of the first line
    ],
)
def test_other_layouts(text: str, reference: str | None, rendered: str) -> None:
    trace = as_think_answer(expert(text, reference_answer=reference))
    assert trace.text == f"<think>\n{rendered}\n</think>\n<answer>\n6\n</answer>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("No idea", "no final answer"),
        ("#### 6", "no reasoning"),
        ("<<5+1=6>>\n#### 6", "no reasoning"),
        ("The tag <think> is odd.\nIt is 6.\n#### 6", "does its text have tags"),
    ],
)
def test_what_cannot_be_rendered_says_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_think_answer(expert(text))


# 'The answer is <<8=8>>8.' is a line of reasoning with its annotation, and a closing line without.
OTHER_STEPS = {"train": 2, "test": 0}
# 'The answer is therefore 3.' before '#### 3': two closing lines become one answer.
ANSWERED_TWICE = {"train": [5415], "test": []}


@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 1319)])
def test_every_row_of_gsm8k_keeps_its_steps_and_its_answer(shared: Path, split: Any, rows: int) -> None:
    traces = [row for row in gsm8k(split, shared / "data" / "gsm8k") if isinstance(row, Trace)]
    made = [as_think_answer(trace) for trace in traces]
    assert len(made) == rows
    for before, after in zip(traces, made, strict=True):
        assert after.layout is Layout.THINK_ANSWER and after.correct and "<<" not in after.text
        assert answers_agree(after.answer or "", before.text.rpartition("####")[2]), after.trace_id
        assert after.answer == before.answer == after.steps[-1].text
    changed = [i for i in range(rows) if len(made[i].steps) != len(traces[i].steps)]
    reworded = [i for i in range(rows) if roles(made[i]) != roles(traces[i])]
    assert changed == ANSWERED_TWICE[split] and len(reworded) == OTHER_STEPS[split]
    for one in made:
        assert strict_format(one.text) == soft_format(one.text) == xml_count(one.text) == 0.5
        assert integer_answer(one.answer) == 0.5


def roles(trace: Trace) -> list[str]:
    return [step.role for step in trace.steps]
