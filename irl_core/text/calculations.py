"""The calculations of a solution: the numbers that each step calculates with, and every place where they stand.

``48/2 = <<48/2=24>>24`` is one sum with two left sides and two results. Values can be exchanged and carried on through
the sums that follow, the prose between them and the final answer, so that the text stays consistent with itself.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from irl_core.text.equations import Equation, read_equations, shown_after
from irl_core.text.expressions import evaluate
from irl_core.text.tokens import MAX_DIGITS, tokenise
from irl_core.types import Span, Trace

Edits = dict[Span, str]

_NUMBER = re.compile(
    r"(?<![0-9A-Za-z.,])(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?![0-9A-Za-z])"
)
_MARK = re.compile(r"[#*_>\-\s]{0,12}(?:step[ \t]{1,4}[0-9]{1,4}|[0-9]{1,3}[.)](?=\s))", re.IGNORECASE)
_COUNTING = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_WORDS = {
    **{word: n for n, word in enumerate(_COUNTING, 1)},
    **{"twice": 2, "double": 2, "half": 2, "pair": 2, "triple": 3, "thrice": 3, "third": 3, "thirds": 3},
    **{"quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4, "fifth": 5, "dozen": 12, "twenty": 20, "thirty": 30},
    **{"forty": 40, "fifty": 50, "hundred": 100},
}
_IMPLIED = {Fraction(1), Fraction(2), Fraction(100)}


@dataclass(frozen=True, slots=True)
class Number:
    """A number written at ``start:end``."""

    start: int
    end: int
    text: str
    value: Fraction


@dataclass(frozen=True, slots=True)
class Sum:
    """A true sum of one step: the spans of its left sides, the numbers that state its result, and its value."""

    step: int
    lefts: tuple[Span, ...]
    results: tuple[Number, ...]
    value: Fraction

    @property
    def start(self) -> int:
        return min(start for start, _ in self.lefts)

    @property
    def end(self) -> int:
        return max(number.end for number in self.results)


@dataclass(frozen=True, slots=True)
class Worked:
    """A trace with its sums in order, the numbers outside them, and the numbers that the problem gives."""

    trace: Trace
    sums: tuple[Sum, ...]
    prose: tuple[Number, ...]
    given: tuple[Number, ...]
    known: frozenset[Fraction]  # given in figures or words, or implied
    repeated: frozenset[Fraction]  # the result of more than one sum


def number_at(text: str, span: Span) -> Number | None:
    """The number that a span of the text consists of; None where it is anything else."""
    match = _NUMBER.fullmatch(text[slice(*span)])
    if not match or len(match[0]) > MAX_DIGITS:
        return None
    return Number(*span, match[0], Fraction(match[0].replace(",", "")))


def numbers_in(text: str, span: Span) -> list[Number]:
    """The numbers in a span of the text, except those that are part of a word (``3rd``)."""
    return [
        Number(match.start(), match.end(), match[0], Fraction(match[0].replace(",", "")))
        for match in _NUMBER.finditer(text, *span)
        if len(match[0]) <= MAX_DIGITS
    ]


def operands(text: str, left: Span) -> list[Number]:
    """The numbers of a left side, in order."""
    tokens = [token for token in tokenise(text, *left) if token.kind == "number"]
    return [Number(token.start, token.end, token.text, token.value) for token in tokens]


def _merged(text: str, step: int, note: Equation | None, visible: Equation | None) -> Sum | None:
    parts = [equation for equation in (visible, note) if equation]
    spans = [equation.right for equation in parts]
    shown = shown_after(text, note) if note and not visible else None
    results = [number_at(text, span) for span in [*spans, *([shown] if shown else [])]]
    written = [number for number in results if number]
    if len(written) < len(results) or len({number.value for number in written}) != 1:
        return None
    if not all(equation.true and len(operands(text, equation.left)) > 1 for equation in parts):
        return None
    ordered = sorted(written, key=lambda number: number.start)
    lefts = sorted(equation.left for equation in parts)
    return Sum(step, tuple(lefts), tuple(ordered), written[0].value)


def _paired(text: str) -> Iterator[tuple[Equation | None, Equation | None]]:
    """Each annotation with the visible equation around it, and visible equations without one. Chains are left out."""
    everything = read_equations(text)
    notes = [equation for equation in everything if equation.noted]
    visible = [equation for equation in everything if not equation.noted]
    chained = {equation.right for equation in everything} & {equation.left for equation in everything}
    taken: set[int] = set()
    position = 0
    for note in notes:
        while position < len(visible) and visible[position].end < note.start:
            position += 1
        around = position < len(visible) and visible[position].start < note.start < visible[position].end
        if note.left not in chained and note.right not in chained and not (around and position in taken):
            yield note, visible[position] if around else None
        if around:
            taken.add(position)
    for index, equation in enumerate(visible):
        if index not in taken and equation.left not in chained and equation.right not in chained:
            yield None, equation


def read_sums(trace: Trace) -> list[Sum]:
    """The true sums of the reasoning steps, in order."""
    starts = [step.start for step in trace.steps]
    sums: list[Sum] = []
    for note, visible in _paired(trace.text):
        start = min(equation.start for equation in (note, visible) if equation)
        step = bisect_right(starts, start) - 1
        merged = _merged(trace.text, step, note, visible) if step >= 0 else None
        if merged and trace.steps[step].role == "reasoning" and merged.end <= trace.steps[step].end:
            sums.append(merged)
    return sorted(sums, key=lambda one: one.start)


def prose_numbers(trace: Trace, sums: list[Sum]) -> list[Number]:
    """Numbers of the steps that belong to no sum and do not number a step."""
    taken = {
        number.start for one in sums for left in one.lefts for number in operands(trace.text, left)
    } | {number.start for one in sums for number in one.results}  # fmt: skip
    numbers: list[Number] = []
    for step in trace.steps:
        mark = _MARK.match(trace.text, step.start, step.end)
        start = mark.end() if mark and step.role == "reasoning" else step.start
        numbers += [number for number in numbers_in(trace.text, (start, step.end)) if number.start not in taken]
    return numbers


def work_out(trace: Trace) -> Worked:
    """The sums of a trace, its other numbers, and what its problem gives."""
    sums = read_sums(trace)
    given = numbers_in(trace.problem, (0, len(trace.problem)))
    words = {Fraction(_WORDS[word]) for word in re.findall(r"[a-z]+", trace.problem.lower()) if word in _WORDS}
    known = frozenset({number.value for number in given} | words | _IMPLIED)
    results = Counter(one.value for one in sums)
    repeated = frozenset(value for value, times in results.items() if times > 1)
    return Worked(trace, tuple(sums), tuple(prose_numbers(trace, sums)), tuple(given), known, repeated)


def written_like(value: Fraction, like: str) -> str | None:
    """A positive number in the format of another (whole, decimals, separators); None where that cannot be."""
    decimals = len(like.partition(".")[2])
    scaled = value * 10**decimals
    if value <= 0 or scaled.denominator != 1:
        return None
    digits = str(scaled.numerator).rjust(decimals + 1, "0")
    whole, rest = (digits[:-decimals], digits[-decimals:]) if decimals else (digits, "")
    if "," in like:
        whole = f"{int(whole):,}"
    if like.startswith(".") and whole == "0":
        whole = ""
    return f"{whole}.{rest}" if decimals else whole


def with_edits(text: str, span: Span, edits: Mapping[Span, str]) -> str:
    """``text[span]`` after the edits, all of which lie in it."""
    parts: list[str] = []
    position = span[0]
    for (start, end), new in sorted(edits.items()):
        parts += [text[position:start], new]
        position = end
    return "".join([*parts, text[position : span[1]]])


def apply_edits(text: str, edits: Mapping[Span, str]) -> tuple[str, Span]:
    """The edited text, and the span of the first edit in it, from its first differing character.

    Edits do not overlap; at least one is given.
    """
    (start, end), new = min(edits.items())
    old = text[start:end]
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    same = max(0, min(same, len(new) - 1))
    return with_edits(text, (0, len(text)), edits), (start + same, start + len(new))


@dataclass(slots=True)
class Carried:
    """Values that changed, and the edits that carry them through the rest of a text."""

    worked: Worked
    values: dict[Fraction, Fraction]
    edits: Edits
    sums_changed: int = 0

    def ambiguous(self, value: Fraction) -> bool:
        """Whether a number of this value may stand for something else than the result that changed."""
        return value in self.worked.known or value in self.worked.repeated

    def replace(self, number: Number) -> bool:
        """Replace a number if its value changed. False where that is ambiguous or the value cannot be written."""
        if number.value not in self.values or (number.start, number.end) in self.edits:
            return True
        new = written_like(self.values[number.value], number.text)
        if new is None or self.ambiguous(number.value):
            return False
        self.edits[number.start, number.end] = new
        return True

    def recalculate(self, one: Sum) -> bool:
        """Update the result of a sum whose left sides have edits. False where it has no one value."""
        text = self.worked.trace.text
        new = set()
        for left in one.lefts:
            spans = [(token.start, token.end) for token in tokenise(text, *left)]
            edits = {span: self.edits[span] for span in spans if span in self.edits}
            new.add(evaluate(with_edits(text, left, edits)))
        old = {evaluate(text[slice(*left)]) for left in one.lefts}
        if new == old:
            return True
        value = new.pop()
        return not new and value is not None and old == {one.value} and self.restate(one, value)

    def restate(self, one: Sum, value: Fraction) -> bool:
        """Replace the result of a sum, also where its step mentions it before the sum."""
        if value == one.value or self.values.get(one.value, value) != value:
            return False
        for number in one.results:
            written = written_like(value, number.text)
            if written is None:
                return False
            self.edits[number.start, number.end] = written
        self.values[one.value] = value
        self.sums_changed += 1
        start = self.worked.trace.steps[one.step].start
        mentions = [number for number in self.worked.prose if start <= number.start < one.start]
        return all(self.replace(number) for number in mentions)

    def onward(self, position: int) -> bool:
        """Carry the changed values through everything that is written from ``position`` on."""
        events: list[Sum | Number] = [one for one in self.worked.sums if one.start >= position]
        events += [number for number in self.worked.prose if number.start >= position]
        return all(self._carry(event) for event in sorted(events, key=lambda event: event.start))

    def _carry(self, event: Sum | Number) -> bool:
        if isinstance(event, Number):
            return self.replace(event)
        text = self.worked.trace.text
        numbers = [number for left in event.lefts for number in operands(text, left)]
        return all(self.replace(number) for number in numbers) and self.recalculate(event)
