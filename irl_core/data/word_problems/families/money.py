"""Prices, change, tickets, savings, wages, discounts and profit."""

from __future__ import annotations

from irl_core.data.word_problems.families.registry import family
from irl_core.data.word_problems.story import Node, Story
from irl_core.data.word_problems.words import FOODS, GOODS, PLANTS, TOYS


@family
def shopping(s: Story) -> None:
    """Two things at two prices: the total, the difference, the change or the missing money."""
    who = s.person()
    first, second, third = s.things(FOODS + GOODS, 3)
    n, m, p, q = s.draw(2, 9), s.draw(2, 9), s.draw(2, 12), s.draw(2, 12)
    s.facts(
        s.pick(f"One {first.one} costs {p} dollars.", f"The price of one {first.one} is {p} dollars."),
        s.pick(f"One {second.one} costs {q} dollars.", f"The price of one {second.one} is {q} dollars."),
        s.pick(
            f"{who} buys {n} {first} and {m} {second}.", f"{who} needs {m} {second} and {n} {first}, and buys them all."
        ),
    )
    s.aside(f"One {third.one} costs {{}} dollars, so {who} buys none.", f"There are {{}} {third} in the shop.", high=15)
    a = s.derive(n * p, f"The {first} cost {{}} dollars.")
    b = s.derive(m * q, f"The {second} cost {{}} dollars.")
    kind = s.rng.randrange(4)
    if kind == 0:
        s.ask(
            _more(s, a, b),
            f"How many dollars more do the {first if a.value > b.value else second} cost than the "
            f"{second if a.value > b.value else first}?",
        )
        return
    total = s.derive(a + b, f"{who} pays {{}} dollars in total.", "Together they cost {} dollars.")
    if kind == 1:
        s.ask(total, f"How many dollars does {who} pay in total?", "What do all of them cost together?")
        return
    money = s.draw(20, 100, 5)
    s.say(f"{who} had {money} dollars before that.", f"{who} came to the shop with {money} dollars.")
    left = s.derive(money - total, f"{who} has {{}} dollars left.", f"Then {who} keeps {{}} dollars.")
    s.ask(left, f"How many dollars does {who} have left?", f"How much money is left for {who} after that?")


def _more(s: Story, a: Node, b: Node) -> Node:
    high, low = (a, b) if a.value > b.value else (b, a)
    return s.derive(high - low, "The difference is {} dollars.")


@family
def change_due(s: Story) -> None:
    """A bill, sometimes with a coupon or a fee, and the change; or money that is still missing."""
    who, seller = s.person(), s.person()
    thing = s.things(GOODS, 1)[0]
    n, p, extra = s.draw(2, 9), s.draw(3, 12), s.draw(2, 9)
    s.say(
        f"{who} orders {n} {thing} for {p} dollars each.",
        f"{seller} sells {thing} for {p} dollars each, and {who} takes {n}.",
        f"A shop asks {p} dollars for one {thing.one}. {who} takes {n} of them.",
    )
    cost = s.derive(n * p, f"The {thing} cost {{}} dollars.", f"{n} {thing} cost {{}} dollars.")
    if s.chance(0.5):
        s.say(
            f"A coupon takes {extra} dollars off the bill.",
            f"{who} has a coupon for {extra} dollars off the whole bill.",
        )
        bill = s.derive(cost - extra, "With the coupon the bill is {} dollars.")
    else:
        s.say(f"Delivery costs {extra} dollars more.", f"There is a fee of {extra} dollars for the whole order.")
        bill = s.derive(cost + extra, "With the fee the bill is {} dollars.")
    s.aside(
        "The shop has been open for {} years.",
        f"The shop sells {{}} kinds of {thing}.",
        f"{who} waits for {{}} minutes.",
    )
    if s.chance(0.5):
        money = s.draw(20, 100, 10)
        s.say(f"{who} hands over {money} dollars.", f"{who} pays with {money} dollars.")
        s.ask(
            s.derive(money - bill, f"{who} gets {{}} dollars back.", "The change is {} dollars."),
            f"How many dollars does {who} get back?",
            "How many dollars is the change?",
        )
    else:
        money = s.draw(5, 40)
        s.say(f"{who} has only {money} dollars.", f"{who} has just {money} dollars.")
        s.ask(
            s.derive(bill - money, f"{who} needs {{}} more dollars."),
            f"How many more dollars does {who} need?",
            f"How much money is {who} missing?",
        )


@family
def tickets(s: Story) -> None:
    """Adult and child tickets, easy to confuse: total, difference, one kind only, or the price from the total."""
    place = s.pick("zoo", "museum", "fair", "pool", "show")
    adults, children, p, q = s.draw(2, 8), s.draw(2, 10), s.draw(4, 12), s.draw(2, 9)
    who = s.person()
    s.facts(
        s.pick(f"An adult ticket for the {place} costs {p} dollars.", f"Adults pay {p} dollars each at the {place}."),
        s.pick(f"A child ticket costs {q} dollars.", f"Children pay {q} dollars each."),
    )
    s.say(
        f"{who} buys tickets for {adults} adults and {children} children.",
        f"A group of {children} children and {adults} adults goes in.",
        f"{children} children come with {adults} adults.",
    )
    s.aside(
        f"The {place} is open for {{}} hours a week.",
        f"There are {{}} seats at the {place}.",
        "A drink costs {} dollars.",
        low=2,
    )
    if s.chance(0.2):
        people = s.derive(adults + children, "There are {} people.")
        lunch = s.draw(2, 9)
        s.say(f"Lunch costs {lunch} dollars for each person, adult or child.")
        s.ask(
            s.derive(people * lunch, "Lunch costs {} dollars for all."),
            "How many dollars does lunch cost for all of them?",
        )
        return
    a = s.derive(adults * p, "The adults pay {} dollars.", "Adult tickets cost {} dollars.")
    c = s.derive(children * q, "The children pay {} dollars.", "Child tickets cost {} dollars.")
    if s.chance(0.4):
        high, low = ("adults", "children") if a.value > c.value else ("children", "adults")
        s.ask(
            _more(s, a, c),
            f"How many dollars more do the {high} pay than the {low}?",
            f"How many dollars less do the {low} pay than the {high}?",
        )
        return
    total = s.derive(a + c, "All tickets cost {} dollars.", "Together they pay {} dollars.")
    if s.chance(0.4):
        off = s.draw(2, 12)
        s.say(
            f"As a group they get {off} dollars off the total.", f"They have a coupon for {off} dollars off the total."
        )
        total = s.derive(total - off, "With that they pay {} dollars.")
    s.ask(total, "How many dollars do they pay in total?", "How much do all the tickets cost together?")


@family
def savings(s: Story) -> None:
    """Saving weekly towards a goal: the total, the missing money, or the weeks that remain."""
    who, thing = s.person(), s.pick("bike", "phone", "tent", "guitar", "camera")
    rate, weeks, start = s.draw(3, 12), s.draw(2, 9), s.draw(5, 40)
    unit = s.pick("week", "month", "day")
    s.facts(
        s.pick(f"{who} saves {rate} dollars each {unit}.", f"Each {unit}, {who} puts {rate} dollars into a box."),
        s.pick(f"{who} already had {start} dollars.", f"At the start {who} has {start} dollars."),
    )
    s.aside(
        f"{who} has {{}} dollars in another bank and leaves them there.",
        f"A friend of {who} saves {{}} dollars each {unit}.",
        f"{who} has {{}} cousins.",
    )
    kind = s.rng.randrange(3)
    if kind == 0:
        goal = s.given(start.value + rate.value * weeks.value)
        s.say(f"A {thing} costs {goal} dollars.", f"{who} wants a {thing} for {goal} dollars.")
        missing = s.derive(goal - start, f"{who} needs {{}} more dollars.")
        s.forget(weeks)
        s.ask(
            s.derive(missing / rate, f"That takes {{}} {unit}s."),
            f"How many {unit}s does {who} need to save for the {thing}?",
            f"After how many {unit}s can {who} buy the {thing}?",
        )
        return
    saved = s.derive(rate * weeks, f"In that time {who} saves {{}} dollars.", f"{who} saves {{}} dollars.")
    total = s.derive(saved + start, f"Then {who} has {{}} dollars.", f"With the first money {who} has {{}} dollars.")
    s.say(f"{who} saves for {weeks} {unit}s.", f"{who} goes on for {weeks} {unit}s.")
    if kind == 1:
        spent = s.draw(4, 30)
        s.say(f"Then {who} spends {spent} dollars on a gift.", f"After that {who} gives {spent} dollars to a friend.")
        s.ask(
            s.derive(total - spent, f"{who} has {{}} dollars left."),
            f"How many dollars does {who} have left?",
            f"How much money does {who} have now?",
        )
        return
    goal = s.draw(50, 160, 5)
    s.say(f"A {thing} costs {goal} dollars.", f"{who} wants a {thing} for {goal} dollars.")
    s.ask(
        s.derive(goal - total, f"{who} still needs {{}} dollars."),
        f"How many dollars does {who} still need after that?",
        f"How much money is still missing for the {thing} after that?",
    )


@family
def wages(s: Story) -> None:
    """Hours at two pay rates; the total, the difference, or what is left after a cost."""
    who, other = s.person(), s.person()
    p, h, q, k = s.draw(5, 12), s.draw(2, 9), s.draw(5, 12), s.draw(2, 9)
    same = s.chance(0.5)
    second = who if same else other
    jobs = s.rng.sample(("in a cafe", "on a farm", "in a library", "at a hotel"), 2)
    s.facts(
        s.pick(
            f"{who} earns {p} dollars an hour {jobs[0]} and works {h} hours there.",
            f"For {h} hours {who} works {jobs[0]}, at {p} dollars an hour.",
        ),
        s.pick(
            f"{second} works {k} hours {jobs[1]} for {q} dollars an hour.",
            f"{second} is paid {q} dollars an hour {jobs[1]} and works {k} hours there.",
        ),
    )
    s.aside(
        f"{who} travels {{}} minutes to work.",
        f"{who} has worked {jobs[0]} for {{}} months.",
        f"A friend of {who} earns {{}} dollars an hour.",
    )
    a = s.derive(p * h, f"{who} earns {{}} dollars {jobs[0]}.")
    b = s.derive(q * k, f"{second} earns {{}} dollars {jobs[1]}.")
    kind = s.rng.randrange(3)
    if kind == 0:
        high, low = (0, 1) if a.value > b.value else (1, 0)
        names = (who, second)
        s.ask(
            _more(s, a, b),
            f"How many dollars more does {names[high]} earn {jobs[high]} than {names[low]} earns {jobs[low]}?"
            if not same
            else f"How many dollars more does {who} earn {jobs[high]} than {jobs[low]}?",
        )
        return
    total = s.derive(a + b, "Together that is {} dollars.", "In total that is {} dollars.")
    if kind == 1:
        cost = s.draw(5, 40)
        s.say(f"From this money {cost} dollars go to the bus.", f"Of all this money, {cost} dollars are spent on food.")
        s.ask(s.derive(total - cost, "After that {} dollars are left."), "How many dollars are left?")
        return
    s.ask(
        total,
        f"How many dollars does {who} earn in total?"
        if same
        else f"How many dollars do {who} and {other} earn together?",
    )


@family
def discount(s: Story) -> None:
    """A percentage off a price: the new price, the price of several, or the money saved."""
    who, thing = s.person(), s.things(GOODS, 1)[0]
    percent, divisor = s.rng.choice(((10, 10), (20, 5), (25, 4), (50, 2)))
    s.constant(percent)
    part = s.constant(divisor)
    price, n = s.given(divisor * s.rng.randint(2, 3 if divisor > 2 else 12)), s.draw(2, 6)
    s.say(
        f"A {thing.one} usually costs {price} dollars, but today it is {percent} percent off.",
        f"Today a shop takes {percent} percent off a {thing.one} of {price} dollars.",
        f"The price of one {thing.one} was {price} dollars, and now it is {percent} percent lower.",
    )
    off = s.derive(price / part, f"The discount on one {thing.one} is {{}} dollars.", "{} dollars are taken off.")
    s.say(f"{who} buys {n} {thing} today.", f"Today {who} takes {n} {thing}.")
    s.aside(
        "The sale ends in {} days.",
        f"{who} sees {{}} other people in the shop.",
        f"{who} already has {{}} {thing} at home.",
    )
    if s.chance(0.15):
        s.ask(s.derive(off * n, f"{who} saves {{}} dollars."), f"How many dollars does {who} save in total?")
        return
    new = s.derive(price - off, f"One {thing.one} now costs {{}} dollars.", "The new price is {} dollars.")
    total = s.derive(new * n, f"{who} pays {{}} dollars.")
    if s.chance(0.5):
        s.ask(total, f"How many dollars does {who} pay?", f"What does {who} pay for all the {thing}?")
        return
    money = s.draw(20, 150, 10)
    s.say(f"{who} had {money} dollars.", f"{who} pays with {money} dollars.")
    s.ask(s.derive(money - total, f"{who} keeps {{}} dollars."), f"How many dollars does {who} have after that?")


@family
def profit(s: Story) -> None:
    """Bought at one price and sold at another: profit, money taken in, or profit for each."""
    who, thing = s.person(), s.things(FOODS + TOYS + PLANTS, 1)[0]
    n, low, gain, kept = s.draw(3, 10), s.draw(2, 8), s.draw(2, 5), s.draw(2, 5)
    sale = s.given(low.value + gain.value)
    s.forget(gain)
    s.facts(
        s.pick(
            f"{who} buys {n} {thing} for {low} dollars each.",
            f"{who} gets {n} {thing} at a market, at {low} dollars each.",
        ),
        s.pick(
            f"{who} sells {thing} for {sale} dollars each.",
            f"At a stall {who} asks {sale} dollars for one {thing.one}.",
        ),
    )
    s.aside("The stall is open for {} days.", f"A neighbour sells {thing} for {{}} dollars each.", "{} people walk by.")
    if s.chance(0.5):
        s.say(f"{who} sells all of them.", f"In the end all {thing} are sold.")
        cost = s.derive(n * low, f"{who} spends {{}} dollars.", f"The {thing} cost {who} {{}} dollars.")
        sold = n
    else:
        s.say(f"{who} keeps {kept} of the {thing} and sells the rest.", f"Only {kept} of the {thing} are not sold.")
        cost = s.derive(n * low, f"{who} spends {{}} dollars.", f"The {thing} cost {who} {{}} dollars.")
        sold = s.derive(n - kept, f"{who} sells {{}} {thing}.")
    income = s.derive(sold * sale, "The sale brings {} dollars.", f"{who} takes in {{}} dollars.")
    if sold is not n and s.chance(0.4):
        s.ask(income, f"How many dollars does {who} take in from the sale?")
        return
    s.ask(
        s.derive(income - cost, "The profit is {} dollars."),
        f"How many dollars of profit does {who} make?",
        f"How much more money does {who} have at the end than before?",
    )


@family
def coins(s: Story) -> None:
    """Coins of two values in cents."""
    who = s.person()
    first, second = s.rng.sample(((5, "five-cent"), (10, "ten-cent"), (2, "two-cent")), 2)
    a, b = s.constant(first[0]), s.constant(second[0])
    n, m = s.draw(3, 12), s.draw(3, 12)
    s.say(
        f"{who} has {n} {first[1]} coins and {m} {second[1]} coins.",
        f"In a box of {who} there are {m} {second[1]} coins and {n} {first[1]} coins.",
    )
    s.aside("{} of the coins are old.", f"{who} has {{}} friends.", low=2, high=6)
    x = s.derive(n * a, f"The {first[1]} coins are worth {{}} cents.")
    y = s.derive(m * b, f"The {second[1]} coins are worth {{}} cents.")
    total = s.derive(x + y, "All coins are worth {} cents.")
    price = s.draw(10, 140, 5)
    thing = s.things(FOODS, 1)[0]
    if s.chance(0.35):
        s.ask(total, "How many cents are the coins worth together?", f"How many cents does {who} have?")
    elif price.value < total.value:
        s.say(
            f"{who} buys one {thing.one} for {price} cents.", f"One {thing.one} costs {price} cents, and {who} buys it."
        )
        s.ask(s.derive(total - price, f"{who} has {{}} cents left."), f"How many cents does {who} have left?")
    else:
        s.say(f"One {thing.one} costs {price} cents.", f"{who} wants one {thing.one} for {price} cents.")
        s.ask(
            s.derive(price - total, f"{who} needs {{}} more cents."),
            f"How many more cents does {who} need for the {thing.one}?",
        )
