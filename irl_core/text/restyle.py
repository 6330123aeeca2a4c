"""The same solution written in another style: marks of steps, operators, connectives, restated facts, the closing line.

Demonstrations of one author have one style, and a reward that has seen no other learns the style. A restyled solution
has the values and the order of the original's steps; only its writing is another.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from irl_core.text.segmentation import segment, sentence_spans
from irl_core.text.tokens import words
from irl_core.types import Layout

ANNOTATIONS = re.compile(r"<<[^<>\r\n]{1,200}>>")
# An operator between two operands. A hyphen needs blanks or an equals sign behind: 10-12 may be a range.
_OPERATOR = re.compile(r"(?<=[0-9)%])( ?)([-+*/])( ?)(?=[$(]?\.?[0-9(])")
_CONNECTIVES = ("So, ", "Then, ", "Next, ", "Therefore, ", "Now, ", "This means that ")
_LOWERED = words("The She He They It In His Her Their There This That A An If We Each After To For")
_CLOSINGS = (
    *2 * ("#### {answer}", "#### {answer}\nThe answer is: {answer}"),
    "The answer is {answer}.", "A: {answer}", "Answer: {answer}", "Therefore, the answer is {answer}.",
)  # fmt: skip
_TIMES = (" × ", " x ", " * ", "*", " \\times ")
_MARKS = ("", "", "", "Step {n}: ", "{n}. ")
KEPT = 0.25  # of the demonstrations stay as they are written
_JOINS = ("\n", "\n", "\n", "\n", "\n\n", " ")


def restyled(problem: str, solution: str, rng: random.Random) -> str:
    """A solution in a style that ``rng`` draws; itself where it has no final answer or is laid out by tags.

    Args:
        problem: whose statements may be restated before the steps that need them.
        solution: a demonstration, a step a line.
        rng: fixes the style.
    """
    layout, steps, answer = segment(solution)
    if answer is None or layout is Layout.THINK_ANSWER or rng.random() < KEPT:
        return solution
    lines = [step.text for step in steps if step.role == "reasoning"]
    if not lines:
        return solution
    times, spaced = rng.choice(_TIMES), rng.random() < 0.7
    if rng.random() < 0.8:
        lines = [ANNOTATIONS.sub("", line) for line in lines]
    lines = [with_operators(line, times, spaced) for line in lines]
    if rng.random() < 0.4:
        lines = with_restated_facts(problem, lines, rng)
    if rng.random() < 0.5:
        lines = [with_connective(line, rng) if number else line for number, line in enumerate(lines)]
    mark, join = rng.choice(_MARKS), rng.choice(_JOINS)
    if join == " ":
        mark = ""
        lines = [line if line[-1:] in ".!?" else line + "." for line in lines]
    closing = rng.choice(_CLOSINGS).format(answer=answer)
    body = join.join(mark.format(n=number) + line for number, line in enumerate(lines, 1))
    return body + ("\n" if join == " " else join) + closing


def with_operators(line: str, times: str, spaced: bool) -> str:
    """A line with its products written as ``times``, and blanks around its other operators or none."""

    def written(match: re.Match[str]) -> str:
        before, sign, after = match.groups()
        if sign == "*":
            return times
        if sign == "-" and not (before and after):
            return match.group()
        return f" {sign} " if spaced else match.group()

    parts = re.split(f"({ANNOTATIONS.pattern})", line)  # the calculator's notes keep their spelling
    return "".join(part if part.startswith("<<") else _OPERATOR.sub(written, part) for part in parts)


def with_connective(line: str, rng: random.Random) -> str:
    """A line that begins with a connective, or as it is."""
    first = line.split(" ", 1)[0]
    if rng.random() < 0.5 or not first.isalpha() or first.rstrip(",") in ("So", "Then", "Next", "Therefore", "Now"):
        return line
    return rng.choice(_CONNECTIVES) + (line[0].lower() + line[1:] if first in _LOWERED else line)


def with_restated_facts(problem: str, lines: Sequence[str], rng: random.Random) -> list[str]:
    """The lines, with some facts of the problem (sentences with a number) restated before the first that needs each."""
    sentences = [problem[start:end] for start, end in sentence_spans(problem, 0, len(problem))]
    facts = [one for one in sentences if re.search(r"[0-9]", one) and not one.endswith("?")]
    chosen = [fact for fact in facts if rng.random() < 0.5]
    result: list[str] = []
    for line in lines:
        here = set(re.findall(r"[0-9]+", line))
        for fact in [fact for fact in chosen if here & set(re.findall(r"[0-9]+", fact))]:
            chosen.remove(fact)
            result.append(fact)
        result.append(line)
    return result
