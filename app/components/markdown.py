"""Texts for Streamlit elements that read Markdown: foreign ones escaped, counts with their nouns."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&])")
_ADDRESS = re.compile(r"(?<=\w:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)


def plain(text: str) -> str:
    """``text`` with every character escaped that Markdown, directives or formulas give a meaning to.

    An address would become a link all the same: it is broken by a word joiner, which is not seen."""
    return _SPECIAL.sub(r"\\\1", _ADDRESS.sub("\u2060", text))


def counted(number: int, noun: str) -> str:
    """A number with its noun: '1 trace', '1,200 traces'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
