"""Numbers as people write them, read exactly and never executed; when two final answers mean the same."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_ANSWER_LENGTH = 200

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_SIGN = r"(?P<sign>[-−]?)\s?(?:\\?[$€£]\s?)?(?P<late_sign>[-−]?)"
_LITERAL = re.compile(
    rf"(?<![0-9.,A-Za-z^_]){_SIGN}"
    rf"(?:(?P<whole>[0-9]+)\s+(?P<over>[0-9]+)\s?/\s?(?P<under>[0-9]+)|"
    rf"(?P<number>{_UNSIGNED})(?:\s?/\s?(?P<denominator>{_UNSIGNED}))?)(?![0-9])"
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_UNIT_POWER = re.compile(r"(?<=[A-Za-z])\^[0-9]")


def _plain(text: str) -> str:
    text = _LATEX_FRACTION.sub(r"\1/\2", text)
    text = _UNIT_POWER.sub("", text)
    for mark in ("\\(", "\\)", "\\[", "\\]", "**", "{", "}"):
        text = text.replace(mark, " ")
    return text.rpartition("=")[2].strip()


def _unsigned(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _magnitude(found: re.Match[str]) -> Fraction | None:
    if found["whole"] is not None:
        under = int(found["under"])
        return int(found["whole"]) + Fraction(int(found["over"]), under) if under else None
    divisor = _unsigned(found["denominator"]) if found["denominator"] else Fraction(1)
    return _unsigned(found["number"]) / divisor if divisor else None


def parse_number(text: str) -> Fraction | None:
    """The one number that ``text`` states, exactly: ``1,000``, ``1000.0``, ``$5``, ``50%``, ``3/4``, ``1 1/2``, ``-2``.

    Words around it are passed over (``12 dollars``), and so is everything before the last ``=``. Currency and
    percent signs are units: ``50%`` is 50. None where there is no number, more than one, a wrongly grouped one
    (``1,00``), a division by zero, or more than ``MAX_ANSWER_LENGTH`` characters. Nothing is ever executed.
    """
    if len(text) > MAX_ANSWER_LENGTH:
        return None
    plain = _plain(text)
    found = list(_LITERAL.finditer(plain))
    if len(found) != 1 or any(c.isdecimal() for c in plain[: found[0].start()] + plain[found[0].end() :]):
        return None
    magnitude = _magnitude(found[0])
    if magnitude is None:
        return None
    return -magnitude if found[0]["sign"] or found[0]["late_sign"] else magnitude


def _decimal(value: Fraction) -> str | None:
    """``value`` as a terminating decimal, or None."""
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return None
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"


def normalise_answer(text: str) -> str:
    """One spelling for every way to write an answer, to group by: ``1000`` for ``$1,000.00``, ``0.5`` for ``1/2``.

    A number without a finite decimal is ``n/d``; what is no number is its own lower-case text, blanks collapsed.
    """
    number = parse_number(text)
    if number is None:
        return " ".join(text.casefold().split()).rstrip(".")
    return _decimal(number) or f"{number.numerator}/{number.denominator}"


def answers_agree(a: str, b: str) -> bool:
    """Whether two final answers mean the same: equal numbers, or equal text where they are not numbers.

    An empty answer agrees with nothing.
    """
    return bool(a.strip()) and normalise_answer(a) == normalise_answer(b)
