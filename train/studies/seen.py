"""What the models of a training run have seen, read from its configuration and its metrics: equal data, shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from irl_core.config import TrainConfig
from irl_core.storage.training_run import METRICS, read_metrics


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts of a training run, beyond what its start saw.

    Attributes:
        demonstrations: different ones.
        by_policy: readings of a demonstration that the policy learned from by likelihood.
        by_discriminator: readings of one by the discriminator.
        bare: problems without a demonstration that samples were drawn for, each time counted.
        samples: drawn in training.
        updates: of the policy.
        seconds: that the rounds took, as busy as the machine was.
    """

    demonstrations: float
    by_policy: float
    by_discriminator: float
    bare: float
    samples: float
    updates: float
    seconds: float


def seen_by(config: TrainConfig, run_dir: Path) -> Seen:
    """What a finished training run has seen."""
    rows = read_metrics(run_dir / METRICS)
    policy, method, disc = config.policy, config.method, config.discriminator
    waiting = disc.warmup_rounds if method.needs_discriminator else 0
    learning = config.run.steps - waiting
    bare = learning * policy.bare_prompts if method.samples_policy else 0
    shown = config.run.steps * getattr(policy, method.batch_setting) - bare
    return Seen(
        demonstrations=config.data.demonstrations or config.data.train_problems,
        by_policy=0 if method.samples_policy or method.needs_discriminator else shown,
        by_discriminator=shown * disc.updates_per_round if method.needs_discriminator else 0,
        bare=bare,
        samples=sum(row.get("rollout/samples", 0.0) for row in rows),
        updates=learning * (policy.updates_per_round if method.samples_policy else 1),
        seconds=sum(row["time/step_s"] for row in rows),
    )


def mean_of(runs: Sequence[Seen]) -> Seen:
    """The mean over the seeds of an arm."""
    return Seen(**{one.name: sum(getattr(run, one.name) for run in runs) / len(runs) for one in fields(Seen)})
