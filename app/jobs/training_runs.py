"""Training runs as the app shows them: the folders in ``runs/``, their status and metrics. No streamlit.

A run's folder is read as ``irl_core.storage.training_run`` describes it; its text may hold what a model wrote, and is
data.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from app.jobs.logs import last_lines
from app.jobs.store import Job, JobError
from app.jobs.supervisor import jobs_table, root
from irl_core.checkpoints.find import default_roots
from irl_core.errors import CheckpointError
from irl_core.methods import METHODS
from irl_core.report.charts.names import HIGH, LOGGED, LOW
from irl_core.storage.training_run import CONFIG, LOG, METRICS, STATUS, living_process, read_metrics, read_status

if TYPE_CHECKING:
    from irl_core.evaluation.section import Section
    from irl_core.evaluation.training import Training
from train.planning.describe import hours

Lines = list[dict[str, float]]
Against = Literal["step", "tokens", "hours"]
BUNDLED: Final = "scored_run"  # in assets/, with the metrics of the training that made the demo
FILES: Final = (METRICS, STATUS, CONFIG)  # a folder with one of them holds a training run
MAX_CONFIG_BYTES: Final = 1_000_000
WATCHED: Final = {
    "eval/pass@1": "pass@1 on held-out problems", "rollout/correct": "share of training samples that are right",
    "disc/accuracy_policy": "share of policy samples that the discriminator tells from experts",
    "policy/loss": "loss of the policy", "disc/loss": "loss of the reward model",
}  # fmt: skip
LOADING: Final = ("starting", "loading")  # the phases before the first step
TIMES: Final = ("time/generate_s", "time/score_s", "time/discriminator_s", "time/policy_s")


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training run as it is now.

    Attributes:
        state: as ``docs/runs.md`` lists them; ``killed`` where it says that it runs and does not, ``cancelled`` where
            Cancel stopped it; or ``bundled``.
        seconds_left: estimate; None where it is not known.
        method, preset, seed: "" or None where its configuration cannot be read.
    """

    name: str
    path: Path
    state: str
    phase: str
    step: int
    steps: int
    seconds_left: float | None
    reason: str
    warnings: int
    method: str
    preset: str
    seed: int | None

    @property
    def active(self) -> bool:
        return self.state == "running"

    @property
    def share(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0


def catalogue() -> list[TrainingRun]:
    """The training runs in ``runs/``, the last written to first, then the bundled one of the demo.

    A link that leads out of ``runs/`` is not followed.
    """
    folder = root()
    inside = [path for path in run_folders(folder) if path.resolve().is_relative_to(folder.resolve())]

    def written(path: Path) -> float:
        return max((path / name).stat().st_mtime for name in FILES if (path / name).is_file())

    cancelled = cancelled_folders()
    runs = [
        replace(run, state="cancelled") if run.state == "interrupted" and path.resolve() in cancelled else run
        for path in sorted(inside, key=written, reverse=True)
        for run in [read(path)]
    ]
    bundled = default_roots()[0] / BUNDLED
    if (bundled / METRICS).is_file():
        runs.append(replace(read(bundled), name="demo (bundled)", state="bundled", preset="demo-irl", method="irl"))
    return runs


def cancelled_folders() -> set[Path]:
    """The folders of trainings whose last job was cancelled: its process, which was told to stop, cannot know by whom,
    and says 'interrupted'."""
    last: dict[Path, Job] = {}
    with contextlib.suppress(JobError):
        for job in jobs_table().read():  # the newest first
            last.setdefault(job.run_dir.resolve(), job)
    return {folder for folder, job in last.items() if job.state == "cancelled"}


def run_folders(folder: Path) -> list[Path]:
    """The folders in a folder that hold a training run; none where it cannot be read."""
    try:
        return [path for path in folder.iterdir() if any((path / name).is_file() for name in FILES)]
    except OSError:
        return []


def read(path: Path) -> TrainingRun:
    """The training run in a folder. What is not there, or not readable, is empty; ``reason`` then says so."""
    try:
        status, fault = read_status(path), ""
    except CheckpointError as error:
        status, fault = {}, str(error)
    state = str(status.get("state") or "unknown")
    if state == "running" and living_process(status) is None:
        state = "killed"
    settings: Any = {}  # the section ``run`` of its configuration
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        if (path / CONFIG).stat().st_size <= MAX_CONFIG_BYTES:
            document = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
            settings = document.get("run") if isinstance(document, dict) else {}
    settings = settings if isinstance(settings, dict) else {}
    return TrainingRun(
        name=path.name, path=path, state=state, phase=str(status.get("phase") or ""), step=whole(status.get("step")),
        steps=whole(status.get("steps")) or whole(settings.get("steps")), seconds_left=status.get("seconds_left"),
        reason=fault or str(status.get("reason") or ""), warnings=whole(status.get("warnings")),
        method=str(settings.get("method") or ""), preset=str(settings.get("preset") or ""), seed=settings.get("seed"),
    )  # fmt: skip


def whole(value: object) -> int:
    """The value where it is a whole number, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def run_of(job: Job) -> TrainingRun:
    """The run that a training job is at: its own, or one that is trained first because its own starts from it."""
    own = read(job.run_dir)
    if not job.active or job.child is None:
        return own
    for path in run_folders(root()):
        try:
            status = read_status(path)
        except CheckpointError:
            continue
        if status.get("pid") == job.child and status.get("state") == "running":
            return read(path)
    return own


# ------------------------------------------------------------------------------------------------------------- metrics


def version(path: Path) -> tuple[str, int, int]:
    """A key that changes with a run's metrics: path, time and size of their file."""
    try:
        stat = (path / METRICS).stat()
    except OSError:
        return str(path), 0, 0
    return str(path), stat.st_mtime_ns, stat.st_size


def metrics(path: Path) -> Lines:
    """The run's metrics, a line a step."""
    return read_metrics(path / METRICS)


def names(runs: Sequence[Lines]) -> list[str]:
    """The metrics that any of the runs has, sorted."""
    return sorted({name for lines in runs for line in lines for name in line} - {"step"})


def against(lines: Lines, axis: Against) -> Lines:
    """The lines with ``step`` replaced by what they are drawn against: tokens trained on, or hours."""
    if axis == "step":
        return lines

    def amount(line: Mapping[str, float]) -> float:
        if axis == "tokens":
            return line.get("train/tokens", line.get("rollout/tokens", 0.0))
        step = line.get("time/step_s")
        seconds = sum(line.get(name, 0.0) for name in TIMES) if step is None else step
        return (seconds + line.get("time/evaluate_s", 0.0)) / 3600

    amounts = itertools.accumulate(map(amount, lines))
    return [{**line, "step": so_far} for line, so_far in zip(lines, amounts, strict=True)]


def mean_of_seeds(steps: Sequence[Lines], drawn: Sequence[Lines]) -> Lines:
    """The mean of trainings at every step that two or more of them have, with the lowest and the highest value of each
    metric under its name with ``LOW`` and ``HIGH``.

    Args:
        steps: the lines of each training.
        drawn: the same lines as `against` makes them.
    """
    by_step: dict[float, list[dict[str, float]]] = {}
    for lines, shown in zip(steps, drawn, strict=True):
        for line, at in zip(lines, shown, strict=True):
            by_step.setdefault(line["step"], []).append(at)
    found: Lines = []
    for step in sorted(step for step, lines in by_step.items() if len(lines) > 1):
        group = by_step[step]
        row = {"step": statistics.fmean(line["step"] for line in group)}
        for name in sorted({name for line in group for name in line} - {"step", *LOGGED}):
            values = [line[name] for line in group if name in line]
            if len(values) > 1:
                row |= {name: statistics.fmean(values), name + LOW: min(values), name + HIGH: max(values)}
        found.append(row)
    return found


def behaviour(lines: Lines) -> Section[Training]:
    """What a training run's metrics say: did the policy get better, and did the reward move with correctness?"""
    import pandas as pd

    from irl_core.evaluation import training
    from irl_core.evaluation.evaluated_run import EvaluatedRun

    nothing = pd.DataFrame()
    return training.section(EvaluatedRun(Path(METRICS), nothing, nothing, nothing, training=lines))


def outcome(lines: Lines) -> str:
    """What a training that has ended came to: the paragraph of the report, where its reward can be set beside
    correctness; else (it has no reward, or was too short) what there is, with no word of what there is not."""
    from irl_core.evaluation.training import HELD_OUT, TRAIN
    from irl_core.statistics.wording import difference

    said = behaviour(lines)
    told = said.figures
    if told.reason or told.rank_correlation[TRAIN]["levels"].defined:
        return said.paragraph
    titles = {HELD_OUT: "pass@1 on held-out problems", TRAIN: "correctness of training samples"}
    words = ("better than at the start", "worse than at the start")
    changes = [
        f" The change of {title}: {difference(told.change[name], *words)}."
        for name, title in titles.items()
        if told.change[name].defined
    ]
    values = f" Latest values: {known}." if (known := watched(lines)) else ""
    unseen = "" if told.held_out else " It was not evaluated on held-out problems."
    return f"{told.steps} {'step is' if told.steps == 1 else 'steps are'} finished.{values}{''.join(changes)}{unseen}"


def so_far(run: TrainingRun, lines: Lines) -> str:
    """What a running training's metrics say up to now: the latest values of the ones most worth watching.

    What training did, with its interval, is said by `outcome` when it has ended.
    """
    if not lines:
        return "It runs, and no step is finished yet."
    done = f"It runs: {len(lines)} of {run.steps} steps are finished" if run.steps else "It runs"
    return f"{done}. Latest values: {told}." if (told := watched(lines)) else f"{done}."


def watched(lines: Lines) -> str:
    """The latest and the first value of each metric most worth watching that was logged."""
    told = []
    for name, title in WATCHED.items():
        if values := [line[name] for line in lines if name in line]:
            told.append(f"{title} {values[-1]:.3f}" + (f" (first {values[0]:.3f})" if len(values) > 1 else ""))
    return ", ".join(told)


# ----------------------------------------------------------------------------------------------------------------- log


def log_lines(path: Path, last: int = 200) -> list[str]:
    """The last lines of the run's log, fit to be shown as text."""
    return last_lines(path / LOG, last)


def warnings(path: Path) -> list[str]:
    """The run's warnings, as its log has them, the latest last."""
    return [line.replace(" warning: ", " ", 1) for line in log_lines(path, 5000) if " warning: " in line]


# --------------------------------------------------------------------------------------------------------------- words


def no_held_out_words(run: TrainingRun, every: str) -> str:
    """Why a run has measured nothing on held-out problems.

    Args:
        run: which has no such figure.
        every: its setting ``run.eval_every``, empty where that cannot be read.
    """
    if every in ("", "0"):
        unknown = "its settings do not say how often to measure" if not every else "run.eval_every is 0"
        return f"{unknown}; run.eval_every=20 measures every 20 steps"
    if run.active:
        return f"it is measured every {every} steps, and has not been yet"
    return f"it was to be measured every {every} steps, and the run ended before"


def progress_words(run: TrainingRun, seconds: float | None = None) -> str:
    """Where a training run is: step, phase and time left; while it loads, what it loads and for how long it has.

    ``seconds``: since the process began that trains it, or is about to, where there is one and that is known.
    """
    where = f"step {run.step} of {run.steps}" if run.steps else "starting"
    about_to = seconds is not None and run.state not in ("running", "finished")
    if about_to or (run.active and run.phase in LOADING):
        so_far = "" if seconds is None else f", {hours(seconds)} so far"
        return f"{where}: {loaded_words(run)}{so_far}"
    left = "" if run.seconds_left is None else f"{hours(run.seconds_left)} left"
    return ", ".join(filter(None, (where, run.phase if run.active else "", left)))


def loaded_words(run: TrainingRun) -> str:
    """What a training run loads before its first step."""
    method = METHODS.get(run.method)
    rewarded = method is not None and method.needs_discriminator
    return f"loading the programs, the problems{', the policy and the reward model' if rewarded else ' and the policy'}"
