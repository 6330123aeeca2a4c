"""Arithmetic drills without a story, for models trained from scratch."""

from __future__ import annotations

import random
from collections.abc import Iterator

from irl_core.data.word_problems.story import MAX_VALUE

SUMS = 6


def drills(seed: int, n: int) -> Iterator[tuple[str, str]]:
    """``n`` pairs of a task, such as ``3+4, 12*5, 40/8``, and its solution, one equation a line as in the stories."""
    rng = random.Random(f"drill-{seed}")
    for _ in range(n):
        sums = [_sum(rng) for _ in range(SUMS)]
        task = ", ".join(f"{left}{op}{right}" for left, op, right, _ in sums)
        yield task, "\n".join(f"<<{left}{op}{right}={value}>>{value}" for left, op, right, value in sums)


def _sum(rng: random.Random) -> tuple[int, str, int, int]:
    op = rng.choices("+-*/", (4, 4, 2, 1))[0]
    if op in "+-":
        left, right = rng.randint(1, 70), rng.randint(1, 50)
        return (left, op, right, left + right) if op == "+" else (left + right, op, right, left)
    small, other = rng.randint(2, 12), rng.randint(2, 30)
    while small * other > MAX_VALUE:
        other = rng.randint(2, 30)
    left, right = (small, other) if rng.random() < 0.5 else (other, small)
    return (left, op, right, left * right) if op == "*" else (small * other, op, right, left)
