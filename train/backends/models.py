"""The models that a backend builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator


@dataclass(frozen=True, slots=True)
class Models:
    """What a backend builds for a training.

    Attributes:
        policy: a causal LM to train.
        discriminator: the reward model to train; None where the method needs none.
        encoder: the policy's encoder.
        discriminator_encoder: ``encoder`` itself where both models share a vocabulary.
        reference: the policy's frozen start, where ``PolicyConfig.needs_reference``.
    """

    policy: Any
    discriminator: Discriminator | None
    encoder: TraceEncoder
    discriminator_encoder: TraceEncoder
    reference: Any | None = None
