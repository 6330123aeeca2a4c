r"""The lexer of arithmetic: numbers, signs, units and words of a text, with their spans.

Plain text, Markdown and LaTeX have the same tokens: ``\times`` and ``×`` are ``*``, ``1{,}200`` and ``1,200`` are one
number, ``24\text{ cm}^2`` is a number and its unit. The work is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 30  # characters of one number


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


SCALE_WORDS = {
    **{"dozen": 12, "dozens": 12, "score": 20, "hundred": 100, "hundreds": 100, "thousand": 1000, "thousands": 1000},
    **{"million": 10**6, "millions": 10**6, "billion": 10**9, "billions": 10**9, "trillion": 10**12},
    **{"lakh": 10**5, "crore": 10**7},
}
# Words of sets: in an expression '2 pairs' may be 4 or two pairs; as an answer it is two of them.
SET_WORDS = {
    **{"pair": 2, "pairs": 2, "couple": 2, "couples": 2, "twos": 2, "trio": 3, "trios": 3, "threes": 3, "fours": 4},
    **{"fives": 5, "sixes": 6, "sevens": 7, "eights": 8, "nines": 9, "tens": 10, "gross": 144},
}
# Words that calculate with what stands beside them: no expression that touches one has been read whole.
ARITHMETIC_WORDS = words(
    """times plus minus multiplied divided over squared cubed twice thrice double doubled triple tripled quadruple
    half halved root power mod modulo sum product difference quotient choose factorial log ln sin cos tan gcd
    lcm max abs sqrt floor ceil less"""
)
# Words that join parts of a sentence: none of them is a unit.
JOINING_WORDS = words(
    """so thus hence therefore then because since as if when while where which who that's is are was were be equals
    and or but from to by with into between than through"""
)

_GROUP = r"(?:,|\{,\}|\\,|[\u00a0\u2009\u202f'’_])"
NUMBER = (
    rf"(?:[0-9]{{1,3}}(?:{_GROUP}[0-9]{{3}})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+−]?[0-9]{{1,3}}(?!\w))?|\.[0-9]+"
)
_LEXEMES = re.compile(
    r"(?P<note><<[^<>\r\n]{1,200}>>)"
    r"|(?P<line>[\r\n]+|\\\\(?![A-Za-z])|\\newline\b)"
    r"|(?P<box>\\(?:boxed|fbox|text|textbf|textit|textrm|mathrm|mathbf|mbox|emph)\s?\{)"
    r"|(?P<fraction>\\[dtc]?frac(?![A-Za-z]))"
    r"|(?P<root>√|\\sqrt(?![A-Za-z\[]))"
    r"|(?P<ellipsis>\.{3}|…|\\[lc]?dots\b)"
    r"|(?P<skip>\\(?:left|right|[bB]igg?[lr]?|displaystyle|quad|qquad)(?![A-Za-z])|\\[,!;:()\[\] ]|&|\^\{?\\circ\}?"
    r"|(?<![0-9)])\*\*|\*\*(?![0-9(])|\\?[$€£¥₹]|¢|°[CF]?\b|°)"
    r"|(?P<vulgar>[¼½¾⅐-⅞])"
    rf"|(?P<number>{NUMBER})"
    r"|(?P<bad><=|>=|!=|=>|->|≠|<|>|⇒|→|∴|\\(?:implies|Rightarrow|Longrightarrow|to|rightarrow|therefore|item|leq?|geq?|neq?)\b)"
    r"|(?P<equals>=+|≈|≅|\\approx\b)"
    r"|(?P<percent>\\?%|percent\b)"
    r"|(?P<per>/[ ]?[A-Za-z]+)"
    r"|(?P<operator>\\(?:times|cdot|ast|div)(?![A-Za-z])|\*\*|[-+*/^×÷·∗⋅∙∕⁄−–‐‑‒﹣－]"
    r"|[xX](?=[ \t]?[\\$€£(]{0,3}[ \t]?\.?[0-9]))"
    r"|(?P<of>of\b)"
    r"|(?P<open>[({])|(?P<close>[)}])"
    r"|(?P<power>⁻?[⁰¹²³⁴-⁹]{1,2})"
    r"|(?P<word>[^\W\d_]+(?:['’‐-][^\W\d_]+)*)"
    r"|(?P<blank>[^\S\r\n]+)"
    r"|(?P<command>\\[A-Za-z]+)"
    r"|(?P<other>[\s\S])"
)
_OPERATORS = {
    **dict.fromkeys(("\\times", "×", "·", "∗", "x", "X", "\\cdot", "\\ast", "⋅", "∙"), "*"),
    **dict.fromkeys(("\\div", "÷", "∕", "⁄"), "/"),
    **dict.fromkeys("−–‐‑‒﹣－", "-"),
    "**": "^",
}
_GOES_ON = re.compile(r"(?:[.,:][0-9])+[0-9.,:]*")  # behind a number: 3,5 or 1.2.3 or 12:30 is no single number
_UNIT_POWER = re.compile(r"\^\{?[-−]?[1-9]\}?(?![0-9])|⁻?[¹²³]")
_DIGITS_ONLY = re.compile(r"[0-9]+")
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


@dataclass(frozen=True, slots=True)
class Token:
    """One lexeme of ``text[start:end]``; operators and numbers have one spelling for all that mean the same."""

    kind: str
    text: str
    start: int
    end: int
    spaced: bool  # a blank, or nothing, stands before it
    first: bool  # first of its line

    @property
    def vulgar(self) -> bool:
        """Whether it is a fraction of one character: ½."""
        return self.kind == "number" and not self.text[0].isascii()

    @property
    def value(self) -> Fraction:
        """The value of a number or of a raised exponent."""
        if self.kind == "power":
            return Fraction(self.text.translate(_SUPERSCRIPTS))
        return number_value(self.text)


def number_value(text: str) -> Fraction:
    """The value of a number as the lexer takes it: ``1,200``, ``1{,}200``, ``.5``, ``1e3``, ``½``."""
    if not text[0].isascii():
        return Fraction(unicodedata.numeric(text)).limit_denominator(10)
    return Fraction(re.sub(rf"{_GROUP}(?=[0-9])", "", text).replace("−", "-"))


def is_whole_number(text: str) -> bool:
    """Whether a number is written with digits alone."""
    return bool(_DIGITS_ONLY.fullmatch(text))


def is_unit(token: Token, before: Token) -> bool:
    """Whether a word can be the unit of the number before it: not the variable of 2y, nor a word that calculates."""
    if token.kind == "per":
        return token.text[-2] not in "/ "
    if token.kind != "word" or token.text.lower() in ARITHMETIC_WORDS or token.text.lower() in JOINING_WORDS:
        return False
    return len(token.text) > 1 and (token.spaced or before.kind != "word")


def tokenise(text: str, start: int, end: int, bullets: bool = True) -> list[Token]:
    """The tokens of ``text[start:end]`` that matter; ``bullets`` drops a sign that starts a line as in a list."""
    tokens: list[Token] = []
    groups: list[tuple[bool, int]] = []  # of each open brace: whether it is a token, arguments wanted after it
    spaced, first, wanted, position = True, True, 0, start
    while position < end:
        match = _LEXEMES.match(text, position, end)
        if match is None:
            break
        kind, stop = match.lastgroup or "other", match.end()
        lexeme = match[0]
        if kind in ("note", "skip", "blank"):
            spaced, position = spaced or kind != "skip", stop
            continue
        if kind == "box" or (lexeme == "}" and groups and not groups[-1][0]):
            if kind == "box":
                groups.append((False, wanted))
            else:
                wanted = groups.pop()[1]
            position = stop
            continue
        if tokens and not spaced and tokens[-1].kind in ("word", "per"):
            power = _UNIT_POWER.match(text, position, end)
            if power:  # cm^2: the power is the unit's
                last = tokens.pop()
                tokens.append(Token(last.kind, last.text, last.start, power.end(), last.spaced, last.first))
                position = power.end()
                continue
        if kind == "number" and wanted:  # \frac12 is a half
            stop = position + 1 if lexeme[0].isdecimal() else stop
            wanted -= 1
        elif kind in ("number", "vulgar"):
            more = _GOES_ON.match(text, stop, end)
            kind, stop = ("other", more.end()) if more else ("number", stop)
            kind = "other" if stop - position > MAX_DIGITS else kind
        elif kind == "fraction":
            wanted = 2
        elif lexeme == "{":
            groups.append((True, max(0, wanted - 1)))
            wanted = 0
        elif lexeme == "}" and groups:
            wanted = groups.pop()[1]
        elif kind == "operator" and bullets and first and text[stop : stop + 1].isspace():
            position, spaced = stop, True
            continue
        else:
            wanted = 0
        lexeme = text[position:stop]
        meaning = _OPERATORS.get(lexeme, lexeme) if kind == "operator" else lexeme
        tokens.append(Token(kind, meaning, position, stop, spaced, first or kind == "line"))
        spaced = first = kind == "line"
        position = stop
    return tokens
