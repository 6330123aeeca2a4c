"""Families of word problems, grouped by theme. Importing the package registers them all in ``registry.FAMILIES``."""

from irl_core.data.word_problems.families import comparing, geometry, money, rates, sharing, time_distance  # noqa: F401
