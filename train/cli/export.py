"""``irl-lens export``: a finished checkpoint in another form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from train.cli.options import checkpoint_folder
from train.cli.say import say


class Form(StrEnum):
    """What a checkpoint can be exported to."""

    BUNDLE = "bundle"


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's name or folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    to: Annotated[Form, typer.Option(help="bundle: adapters in bfloat16, half as large, to hand on.")] = Form.BUNDLE,
    data: Annotated[
        str | None, typer.Option(help="What to call the training data, instead of its folder here.")
    ] = None,
) -> None:
    """Write a finished checkpoint in another form."""
    from train.export import bundle

    size = bundle(checkpoint_folder(checkpoint), out, data)
    say(f"Wrote {out}: {size / 1e6:.1f} MB")
