"""The course of training (the paper's figures 2, 7-9): rewards by class, correctness, and their correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.section import Section, Table
from irl_core.statistics.bootstrap import Estimate, Z, percentile_interval, undefined
from irl_core.statistics.ranks import ranks, welch
from irl_core.statistics.wording import difference, side
from irl_core.storage.training_run import METRICS

Array = npt.NDArray[np.float64]
Lines = Sequence[Mapping[str, float]]

TITLES = {
    "disc/reward_expert": "mean reward, expert solutions",
    "disc/reward_policy": "mean reward, policy samples",
    "disc/reward_perturbed": "mean reward, perturbed solutions",
    "disc/accuracy_expert": "discriminator right, expert solutions",
    "disc/accuracy_policy": "discriminator right, policy samples",
    "disc/accuracy_perturbed": "discriminator right, perturbed solutions",
    "rollout/correct": "correct on training problems",
    "rollout/length": "tokens a sample",
    "eval/pass@1": "pass@1 on held-out problems",
}
REWARD, EXPERT, TRAIN, HELD_OUT = "disc/reward_policy", "disc/reward_expert", "rollout/correct", "eval/pass@1"
FEWEST = 4  # points that a rank correlation with an interval needs
RESAMPLES = 2000


def find_training(checkpoint: Path, run_dir: Path | None = None) -> Path | None:
    """The folder of the run that made a checkpoint: the one named, else the one that the checkpoint lies in (as
    ``final`` or among its saves); None where there is none with metrics."""
    places = [run_dir] if run_dir is not None else [checkpoint.parent, checkpoint.parent.parent]
    return next((place for place in places if (place / METRICS).is_file()), None)


@dataclass(frozen=True, slots=True)
class Series:
    """A metric at the steps where it was logged."""

    step: list[int]
    value: list[float]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """pass@1 on held-out problems after a step."""

    step: int
    solved: Estimate = field(metadata={"key": "pass@1"})


@dataclass(frozen=True, slots=True)
class Training:
    """A summary of the training run's metrics.

    Attributes:
        titles: of the metrics. reason: why there is nothing, empty where there is. steps: the last step.
        series: each metric of ``TITLES`` as it was logged.
        held_out: pass@1 with its interval.
        rank_correlation: of the reward of policy samples with correctness over steps, on training (``TRAIN``) and
            held-out problems: of the ``levels``, and of the ``changes`` from step to step, which a common trend does
            not move.
        change: of correctness, last less first.
    """

    titles: dict[str, str]
    reason: str
    steps: int
    series: dict[str, Series]
    held_out: list[HeldOut]
    rank_correlation: dict[str, dict[str, Estimate]]
    change: dict[str, Estimate]


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[Training]:
    """Training as a section of the report."""
    training = figures(run, seed=seed)
    return Section("Training", training, paragraph(training), tables(training), training.reason)


def figures(run: EvaluatedRun, *, seed: int = 0) -> Training:
    """The course of training, from the metrics beside the evaluation. ``seed``: of the bootstrap."""
    lines = run.training
    if not lines:
        reason = f"the folder holds no {METRICS}: no step was finished, or the training is not known"
        nothing = undefined(0, "steps", reason)
        moves = {TRAIN: {"levels": nothing, "changes": nothing}, HELD_OUT: {"levels": nothing}}
        return Training(TITLES, reason, 0, {}, [], moves, {HELD_OUT: nothing, TRAIN: nothing})
    series = {}
    for name in TITLES:
        if known := [line for line in lines if name in line]:
            series[name] = Series([int(line["step"]) for line in known], [float(line[name]) for line in known])
    train, held_out = _with_reward(lines, TRAIN), _with_reward(lines, HELD_OUT)
    return Training(
        titles=TITLES,
        reason="",
        steps=int(lines[-1]["step"]),
        series=series,
        held_out=[HeldOut(int(line["step"]), held_out_of(line)) for line in lines if HELD_OUT in line],
        rank_correlation={
            TRAIN: {
                "levels": rank_correlation(*train, unit="steps", seed=seed),
                "changes": rank_correlation(*(np.diff(values) for values in train), unit="changes", seed=seed),
            },
            HELD_OUT: {"levels": rank_correlation(*held_out, unit="evaluations", seed=seed)},
        },
        change=changes(lines),
    )


def held_out_of(line: Mapping[str, float]) -> Estimate:
    """pass@1 on held-out problems as a line of the metrics holds it."""
    method = "problems; bootstrap over problems, as logged"
    return Estimate(line[HELD_OUT], line["eval/low"], line["eval/high"], int(line["eval/n"]), method)


# --------------------------------------------------------------------------------------- reward and correctness


def _with_reward(lines: Lines, name: str) -> tuple[Array, Array]:
    """The reward of policy samples and another metric at the steps that have both."""
    known = [line for line in lines if REWARD in line and name in line]
    return np.array([line[REWARD] for line in known]), np.array([line[name] for line in known])


def rank_correlation(x: Array, y: Array, *, unit: str, seed: int = 0) -> Estimate:
    """Spearman's rho over a run's steps. Neighbouring steps are alike, so the interval is a moving-block bootstrap
    (Künsch 1989) with blocks of the cube root of n steps, ranks kept; n counts the points."""
    n = len(x)
    block = max(1, round(n ** (1 / 3)))
    method = f"spearman, {unit}; bootstrap over blocks of {block}"
    if not n:
        return undefined(0, method, f"no {unit} with both a reward of policy samples and correctness")
    if n < FEWEST:
        return undefined(n, method, f"{n} {unit}; a rank correlation needs {FEWEST}")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return undefined(n, method, "no variance")
    placed = np.column_stack([ranks(x), ranks(y)])
    value = float(np.asarray(np.corrcoef(placed.T))[0, 1])
    rng = np.random.default_rng(seed)
    starts = rng.integers(n - block + 1, size=(RESAMPLES, math.ceil(n / block)))
    drawn = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :n]
    away = placed[drawn] - placed[drawn].mean(axis=1, keepdims=True)
    product, squares = (away[..., 0] * away[..., 1]).sum(1), (away**2).sum(1)
    scale = np.sqrt(squares[:, 0] * squares[:, 1])
    draws = np.divide(product, scale, out=np.full(RESAMPLES, np.nan), where=scale > 1e-12)  # NaN: a side is constant
    low, high = percentile_interval(draws)
    return Estimate(value, min(low, value), max(high, value), n, method)


def changes(lines: Lines) -> dict[str, Estimate]:
    """Held-out pass@1 of the last evaluation less that of the first, and correctness of training samples in the last
    tenth of the steps less that in the first."""
    evaluated = [held_out_of(line) for line in lines if HELD_OUT in line]
    method = "problems; last less first, taken as independent"
    if len(evaluated) < 2:
        held_out = undefined(len(evaluated), method, f"{len(evaluated)} evaluations; a change needs two")
    else:
        first, last = evaluated[0], evaluated[-1]
        error = math.hypot(*((one.high - one.low) / (2 * Z) for one in (first, last)))
        value = last.value - first.value
        held_out = Estimate(value, value - Z * error, value + Z * error, last.n, method)
    values = np.array([line[TRAIN] for line in lines if TRAIN in line])
    tenth = len(values) // 10
    method = f"steps; last {tenth} less first {tenth}, Welch"
    start, end = values[:tenth], values[len(values) - tenth :]
    if tenth < 2:
        train = undefined(len(values), method, f"{len(values)} steps with samples; a change needs 20")
    elif start.std() + end.std() == 0:
        train = undefined(2 * tenth, method, "no variance")
    else:
        test = welch(end, start)
        train = Estimate(float(end.mean() - start.mean()), test.low, test.high, 2 * tenth, method)
    return {HELD_OUT: held_out, TRAIN: train}


# ------------------------------------------------------------------------------------------------ words


def paragraph(training: Training) -> str:
    """The answer to: did the policy get better, and did the reward move with it?"""
    if training.reason:
        return f"What training did is undefined: {training.reason}."
    words = ("better than at the start", "worse than at the start")
    text = (
        f"Over {training.steps} steps, the change of held-out pass@1 is "
        f"{difference(training.change[HELD_OUT], *words)}, that of the correctness of training samples "
        f"{difference(training.change[TRAIN], *words)}."
    )
    moves = training.rank_correlation
    level, moved = moves[TRAIN]["levels"], moves[TRAIN]["changes"]
    if not level.defined:
        return f"{text} Whether the reward moves with correctness is {level.words}."
    verdict = {"above": "it rises with it", "below": "it falls as correctness rises", "neither": "no relation is shown"}
    return (
        f"{text} The rank correlation of the mean reward of policy samples with their correctness over steps is "
        f"{level.words} ({verdict.get(side(level), 'undefined')}), of their changes from step to step {moved.words} "
        f"({verdict.get(side(moved), 'undefined')}); with held-out pass@1 it is {moves[HELD_OUT]['levels'].words}. "
        "Every step has other problems, and the discriminator changes along with the policy: part of this may be which "
        "problems are easy, and levels of two steps are not of one scale."
    )


def tables(training: Training) -> tuple[Table, ...]:
    """Held-out pass@1 by step, and reward and correctness over steps."""
    if training.reason:
        return ()
    rows = [(f"change, {TITLES[name]}", estimate) for name, estimate in training.change.items()]
    rows += [
        (f"rank correlation of the reward with: {TITLES[name]}, {what}", estimate)
        for name, parts in training.rank_correlation.items()
        for what, estimate in parts.items()
    ]
    return (
        Table(
            "pass@1 on held-out problems",
            ["step", "pass@1"],
            [(str(one.step), one.solved) for one in training.held_out],
        ),
        Table("Reward and correctness over steps", ["", "value"], rows, mixed=True),
    )
