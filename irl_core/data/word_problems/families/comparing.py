"""Comparisons of people, ages, scores and heights."""

from __future__ import annotations

from irl_core.data.word_problems.families.registry import family
from irl_core.data.word_problems.relations import relate
from irl_core.data.word_problems.story import Story
from irl_core.data.word_problems.words import FOODS, GOODS, TOYS


@family
def comparison(s: Story) -> None:
    """Three people tied by two relations; a total, a difference, or one of them."""
    x, y, z = (str(s.person()) for _ in range(3))
    thing = str(s.things(TOYS + GOODS + FOODS, 1)[0])
    verb = s.pick("has", "owns")
    a = s.draw(4, 40)
    first, b = relate(s, a, x, y, thing, f"{y} {verb} {{}} {thing}.", verb)
    anchor, name = s.pick_pair((a, x), (b, y))
    second, c = relate(s, anchor, name, z, thing, f"{z} {verb} {{}} {thing}.", verb)
    s.facts(f"{x} {verb} {a} {thing}.", first, second)
    s.aside(f"{x} is more than {{}} years old.", f"{y} lives in house number {{}}.", f"{z} also has {{}} pencils.")
    kind = s.rng.randrange(4)
    if kind == 0:
        s.ask(c, f"How many {thing} does {z} have?")
    elif kind == 1 and c.value != b.value:
        more, less = ((c, z), (b, y)) if c.value > b.value else ((b, y), (c, z))
        gap = s.derive(more[0] - less[0], "The difference is {}.")
        s.ask(
            gap,
            f"How many more {thing} does {more[1]} have than {less[1]}?",
            f"How many fewer {thing} does {less[1]} have than {more[1]}?",
        )
    elif kind == 2:
        s.ask(s.derive(b + c, f"{y} and {z} have {{}} {thing}."), f"How many {thing} do {y} and {z} have together?")
    else:
        two = s.derive(a + b, f"{x} and {y} have {{}} {thing}.")
        s.ask(
            s.derive(two + c, f"All three have {{}} {thing}."),
            f"How many {thing} do the three have together?",
            f"How many {thing} do all three have in total?",
        )


@family
def ages(s: Story) -> None:
    """Ages now, before and later."""
    x, y = s.person(), s.person()
    a = s.draw(5, 40)
    older, direction = s.chance(0.5), s.chance(0.5)
    years = s.draw(2, 12)
    if s.chance(0.6):
        gap = s.draw(2, 20)
        b = s.derive(a + gap if older else a - gap, f"{y} is {{}} years old now.")
        fact = s.pick(
            f"{y} is {gap} years {'older' if older else 'younger'} than {x}.",
            f"{x} is {gap} years {'younger' if older else 'older'} than {y}.",
        )
    else:
        factor = s.constant(s.rng.choice((2, 3)))
        word = "twice" if factor.value == 2 else "three times"
        b = s.derive(a * factor if older else a / factor, f"{y} is {{}} years old now.")
        fact = f"{y} is {word} as old as {x}." if older else f"{x} is {word} as old as {y}."
    s.facts(s.pick(f"{x} is {a} years old.", f"{x} is now {a} years old."), fact)
    s.aside(f"{y} has {{}} cousins.", f"{x} lives in house number {{}}.", "They live {} km from the sea.")
    kind = s.rng.randrange(4)
    if kind == 0:
        later = s.derive(
            b + years if direction else b - years, f"Then {y} {'will be' if direction else 'was'} {{}} years old."
        )
        s.ask(later, f"How old will {y} be in {years} years?" if direction else f"How old was {y} {years} years ago?")
    elif kind == 1:
        total = s.derive(a + b, "Together they are {} years old.")
        third = s.person()
        s.say(f"{third} is {years} years {'older' if direction else 'younger'} than {x} and {y} are together.")
        s.ask(
            s.derive(total + years if direction else total - years, f"{third} is {{}} years old."),
            f"How old is {third}?",
        )
    elif kind == 2:
        third = s.person()
        c = s.derive(b - years if direction else b + years, f"{third} is {{}} years old now.")
        s.say(
            f"{third} is {years} years {'younger' if direction else 'older'} than {y}.",
            f"{y} is {years} years {'older' if direction else 'younger'} than {third}.",
        )
        s.ask(
            s.derive(a + c, f"{x} and {third} are {{}} years old together."), f"How old are {x} and {third} together?"
        ) if s.chance(0.5) else s.ask(c, f"How old is {third}?")
    else:
        s.ask(s.derive(a + b, "Together they are {} years old now."), f"How many years old are {x} and {y} together?")


@family
def scores(s: Story) -> None:
    """Points of a game: shots of two kinds, rounds won and lost, a lead over another team."""
    x, y = s.person(), s.person()
    n, m = s.draw(2, 12), s.draw(2, 12)
    p, q = s.draw(2, 6), s.draw(2, 6)
    s.say(
        f"In a game a red card gives {p} points and a blue card gives {q} points.",
        f"In a game, blue cards give {q} points each and red cards give {p} points each.",
    )
    s.say(f"{x} gets {n} red cards and {m} blue cards.", f"{x} has {m} blue cards and {n} red cards.")
    s.aside("The game has {} green cards.", f"{y} plays for {{}} minutes.", f"{x} has played for {{}} years.", low=2)
    a = s.derive(n * p, "The red cards give {} points.")
    b = s.derive(m * q, "The blue cards give {} points.")
    total = s.derive(a + b, f"{x} has {{}} points.")
    kind = s.rng.randrange(3)
    if kind == 0:
        lost = s.draw(2, 20)
        s.say(f"Then {x} loses {lost} points for a mistake.", f"For a mistake {lost} points are taken from {x}.")
        total = s.derive(total - lost, f"{x} ends with {{}} points.")
        s.ask(total, f"How many points does {x} have at the end?")
    elif kind == 1:
        other = s.draw(10, 90)
        s.say(f"{y} has {other} points.", f"{y} ends with {other} points.")
        up = total.value > other.value
        gap = s.derive(total - other if up else other - total, "The difference is {} points.")
        s.ask(gap, f"By how many points does {x if up else y} win?", f"How many points is {y if up else x} behind?")
    else:
        sentence, other = relate(s, total, str(x), str(y), "points", f"{y} has {{}} points.")
        s.say(sentence)
        if s.chance(0.5):
            s.ask(other, f"How many points does {y} have?")
        else:
            s.ask(
                s.derive(total + other, "Together they have {} points."),
                f"How many points do {x} and {y} have together?",
            )


@family
def heights(s: Story) -> None:
    """Plants or towers that grow by the week and are compared."""
    tall, other = s.rng.sample(("rose", "bean", "sunflower", "tree", "vine"), 2)
    start, rate, weeks = s.draw(3, 30), s.draw(2, 9), s.draw(2, 9)
    unit = s.pick("week", "month", "day")
    s.facts(
        s.pick(f"A {tall} is {start} cm tall.", f"The height of a {tall} is {start} cm."),
        s.pick(f"The {tall} grows {rate} cm each {unit}.", f"Each {unit} the {tall} gets {rate} cm taller."),
    )
    if s.sentences[0].startswith(("The " + tall, "Each")):
        s.sentences.reverse()
    s.aside(
        f"The {tall} has {{}} leaves.",
        f"The {tall} gets {{}} cups of water each {unit}.",
        "The garden has {} plants.",
    )
    grown = s.derive(rate * weeks, "It grows {} cm in that time.", f"In {weeks} {unit}s it grows {{}} cm.")
    final = s.derive(start + grown, f"Then the {tall} is {{}} cm tall.")
    kind = s.rng.randrange(3)
    if kind == 0:
        s.ask(
            final,
            f"How tall is the {tall} in cm after {weeks} {unit}s?",
            f"How many cm tall will the {tall} be in {weeks} {unit}s?",
        )
        return
    if kind == 1:
        cut = s.draw(2, 12)
        s.say(f"After {weeks} {unit}s, {cut} cm are cut off.", f"Somebody cuts off {cut} cm after {weeks} {unit}s.")
        s.ask(s.derive(final - cut, "After the cut it is {} cm tall."), f"How tall is the {tall} in cm after the cut?")
        return
    gap, above = s.draw(2, 15), s.chance(0.5)
    s.say(
        f"After {weeks} {unit}s, a {other} is {gap} cm {'taller' if above else 'shorter'} than the {tall}.",
        f"After {weeks} {unit}s, the {tall} is {gap} cm {'shorter' if above else 'taller'} than a {other}.",
    )
    s.ask(
        s.derive(final + gap if above else final - gap, f"The {other} is {{}} cm tall."),
        f"How tall is the {other} in cm then?",
    )
