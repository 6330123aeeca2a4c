"""Deterministic streams of word problems, in splits that share no problem text."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from irl_core.data.word_problems.families.registry import FAMILIES
from irl_core.data.word_problems.quantities import WordProblem
from irl_core.data.word_problems.story import Rejected, Story

Split = Literal["train", "held_out", "calibration"]
SPLITS: tuple[Split, ...] = get_args(Split)
ATTEMPTS = 5000
STREAM = 2**32


def problem(seed: int, family: str | None = None, among: Sequence[str] = ()) -> WordProblem:
    """The problem of this seed, of a family chosen by the seed ``among`` these (none: all) unless one is named.

    Raises ValueError for an unknown family.
    """
    unknown = [name for name in (family, *among) if name is not None and name not in FAMILIES]
    if unknown:
        raise ValueError(f"unknown family {unknown[0]!r}; use one of {', '.join(sorted(FAMILIES))}")
    rng = random.Random(f"{seed}:{family or ''}")
    name = family or rng.choice(list(among) or list(FAMILIES))
    for _ in range(ATTEMPTS):
        story = Story(rng)
        try:
            FAMILIES[name](story)
            return story.finish(f"{name}-{seed}", name)
        except Rejected:
            continue
    raise RuntimeError(f"family {name!r} found no numbers in {ATTEMPTS} attempts with seed {seed}; widen its ranges")


def split_of(text: str) -> Split:
    """The split that a problem text belongs to, by its hash: 80 % train, 10 % held out, 10 % calibration."""
    tenth = hashlib.sha256(text.encode()).digest()[0] % 10
    return "held_out" if tenth == 8 else "calibration" if tenth == 9 else "train"


def problems(seed: int, n: int, split: Split = "train", families: Sequence[str] = ()) -> Iterator[WordProblem]:
    """``n`` different problems of a split. The same seed gives the same problems; no text is in two splits.

    ``families``: those that are drawn from; none stands for all. Raises ValueError for an unknown split or family.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    seen: set[str] = set()
    index = 0
    while len(seen) < n:
        candidate = problem(seed * STREAM + index, among=families)
        index += 1
        if split_of(candidate.text) == split and candidate.text not in seen:
            seen.add(candidate.text)
            yield candidate
