"""The processes that train together. One process is the world of size 1, in which every exchange is the identity.

A round's groups are divided among the processes, each group whole on one of them. Every loss is normalised by what the
*world* holds and gradients are summed, so that n processes take the step that one would take alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

BUCKET = 2**26  # numbers of one exchange: 256 MiB in float32, however large the model

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

    # -- dividing ----------------------------------------------------------------------------------------------

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of a round's items, consecutive ones together; parts differ by one item at most."""
        start, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return list(items[start:end])

    def even(self, batches: list[list[int]]) -> list[tuple[list[int], bool]]:
        """Micro-batches with True; where weights are sharded every process must make the same number of passes, and
        those with fewer repeat their first one with False: what it gives must not count."""
        counted = [(batch, True) for batch in batches]
        if not self.sharded:
            return counted
        most = max(self.gather([len(batches)]))
        return counted + [(batches[0], False)] * (most - len(batches))

    def must_pass(self, wanted: bool) -> bool:
        """Whether this process runs a model where it is ``wanted``: with sharded weights as soon as any process wants
        it, and then every process must call this."""
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
        """How many objects the earlier ranks hold, where this one holds ``count``; every process must call it."""
        return sum(self.gather([count])[: self.rank])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; every process must call it."""
        return any(self.gather([flag]))

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            torch.distributed.barrier()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add the gradients of all processes, in place. A gradient that only some processes have counts as 0 on the
        others; one that no process has stays missing, so that the optimiser passes the parameter over as on one."""
        if self.size == 1:
            return
        trained = list(parameters)
        device = trained[0].device
        found = torch.tensor([parameter.grad is not None for parameter in trained], device=device, dtype=torch.int32)
        torch.distributed.all_reduce(found)
        present = [parameter for parameter, count in zip(trained, found.tolist(), strict=True) if count]
        for bucket in buckets(present, BUCKET):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([grad.reshape(-1).float() for grad in grads])
            torch.distributed.all_reduce(flat)
            for parameter, total in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = total.view_as(parameter).to(parameter.dtype)

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values, in place: what is trained starts equal, whatever drew it."""
        if self.size == 1:
            return
        for tensor in tensors:
            torch.distributed.broadcast(tensor.data, src=0)


def buckets(tensors: Sequence[Tensor], limit: int) -> Iterator[list[Tensor]]:
    """Consecutive tensors together, of at most ``limit`` numbers; a larger one stands alone."""
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
