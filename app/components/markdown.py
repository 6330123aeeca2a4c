"""Escaping of foreign text for Streamlit elements that read Markdown."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&])")
_ADDRESS = re.compile(r"(?<=\w:)(?=//)|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)


def plain(text: str) -> str:
    """``text`` with every character escaped that Markdown, directives or formulas give a meaning to.

    An address would become a link all the same: it is broken by a word joiner, which is not seen."""
    return _SPECIAL.sub(r"\\\1", _ADDRESS.sub("\u2060", text))
