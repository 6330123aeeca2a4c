"""Requests to stop (SIGTERM and SIGINT): a training or an evaluation ends where nothing is lost, and can be resumed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType


class Interrupted(Exception):
    """The work was asked to stop, and has saved."""


class Stopped(Interrupted):
    """A training has saved and stopped by itself, since going on is useless. The message says why, with the fix."""


@dataclass(slots=True)
class StopRequests:
    """The SIGTERM and SIGINT that arrived; true where there is any.

    Attributes:
        received: the signals' numbers.
        at_once: whether nothing would be lost now (in a download, say): the first signal then raises ``Interrupted``
            wherever the program is. Else the step is finished first.
    """

    received: list[int] = field(default_factory=list)
    at_once: bool = False

    def take(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.received.append(number)
        if self.at_once:
            self.at_once = False
            raise Interrupted("stopped")

    @contextmanager
    def obeyed_at_once(self, wanted: bool) -> Iterator[None]:
        """Obey a request, also an earlier one, at once inside the block, where that is ``wanted``."""
        if wanted and self.received:
            raise Interrupted("stopped")
        self.at_once = wanted
        try:
            yield
        finally:
            self.at_once = False

    def __bool__(self) -> bool:
        return bool(self.received)


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Collect SIGTERM and SIGINT inside the block; the earlier handlers are restored afterwards."""
    stops = StopRequests()
    previous = {number: signal.signal(number, stops.take) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stops
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
