"""Perturbed copies of a solution, each with the span that changed and its first wrong step.

The first three kinds are the paper's (arXiv 2510.01857); the others look right line by line and are wrong. What a
kind returns has been checked: the text differs, and it is wrong in the way that the kind says; else it is None.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from irl_core.text.answers import answers_agree, normalise_answer, parse_number
from irl_core.text.calculations import (
    Carried,
    Edits,
    Number,
    Sum,
    Worked,
    apply_edits,
    numbers_in,
    operands,
    work_out,
    written_like,
)
from irl_core.text.equations import find_equations, first_false_step
from irl_core.text.segmentation import make_trace
from irl_core.text.tokens import Token, tokenise
from irl_core.types import Layout, Perturbation, Source, Trace, Truth

Candidates = Iterator[Edits]
T = TypeVar("T")

MAX_LENGTH = 10_000
MAX_CANDIDATES = 40

_CONFUSED: Mapping[int, tuple[int, ...]] = {
    7: (5, 6),
    12: (10, 24),
    16: (12, 10),
    24: (12, 60),
    30: (7, 31),
    36: (12,),
    52: (12, 50),
    60: (24, 100),
    100: (10, 1000),
    365: (12, 52),
    1000: (100, 60),
    3600: (60,),
}
_RATE = re.compile(
    r"%|\bpercent|\b(?:per|each|every|apiece|rate|average|hourly|daily|weekly|monthly|times|share[sd]?|equally|half|quarter"
    r"|(?:an?|one)\s+(?:hour|minute|second|day|week|month|year|kg|kilogram|gram|pound|lit(?:re|er)|met(?:re|er)|mile|km|dozen))"
    r"\b|\bcosts?\b",
    re.IGNORECASE,
)


def shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """The items in a random order."""
    return rng.sample(items, len(items))


# ---------------------------------------------------------------- the paper's kinds


def operators_of(text: str, one: Sum) -> list[list[Token]]:
    """The operators of each left side, in order."""
    return [[token for token in tokenise(text, *left) if token.kind == "operator"] for left in one.lefts]


def other_operations(worked: Worked, rng: random.Random) -> Iterator[tuple[Sum, Edits]]:
    """Each sum with each of its operators replaced, on all its left sides alike."""
    for one in shuffled(rng, worked.sums):
        sides = operators_of(worked.trace.text, one)
        if len({tuple(token.text for token in side) for side in sides}) != 1:
            continue
        for index in shuffled(rng, range(len(sides[0]))):
            for sign in shuffled(rng, [s for s in "+-*/" if s != sides[0][index].text]):
                yield one, {(side[index].start, side[index].end): sign for side in sides}


def flip_operator(worked: Worked, rng: random.Random) -> Candidates:
    """Replace an arithmetic operator; the result stays and is wrong."""
    for _, edits in other_operations(worked, rng):
        yield edits


def _copies(worked: Worked, one: Sum) -> Iterator[list[Number]]:
    """Each number of a sum with its copies: an operand on every left side, the result everywhere it is stated."""
    yield list(one.results)
    sides = [operands(worked.trace.text, left) for left in one.lefts]
    if len({tuple(number.value for number in side) for side in sides}) == 1:
        yield from (list(copies) for copies in zip(*sides, strict=True))


def offset_number(worked: Worked, rng: random.Random) -> Candidates:
    """Change a number of a sum by a small offset; nothing else changes, so the sum is wrong."""
    for one in shuffled(rng, worked.sums):
        for copies in shuffled(rng, list(_copies(worked, one))):
            for offset in shuffled(rng, [-3, -2, -1, 1, 2, 3]):
                places = len(copies[0].text.partition(".")[2])
                value = copies[0].value + Fraction(offset, 10**places)
                new = [written_like(value, number.text) for number in copies]
                yield {} if None in new else {(n.start, n.end): text or "" for n, text in zip(copies, new, strict=True)}


def _stated_answers(trace: Trace) -> list[Number]:
    """Where the final answer is written: in the closing lines, or in the last box."""
    value = parse_number(trace.answer or "")
    spans = [(step.start, step.end) for step in trace.steps if step.role == "answer"]
    box = trace.text.rfind("\\boxed{")
    if not spans and box >= 0:
        spans = [(box, min(len(trace.text), box + len(trace.answer or "") + 10))]
    return [number for span in spans for number in numbers_in(trace.text, span) if number.value == value]


def swap_answer(worked: Worked, rng: random.Random) -> Candidates:
    """Replace the final answer by an intermediate result, or else by a number of the text."""
    stated = _stated_answers(worked.trace)
    if not stated:
        return
    earlier = [number for number in worked.prose if number.end <= stated[0].start]
    for pool in ([one.results[-1] for one in worked.sums], earlier):
        for number in shuffled(rng, pool):
            if number.value != stated[0].value:
                yield {(place.start, place.end): number.text for place in stated}


# ---------------------------------------------------------------- right line by line, and wrong


def carry_wrong_value(worked: Worked, rng: random.Random) -> Candidates:
    """Change a result; every later step and the final answer follow from the wrong value."""
    for one in shuffled(rng, worked.sums):
        for offset in shuffled(rng, [-100, -20, -10, -5, -3, -2, -1, 1, 2, 3, 5, 10, 20, 100]):
            places = len(one.results[-1].text.partition(".")[2])
            carried = Carried(worked, {}, {})
            wrong = one.value + Fraction(offset, 10**places)
            done = carried.restate(one, wrong) and carried.onward(one.end)
            used = carried.sums_changed > 1 or one is worked.sums[-1]
            yield carried.edits if done and used else {}


def _exchanged(worked: Worked, one: Sum, old: Fraction, new: Fraction) -> Edits | None:
    """A sum with one operand exchanged on all its left sides, its step's prose with it, recalculated, carried on."""
    text = worked.trace.text
    edits: Edits = {}
    written = normalise_answer(str(new))
    for left in one.lefts:
        place = next((number for number in operands(text, left) if number.value == old), None)
        if place is None:
            return None
        edits[place.start, place.end] = written
    start = max([worked.trace.steps[one.step].start, *(other.end for other in worked.sums if other.end <= one.start)])
    for number in worked.prose:
        if start <= number.start < one.start and number.value == old:
            edits[number.start, number.end] = written
    return _rewritten(worked, one, edits)


def _rewritten(worked: Worked, one: Sum, edits: Edits) -> Edits | None:
    """The edits of a sum's left sides with all that follows from them."""
    carried = Carried(worked, {}, dict(edits))
    if carried.recalculate(one) and _is_new(worked, carried, one) and carried.onward(one.end):
        return carried.edits
    return None


def _is_new(worked: Worked, carried: Carried, one: Sum) -> bool:
    """Whether the changed result of a sum is a number met nowhere else: one that is may well be right by accident."""
    result = carried.values.get(one.value)
    elsewhere = worked.known | {other.value for other in worked.sums}
    return result is not None and result not in elsewhere


def wrong_operand(worked: Worked, rng: random.Random) -> Candidates:
    """Replace an operand that the problem gives by another number of the problem.

    Not one that a later sum adds or subtracts anyway: two additions in another order are no mistake.
    """
    for one in shuffled(rng, worked.sums):
        used = {number.value for number in operands(worked.trace.text, one.lefts[0])}
        given = {number.value for number in worked.given} - _added_later(worked, one)
        for old in shuffled(rng, sorted(used & worked.known)):
            for new in shuffled(rng, sorted(given - used)):
                yield _exchanged(worked, one, old, new) or {}


def _added_later(worked: Worked, one: Sum) -> set[Fraction]:
    later = [other for other in worked.sums if other.start > one.start and is_additive(worked, other)]
    if not is_additive(worked, one):
        return set()
    return {number.value for other in later for number in operands(worked.trace.text, other.lefts[0])}


def is_additive(worked: Worked, one: Sum) -> bool:
    """Whether a sum only adds and subtracts."""
    return all(token.text in "+-" for token in operators_of(worked.trace.text, one)[0])


def drop_step(worked: Worked, rng: random.Random) -> Candidates:
    """Leave out a step; the next one calculates with one of its operands instead of its result.

    Not one addition before another: without the first, the second may still be a sensible step.
    """
    trace = worked.trace
    per_step = Counter(one.step for one in worked.sums)
    if trace.layout is Layout.NUMBERED:
        return
    for one, following in shuffled(rng, list(zip(worked.sums, worked.sums[1:], strict=False))):
        reordered = is_additive(worked, one) and is_additive(worked, following)
        if per_step[one.step] > 1 or following.step != one.step + 1 or reordered:
            continue
        uses = {number.value for left in following.lefts for number in operands(trace.text, left)}
        gap = (trace.steps[one.step].start, trace.steps[following.step].start)
        for instead in shuffled(rng, sorted({number.value for number in operands(trace.text, one.lefts[0])})):
            carried = Carried(worked, {one.value: instead}, {})
            done = one.value in uses and carried.onward(gap[1]) and carried.sums_changed
            yield {gap: "", **carried.edits} if done and _is_new(worked, carried, following) else {}


def unit_or_rate(worked: Worked, rng: random.Random) -> Candidates:
    """Convert by a wrong factor, or multiply, divide or add a rate where another operation is right."""
    explained = {number.value for number in worked.given} | {one.value for one in worked.sums}
    for one in shuffled(rng, worked.sums):
        used = {number.value for number in operands(worked.trace.text, one.lefts[0])}
        for factor in shuffled(rng, sorted(used - explained)):
            confused = _CONFUSED.get(int(factor), ()) if factor.denominator == 1 else ()
            for new in shuffled(rng, confused):
                yield _exchanged(worked, one, factor, Fraction(new)) or {}
        yield from wrong_rate(worked, one, rng)


def wrong_operation(worked: Worked, rng: random.Random) -> Candidates:
    """Calculate with another operation; the result is right for it, and every later step follows from that."""
    for one, edits in other_operations(worked, rng):
        yield _rewritten(worked, one, edits) or {}


def wrong_rate(worked: Worked, one: Sum, rng: random.Random) -> Candidates:
    """A rate multiplied, divided or added where another operation is right."""
    about = (worked.trace.steps[one.step].text, worked.trace.problem)
    sides = operators_of(worked.trace.text, one)
    alike = {tuple(token.text for token in side) for side in sides}
    if len(alike) > 1 or alike.pop() not in (("*",), ("/",)) or not any(_RATE.search(part) for part in about):
        return
    for sign in shuffled(rng, ["/", "+"] if sides[0][0].text == "*" else ["*", "-"]):
        yield _rewritten(worked, one, {(side[0].start, side[0].end): sign for side in sides}) or {}


# ---------------------------------------------------------------- checks

_KINDS: dict[str, Callable[[Worked, random.Random], Candidates]] = {
    "flip_operator": flip_operator,
    "offset_number": offset_number,
    "swap_answer": swap_answer,
    "carry_wrong_value": carry_wrong_value,
    "wrong_operand": wrong_operand,
    "drop_step": drop_step,
    "unit_or_rate": unit_or_rate,
    "wrong_operation": wrong_operation,
}
ALL_KINDS: tuple[str, ...] = tuple(_KINDS)
# These make an equation false; the others leave every equation true.
FALSE_EQUATION = frozenset({"flip_operator", "offset_number", "carry_wrong_value"})
SAME_ANSWER = frozenset({"flip_operator", "offset_number"})


def false_steps(trace: Trace) -> Counter[int]:
    """Number of false equations of each step."""
    starts = [step.start for step in trace.steps]
    return Counter(bisect_right(starts, one.start) - 1 for one in find_equations(trace.text) if not one.true)


def _is_wrong(trace: Trace, changed: Trace, step: int, kind: str) -> bool:
    """Whether the changed text is wrong in the way of its kind, and first at that step."""
    before, after = false_steps(trace), false_steps(changed)
    if kind in FALSE_EQUATION:
        if not (after - before)[step] or len(after - before) != 1:
            return False
    elif after.total() > before.total():
        return False
    if kind in SAME_ANSWER:
        return True
    answer, old = changed.answer, trace.answer
    if answer is None or old is None or answers_agree(answer, old):
        return False
    return trace.reference_answer is None or not answers_agree(answer, trace.reference_answer)


def _perturbation(trace: Trace, edits: Edits, kind: str) -> Perturbation | None:
    text, span = apply_edits(trace.text, edits)
    if text == trace.text:
        return None
    changed = make_trace(trace.problem, text, reference_answer=trace.reference_answer)
    step = bisect_right([one.start for one in changed.steps], span[0]) - 1
    known = [trace.truth.first_error_step if trace.truth else None, first_false_step(trace)]
    first_error = min((one for one in known if one is not None), default=len(trace.steps))
    if not 0 <= step < first_error or changed.layout is not trace.layout:
        return None
    if kind == "drop_step":  # from the gap to the end of the first number whose source is now missing
        gap, number = sorted(edits)[:2]
        start = changed.steps[step].start
        span = start, max(start, number[0] - (gap[1] - gap[0]) + len(edits[number]))
    if not _is_wrong(trace, changed, step, kind):
        return None
    return Perturbation(text, span, step, kind)


def perturb(trace: Trace, rng: random.Random, kinds: Sequence[str] = ALL_KINDS) -> Perturbation | None:
    """A perturbed copy of the trace, of one of the kinds, in an order that ``rng`` draws.

    None where no kind applies: the unchanged text is never returned, nor one whose answer is the reference's for a
    kind that changes the answer. ``span`` starts at the first character that differs, in the new text (``drop_step``:
    from where the step is missing to the first number that follows from nothing); ``first_error_step`` is an index
    into the steps of ``segment(new text)``. In a trace whose errors are not known, an earlier one may exist.
    Texts of more than ``MAX_LENGTH`` characters are not perturbed. Raises ValueError for an unknown kind.
    """
    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise ValueError(f"unknown kind of perturbation {unknown[0]!r}; use {', '.join(ALL_KINDS)}")
    if len(trace.text) > MAX_LENGTH or not trace.steps:
        return None
    worked = work_out(trace)
    for kind in shuffled(rng, kinds):
        for tried, edits in enumerate(_KINDS[kind](worked, rng)):
            perturbed = _perturbation(trace, edits, kind) if edits else None
            if perturbed or tried >= MAX_CANDIDATES:
                break
        else:
            continue
        if perturbed:
            return perturbed
    return None


def perturbed_trace(trace: Trace, perturbation: Perturbation) -> Trace:
    """The perturbed copy as a trace of the *same* problem, with its first wrong step as the truth."""
    return make_trace(
        trace.problem,
        perturbation.text,
        reference_answer=trace.reference_answer,
        source=Source.PERTURBED,
        trace_id=f"{trace.trace_id}/{perturbation.kind}" if trace.trace_id else "",
        problem_id=trace.problem_id,
        truth=Truth(perturbation.first_error_step, perturbation.kind),
    )
