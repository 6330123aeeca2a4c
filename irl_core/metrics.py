"""Figures with an n and a 95 % interval: pass@k, reranking, separation, correlation, first error. Knows no model.

Samples come as flat arrays with one entry a trace and a parallel array of problem ids. Whatever is averaged over
problems gets its interval by a bootstrap over problems, since samples of one problem are not independent. A figure
that does not exist (one class, n < 2, no variance, k > N, missing answers) is *undefined*: NaN, with the reason.

Ties: scores that are equal share what they decide. A pair of equal scores counts half; where equal scores compete
for a place, the figure is the expected value over random orders. In reranking a NaN score ranks last.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from irl_core.intervals import (
    LEVEL,
    Array,
    Figure,
    Groups,
    Values,
    Z,
    bootstrap,
    mean_over_problems,
    paired_difference,
    problem_index,
    problem_rows,
    problem_sums,
    ratio,
    share,
    share_difference,
    undefined,
    wilson,
)

__all__ = [
    "NO_ERROR",
    "UNDECIDED",
    "Figure",
    "FirstError",
    "ProcessJudgement",
    "Separation",
    "auc",
    "best_of",
    "bootstrap",
    "correlation",
    "correlation_matrix",
    "first_error",
    "mean_over_problems",
    "mr_gsm8k",
    "oracle",
    "oracle_threshold",
    "pair_accuracy",
    "pair_columns",
    "paired_difference",
    "pass_at_k",
    "pass_at_k_of_n",
    "random_text",
    "random_text_scores",
    "separation",
    "share",
    "share_difference",
    "undefined",
    "vote",
    "vote_accuracy",
    "wilson",
    "within_problem_correlation",
]

NO_ERROR = -1  # a first-error label: no step is wrong
UNDECIDED = -2  # a first-error prediction: neither a step nor 'no error'; counts as wrong on every trace


# ---------------------------------------------------------------------------------------------- pass@k


def pass_at_k(correct: Values, problem_ids: Groups, k: int, *, seed: int = 0) -> Figure:
    """Unbiased pass@k, 1 - C(n-c, k) / C(n, k) averaged over problems (Chen et al. 2021). k = N is the oracle."""
    right = np.asarray(correct, dtype=bool)
    rows = problem_rows(problem_ids)
    if reason := _too_few(rows, k):
        return undefined(len(rows), "problems", reason)
    return mean_over_problems([_any_right(len(r), int(right[r].sum()), k) for r in rows], seed=seed)


def _too_few(rows: Sequence[npt.NDArray[np.int64]], k: int) -> str:
    if k < 1:
        return f"k is {k}; it must be 1 or more"
    smallest = min((len(r) for r in rows), default=0)
    return f"k is {k}, but a problem has {smallest} samples" if k > smallest else ""


def _any_right(n: int, c: int, k: int) -> float:
    """The chance that k drawn from n without replacement hold one of the c right ones."""
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def best_of(scores: Values, correct: Values, problem_ids: Groups, k: int = 1) -> Array:
    """pass@k|N, one value a problem (P,): is one of the k highest-scored of all its N samples correct?

    Where equal scores compete for the last places, the expected value over their orders. NaN ranks last. Raises
    ValueError where k > N.
    """
    values = np.asarray(scores, dtype=np.float64)
    values, right = np.where(np.isnan(values), -np.inf, values), np.asarray(correct, dtype=bool)
    if reason := _too_few(problem_rows(problem_ids), k):
        raise ValueError(reason)
    return np.array([_top_k(values[rows], right[rows], k) for rows in problem_rows(problem_ids)], dtype=np.float64)


def _top_k(scores: Array, right: npt.NDArray[np.bool_], k: int) -> float:
    limit = np.sort(scores)[-k]
    if right[scores > limit].any():
        return 1.0
    tied = scores == limit
    return _any_right(int(tied.sum()), int(right[tied].sum()), k - int((scores > limit).sum()))


def pass_at_k_of_n(scores: Values, correct: Values, problem_ids: Groups, k: int = 1, *, seed: int = 0) -> Figure:
    """pass@k|N by a score (see `best_of`), averaged over problems. Undefined where k > N or no score is a number."""
    values, rows = np.asarray(scores, dtype=np.float64), problem_rows(problem_ids)
    reason = _too_few(rows, k) or ("every score is missing" if np.isnan(values).all() else "")
    if reason:
        return undefined(len(rows), "problems", reason)
    return mean_over_problems(best_of(values, correct, problem_ids, k), seed=seed)


def oracle(correct: Values, problem_ids: Groups) -> Array:
    """One value a problem (P,): is any sample correct? The limit of every way to choose."""
    right = np.asarray(correct, dtype=bool)
    return np.array([right[rows].any() for rows in problem_rows(problem_ids)], dtype=np.float64)


def random_text(texts: Sequence[str], correct: Values, problem_ids: Groups) -> Array:
    """Best of N by a random score a distinct text, in expectation, one value a problem (P,): the share of a
    problem's distinct texts that is correct. Correct samples repeat each other, so this is below pass@1, and it is
    what a score that knows nothing but the text achieves."""
    right = np.asarray(correct, dtype=np.float64)
    return np.array([np.mean(list({texts[i]: right[i] for i in rows}.values())) for rows in problem_rows(problem_ids)])


def random_text_scores(texts: Sequence[str], seed: int = 0) -> Array:
    """A random score (M,) in [0, 1), the same for the same text: what a reward that has learned nothing looks like."""
    _, codes = problem_index(list(texts))
    return np.random.default_rng(seed).random(codes.max() + 1 if codes.size else 0)[codes]


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
    return np.array(
        [_elect(answers, right, values, r[voters[r]], temperature) for r in problem_rows(problem_ids)], dtype=np.float64
    )


def _missing(answer: Hashable | None) -> bool:
    return answer is None or answer == "" or answer != answer  # NaN is not equal to itself


def _elect(
    answers: Sequence[Hashable | None], right: Array, scores: Array, rows: npt.NDArray[np.int64], temperature: float
) -> float:
    if not rows.size:
        return 0.0
    count, codes = problem_index([answers[i] for i in rows])
    totals = np.bincount(codes, weights=_softmax(scores[rows], temperature), minlength=count)
    hits = np.bincount(codes, weights=right[rows]) / np.bincount(codes)
    return float(hits[totals >= totals.max() * (1 - 1e-9)].mean())


def _softmax(scores: Array, temperature: float) -> Array:
    known = scores[~np.isnan(scores)]
    if not known.size or math.isinf(temperature):
        return np.ones_like(scores)
    top = known.max()
    weights: Array = np.zeros_like(scores)
    weights[scores == top] = 1.0  # also where the top is infinite
    below = scores < top
    weights[below] = np.exp((scores[below] - top) / temperature)
    return weights


def vote_accuracy(
    answers: Sequence[Hashable | None],
    correct: Values,
    problem_ids: Groups,
    scores: Values | None = None,
    temperature: float = 1.0,
    *,
    seed: int = 0,
) -> Figure:
    """The share of problems whose elected answer (see `vote`) is correct. Undefined without a single answer."""
    if all(_missing(answer) for answer in answers):
        return undefined(problem_index(problem_ids)[0], "problems", "no sample has an answer")
    return mean_over_problems(vote(answers, correct, problem_ids, scores, temperature), seed=seed)


# ---------------------------------------------------------------------------------------------- separation


@dataclass(frozen=True, slots=True)
class Separation:
    """How far the scores of correct traces lie above those of incorrect ones, over all problems pooled.

    ``difference`` of the means with Welch's interval, his ``t``, ``degrees`` of freedom and two-sided ``p``;
    ``cohens_d`` with the pooled standard deviation (Hedges and Olkin's interval); ``auc``.
    """

    difference: Figure
    t: float
    degrees: float
    p: float
    cohens_d: Figure
    auc: Figure


def separation(scores: Values, correct: Values, problem_ids: Groups | None = None) -> Separation:
    """Welch's t, Cohen's d and AUC of correct against incorrect traces. The first two take traces as independent;
    the AUC's interval heeds the problems where they are given."""
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    yes, no = values[right], values[~right]
    reason = _class_reason(yes, no) or ("no variance" if not yes.std() + no.std() > 0 else "")
    area = auc(values, right, problem_ids)
    if reason:
        nothing = (undefined(values.size, method, reason) for method in ("Welch", "Cohen's d"))
        return Separation(next(nothing), math.nan, math.nan, math.nan, next(nothing), area)
    test = stats.ttest_ind(yes, no, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    difference = Figure(float(yes.mean() - no.mean()), float(low), float(high), values.size, "Welch, traces")
    return Separation(difference, float(test.statistic), float(test.df), float(test.pvalue), _cohens_d(yes, no), area)


def _class_reason(yes: Array, no: Array) -> str:
    if min(yes.size, no.size) < 2:
        return f"{yes.size} correct and {no.size} incorrect; each needs two"
    missing = int((~np.isfinite(yes)).sum() + (~np.isfinite(no)).sum())
    return f"{missing} scores are not finite" if missing else ""


def _cohens_d(yes: Array, no: Array) -> Figure:
    m, n = yes.size, no.size
    pooled = math.sqrt(((m - 1) * yes.var(ddof=1) + (n - 1) * no.var(ddof=1)) / (m + n - 2))
    d = float(yes.mean() - no.mean()) / pooled
    error = math.sqrt((m + n) / (m * n) + d * d / (2 * (m + n)))
    return Figure(d, d - Z * error, d + Z * error, m + n, "Cohen's d, traces")


def auc(scores: Values, labels: Values, groups: Groups | None = None) -> Figure:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half.

    The interval is DeLong's (1988), or with ``groups`` its extension to clustered data (Obuchowski 1997). At 0 or 1,
    where that has no width, Wilson's with the number of units of the smaller class.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    m, n = int(positive.sum()), int((~positive).sum())
    method = "traces, DeLong" if groups is None else "traces, clustered DeLong"
    missing = int(np.isnan(values).sum())
    if not m or not n or missing:
        reason = f"{missing} scores are missing" if missing else f"one class: {m} positive, {n} negative"
        return undefined(m + n, method, reason)
    above, below = _placements(values, positive)
    area = float(above.mean())
    clusters = np.arange(m + n) if groups is None else problem_index(groups)[1]
    if area in (0.0, 1.0):
        units = min(np.unique(clusters[positive]).size, np.unique(clusters[~positive]).size)
        edge = wilson(round(area * units), units)
        return Figure(area, edge.low, edge.high, m + n, f"traces, Wilson over {units} (no spread)")
    error = math.sqrt(_clustered_variance(above, below, clusters[positive], clusters[~positive], area))
    if math.isnan(error) or error == 0:
        return undefined(m + n, method, f"{m} positive, {n} negative are too few for an interval")
    return Figure(area, max(0.0, area - Z * error), min(1.0, area + Z * error), m + n, method)


def _placements(values: Array, positive: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    ranks = stats.rankdata(values)
    yes, no = values[positive], values[~positive]
    above = (ranks[positive] - stats.rankdata(yes)) / no.size
    below = 1 - (ranks[~positive] - stats.rankdata(no)) / yes.size
    return above, below


def _clustered_variance(above: Array, below: Array, yes: Array, no: Array, area: float) -> float:
    """Obuchowski's variance of the AUC from placements and the clusters of positives and negatives; with clusters
    of one trace each it is DeLong's."""
    size = int(max(yes.max(), no.max())) + 1
    excess_yes = np.bincount(yes, weights=above - area, minlength=size)
    excess_no = np.bincount(no, weights=below - area, minlength=size)
    i, j, all_of = np.unique(yes).size, np.unique(no).size, np.unique(np.concatenate([yes, no])).size
    if min(i, j) < 2:
        return math.nan
    s_yes = i / (i - 1) * float(excess_yes @ excess_yes) / above.size**2
    s_no = j / (j - 1) * float(excess_no @ excess_no) / below.size**2
    both = all_of / (all_of - 1) * float(excess_yes @ excess_no) / (above.size * below.size)
    return max(0.0, s_yes + s_no + 2 * both)


def pair_accuracy(scores: Values, correct: Values, problem_ids: Groups, *, seed: int = 0) -> Figure:
    """The share of (correct, incorrect) pairs of the same problem whose correct one scores higher, ties half.

    All pairs count the same; n counts pairs. Undefined where no problem has both classes or a score is NaN.
    """
    columns = pair_columns(scores, correct, problem_ids)
    pairs = int(columns[:, 1].sum())
    if np.isnan(columns).any() or not pairs:
        reason = "no problem has both correct and incorrect samples" if not pairs else "scores are missing"
        return undefined(pairs, "pairs", reason)
    return bootstrap(columns[columns[:, 1] > 0], ratio, n=pairs, unit="pairs", seed=seed)


def pair_columns(scores: Values, correct: Values, problem_ids: Groups) -> Array:
    """(P, 2): pairs ranked right (ties half), and pairs, of each problem."""
    values, right = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    result = []
    for rows in problem_rows(problem_ids):
        yes = int(right[rows].sum())
        pairs = yes * (rows.size - yes)
        ranked = stats.rankdata(values[rows])[right[rows]].sum() - yes * (yes + 1) / 2 if pairs else 0.0
        result.append((ranked, pairs))
    return np.array(result, dtype=np.float64).reshape(-1, 2)


# ---------------------------------------------------------------------------------------------- correlation


def correlation(x: Values, y: Values, kind: Literal["pearson", "spearman"] = "pearson") -> Figure:
    """Pearson's r or Spearman's rho with Fisher's z interval (Spearman: variance of Bonett and Wright 2000)."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    reason = _flat_reason(a, b)
    if reason:
        return undefined(a.size, kind, reason)
    r = float(stats.pearsonr(a, b).statistic if kind == "pearson" else stats.spearmanr(a, b).statistic)
    spread = 1.0 if kind == "pearson" else 1 + r * r / 2
    error = math.sqrt(spread / (a.size - 3)) if a.size > 3 else math.inf
    if abs(r) >= 1 - 1e-12:
        return Figure(r, r, r, a.size, f"{kind}, exact") if a.size > 3 else Figure(r, -1.0, 1.0, a.size, kind)
    return Figure(r, math.tanh(math.atanh(r) - Z * error), math.tanh(math.atanh(r) + Z * error), a.size, kind)


def _flat_reason(a: Array, b: Array) -> str:
    if a.size < 2:
        return f"n is {a.size}; a correlation needs two"
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return "values are not finite"
    return "no variance" if np.ptp(a) == 0 or np.ptp(b) == 0 else ""


def correlation_matrix(
    columns: Mapping[str, Values], kind: Literal["pearson", "spearman"] = "pearson"
) -> dict[tuple[str, str], Figure]:
    """The correlation of every pair of columns, both ways round, keyed by their names."""
    return {(a, b): correlation(columns[a], columns[b], kind) for a in columns for b in columns}


def within_problem_correlation(x: Values, y: Values, problem_ids: Groups, *, seed: int = 0) -> Figure:
    """Pearson's r after each problem's mean is subtracted from both: what is left when knowing which problems are
    easy earns nothing. Bootstrapped over problems; n counts traces."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if reason := _flat_reason(a, b):
        return undefined(a.size, "traces", reason)
    a, b = _centred(a, problem_ids), _centred(b, problem_ids)
    columns = np.column_stack([problem_sums(v, problem_ids) for v in (a * b, a * a, b * b)])
    return bootstrap(columns, _cosine, n=a.size, unit="traces", bounded=False, seed=seed)


def _centred(values: Array, problem_ids: Groups) -> Array:
    """Values less their problem's mean; what is left of rounding becomes 0."""
    codes = problem_index(problem_ids)[1]
    centred: Array = values - (np.bincount(codes, values) / np.bincount(codes))[codes]
    return np.where(np.abs(centred) > 1e-12 * np.abs(values).max(), centred, 0.0)


def _cosine(totals: Array) -> Array:
    """Column 0 over the root of columns 1 x 2, NaN where that is 0."""
    return ratio(np.column_stack([totals[:, 0], np.sqrt(totals[:, 1] * totals[:, 2])]))


# ---------------------------------------------------------------------------------------------- first error


@dataclass(frozen=True, slots=True)
class FirstError:
    """ProcessBench (Zheng et al. 2024): exact first step on wrong traces, 'no error' on correct ones, harmonic mean."""

    error_acc: Figure
    correct_acc: Figure
    f1: Figure


@dataclass(frozen=True, slots=True)
class ProcessJudgement:
    """MR-GSM8K (Zeng et al. 2024): exact first step on wrong traces, and Matthews' correlation of the verdicts."""

    step_accuracy: Figure
    mcc: Figure


def first_error(true: Values, predicted: Values, problem_ids: Groups | None = None, *, seed: int = 0) -> FirstError:
    """ProcessBench's figures. Labels are 0-based steps or `NO_ERROR`; a prediction may be `UNDECIDED`, which is wrong
    on every trace. Without problem ids each trace is a problem of its own. F1 is 0 where both shares are."""
    wrong, hits, ids = _hits(true, predicted, problem_ids)
    columns = np.column_stack([problem_sums(v, ids) for v in (hits & wrong, wrong, hits & ~wrong, ~wrong)])
    n_wrong, n = int(wrong.sum()), wrong.size
    return FirstError(
        error_acc=_existing(columns[:, :2], n_wrong, "wrong traces", seed),
        correct_acc=_existing(columns[:, 2:], n - n_wrong, "correct traces", seed),
        f1=bootstrap(columns, _harmonic, n=n, unit="traces", seed=seed)
        if 0 < n_wrong < n
        else undefined(n, "traces", f"one class: {n_wrong} wrong, {n - n_wrong} correct"),
    )


def _hits(
    true: Values, predicted: Values, problem_ids: Groups | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Groups]:
    """(is the trace wrong, is the prediction exact, problem ids)."""
    labels, guesses = np.asarray(true), np.asarray(predicted)
    ids = np.arange(labels.size) if problem_ids is None else problem_ids
    return labels != NO_ERROR, labels == guesses, ids


def _existing(columns: Array, n: int, unit: str, seed: int) -> Figure:
    """A ratio over the problems that have such traces at all."""
    if not n:
        return undefined(0, unit, f"no {unit}")
    return bootstrap(columns[columns[:, 1] > 0], ratio, n=n, unit=unit, seed=seed)


def _harmonic(totals: Array) -> Array:
    a, b = ratio(totals[:, :2]), ratio(totals[:, 2:])
    return np.where(a + b == 0, 0.0, 2 * a * b / np.where(a + b == 0, 1.0, a + b))


def mr_gsm8k(true: Values, predicted: Values, problem_ids: Groups | None = None, *, seed: int = 0) -> ProcessJudgement:
    """MR-GSM8K's figures, labels as in `first_error`. A verdict is 'wrong' where a step is predicted; `UNDECIDED`
    counts as the wrong verdict. MCC is undefined where one side is all the same (some libraries say 0)."""
    wrong, hits, ids = _hits(true, predicted, problem_ids)
    guesses = np.asarray(predicted)
    said = np.where(guesses == UNDECIDED, ~wrong, guesses != NO_ERROR)
    cells = (wrong & said, ~wrong & said, wrong & ~said, ~wrong & ~said)
    table = np.column_stack([problem_sums(cell, ids) for cell in cells])
    steps = np.column_stack([problem_sums(v, ids) for v in (hits & wrong, wrong)])
    return ProcessJudgement(
        step_accuracy=_existing(steps, int(wrong.sum()), "wrong traces", seed),
        mcc=bootstrap(table, _matthews, n=wrong.size, unit="traces", bounded=False, seed=seed),
    )


def _matthews(totals: Array) -> Array:
    """Matthews' correlation of (true positive, false positive, false negative, true negative) totals."""
    tp, fp, fn, tn = totals.T
    scale = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    return ratio(np.column_stack([tp * tn - fp * fn, scale]))


def oracle_threshold(true: Values, named: Values, suspicion: Values) -> tuple[float, float]:
    """(threshold, F1): the limit below which naming the step gives the best F1 on these very traces, so an upper
    bound and no result. ``named`` is the step that would be named, ``suspicion`` its trace's lowest step score."""
    wrong, hits, _ = _hits(true, named, None)
    scores = np.asarray(suspicion, dtype=np.float64)
    limits = np.append(np.unique(scores[~np.isnan(scores)]), np.inf)
    order = np.argsort(scores, kind="stable")  # NaN last: never flagged
    flagged = np.searchsorted(scores[order], limits, side="left")
    found = np.append(0, np.cumsum((hits & wrong)[order]))[flagged]
    spoilt = np.append(0, np.cumsum(~wrong[order]))[flagged]
    ones = np.ones(limits.size)
    totals = np.column_stack([found, ones * wrong.sum(), (~wrong).sum() - spoilt, ones * (~wrong).sum()])
    f1 = np.nan_to_num(_harmonic(totals.astype(np.float64)))
    best = int(np.argmax(f1))
    return float(limits[best]), float(f1[best])
