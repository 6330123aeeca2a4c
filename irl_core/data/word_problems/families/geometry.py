"""Fences, tiles and beds: perimeters and areas."""

from __future__ import annotations

from irl_core.data.word_problems.families.registry import family
from irl_core.data.word_problems.story import Node, Rejected, Story
from irl_core.data.word_problems.words import PLANTS


def _sides(s: Story, place: str) -> tuple[Node, Node]:
    """A width told by its number and a length by its number or its relation to the width."""
    width = s.draw(3, 12)
    if s.chance(0.4):
        length = s.draw(3, 12)
        s.say(
            f"A rectangular {place} is {length} metres long and {width} metres wide.",
            f"The width of a rectangular {place} is {width} metres and its length is {length} metres.",
        )
        return width, length
    gap, longer = s.draw(2, 8), s.chance(0.6)
    s.say(f"A rectangular {place} is {width} metres wide.", f"The width of a rectangular {place} is {width} metres.")
    s.say(
        f"The {place} is {gap} metres {'longer' if longer else 'shorter'} than it is wide.",
        f"The width is {gap} metres {'less' if longer else 'more'} than the length.",
    )
    return width, s.derive(width + gap if longer else width - gap, "The length is {} metres.")


@family
def fence(s: Story) -> None:
    """The perimeter of a rectangle, with a gate or a price."""
    who, place = s.person(), s.pick("garden", "field", "yard", "playground")
    width, length = _sides(s, place)
    half = s.derive(width + length, "One long and one short side are {} metres.")
    around = s.derive(
        half * s.constant(2), "All four sides are {} metres.", f"The way around the {place} is {{}} metres."
    )
    s.aside(f"The {place} has {{}} trees.", "The fence is {} years old.", f"{who} has {{}} helpers.")
    kind = s.rng.randrange(4)
    if kind == 0:
        s.ask(
            around,
            f"How many metres of fence does {who} need to go all around it?",
            f"How many metres is it around the {place}?",
        )
    elif kind == 1:
        gate = s.draw(2, 8)
        s.say(
            f"{who} puts a fence around the {place} but leaves {gate} metres open for a gate.",
            f"{gate} metres of the way around the {place} are a gate and need no fence.",
        )
        s.ask(
            s.derive(around - gate, "Without the gate it is {} metres of fence."),
            f"How many metres of fence does {who} need to close the rest?",
        )
    elif kind == 2:
        have = s.draw(5, 30)
        s.say(f"{who} already has {have} metres of fence.", f"There are {have} metres of fence in the shed of {who}.")
        if have.value >= around.value:
            have_left = s.derive(have - around, "{} metres of fence are left.")
            s.ask(have_left, "How many metres of it are left when all four sides have a fence?")
        else:
            s.ask(
                s.derive(around - have, f"{who} must buy {{}} metres."),
                f"How many more metres does {who} need to go all around it?",
            )
    else:
        laps = s.draw(2, 5)
        s.say(
            f"{who} runs around the {place} {laps} times.",
            f"In the morning {who} walks all the way around the {place} {laps} times.",
        )
        s.ask(
            s.derive(around * laps, f"{laps} times around is {{}} metres."),
            f"How many metres is that in total for {who}?",
        )


OPENINGS = {"wall": "window", "roof": "window", "floor": "carpet"}


@family
def area(s: Story) -> None:
    """The area of a rectangle, less or more a second area, or the paint that covers it."""
    who, place = s.person(), s.pick(*OPENINGS)
    width, length = _sides(s, place)
    whole = s.derive(
        width * length, f"The {place} has {{}} square metres.", f"The area of the {place} is {{}} square metres."
    )
    s.aside(f"The {place} is {{}} years old.", f"{who} works on it for {{}} days.", f"{who} has {{}} helpers.", low=2)
    kind = s.rng.randrange(3)
    if kind == 0:
        part = s.draw(2, 30)
        s.say(
            f"{who} has painted {part} square metres of the {place}.",
            f"{part} square metres of the {place} are already painted.",
        )
        s.ask(
            s.derive(whole - part, "{} square metres are left."),
            f"How many square metres of the {place} are still to paint?",
            f"How many square metres of the {place} are not painted?",
        )
    elif kind == 1:
        _second_area(s, place, whole, (width, length))
    else:
        _paint(s, str(who), place, whole)


def _second_area(s: Story, place: str, whole: Node, sides: tuple[Node, Node]) -> None:
    """Another rectangle beside the first one, or a smaller one in it."""
    a, b = s.draw(2, 9), s.draw(2, 9)
    if s.chance(0.5):
        s.say(
            f"Next to this {place} there is another {place} of {a} by {b} metres.",
            f"Another {place} is {a} metres long and {b} metres wide.",
        )
        second = s.derive(a * b, f"The other {place} has {{}} square metres.")
        both = s.derive(whole + second, f"Both {place}s have {{}} square metres.")
        s.ask(both, f"How many square metres do both {place}s have together?")
        return
    if any(
        outer.value < inner
        for outer, inner in zip(sorted(sides, key=lambda side: side.value), sorted((a.value, b.value)), strict=True)
    ):
        raise Rejected
    inner = OPENINGS[place]
    s.say(
        f"A {inner} of {a} by {b} metres takes a part of the {place}.",
        f"The {place} has a {inner} of {a} by {b} metres.",
    )
    second = s.derive(a * b, f"The {inner} has {{}} square metres.")
    s.ask(
        s.derive(whole - second, "The rest is {} square metres."),
        f"How many square metres of the {place} are outside the {inner}?",
        f"How many square metres does the {place} have without the {inner}?",
    )


def _paint(s: Story, who: str, place: str, whole: Node) -> None:
    """Cans of paint for the whole area, or their price."""
    each = s.divisor(whole, 2, 10)
    s.say(f"One can of paint is enough for {each} square metres.", f"{who} paints {each} square metres with one can.")
    cans = s.derive(whole / each, f"{who} needs {{}} cans.")
    if s.chance(0.5):
        s.ask(cans, f"How many cans does {who} need to paint the whole {place}?")
        return
    price = s.draw(2, 12)
    s.say(f"A can costs {price} dollars.", f"{who} pays {price} dollars for each can.")
    s.ask(
        s.derive(cans * price, "The cans cost {} dollars."),
        f"How many dollars does the paint for the whole {place} cost?",
    )


@family
def garden_rows(s: Story) -> None:
    """Rows of plants of two kinds, some dead or picked."""
    who = s.person()
    first, second = s.things(PLANTS, 2)
    n, p, m, q = s.draw(2, 9), s.draw(3, 12), s.draw(2, 9), s.draw(3, 12)
    s.facts(
        s.pick(
            f"{who} plants {n} rows of {first} with {p} in each row.", f"There are {p} {first} in each of {n} rows."
        ),
        s.pick(
            f"{who} plants {m} rows of {second} with {q} in each row.", f"There are {q} {second} in each of {m} rows."
        ),
    )
    s.aside(
        "It takes {} days to do this.", "The garden is {} metres long.", f"{who} paid {{}} dollars for water.", low=2
    )
    a = s.derive(n * p, f"There are {{}} {first}.")
    b = s.derive(m * q, f"There are {{}} {second}.")
    kind = s.rng.randrange(4)
    if kind == 0:
        high, low, more, less = (a, b, first, second) if a.value > b.value else (b, a, second, first)
        s.ask(
            s.derive(high - low, "The difference is {}."),
            f"How many more {more} than {less} are there?",
            f"How many fewer {less} than {more} are there?",
        )
    elif kind == 1:
        s.ask(s.derive(a + b, "Together there are {} plants."), f"How many {first} and {second} are there in total?")
    elif kind == 2:
        dead = s.draw(2, 20)
        s.say(f"Then {dead} of the {first} die.", f"A storm breaks {dead} of the {first}.")
        left = s.derive(a - dead, f"{{}} {first} are left.")
        s.ask(s.derive(left + b, "Together {} plants are left."), f"How many {first} and {second} are left together?")
    else:
        row = s.derive(n + m, "There are {} rows.")
        minutes = s.draw(2, 10)
        s.say(f"It takes {minutes} minutes to water one row.", f"Watering one row takes {minutes} minutes.")
        s.ask(s.derive(row * minutes, "All rows take {} minutes."), "How many minutes does it take to water all rows?")
