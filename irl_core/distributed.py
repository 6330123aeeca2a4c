"""Collectives of data-parallel training; with one process every exchange is the identity.

A round's groups are divided among the processes, each group whole on one of them. Every loss is normalised by what
*all* processes hold and gradients are summed, so that n processes take the step that one would take alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

BUCKET = 2**26  # numbers in one exchange of gradients: 256 MiB in float32, however large the model

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """The data-parallel processes: this one's rank, their number, and whether weights are sharded (FSDP)."""

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    # -- dividing ----------------------------------------------------------------------------------------------

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's share of a round's items, which are consecutive; shares differ by one item at most."""
        start, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(items[start:end])

    def even(self, batches: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Micro-batches, each with whether its result counts.

        Where weights are sharded every process must make the same number of passes: one with fewer micro-batches
        repeats its first, which then does not count.
        """
        counted = [(batch, True) for batch in batches]
        if not self.sharded:
            return counted
        most = max(self.gather([len(batches)]))
        return counted + [(batches[0], False)] * (most - len(batches))

    def must_pass(self, wanted: bool) -> bool:
        """Whether this process must run a model: where it is ``wanted`` here, or with sharded weights on any process.

        Where weights are sharded, every process must call this.
        """
        return self.any(wanted) if self.sharded else wanted

    # -- exchanging --------------------------------------------------------------------------------------------

    def gather(self, objects: Sequence[T]) -> list[T]:
        """The objects of all processes, in the order of their ranks; every process must call it."""
        if self.size == 1:
            return list(objects)
        parts: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(parts, list(objects))
        return [entry for part in parts for entry in part]

    def offset(self, count: int) -> int:
        """Number of objects on earlier ranks, where this one holds ``count``; every process must call it."""
        return sum(self.gather([count])[: self.rank])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; every process must call it."""
        return any(self.gather([flag]))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            torch.distributed.barrier()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients over all processes, in place.

        A gradient that only some processes have counts as 0 on the others. One that no process has stays None, so that
        the optimiser skips the parameter as it would on one process.
        """
        if self.size == 1:
            return
        trained = list(parameters)
        device = trained[0].device
        holders = torch.tensor([parameter.grad is not None for parameter in trained], device=device, dtype=torch.int32)
        torch.distributed.all_reduce(holders)
        present = [parameter for parameter, count in zip(trained, holders.tolist(), strict=True) if count]
        for bucket in buckets(present, BUCKET):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([grad.reshape(-1).float() for grad in grads])
            torch.distributed.all_reduce(flat)
            for parameter, total in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
                parameter.grad = total.view_as(parameter).to(parameter.dtype)

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Copy the main process's values to every process, in place: trained weights start equal everywhere."""
        if self.size == 1:
            return
        for tensor in tensors:
            torch.distributed.broadcast(tensor.data, src=0)


def buckets(tensors: Sequence[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Groups of consecutive tensors of at most ``limit`` numbers; a larger tensor is a group of its own."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and size + tensor.numel() > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
