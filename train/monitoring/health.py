"""What is wrong with a run, read from its metrics alone: warnings with their mend, and when going on is useless.

The state is counts of consecutive steps, which the same metrics always give again: a resumed run reads them back from
``metrics.jsonl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from irl_core.config import TrainConfig

Metrics = dict[str, float]
MISMATCH_LIMIT = 0.1  # nats, the mean over the round's sampled tokens
CHANCE_MARGIN = 0.02
ZERO_SPREAD_STEPS = 5  # one round without a signal is bad luck
SKIPPED_STEPS = 20  # a float16 scale starts too high and is halved until it fits
OTHER_CLASSES = ("policy", "perturbed")


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that may be wrong. It is said after ``after`` consecutive steps; where ``useless`` a run in which it
    has lasted for twice its patience is stopped.

    ``holds(metrics)``: None where the step tells nothing about it (a round that does not train the policy, say).
    """

    name: str
    words: str
    mend: str
    holds: Callable[[Metrics], bool | None]
    after: int = 1
    useless: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What a step changed: ``begun`` and ``over`` as lines to be said; ``stop``: why going on is useless."""

    begun: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    stop: str | None = None


@dataclass(slots=True)
class Health:
    """Watches a run. ``warnings``: how many began so far."""

    config: TrainConfig
    warnings: int = 0
    streaks: dict[str, int] = field(default_factory=dict)

    def check(self, step: int, metrics: Metrics) -> Findings:
        """Take in the metrics of a step, in order; returns what it changed."""
        begun, over, stop = [], [], None
        limit = 2 * self.config.run.patience
        for condition in conditions(self.config):
            held, before = condition.holds(metrics), self.streaks.get(condition.name, 0)
            if held is None:
                continue
            streak = self.streaks[condition.name] = before + 1 if held else 0
            if streak == condition.after:
                lasted = f" (for {streak} steps)" if streak > 1 else ""
                begun.append(f"step {step}: {condition.words}{lasted}; {condition.mend}")
            elif not held and before >= condition.after:
                over.append(f"step {step}: over, after {before} in a row: {condition.name}")
            if condition.useless and streak and streak % limit == 0:
                stop = f"{condition.words} (for {streak} steps); {condition.mend}"
        self.warnings += len(begun)
        return Findings(tuple(begun), tuple(over), stop)

    @classmethod
    def after(cls, config: TrainConfig, rows: Iterable[Metrics]) -> Health:
        """The state after the lines of a ``metrics.jsonl``; what they said was said then."""
        health = cls(config)
        for row in rows:
            health.check(int(row["step"]), row)
        return health


def conditions(config: TrainConfig) -> tuple[Condition, ...]:
    """All that is watched in a run of this configuration."""
    found = [*_of_updates(config)]
    if config.method.samples_policy:
        found += _of_samples(config)
    if config.method.needs_discriminator and config.discriminator.loss != "wasserstein":
        found += _of_discriminator(config)  # a Wasserstein critic has no zero: the sign of its reward means nothing
    return tuple(found)


def _of_samples(config: TrainConfig) -> list[Condition]:
    groups = config.policy.prompts_per_round
    wanted = groups * config.policy.num_generations
    return [
        Condition(
            "missing samples",
            f"a group is short or empty: not all {groups} x {config.policy.num_generations} completions were sampled",
            "take another policy.sampler, or raise policy.sampling_tokens",
            lambda metrics: _below(metrics.get("rollout/samples"), wanted),
        ),
        Condition(
            "all truncated",
            "every sampled completion was cut off before its end",
            f"raise data.max_completion_tokens ({config.data.max_completion_tokens}), or start from a trained policy",
            lambda metrics: _is(metrics.get("rollout/truncated"), 1.0),
        ),
        Condition(
            "no spread",
            "all samples of a problem are rewarded alike, in every group, so the policy learns nothing",
            "raise policy.num_generations or policy.temperature, or take problems of another difficulty",
            lambda metrics: _is(metrics.get("rollout/zero_spread_groups"), groups),
            after=ZERO_SPREAD_STEPS,
            useless=True,
        ),
        Condition(
            "log-probability mismatch",
            f"the sampler's log-probabilities are more than {MISMATCH_LIMIT} nats from the trainer's, on average",
            "set policy.sampler to loop, or model.dtype to one that both share",
            lambda metrics: _above(metrics.get("rollout/logprob_mismatch"), MISMATCH_LIMIT),
        ),
    ]


def _of_discriminator(config: TrainConfig) -> list[Condition]:
    patience = config.run.patience
    return [
        Condition(
            "perfect discriminator",
            "the discriminator is right on every trace, so its reward ranks nothing",
            "lower discriminator.learning_rate or raise policy.learning_rate, in a new run",
            _perfect,
            after=patience,
            useless=True,
        ),
        Condition(
            "blind discriminator",
            "the discriminator is no better than chance, so its reward is noise",
            "raise discriminator.learning_rate or discriminator.warmup_rounds, in a new run",
            _blind,
            after=patience,
            useless=True,
        ),
    ]


def _of_updates(config: TrainConfig) -> list[Condition]:
    if config.model.dtype != "float16":
        return []
    return [
        Condition(
            "skipped updates",
            "updates are skipped, because their gradients do not fit into float16",
            "set model.dtype to bfloat16 (or float32), or lower the learning rate, in a new run",
            lambda metrics: any(key.endswith("/update_skipped") for key in metrics),
            after=SKIPPED_STEPS,
            useless=True,
        )
    ]


def _is(value: float | None, wanted: float) -> bool | None:
    return None if value is None else value == wanted


def _below(value: float | None, limit: float) -> bool | None:
    return None if value is None else value < limit


def _above(value: float | None, limit: float) -> bool | None:
    return None if value is None else value > limit


def _perfect(metrics: Metrics) -> bool | None:
    """Whether every class was told right; unknown in a round with one class alone."""
    expert, others = _accuracies(metrics)
    return None if expert is None or not others else expert == 1.0 and min(others) == 1.0


def _blind(metrics: Metrics) -> bool | None:
    """Whether the balanced accuracy of expert against the others is that of a coin."""
    expert, others = _accuracies(metrics)
    if expert is None or not others:
        return None
    balanced = (expert + sum(others) / len(others)) / 2
    return round(abs(balanced - 0.5), 9) <= CHANCE_MARGIN


def _accuracies(metrics: Metrics) -> tuple[float | None, list[float]]:
    others = [metrics[key] for name in OTHER_CLASSES if (key := f"disc/accuracy_{name}") in metrics]
    return metrics.get("disc/accuracy_expert"), others


def finite(metrics: Metrics, config: TrainConfig) -> tuple[Metrics, list[str]]:
    """The metrics that are numbers, and a line for each other one that was left out.

    In float16 a gradient that overflows is expected: that update was skipped, and is logged as ``*/update_skipped``.

    Raises:
        FloatingPointError: a loss or gradient is not finite; the weights may be spoilt already.
    """
    good = {key: value for key, value in metrics.items() if math.isfinite(value)}
    left_out = []
    for key in sorted(metrics.keys() - good.keys()):
        part, _, what = key.rpartition("/")
        if not (what == "loss" or what.endswith("_norm")):
            left_out.append(f"{key} is {metrics[key]}, and is left out of the metrics")
        elif config.model.dtype == "float16":
            good[f"{part}/update_skipped"] = 1.0
        else:
            raise FloatingPointError(f"{key} is {metrics[key]}")
    return good, left_out


def diverged(error: FloatingPointError) -> str:
    """The reason of a run that failed at a number which is not finite, with the mend."""
    found = str(error).partition(";")[0]
    return (
        f"{found}. The checkpoints are whole and from before it; start a new run with a lower policy.learning_rate and "
        "discriminator.learning_rate"
    )
