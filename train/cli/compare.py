"""``irl-lens compare``: evaluations beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from train.cli.say import say


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="A B ...", help="Folders of evaluations, or scored runs.")],
    html: Annotated[Path | None, typer.Option(help="Also write the page: one file, no network.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON, and nothing else.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Put runs beside each other, and their differences to the first, paired by problem. Runs no model."""
    from rich.console import Console

    from irl_core.files import write_whole
    from irl_core.report.tables import for_terminal
    from irl_core.statistics.bootstrap import to_json
    from train.evaluate.compare import comparison, open_runs, tables, to_html

    compared = comparison(open_runs(runs), seed=seed)
    if html is not None:
        write_whole(html, to_html(compared))
        say(f"Wrote {html}", err=True)
    if as_json:
        typer.echo(json.dumps(to_json(compared), allow_nan=False))
        return
    console = Console(highlight=False)
    for table in tables(compared):
        console.print(for_terminal(table))
