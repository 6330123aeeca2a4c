"""Backends: how a configuration becomes a policy, a discriminator and their encoders on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from irl_core.config import TrainConfig
    from irl_core.discriminator import Discriminator
    from irl_core.encoding import TraceEncoder
    from irl_core.world import World


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


def build(
    config: TrainConfig,
    state: Path | None,
    world: World,
    device: torch.device,
    texts: Callable[[], Iterable[str]] = tuple,
) -> Models:
    """The models of a configuration; their weights from ``state``, a verified training checkpoint, where one is given.

    ``texts`` is what a tokenizer is trained on where the backend ``tiny`` makes one.

    Raises:
        ConfigError, CheckpointError: what the configuration names is not there or not usable.
    """
    if config.model.backend == "tiny":
        from train.backends.tiny import build_tiny

        return build_tiny(config, state, device, texts)
    if config.model.backend == "unsloth":
        from train.backends.unsloth import build_unsloth

        return build_unsloth(config, state, world, device)
    from train.backends.transformers import build_pretrained

    return build_pretrained(config, state, world, device)
