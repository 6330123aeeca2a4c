r"""Mathematics as one reads it: ``54 \cdot 5`` is ``54 × 5``, ``\frac{1}{2}`` is ``1/2``. For sentences only."""

from __future__ import annotations

import re
from typing import Final

_SIGNS: Final = {
    "times": "\u00d7", "cdot": "\u00d7", "ast": "*", "div": "\u00f7", "approx": "\u2248", "sqrt": "\u221a",
    "pm": "\u00b1", "boxed": "", "text": "", "left": "", "right": "", "displaystyle": "", "quad": " ", "qquad": " ",
}  # fmt: skip
_SEPARATOR: Final = re.compile(r"\{,\}|\\,(?=[0-9])")
_SPACE: Final = re.compile(r"\\[,;:!()\[\] ]")
_DEGREES: Final = re.compile(r"\^\{?\\circ\}?")
_GROUP: Final = r"\s*(?:\{([^{}]*)\}|([0-9]))"
_FRACTION: Final = re.compile(rf"\\[dtc]?frac{_GROUP}{_GROUP}")
_TEXT: Final = re.compile(r"\\(?:boxed|fbox|text\w*|math\w+|mbox|emph)\s?\{([^{}]*)\}")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_COMMAND: Final = re.compile(r"\\([A-Za-z]+)")
_ATOM: Final = re.compile(r"[\w.,%]+")


def plain_math(text: str) -> str:
    """An expression on one line, without the commands of LaTeX; one that has none stays as it is written."""
    if "\\" in text or "{" in text:
        text = _DEGREES.sub("\u00b0", _SEPARATOR.sub(",", text)).rstrip().removesuffix("$")
        text = _within_braces(_SPACE.sub(" ", text))
        text = _COMMAND.sub(lambda found: _SIGNS.get(found[1], found[1]), text)
        text = re.sub(r"[{}\\]", "", text)
    return " ".join(text.split())


def _within_braces(text: str) -> str:
    """The text without its braces, the innermost first: fractions and powers keep what belongs together in brackets."""
    before = ""
    while before != text:
        before = text
        text = _TEXT.sub(r"\1", text)
        text = _FRACTION.sub(_divided, text)
        if text == before:
            text = _BRACES.sub(lambda found: _bracketed(found[1]), text, count=1)
    return text


def _divided(found: re.Match[str]) -> str:
    """A fraction in one line; behind another number it is apart from it, behind a division or a power in brackets."""
    top, below = (_bracketed(one) for one in (found[1] or found[2] or "", found[3] or found[4] or ""))
    before = found.string[: found.start()]
    if before.rstrip().endswith(("\\div", "\u00f7", "/", "^")):
        return f"({top}/{below})"
    return f"{' ' if before[-1:].isdigit() else ''}{top}/{below}"


def _bracketed(part: str) -> str:
    return part.strip() if _ATOM.fullmatch(part.strip()) else f"({part.strip()})"
