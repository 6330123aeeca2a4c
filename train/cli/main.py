"""The command ``irl-lens``. Nothing heavy is imported before a command needs it; ``--help`` imports no torch.

What a user can mend is one plain line on stderr and exit status 2, never a traceback.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from irl_core.errors import UserError

if TYPE_CHECKING:
    from irl_core.scorer import Lens
    from irl_core.types import ScoredTrace, Trace

PRESETS = Path(__file__).resolve().parents[1] / "configs"
REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_CHECKPOINT = "demo"
DEFAULT_SAMPLES = 4
FIRST_PORT = 8501
PORTS_TRIED = 100
MAX_TEXT_FILE_BYTES = 1_000_000

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Checkpoint = Annotated[str, typer.Option(help="A checkpoint's name (see 'irl-lens checkpoints') or folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"irl-lens {importlib.metadata.version('irl-lens')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@cli.callback()
def common(version: Version = False) -> None:
    """See the token at which a solution goes wrong, and train the reward that shows it."""


@cli.command()
def inspect(
    problem: Annotated[str, typer.Option(help="The problem's text, or @FILE.")],
    solution: Annotated[str | None, typer.Option(help="A solution's text, or @FILE. Without one, samples.")] = None,
    samples: Annotated[int | None, typer.Option(help="Solutions to sample. [default: 4; 0 with --solution]")] = None,
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    seed: Annotated[int, typer.Option(help="The same seed gives the same samples on a CPU.")] = 0,
    gamma: Annotated[float, typer.Option(help="Discount of the discounted view, 0 to 1.")] = 0.9,
    view: Annotated[str, typer.Option(help="Colours: raw, standardised, discounted or credit.")] = "credit",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write the page to send: one file, no network.")] = None,
    device: Device = "auto",
) -> None:
    """Score a solution token by token and name its first error."""
    from irl_core.errors import InputError
    from irl_core.report.heatmap.payload import VIEWS
    from irl_core.report.inspection_json import with_ids
    from irl_core.scorer import check_inputs

    if view not in VIEWS:
        raise InputError(f"Unknown view {view!r}; choose one of {', '.join(VIEWS)}.")
    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")
    problem, solution = _text(problem), None if solution is None else _text(solution)
    check_inputs(problem, solution)
    lens = _load(checkpoint, device)
    wanted = samples if samples is not None else (0 if solution is not None else DEFAULT_SAMPLES)
    scored = _scored(lens, problem, solution, wanted, seed, gamma)
    result = _result(lens, problem, scored, gamma)
    if html is not None:
        page = with_ids(_result(lens, problem, scored, gamma), scored)
        _write_page(html, page, view, gamma, lens, lens.familiarity(problem, solution).familiar)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
    else:
        _print(lens, result, problem, solution, view, gamma)


@cli.command()
def score(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="Problems with solutions, a JSON object a line.")],
    out: Annotated[Path, typer.Option(help="The scored run to write (Parquet).")],
    layout: Annotated[
        str, typer.Option("--format", help="auto, gsm8k, processbench, mr-gsm8k, plain, solutions, demo or trace.")
    ] = "auto",
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    resume: Annotated[bool, typer.Option(help="Go on with an unfinished run of the same input.")] = True,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Most tokens, padding included, in one batch.")] = 8192,
    device: Device = "auto",
) -> None:
    """Score a file of solutions; a run that was stopped goes on where it was."""
    from rich.console import Console

    from train.score_file import check_source, score_file

    check_source(source, out, layout)
    lens = _load(checkpoint, device)
    console = Console(stderr=True)
    summary = score_file(source, out, lens, layout=layout, resume=resume, batch_tokens=batch_tokens, console=console)
    typer.echo(summary.sentence())
    if summary.scored == 0:
        raise typer.Exit(1)


@cli.command()
def train(
    preset: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="See 'irl-lens presets'; or a YAML file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings that differ, such as run.steps=100.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="The same, as an option.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Where the run is written. [default: runs/PRESET]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole checkpoint.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, memory, time and downloads, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print the plan as JSON alone.")] = False,
    memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="Plan for a device of so many GB, not for this machine's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Train although the estimate says it will not fit.")] = False,
) -> None:
    """Train a policy and a discriminator from a preset or a YAML file, and first the presets that it starts from."""
    from train.cli import train as training

    changes = [*(settings or []), *(overrides or [])]
    wish = training.Wish(preset, changes, run_dir, resume, dry_run, as_json, memory_gb, force)
    training.train(wish)


@cli.command()
def evaluate(
    out: Annotated[Path, typer.Option(help="The folder for the scored runs and the report.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    data: Annotated[str, typer.Option(help="demo, gsm8k, or a file of problems or of solutions.")] = "demo",
    holds: Annotated[str, typer.Option(help="What a file holds: auto, problems or solutions.")] = "auto",
    samples: Annotated[int | None, typer.Option(min=1, help="Solutions sampled of each problem. [default: 16]")] = None,
    problems: Annotated[
        int | None, typer.Option(min=2, help="The first so many problems. [default: 160 of the demo, else all]")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(help="NAME=CHECKPOINT, again and again: policies on the same problems.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sampling and of the bootstrap.")] = 0,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with an evaluation of the same order.")] = True,
    training: Annotated[
        Path | None, typer.Option(help="The run that made the checkpoint. [default: the folder it lies in]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and stop.")] = False,
) -> None:
    """Sample, score, corrupt and probe; then answer the paper's questions in a report. Goes on where it was stopped."""
    from train.cli import evaluate as evaluation

    others = {name: _resolve(path) for name, path in _all_named(compare or []).items()}
    wish = evaluation.Wish(
        _resolve(checkpoint), out, data, _choice("--holds", holds, ("auto", "problems", "solutions")), samples,
        problems, others, seed, device, resume, training, dry_run,
    )  # fmt: skip
    evaluation.evaluate(wish)


@cli.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of evaluations, or scored runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Write here. [default: into the folder; a scored run's report is printed]")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Write one document with the results of all runs.")] = None,
    answer_lines: Annotated[
        bool | None,
        typer.Option(help="May a closing line such as '#### 12' be the wrong step? [default: not by outside labels]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Draw reports again from what was evaluated or scored. Runs no model."""
    from train.cli import evaluate as evaluation

    evaluation.report(runs, out=out, results=results, answer_lines=answer_lines, seed=seed)


@cli.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="A B ...", help="Folders of evaluations, or scored runs.")],
    html: Annotated[Path | None, typer.Option(help="Also write the page: one file, no network.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON, and nothing else.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
) -> None:
    """Put runs beside each other, and their differences to the first, paired by problem. Runs no model."""
    from train.cli import evaluate as evaluation

    evaluation.compare(runs, html=html, as_json=as_json, seed=seed)


@cli.command()
def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="policies, backbones, perturbation or wasserstein.")],
    out: Annotated[Path | None, typer.Option(help="Where it is written. [default: runs/study-NAME]")] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", min=0, help="Again and again. [default: 1 2 3]")] = None,
    scale: Annotated[float, typer.Option(min=0.01, help="Multiplies rounds and problems.")] = 1.0,
    resume: Annotated[bool, typer.Option(help="Go on with a study of the same settings.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
) -> None:
    """Repeat a table of the paper on the embedded default: train, evaluate and compare, over several seeds."""
    from train.cli import evaluate as evaluation

    evaluation.study(name, out, seeds=seeds or (1, 2, 3), scale=scale, resume=resume, dry_run=dry_run)


@cli.command()
def calibrate(
    annotations: Annotated[Path, typer.Option(help="A JSONL export of the Failures page, or annotations.sqlite.")],
    run: Annotated[Path, typer.Option(help="The scored run (Parquet) whose traces were annotated.")],
    out: Annotated[Path, typer.Option(help="The folder of the new checkpoint.")],
    checkpoint: Checkpoint = DEFAULT_CHECKPOINT,
    seen: Annotated[
        bool, typer.Option("--seen", help="Count annotations given after the model's answer was shown, too.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and of the bootstrap.")] = 0,
) -> None:
    """Choose the rule and the limit that name the first error from annotations. Runs no model."""
    from train.cli import calibrate as calibration

    wish = calibration.Wish(annotations, run, _resolve(checkpoint), out, seen, seed)
    for line in calibration.calibrate_from(wish):
        typer.echo(line)


@cli.command()
def presets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one with all that it takes.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List them as JSON, with all settings.")] = False,
) -> None:
    """List the presets that can be trained, with estimates of memory and time."""
    from train.planning import presets as shown

    if as_json:
        rows = [preset.to_json() for preset in shown.all_presets()]
        typer.echo(json.dumps(rows, ensure_ascii=False, allow_nan=False))
        return
    for line in shown.listed() if name is None else shown.described(name):
        typer.echo(line)


@cli.command()
def checkpoints() -> None:
    """List the checkpoints that can be loaded, each verified, with where it comes from."""
    from irl_core.checkpoints.save import default_roots, list_checkpoints

    found = list_checkpoints(default_roots())
    for info in found:
        origin = ", ".join(f"{key} {value}" for key, value in info.provenance.items())
        typer.echo(f"{info.name:<28} {'verified' if info.verified else 'REFUSED: ' + info.reason}  {origin}".rstrip())
    if not found:
        typer.echo(_no_checkpoint())


@cli.command()
def app(
    port: Annotated[int | None, typer.Option(help="The port. [default: the first free one from 8501]")] = None,
) -> None:
    """Open the app on the bundled checkpoint, on this machine alone."""
    chosen = _free_port(port)
    typer.echo(f"irl-lens is at http://localhost:{chosen} (Ctrl+C stops it)")
    server = ["server.port", str(chosen), "server.address", "localhost", "server.headless", "true"]
    options = [f"--{name}={value}" for name, value in zip(server[::2], server[1::2], strict=True)]
    command = [sys.executable, "-m", "streamlit", "run", str(REPOSITORY / "app" / "main.py"), *options]
    child = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": _python_path()})
    raise typer.Exit(_wait(child))


# --------------------------------------------------------------------------------------------------- inspect


def _text(given: str) -> str:
    """The text itself, or that of the file named after an ``@``."""
    from irl_core.errors import InputError

    if not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        size = path.stat().st_size
        if size > MAX_TEXT_FILE_BYTES:
            raise InputError(f"{path.name} has {size:,} bytes; the limit is {MAX_TEXT_FILE_BYTES:,}. Shorten it.")
        return path.read_text(encoding="utf-8").rstrip("\r\n")  # an editor's last line end is none of the solution's
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}). Give the text itself or an existing @FILE."
        ) from None


def _load(checkpoint: str, device: str) -> Lens:
    from irl_core.scorer import Lens

    return Lens.load(_resolve(checkpoint), device)


def _resolve(checkpoint: str) -> Path:
    """The folder of a checkpoint by name, or by path: who uses the shell may load from anywhere it can read."""
    from irl_core.checkpoints.manifest import MANIFEST
    from irl_core.checkpoints.save import default_roots, resolve_checkpoint
    from irl_core.errors import CheckpointError, InputError

    roots = default_roots()
    if checkpoint == DEFAULT_CHECKPOINT and not (roots[0] / DEFAULT_CHECKPOINT).is_dir():
        raise InputError(_no_checkpoint())
    folder = Path(checkpoint)
    whole = (folder / MANIFEST).is_file()
    if folder.is_absolute() and not whole:
        what = "holds no checkpoint" if folder.is_dir() else "is not there"
        raise InputError(f"{checkpoint[:200]!r} {what}; name a run's final, or one that 'irl-lens checkpoints' lists.")
    if whole and (folder.is_absolute() or not (roots[0] / checkpoint).is_dir()):
        roots, checkpoint = (*roots, folder.resolve().parent), str(folder.resolve())
    try:
        return resolve_checkpoint(checkpoint, roots)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint[:200]!r}: {error}") from None


def _named(given: str) -> tuple[str, str]:
    from irl_core.errors import InputError

    name, found, path = given.partition("=")
    if not (name and found and path):
        raise InputError(f"--compare {given!r}: NAME=CHECKPOINT is expected.")
    return name, path


def _choice(option: str, given: str, known: tuple[str, ...]) -> Any:
    from irl_core.errors import InputError

    if given not in known:
        raise InputError(f"{option} {given!r}: choose one of {', '.join(known)}.")
    return given


def _all_named(given: list[str]) -> dict[str, str]:
    from irl_core.errors import InputError

    pairs = [_named(one) for one in given]
    names = [name for name, _ in pairs]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise InputError(f"--compare: {twice!r} is given twice; give each checkpoint a name of its own.")
    return dict(pairs)


def _no_checkpoint() -> str:
    return (
        f"The bundled checkpoint assets/{DEFAULT_CHECKPOINT} is not beside the installed packages. It is part of the "
        "repository: install with 'pip install -e' from a clone, or name a checkpoint with --checkpoint."
    )


def _scored(lens: Lens, problem: str, solution: str | None, samples: int, seed: int, gamma: float) -> list[ScoredTrace]:
    from irl_core.errors import InputError
    from irl_core.reward.token_scores import rank
    from irl_core.text.segmentation import make_trace

    if solution is None and samples == 0:
        raise InputError("Nothing to score: give a --solution, or --samples of at least 1.")
    sampled = _sampled(lens, problem, samples, seed) if samples else []
    pasted = [] if solution is None else [make_trace(problem, solution, trace_id="pasted")]
    scored = lens.score([*pasted, *sampled], standardise_over="group" if sampled else "reference")
    own, others = scored[: len(pasted)], scored[len(pasted) :]
    return own + [others[index] for index in rank(others, lens.default_trace_score, gamma)]


def _sampled(lens: Lens, problem: str, samples: int, seed: int) -> list[Trace]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"Sampling {samples}", total=None)

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        return lens.sample(problem, samples, seed, on_progress=show)


def _result(lens: Lens, problem: str, scored: list[ScoredTrace], gamma: float) -> dict[str, Any]:
    from irl_core.report.inspection_json import to_json

    found = [lens.locate(one) for one in scored]
    return to_json(scored, found, problem=problem, checkpoint=lens.name, gamma=gamma, kind=lens.default_trace_score)


def _write_page(path: Path, result: dict[str, Any], view: str, gamma: float, lens: Lens, familiar: bool | None) -> None:
    from irl_core.errors import InputError
    from irl_core.report.heatmap.export import to_html
    from irl_core.report.heatmap.verdict import score_name

    page = to_html(result, view=view, gamma=gamma, score_name=score_name(lens.default_trace_score), familiar=familiar)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from None
    typer.echo(f"Wrote {path}", err=True)


def _print(lens: Lens, result: dict[str, Any], problem: str, solution: str | None, view: str, gamma: float) -> None:
    from rich.console import Console

    from irl_core.report.heatmap.verdict import score_name
    from irl_core.report.terminal import print_result

    known = lens.familiarity(problem, solution)
    notes = [] if known.familiar else [f"Unlike what this checkpoint was made for: {known.reason}."]
    if known.familiar is None:
        notes = [f"Familiarity was not measured: {known.reason}."]
    console = Console(highlight=False)
    name = score_name(lens.default_trace_score)
    print_result(console, result, view=view, gamma=gamma, score_name=name, notes=notes, familiar=known.familiar)


# -------------------------------------------------------------------------------------------------------- app


def _free_port(asked: int | None) -> int:
    from irl_core.errors import InputError

    tried = [asked] if asked is not None else range(FIRST_PORT, FIRST_PORT + PORTS_TRIED)
    for port in tried:
        if _is_free(port):
            return port
    last = f"{FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1} are all" if asked is None else f"{asked} is"
    raise InputError(f"Port {last} taken. Name a free one with --port (make app PORT=...).")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def _python_path() -> str:
    """The repository first: ``streamlit run`` puts only the script's own folder on the path."""
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def _wait(child: subprocess.Popen[bytes]) -> int:
    """The child's exit status. Ctrl+C reaches the child by itself; SIGTERM is passed on, so that none is left."""
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


# ------------------------------------------------------------------------------------------------------- main


def main() -> None:
    """Run the command line; the console script ``irl-lens``."""
    try:
        cli()
    except UserError as error:
        typer.echo(f"irl-lens: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
