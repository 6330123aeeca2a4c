"""Gradient accumulation over micro-batches and data-parallel processes, and the optimiser step that ends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from irl_core.distributed import World
from irl_core.models.allocation import give_back_freed_tensors
from irl_core.models.batching import Batching
from irl_core.training.metrics import Metrics, totals
from irl_core.types import EncodedTrace

MicroBatchLoss = Callable[[list[int]], tuple[Tensor, Metrics]]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimiser step: what its micro-batches logged, summed over them and all processes, and the gradient norm
    before clipping."""

    sums: Metrics
    grad_norm: float


@dataclass(slots=True)
class Learner:
    """A model in training: optimiser, schedule, and in float16 the ``scaler`` of the loss."""

    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler | None = None

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def update(
        self,
        traces: Sequence[EncodedTrace],
        batching: Batching,
        loss_of: MicroBatchLoss,
        max_grad_norm: float,
        world: World,
    ) -> StepResult:
        """One optimiser step on ``traces``, whose gradients are accumulated over micro-batches.

        Args:
            traces: this process's share.
            batching: divides them into micro-batches.
            loss_of: loss of the micro-batch of traces at the given indices, and what is logged of it. Losses must be
                parts of one sum, which that of all processes is.
            max_grad_norm: limit of the gradient's norm.
            world: the data-parallel processes, all of which must call this.

        Raises:
            FloatingPointError: as ``step``.
        """
        sums: Metrics = {}
        for indices, counts in world.even(batching.split(traces)):
            loss, logged = loss_of(indices)
            self.backward(loss if counts else 0.0 * loss)
            for key, value in logged.items() if counts else ():
                sums[key] = sums.get(key, 0.0) + value
        norm = self.step(max_grad_norm, world)
        return StepResult(totals(sums, world), norm)

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those that the next ``step`` uses."""
        torch.autograd.backward(loss if self.scaler is None else self.scaler.scale(loss))
        if self.device.type == "cpu":  # the next micro-batch has other shapes, which fit no hole
            give_back_freed_tensors()

    def step(self, max_grad_norm: float, world: World | None = None) -> float:
        """Sum over the processes, clip, update, advance the schedule; returns the gradient's norm before clipping.

        With a ``scaler`` a gradient that is not finite lowers the scale and skips the update: the norm is then NaN.

        Raises:
            FloatingPointError: the gradient is not finite; the model is left as it was.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        (world or World()).sum_gradients(parameters)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif math.isfinite(norm):
            self.optimizer.step()
        else:
            raise FloatingPointError(f"the gradient's norm is {norm}; lower the learning rate and resume")
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm if math.isfinite(norm) else math.nan
