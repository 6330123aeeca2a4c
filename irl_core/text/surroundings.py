"""The text around an equation: whether everything that belongs to it has been read.

'twice 5 + 3 = 13' and '17 / 5 = 3 remainder 2' are true, and a reader who takes '5 + 3 = 13' and '17 / 5 = 3' out of
them finds them false. An equation is called false only where nothing of the kind is beside it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction

from irl_core.text.expressions import read_number
from irl_core.text.tokens import ARITHMETIC_WORDS, SCALE_WORDS, Token, words

LOOK_BACK = 8  # tokens
LOOK_AHEAD = 100  # characters

_CLAUSE_STARTS = words(
    """so thus hence therefore then because since as if when while where which who that's is are was were be equals
    gets get got has have had makes make made means gives give paid pays pay costs cost spends spent earns
    earned"""
)
_JOINERS = words("and from to by with into between than or through")
_SCALING = words(
    """twice double doubled triple tripled thrice half third thirds quarter quarters fourth fifth times product
    quotient difference squared cubed square root plus minus multiplied divided multiply divide subtract add
    adding"""
)
_BEFORE = ARITHMETIC_WORDS | _SCALING | words("than negative about percent percentage")
_AFTER = (ARITHMETIC_WORDS - {"double", "half", "max", "min", "root", "square", "less"}) | words(
    "remainder r rem mod point or to through"
)
NUMBER_WORDS = words(
    """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""
)
_LABELS = re.compile(
    r"(?:week|day|month|year|hour|page|item|figure|example|player|chapter|grade|step|question|problem|level"
    r"|lesson|round|game|period|section|part|unit|class|floor|number|no|team|group|room|test|exercise|phase|equation|eq|case|option|line|row|age)s?",
    re.IGNORECASE,
)
_RATES = words("each every per a an one this that the next last first another")
_REMAINDER = re.compile(
    r"\b(?:remainder|remaining|remains?|left[ -]?over|leftovers?|mod(?:ulo)?|complete|full|whole|entire)\b|\bR ?[0-9]",
    re.IGNORECASE,
)
_APPROXIMATE = re.compile(
    r"\b(?:approx\w*|round\w*|about|nearly|roughly|estimat\w*|almost|around)\b|[~≈]", re.IGNORECASE
)

Factor = tuple[str, Fraction]
_FAMILIES: dict[str, dict[str, str]] = {
    "length": {"1": "inch inches in", "12": "foot feet ft", "36": "yard yards yd yds", "63360": "mile miles"},
    "metric length": {"1": "mm millimeters", "10": "cm centimeter centimeters", "1000": "m meter meters metre metres",
                      "1000000": "km kilometer kilometers kilometre kilometres"},
    "weight": {"1": "ounce ounces oz", "16": "pound pounds lb lbs", "32000": "ton tons"},
    "metric weight": {"1": "mg milligram milligrams", "1000": "g gram grams", "1000000": "kg kilogram kilograms kilos"},
    "time": {"1": "second seconds sec secs", "60": "minute minutes min mins", "3600": "hour hours hr hrs",
             "86400": "day days", "604800": "week weeks"},
    "months": {"1": "month months", "12": "year years"},
    "money": {"1": "cent cents penny pennies", "5": "nickel nickels", "10": "dime dimes", "25": "quarter quarters",
              "100": "dollar dollars"},
    "volume": {"1": "cup cups", "2": "pint pints", "4": "quart quarts", "16": "gallon gallons"},
    "metric volume": {"1": "ml milliliter milliliters", "1000": "l liter liters litre litres"},
    "count": {"1": "piece pieces item items egg eggs", "12": "dozen dozens"},
}  # fmt: skip
UNITS: dict[str, Factor] = {
    word: (family, Fraction(factor))
    for family, units in _FAMILIES.items()
    for factor, words in units.items()
    for word in words.split()
}


# ---------------------------------------------------------------- before


def unread_before(tokens: Sequence[Token], first: int) -> bool:
    """Whether something before ``tokens[first]``, where an expression starts, belongs to it and was not read."""
    token = tokens[first]
    if token.kind == "number" and re.match("0[0-9]", token.text):  # a time or a code: 0900
        return True
    if token.first or first == 0:
        return False
    near = tokens[first - 1]
    if near.kind in ("number", "percent", "power", "ellipsis", "command", "root", "fraction"):
        return True
    if near.kind == "operator":
        return True
    if near.kind == "close":
        return _numeric_group(tokens, first - 1)
    if near.kind == "other":
        return _unread_mark(tokens, first)
    if near.kind in ("word", "of", "per"):
        return _unread_words(tokens, first)
    return False


def _numeric_group(tokens: Sequence[Token], close: int) -> bool:
    """Whether the parenthesis that closes here holds arithmetic, and not words or the number of a list."""
    low = close - 1
    while low > 0 and tokens[low].kind not in ("open", "line") and close - low < LOOK_BACK:
        low -= 1
    inside = tokens[low + 1 : close]
    if not inside or any(token.kind in ("word", "other") for token in inside):
        return False
    return not (len(inside) == 1 and tokens[low].first)


def _unread_mark(tokens: Sequence[Token], first: int) -> bool:
    """Whether a mark before an expression is a sign that is not known, or splits a number, a ratio or a pair."""
    near, token = tokens[first - 1], tokens[first]
    before = tokens[first - 2] if first > 1 and not near.first else None
    last = near.text[-1]
    if last not in "|$`~" and (unicodedata.category(last) in ("Sm", "No", "Lm", "Nl", "Sk") or last.isalnum()):
        return True
    if before is None:
        return near.text in "!^"
    if near.text == ":" and before.kind in ("number", "close"):
        label = first > 2 and not before.first and tokens[first - 3].kind == "word"
        return near.spaced or not token.spaced or not (before.first or label)
    if near.text == "," and before.kind == "number" and not near.spaced and token.kind == "number":
        return len(token.text) == 3 and len(before.text) <= 3 and token.text.isdecimal()
    if near.text == "." and before.kind == "operator":
        return True
    return not token.spaced and not near.spaced and before.kind in ("number", "word") and near.text in "'’′″!@|_~^/"


def _unread_words(tokens: Sequence[Token], first: int) -> bool:
    """Whether the words before an expression calculate with it, or continue an expression that began before them."""
    token, near = tokens[first], tokens[first - 1]
    if near.kind == "of":
        return not (first > 1 and tokens[first - 2].text.lower() in ("total", "sum", "cost", "price", "amount"))
    if near.kind == "per":
        return not token.spaced
    if len(near.text) == 1 and near.text not in "aAI" and first > 1 and tokens[first - 2].kind == "number":
        return True
    if near.text.lower() in _BEFORE or near.text.lower() in SCALE_WORDS or near.text.lower() in NUMBER_WORDS:
        return True
    if _LABELS.fullmatch(near.text) and token.kind == "number" and token.text.isdecimal():
        earlier = tokens[first - 2] if first > 1 and not near.first else None
        if not (earlier and earlier.text.lower() in _RATES):
            return True
    index = first - 1
    while index >= 0 and first - index <= LOOK_BACK and tokens[index].kind in ("word", "of", "per"):
        word = tokens[index].text.lower()
        if word in _CLAUSE_STARTS:
            return False
        if word in _SCALING and first - index <= 3:
            return True
        if tokens[index].first:
            return False
        index -= 1
    return index >= 0 and continues(tokens, index, first)


def continues(tokens: Sequence[Token], index: int, first: int) -> bool:
    """Whether the token before the words before an expression shows that it began earlier: '25 + his 1 + 1'."""
    token, near = tokens[index], tokens[first - 1]
    if token.kind == "operator":
        hyphen = not token.spaced and not tokens[index + 1].spaced
        return not hyphen
    if token.kind not in ("number", "percent", "close"):
        return False
    if index and tokens[index - 1].kind == "equals":  # the result of an equation before: '5 + 5 = 10 and 3 + 4 = 7'
        return False
    if near.text.lower() in _JOINERS:
        return True
    unit = UNITS.get(near.text.lower())
    if (
        index == first - 2
        and unit
        and any(
            token.kind == "word" and UNITS.get(token.text.lower(), ("",))[0] == unit[0]
            for token in tokens[first : first + 3]
        )
    ):
        return True
    return index > 0 and not token.first and tokens[index - 1].kind == "operator"


# ---------------------------------------------------------------- after


def unread_after(tokens: Sequence[Token], after: int, text: str) -> bool:
    """Whether something from ``tokens[after]`` on, behind the right side, belongs to it and was not read."""
    rest: list[Token] = []
    for token in tokens[after : after + LOOK_BACK]:
        if token.kind == "line":
            break
        rest.append(token)
    if not rest:
        return False
    near = rest[0]
    following = rest[1] if len(rest) > 1 else None
    if near.kind == "open" and following is not None and following.text.lower() in ("mod", "base", "in"):
        return True
    if near.kind in ("number", "ellipsis", "power", "operator", "root", "fraction", "open"):
        return near.kind != "open" or not near.spaced or (following is not None and following.kind == "number")
    if near.kind == "command":
        return near.text not in ("\\end",)
    if near.kind == "other":
        attached = not near.spaced and following is not None and not following.spaced
        unknown = unicodedata.category(near.text[-1]) in ("Sm", "No", "Lm", "Nd", "Nl") and near.text not in "|~"
        return (
            unknown
            or (not near.spaced and near.text == "!")
            or (attached and near.text in ".,:'’′″/_^" and following is not None and following.kind == "number")
        )
    if near.kind == "of":
        return following is not None and following.kind in ("number", "other")
    return near.kind in ("word", "per") and _unread_words_after(rest)


def _unread_words_after(rest: Sequence[Token]) -> bool:
    near, following = rest[0], rest[1] if len(rest) > 1 else None
    word = near.text.lower()
    if word == "r" or (near.kind == "word" and len(word) == 1 and not near.spaced):
        return True
    if near.kind == "per":
        return len(near.text.lstrip("/ ")) == 1
    if word in _AFTER:
        return True
    if word == "and":
        return _mixed_tail(rest[1:])
    if following is None or following.kind == "operator":
        return following is not None and following.text in "+*/^"
    joined = following.text.lower() in ("and", ",") and len(rest) > 2
    second = rest[2] if joined else following
    families = [UNITS.get(token.text.lower(), ("",))[0] for token in (near, *rest[2 + joined : 3 + joined])]
    return second.kind == "number" and len(families) == 2 and "" != families[0] == families[1]


def _mixed_tail(rest: Sequence[Token]) -> bool:
    """Whether 'and' is followed by the fraction of a mixed number: 'and (2/3)', 'and a half'."""
    shape = [token.kind for token in rest[:6] if token.kind not in ("open", "close")]
    if rest and rest[0].vulgar:
        return True
    if shape[:1] == ["fraction"] or (shape[:3] == ["number", "operator", "number"] and "equals" not in shape[3:4]):
        return True
    words = " ".join(token.text.lower() for token in rest[:3])
    return bool(
        re.match(r"(?:an? |one |two |three |1 |2 |3 )?(?:half|halves|thirds?|quarters?|fourths?|fifths?)\b", words)
    )


# ---------------------------------------------------------------- roundings and units


def has_remainder(text: str, end: int) -> bool:
    """Whether the rest of the line speaks of a remainder or of whole ones, behind a quotient."""
    return bool(_REMAINDER.search(_rest_of_line(text, end)))


def is_approximate(text: str, start: int, end: int) -> bool:
    """Whether the words around an equation say that its numbers are rounded."""
    return bool(_APPROXIMATE.search(_rest_of_line(text, end)) or _APPROXIMATE.search(text, max(0, start - 40), start))


def _rest_of_line(text: str, end: int) -> str:
    return text[end : end + LOOK_AHEAD].splitlines()[0] if text[end : end + 1] not in ("", "\n", "\r") else ""


def converted(left: Sequence[Token], right: Sequence[Token]) -> bool | None:
    """Whether '4 pounds - 6 ounces = 58 ounces' holds once the units are converted; None where it is no such sum.

    Only sums of numbers that each have a unit, of one family and at least two of them, are converted.
    """
    terms = terms_with_units(left)
    stated = terms_with_units(right)
    if terms is None or not stated or len(stated) != 1:
        return None
    used = {factor for _, factor in terms}
    families = {family for family, _ in used | {stated[0][1]}}
    if len(used) < 2 or len(families) > 1:
        return None
    total = sum((number * factor[1] for number, factor in terms), Fraction(0))
    return bool(total == stated[0][0] * stated[0][1][1])


def terms_with_units(tokens: Sequence[Token]) -> list[tuple[Fraction, Factor]] | None:
    """Numbers or fractions with units, joined by plus and minus; None where the tokens are anything else."""
    terms: list[tuple[Fraction, Factor]] = []
    sign = 1
    index = 0
    while index < len(tokens):
        length = 3 if [token.kind for token in tokens[index : index + 3]] == ["number", "operator", "number"] else 1
        number = read_number(tokens[index : index + length])
        unit = tokens[index + length].text.lower() if index + length < len(tokens) else ""
        if number is None or number[1] != length or unit not in UNITS:
            return terms if terms and tokens[index - 1].kind != "operator" else None
        terms.append((sign * number[0], UNITS[unit]))
        index += length + 1
        if index < len(tokens) and tokens[index].kind == "operator" and tokens[index].text in "+-":
            sign = 1 if tokens[index].text == "+" else -1
            index += 1
    return terms
