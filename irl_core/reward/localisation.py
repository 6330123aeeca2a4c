"""Localisation of the first error: from token signals to step scores to a step, 'no error' or 'uncertain'.

A *rule* says which signal is read, how the tokens of a step become its score (lower = more suspect), and which step
is named. ``irl_core.reward.calibration`` chooses the rule on one half of the held-out problems and sets its threshold
on the other, by split conformal prediction (Vovk et al. 2005; Lei et al. 2018), so that at most a stated share of new
correct traces is flagged. ``locate`` applies the result to one trace, and runs no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import AllowInfNan, BeforeValidator, PlainSerializer, Strict
from pydantic.dataclasses import dataclass
from pydantic_core import to_jsonable_python

from irl_core.errors import CheckpointError
from irl_core.types import Decision, Localisation, Span, Step
from irl_core.validation import STRICT, Flag, Range, Whole, validated

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Signals = Mapping[str, npt.NDArray[Any]]

Signal = Literal["raw", "credit", "discounted", "standardised", "logprob"]
Reduction = Literal["min", "mean", "sum", "last"]
Choice = Literal["argmin", "first_below"]

REWARD_SIGNALS: tuple[Signal, ...] = ("credit", "raw", "standardised", "discounted")
INFINITE = {"inf": math.inf, "-inf": -math.inf}  # JSON has no infinite numbers
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
CHOICES: tuple[Choice, ...] = get_args(Choice)
NORMAL_95 = 1.96


Real = Annotated[float, Strict()]
Threshold = Annotated[
    float,
    Strict(),
    AllowInfNan(True),
    BeforeValidator(lambda value: INFINITE.get(value, value) if isinstance(value, str) else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else str(value), when_used="json"),
]


@dataclass(frozen=True, slots=True, config=STRICT)
class Rule:
    """How a trace's tokens name a step.

    ``argmin`` names the step with the lowest score (the earliest of equals). ``first_below`` names the first step
    whose score is below the threshold, and falls back to ``argmin`` where none is. Without ``include_answer``,
    closing lines (``role == "answer"``) are never named and do not count towards suspicion.
    """

    signal: Signal
    reduction: Reduction
    choice: Choice = "argmin"
    include_answer: Flag = False

    @property
    def name(self) -> str:
        """The rule in words: ``credit/min/argmin``, with ``+answer`` where closing lines count."""
        return f"{self.signal}/{self.reduction}/{self.choice}" + ("+answer" if self.include_answer else "")


@dataclass(frozen=True, slots=True, config=STRICT)
class Calibration:
    """A rule with its thresholds, as fitted on held-out traces.

    A trace's *suspicion* is its lowest step score. Below ``threshold`` the decision is ``error``; from there up to
    ``uncertain_threshold`` it is ``uncertain``; above, ``no_error``. ``n`` counts the correct traces behind the
    thresholds, ``null_scores`` are their suspicions, sorted. ``error_logit`` and ``correct_logit`` hold
    (slope, intercept): the probability that the named step is right, and that the trace is correct, as sigmoids of
    the suspicion. ``exact`` is the rule's rate of exact first steps on ``n_wrong`` traces it was not chosen on.
    ``gamma`` is the discount that the signals were computed with (None = not stated). ``note`` says what is missing,
    and which traces the thresholds come from where the truth of samples is not known.
    """

    rule: Rule
    threshold: Threshold
    uncertain_threshold: Threshold
    alpha: Annotated[Real, Range(0, 1)]
    uncertain_alpha: Annotated[Real, Range(0, 1)]
    n: Whole
    null_scores: tuple[Real, ...]
    error_logit: tuple[Real, Real]
    correct_logit: tuple[Real, Real]
    exact: Real | None = None
    n_wrong: Whole = 0
    gamma: Real | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not self.alpha <= self.uncertain_alpha:
            raise ValueError(f"alpha {self.alpha} and uncertain_alpha {self.uncertain_alpha} must rise within [0, 1]")
        if not self.threshold <= self.uncertain_threshold:
            raise ValueError(
                f"threshold {self.threshold} lies above uncertain_threshold {self.uncertain_threshold}, or one is not "
                "a number; calibrate again"
            )
        if self.n != len(self.null_scores):
            raise ValueError(f"n is {self.n}, but there are {len(self.null_scores)} null scores")

    @property
    def score_tells(self) -> bool:
        """Whether the share of correct traces rises with the score, over the held-out correct ones, by more than the
        95 % interval of such a share is wide. Without held-out traces the score is the model's own probability."""
        if not self.null_scores:
            return True
        lowest, middle, highest = (
            chance(score, self.correct_logit)
            for score in (self.null_scores[0], self.null_scores[self.n // 2], self.null_scores[-1])
        )
        return highest - lowest > 2 * NORMAL_95 * math.sqrt(middle * (1 - middle) / self.n)

    def to_json(self) -> dict[str, Any]:
        """Plain values that `json.dumps` writes without extensions; infinite thresholds become "-inf" and "inf"."""
        return dict(to_jsonable_python(self))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_json`. Raises CheckpointError that names an unknown, missing or unreadable key."""
        return validated(cls, record, CheckpointError, "calibration: ")


# ---------------------------------------------------------------------------------------------- tokens -> steps


def token_steps(spans: Sequence[Span], steps: Sequence[Step]) -> Indices:
    """Which step each token belongs to: int64 (T,), -1 = none.

    A token belongs to the step that holds most of its characters, the earlier of equals. A token without a character
    in any step belongs to none, except the first one that begins exactly where a step ends (its newline): it closes
    that step, and a model's doubt about ending there is doubt about that step. Empty spans (an end-of-turn token)
    belong to none. Steps are in order and do not overlap.
    """
    result = np.full(len(spans), -1, dtype=np.int64)
    if not len(spans) or not steps:
        return result
    bounds = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    starts = np.array([step.start for step in steps])
    ends = np.array([step.end for step in steps])
    first = np.searchsorted(ends, bounds[:, 0], side="right")
    last = np.searchsorted(starts, bounds[:, 1], side="left") - 1
    visible = bounds[:, 1] > bounds[:, 0]
    inside = visible & (first <= last)
    result[inside] = first[inside]
    for token in np.flatnonzero(inside & (first < last)):
        candidates = np.arange(first[token], last[token] + 1)
        shared = np.minimum(ends[candidates], bounds[token, 1]) - np.maximum(starts[candidates], bounds[token, 0])
        result[token] = candidates[np.argmax(shared)]
    # A token outside all steps that begins where one ends closes that step; byte pieces of a character go together.
    before = np.searchsorted(ends, bounds[:, 0], side="right") - 1
    closing = visible & ~inside & (before >= 0) & (ends[np.maximum(before, 0)] == bounds[:, 0])
    result[closing] = before[closing]
    return result


def step_scores(values: npt.NDArray[Any], owners: Indices, n_steps: int, reduction: Reduction) -> Array:
    """One score a step, float64 (n_steps,); NaN where a step has no token. ``owners`` comes from `token_steps`.

    Raises ValueError where values and owners differ in length.
    """
    if values.shape != owners.shape:
        raise ValueError(f"{values.shape} values for {owners.shape} tokens; give one value a token")
    kept = owners >= 0
    numbers, index = np.asarray(values, dtype=np.float64)[kept], owners[kept]
    counts = np.bincount(index, minlength=n_steps)
    scores = np.full(n_steps, np.inf)
    if reduction == "min":
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            np.minimum.at(scores, index, numbers)
    elif reduction == "last":
        scores[index] = numbers  # of repeated indices the last assignment stays
    else:
        scores = np.bincount(index, weights=numbers, minlength=n_steps)
        if reduction == "mean":
            scores = scores / np.maximum(counts, 1)
    return np.where(counts > 0, scores, np.nan)


def scores_by_rule(signals: Signals, owners: Indices, steps: Sequence[Step], rule: Rule) -> tuple[Array, Array]:
    """All step scores ``(n_steps,)``, and the same with NaN on steps that the rule may not name.

    The second are NaN throughout where there is no usable signal. Raises ValueError where the signal is missing.
    """
    if rule.signal not in signals:
        raise ValueError(f"the rule {rule.name} needs the signal {rule.signal!r}; given: {', '.join(signals)}")
    values = np.asarray(signals[rule.signal], dtype=np.float64)
    scores = step_scores(values, owners, len(steps), rule.reduction)
    if values.size < 2 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return scores, np.full(len(steps), np.nan)
    barred = np.array([step.role == "answer" and not rule.include_answer for step in steps], dtype=bool)
    return scores, np.where(barred, np.nan, scores)


def named_step(eligible: Array, rule: Rule, threshold: float) -> int | None:
    """The step that the rule names; None where no step has a score."""
    if not np.isfinite(eligible).any():
        return None
    below = np.flatnonzero(eligible < threshold)
    if rule.choice == "first_below" and below.size:
        return int(below[0])
    return int(np.nanargmin(eligible))


def suspicion(eligible: Array) -> float:
    """The lowest step score of a trace; NaN where no step has one."""
    return float(np.nanmin(eligible)) if np.isfinite(eligible).any() else math.nan


# ---------------------------------------------------------------------------------------------- one trace


def locate(signals: Signals, spans: Sequence[Span], steps: Sequence[Step], calibration: Calibration) -> Localisation:
    """Where the trace goes wrong first, by the calibrated rule.

    ``signals`` holds the rule's signal, one value a token, computed as at calibration (same gamma, same
    standardisation). A signal that is constant or not finite, and a trace without a step that has a token, are
    ``uncertain`` with confidence 0. An ``uncertain`` decision between the thresholds carries the larger of the two
    chances that it would have had. Raises ValueError where the signal is missing or has another length than spans.
    """
    rule = calibration.rule
    scores, eligible = scores_by_rule(signals, token_steps(spans, steps), steps, rule)
    step, lowest = named_step(eligible, rule, calibration.threshold), suspicion(eligible)
    if math.isnan(lowest) or calibration.threshold <= lowest < calibration.uncertain_threshold:
        decision: Decision = "uncertain"
    else:
        decision = "error" if lowest < calibration.threshold else "no_error"
    return Localisation(
        decision=decision,
        first_error_step=step if decision == "error" else None,
        confidence=confidence(decision, lowest, calibration),
        rule=rule.name,
        threshold=calibration.threshold,
        step_scores=tuple(float(score) for score in scores),
        uncertain_threshold=calibration.uncertain_threshold,
        score_tells=calibration.score_tells,
    )


def most_suspect(
    signals: Signals, spans: Sequence[Span], steps: Sequence[Step], rule: Rule, threshold: float = -math.inf
) -> int | None:
    """The step that the rule would name were the trace known to be wrong; None where there is no usable signal.

    ``threshold`` matters to ``first_below`` alone.
    """
    _, eligible = scores_by_rule(signals, token_steps(spans, steps), steps, rule)
    return named_step(eligible, rule, threshold)


def confidence(decision: Decision, lowest: float, calibration: Calibration) -> float:
    """The chance that a decision is right, in [0, 1], for a trace of this suspicion."""
    if math.isnan(lowest):
        return 0.0
    error, correct = (chance(lowest, logit) for logit in (calibration.error_logit, calibration.correct_logit))
    return {"error": error, "no_error": correct, "uncertain": max(error, correct)}[decision]


def chance(score: float, logit: tuple[float, float]) -> float:
    """The sigmoid of a score by its (slope, intercept)."""
    slope, intercept = logit
    return 1 / (1 + math.exp(-min(max(slope * score + intercept, -40.0), 40.0)))


# ---------------------------------------------------------------------------------------------- calibration


def conformal_threshold(null_scores: Iterable[float], alpha: float) -> float:
    """The floor(alpha (n + 1))-th smallest of the n null scores; -inf where that is the 0th (n too small).

    A further score, exchangeable with these, falls strictly below it with a chance of at most alpha: its rank among
    all n + 1 is uniform. Several samples of one problem are not quite exchangeable with those of a new problem; the
    share then holds on average over draws of problems, with more spread between draws.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it is a share of correct solutions, in [0, 1]")
    ordered = sorted(null_scores)
    rank = math.floor(alpha * (len(ordered) + 1) + 1e-9)
    if rank > len(ordered):
        return math.inf
    return ordered[rank - 1] if rank else -math.inf


def uncertain_limit(null: Sequence[float], threshold: float, alpha: float, uncertain_alpha: float) -> tuple[float, str]:
    """The threshold of 'uncertain' at ``uncertain_alpha``, and a note where the traces are too few for ``alpha``."""
    if threshold > -math.inf:
        return conformal_threshold(null, uncertain_alpha), ""
    needed = math.ceil(1 / alpha - 1e-9) - 1 if alpha else math.inf
    limit = conformal_threshold(null, uncertain_alpha)
    note = f"{len(null)} correct solutions are too few for alpha {alpha:g} (it needs {needed}): no solution is flagged"
    return (limit, note) if limit > -math.inf else (math.inf, note + ", and every one is uncertain")
