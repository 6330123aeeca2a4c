"""Ranks, Welch's test and a kernel density: what is used of ``scipy.stats``, whose import alone takes seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from irl_core.statistics.bootstrap import LEVEL

Array = npt.NDArray[np.float64]

FINE = 4_000  # places on which a density is laid before it is smoothed


@dataclass(frozen=True, slots=True)
class Welch:
    """Welch's test of two means: ``t``, its ``degrees`` of freedom, two-sided ``p``, and the 95 % interval of the
    difference, from ``low`` to ``high``."""

    t: float
    degrees: float
    p: float
    low: float
    high: float


def ranks(values: npt.ArrayLike) -> Array:
    """Ranks (M,) from 1; equal values share the mean of theirs. All NaN where one is NaN."""
    numbers = np.asarray(values, dtype=np.float64)
    if np.isnan(numbers).any():
        return np.full(numbers.size, np.nan)
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    middle: Array = (last - (counts - 1) / 2.0)[place]
    return middle


def welch(ours: Array, theirs: Array) -> Welch:
    """The test that two samples of two or more have one mean; their variances may differ. NaN where both are 0."""
    parts = [float(one.var(ddof=1)) / one.size for one in (ours, theirs)]
    variance, less = sum(parts), float(ours.mean() - theirs.mean())
    if not variance**2 > 0:  # the smallest of numbers have no square
        return Welch(*[math.nan] * 5)
    degrees = variance**2 / sum(part**2 / (one.size - 1) for part, one in zip(parts, (ours, theirs), strict=True))
    error = math.sqrt(variance)
    edge = float(special.stdtrit(degrees, (1 + LEVEL) / 2)) * error
    t = less / error
    return Welch(t, degrees, two_sided(t, degrees), less - edge, less + edge)


def two_sided(t: float, degrees: float) -> float:
    """The chance that Student's t is at least as far from 0."""
    return 2 * float(special.stdtr(degrees, -abs(t)))


def density(values: Array, across: Array) -> Array:
    """A Gaussian kernel density of values that vary, by Scott's rule, at the places ``across``.

    The values are counted into ``FINE`` bins first, so that many of them cost no more than a few.
    """
    width = float(values.std(ddof=1)) * values.size ** (-1 / 5)
    counts, edges = np.histogram(values, FINE)
    held = counts > 0
    middles = ((edges[1:] + edges[:-1]) / 2)[held]
    kernel = np.exp(-0.5 * ((across[:, None] - middles) / width) ** 2)
    smooth: Array = kernel @ counts[held] / (values.size * width * math.sqrt(2 * math.pi))
    return smooth
