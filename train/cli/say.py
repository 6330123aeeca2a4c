"""Lines for the terminal, whose control characters are drawn: file names, data and errors may hold any."""

from __future__ import annotations

import typer

from irl_core.text.visible import visible


def say(line: str, *, err: bool = False) -> None:
    """Print a line to stdout, or to stderr with ``err``."""
    typer.echo(visible(line), err=err)
