"""Text of unknown origin for a terminal: control characters as visible signs, which move and colour nothing."""

from __future__ import annotations

import unicodedata

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # Unicode categories that are not drawn as they are


def visible(text: str) -> str:
    """``text`` with control and format characters as signs: ␀, ␛, and ⟨U+202E⟩; line ends stay line ends."""
    signs = []
    for character in text:
        if character == "\n" or unicodedata.category(character) not in HIDDEN:
            signs.append(character)
        elif ord(character) < 0x20:
            signs.append(chr(0x2400 + ord(character)))
        else:
            signs.append("␡" if character == "\x7f" else f"⟨U+{ord(character):04X}⟩")
    return "".join(signs)
