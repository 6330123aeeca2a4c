"""How far an evaluation is: a bar, ``status.json``, and the time left by the pace of this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bar

from irl_core.storage.training_run import STATUS
from train.interruption import Interrupted, StopRequests
from train.run_folder import Status


class Progress:
    """Counts traces. What was done by an earlier process counts as done, but not for the pace.

    ``path``: the folder whose ``status.json`` is kept. ``total``: traces to be made in all. ``stopped``: once it holds
    a request, whatever is told next raises ``Interrupted``.
    """

    def __init__(self, path: Path, total: int, bar: Bar | None = None, stopped: StopRequests | None = None) -> None:
        self.total, self.done, self.fresh = total, 0.0, 0.0
        self.stopped = StopRequests() if stopped is None else stopped  # one without a request is false
        self.status = Status(path / STATUS, steps=total)
        self.started = time.monotonic()
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=total, left="")

    def stage(self, title: str) -> None:
        """What is done from now on, in words."""
        self.status.phase = title
        self._show(0.0)

    def skip(self, count: int) -> None:
        """So many traces were made before."""
        self.done += count
        self._show(0.0)

    def advance(self, count: int) -> None:
        """So many traces have been made."""
        self.done += count
        self.fresh += count
        self._show(0.0)

    def within(self, count: int, share: float) -> None:
        """A ``share`` (0 to 1) of the next ``count`` traces is made."""
        self._show(count * min(1.0, share))

    @property
    def seconds(self) -> float:
        """Seconds since this process began."""
        return time.monotonic() - self.started

    def seconds_left(self, partly: float = 0.0) -> float | None:
        """By the pace so far; None before the first trace."""
        made = self.fresh + partly
        return None if made <= 0 else self.seconds / made * max(0.0, self.total - self.done - partly)

    def end(self, state: str, reason: str = "") -> None:
        """Write down how it ended: ``finished``, ``interrupted`` or ``failed``."""
        self.status.state, self.status.reason, self.status.phase = state, reason, ""
        self.status.seconds_left = None
        self.status.step = min(self.total, int(self.done))
        self.status.write()

    def _show(self, partly: float) -> None:
        if self.stopped:
            raise Interrupted("stopped")
        left = self.seconds_left(partly)
        self.status.step, self.status.seconds_left = min(self.total, int(self.done + partly)), left
        self.status.beat(self.status.phase)
        if self._bar is not None and self._task is not None:
            words = "" if left is None else f"{left / 60:.1f} min left"
            place = min(float(self.total), self.done + partly)
            self._bar.update(self._task, completed=place, description=self.status.phase, left=words)


@contextmanager
def shown(path: Path, total: int, console: Console | None, stopped: StopRequests | None = None) -> Iterator[Progress]:
    """A progress with its bar on ``console``; without one there is no bar."""
    if console is None:
        yield Progress(path, total, None, stopped)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    with Bar(*columns, console=console) as bar:
        yield Progress(path, total, bar, stopped)
