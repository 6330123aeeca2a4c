"""Reading, machines working together, production minus broken, recipes, mixtures and tanks."""

from __future__ import annotations

from irl_core.data.word_problems.families.registry import family
from irl_core.data.word_problems.story import Story
from irl_core.data.word_problems.words import GOODS


@family
def reading(s: Story) -> None:
    """Pages a day for some days or weeks: pages read, pages left, or days needed."""
    who, other = s.person(), s.person()
    rate, days = s.draw(3, 12), s.draw(2, 9)
    weekly = s.chance(0.25)
    s.say(f"{who} reads {rate} pages of a book each day.", f"Each day {who} reads {rate} pages of a book.")
    s.aside(
        f"A friend of {who} reads {{}} pages each day.",
        f"{who} has {{}} other books.",
        "The book costs {} dollars.",
        low=2,
        high=15,
    )
    kind = s.rng.randrange(3)
    if kind == 0:
        s.forget(days)
        before, total = s.draw(5, 40), s.given(rate.value * s.rng.randint(2, 9) + s.rng.choice((20, 30, 40)))
        s.say(
            f"The book has {total} pages, and {who} has already read {before}.",
            f"{who} has read {before} of the {total} pages so far.",
        )
        left = s.derive(total - before, f"{who} has {{}} pages left.")
        s.ask(
            s.derive(left / rate, "That takes {} days."),
            f"How many more days does {who} need?",
            f"In how many days will {who} finish the book?",
        )
        return
    if weekly:
        s.forget(days)
        weeks, seven = s.draw(2, 3), s.constant(7)
        days = s.derive(weeks * seven, f"{weeks} weeks are {{}} days.")
        s.say(f"{who} reads for {weeks} weeks.", f"{who} goes on for {weeks} weeks.")
        total_read = s.derive(days * rate, f"In that time {who} reads {{}} pages.")
    else:
        s.say(f"{who} reads for {days} days.", f"{who} goes on for {days} days.")
        total_read = s.derive(rate * days, f"In that time {who} reads {{}} pages.")
    if kind == 1:
        total = s.draw(60, 160)
        s.say(f"The book has {total} pages.", f"There are {total} pages in the book.")
        s.ask(
            s.derive(total - total_read, f"{who} has {{}} pages left."),
            f"How many pages does {who} still have to read after that?",
            "How many pages of the book are left after that?",
        )
        return
    extra, more = s.draw(2, 25), s.chance(0.5)
    s.say(
        f"In the same time {other} reads {extra} {'more' if more else 'fewer'} pages than {who}.",
        f"In the same time {who} reads {extra} {'fewer' if more else 'more'} pages than {other}.",
    )
    theirs = s.derive(total_read + extra if more else total_read - extra, f"{other} reads {{}} pages.")
    if s.chance(0.6):
        s.ask(theirs, f"How many pages does {other} read?")
    else:
        s.ask(
            s.derive(total_read + theirs, "Together they read {} pages."),
            f"How many pages do {who} and {other} read together?",
        )


@family
def machines(s: Story) -> None:
    """Two machines at two rates: together, the difference, or the time for an order."""
    thing = s.things(GOODS, 1)[0]
    p, q = s.draw(2, 12), s.draw(2, 12)
    s.facts(
        s.pick(f"The old machine makes {p} {thing} an hour.", f"In one hour the old machine makes {p} {thing}."),
        s.pick(f"The new machine makes {q} {thing} an hour.", f"In one hour the new machine makes {q} {thing}."),
    )
    s.aside(
        "The new machine is {} years old.", f"One {thing.one} costs {{}} dollars.", "{} people work in the factory."
    )
    kind = s.rng.randrange(4)
    if kind == 0:
        rate = s.derive(p + q, f"Together they make {{}} {thing} an hour.")
        order = s.given(rate.value * s.rng.randint(2, 9))
        s.say(f"Both work on an order of {order} {thing}.", f"Both machines run until they have made {order} {thing}.")
        s.ask(
            s.derive(order / rate, "They need {} hours."),
            "How many hours do they need together?",
            "After how many hours are they done?",
        )
        return
    if kind == 1:
        hours = s.draw(2, 9)
        s.say(f"Both machines run for {hours} hours.", f"Both machines work for {hours} hours.")
        fast, slow = ((p, "old"), (q, "new")) if p.value > q.value else ((q, "new"), (p, "old"))
        gap = s.derive(fast[0] - slow[0], f"The {fast[1]} one makes {{}} more an hour.")
        s.ask(
            s.derive(gap * hours, f"In {hours} hours it makes {{}} more."),
            f"How many more {thing} does the {fast[1]} machine make than the {slow[1]} one?",
            f"How many fewer {thing} does the {slow[1]} machine make than the {fast[1]} one?",
        )
        return
    n, m = s.draw(2, 9), s.draw(2, 9)
    s.say(
        f"The old machine runs for {n} hours and the new one for {m} hours.",
        f"The new machine runs for {m} hours and the old one for {n} hours.",
    )
    a = s.derive(p * n, f"The old machine makes {{}} {thing}.")
    b = s.derive(q * m, f"The new machine makes {{}} {thing}.")
    total = s.derive(a + b, f"Both make {{}} {thing} together.")
    if kind == 2:
        bad = s.draw(2, 12)
        s.say(f"Of all the {thing}, {bad} are broken.", f"{bad} of all these {thing} cannot be sold.")
        total = s.derive(total - bad, f"{{}} {thing} are good.")
        s.ask(total, f"How many good {thing} do they make?")
        return
    s.ask(total, f"How many {thing} do both make in total?", f"How many {thing} are made?")


@family
def production(s: Story) -> None:
    """Made by the hour, some broken each hour or once, stock before: what can be sold."""
    place, thing = s.pick("bakery", "factory", "workshop"), s.things(GOODS, 1)[0]
    rate, hours, bad = s.draw(4, 12), s.draw(3, 10), s.draw(2, 8)
    each = s.chance(0.5)
    s.say(
        f"A {place} makes {rate} {thing} each hour for {hours} hours.",
        f"Each hour a {place} makes {rate} {thing}. It works for {hours} hours.",
        f"For {hours} hours a {place} makes {thing}, {rate} in each hour.",
    )
    if each:
        s.say(f"Each hour {bad} of the {thing} are broken.", f"In each hour {bad} of the {thing} break.")
        good = s.derive(
            s.derive(rate - bad, f"{{}} good {thing} are made each hour.") * hours,
            f"In {hours} hours there are {{}} good {thing}.",
        )
    else:
        s.say(f"On that day {bad} of the {thing} are broken.", f"In the end {bad} of the {thing} are broken.")
        good = s.derive(s.derive(rate * hours, f"{{}} {thing} are made.") - bad, f"{{}} of the {thing} are good.")
    s.aside(
        f"The {place} has {{}} workers.", f"One {thing.one} weighs {{}} grams.", "Yesterday it worked for {} hours."
    )
    kind = s.rng.randrange(3)
    if kind == 0:
        s.ask(good, f"How many good {thing} does the {place} make?", f"How many {thing} that are not broken are there?")
    elif kind == 1:
        stock = s.draw(5, 40)
        s.say(f"There were {stock} good {thing} from the day before.", f"The {place} already had {stock} good {thing}.")
        s.ask(
            s.derive(good + stock, f"The {place} has {{}} good {thing} in total."),
            f"How many good {thing} does the {place} have now?",
        )
    else:
        shops = s.divisor(good, 2, 10)
        s.say(
            f"The good ones go to {shops} shops, the same number to each.",
            f"{shops} shops share the good ones equally.",
        )
        s.ask(s.derive(good / shops, f"Each shop gets {{}} {thing}."), f"How many {thing} does each shop get?")


@family
def recipe(s: Story) -> None:
    """A recipe for some people or loaves, scaled, and compared with what is in the kitchen."""
    who = s.person()
    first, second = s.rng.sample(("flour", "milk", "oil", "rice", "water"), 2)
    dish = s.pick("cakes", "loaves", "pots of soup", "pizzas")
    one = {"cakes": "cake", "loaves": "loaf", "pots of soup": "pot of soup", "pizzas": "pizza"}[dish]
    p, q, n = s.draw(2, 9), s.draw(2, 9), s.draw(2, 10)
    s.say(
        f"One {one} needs {p} cups of {first} and {q} cups of {second}.",
        f"For one {one}, {who} uses {q} cups of {second} and {p} cups of {first}.",
    )
    s.say(f"{who} makes {n} {dish}.", f"{who} wants to make {n} {dish}.")
    s.aside(
        f"It takes {{}} minutes to make one {one}.", "In the evening {} guests come.", f"{who} also buys {{}} eggs."
    )
    kind = s.rng.choice((0, 1, 2, 3, 3))
    if kind == 0:
        both = s.derive(p + q, f"One {one} needs {{}} cups in total.")
        s.ask(
            s.derive(both * n, f"All {dish} need {{}} cups."),
            f"How many cups of {first} and {second} are needed in total?",
        )
        return
    a = s.derive(p * n, f"All {dish} need {{}} cups of {first}.")
    if kind == 1:
        have = s.draw(3, 40)
        s.say(f"{who} has {have} cups of {first}.", f"There are {have} cups of {first} in the kitchen.")
        if have.value < a.value:
            s.ask(
                s.derive(a - have, f"{who} needs {{}} more cups."),
                f"How many more cups of {first} does {who} need?",
                f"How many cups of {first} are missing?",
            )
        else:
            s.ask(
                s.derive(have - a, f"{{}} cups of {first} are left."), f"How many cups of {first} are left after that?"
            )
        return
    if kind == 2:
        bag = s.divisor(a, 2, 8)
        s.say(f"The {first} is sold in packs of {bag} cups.", f"One pack holds {bag} cups of {first}.")
        s.ask(s.derive(a / bag, f"That is {{}} packs of {first}."), f"How many packs of {first} does {who} need?")
        return
    b = s.derive(q * n, f"All {dish} need {{}} cups of {second}.")
    high, low = ((a, first), (b, second)) if a.value > b.value else ((b, second), (a, first))
    s.ask(
        s.derive(high[0] - low[0], "That is {} more cups."),
        f"How many more cups of {high[1]} than of {low[1]} are needed?",
    )


@family
def mixture(s: Story) -> None:
    """Parts of two liquids: the total, one of them, or how many cups it fills."""
    first, second = s.rng.sample(("juice", "water", "tea", "milk", "syrup"), 2)
    who = s.person()
    litres = s.pick("litres", "cups")
    a, n = s.draw(3, 20), s.constant(s.rng.choice((2, 3, 4)))
    times = {2: "twice", 3: "three times", 4: "four times"}[n.value]
    up = s.chance(0.5)
    s.say(f"{who} mixes {first} and {second} for a party.", f"For a party {who} makes a drink of {second} and {first}.")
    s.say(f"There are {a} {litres} of {first} in the drink.", f"The drink has {a} {litres} of {first}.")
    s.say(
        f"{who} uses {times} as much {second} as {first}." if up else f"{who} uses {times} as much {first} as {second}."
    )
    b = s.derive(a * n if up else a / n, f"There are {{}} {litres} of {second}.")
    s.aside("Ice costs {} dollars.", f"{{}} guests like {first}.", f"{who} adds {{}} slices of lemon.")
    total = s.derive(a + b, f"In total there are {{}} {litres}.", f"The whole drink has {{}} {litres}.")
    kind = s.rng.randrange(3)
    if kind == 0:
        drunk = s.draw(2, 30)
        s.say(f"The guests drink {drunk} {litres}.", f"After an hour {drunk} {litres} of the drink are gone.")
        s.ask(s.derive(total - drunk, f"{{}} {litres} are left."), f"How many {litres} are left?")
    elif kind == 1:
        jugs = s.divisor(total, 2, 12)
        s.say(
            f"{who} fills {jugs} jugs equally with the drink.", f"The drink is put into {jugs} jugs, the same in each."
        )
        s.ask(s.derive(total / jugs, f"Each jug gets {{}} {litres}."), f"How many {litres} are in each jug?")
    else:
        s.ask(
            total,
            f"How many {litres} of the drink are there?",
            f"How many {litres} of {first} and {second} are used in total?",
        )


@family
def tank(s: Story) -> None:
    """A tank that fills or drains, with a second pipe for or against."""
    start, p, q, minutes = s.draw(5, 60), s.draw(4, 12), s.draw(2, 9), s.draw(2, 9)
    helps, unit = s.chance(0.4), s.pick("minute", "hour")
    s.say(f"There are {start} litres of water in a tank.", f"A tank has {start} litres of water in it.")
    s.facts(
        s.pick(f"A red pipe brings in {p} litres each {unit}.", f"Each {unit}, {p} litres come in through a red pipe."),
        (
            s.pick(f"A blue pipe brings in {q} litres each {unit}.", f"Each {unit}, a blue pipe adds {q} litres.")
            if helps
            else s.pick(f"A leak lets {q} litres out each {unit}.", f"Each {unit}, {q} litres are lost through a hole.")
        ),
    )
    s.aside("The tank is {} years old.", "The red pipe is {} metres long.", "A bucket holds {} litres.")
    net = s.derive(p + q if helps else p - q, f"The tank gains {{}} litres each {unit}.")
    if s.chance(0.4):
        s.forget(minutes)
        goal = s.given(start.value + net.value * s.rng.randint(2, 9))
        missing = s.derive(goal - start, "{} litres are missing.")
        s.say(f"The tank is full at {goal} litres.", f"A full tank holds {goal} litres.")
        s.ask(
            s.derive(missing / net, f"It takes {{}} {unit}s."),
            f"How many {unit}s does it take to fill the tank?",
            f"In how many {unit}s is the tank full?",
        )
        return
    gain = s.derive(net * minutes, f"In {minutes} {unit}s it gains {{}} litres.")
    if s.chance(0.35):
        s.ask(gain, f"How many litres more are there after {minutes} {unit}s?")
        return
    s.ask(
        s.derive(start + gain, "Then the tank has {} litres."),
        f"How many litres are in the tank after {minutes} {unit}s?",
        f"How much water in litres is there after {minutes} {unit}s?",
    )
