"""Where a solution leaves the expert's way: the first equation, or the final answer, that the expert does not have.

Words differ between good solutions; what is worked out differs less. Comparing equations rather than tokens lets a
sampled trace count as the expert's for as long as it computes what the expert computes, however it is phrased. No
label of correctness is used, only the demonstration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from irl_core.text.answers import answers_agree
from irl_core.text.equations import Equation, read_equations
from irl_core.text.segmentation import segment
from irl_core.types import Span

_TWO_OPERANDS = re.compile(r"([\d.,]+)([+*])([\d.,]+)=(.*)", re.DOTALL)


def departure(expert: str, text: str) -> int | None:
    """Character of ``text`` at which it departs from the ``expert`` solution; None where it never does.

    Within the first equation that the expert lacks, the departure is where it stops agreeing with the expert's next
    equation that has not occurred yet. Sums and products match in either order. A text without the expert's final
    answer departs at its end.
    """
    wanted = {_form(equation.text): equation.text for equation in read_equations(expert)}
    waiting = dict(wanted)
    for equation in read_equations(text):
        form = _form(equation.text)
        if form not in wanted:
            return equation.start + _agreement(equation, waiting.values())
        waiting.pop(form, None)
    return _answer_departure(expert, text)


def _form(equation: str) -> str:
    """The equation without blanks and signs of currency, commutative operands in order."""
    plain = re.sub(r"[\s$<>]", "", equation).replace("×", "*").replace("x", "*").replace("÷", "/").replace("−", "-")
    match = _TWO_OPERANDS.fullmatch(plain)
    if not match:
        return plain
    first, last = sorted((match[1], match[3]))
    return f"{first}{match[2]}{last}={match[4]}"


def _agreement(equation: Equation, waiting: Iterable[str]) -> int:
    following = next(iter(waiting), "")
    return min(first_difference(equation.text, following), equation.end - equation.start - 1)


def _answer_departure(expert: str, text: str) -> int | None:
    (_, _, right), (_, steps, answer) = segment(expert), segment(text)
    if right is None or (answer is not None and answers_agree(answer, right)):
        return None
    if answer is None:
        return len(text)
    at = text.rfind(answer)
    return at + first_difference(answer, right) if at >= 0 else steps[-1].start


def first_difference(first: Sequence[object], second: Sequence[object]) -> int:
    """Index of the first place where two sequences differ; the shorter one's length where it begins the other."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def departed_token(spans: Iterable[Span], character: int | None) -> int:
    """Index of the first token that reaches past ``character``; the number of tokens where there is no departure."""
    index = -1
    for index, (_, end) in enumerate(spans):
        if character is not None and end > character:
            return index
    return index if character is not None and index >= 0 else index + 1
