"""Localisation of the first error: the metrics of ProcessBench and MR-GSM8K, with baselines that need no reward.

A trace is *wrong* where its first wrong step is known, and *correct* where it is known to have none, whatever its
final answer. ``exact`` is the share of wrong traces whose named step is the true one, were each known to be wrong; all
other figures depend on the decision: a trace may be left without an error, or undecided, which counts as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import pandas as pd

from irl_core.evaluation import perturbed
from irl_core.evaluation.calibration import Conformal, Reliability, conformal, reliability
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.located_traces import (
    ANCHOR,
    Array,
    Located,
    Locator,
    Steps,
    column,
    decided,
    located,
    locator_of,
)
from irl_core.reward.localisation import Rule
from irl_core.statistics.bootstrap import Estimate, problem_index, share, share_difference, undefined
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED, first_error, mr_gsm8k, oracle_threshold

REWARD, COMBINED = "reward", "checker_then_reward"
TITLES = {
    REWARD: "reward, calibrated rule",
    COMBINED: "arithmetic checker, then reward",
    "arithmetic": "arithmetic checker alone",
    "likelihood": "log-probability, calibrated rule",
    "least_likely": "least likely token",
    "anchor": "log-probability under the discriminator's start",
    "random": "random step (expected)",
    "first": "first step",
    "middle": "middle step",
    "last": "last step",
}
CANDIDATES = 2000  # limits that the search for the oracle threshold tries at most
ALWAYS = "it names a step in every solution"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """ProcessBench's and MR-GSM8K's figures of one method's decisions."""

    error_acc: Estimate
    correct_acc: Estimate
    f1: Estimate
    step_accuracy: Estimate
    mcc: Estimate


VERDICTS = tuple(one.name for one in fields(Verdicts))


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleVerdicts(Verdicts):
    """The reward's verdicts at the threshold with the best F1 on these very traces: an upper bound. The intervals do
    not account for that choice."""

    threshold: float


@dataclass(frozen=True, slots=True)
class Labels:
    """Numbers of labelled traces. ``right_answer_but_wrong``: with a wrong step and the right final answer."""

    traces: int
    wrong: int
    correct: int
    problems: int
    right_answer_but_wrong: int


@dataclass(frozen=True, slots=True)
class AppliedRule:
    """The rule that named steps. ``threshold``: infinite where none flags; ``alpha``: the promised share of flagged
    correct traces, None where it is not known; ``answer_lines``: whether closing lines may be named."""

    rule: str
    threshold: float
    alpha: float | None
    answer_lines: bool


@dataclass(frozen=True, slots=True)
class Distance:
    """Named less true step of the wrong traces in which a step is named; negative = too early. ``distribution``: counts
    by distance, ascending."""

    distribution: dict[int, int]
    mean_absolute: Estimate
    mean: Estimate
    within_one: Estimate
    too_early: Estimate
    too_late: Estimate


@dataclass(frozen=True, slots=True)
class OnLabels:
    """Figures of the labelled traces of a scored run, besides those of the methods.

    Attributes:
        oracle: the reward's verdicts at the oracle threshold. forced: those with undecided counted as no error.
        distance: of the named from the true step. decisions: shares by truth and decision (``wrong_uncertain``).
        reliability, conformal: see `irl_core.evaluation.calibration`.
        kinds: by kind of mistake, most frequent first: its share of the wrong traces, and ``exact`` by method.
    """

    oracle: OracleVerdicts
    forced: Verdicts
    distance: Distance
    decisions: dict[str, Estimate]
    reliability: Reliability
    conformal: Conformal
    kinds: dict[str, dict[str, Estimate]]


@dataclass(frozen=True, slots=True)
class OnPerturbed:
    """Figures of the perturbed expert traces: ``exact`` and the reward's less it by method, ``exact`` by kind of
    perturbation, and the tokens. ``reason``: why there is nothing."""

    reason: str
    methods: dict[str, dict[str, Estimate]]
    traces: int = 0
    problems: int = 0
    kinds: dict[str, dict[str, Estimate]] | None = None
    tokens: perturbed.Tokens | None = field(default=None, metadata={"flat": True})


@dataclass(frozen=True, slots=True)
class Localisation:
    """Localisation figures of an evaluation; None where the traces allow none. ``reason``: why there are none at all.

    Attributes:
        labels: numbers of labelled traces, on which the rest but ``perturbed`` is.
        methods: by method ``exact``, the reward's less it (``reward_minus_this``), and its verdicts (``VERDICTS``).
    """

    titles: dict[str, str]
    reason: str
    judged_by: AppliedRule | None = field(default=None, metadata={"flat": True})
    labels: Labels | None = field(default=None, metadata={"key": "counts"})
    methods: dict[str, dict[str, Estimate]] | None = None
    on_labels: OnLabels | None = field(default=None, metadata={"flat": True})
    perturbed: OnPerturbed | None = None


def figures(run: EvaluatedRun, *, seed: int = 0, answer_lines: bool | None = None) -> Localisation:
    """Every way to name a step, over the labelled and the perturbed traces of an evaluation. ``answer_lines``: see
    `locator_of`; ``seed``: of the bootstrap.

    Raises:
        StoreError: the traces cannot be located by one rule.
    """
    locator = locator_of(run, answer_lines)
    if locator is None:
        return Localisation(TITLES, "no solution was read by a discriminator")
    alpha = locator.calibration.alpha if locator.calibration else None
    traces = located(run.path, locator, run.path.with_name(ANCHOR))
    labels = Labels(0, 0, 0, 0, 0)
    if len(frame := traces.frame):
        wrong = frame["true"] != NO_ERROR
        mixed = int((wrong & frame["right_answer"].eq(True)).sum())
        problems = frame["problem_id"].nunique()
        labels = Labels(len(frame), int(wrong.sum()), int((~wrong).sum()), problems, mixed)
    return Localisation(
        TITLES,
        "",
        AppliedRule(locator.rule.name, locator.threshold, alpha, locator.answer_lines),
        labels,
        methods_on(frame, seed) if len(frame) else {},
        on_labels(traces, locator, seed) if len(frame) else None,
        on_perturbed(run, locator, seed),
    )


def on_labels(traces: Located, locator: Locator, seed: int) -> OnLabels:
    """The figures of the labelled traces of an evaluation."""
    frame = traces.frame
    decisions, kinds = {}, {}
    for group, rows in (("correct", frame["true"] == NO_ERROR), ("wrong", frame["true"] != NO_ERROR)):
        part = frame[rows]
        for said in ("error", "uncertain", "no_error"):
            flags = (part["decision"] == said).to_numpy()
            unit = f"{group} solutions"
            decisions[f"{group}_{said}"] = share(flags, part["problem_id"].to_numpy(), unit=unit, seed=seed)
    wrong = frame[frame["true"] != NO_ERROR]
    named = wrong["kind"].fillna("unknown").astype(str)
    for kind in named.value_counts(sort=True).index if named.nunique() > 1 else []:
        mine = (named == kind).to_numpy()
        exact = exact_by_method(wrong[mine], seed)
        frequency = share(mine, wrong["problem_id"].to_numpy(), unit="wrong solutions", seed=seed)
        methods = (REWARD, "least_likely", "arithmetic", "random")
        kinds[str(kind)] = {"share": frequency, **{name: exact[name]["exact"] for name in methods}}
    return OnLabels(
        oracle=oracle_on(traces, locator.rule, seed),
        forced=Verdicts(**verdicts_of(frame, np.where(decided(frame) == UNDECIDED, NO_ERROR, decided(frame)), seed)),
        distance=distance_on(frame, seed),
        decisions=decisions,
        reliability=reliability(frame, seed),
        conformal=conformal(frame, locator, seed),
        kinds=kinds,
    )


# ------------------------------------------------------------------------------------------------ methods


def hits(frame: pd.DataFrame) -> dict[str, Array]:
    """Whether each method names the true step of each trace, in expectation where it is random; 0 if it names none."""
    true = column(frame, "true")
    checker = column(frame, "arithmetic")
    named = {name: column(frame, name) for name in TITLES if name in frame.columns}
    named[COMBINED] = np.where(checker == NO_ERROR, named[REWARD], checker)
    exact = {name: (named[name] == true).astype(np.float64) for name in TITLES if name in named}
    return exact | {"random": frame["chance"].to_numpy(dtype=np.float64)}


def methods_on(frame: pd.DataFrame, seed: int) -> dict[str, dict[str, Estimate]]:
    """What each method names in the wrong traces, and the verdicts of those that may decide for no error."""
    checker = column(frame, "arithmetic")
    predicted = {REWARD: decided(frame), "arithmetic": checker}
    predicted[COMBINED] = np.where(checker == NO_ERROR, predicted[REWARD], checker)
    for name in ("likelihood", "anchor"):
        if f"{name}_decision" in frame.columns:
            predicted[name] = decided(frame, name, f"{name}_decision")
    nothing = dict.fromkeys(VERDICTS, undefined(len(frame), "solutions", ALWAYS))
    return {
        name: {**row, **(verdicts_of(frame, predicted[name], seed) if name in predicted else nothing)}
        for name, row in exact_by_method(frame, seed).items()
    }


def exact_by_method(frame: pd.DataFrame, seed: int, unit: str = "wrong solutions") -> dict[str, dict[str, Estimate]]:
    """``exact`` of every method over the wrong traces, and the reward's less it, paired."""
    part = frame[frame["true"] != NO_ERROR]
    exact, ids = hits(part), part["problem_id"].to_numpy()
    rows: dict[str, dict[str, Estimate]] = {}
    for name in sorted(exact, key=list(TITLES).index):
        rows[name] = {"exact": share(exact[name], ids, unit=unit, seed=seed)}
        if name != REWARD:
            less = share_difference(exact[REWARD], exact[name], ids, unit=unit, seed=seed)
            rows[name]["reward_minus_this"] = less
    return rows


def verdicts_of(frame: pd.DataFrame, predicted: Steps, seed: int) -> dict[str, Estimate]:
    """The fields of `Verdicts` for the predicted steps."""
    true, ids = column(frame, "true"), frame["problem_id"].to_numpy()
    processbench, other = first_error(true, predicted, ids, seed=seed), mr_gsm8k(true, predicted, ids, seed=seed)
    values = (processbench.error_acc, processbench.correct_acc, processbench.f1, other.step_accuracy, other.mcc)
    return dict(zip(VERDICTS, values, strict=True))


def oracle_on(traces: Located, rule: Rule, seed: int) -> OracleVerdicts:
    """The reward's verdicts at the threshold that is best on these traces."""
    frame = traces.frame
    true, suspicion = column(frame, "true"), frame["reward_suspicion"].to_numpy(dtype=np.float64)
    if rule.choice == "argmin":
        limit, _ = oracle_threshold(true, column(frame, REWARD), suspicion)
        named = column(frame, REWARD)
    else:
        limit, named = best_limit(true, traces.scores, suspicion)
    return OracleVerdicts(threshold=limit, **verdicts_of(frame, np.where(suspicion < limit, named, NO_ERROR), seed))


def best_limit(true: Steps, scores: Sequence[Array], suspicion: Array) -> tuple[float, Steps]:
    """The threshold with the best F1, and the steps that it names, for a rule that names the first step below its
    threshold: another one names other steps. At most ``CANDIDATES`` are tried, quantiles of the step scores."""
    table = np.full((len(scores), max(len(row) for row in scores)), np.nan)
    for index, row in enumerate(scores):
        table[index, : len(row)] = row
    table[np.isnan(suspicion)] = np.nan
    limits = np.unique(table[~np.isnan(table)])
    if limits.size > CANDIDATES:
        limits = np.quantile(limits, np.linspace(0, 1, CANDIDATES))
    best, best_f1, best_named = math.inf, -1.0, np.full(len(true), UNDECIDED)
    for limit in [*limits, math.inf]:
        below = table < limit
        named = np.where(below.any(1), below.argmax(1), NO_ERROR)
        value = f1_of(true, named)
        if value > best_f1:
            best, best_f1, best_named = float(limit), value, named
    return best, best_named


def f1_of(true: Steps, predicted: Steps) -> float:
    """ProcessBench's F1; with one class alone, its accuracy."""
    wrong = true != NO_ERROR
    if wrong.all() or not wrong.any():
        return float((predicted == true).mean())
    exact, kept = (predicted == true)[wrong].mean(), (predicted == true)[~wrong].mean()
    return float(2 * exact * kept / (exact + kept)) if exact + kept else 0.0


def distance_on(frame: pd.DataFrame, seed: int) -> Distance:
    """The distance of the step that the reward names from the true one."""
    part = frame[(frame["true"] != NO_ERROR) & (frame[REWARD] >= 0)]
    away, ids = column(part, REWARD) - column(part, "true"), part["problem_id"].to_numpy()
    values, counts = np.unique(away, return_counts=True)
    unit = "wrong solutions"
    return Distance(
        distribution={int(value): int(count) for value, count in zip(values, counts, strict=True)},
        mean_absolute=share(np.abs(away), ids, unit=f"{unit}, steps", bounded=False, seed=seed),
        mean=share(away, ids, unit=f"{unit}, steps", bounded=False, seed=seed),
        within_one=share(np.abs(away) <= 1, ids, unit=unit, seed=seed),
        too_early=share(away < 0, ids, unit=unit, seed=seed),
        too_late=share(away > 0, ids, unit=unit, seed=seed),
    )


def on_perturbed(run: EvaluatedRun, locator: Locator, seed: int) -> OnPerturbed:
    """The figures of the perturbed expert traces of an evaluation."""
    frame = located(run.perturbed_path, locator).frame if len(run.perturbed) else pd.DataFrame()
    if not len(frame):
        return OnPerturbed("the run has no corrupted solutions with a known first wrong step", {})
    kinds, unit = frame["kind"].fillna("unknown").astype(str), "corrupted solutions"
    return OnPerturbed(
        "",
        exact_by_method(frame, seed, unit),
        len(frame),
        int(problem_index(list(frame["problem_id"]))[0]),
        {
            kind: {name: row["exact"] for name, row in exact_by_method(frame[kinds == kind], seed, unit).items()}
            for kind in sorted(set(kinds))
        },
        perturbed.figures(run.perturbed_path, locator, seed=seed),
    )
