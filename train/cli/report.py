"""``irl-lens report``: reports drawn again from stored evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from irl_core.errors import ConfigError
from train.cli.say import say

if TYPE_CHECKING:
    from irl_core.evaluation.report import Report


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of evaluations, or scored runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Write here. (default: into the folder; a scored run's report is printed)")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Write one document with the results of all runs.")] = None,
    answer_lines: Annotated[
        bool | None,
        typer.Option(help="May a closing line such as '#### 12' be the wrong step? (default: not by outside labels)"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Draw reports again from what was evaluated or scored. Runs no model."""
    from irl_core.report.files import draw, make_folder, write
    from irl_core.report.markdown import to_markdown

    if results is not None:
        from train.studies.results import write_results  # imports transformers, which drawing a report does not need

        say(f"Wrote {write_results(runs, results, seed=seed)}")
        return
    if out is not None and len(runs) > 1:
        raise ConfigError(f"--out is one folder, and {len(runs)} runs are named; report them one by one")
    for path in runs:
        drawn = draw(path, seed=seed, answer_lines=answer_lines)
        if out is None and not path.is_dir():
            say(to_markdown(drawn.report).removesuffix("\n"))
        else:
            folder = make_folder(out or path)
            print_answers(drawn.report, write(drawn, folder))


def print_answers(report: Report, files: Sequence[Path]) -> None:
    """Print the report's questions with their answers, and the files that were written."""
    from irl_core.files import one_line

    for question, names in report.questions.items():
        say(f"{question}\n  " + "\n  ".join(one_line(report.sections[name].paragraph) for name in names) + "\n")
    say("Wrote " + ", ".join(map(str, files)))
