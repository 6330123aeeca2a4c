"""``irl-lens export``: a finished checkpoint, or the labels of a scored run, in another form."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from irl_core.errors import InputError
from train.cli.options import checkpoint_folder
from train.cli.say import say


class Form(StrEnum):
    """What a checkpoint, or for ``LABELS`` a scored run, can be exported to."""

    BUNDLE = "bundle"
    TRANSFORMERS = "transformers"
    LABELS = "labels"


FORMS = (
    "bundle: adapters in bfloat16, half as large, to hand on. transformers: the discriminator as a token classifier. "
    "labels: the labels of a scored run (Parquet) as annotations, which Failures imports; those by people are blind."
)


def export(
    what: Annotated[str, typer.Argument(help="A checkpoint's name or folder; for labels a scored run.")],
    out: Annotated[Path, typer.Argument(help="The folder to write; for labels a file.")],
    to: Annotated[Form, typer.Option(help=FORMS)] = Form.BUNDLE,
    data: Annotated[
        str | None, typer.Option(help="What to call the training data of a bundle, instead of its folder here.")
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="In whose name labels are given; by default 'labels of' the run.")
    ] = None,
) -> None:
    """Write a finished checkpoint in another form, or the labels of a scored run."""
    if annotator is not None and to is not Form.LABELS:
        raise InputError(f"--annotator {annotator!r}: only labels have one; leave it out, or add --to labels.")
    if to is Form.LABELS:
        from train.export_labels import export_labels

        if data is not None:
            raise InputError(f"--data {data!r}: labels do not name training data; leave it out.")
        run = Path(what)
        name = f"labels of {run.stem}" if annotator is None else annotator
        say(f"Wrote {out}: {export_labels(run, out, name).sentences()}")
        return
    folder = checkpoint_folder(what)
    if to is Form.TRANSFORMERS:
        from train.export_classifier import to_classifier

        if data is not None:
            raise InputError(f"--data {data!r}: a token classifier does not name its data; leave it out.")
        say(f"Wrote {out}: {to_classifier(folder, out).sentence()}")
        return
    from train.export import bundle

    size = bundle(folder, out, data)
    say(f"Wrote {out}: {size / 1e6:.1f} MB")
