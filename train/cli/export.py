"""``irl-lens export``: a finished checkpoint in another form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from irl_core.errors import InputError
from train.cli.options import checkpoint_folder
from train.cli.say import say


class Form(StrEnum):
    """What a checkpoint can be exported to."""

    BUNDLE = "bundle"
    TRANSFORMERS = "transformers"


FORMS = (
    "bundle: adapters in bfloat16, half as large, to hand on. transformers: the discriminator as a token classifier."
)


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's name or folder.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    to: Annotated[Form, typer.Option(help=FORMS)] = Form.BUNDLE,
    data: Annotated[
        str | None, typer.Option(help="What to call the training data of a bundle, instead of its folder here.")
    ] = None,
) -> None:
    """Write a finished checkpoint in another form."""
    folder = checkpoint_folder(checkpoint)
    if to is Form.TRANSFORMERS:
        from train.export_classifier import to_classifier

        if data is not None:
            raise InputError(f"--data {data!r}: a token classifier does not name its data; leave it out.")
        say(f"Wrote {out}: {to_classifier(folder, out).sentence()}")
        return
    from train.export import bundle

    size = bundle(folder, out, data)
    say(f"Wrote {out}: {size / 1e6:.1f} MB")
