"""Sharing, packing, fractions, percentages and collections that grow and shrink."""

from __future__ import annotations

from irl_core.data.word_problems.families.registry import family
from irl_core.data.word_problems.relations import change, relate
from irl_core.data.word_problems.story import Rejected, Story
from irl_core.data.word_problems.words import ANIMALS, FOODS, GOODS, TOYS

PARTS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}


@family
def equal_shares(s: Story) -> None:
    """Bags of things, some used, the rest shared: for each, in total, or left over."""
    who, thing = s.person(), s.things(FOODS + TOYS, 1)[0]
    bags, per = s.draw(2, 9), s.draw(3, 12)
    box = s.pick("bag", "box", "jar")
    boxes = "boxes" if box == "box" else f"{box}s"
    s.say(
        f"{who} has {bags} {boxes} with {per} {thing} in each {box}.",
        f"There are {per} {thing} in each {box}, and {who} has {bags} {boxes}.",
        f"{who} buys {bags} {boxes} of {thing}. Each {box} holds {per} {thing}.",
    )
    total = s.derive(bags * per, f"The {boxes} hold {{}} {thing}.", f"{who} has {{}} {thing} in the {boxes}.")
    s.aside(f"Each {box} weighs {{}} grams.", f"{who} is {{}} years old.", f"The {boxes} cost {{}} dollars.")
    if s.chance(0.6):
        used = s.draw(2, 15)
        s.say(
            f"{used} {thing} are lost.",
            f"{who} keeps {used} {thing} for later.",
            f"Before sharing, {who} puts {used} {thing} away.",
        )
        rest = s.derive(total - used, f"Then {{}} {thing} are left to share.", f"{who} can share {{}} {thing}.")
    else:
        more = s.draw(2, 15)
        s.say(f"A friend brings {more} more {thing}.", f"{who} finds {more} more {thing}.")
        rest = s.derive(total + more, f"Then there are {{}} {thing} to share.", f"{who} can share {{}} {thing}.")
    if s.chance(0.6):
        friends = s.divisor(rest, 2, 10)
        s.say(
            f"The rest goes to {friends} children, the same number for each."
            if rest.value < total.value
            else f"All {thing} go to {friends} children, the same number for each.",
            f"Now {friends} children share what is there equally.",
        )
        s.ask(s.derive(rest / friends, f"Each child gets {{}} {thing}."), f"How many {thing} does each child get?")
        return
    friends, each = s.draw(2, 9), s.draw(2, 9)
    s.say(
        f"Each of {friends} children gets {each} {thing} from {who}.",
        f"Then {who} gives {each} {thing} to each of {friends} children.",
    )
    given = s.derive(friends * each, f"The children get {{}} {thing}.")
    s.ask(
        s.derive(rest - given, f"At the end {who} can share {{}} {thing}."),
        f"How many {thing} are left to share after that?",
        f"How many {thing} can {who} still share?",
    )


@family
def packing(s: Story) -> None:
    """Rows or crates, some spoiled, the good ones packed: boxes, left, or difference."""
    thing = s.things(FOODS, 1)[0]
    who = s.person()
    dozens = s.chance(0.3)
    per = s.constant(12) if dozens else s.draw(4, 12)
    n, bad = s.draw(2, 8), s.draw(2, 12)
    if dozens:
        s.say(f"{who} brings {n} dozen {thing} to a kitchen.", f"A kitchen gets {n} dozen {thing} from {who}.")
    else:
        s.say(
            f"{who} fills {n} trays with {per} {thing} on each tray.",
            f"On each tray there are {per} {thing}, and {who} has {n} trays.",
        )
    total = s.derive(n * per, f"There are {{}} {thing} at first.", f"In total there are {{}} {thing}.")
    s.say(
        f"{bad} of the {thing} are bad and thrown away.",
        f"{who} throws {bad} {thing} away.",
        f"{bad} of the {thing} fall down and cannot be used.",
    )
    good = s.derive(total - bad, f"{{}} {thing} are good.", f"Then {{}} {thing} are left.")
    s.aside("The kitchen opens in {} minutes.", "{} people work in the kitchen.", f"Yesterday {who} had {{}} {thing}.")
    if s.chance(0.5):
        size = s.divisor(good, 2, 10)
        s.say(f"The good {thing} are packed in boxes of {size}.", f"{who} puts {size} good {thing} into each box.")
        boxes = s.derive(good / size, "They fill {} boxes.")
        if s.chance(0.4):
            price = s.draw(2, 12)
            s.say(f"One box is sold for {price} dollars.", f"{who} gets {price} dollars for each box.")
            s.ask(s.derive(boxes * price, "The boxes bring {} dollars."), "How many dollars do all the boxes bring?")
            return
        s.ask(boxes, f"How many boxes can {who} fill?", "How many boxes are needed?")
        return
    sold = s.draw(5, 40)
    s.say(f"{who} sells {sold} of the good ones.", f"Then {sold} good {thing} are eaten.")
    s.ask(
        s.derive(good - sold, f"Now {{}} {thing} are left."),
        f"How many good {thing} are left?",
        f"How many good {thing} does {who} still have?",
    )


@family
def fractions(s: Story) -> None:
    """A part of a number goes away, then something else happens to the rest."""
    who, other, thing = s.person(), s.person(), s.things(TOYS + FOODS, 1)[0]
    size = s.rng.choice((2, 3, 4, 5))
    part = s.constant(size)
    start = s.given(size * s.rng.randint(3, 12))
    s.say(
        f"{who} has {start} {thing}.",
        f"There are {start} {thing} in the box of {who}.",
        f"{who} picks {start} {thing}.",
    )
    s.say(f"{who} gives {PARTS[size]} of the {thing} to {other}.", f"{other} gets {PARTS[size]} of the {thing}.")
    given = s.derive(start / part, f"{other} gets {{}} {thing}.")
    s.aside(f"{other} has {{}} friends.", f"{who} paid {{}} dollars for the {thing}.", f"{other} is {{}} years old.")
    kind = s.rng.randrange(3)
    if kind == 0:
        own = s.draw(3, 30)
        s.say(f"{other} already had {own} {thing}.", f"Before that, {other} had {own} {thing}.")
        now = s.derive(own + given, f"{other} now has {{}} {thing}.")
        if s.chance(0.5):
            sentence, now = change(s, now, str(other), str(thing))
            s.say(f"After that {sentence}")
        s.ask(now, f"How many {thing} does {other} have now?", f"How many {thing} does {other} have at the end?")
        return
    left = s.derive(start - given, f"{who} keeps {{}} {thing}.", f"{who} has {{}} {thing} left.")
    if kind == 1:
        sentence, left = change(s, left, str(who), str(thing))
        s.say(f"After that {sentence}")
        s.ask(left, f"How many {thing} does {who} have now?", f"How many {thing} does {who} have at the end?")
        return
    n = s.divisor(left, 2, 10)
    s.say(
        f"{who} puts the rest in {n} bags, the same number in each bag.",
        f"{who} shares what is left equally among {n} children.",
    )
    bag = "bag" if "bags" in s.sentences[-1] else "child"
    s.ask(s.derive(left / n, f"Each {bag} gets {{}} {thing}."), f"How many {thing} are there for each {bag}?")


@family
def percentages(s: Story) -> None:
    """A percentage of a group, and a question about it, the others, or the difference."""
    percent, divisor = s.rng.choice(((10, 10), (20, 5), (25, 4), (50, 2)))
    s.constant(percent)
    part = s.constant(divisor)
    group = s.pick("children in a school", "people on a train", "guests at a party", "players in a club")
    noun = group.split()[0]
    total = s.given(divisor * s.rng.randint(3, 12))
    act, other = s.rng.sample(("wear a hat", "like tea", "play chess", "speak French", "have a dog"), 2)
    s.say(f"There are {total} {group}.", f"We count {total} {group}.", f"{total} {group} are asked.")
    s.say(f"Of the {noun}, {percent} percent {act}.", f"{percent} percent of the {noun} {act}.")
    yes = s.derive(total / part, f"{{}} {noun} {act}.")
    s.aside(f"{{}} of the {noun} {other}.", f"{{}} of the {noun} are tall.", low=2, high=min(20, total.value - 1))
    kind = s.rng.randrange(4)
    if kind == 0:
        more = s.draw(2, 12)
        s.say(f"Then {more} more {noun} who {act} come in.", f"Later {more} more {noun} join, and all of these {act}.")
        s.ask(s.derive(yes + more, f"Now {{}} {noun} {act}."), f"How many {noun} {act} now?")
        return
    no = s.derive(total - yes, f"{{}} {noun} do not.", f"The other {noun} are {{}}.")
    if kind == 1 and no.value > yes.value:
        s.ask(s.derive(no - yes, "The difference is {}."), f"How many more {noun} do not {act} than {act}?")
        return
    if kind == 2:
        gone = s.draw(2, 12)
        s.say(f"Then {gone} {noun} who do not {act} leave.", f"Later {gone} of the {noun} who do not {act} go home.")
        s.ask(
            s.derive(no - gone, f"Then {{}} of these {noun} are left."),
            f"How many {noun} who do not {act} are still there?",
        )
        return
    teams = s.divisor(no, 2, 10)
    s.say(
        f"The {noun} who do not {act} form {teams} equal groups.",
        f"Those who do not {act} sit at {teams} tables, the same number at each.",
    )
    each = "group" if "groups" in s.sentences[-1] else "table"
    s.ask(
        s.derive(
            no / teams,
            f"There are {{}} {noun} in each {each}." if each == "group" else f"There are {{}} {noun} at each table.",
        ),
        f"How many of these {noun} are there for each {each}?",
    )


@family
def collection(s: Story) -> None:
    """A number that changes twice or three times, often with somebody else to compare with."""
    who, other, thing = s.person(), s.person(), s.things(TOYS + GOODS, 1)[0]
    now = s.draw(8, 50)
    s.say(
        f"{who} has {now} {thing}.", f"At first {who} has {now} {thing}.", f"In the morning {who} counts {now} {thing}."
    )
    start = now
    for opening in ("", "Then ", "Later ")[: s.rng.randint(2, 3)]:
        sentence, now = change(s, now, str(who), str(thing))
        s.say(f"{opening}{sentence}")
    s.aside(f"{other} has {{}} {thing}.", f"One {thing.one} costs {{}} dollars.")
    kind = s.rng.randrange(3)
    if kind == 0 and now.value != start.value:
        up = now.value > start.value
        gap = s.derive(now - start if up else start - now, "The difference is {}.")
        s.ask(gap, f"How many {'more' if up else 'fewer'} {thing} does {who} have now than at first?")
    elif kind == 1:
        name = str(s.person())
        sentence, count = relate(s, now, str(who), name, str(thing), f"{name} has {{}} {thing}.")
        s.say(f"Now {sentence}")
        s.ask(count, f"How many {thing} does {name} have?")
    else:
        s.ask(now, f"How many {thing} does {who} have now?", f"How many {thing} are there at the end?")


@family
def farm(s: Story) -> None:
    """Animals of three kinds tied by relations, with eggs or legs as a second count."""
    who = s.person()
    first, second, third = s.things(ANIMALS, 3)
    a = s.draw(4, 30)
    s.say(
        f"{who} has {a} {first} on a farm.", f"On the farm of {who} there are {a} {first}.", f"A farm has {a} {first}."
    )
    more, n = s.chance(0.5), s.draw(2, 15)
    if s.chance(0.6):
        b = s.derive(a + n if more else a - n, f"There are {{}} {second}.", f"The farm has {{}} {second}.")
        s.say(
            f"There are {n} {'more' if more else 'fewer'} {second} than {first}.",
            f"There are {n} {'fewer' if more else 'more'} {first} than {second}.",
        )
    else:
        two = s.constant(2)
        b = s.derive(a * two if more else a / two, f"There are {{}} {second}.", f"The farm has {{}} {second}.")
        s.say(f"There are {'twice' if more else 'half'} as many {second} as {first}.")
    s.aside(f"There are also {{}} {third}.", "The farm is {} years old.", "{} people work on the farm.")
    kind = s.rng.randrange(3)
    total = s.derive(a + b, f"Together there are {{}} {first} and {second}.")
    if kind == 0:
        sold = s.draw(2, 20)
        kind_sold, count = s.rng.choice(((first, a), (second, b)))
        if sold.value >= count.value:
            raise Rejected
        s.say(f"Then {sold} {kind_sold} are sold.", f"Then the farm sells {sold} {kind_sold}.")
        total = s.derive(total - sold, "Then {} of them are left.")
    elif kind == 1:
        pens = s.divisor(total, 2, 10)
        s.say(f"All {first} and {second} live in {pens} houses, the same number in each.")
        s.ask(s.derive(total / pens, "Each house holds {} animals."), "How many of these animals live in each house?")
        return
    s.ask(
        total,
        f"How many {first} and {second} are there together{' at the end' if kind == 0 else ''}?",
        f"How many {second} and {first} does the farm have{' now' if kind == 0 else ''}?",
    )
