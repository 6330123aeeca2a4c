"""Several processes that make the parts of one file together; ``accelerate launch`` starts them, on any machines.

Parts do not depend on each other, nor on who makes them. A process claims the next part that nobody has, from a counter
in the launcher's key-value store, so that a fast machine makes more of them; the first one merges all parts. Parts lie
on storage that all see, and those of a process that was killed are made by whoever runs the same command again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from irl_core.errors import ConfigError
from irl_core.storage.run_writer import RunWriter
from train.monitoring.watch import launched

if TYPE_CHECKING:
    from irl_core.distributed import World

T = TypeVar("T")


class Workers:
    """One process that makes all parts by itself."""

    rank = 0
    size = 1
    files = 0  # how many were begun

    @property
    def is_main(self) -> bool:
        """Whether this process begins and merges files, and prints."""
        return self.rank == 0

    def claim(self, number: int) -> bool:
        """Whether this process makes the part of that number of the newest file; each is given to one process."""
        return True

    def wait(self) -> None:
        """Wait until all processes are here."""

    def from_main(self, function: Callable[[], T]) -> T:
        """What ``function`` returns on the first process, or its user error, on all of them."""
        return function()

    def check_same(self, value: str, what: str, fix: str) -> None:
        """Raise ConfigError on every process where the values differ."""

    def device(self, asked: str) -> str:
        """The device of this process."""
        return asked

    def writer(self, path: Path, provenance: Mapping[str, Any], *, resume: bool = True) -> RunWriter:
        """The writer of a scored run: the first process begins it, the others join it."""
        self.files += 1
        began: list[RunWriter] = []

        def begin() -> tuple[str, set[int]]:
            began.append(RunWriter(path, provenance, resume=resume))
            return began[0].owner, began[0].there

        owner, there = self.from_main(begin)
        writer = began[0] if began else RunWriter(path, provenance, owner=owner)
        writer.there = set(there)  # as the first one has seen them: all must skip the same parts
        return writer

    def finish_parts(self, writer: RunWriter, count: int) -> None:
        """Wait until all ``count`` parts are there. Raises StoreError where one is missing."""
        self.wait()
        self.from_main(lambda: writer.whole(count))


class LaunchedWorkers(Workers):
    """One of the processes that a launcher started; all of them make the same calls in the same order."""

    def __init__(self, world: World) -> None:
        from train.monitoring.watch import launcher_store

        self.world, self.rank, self.size = world, world.rank, world.size
        self.store = launcher_store("parts")

    def claim(self, number: int) -> bool:
        return int(self.store.add(f"{self.files}/{number}", 1)) == 1

    def wait(self) -> None:
        self.world.barrier()

    def from_main(self, function: Callable[[], T]) -> T:
        from train.distributed import from_main

        return from_main(self.world, function)

    def check_same(self, value: str, what: str, fix: str) -> None:
        from train.distributed import check_same

        check_same(self.world, value, what, fix)

    def device(self, asked: str) -> str:
        """This process's own GPU, or the CPU. Raises ConfigError for a GPU that is named: all would take it."""
        from train.distributed import training_device

        if asked not in ("auto", "cpu", "cuda"):
            raise ConfigError(
                f"--device {asked}: {self.size} processes would take it; leave it out, each takes its own"
            )
        return "cpu" if asked == "cpu" else str(training_device())


def is_first() -> bool:
    """Whether this process is the first one, or alone."""
    return not launched() or os.environ.get("RANK", "0") == "0"


@contextmanager
def launched_workers(command: str) -> Iterator[Workers]:
    """The processes that a launcher has started for ``command``, in a group while the block runs; without a launcher
    this one alone.

    Raises:
        ConfigError: the launcher is set to divide weights, or the machines have other versions of what computes.
        ProcessLost: another process failed or is gone.
    """
    if not launched():
        yield Workers()
        return
    from irl_core.distributed import World
    from irl_core.storage.provenance import versions
    from train.distributed import DDP, end_world, meet
    from train.monitoring.watch import watched

    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes"):
        raise ConfigError(f"{command} divides its file, not the model's weights; launch it with {DDP}")
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    meet("gloo")
    with watched(world) as watch:
        workers = LaunchedWorkers(world)
        try:
            same = "install the same versions on every machine: others may round otherwise"
            workers.check_same(repr(versions()), "versions of its packages", same)
            yield workers
            workers.wait()
        except RuntimeError as error:
            told = watch.cause(error)
            if told is error:
                raise
            raise told from error
    end_world()
