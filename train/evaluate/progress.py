"""Progress of an evaluation or a study: a bar, ``status.json``, and the time left by the pace of this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from irl_core.progress import ProgressBar, progress_bar
from irl_core.storage.training_run import STATUS
from train.interruption import Interrupted, StopRequests
from train.planning.describe import hours
from train.run_folder import Status


class Progress:
    """A count of traces; those made by an earlier process count as done, but not for the pace.

    Args:
        path: the folder whose ``status.json`` is kept.
        total: number of traces to make in all.
        bar: the bar to show it on, if any.
        stopped: once it holds a request, the next report raises ``Interrupted``.
        written: whether ``status.json`` is kept; of several processes by the first one alone.
    """

    def __init__(
        self,
        path: Path,
        total: int,
        bar: ProgressBar | None = None,
        stopped: StopRequests | None = None,
        *,
        written: bool = True,
    ) -> None:
        self.total, self.done, self.fresh = total, 0.0, 0.0
        self.stopped = StopRequests() if stopped is None else stopped  # one without a request is false
        self.status = Status(path / STATUS, steps=total)
        self.started = time.monotonic()
        self._bar, self._written = bar, written

    def stage(self, title: str) -> None:
        """Name the work from now on."""
        self.status.phase = title
        self._show(0.0)

    def skip(self, count: int) -> None:
        """Count traces that an earlier process made."""
        self.done += count
        self._show(0.0)

    def advance(self, count: int) -> None:
        """Count traces that this process has made."""
        self.done += count
        self.fresh += count
        self._show(0.0)

    def within(self, count: int, share: float) -> None:
        """Show that a ``share`` (0 to 1) of the next ``count`` traces is made."""
        self._show(count * min(1.0, share))

    @property
    def seconds(self) -> float:
        """Seconds since this process began."""
        return time.monotonic() - self.started

    def seconds_left(self, partly: float = 0.0) -> float | None:
        """Seconds left at the pace so far; None before the first trace."""
        made = self.fresh + partly
        return None if made <= 0 else self.seconds / made * max(0.0, self.total - self.done - partly)

    def end(self, state: str, reason: str = "") -> None:
        """Write the final state: ``finished``, ``interrupted`` or ``failed``."""
        self.status.state, self.status.reason, self.status.phase = state, reason, ""
        self.status.seconds_left = None
        self.status.step = min(self.total, int(self.done))
        if self._written:
            self.status.write()

    def _show(self, partly: float) -> None:
        if self.stopped:
            raise Interrupted("stopped")
        left = self.seconds_left(partly)
        self.status.step, self.status.seconds_left = min(self.total, int(self.done + partly)), left
        if self._written:
            self.status.beat(self.status.phase)
        if self._bar is not None:
            beside = "" if left is None else f"{hours(left)} left"
            self._bar.update(min(self.total, self.done + partly), title=self.status.phase, beside=beside)


@contextmanager
def progress_of(
    path: Path,
    total: int,
    console: Console | None,
    stopped: StopRequests | None = None,
    *,
    written: bool = True,
) -> Iterator[Progress]:
    """The progress of the work in the folder ``path``, with a bar on ``console`` if there is one."""
    with progress_bar(total=total, console=console, shown=console is not None) as bar:
        yield Progress(path, total, bar, stopped, written=written)
