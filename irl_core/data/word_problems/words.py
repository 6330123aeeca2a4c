"""The small vocabulary of the stories: people and things."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """A name with its pronouns: subject (she) and possessive (her)."""

    name: str
    she: str
    her: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Thing:
    """A countable thing; formats as its plural, ``one`` is the singular."""

    one: str
    many: str

    def __str__(self) -> str:
        return self.many


WOMEN = ("Mia", "Anna", "Lena", "Nora", "Ella", "Zoe")
MEN = ("Tom", "Ben", "Omar", "Leo", "Sam", "Ravi")
PEOPLE = tuple(Person(name, "she", "her") for name in WOMEN) + tuple(Person(name, "he", "his") for name in MEN)


def _things(names: str) -> tuple[Thing, ...]:
    return tuple(Thing(*(name.split("/") if "/" in name else (name, name + "s"))) for name in names.split())


FOODS = _things("apple pear orange lemon muffin cookie bagel donut pie/pies egg")
TOYS = _things("marble sticker card stamp shell coin bead/beads crayon")
GOODS = _things("book pen notebook mug lamp scarf/scarves hat candle toy basket")
ANIMALS = _things("goat hen cow duck horse/horses rabbit")
PLANTS = _things("rose tulip tree bush/bushes lily/lilies")
