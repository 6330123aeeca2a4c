"""The colour scale of each view: fixed, so that traces of different problems can be compared by eye."""

from __future__ import annotations

import math
from typing import Final, Literal, get_args

View = Literal["raw", "standardised", "discounted", "credit"]
VIEWS: Final[tuple[View, ...]] = get_args(View)
FULL_COLOUR: Final[dict[str, float]] = {"raw": 6.0, "standardised": 3.0, "credit": 3.0}


def ranges(gamma: float) -> dict[str, float]:
    """The value drawn at full colour in each view; raw and credit in logits, the others in standard deviations.

    A discounted reward sums about 1 / (1 - gamma) standardised ones; its range grows with the root of their number,
    which lies between rewards that are independent and rewards that are all alike.
    """
    return {**FULL_COLOUR, "discounted": round(FULL_COLOUR["standardised"] * math.sqrt(1 / max(1 - gamma, 0.01)), 1)}
