"""Rewards that need no model: is the answer right, and does the completion keep to the think/answer format.

They are the usual reward functions of GRPO on GSM8K, list in and list out: one float a completion. The format is

    <think>
    ...
    </think>
    <answer>
    ...
    </answer>
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from irl_core.text.answers import answers_agree
from irl_core.text.segmentation import segment

CORRECT_REWARD = 2.0
FORMAT_REWARD = 0.5
INTEGER_REWARD = 0.5
TAG_REWARD = 0.125
TRAILING_PENALTY = 0.001

_INTEGER = re.compile(r"[-−]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
_TAG_LINES = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


def correctness(completions: Sequence[str], references: Sequence[str]) -> list[float]:
    """``CORRECT_REWARD`` where the final answer agrees with the reference (1,000 = 1000.0), else 0.

    Raises ValueError where the two lists differ in length.
    """
    if len(completions) != len(references):
        raise ValueError(f"{len(completions)} completions with {len(references)} references; give one a completion")
    answers = [segment(completion)[2] for completion in completions]
    pairs = zip(answers, references, strict=True)
    return [CORRECT_REWARD if answer and answers_agree(answer, reference) else 0.0 for answer, reference in pairs]


def xml_count(completions: Sequence[str]) -> list[float]:
    """``TAG_REWARD`` for each of the four tags that stands once and on its own line, at most 0.5.

    Less ``TRAILING_PENALTY`` for every character after the closing answer tag, where there is one.
    """
    return [_tag_score(completion) for completion in completions]


def _tag_score(completion: str) -> float:
    score = TAG_REWARD * sum(completion.count(line) == 1 for line in _TAG_LINES)
    if completion.count(_TAG_LINES[-1]) == 1:
        score -= TRAILING_PENALTY * len(completion.partition(_TAG_LINES[-1])[2].strip("\n"))
    return score


def strict_format(completions: Sequence[str]) -> list[float]:
    """``FORMAT_REWARD`` where the completion is exactly the format, every tag once and on its own line, else 0."""
    return [FORMAT_REWARD if _is_strict(completion) else 0.0 for completion in completions]


def _is_strict(completion: str) -> bool:
    text = completion.removesuffix("\n")
    once = all(text.count(tag.strip()) == 1 for tag in _TAG_LINES)
    between = text.find("\n</think>\n<answer>\n")
    framed = text.startswith("<think>\n") and text.endswith("\n</answer>")
    return once and framed and between > 0


def soft_format(completions: Sequence[str]) -> list[float]:
    """``FORMAT_REWARD`` where the completion starts with a think element followed by an answer element, else 0.

    Line breaks do not matter, and text may follow. Where the chat template opens ``<think>`` itself, the completion
    starts within it.
    """
    return [FORMAT_REWARD if _is_soft(completion) else 0.0 for completion in completions]


def _is_soft(completion: str) -> bool:
    """Whether think and answer elements stand at the start; a template may have opened the first one itself."""
    text = completion.lstrip()
    thought, closed, rest = text.removeprefix("<think>").partition("</think>")
    answered = rest.lstrip().startswith("<answer>") and "</answer>" in rest
    return bool(thought.strip() and closed) and "<think>" not in thought and "<answer>" not in thought and answered


def integer_answer(completions: Sequence[str]) -> list[float]:
    """``INTEGER_REWARD`` where the final answer is an integer and nothing else (``-12``, ``1,000``), else 0."""
    return [INTEGER_REWARD if is_integer(segment(completion)[2]) else 0.0 for completion in completions]


def is_integer(answer: str | None) -> bool:
    """Whether a final answer is an integer and nothing else; there is none in None."""
    return bool(answer and _INTEGER.fullmatch(answer))
