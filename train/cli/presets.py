"""``irl-lens presets``: what can be trained."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from train.cli.say import say


def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one with all that it takes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List them as JSON, with all settings.")] = False,
) -> None:
    """List the presets that can be trained, with estimates of memory and time."""
    from train.planning.presets import all_presets, described, listed

    if as_json:
        summaries = [preset.to_json() for preset in all_presets()]
        typer.echo(json.dumps(summaries, allow_nan=False))
        return
    for line in listed() if name is None else described(name):
        say(line)
