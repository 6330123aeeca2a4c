"""The think/answer layout of expert solutions for training, with the same steps and the same answer."""

from __future__ import annotations

import re

from irl_core.text.answers import answers_agree
from irl_core.text.segmentation import make_trace
from irl_core.text.verifiable import strict_format
from irl_core.types import Trace

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")


def as_think_answer(trace: Trace) -> Trace:
    """A trace rendered as ``<think>`` reasoning and ``<answer>``, a line a step, segmented anew, with the same ids.

    Closing lines ('#### 12') become the answer. Calculator annotations ``<<a*b=c>>`` are left out: they are GSM8K's
    notation, not text for a reader. The answer is the one that the trace states, else the reference.

    Raises:
        ValueError: the trace has no answer, no reasoning, or tags of its own that are in the way.
    """
    answer = trace.answer or trace.reference_answer
    if answer is None:
        raise ValueError("there is no final answer to put between <answer> tags")
    steps = list(trace.steps)
    while steps and steps[-1].role == "answer":
        steps.pop()
    kept = [step for step in steps if step.role == "reasoning" or "####" not in step.text]
    lines = [line for step in kept if (line := _ANNOTATION.sub("", step.text).strip())]
    if not lines:
        raise ValueError("there is no reasoning to put between <think> tags")
    reasoning = "\n".join(lines)
    text = f"<think>\n{reasoning}\n</think>\n<answer>\n{answer.strip()}\n</answer>"
    if text == trace.text:
        return trace
    made = make_trace(
        trace.problem,
        text,
        reference_answer=trace.reference_answer,
        source=trace.source,
        trace_id=trace.trace_id,
        problem_id=trace.problem_id,
        extra=trace.extra,
    )
    if not strict_format(text) or made.answer is None or not answers_agree(made.answer, answer):
        raise ValueError(f"think and answer tags do not hold its answer {answer[:40]!r}; does its text have tags?")
    return made
