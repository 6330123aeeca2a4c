"""The numbers that a solution gives its own steps: 'Step 0', '2.', '③'. What is stored counts steps by position."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from irl_core.types import Step

_WORDS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_NUMBERED: Final = re.compile(
    r"^[#*_>\-\t ]{0,12}(?:"
    rf"(?:step|[ée]tape|schritt|paso|passo|шаг)[ \t]{{0,4}}#?([0-9]{{1,4}}|{'|'.join(_WORDS)})(?!\w|\.[0-9])"
    r"|\(?([0-9]{1,3})[.):](?=[ \t*]|[^\W\d])"
    r"|([0-9]{1,2})\ufe0f?\u20e3|([\u2460-\u2473])|第([0-9]{1,3})步)",
    re.IGNORECASE | re.MULTILINE,
)


def count_steps(roles: Iterable[str | None]) -> int:
    """How many steps a solution has, by the roles of what is stored as its steps: a closing line is none."""
    return sum(role != "answer" for role in roles)


def step_numbers(steps: Sequence[Step]) -> tuple[int, ...]:
    """The number that each step is called by: the text's own where every step of the reasoning begins with one and they
    rise, else its position from 1. What announces the first step ('Here is how:') may stand before its number. A
    closing line keeps its position."""
    places = tuple(range(1, len(steps) + 1))
    reasoning = [place for place in places if steps[place - 1].role != "answer"]
    own = [_number_of(steps[place - 1].text, first=place == reasoning[0]) for place in reasoning]
    numbers = [number for number in own if number is not None]
    if not 1 < len(numbers) == len(own) or any(one >= other for one, other in pairwise(numbers)):
        return places
    named = dict(zip(reasoning, numbers, strict=True))
    return tuple(named.get(place, place) for place in places)


def shows_number(steps: Sequence[Step], index: int) -> bool:
    """Whether the text of a step shows the number that the step is called by, so that nobody needs to add it."""
    first = next((place for place, step in enumerate(steps) if step.role != "answer"), None)
    is_reasoning = steps[index].role != "answer"
    return is_reasoning and _number_of(steps[index].text, first=index == first) == step_numbers(steps)[index]


def _number_of(text: str, *, first: bool) -> int | None:
    """The number that a step begins with; of the ``first`` one, that of the first line of it that begins with one."""
    found = _NUMBERED.search(text) if first else _NUMBERED.match(text)
    said = next(filter(None, found.groups()), "").lower() if found else ""
    if not said:
        return None
    return _WORDS.index(said) if said in _WORDS else int(said) if said.isascii() else int(unicodedata.numeric(said))
