"""Text of others on its way into streamlit elements that read Markdown."""

from __future__ import annotations

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~&])")


def plain(text: str) -> str:
    """``text`` with every character escaped that Markdown, directives or formulas give a meaning to."""
    return _SPECIAL.sub(r"\\\1", text)
