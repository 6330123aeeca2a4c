"""Estimates in words: what a number and its interval allow to be said, and no more."""

from __future__ import annotations

import re
from collections.abc import Sequence

from irl_core.statistics.bootstrap import Estimate

CHANCE = 0.5
MODERATE = 0.6
STRONG = 0.75
HYPHEN = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")  # before a number, and behind nothing that it could join to it


def side(estimate: Estimate, of: float = 0.0) -> str:
    """``above`` or ``below`` where the whole interval lies on one side of a number, ``neither`` where it does not, and
    ``undefined`` without an interval."""
    if not estimate.defined or estimate.interval is None:
        return "undefined"
    return "above" if estimate.low > of else "below" if estimate.high < of else "neither"


def ranking(estimate: Estimate) -> str:
    """How well an AUC or a share of pairs ranks at least: by the end of its interval that is nearer to chance."""
    words = {"neither": "not shown to be better than chance", "below": "worse than chance", "undefined": "undefined"}
    where = side(estimate, CHANCE)
    if where != "above":
        return words[where]
    return "strong" if estimate.low >= STRONG else "at least moderate" if estimate.low >= MODERATE else "at least weak"


def difference(estimate: Estimate, better: str = "higher", worse: str = "lower") -> str:
    """A paired difference with its verdict: '-0.027 [-0.052, -0.001], lower'."""
    return ", ".join(filter(None, (estimate.words, verdict(estimate, better, worse))))


def verdict(estimate: Estimate, better: str = "higher", worse: str = "lower") -> str:
    """What a difference allows to be said; nothing where it is undefined."""
    words = {"above": better, "below": worse, "neither": "no difference shown"}
    return words.get(side(estimate), "too few problems for an interval" if estimate.defined else "")


def listed(parts: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))


def true_minus(text: str) -> str:
    """A text with a minus sign before each negative number, where Python writes a hyphen."""
    return HYPHEN.sub("\u2212", text)
