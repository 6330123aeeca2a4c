"""Where a solution differs from another one, word by word. Knows no streamlit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final, Literal

MOST_WORDS: Final = 3000
_WORDS: Final = re.compile(r"\n|[^\S\n]+|\d[\d,.]*\d|\w+|.", re.DOTALL)
Side = Literal["both", "here", "other"]


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of text that stands in both solutions, in the one that is looked at (``here``), or in the other."""

    side: Side
    text: str


def differences(here: str, other: str) -> list[Part] | None:
    """The two texts as one, in parts; None where they are too long to be compared."""
    first, second = _WORDS.findall(here), _WORDS.findall(other)
    if len(first) + len(second) > MOST_WORDS:
        return None
    parts: list[Part] = []
    for kind, a, b, c, d in SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        sides: tuple[tuple[Side, list[str]], ...] = (("here", first[a:b]), ("other", second[c:d]))
        if kind == "equal":
            sides = (("both", first[a:b]),)
        parts += [Part(side, "".join(words)) for side, words in sides if words]
    return parts
