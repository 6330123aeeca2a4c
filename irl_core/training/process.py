"""Process supervision: the reward of a token learned from labels of the steps (Lightman et al. 2023), beside the paper.

A label says in which step a solution first goes wrong. Tokens before that step are right ones, those from it on are
not: what the adversarial training guesses from a demonstration is told here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from irl_core.text.divergence import departed_token
from irl_core.training.discriminator_step import update_discriminator
from irl_core.training.metrics import Metrics, timed
from irl_core.training.negatives import Example, by_problem, without_tail
from irl_core.training.reward_trainer import RewardTrainer
from irl_core.types import EncodedTrace, Source


@dataclass(slots=True, kw_only=True)
class ProcessTrainer(RewardTrainer):
    """The discriminator learns labelled steps; the policy is not trained, and stands beside it for the samples."""

    def round(self, labelled: Sequence[EncodedTrace]) -> Metrics:
        """One round on a batch of traces whose first wrong step is known; this process takes its share.

        Returns:
            What is logged, the same on every process.
        """
        settings, metrics, rng = self.config.discriminator, Metrics(), random.Random(self.seed("tail", self.world.rank))
        examples = [step_labels(self.pair.in_discriminator_tokens(one)) for one in self.world.share(labelled)]
        whole = [one.encoded.trace.source is Source.EXPERT or rng.random() < settings.tail for one in examples]
        examples = [one if kept else without_tail(one) for one, kept in zip(examples, whole, strict=True)]
        with timed(metrics, "time/discriminator_s"):
            for part in by_problem(examples, settings.minibatches):
                metrics |= update_discriminator(self.discriminator, self.pair, part, self.config, self.on_progress)
        self.round_number += 1
        return metrics


def step_labels(encoded: EncodedTrace) -> Example:
    """A labelled trace as an example: an expert's where no step is wrong, else non-expert from its first wrong step on.

    Raises ValueError where it has no label.
    """
    trace = encoded.trace
    if trace.truth is None:
        raise ValueError(f"solution {trace.trace_id!r} has no label of its steps")
    first = trace.truth.first_error_step
    if first is None:
        return Example(replace(encoded, trace=replace(trace, source=Source.EXPERT)))
    departure = departed_token(encoded.spans, trace.steps[first].start)
    return Example(replace(encoded, trace=replace(trace, source=Source.POLICY)), departure)
