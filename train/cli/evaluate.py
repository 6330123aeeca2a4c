"""``irl-lens evaluate``: a checkpoint sampled, scored, perturbed and probed, with a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, cast, get_args

import typer

from irl_core.checkpoints.load import load_json
from irl_core.errors import ConfigError, InputError
from train.cli.options import (
    DEFAULT_CHECKPOINT,
    Checkpoint,
    Device,
    EngineModel,
    EngineUrl,
    Map,
    check_known,
    checkpoint_folder,
    engine_of,
)
from train.cli.report import print_answers
from train.cli.say import say

if TYPE_CHECKING:
    from irl_core.evaluation.report import Report
    from irl_core.policy.engine_requests import Engine
    from irl_core.scorer import Lens
    from train.evaluate.problem_sets import Holds
    from train.evaluate.settings import EvaluationSettings
    from train.interruption import StopRequests
    from train.workers import Workers

DEFAULT_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What the command line asks for. ``checkpoint`` and ``compare``: folders of checkpoints. ``samples`` None: 16
    where solutions are sampled."""

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
    engine: Engine | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    ways: tuple[str, ...] = ()


def evaluate(
    out: Annotated[Path, typer.Option(help="The folder for the scored runs and the report.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    data: Annotated[
        str, typer.Option(help="demo, gsm8k, or problems or solutions: a file, a folder, hf:OWNER/NAME@SPLIT.")
    ] = "demo",
    holds: Annotated[str, typer.Option(help="What a file holds: auto, problems or solutions.")] = "auto",
    columns: Map = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Solutions sampled of each problem. (default: 16)")] = None,
    problems: Annotated[
        int | None, typer.Option(min=2, help="The first so many problems. (default: 160 of the demo, else all)")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(help="NAME=CHECKPOINT, again and again: policies on the same problems.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling and of the bootstrap.")] = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Continue an evaluation of the same settings.")] = True,
    training: Annotated[
        Path | None, typer.Option(help="The run that made the checkpoint. (default: the folder it lies in)")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and stop.")] = False,
    engine: EngineUrl = None,
    engine_model: EngineModel = None,
    way: Annotated[
        list[str] | None,
        typer.Option(
            help="Also write a solution of each problem with the reward, beside the majority of as many tokens: "
            "early-rejection, self-revision, guided-decoding; again and again."
        ),
    ] = None,
) -> None:
    """Sample, score, perturb and probe; then answer the paper's questions in a report. Resumes where it was stopped.
    Under 'accelerate launch' several processes make one evaluation."""
    from irl_core.data.sources import column_map
    from train.evaluate.problem_sets import Holds

    if holds not in get_args(Holds):
        raise InputError(f"--holds {holds!r}: choose one of {', '.join(get_args(Holds))}.")
    others = {name: checkpoint_folder(path) for name, path in named_checkpoints(compare or []).items()}
    run_evaluation(
        EvaluateRequest(
            checkpoint_folder(checkpoint), out, data, cast(Holds, holds), samples, problems, others, seed, device,
            resume, training, dry_run, engine_of(engine, engine_model), column_map(columns), named_ways(way or []),
        )
    )  # fmt: skip


def named_checkpoints(given: Sequence[str]) -> dict[str, str]:
    """The values of ``--compare``, NAME=CHECKPOINT, by name. Raises InputError."""
    checkpoints: dict[str, str] = {}
    for one in given:
        name, _, checkpoint = one.partition("=")
        if not (name and checkpoint):
            raise InputError(f"--compare {one!r}: NAME=CHECKPOINT is expected.")
        if name in checkpoints:
            raise InputError(f"--compare: {name!r} is given twice; give each checkpoint a name of its own.")
        checkpoints[name] = checkpoint
    return checkpoints


def named_ways(given: Sequence[str]) -> tuple[str, ...]:
    """The values of ``--way`` by the names that ``irl_core.strategies`` has, each once. Raises InputError."""
    if not given:
        return ()
    from irl_core.strategies import STRATEGIES

    for one in given:
        check_known(one)
    return tuple(name for name in STRATEGIES if name.replace(" ", "-") in given)


def run_evaluation(request: EvaluateRequest) -> None:
    """Evaluate, and write the report; or say what would be made.

    Raises:
        ConfigError, CheckpointError, DatasetError, StoreError: it cannot be done as asked.
        typer.Exit: it was asked to stop.
    """
    settings = settings_of(request)
    from train.workers import is_first, launched_workers

    for line in settings.problem_set.intake.lines() if settings.problem_set.intake and is_first() else ():
        say(line)
    if request.dry_run:
        for line in planned(settings):
            say(line)
        return
    from train.interruption import Interrupted, stop_requests

    reports: list[tuple[Report, list[Path]]] = []
    with stop_requests() as stopped:
        try:
            with launched_workers("evaluate") as workers:
                with stopped.obeyed_at_once(True):
                    from irl_core.scorer import Lens

                    lens = Lens.load(request.checkpoint, workers.device(request.device))
                evaluate_with_report(lens, request, settings, stopped, workers, reports)
        except Interrupted:
            if not is_first():
                raise typer.Exit(0) from None
            end_interrupted(request.out, request.resume)
    if reports:  # those of the first process
        print_answers(*reports[0])


def end_interrupted(folder: Path, resume: bool) -> NoReturn:
    """Say how to continue, and end the program as a training that was asked to stop."""
    again = "the same command" if resume else "the same command without --no-resume"
    say(f"interrupted. Go on with {again} (folder: {folder}).", err=True)
    raise typer.Exit(0)


def evaluate_with_report(
    lens: Lens,
    request: EvaluateRequest,
    settings: EvaluationSettings,
    stopped: StopRequests,
    workers: Workers,
    reports: list[tuple[Report, list[Path]]],
) -> None:
    """Make the files of the evaluation and its report, which is added to ``reports``. Raises ConfigError where the
    device's memory is full."""
    from rich.console import Console
    from torch import OutOfMemoryError

    from irl_core.report.files import draw, write
    from train.evaluate.pipeline import evaluate as make_files

    def report() -> None:
        drawn = draw(request.out, seed=request.seed)
        reports.append((drawn.report, list(write(drawn, request.out))))

    console = Console(stderr=True)
    try:
        make_files(
            lens, request.out, settings, console=console, resume=request.resume, stopped=stopped, report=report,
            workers=workers,
        )  # fmt: skip
    except OutOfMemoryError as error:
        raise ConfigError(
            f"the memory of {lens.device} is full ({str(error).partition('. ')[0]}); free it or take --device cpu. The "
            "same command goes on from what is finished; fewer --samples are another evaluation"
        ) from None


def settings_of(request: EvaluateRequest) -> EvaluationSettings:
    """The problem set and what is asked of the checkpoint; loads no model. Raises ConfigError and DatasetError."""
    from irl_core.evaluation.training import find_training
    from train.evaluate.problem_sets import open_problem_set
    from train.evaluate.settings import EvaluationSettings

    trained = load_json(request.checkpoint / "config.json").get("train_config", {})
    layout = trained.get("data", {}).get("layout", "as_written")
    data = open_problem_set(request.data, request.problems, holds=request.holds, layout=layout, columns=request.columns)
    if data.solutions is not None and request.samples is not None:
        raise ConfigError(
            f"--samples {request.samples}: {data.name} holds solutions, and none are sampled; leave it out, or sample "
            "solutions of its problems with --holds problems"
        )
    training = find_training(request.checkpoint, request.training)
    if request.training is not None and training is None:
        raise ConfigError(
            f"--training {request.training.name}: holds no metrics.jsonl; name the folder of a training run"
        )
    samples = DEFAULT_SAMPLES if request.samples is None else request.samples
    return EvaluationSettings(
        data, samples=samples, seed=request.seed, compare=request.compare, training=training, engine=request.engine,
        ways=request.ways,
    )  # fmt: skip


def planned(settings: EvaluationSettings) -> Iterator[str]:
    """What the evaluation would make, a line each."""
    from train.evaluate.stages import CALIBRATION_SAMPLES

    data = settings.problem_set
    if data.solutions is not None:
        yield f"{data.name}: {data.lines} lines of solutions, each scored"
    else:
        sizes = f"{len(data.questions)} problems x {settings.samples} samples: {settings.traces} solutions"
        by = "" if settings.engine is None else f" from the engine at {settings.engine.url}"
        yield f"{data.name}: {sizes}, sampled{by} and scored"
        yield f"rules chosen on {len(data.calibration)} other problems x {CALIBRATION_SAMPLES} samples"
        for name in settings.compare:
            yield f"{name}: {settings.traces} solutions of its policy"
        for way in settings.ways:
            yield f"{way}: a solution of each of the {len(data.questions)} problems"
    if data.left_out:
        yield f"left out: {len(data.left_out)} rows, the first: {data.left_out[0]}"
    yield f"perturbed copies and probes of {len(data.experts)} honest solutions"
    yield f"metrics of the training: {'not known' if settings.training is None else settings.training.name}"
    yield f"sha256 of the data: {data.sha256}"
