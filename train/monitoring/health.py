"""What is wrong with a training, from its metrics alone: warnings with their fix, and when going on is useless.

The state is counts of consecutive steps, which the same metrics always give again: a resumed training reads them back
from ``metrics.jsonl``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from irl_core.config import TrainConfig
from irl_core.training.metrics import Metrics

MISMATCH_LIMIT = 0.1  # nats, the mean over the round's sampled tokens
CHANCE_MARGIN = 0.02
ZERO_SPREAD_STEPS = 5  # one round without a signal is bad luck
SKIPPED_STEPS = 20  # a float16 scale starts too high and is halved until it fits
OTHER_CLASSES = ("policy", "perturbed")


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that may be wrong with a training.

    Attributes:
        name: of the condition.
        words: what is wrong.
        fix: what to do about it.
        holds: whether it is so at a step; None where the step does not tell (one that does not train the policy, say).
        after: consecutive steps after which it is said.
        useless: whether a training in which it lasts for twice ``run.patience`` is stopped.
    """

    name: str
    words: str
    fix: str
    holds: Callable[[Metrics], bool | None]
    after: int = 1
    useless: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """What a step changed: warnings that began and that are over, as lines; ``stop``: why going on is useless."""

    begun: tuple[str, ...] = ()
    over: tuple[str, ...] = ()
    stop: str | None = None


@dataclass(slots=True)
class Health:
    """The health of a training: ``warnings`` that began so far, and the consecutive steps of each condition."""

    config: TrainConfig
    warnings: int = 0
    streaks: dict[str, int] = field(default_factory=dict)

    def check(self, step: int, metrics: Metrics) -> Findings:
        """Take in the metrics of the next step; returns what it changed."""
        begun, over, stop = [], [], None
        limit = 2 * self.config.run.patience
        for condition in conditions(self.config):
            held, before = condition.holds(metrics), self.streaks.get(condition.name, 0)
            if held is None:
                continue
            streak = self.streaks[condition.name] = before + 1 if held else 0
            if streak == condition.after:
                lasted = f" (for {streak} steps)" if streak > 1 else ""
                begun.append(f"step {step}: {condition.words}{lasted}; {condition.fix}")
            elif not held and before >= condition.after:
                over.append(f"step {step}: over, after {before} in a row: {condition.name}")
            if condition.useless and streak and streak % limit == 0:
                stop = f"{condition.words} (for {streak} steps); {condition.fix}"
        self.warnings += len(begun)
        return Findings(tuple(begun), tuple(over), stop)

    @classmethod
    def after(cls, config: TrainConfig, rows: Iterable[Metrics]) -> Health:
        """The health after the rows of a ``metrics.jsonl``, whose warnings were said then."""
        health = cls(config)
        for row in rows:
            health.check(int(row["step"]), row)
        return health


def conditions(config: TrainConfig) -> list[Condition]:
    """All conditions that are watched in a training of this configuration."""
    watched: list[Condition] = []
    if config.model.dtype == "float16":
        watched.append(Condition(
            "skipped updates",
            "updates are skipped, because their gradients do not fit into float16",
            "set model.dtype to bfloat16 (or float32), or lower the learning rate, in a new run",
            lambda metrics: any(key.endswith("/update_skipped") for key in metrics),
            after=SKIPPED_STEPS, useless=True,
        ))  # fmt: skip
    if config.method.samples_policy:
        watched += sample_conditions(config)
    if config.method.needs_discriminator and config.discriminator.loss != "wasserstein":
        # A Wasserstein critic has no zero: the sign of its reward means nothing.
        watched += [
            Condition(
                "perfect discriminator",
                "the discriminator is right on every solution, so its reward ranks nothing",
                "lower discriminator.learning_rate or raise policy.learning_rate, in a new run",
                perfect_discriminator, after=config.run.patience, useless=True,
            ),
            Condition(
                "blind discriminator",
                "the discriminator is no better than chance, so its reward is noise",
                "raise discriminator.learning_rate or discriminator.warmup_rounds, in a new run",
                blind_discriminator, after=config.run.patience, useless=True,
            ),
        ]  # fmt: skip
    return watched


def sample_conditions(config: TrainConfig) -> list[Condition]:
    """What may be wrong with the samples of a round."""
    groups, size = config.policy.prompts_per_round, config.policy.num_generations

    def measured(key: str, test: Callable[[float], bool]) -> Callable[[Metrics], bool | None]:
        return lambda metrics: test(metrics[key]) if key in metrics else None

    return [
        Condition(
            "missing samples",
            f"a group is short or empty: not all {groups} x {size} completions were sampled",
            "take another policy.sampler, or raise policy.sampling_tokens",
            measured("rollout/samples", lambda count: count < groups * size),
        ),
        Condition(
            "all truncated",
            "every sampled completion was cut off before its end",
            f"raise policy.max_new_tokens ({config.policy.max_new_tokens}), which is 0 for data.max_completion_tokens "
            f"({config.data.max_completion_tokens}), or start from a trained policy",
            measured("rollout/truncated", lambda share: share == 1.0),
        ),
        Condition(
            "no spread",
            "all samples of a problem are rewarded alike, in every group, so the policy learns nothing",
            "raise policy.num_generations or policy.temperature, or take problems of another difficulty",
            measured("rollout/zero_spread_groups", lambda count: count == groups),
            after=ZERO_SPREAD_STEPS,
            useless=True,
        ),
        Condition(
            "log-probability mismatch",
            f"the sampler's log-probabilities are more than {MISMATCH_LIMIT} nats from the trainer's, on average",
            "set policy.sampler to loop, or model.dtype to one that both share",
            measured("rollout/logprob_mismatch", lambda nats: nats > MISMATCH_LIMIT),
        ),
    ]


def class_accuracies(metrics: Metrics) -> tuple[float, list[float]] | None:
    """Accuracy on expert traces and on each other class; None in a step with one class alone."""
    others = [metrics[key] for name in OTHER_CLASSES if (key := f"disc/accuracy_{name}") in metrics]
    expert = metrics.get("disc/accuracy_expert")
    return None if expert is None or not others else (expert, others)


def perfect_discriminator(metrics: Metrics) -> bool | None:
    """Whether the discriminator is right on every class."""
    accuracies = class_accuracies(metrics)
    return None if accuracies is None else accuracies[0] == min(accuracies[1]) == 1.0


def blind_discriminator(metrics: Metrics) -> bool | None:
    """Whether the balanced accuracy of expert against the other classes is at chance."""
    accuracies = class_accuracies(metrics)
    if accuracies is None:
        return None
    expert, others = accuracies
    return round(abs((expert + sum(others) / len(others)) / 2 - 0.5), 9) <= CHANCE_MARGIN


def finite(metrics: Metrics, config: TrainConfig) -> tuple[Metrics, list[str]]:
    """The metrics that are finite, and a line for each one that was left out.

    In float16 a gradient that overflows is expected: that update was skipped, and is logged as ``*/update_skipped``.

    Raises:
        FloatingPointError: a loss or gradient is not finite; the weights may be broken already.
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
