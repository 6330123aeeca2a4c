"""Selection among a problem's samples: pass@k, best of N by a score, votes, and their accuracy with fewer samples.

Samples are flat arrays with one entry a trace, and a parallel array of problem ids. A value for each problem is an
array (P,), problems in order of appearance. Ties: the expected value over random orders of the equal scores. A NaN
score ranks last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from irl_core.statistics.bootstrap import (
    Array,
    Estimate,
    Groups,
    Values,
    mean_over_problems,
    percentile_interval,
    problem_index,
    problem_rows,
    resampled,
    too_few,
    undefined,
    without_interval,
)

TIE = 1e-9  # answers whose total weights differ by less than this share are tied


def pass_at_k(correct: Values, problem_ids: Groups, k: int, *, seed: int = 0) -> Estimate:
    """Unbiased pass@k, 1 - C(n-c, k) / C(n, k) averaged over problems (Chen et al. 2021). k = N is the oracle."""
    rows = problem_rows(problem_ids)
    if reason := beyond_samples(rows, k):
        return undefined(len(rows), "problems", reason)
    return mean_over_problems(pass_values(correct, problem_ids, k), seed=seed)


def pass_values(correct: Values, problem_ids: Groups, k: int) -> Array:
    """pass@k of each problem (P,). Raises ValueError where a problem has fewer than k samples."""
    right, rows = np.asarray(correct, dtype=bool), problem_rows(problem_ids)
    if reason := beyond_samples(rows, k):
        raise ValueError(reason)
    return np.array([any_right(len(r), int(right[r].sum()), k) for r in rows], dtype=np.float64)


def beyond_samples(rows: Sequence[npt.NDArray[np.int64]], k: int) -> str:
    """Why k samples cannot be chosen from every problem; empty where they can."""
    if k < 1:
        return f"k is {k}; it must be 1 or more"
    smallest = min((len(r) for r in rows), default=0)
    plural = "" if smallest == 1 else "s"
    return f"k is {k}, but a problem has {smallest} sample{plural}" if k > smallest else ""


def any_right(n: int, c: int, k: int) -> float:
    """The probability that k drawn from n without replacement hold one of the c right ones."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def best_of(scores: Values, correct: Values, problem_ids: Groups, k: int = 1) -> Array:
    """pass@k|N, one value a problem (P,): is one of the k highest-scored of all its N samples correct?

    Where equal scores compete for the last places, the expected value over their orders. NaN ranks last. Raises
    ValueError where k > N.
    """
    values = np.asarray(scores, dtype=np.float64)
    values, right = np.where(np.isnan(values), -np.inf, values), np.asarray(correct, dtype=bool)
    if reason := beyond_samples(problem_rows(problem_ids), k):
        raise ValueError(reason)
    shares = []
    for rows in problem_rows(problem_ids):
        limit = np.sort(values[rows])[-k]
        above, tied = right[rows[values[rows] > limit]], right[rows[values[rows] == limit]]
        shares.append(1.0 if above.any() else any_right(tied.size, int(tied.sum()), k - above.size))
    return np.array(shares, dtype=np.float64)


def oracle(correct: Values, problem_ids: Groups) -> Array:
    """One value a problem (P,): is any sample correct? The upper bound of every selection method."""
    right = np.asarray(correct, dtype=bool)
    return np.array([right[rows].any() for rows in problem_rows(problem_ids)], dtype=np.float64)


def random_text_top(texts: Sequence[str], correct: Values, problem_ids: Groups, k: int) -> Array:
    """pass@k|N by a random score a distinct text, in expectation, one value a problem (P,): texts come in random
    order, each with all its copies, until k samples are chosen. Raises ValueError: k > N.

    Correct samples repeat each other, so that this is below pass@k; it is the accuracy of an uninformed score of the
    text. With k = 1 it is the share of a problem's distinct texts that is correct."""
    right, rows = np.asarray(correct, dtype=bool), problem_rows(problem_ids)
    if reason := beyond_samples(rows, k):
        raise ValueError(reason)
    shares = []
    for of_problem in rows:
        copies = Counter(texts[i] for i in of_problem)
        is_right = {texts[i]: bool(right[i]) for i in of_problem}
        wrong = Counter(min(copies[text], k) for text, known in is_right.items() if not known)
        shares.append(1 - all_wrong(sum(is_right.values()), tuple(wrong[size] for size in range(1, k + 1)), k))
    return np.array(shares, dtype=np.float64)


@lru_cache(maxsize=100_000)
def all_wrong(right: int, wrong: tuple[int, ...], k: int) -> float:
    """The chance that texts in random order fill k places with wrong samples alone. ``right`` counts the right texts,
    ``wrong[i]`` the wrong ones with i + 1 copies."""
    total, chance = right + sum(wrong), 0.0
    for index, count in enumerate(wrong):
        if count:
            left = (*wrong[:index], count - 1, *wrong[index + 1 :])
            rest = all_wrong(right, left, k - index - 1) if index + 1 < k else 1.0
            chance += count / total * rest
    return chance


def vote(
    answers: Sequence[Hashable | None],
    correct: Values,
    problem_ids: Groups,
    scores: Values | None = None,
    temperature: float = 1.0,
) -> Array:
    """Majority vote, one value a problem (P,), 1 where the elected answer is correct.

    Without scores each sample has one vote; with scores its weight is exp(score / temperature), a softmax over the
    problem's voters, summed over equal answers: infinite temperature is the majority, towards 0 best of N. Answers
    are compared as given: normalise them first. A missing answer (None, NaN, "") does not vote; a problem without a
    vote counts 0. Answers with equal weight (to 1e-9) share: the mean over them. A NaN score has no weight.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    right = np.asarray(correct, dtype=np.float64)
    voters = np.array([not _missing(answer) for answer in answers], dtype=bool)
    values = np.zeros(len(right)) if scores is None else np.asarray(scores, dtype=np.float64)
    elected = []
    for rows in (rows[voters[rows]] for rows in problem_rows(problem_ids)):
        if not rows.size:
            elected.append(0.0)
            continue
        count, codes = problem_index([answers[i] for i in rows])
        totals = np.bincount(codes, weights=vote_weights(values[rows], temperature), minlength=count)
        hits = np.bincount(codes, weights=right[rows]) / np.bincount(codes)
        elected.append(float(hits[totals >= totals.max() * (1 - TIE)].mean()))
    return np.array(elected, dtype=np.float64)


def _missing(answer: Hashable | None) -> bool:
    return answer is None or answer == "" or answer != answer  # NaN is not equal to itself


def vote_weights(scores: Array, temperature: float) -> Array:
    """exp(score / temperature), the highest 1; 0 for a missing score, unless all are missing."""
    known = scores[~np.isnan(scores)]
    if not known.size or math.isinf(temperature):
        return np.ones_like(scores)
    top = known.max()
    weights: Array = np.zeros_like(scores)
    weights[scores == top] = 1.0  # also where the top is infinite
    below = scores < top
    weights[below] = np.exp((scores[below] - top) / temperature)
    return weights


# ---------------------------------------------------------------------------------------------- fewer samples


def pass_curve(correct: Values, problem_ids: Groups, sizes: Sequence[int]) -> Array:
    """(P, S): pass@n for each n of ``sizes``; that of 1 is the chance of one sample drawn at random. Raises ValueError
    where a size is beyond a problem's samples, as the other curves do."""
    return np.column_stack([pass_values(correct, problem_ids, size) for size in sizes])


def best_of_curve(scores: Values, correct: Values, problem_ids: Groups, sizes: Sequence[int]) -> Array:
    """(P, S): best of n by the score, for n samples drawn from all of a problem's without replacement; exact."""
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    rows = problem_rows(problem_ids)
    if reason := beyond_samples(rows, max(sizes)) or beyond_samples(rows, min(sizes)):
        raise ValueError(reason)
    values = np.where(np.isnan(values), -np.inf, values)
    curves = []
    for of_problem in rows:  # the sum over groups of equal scores: the chance that the best is one of them, times right
        levels, codes = np.unique(-values[of_problem], return_inverse=True)
        counts = np.bincount(codes, minlength=levels.size)
        shares = np.bincount(codes, weights=right[of_problem], minlength=levels.size) / counts
        above = np.append(0, np.cumsum(counts))
        curves.append([-np.diff(none_of_the_top(len(of_problem), n)[above]) @ shares for n in sizes])
    return np.array(curves, dtype=np.float64)


@lru_cache(maxsize=4096)
def none_of_the_top(total: int, drawn: int) -> Array:
    """(total + 1,): the chance that none of ``drawn`` out of ``total`` is among the b highest, for b = 0 ... total."""
    ways = math.comb(total, drawn)
    return np.array([math.comb(total - best, drawn) / ways for best in range(total + 1)])


def vote_curve(
    answers: Sequence[Hashable | None],
    correct: Values,
    problem_ids: Groups,
    sizes: Sequence[int],
    scores: Values | None = None,
    temperature: float = 1.0,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> Array:
    """(P, S): `vote` among n samples drawn from all of a problem's without replacement, averaged over at least
    ``draws`` orders of them (default: `draws_for` the number of problems): seeded orders, each also rotated to
    begin at every sample. At n = 1 and n = all samples it is exact, and at the latter `vote` itself."""
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    rows = problem_rows(problem_ids)
    if reason := beyond_samples(rows, max(sizes)) or beyond_samples(rows, min(sizes)):
        raise ValueError(reason)
    right = np.asarray(correct, dtype=np.float64)
    values = np.zeros(len(right)) if scores is None else np.asarray(scores, dtype=np.float64)
    rng, times = np.random.default_rng(seed), draws or draws_for(len(rows))
    problems = (([answers[i] for i in r], right[r], log_vote_weights(values[r], temperature)) for r in rows)
    return np.array([_vote_of_sizes(*problem, sizes, times, rng) for problem in problems], dtype=np.float64)


def at_size(curve: Array, samples: float) -> Array:
    """(P,): a curve (P, S) over 1, 2, ..., S samples at a number of them that need not be whole; at least one, at most
    all."""
    place = min(max(samples, 1.0), float(curve.shape[1])) - 1.0
    low = int(place)
    high = min(low + 1, curve.shape[1] - 1)
    between: Array = curve[:, low] + (place - low) * (curve[:, high] - curve[:, low])
    return between


def draws_for(problems: int) -> int:
    """The number of orders drawn of a problem's samples: 40,000 over all problems, between 20 and 400 for each, so that
    the draws add less than 0.003 of a standard error to an accuracy."""
    return min(400, max(20, 40_000 // max(problems, 1)))


MISSING_WEIGHT = -2e9  # log weights, below and above every finite one, so that only order among them is left
LOWEST_WEIGHT = -1e9


def log_vote_weights(scores: Array, temperature: float) -> Array:
    """log of the weight of each vote. A NaN score counts only among NaN scores, an infinite one before all finite; at
    infinite temperature all are equal."""
    if math.isinf(temperature):
        return np.zeros_like(scores)
    weights = np.clip(scores / temperature, LOWEST_WEIGHT, -LOWEST_WEIGHT)
    return np.where(np.isnan(scores), MISSING_WEIGHT, weights)


def _vote_of_sizes(
    answers: Sequence[Hashable | None],
    right: Array,
    weights: Array,
    sizes: Sequence[int],
    draws: int,
    rng: np.random.Generator,
) -> Array:
    voters = np.flatnonzero([not _missing(answer) for answer in answers])
    # the beginnings (at least draws, largest size) of random orders, each begun at every sample in turn
    samples = len(answers)
    shuffled = rng.permuted(np.tile(np.arange(samples), (math.ceil(draws / samples), 1)), axis=1)
    order = shuffled[:, np.add.outer(np.arange(samples), np.arange(max(sizes))) % samples].reshape(-1, max(sizes))
    if not voters.size:
        return np.zeros(len(sizes))
    count, codes = problem_index([answers[i] for i in voters.tolist()])
    shares = np.bincount(codes, weights=right[voters]) / np.bincount(codes)
    log_weights = np.full((len(answers), count), -np.inf)
    log_weights[voters, codes] = weights[voters]
    totals = np.logaddexp.accumulate(log_weights[order], axis=1)[:, np.asarray(sizes) - 1]  # (draws, S, answers)
    top = totals.max(axis=2, keepdims=True)
    elected = (totals >= top - TIE) & np.isfinite(top)
    accuracy: Array = (elected @ shares / np.maximum(elected.sum(axis=2), 1)).mean(axis=0)
    return accuracy


def samples_needed(curve: Array, target: Values, sizes: Sequence[int], *, seed: int = 0) -> Estimate:
    """The smallest n of ``sizes`` whose accuracy, the mean of a ``curve`` (P, S) over problems, reaches the mean of
    ``target`` (P,). The interval is over resamples of the problems, where both move together; in it, one more than the
    last size stands for 'not with that many'. Undefined where no size reaches it on these problems."""
    problems = len(curve)
    method = _needed_method(problems, sizes)
    if problems < 2:
        return undefined(problems, method, "fewer than two problems")
    columns = np.column_stack([curve, np.asarray(target, dtype=np.float64)])
    value = float(first_reaching(columns.sum(0, keepdims=True), sizes, problems)[0])
    if value > sizes[-1]:
        return undefined(problems, method, f"not reached with {sizes[-1]} samples")
    if few := too_few(problems):
        return without_interval(value, problems, "samples a problem", few)
    draws = resampled(columns, lambda totals: first_reaching(totals, sizes, problems), seed=seed)
    return Estimate(value, *percentile_interval(draws), problems, method, whole=True)


def samples_saved(curve: Array, other: Array, target: Values, sizes: Sequence[int], *, seed: int = 0) -> Estimate:
    """The samples that ``curve`` needs fewer than the ``other`` one to reach the target (see `samples_needed`), the
    problems resampled together. Undefined where either does not reach it."""
    problems, width = len(curve), len(sizes)
    needed = [samples_needed(one, target, sizes, seed=seed) for one in (curve, other)]
    if lacking := [figure for figure in needed if not figure.defined]:
        return lacking[0]
    goal = np.asarray(target, dtype=np.float64)

    def saved(totals: Array) -> Array:
        ours, theirs = totals[:, [*range(width), -1]], totals[:, width:]
        return first_reaching(theirs, sizes, problems) - first_reaching(ours, sizes, problems)

    value = needed[1].value - needed[0].value
    if few := too_few(problems):
        return without_interval(value, problems, "samples a problem", few)
    draws = resampled(np.column_stack([curve, other, goal]), saved, seed=seed)
    return Estimate(value, *percentile_interval(draws), problems, _needed_method(problems, sizes), whole=True)


def _needed_method(problems: int, sizes: Sequence[int]) -> str:
    return f"samples a problem; bootstrap over {problems} problems; {sizes[-1] + 1} = more than {sizes[-1]}"


def first_reaching(totals: Array, sizes: Sequence[int], problems: int) -> Array:
    """The first of ``sizes`` whose column (B, S + 1) reaches the last one, and one more than the last where none does.
    Sums of values in [0, 1] over ``problems`` are equal to within a billionth of their number."""
    reached = totals[:, :-1] >= totals[:, -1:] - TIE * problems
    numbers = np.append(np.asarray(sizes, dtype=np.float64), sizes[-1] + 1)
    reached_at: Array = numbers[np.where(reached.any(axis=1), reached.argmax(axis=1), len(sizes))]
    return reached_at
