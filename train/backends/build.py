"""Choice of the backend that builds a configuration's models on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from irl_core.config import TrainConfig
from irl_core.distributed import World
from train.backends.models import Models
from train.backends.transformers import build_pretrained


def build(
    config: TrainConfig,
    state: Path | None,
    world: World,
    device: torch.device,
    texts: Callable[[], Iterable[str]] = tuple,
) -> Models:
    """The models of a configuration.

    Args:
        config: the training's settings.
        state: a verified training state that the weights are taken from, where there is one.
        world: the data-parallel processes.
        device: this process's.
        texts: gives the texts on which the backend ``tiny`` trains a tokenizer, where it makes one.

    Raises:
        ConfigError, CheckpointError: what the configuration names is not there or not usable.
    """
    if config.model.backend == "tiny":
        from train.backends.tiny import build_tiny

        return build_tiny(config, state, device, texts)
    if config.model.backend == "unsloth":
        from train.backends.unsloth import build_unsloth

        return build_unsloth(config, state, world, device)

    return build_pretrained(config, state, world, device)
