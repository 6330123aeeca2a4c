"""Metrics of the first wrong step: ProcessBench accuracies and F1, MR-GSM8K step accuracy and MCC."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from irl_core.statistics.bootstrap import Array, Estimate, Groups, Values, bootstrap, problem_sums, ratio, undefined

NO_ERROR = -1  # a first-error label: no step is wrong
UNDECIDED = -2  # a first-error prediction: neither a step nor 'no error'; counts as wrong on every trace


@dataclass(frozen=True, slots=True)
class FirstError:
    """ProcessBench (Zheng et al. 2024): exact first step on wrong traces, 'no error' on correct ones, harmonic mean."""

    error_acc: Estimate
    correct_acc: Estimate
    f1: Estimate


@dataclass(frozen=True, slots=True)
class MrGsm8k:
    """MR-GSM8K (Zeng et al. 2024): exact first step on wrong traces, and Matthews' correlation of the verdicts."""

    step_accuracy: Estimate
    mcc: Estimate


def first_error(true: Values, predicted: Values, problem_ids: Groups | None = None, *, seed: int = 0) -> FirstError:
    """ProcessBench's figures. Labels are 0-based steps or `NO_ERROR`; a prediction may be `UNDECIDED`, which is wrong
    on every trace. Without problem ids each trace is a problem of its own. F1 is 0 where both shares are."""
    wrong, hits, ids = _hits(true, predicted, problem_ids)
    columns = np.column_stack([problem_sums(v, ids) for v in (hits & wrong, wrong, hits & ~wrong, ~wrong)])
    n_wrong, n = int(wrong.sum()), wrong.size
    return FirstError(
        error_acc=_existing(columns[:, :2], n_wrong, "wrong solutions", seed),
        correct_acc=_existing(columns[:, 2:], n - n_wrong, "correct solutions", seed),
        f1=bootstrap(columns, harmonic_mean, n=n, unit="solutions", seed=seed)
        if 0 < n_wrong < n
        else undefined(n, "solutions", f"one class: {n_wrong} wrong, {n - n_wrong} correct"),
    )


def _hits(
    true: Values, predicted: Values, problem_ids: Groups | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], Groups]:
    """(is the trace wrong, is the prediction exact, problem ids)."""
    labels, guesses = np.asarray(true), np.asarray(predicted)
    ids = np.arange(labels.size) if problem_ids is None else problem_ids
    return labels != NO_ERROR, labels == guesses, ids


def _existing(columns: Array, n: int, unit: str, seed: int) -> Estimate:
    """A ratio over the problems that have such traces at all."""
    if not n:
        return undefined(0, unit, f"no {unit}")
    return bootstrap(columns[columns[:, 1] > 0], ratio, n=n, unit=unit, seed=seed)


def harmonic_mean(totals: Array) -> Array:
    """The harmonic mean of two ratios from their totals (B, 4), 0 where both are 0."""
    a, b = ratio(totals[:, :2]), ratio(totals[:, 2:])
    return np.where(a + b == 0, 0.0, 2 * a * b / np.where(a + b == 0, 1.0, a + b))


def mr_gsm8k(true: Values, predicted: Values, problem_ids: Groups | None = None, *, seed: int = 0) -> MrGsm8k:
    """MR-GSM8K's figures, labels as in `first_error`. A verdict is 'wrong' where a step is predicted; `UNDECIDED`
    counts as the wrong verdict. MCC is undefined where one side is all the same (some libraries say 0)."""
    wrong, hits, ids = _hits(true, predicted, problem_ids)
    guesses = np.asarray(predicted)
    said = np.where(guesses == UNDECIDED, ~wrong, guesses != NO_ERROR)
    cells = (wrong & said, ~wrong & said, wrong & ~said, ~wrong & ~said)
    table = np.column_stack([problem_sums(cell, ids) for cell in cells])
    steps = np.column_stack([problem_sums(v, ids) for v in (hits & wrong, wrong)])
    return MrGsm8k(
        step_accuracy=_existing(steps, int(wrong.sum()), "wrong solutions", seed),
        mcc=bootstrap(table, matthews_correlation, n=wrong.size, unit="solutions", bounded=False, seed=seed),
    )


def matthews_correlation(totals: Array) -> Array:
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
    exact = np.append(0, np.cumsum((hits & wrong)[order]))[flagged]
    flagged_correct = np.append(0, np.cumsum(~wrong[order]))[flagged]
    ones = np.ones(limits.size)
    totals = np.column_stack([exact, ones * wrong.sum(), (~wrong).sum() - flagged_correct, ones * (~wrong).sum()])
    f1 = np.nan_to_num(harmonic_mean(totals.astype(np.float64)))
    best = int(np.argmax(f1))
    return float(limits[best]), float(f1[best])
