"""The progress bar of long command-line work: one look for training, sampling, scoring, evaluations and studies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """A running bar: title, bar, ``done/total`` and a text beside them."""

    progress: Progress
    task: TaskID

    def update(
        self, done: float | None = None, *, total: float | None = None, title: str | None = None, beside: str = ""
    ) -> None:
        """Show how much is done; None leaves a part as it is."""
        self.progress.update(self.task, completed=done, total=total, description=title, beside=beside)

    def log(self, line: str) -> None:
        """Print a line where the output is no terminal: a log has no bar."""
        if not self.progress.disable and not self.progress.console.is_terminal:
            self.progress.console.print(line)


@contextmanager
def progress_bar(
    title: str = "",
    total: float | None = None,
    *,
    console: Console | None = None,
    shown: bool = True,
    transient: bool = False,
) -> Iterator[ProgressBar]:
    """A progress bar on a console.

    Args:
        title: text before the bar.
        total: the number to reach; None where it is not known yet.
        console: stderr by default.
        shown: False for no output at all.
        transient: whether the bar is erased at its end.
    """
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[beside]}"))
    with Progress(*columns, console=console, disable=not shown, transient=transient) as progress:
        yield ProgressBar(progress, progress.add_task(title, total=total, beside=""))
