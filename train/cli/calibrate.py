"""``irl-lens calibrate``: the localisation rule and its limit from people's annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.cli.options import DEFAULT_CHECKPOINT, Checkpoint, checkpoint_folder
from train.cli.say import say


def calibrate(
    annotations: Annotated[Path, typer.Option(help="A JSONL export of the Failures page, or annotations.sqlite.")],
    run: Annotated[Path, typer.Option(help="The scored run (Parquet) whose solutions were annotated.")],
    out: Annotated[Path, typer.Option(help="The folder of the new checkpoint.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    seen: Annotated[
        bool, typer.Option("--seen", help="Count annotations given after the model's answer was shown, too.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and of the bootstrap.")] = 0,
) -> None:
    """Choose the rule and the limit that name the first error from annotations. Runs no model."""
    from train.calibrate_annotated import CalibrationRequest, calibrate_annotated

    request = CalibrationRequest(annotations, run, checkpoint_folder(checkpoint), out, seen, seed)
    for line in calibrate_annotated(request):
        say(line)
