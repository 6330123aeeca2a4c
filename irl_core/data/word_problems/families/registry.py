"""The families of problems by name."""

from __future__ import annotations

from collections.abc import Callable

from irl_core.data.word_problems.story import Story

Family = Callable[[Story], None]
FAMILIES: dict[str, Family] = {}


def family(write: Family) -> Family:
    """Registers a function that writes a story, under its own name."""
    FAMILIES[write.__name__] = write
    return write
