"""``irl-lens study``: a table of the paper repeated on the embedded default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from train.cli.evaluate import end_interrupted
from train.cli.options import RUNS
from train.cli.say import say


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="policies, backbones, perturbation, wasserstein, teach.")],
    out: Annotated[Path | None, typer.Option(help="Where it is written. [default: runs/study-NAME]")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", min=0, help="Again and again. [default: 1 2 3]")] = None,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies rounds and problems.")] = 1.0,
    demonstrations: Annotated[
        int | None, typer.Option(min=1, help="Of teach: how many problems have one. [default: 300]")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue a study of the same settings.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
) -> None:
    """Repeat a table of the paper on the embedded default: train, evaluate and compare, over several seeds."""
    from rich.console import Console

    from train.interruption import Interrupted
    from train.studies import runner

    chosen = seeds or (1, 2, 3)
    if dry_run:
        for line in runner.planned(name, seeds=chosen, scale=scale, demonstrations=demonstrations):
            say(line)
        return
    folder = out or RUNS / f"study-{name}"
    try:
        runner.study(
            name, folder, seeds=chosen, scale=scale, demonstrations=demonstrations, resume=resume,
            console=Console(stderr=True),
        )  # fmt: skip
    except Interrupted:
        end_interrupted(folder, resume)
    say(f"Wrote {folder / 'study.json'}, {folder / 'study.md'}, {folder / 'study.html'}")
