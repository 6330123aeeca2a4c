"""``irl-lens score``: a file of solutions scored into a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.cli.options import DEFAULT_CHECKPOINT, Checkpoint, Device, Map, checkpoint_folder, load_lens
from train.cli.say import say


def score(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="Problems with solutions: a file, a folder, or hf:OWNER/NAME@SPLIT."),
    ],
    out: Annotated[Path, typer.Option(help="The scored run to write (Parquet).")],
    layout: Annotated[
        str, typer.Option("--format", help="auto, or a format of docs/data.md: plain, prm800k, messages, ...")
    ] = "auto",
    columns: Map = None,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    resume: Annotated[bool, typer.Option(help="Continue an unfinished run of the same input.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is no run of this input.")] = False,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens, padding included, in one batch.")] = 8192,
    device: Device = "auto",
) -> None:
    """Score a file of solutions; a run that was stopped continues where it was. Under 'accelerate launch' several
    processes score one file."""
    from rich.console import Console

    from irl_core.data.sources import column_map
    from train.score_file import check_source, score_file
    from train.workers import launched_workers

    named = column_map(columns)
    with launched_workers("score") as workers:
        workers.from_main(lambda: check_source(source, out, layout, columns=named, force=force))
        folder = checkpoint_folder(checkpoint)
        if workers.is_main:  # at once: what it loads first takes a minute on a busy machine
            named_so = folder.name if checkpoint == DEFAULT_CHECKPOINT else checkpoint
            say(f"Loading the checkpoint {named_so} and its models; then {source} is scored \u2026", err=True)
        lens = load_lens(str(folder), workers.device(device))
        summary = score_file(
            source, out, lens, layout=layout, columns=named, resume=resume, force=force, batch_tokens=batch_tokens,
            console=Console(stderr=True) if workers.is_main else None, workers=workers,
        )  # fmt: skip
    if not workers.is_main:
        return
    for line in summary.intake.lines() if summary.intake else ():
        say(line)
    say(summary.sentence())
    for line in summary.closing():
        say(line)
    if summary.scored == 0:
        raise typer.Exit(1)
