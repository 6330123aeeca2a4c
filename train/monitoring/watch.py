"""Supervision of data-parallel processes: each watches the others, and ends with the reason where one has failed.

An exchange between processes (``irl_core.distributed.World``) waits for all of them. Where one has raised an error, was
killed or has lost its machine, the others would wait until the exchange times out. So every process has a thread that
writes a heartbeat to the launcher's key-value store, reads those of the others, and ends its process with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from irl_core.errors import ProcessLost
from irl_core.storage.training_run import is_alive, machine, started
from irl_core.text.visible import visible

if TYPE_CHECKING:
    from irl_core.distributed import World

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_TO_LEAVE = 5.0  # for a process that meets the same error to end by itself
SECONDS_OF_SILENCE = 300.0  # of a process on another machine, after which it counts as gone
STORE_TIMEOUT = timedelta(seconds=60)

_numbers = itertools.count()  # every process makes the same watches in the same order


def launched() -> bool:
    """Whether a launcher has started several processes, and keeps a store for them. A cluster that sets ``WORLD_SIZE``
    by itself has no such store, and each of its processes is alone."""
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE", "").lower() == "true"
    return agent and int(os.environ.get("WORLD_SIZE", "1")) > 1


def launcher_store(purpose: str, timeout: timedelta = STORE_TIMEOUT, *, of_every_start: bool = False) -> Any:
    """The launcher's key-value store, with keys of this purpose and of this start of the processes alone: it outlives
    processes that are started again (``--max_restarts``). ``of_every_start``: with the keys of all their starts."""
    import torch

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = torch.distributed.TCPStore(address, port, is_master=False, timeout=timeout)
    start = "all" if of_every_start else os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return torch.distributed.PrefixStore(f"irl-lens/{start}/{purpose}", store)


@contextmanager
def watched(world: World, clean: tuple[type[BaseException], ...] = ()) -> Iterator[Watch]:
    """Watch the other processes inside the block, and tell them of an error that leaves it.

    ``clean`` errors are not told, since every process raises them together. One process alone has nobody to watch.
    """
    watch = Watch(world)
    watch.enter()
    try:
        yield watch
    except clean:
        watch.leave()
        raise
    except BaseException as error:
        watch.tell(error)
        raise
    watch.leave()


class Watch:
    """One process's watch over the others; ``on_lost`` is called in the watching thread before the process ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.on_lost: Callable[[ProcessLost], None] = lambda error: None
        self._gone = threading.Event()
        self._heard: dict[str, tuple[bytes, float]] = {}
        self._own: dict[str, Any] = {
            "host": socket.gethostname(), "machine": machine(), "pid": os.getpid(),
            "started": started(os.getpid()), "beat": 0, "left": False,
        }  # fmt: skip

    def enter(self) -> None:
        """Start to watch."""
        if self.world.size == 1:
            return
        self._store = launcher_store(f"watch-{next(_numbers)}")
        self.write_heartbeat()
        self._thread = threading.Thread(target=self.watch_others, name="watch", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Stop watching, and tell the others that this process has come to its end."""
        if self.world.size == 1 or self._gone.is_set():
            return
        self._gone.set()
        with contextlib.suppress(RuntimeError):  # the process that keeps the store may have left already
            self.write_heartbeat(left=True)
        self.join_thread()

    def tell(self, error: BaseException) -> None:
        """Make the others end with this reason; the first one told is kept."""
        if self.world.size == 1 or self._gone.is_set():
            return
        self._gone.set()
        with contextlib.suppress(RuntimeError):
            if not self._store.check(["failed"]):
                reason = f"{type(error).__name__}: {error}"
                self._store.set("failed", json.dumps({"rank": self.world.rank, "reason": reason[:2000]}))
            self.write_heartbeat(left=True)
        if threading.current_thread() is not self._thread:
            self.join_thread()

    def join_thread(self) -> None:
        """Wait for the thread: Python, ending while it is inside the store's C++ code, would end by SIGABRT."""
        self._thread.join(STORE_TIMEOUT.total_seconds())

    def cause(self, error: BaseException) -> BaseException:
        """The reason for ``error``: where an exchange failed since another process is gone, the error that says so."""
        if self.world.size == 1 or not isinstance(error, RuntimeError) or isinstance(error, ProcessLost):
            return error
        until = time.monotonic() + SECONDS_TO_LEAVE
        while time.monotonic() < until:
            if (lost := self.look()) is not None:
                return lost
            time.sleep(0.2)
        return error

    # -- the thread --------------------------------------------------------------------------------------------

    def watch_others(self) -> None:
        """Look at the others until the watch is over (the thread's main function)."""
        while not self._gone.wait(SECONDS_BETWEEN_LOOKS):
            lost = self.look()
            if lost is not None and not self._gone.wait(SECONDS_TO_LEAVE):
                self.end_process(lost)

    def end_process(self, lost: ProcessLost) -> None:
        """End this process: its main thread waits for one that does not come, and nothing else frees it."""
        try:
            self.tell(lost)
            self.on_lost(lost)
        finally:
            print(visible(f"irl-lens: {lost}"), file=sys.stderr, flush=True)
            os._exit(1)

    def look(self) -> ProcessLost | None:
        """Write a heartbeat; returns which process is lost and why, if any."""
        others = [str(rank) for rank in range(self.world.size) if rank != self.world.rank]
        try:
            self.write_heartbeat()
            told = json.loads(self._store.get("failed")) if self._store.check(["failed"]) else None
            said = {rank: self._store.get(rank) for rank in others if self._store.check([rank])}
        except RuntimeError as error:
            why = str(error).splitlines()[0]
            return ProcessLost(f"the launcher's store, on the machine of process 0, is gone ({why})")
        if told is not None and told["rank"] != self.world.rank:
            return ProcessLost(f"process {told['rank']} failed: {told['reason']}")
        return next((lost for rank, entry in said.items() if (lost := self.lost_by_silence(rank, entry))), None)

    def lost_by_silence(self, rank: str, said: bytes) -> ProcessLost | None:
        """Whether the process whose last heartbeat this is counts as gone."""
        entry = json.loads(said)
        if entry["left"]:
            return None
        name = f"process {rank} (pid {entry['pid']} on {entry['host']})"
        if entry["machine"] == machine():
            alive = is_alive(entry["pid"], entry["started"])
            return None if alive else ProcessLost(f"{name} is gone without a word; its machine's log may say why")
        last, since = self._heard.get(rank, (b"", 0.0))
        if said != last:
            self._heard[rank] = said, time.monotonic()
            return None
        silence = time.monotonic() - since
        return ProcessLost(f"{name} has said nothing for {silence:.0f} s") if silence > SECONDS_OF_SILENCE else None

    def write_heartbeat(self, left: bool = False) -> None:
        """Tell the others that this process is alive, or has ``left``."""
        self._own |= {"beat": self._own["beat"] + 1, "left": left}
        self._store.set(str(self.world.rank), json.dumps(self._own))
