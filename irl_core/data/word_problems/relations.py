"""Sentences that relate two counts, or change one: the same words in another order mean another operation."""

from __future__ import annotations

from irl_core.data.word_problems.story import Node, Story

GAINS = ("gets", "finds", "buys", "wins")
LOSSES = ("gives away", "loses", "sells", "throws away")
TIMES = {2: "twice", 3: "three times", 4: "four times"}


def relate(
    story: Story, known: Node, knower: str, other: str, noun: str, line: str, verb: str = "has"
) -> tuple[str, Node]:
    """A sentence that relates the count of ``other`` to that of ``knower``, and the former.

    Half of the relations are told from the known side ('Tom has 4 more than Mia' gives Mia's count from Tom's), so that
    'more' may mean a subtraction.

    Args:
        story: the problem under construction.
        known: the count of ``knower``.
        knower, other: who has them.
        noun: what is counted.
        line: the solution line, with ``{}`` for the equation.
        verb: of both.
    """
    if story.chance(0.35):
        return _multiple(story, known, knower, other, noun, line, verb)
    more, told_from_known = story.chance(0.5), story.chance(0.5)
    difference = story.draw(2, 15)
    comparison = f"{difference} {'more' if more else story.pick('fewer')} {noun} than"
    added = more != told_from_known
    node = story.derive(known + difference if added else known - difference, line)
    first, second = (knower, other) if told_from_known else (other, knower)
    return f"{_capital(first)} {verb} {comparison} {second}.", node


def _multiple(story: Story, known: Node, knower: str, other: str, noun: str, line: str, verb: str) -> tuple[str, Node]:
    """A relation by a factor ('twice as many', 'half as many')."""
    factor = story.constant(story.rng.choice((2, 2, 3, 4)))
    times = f"{TIMES[factor.value]} as many {noun} as"
    if story.chance(0.5):
        return f"{_capital(other)} {verb} {times} {knower}.", story.derive(known * factor, line)
    node = story.derive(known / factor, line)
    if factor.value == 2 and story.chance(0.5):
        return f"{_capital(other)} {verb} half as many {noun} as {knower}.", node
    return f"{_capital(knower)} {verb} {times} {other}.", node


def change(story: Story, current: Node, who: str, noun: str, low: int = 2, high: int = 15) -> tuple[str, Node]:
    """A sentence in which ``who`` gains or loses some of the ``current`` count, and the new count."""
    amount = story.draw(low, high)
    if story.chance(0.5):
        verb = story.pick(*GAINS)
        node = story.derive(current + amount, f"{_capital(who)} then has {{}} {noun}.", f"Now {who} has {{}} {noun}.")
        return f"{_capital(who)} {verb} {amount} more {noun}.", node
    verb = story.pick(*LOSSES)
    node = story.derive(current - amount, f"{_capital(who)} then has {{}} {noun}.", f"Now {who} has {{}} {noun}.")
    return f"{_capital(who)} {verb} {amount} {noun}.", node


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
