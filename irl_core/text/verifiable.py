"""Verifiable rewards of a completion's format, computed from its text alone. The format is

<think>
...
</think>
<answer>
...
</answer>
"""

from __future__ import annotations

import re

FORMAT_REWARD = 0.5
INTEGER_REWARD = 0.5
TAG_REWARD = 0.125
TRAILING_PENALTY = 0.001

_INTEGER = re.compile(r"[-−]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
_TAG_LINES = ("<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>")


def xml_count(completion: str) -> float:
    """``TAG_REWARD`` for each of the four tags that stands once and on its own line, at most 0.5.

    Less ``TRAILING_PENALTY`` for every character after the closing answer tag, where there is one.
    """
    reward = TAG_REWARD * sum(completion.count(line) == 1 for line in _TAG_LINES)
    if completion.count(_TAG_LINES[-1]) == 1:
        reward -= TRAILING_PENALTY * len(completion.partition(_TAG_LINES[-1])[2].strip("\n"))
    return reward


def strict_format(completion: str) -> float:
    """``FORMAT_REWARD`` where the completion is exactly the format, every tag once and on its own line, else 0."""
    text = completion.removesuffix("\n")
    once = all(text.count(tag.strip()) == 1 for tag in _TAG_LINES)
    framed = text.startswith("<think>\n") and text.endswith("\n</answer>")
    return FORMAT_REWARD if once and framed and "\n</think>\n<answer>\n" in text else 0.0


def soft_format(completion: str) -> float:
    """``FORMAT_REWARD`` where the completion starts with a think element followed by an answer element, else 0.

    Line breaks do not matter, and text may follow. Where the chat template opens ``<think>`` itself, the completion
    starts within it.
    """
    text = completion.lstrip()
    thought, closed, rest = text.removeprefix("<think>").partition("</think>")
    opens = bool(thought.strip() and closed) and "<think>" not in thought and "<answer>" not in thought
    answered = rest.lstrip().startswith("<answer>") and "</answer>" in rest
    return FORMAT_REWARD if opens and answered else 0.0


def integer_answer(answer: str | None) -> float:
    """``INTEGER_REWARD`` where the final answer is an integer and nothing else (``-12``, ``1,000``), else 0."""
    return INTEGER_REWARD if answer and _INTEGER.fullmatch(answer) else 0.0
