"""Trips, walks, minutes and hours, and schedules."""

from __future__ import annotations

from irl_core.data.word_problems.families.registry import family
from irl_core.data.word_problems.story import Story


@family
def trip(s: Story) -> None:
    """Two parts of a trip at two speeds: the whole way, what remains, or the difference."""
    who = s.person()
    slow, fast = s.rng.choice((("walks", "rides a bike"), ("walks", "rides a train"), ("runs", "rides a bus")))
    p, q, n, m = s.draw(2, 8), s.draw(5, 12), s.draw(2, 9), s.draw(2, 9)
    s.say(
        f"{who} {slow} for {n} hours at {p} km an hour.", f"First {who} {slow} for {n} hours and goes {p} km each hour."
    )
    s.say(
        f"Then {who} {fast} for {m} hours at {q} km an hour.",
        f"After that {who} {fast} for {m} hours and goes {q} km each hour.",
    )
    s.aside(f"{who} rests for {{}} minutes.", f"{who} carries {{}} bottles of water.", "A bus ticket costs {} dollars.")
    a = s.derive(p * n, "The first part is {} km.")
    b = s.derive(q * m, "The second part is {} km.")
    kind = s.rng.randrange(4)
    if kind == 0:
        high, low, word = (a, b, ("first", "second")) if a.value > b.value else (b, a, ("second", "first"))
        s.ask(
            s.derive(high - low, "The difference is {} km."),
            f"How many km longer is the {word[0]} part than the {word[1]} part?",
            f"How many km shorter is the {word[1]} part than the {word[0]} part?",
        )
        return
    if kind == 1:
        s.ask(
            s.derive(a + b, "The whole way is {} km."),
            f"How many km does {who} travel?",
            "How many km is the whole way?",
        )
        return
    done = s.derive(a + b, f"{who} travels {{}} km.")
    if kind == 2:
        whole = s.draw(40, 160)
        s.say(f"The whole way is {whole} km long.", f"The sea is {whole} km away from the start.")
        s.ask(s.derive(whole - done, "{} km are left."), f"How many km are left for {who}?")
        return
    back = s.draw(2, 25)
    s.say(f"At last {who} goes {back} km back on the same road.", f"Then {who} turns and goes back {back} km.")
    s.ask(
        s.derive(done - back, f"{who} is {{}} km from the start."),
        f"How many km from the start is {who} now, on this straight road?",
    )


@family
def commute(s: Story) -> None:
    """A way there and back, so many days a week, for weeks."""
    who, other = s.person(), s.person()
    way, days, weeks = s.draw(2, 8), s.draw(2, 6), s.draw(2, 5)
    place = s.pick("school", "work", "the pool", "the farm")
    round_trip = s.chance(0.6)
    s.say(
        f"It is {way} km from the house of {who} to {place}.",
        f"{who} lives {way} km from {place}.",
        f"The way of {who} to {place} is {way} km long.",
    )
    if round_trip:
        s.say(
            f"{who} cycles there and back on {days} days each week.",
            f"On {days} days a week {who} cycles there and also back.",
        )
        daily = s.derive(way * s.constant(2), f"{who} travels {{}} km each day.", "There and back is {} km.")
    else:
        s.say(
            f"{who} walks there on {days} days each week and takes a bus back.",
            f"On {days} days a week {who} walks there, and a friend drives {who} back.",
        )
        daily = way
    verb = "cycle" if round_trip else "walk"
    weekly = s.derive(daily * days, "In one week that is {} km.")
    s.aside(
        f"{other} lives {{}} km from {place}.", "The way takes {} minutes.", f"The bike of {who} is {{}} years old."
    )
    kind = s.rng.randrange(3)
    if kind == 0 and round_trip:
        s.forget(weeks)
        s.ask(weekly, f"How many km does {who} {verb} to {place} and back in one week?")
        return
    if kind == 1:
        s.forget(weeks)
        extra = s.draw(2, 20)
        s.say(
            f"On Sunday {who} {verb}s {extra} km more in a park.", f"Each week {who} also {verb}s {extra} km in a park."
        )
        s.ask(
            s.derive(weekly + extra, "With the park it is {} km."),
            f"How many km does {who} {verb} in one week in total?",
        )
        return
    s.ask(
        s.derive(weekly * weeks, f"In {weeks} weeks that is {{}} km."),
        f"How many km does {who} {verb} in {weeks} weeks for this?",
        f"How many km is that in {weeks} weeks?",
    )


@family
def minutes(s: Story) -> None:
    """Hours and minutes: a plan of tasks and the minutes that are left."""
    who = s.person()
    hours, sixty = s.draw(2, 3), s.constant(60)
    first, second = s.rng.sample(("cleaning", "cooking", "reading", "painting", "shopping"), 2)
    s.say(
        f"{who} has {hours} hours before dinner.",
        f"There are {hours} hours until the train of {who} leaves.",
        f"{who} has a break of {hours} hours.",
    )
    total = s.derive(hours * sixty, f"{hours} hours are {{}} minutes.", f"{who} has {{}} minutes.")
    a = s.draw(5, 50, 5)
    s.say(f"{who} spends {a} minutes on {first}.", f"{first.capitalize()} takes {who} {a} minutes.")
    s.aside(
        f"Last week the {second} took {{}} minutes.",
        f"{who} has {{}} things to do this month.",
        f"{who} is {{}} years old.",
    )
    kind = s.rng.randrange(3)
    if kind == 0:
        factor = s.constant(s.rng.choice((2, 3)))
        times = "twice" if factor.value == 2 else "three times"
        up = s.chance(0.5)
        s.say(
            f"{second.capitalize()} takes {times} as long as {first}."
            if up
            else f"{first.capitalize()} takes {times} as long as {second}."
        )
        b = s.derive(a * factor if up else a / factor, f"{second.capitalize()} takes {{}} minutes.")
    elif kind == 1:
        gap, longer = s.draw(5, 20, 5), s.chance(0.5)
        s.say(
            f"{second.capitalize()} takes {gap} minutes {'longer' if longer else 'less'} than {first}.",
            f"{first.capitalize()} takes {gap} minutes {'less' if longer else 'longer'} than {second}.",
        )
        b = s.derive(a + gap if longer else a - gap, f"{second.capitalize()} takes {{}} minutes.")
    else:
        rooms, each = s.draw(2, 9), s.draw(2, 9)
        s.say(
            f"Then {who} calls {rooms} friends, {each} minutes each.",
            f"Then {who} does {rooms} tasks that take {each} minutes each.",
        )
        b = s.derive(rooms * each, "This takes {} minutes.")
    busy = s.derive(a + b, "Together that takes {} minutes.")
    if s.chance(0.3):
        s.sentences.pop(0)
        s.forget(hours)
        s.ask(busy, "How many minutes does all of this take?", "How many minutes is that in total?")
        return
    s.ask(
        s.derive(total - busy, f"{who} has {{}} minutes left."),
        f"How many minutes does {who} have left?",
        f"How many minutes are still free for {who}?",
    )


@family
def lessons(s: Story) -> None:
    """Lessons or visits of some minutes, so many a week."""
    who = s.person()
    sport = s.pick("piano", "chess", "dance", "tennis")
    n, length, weeks = s.draw(2, 6), s.draw(5, 12), s.draw(2, 9)
    s.facts(
        s.pick(f"{who} practises {sport} {n} times a week.", f"Each week {who} practises {sport} on {n} days."),
        s.pick(
            f"Each time {who} practises {sport} for {length} minutes.",
            f"One {sport} practice of {who} takes {length} minutes.",
        ),
    )
    weekly = s.derive(n * length, f"{who} practises {{}} minutes a week.")
    s.aside(
        f"{who} started {{}} months ago.",
        f"A {sport} lesson costs {{}} dollars.",
        "There are {} children in the group.",
    )
    kind = s.rng.randrange(3)
    if kind == 0:
        hours = s.constant(60)
        s.say(f"{who} wants to reach one hour each week.", f"The goal of {who} is one hour each week.")
        s.forget(weeks)
        s.ask(
            s.derive(hours - weekly, "{} minutes are missing."),
            f"How many more minutes a week does {who} need for that?",
        )
        return
    if kind == 1:
        extra, more = s.draw(2, 20), s.chance(0.5)
        other = s.person()
        s.forget(weeks)
        s.say(
            f"Each week {other} practises {extra} minutes {'more' if more else 'less'} than {who}.",
            f"Each week {who} practises {extra} minutes {'less' if more else 'more'} than {other}.",
        )
        theirs = s.derive(weekly + extra if more else weekly - extra, f"{other} practises {{}} minutes a week.")
        s.ask(theirs, f"How many minutes a week does {other} practise?") if s.chance(0.5) else s.ask(
            s.derive(weekly + theirs, "Together they practise {} minutes."),
            f"How many minutes do {who} and {other} practise in one week together?",
        )
        return
    missed = s.draw(2, 15)
    s.say(
        f"In {weeks} weeks {who} misses {missed} minutes because of rain.",
        f"During {weeks} weeks {who} loses {missed} minutes in total by coming late.",
    )
    planned = s.derive(weekly * weeks, f"The plan for {weeks} weeks is {{}} minutes.")
    s.ask(
        s.derive(planned - missed, f"{who} really practises {{}} minutes."),
        f"How many minutes does {who} really practise in these weeks?",
    )
