"""The models that a backend builds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator


@dataclass(frozen=True, slots=True)
class Models:
    """A pair in memory. ``discriminator_encoder`` is ``encoder`` itself where both read the same tokens; likelihood
    training (``sft``) and outcome rewards (``grpo``) have no discriminator; ``reference`` is there where
    ``kl_coefficient`` asks for it."""

    policy: Any
    discriminator: Discriminator | None
    encoder: TraceEncoder
    discriminator_encoder: TraceEncoder
    reference: Any | None = None
