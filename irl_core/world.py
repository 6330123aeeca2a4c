"""The processes that train together. One process is the world of size 1, in which every exchange is the identity.

A round's groups are divided among the processes, each group whole on one of them. Every loss is normalised by what the
*world* holds and gradients are summed, so that n processes take the step that one would take alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """This process's ``rank`` among ``size``; ``sharded`` where the frozen weights are divided too (FSDP)."""

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a round's items, consecutive ones together; earlier ranks take what is left over."""
        start, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(items[start:end])

    def gather(self, objects: Sequence[T]) -> list[T]:
        """The objects of all processes, in the order of their ranks; every process must call it."""
        if self.size == 1:
            return list(objects)
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, list(objects))
        return [entry for part in parts for entry in part]

    def offset(self, count: int) -> int:
        """How many objects the earlier ranks hold, where this one holds ``count``; every process must call it."""
        return sum(self.gather([count])[: self.rank])

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add the gradients of all processes, in place, in one exchange. A missing gradient counts as 0."""
        if self.size == 1:
            return
        trained = list(parameters)
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.reshape(-1).float() for p in trained if p.grad is not None])
        torch.distributed.all_reduce(flat)
        for parameter, total in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
            parameter.grad = total.view_as(parameter).to(parameter.dtype)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; every process must call it."""
        return any(self.gather([flag]))

    def even(self, batches: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Micro-batches with True; where weights are sharded every process must make the same number of passes, and
        those with fewer repeat their first one with False: what it gives must not count."""
        counted = [(batch, True) for batch in batches]
        if not self.sharded:
            return counted
        most = max(self.gather([len(batches)]))
        return counted + [(batches[0], False)] * (most - len(batches))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            torch.distributed.barrier()
