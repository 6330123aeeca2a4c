"""Families of word problems, grouped by theme. Importing the package registers them all."""

from irl_core.word_problems.families import comparing, geometry, money, rates, sharing, time_distance
from irl_core.word_problems.families.registry import FAMILIES, Family

__all__ = ["FAMILIES", "Family", "comparing", "geometry", "money", "rates", "sharing", "time_distance"]
