"""Names of values that a training's charts draw beside a metric. No plotly, so that a page reads them at no cost."""

from __future__ import annotations

from typing import Final

LOGGED: Final = frozenset({"eval/low", "eval/high", "eval/n"})  # with pass@1
LOW: Final = " (lowest)"  # behind a metric's name: of several seeds
HIGH: Final = " (highest)"
