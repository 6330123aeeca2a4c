"""Parser of numbers as people write them, exact and never executed, and comparison of final answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from irl_core.text.expressions import read_number
from irl_core.text.surroundings import NUMBER_WORDS
from irl_core.text.tokens import SCALE_WORDS, Token, tokenise, words

MAX_ANSWER_LENGTH = 200

_NUMERIC = ("number", "fraction", "root", "power")
_SPACED_GROUPS = re.compile(r"(?<![0-9.,/])[0-9]{1,3}(?: [0-9]{3})+(?![0-9/,]| ?/)")
_LATEX_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boxed|fbox)\s?\{([^{}]*)\}")
_MARKUP = re.compile(r"\*\*|__|\\[()\[\],!;: ]|\$|`")
_SEPARATOR = re.compile(r"[,;]|\band\b", re.IGNORECASE)
_HALVES = {"half": Fraction(1, 2), "third": Fraction(1, 3), "quarter": Fraction(1, 4), "fourth": Fraction(1, 4)}
_CALCULATING_BEFORE = words(
    "twice double triple thrice half third quarter root squared times plus over than factorial mod"
)
_CALCULATING_AFTER = words("squared cubed plus minus multiplied divided over factorial mod choose")
_LETTERS = {"k": 1000, "K": 1000}  # attached to a number: 5k
_UNIT_LETTERS = frozenset("mglLshdcCFNJWVAp")
_CURRENCIES = words("rs usd us eur gbp aud cad inr php")
_FORMATTING = frozenset(("\\boxed", "\\fbox", "\\displaystyle", "\\end", "\\begin", "\\bf", "\\rm", "\\tag"))


# ---------------------------------------------------------------- numbers


def parse_number(text: str) -> Fraction | None:
    r"""The one number that ``text`` states, exactly: ``1,000``, ``$5``, ``50%``, ``1 1/2``, ``\frac12``, ``1e3``.

    Words around it are ignored (``12 dollars``), and so is everything before the last ``=``. Currency and
    percent signs are units: ``50%`` is 50; scale words count: ``3 dozen`` is 36. None where there is no number, more
    than one (``3,5``), a part of something else (``2x``), a wrongly grouped one (``1,00``), a division by zero, or
    more than ``MAX_ANSWER_LENGTH`` characters. Nothing is ever executed.
    """
    if len(text) > MAX_ANSWER_LENGTH:
        return None
    stated = _right_of_equals(text)
    if stated is None:
        return None
    plain = _SPACED_GROUPS.sub(lambda parsed: parsed[0].replace(" ", ""), stated)
    tokens = tokenise(plain, 0, len(plain), bullets=False)
    start = next((index for index, token in enumerate(tokens) if token.kind in _NUMERIC), None)
    if start is None or any(_has_digit(token) for token in tokens[:start]):
        return None
    parsed = read_number(tokens[start:])
    sign = _sign_before(tokens, start)
    if parsed is None or sign is None:
        return None
    number, used = parsed
    rest = tokens[start + used :]
    if any(token.kind in _NUMERIC or _has_digit(token) for token in rest):
        return None
    factor = _scale_after(rest, number)
    return None if factor is None else sign * (number + factor[1]) * factor[0]


def _right_of_equals(text: str) -> str | None:
    """The text after the last equals sign; None where several quantities are assigned: 'x=5, y=6'."""
    parts = re.split(r"=+|≈|\\approx", text)
    if len(parts) > 2 and any(re.search(r"[;]|,\s*\\?[A-Za-z]|\b(?:and|or)\b", part) for part in parts[1:-1]):
        return None
    last = parts[-1]
    return parts[0] if len(parts) == 2 and not re.search(r"[0-9½¼¾]", last) else last


def _has_digit(token: Token) -> bool:
    return token.kind in ("other", "command", "note", "ellipsis") and any(c.isnumeric() for c in token.text)


def _sign_before(tokens: Sequence[Token], start: int) -> int | None:
    """The sign of the number at ``tokens[start]``; None where what precedes it makes it a part of something else."""
    if start == 0:
        return 1
    token, before = tokens[start], tokens[start - 1]
    earlier = tokens[start - 2] if start > 1 else None
    if before.kind == "operator":
        if before.text == "+":
            return 1
        if before.text != "-":
            return None
        after_word = earlier is not None and earlier.kind == "word"
        return 1 if after_word and (token.spaced or not before.spaced) else -1
    if before.kind == "word":
        word = before.text.lower()
        if word in ("minus", "negative"):
            return -1
        attached = not token.spaced and word not in _CURRENCIES
        return None if attached or word in _CALCULATING_BEFORE else 1
    if before.kind == "command":
        return 1 if before.text in _FORMATTING else None
    if before.kind == "bad" or (before.kind == "other" and before.text in "±∓√≥≤≠∑∏^_"):
        return None
    return 1


def _scale_after(rest: Sequence[Token], number: Fraction) -> tuple[Fraction, Fraction] | None:
    """What multiplies a number and what is added to it behind it; None where it goes on as something else."""
    plain = (Fraction(1), Fraction(0))
    if not rest:
        return plain
    near, text = rest[0], rest[0].text
    following = [token.text.lower() for token in rest[1:3]]
    if near.kind == "operator":
        return plain if text == "-" and (len(rest) == 1 or len(rest[1].text) > 1) else None
    if near.kind in ("command", "ellipsis", "open"):
        return plain if text in _FORMATTING or text == "(" else None
    if near.kind == "per":
        return plain if len(text.lstrip("/ ")) > 1 or text[-1] in _UNIT_LETTERS else None
    if near.kind != "word":
        return None if near.text in "±∓^" else plain
    if text.lower() == "and" and number.denominator == 1 and following[:1] in (["a"], ["one"]):
        part = _HALVES.get(following[-1])
        return plain if part is None else (Fraction(1), part)
    if len(text) == 1 and near.spaced and text in "xyzn":
        return None
    if len(text) == 1 and not near.spaced:
        return (Fraction(_LETTERS.get(text, 1)), Fraction(0)) if text in _LETTERS or text in _UNIT_LETTERS else None
    return None if text.lower() in _CALCULATING_AFTER else plain


def parse_numbers(text: str) -> tuple[Fraction, ...]:
    """The numbers of a pair or list, ``(3, 5)`` or ``3 and 5``, in order; empty where any part is no number."""
    if len(text) > MAX_ANSWER_LENGTH:
        return ()
    parts = _SEPARATOR.split(_MARKUP.sub(" ", text).strip().strip("()[]{}"))
    if len(parts) < 2 or any(re.match(r"\s*0[0-9]", part) for part in parts):
        return ()
    numbers = [parse_number(part) for part in parts]
    return tuple(number for number in numbers if number is not None) if None not in numbers else ()


# ---------------------------------------------------------------- answers


def spell_number(value: Fraction) -> str:
    """``value`` as a terminating decimal, else as ``n/d``."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def normalise_answer(text: str) -> str:
    """One spelling for every way to write an answer, to group by: ``1000`` for ``$1,000.00``, ``0.5`` for ``1/2``.

    A number without a finite decimal is ``n/d``; of several numbers each is spelt so (``3, 5``); what is no number is
    its own lower-case text without markup, blanks collapsed.
    """
    number = parse_number(text)
    if number is not None:
        return spell_number(number)
    several = parse_numbers(text)
    if several:
        return ", ".join(map(spell_number, several))
    plain, before = text, None
    while plain != before:  # markup within markup; each turn shortens the text
        before = plain
        if len(text) <= MAX_ANSWER_LENGTH:
            plain = _MARKUP.sub(" ", _LATEX_WORDS.sub(r"\1", plain))
        plain = " ".join(plain.casefold().split()).rstrip(". ")
    return plain if plain == text else normalise_answer(plain)


def compare_answers(a: str, b: str) -> bool | None:
    """Whether two final answers mean the same; None where that cannot be told.

    Numbers are compared by value, and so are lists of numbers; words by their letters. An empty answer, and one that
    is no number where the other is one, cannot be compared; nor can two different formulas.
    """
    if not (a.strip() and b.strip()):
        return None
    first, second = normalise_answer(a), normalise_answer(b)
    if first == second:
        return bool(first) or None
    numeric = [bool(parse_number(text) is not None or parse_numbers(text)) for text in (a, b)]
    if numeric[0] and numeric[1]:
        return False
    worded = not re.search(r"[0-9\\=+*/^]", first + second)
    return False if worded and not any(numeric) else None


def answers_agree(a: str, b: str) -> bool:
    """Whether two final answers are known to mean the same: equal numbers, or equal text. Empty ones never do."""
    return compare_answers(a, b) is True


def ends_in_number_words(text: str) -> bool:
    """Whether the last sentence has a number in words and none in digits ('They have thirty-five marbles.')."""
    last = re.split(r"(?<=[.!?])\s+|[\r\n]+", text.strip())[-1].casefold()
    stated = (NUMBER_WORDS | SCALE_WORDS.keys()) & set(re.findall(r"[a-z]+", last))
    return bool(stated) and not re.search(r"[0-9]", last)
