"""Weights that lie in memory alike, whether they were built, copied or read from a file.

Tensors of a safetensors file are views of the mapped file, at whatever offset they stand there; those that torch makes
begin at a multiple of 64 bytes. Vectorised sums group their terms by that, and so round otherwise: a run resumed from a
file would leave the path of an unbroken one in the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes, that of torch's own allocator on the CPU


def align(trainer: Any) -> None:
    """Copy what of a trainer's models and optimisers lies askew in the CPU's memory; no value changes.

    Tensors of other kinds (quantised, divided among processes, on a GPU) are made anew wherever they are loaded.
    """
    learners = [learner for learner in (trainer.policy, getattr(trainer, "discriminator", None)) if learner is not None]
    copies: dict[tuple[Any, ...], Tensor] = {}
    reference = getattr(trainer, "reference", None)
    whole = [reference] if isinstance(reference, torch.nn.Module) else []  # the other kind is inside the policy
    for model in (*(learner.model for learner in learners), *whole):
        for tensor in (*model.parameters(), *model.buffers()):
            if is_askew(tensor.data):
                place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
                tensor.data = copies.setdefault(place, tensor.data.clone())  # what was shared stays shared
    for learner in learners:
        for state, key, value in _optimizer_tensors(learner.optimizer):
            if is_askew(value):
                state[key] = value.clone()


def is_askew(tensor: Tensor) -> bool:
    """Whether a plain floating-point tensor on the CPU begins elsewhere than torch would have it begin."""
    plain = type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_floating_point()
    return plain and not getattr(tensor, "is_paged", False) and tensor.data_ptr() % ALIGNMENT != 0


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    for state in optimizer.state.values():
        for key, value in list(state.items()):
            if isinstance(value, Tensor):
                yield state, key, value
