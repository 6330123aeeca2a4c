"""Calibration of the first-error rule: the rule is chosen on one half of held-out problems, its threshold set on the
other."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np

from irl_core.reward.localisation import (
    CHOICES,
    REDUCTIONS,
    REWARD_SIGNALS,
    Array,
    Calibration,
    Indices,
    Rule,
    Signal,
    Signals,
    conformal_threshold,
    named_step,
    scores_by_rule,
    suspicion,
    token_steps,
    uncertain_limit,
)
from irl_core.types import Span, Step

Criterion = Literal["exact", "f1"]
RIDGE = 1e-3  # keeps the two logistic coefficients finite where held-out scores separate perfectly


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A scored held-out trace with its true first error (None where the trace is correct).

    ``signals`` maps each signal's name to its values ``(T,)``, as `locate` takes them.
    """

    signals: Signals
    spans: Sequence[Span]
    steps: Sequence[Step]
    first_error_step: int | None
    problem_id: str


@dataclass(frozen=True, slots=True)
class RuleScore:
    """Performance of a rule: share of the ``n_wrong`` wrong traces whose named step is exact, and ProcessBench's F1."""

    rule: Rule
    exact: float
    f1: float
    n_wrong: int
    n_correct: int


def candidate_rules(
    signals: Iterable[Signal] = REWARD_SIGNALS, *, include_answer: Sequence[bool] = (False, True)
) -> tuple[Rule, ...]:
    """All rules over the given signals; by default those of the reward, whose baseline is ``("logprob",)``."""
    return tuple(Rule(*parts) for parts in product(signals, REDUCTIONS, CHOICES, include_answer))


def split_by_problem(traces: Sequence[HeldOut], seed: int) -> tuple[list[HeldOut], list[HeldOut]]:
    """Two halves of the traces that share no problem; the second has the larger half of an odd number of problems."""
    problems = sorted({trace.problem_id for trace in traces})
    random.Random(seed).shuffle(problems)
    chosen = set(problems[: len(problems) // 2])
    return [t for t in traces if t.problem_id in chosen], [t for t in traces if t.problem_id not in chosen]


def score_rules(traces: Sequence[HeldOut], rules: Sequence[Rule], alpha: float) -> list[RuleScore]:
    """Performance of each rule on the traces, with its threshold at ``alpha`` from the correct ones among them."""
    owners = [token_steps(trace.spans, trace.steps) for trace in traces]
    wrong = [i for i, trace in enumerate(traces) if trace.first_error_step is not None]
    right = [i for i, trace in enumerate(traces) if trace.first_error_step is None]
    scores = []
    for rule in rules:
        applied = apply_rule(traces, owners, rule, alpha)
        flagged = [lowest < applied.threshold for lowest in applied.suspicions]
        hits = [i for i in wrong if applied.named[i] == traces[i].first_error_step]
        error_acc = sum(flagged[i] for i in hits) / max(len(wrong), 1)
        correct_acc = sum(not flagged[i] for i in right) / max(len(right), 1)
        f1 = 2 * error_acc * correct_acc / (error_acc + correct_acc) if error_acc + correct_acc else 0.0
        scores.append(RuleScore(rule, len(hits) / max(len(wrong), 1), f1, len(wrong), len(right)))
    return scores


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """A rule on several traces.

    Attributes:
        null: sorted suspicions of the correct traces; one without a usable signal is never flagged, so it is left out.
        threshold: below which a trace is flagged.
        named: the step that the rule names in each trace.
        suspicions: the lowest step score of each trace.
    """

    null: list[float]
    threshold: float
    named: list[int | None]
    suspicions: list[float]


def apply_rule(traces: Sequence[HeldOut], owners: Sequence[Indices], rule: Rule, alpha: float) -> AppliedRule:
    """Apply a rule with its threshold at ``alpha``; ``owners`` holds ``token_steps`` of each trace."""
    pairs = list(zip(traces, owners, strict=True))
    eligible = [scores_by_rule(trace.signals, own, trace.steps, rule)[1] for trace, own in pairs]
    suspicions = [suspicion(scores) for scores in eligible]
    correct = [low for trace, low in zip(traces, suspicions, strict=True) if trace.first_error_step is None]
    null = sorted(low for low in correct if not math.isnan(low))
    threshold = conformal_threshold(null, alpha)
    return AppliedRule(null, threshold, [named_step(scores, rule, threshold) for scores in eligible], suspicions)


def calibrate(
    traces: Sequence[HeldOut],
    rules: Sequence[Rule] | None = None,
    *,
    alpha: float = 0.10,
    uncertain_alpha: float | None = None,
    criterion: Criterion = "exact",
    seed: int = 0,
    gamma: float | None = None,
) -> Calibration:
    """The best of ``rules`` (default `candidate_rules()`) with its thresholds and confidences.

    The problems are split in two. On the first half the rule with the best ``criterion`` wins, the earlier of
    equals: ``exact`` = share of wrong traces whose named step is the true one; ``f1`` = ProcessBench's F1 at that
    half's own threshold. The second half gives the thresholds at ``alpha`` and ``uncertain_alpha`` (default 2.5
    alpha), and the confidences. Where it has too few correct traces for ``alpha``, the threshold is -inf, so that
    nothing is flagged, and ``note`` says so. Raises ValueError with fewer than two problems or no rule.
    """
    candidates = candidate_rules() if rules is None else tuple(rules)
    choosing, limiting = split_by_problem(traces, seed)
    if not choosing or not candidates:
        raise ValueError(
            f"{len(traces)} solutions and {len(candidates)} rules: give two problems and one rule at least"
        )
    best = max(
        score_rules(choosing, candidates, alpha), key=lambda score: score.exact if criterion == "exact" else score.f1
    )
    uncertain_alpha = min(1.0, 2.5 * alpha) if uncertain_alpha is None else uncertain_alpha
    return calibrate_rule(limiting, best.rule, alpha, uncertain_alpha, gamma)


def calibrate_rule(
    traces: Sequence[HeldOut], rule: Rule, alpha: float, uncertain_alpha: float, gamma: float | None
) -> Calibration:
    """Thresholds and confidences of one rule, on traces that it was not chosen on."""
    owners = [token_steps(trace.spans, trace.steps) for trace in traces]
    applied = apply_rule(traces, owners, rule, alpha)
    usable = [i for i, lowest in enumerate(applied.suspicions) if not math.isnan(lowest)]
    scores = np.array([applied.suspicions[i] for i in usable])
    exact = [applied.named[i] == traces[i].first_error_step for i in usable]
    correct = [traces[i].first_error_step is None for i in usable]
    n_wrong = sum(trace.first_error_step is not None for trace in traces)
    limit, note = uncertain_limit(applied.null, applied.threshold, alpha, uncertain_alpha)
    return Calibration(
        rule=rule,
        threshold=applied.threshold,
        uncertain_threshold=limit,
        alpha=alpha,
        uncertain_alpha=uncertain_alpha,
        n=len(applied.null),
        null_scores=tuple(applied.null),
        error_logit=logistic_fit(scores, np.array(exact, dtype=np.float64)),
        correct_logit=logistic_fit(scores, np.array(correct, dtype=np.float64)),
        exact=sum(exact) / n_wrong if n_wrong else None,
        n_wrong=n_wrong,
        gamma=gamma,
        note=note,
    )


def logistic_fit(x: Array, y: Array) -> tuple[float, float]:
    """``(slope, intercept)`` of P(y = 1 | x), by Newton's method with Platt's targets (Platt 1999).

    The targets keep the chances off 0 and 1. A constant ``x``, or nothing to fit, gives slope 0.
    """
    ones, zeros = y.sum(), (1 - y).sum()
    target = np.where(y == 1, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    if not x.size or np.ptp(x) == 0:
        share = float((ones + 1) / (ones + zeros + 2))
        return 0.0, math.log(share / (1 - share))
    centre, scale = x.mean(), x.std()
    design = np.column_stack([(x - centre) / scale, np.ones_like(x)])
    weights = np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -40, 40)))
        gradient = design.T @ (target - chance) - RIDGE * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + RIDGE * np.eye(2)
        move = np.linalg.solve(curvature, gradient)
        weights += move * min(1.0, 5.0 / max(float(np.abs(move).max()), 1e-12))
    slope = float(weights[0] / scale)
    return slope, float(weights[1] - slope * centre)


def at_level(calibration: Calibration, alpha: float) -> Calibration:
    """The same rule with its error threshold at another ``alpha``, from the stored null scores; runs no model.

    The uncertain level moves along, in the same ratio, up to 1. Raises ValueError for alpha outside [0, 1].
    """
    ratio = calibration.uncertain_alpha / calibration.alpha if calibration.alpha else 1.0
    uncertain_alpha = min(1.0, alpha * ratio)
    threshold = conformal_threshold(calibration.null_scores, alpha)
    limit, note = uncertain_limit(calibration.null_scores, threshold, alpha, uncertain_alpha)
    return replace(
        calibration, threshold=threshold, uncertain_threshold=limit, alpha=alpha, uncertain_alpha=uncertain_alpha,
        note=note,
    )  # fmt: skip
