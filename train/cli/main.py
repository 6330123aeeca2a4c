"""The command ``irl-lens``. Nothing heavy is imported before a command needs it; ``--help`` imports no torch.

What a user can fix is one plain line on stderr and exit status 2, never a traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from irl_core.errors import UserError
from irl_core.home import RUNS, VARIABLE
from irl_core.models.allocation import keep_freed_tensors
from train.cli.app import app
from train.cli.calibrate import calibrate
from train.cli.checkpoints import checkpoints
from train.cli.compare import compare
from train.cli.evaluate import evaluate
from train.cli.export import export
from train.cli.inspect import inspect
from train.cli.model_card import model_card
from train.cli.models import models
from train.cli.presets import presets
from train.cli.report import report
from train.cli.say import say
from train.cli.score import score
from train.cli.serve import engine, serve
from train.cli.study import study
from train.cli.train import train

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog=f"Runs, jobs, scored runs and annotations lie in {RUNS}/ of the current folder, for every command and the "
    f"page; {VARIABLE}=FOLDER sets another place.",
)


def print_version(wanted: bool) -> None:
    """Print the version and stop, where it is asked for."""
    if wanted:
        import importlib.metadata

        say(f"irl-lens {importlib.metadata.version('irl-lens')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")]


@cli.callback()
def common(version: Version = False) -> None:
    """See the token at which a solution goes wrong, and train the reward that shows it."""


for command in (
    inspect, score, train, evaluate, report, compare, study, calibrate, presets, checkpoints, export, model_card,
    app, serve,
):  # fmt: skip
    cli.command()(command)
cli.add_typer(models, name="models")
cli.add_typer(engine, name="engine")


def main() -> None:
    """Run the command line; the console script ``irl-lens``."""
    keep_freed_tensors()
    try:
        cli()
    except UserError as error:
        say(f"irl-lens: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
