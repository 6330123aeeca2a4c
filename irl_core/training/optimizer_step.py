"""A model that is being trained: its optimiser, its schedule, one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from irl_core.distributed import World


@dataclass(slots=True)
class Learner:
    """A model with its optimiser and schedule; ``scaler`` scales the loss where gradients are taken in float16."""

    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler | None = None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those that the next ``step`` uses."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

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
