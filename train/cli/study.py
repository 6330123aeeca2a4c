"""``irl-lens study``: a table of the paper repeated on the embedded default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from irl_core.errors import InputError
from train.cli.evaluate import end_interrupted
from train.cli.options import RUNS, checkpoint_folder
from train.cli.say import say

NAMES = "policies, backbones, perturbation, wasserstein, teach, inference."
INFERENCE = "inference"  # the study that trains nothing


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAMES)],
    out: Annotated[Path | None, typer.Option(help="Where it is written. (default: runs/study-NAME)")] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", min=0, help="Again and again. (default: 1 2 3; of inference 1)")
    ] = None,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies rounds and problems.")] = 1.0,
    demonstrations: Annotated[
        int | None, typer.Option(min=1, help="Of teach: how many problems have one. (default: 300)")
    ] = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arm", help="This one alone, again and again; others can follow. (default: all)"),
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Of inference: its name or folder. (default: demo)")] = None,
    data: Annotated[str | None, typer.Option(help="Of inference: demo, gsm8k, FOLDER, FILE. (default: demo)")] = None,
    problems: Annotated[int | None, typer.Option(min=1, help="Of inference: how many. (default: 160)")] = None,
    resume: Annotated[bool, typer.Option(help="Continue a study of the same settings.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Repeat a table of the paper on the embedded default: train, evaluate and compare, over several seeds.

    inference trains nothing: it writes solutions with the reward's help, beside the majority of as many tokens.
    """
    from rich.console import Console

    from train.interruption import Interrupted
    from train.studies import inference, runner

    own = {"--checkpoint": checkpoint, "--data": data, "--problems": problems}
    others = {"--scale": None if scale == 1.0 else scale, "--demonstrations": demonstrations, "--arm": arms}
    for option, value in (others if name == INFERENCE else own).items():
        if value is not None:
            raise InputError(f"{option} says nothing to the study {name}; leave it out.")
    if name == INFERENCE and len(seeds or ()) > 1:
        raise InputError("the study inference samples with one --seed; give one.")
    folder, console = out or RUNS / f"study-{name}", Console(stderr=True)
    model, data, count = checkpoint or "demo", data or "demo", problems or inference.DEFAULT_PROBLEMS
    seed, chosen = (seeds or [1])[0], seeds or (1, 2, 3)
    if dry_run:
        if name == INFERENCE:
            told = [inference.planned(model, data=data, problems=count, seed=seed)]
        else:
            told = runner.planned(name, seeds=chosen, scale=scale, demonstrations=demonstrations, arms=arms or ())
        for line in told:
            say(line)
        return
    try:
        if name == INFERENCE:
            inference.inference_study(
                checkpoint_folder(model), folder, data=data, problems=count, seed=seed, resume=resume, console=console
            )
        else:
            runner.study(
                name, folder, seeds=chosen, scale=scale, demonstrations=demonstrations, arms=arms or (),
                resume=resume, console=console,
            )  # fmt: skip
    except Interrupted:
        end_interrupted(folder, resume)
    say(f"Wrote {folder / 'study.json'}, {folder / 'study.md'}, {folder / 'study.html'}")
