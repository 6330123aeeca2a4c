"""``irl-lens evaluate``, ``report``, ``compare`` and ``study``: what is asked on the command line, done and told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from irl_core.checkpoints.save import load_json
from irl_core.errors import ConfigError

if TYPE_CHECKING:
    from irl_core.evaluation.report import Report
    from irl_core.scorer import Lens
    from train.evaluate.pipeline import Order
    from train.evaluate.problem_sets import Holds
    from train.run import StopRequests

SAMPLES = 16
RUNS = Path("runs")


@dataclass(frozen=True, slots=True)
class Wish:
    """What ``irl-lens evaluate`` is asked for. ``checkpoint`` and ``compare``: folders. ``samples`` None: 16 where
    solutions are sampled."""

    checkpoint: Path
    out: Path
    data: str = "demo"
    holds: Holds = "auto"
    samples: int | None = None
    problems: int | None = None
    compare: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    resume: bool = True
    training: Path | None = None
    dry_run: bool = False


def evaluate(wish: Wish) -> None:
    """Do it, and write the report. Raises ConfigError, CheckpointError, DatasetError or StoreError where it cannot be
    done, and typer.Exit where it was stopped."""
    order = make_order(wish)
    if wish.dry_run:
        for line in planned(order):
            typer.echo(line)
        return
    from train.run import Interrupted, stop_requests

    with stop_requests() as stopped:
        try:
            with stopped.obeyed_at_once(True):
                from irl_core.scorer import Lens

                lens = Lens.load(wish.checkpoint, wish.device)
            _evaluate(lens, wish, order, stopped)
        except Interrupted:
            _say_interrupted(wish.out, wish.resume)


def _say_interrupted(folder: Path, resume: bool) -> NoReturn:
    """How to go on; ends the program as a training that was asked to stop."""
    again = "the same command" if resume else "the same command without --no-resume"
    typer.echo(f"interrupted. Go on with {again} (folder: {folder}).", err=True)
    raise typer.Exit(0)


def _evaluate(lens: Lens, wish: Wish, order: Order, stopped: StopRequests) -> None:
    from rich.console import Console
    from torch import OutOfMemoryError

    from irl_core.report.files import draw, write
    from train.evaluate.pipeline import evaluate as make_files

    def report() -> None:
        drawn = draw(wish.out, seed=wish.seed)
        files.extend(write(drawn, wish.out))
        reports.append(drawn.report)

    files: list[Path] = []
    reports: list[Report] = []
    console = Console(stderr=True)
    try:
        make_files(lens, wish.out, order, console=console, resume=wish.resume, stopped=stopped, report=report)
    except OutOfMemoryError as error:
        raise ConfigError(
            f"the memory of {lens.device} is full ({str(error).partition('. ')[0]}); free it or take --device cpu. The "
            "same command goes on from what is finished; fewer --samples are another evaluation"
        ) from None
    _say(reports[0], files)


def make_order(wish: Wish) -> Order:
    """The exam and what is asked of the checkpoint; loads no model. Raises ConfigError and DatasetError."""
    from irl_core.evaluation.training import find_training
    from train.evaluate.pipeline import Order
    from train.evaluate.problem_sets import open_exam

    trained = load_json(wish.checkpoint / "config.json").get("train_config", {})
    layout = trained.get("data", {}).get("layout", "as_written")
    exam = open_exam(wish.data, wish.problems, holds=wish.holds, layout=layout)
    if exam.solutions is not None and wish.samples is not None:
        raise ConfigError(
            f"--samples {wish.samples}: {exam.name} holds solutions, and none are sampled; leave it out, or sample "
            "solutions of its problems with --holds problems"
        )
    training = find_training(wish.checkpoint, wish.training)
    if wish.training is not None and training is None:
        raise ConfigError(f"--training {wish.training.name}: holds no metrics.jsonl; name the folder of a training run")
    samples = SAMPLES if wish.samples is None else wish.samples
    return Order(exam, samples=samples, seed=wish.seed, compare=wish.compare, training=training)


def planned(order: Order) -> Iterator[str]:
    """What the evaluation would make, in words."""
    from train.calibrate import SAMPLES as TUNING

    exam = order.exam
    if exam.solutions is not None:
        yield f"{exam.name}: {exam.lines} lines of solutions, each scored"
    else:
        asked = len(exam.asked) * order.samples
        yield f"{exam.name}: {len(exam.asked)} problems x {order.samples} samples: {asked} traces, sampled and scored"
        yield f"rules chosen on {len(exam.calibration)} other problems x {TUNING} samples"
        for name in order.compare:
            yield f"{name}: {asked} traces of its policy"
    if exam.left_out:
        yield f"left out: {len(exam.left_out)} rows, the first: {exam.left_out[0]}"
    yield f"corrupted copies and probes of {len(exam.experts)} honest solutions"
    yield f"metrics of the training: {'not known' if order.training is None else order.training.name}"
    yield f"sha256 of the data: {exam.sha256}"


# ------------------------------------------------------------------------------------------------- report, compare


def report(
    paths: Sequence[Path], *, out: Path | None, results: Path | None, answer_lines: bool | None, seed: int
) -> None:
    """Draw reports again, from what is on disk. Of a folder the files in it are replaced; of a lone scored run the
    report is printed as Markdown, or written into ``out``. With ``results`` the document of all of them is written.

    Raises:
        ConfigError: several runs for one ``out``. StoreError: a path that holds no run.
    """
    if results is not None:
        from train.studies.results import write_results

        typer.echo(f"Wrote {write_results(paths, results, seed=seed)}")
        return
    if out is not None and len(paths) > 1:
        raise ConfigError(f"--out is one folder, and {len(paths)} runs are named; report them one by one")
    for path in paths:
        _redraw(path, out, answer_lines, seed)


def _redraw(path: Path, out: Path | None, answer_lines: bool | None, seed: int) -> None:
    from irl_core.report.files import draw, make_folder, write
    from irl_core.report.markdown import to_markdown

    drawn = draw(path, seed=seed, answer_lines=answer_lines)
    if out is None and not path.is_dir():
        typer.echo(to_markdown(drawn.report), nl=False)
        return
    folder = make_folder(out or path)
    _say(drawn.report, write(drawn, folder))


def _say(report: Report, files: Sequence[Path]) -> None:
    """The questions with their answers, and what was written."""
    from irl_core.evaluation.report import QUESTIONS
    from irl_core.files import one_line

    for question, names in QUESTIONS.items():
        typer.echo(f"{question}\n  " + "\n  ".join(one_line(report[name]["paragraph"]) for name in names) + "\n")
    typer.echo("Wrote " + ", ".join(map(str, files)))


def compare(paths: Sequence[Path], *, html: Path | None, as_json: bool, seed: int) -> None:
    """Evaluated runs beside each other. Raises ConfigError and StoreError."""
    from rich.console import Console

    from irl_core.files import write_whole
    from irl_core.report.tables import for_terminal
    from train.evaluate.compare import comparison, open_runs, tables, to_html

    found = comparison(open_runs(paths), seed=seed)
    if html is not None:
        write_whole(html, to_html(found))
        typer.echo(f"Wrote {html}", err=True)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    console = Console(highlight=False)
    for table in tables(found):
        console.print(for_terminal(table))


def study(name: str, out: Path | None, *, seeds: Sequence[int], scale: float, resume: bool, dry_run: bool) -> None:
    """A study of ``train.studies.runner`` by its name; by default into ``runs/study-NAME``."""
    from rich.console import Console

    from train.run import Interrupted
    from train.studies import runner as studying

    if dry_run:
        for line in studying.planned(name, seeds=seeds, scale=scale):
            typer.echo(line)
        return
    folder = out or RUNS / f"study-{name}"
    try:
        studying.study(name, folder, seeds=seeds, scale=scale, resume=resume, console=Console(stderr=True))
    except Interrupted:
        _say_interrupted(folder, resume)
    typer.echo(f"Wrote {folder / 'study.json'}, {folder / 'study.md'}, {folder / 'study.html'}")
