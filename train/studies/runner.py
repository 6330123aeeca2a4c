"""`irl-lens study`: train the arms of a study once a seed, sample every policy on the same problems, read the rewards
on the same samples, and write what follows. A study that was stopped goes on, and ends as an unbroken one.

Trainings are those of ``irl-lens train``, a folder each; samples and readings are scored runs. Seed by seed, so that
what is finished can be read before the last seed is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from irl_core.checkpoints.load import load_json
from irl_core.config import TrainConfig, load_config
from irl_core.errors import ConfigError, StoreError
from irl_core.evaluation.evaluated_run import load
from irl_core.evaluation.per_problem import Columns, measured
from irl_core.files import now, one_line, write_whole
from irl_core.storage.provenance import code_state, this_machine, versions
from irl_core.storage.rows import trace_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_run
from irl_core.storage.training_run import CONFIG, FINAL, living_process, read_status
from train.distributed import training_device
from train.evaluate import resumable, rollouts
from train.evaluate.pipeline import checkpoint_hash
from train.evaluate.problem_sets import Exam, open_exam
from train.evaluate.progress import Progress, progress_of
from train.evaluate.resumable import Part, Stage, differing, json_of, write
from train.interruption import Interrupted, StopRequests, stop_requests
from train.planning import plan as planning
from train.run import train
from train.studies import report
from train.studies.backbone import make_untrained
from train.studies.definitions import SAMPLED as SECONDS_SAMPLED
from train.studies.definitions import SAMPLES, START, Backbone, Plan, Training, backbone_folder, make_plan, seconds
from train.studies.definitions import planned as described

MARKER = "order.json"
RUNS, STARTS, SAMPLED, READ = "runs", "starts", "samples", "rewards"
POLICY_START = "demo-sft"


def planned(name: str, *, seeds: Sequence[int] = (1, 2, 3), scale: float = 1.0) -> list[str]:
    """Every training of a study with an estimate of its time, in words. Raises ConfigError."""
    plan = make_plan(name, seeds, scale, Path("."))
    return list(described(plan, _missing(plan)))


def study(
    name: str,
    out: Path,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    scale: float = 1.0,
    resume: bool = True,
    console: Console | None = None,
) -> dict[str, Any]:
    """Do the study into ``out`` and return what ``study.json`` holds; ``study.md`` and ``study.html`` show the same.

    ``scale`` multiplies rounds, and below a half the problems too; 16 samples of a problem stay. Without ``resume``
    what ``out`` holds of an earlier study is removed first. SIGTERM and SIGINT save and raise ``Interrupted``; the same
    call goes on.

    Raises:
        ConfigError: no such study, seeds or scale; ``out`` holds another study, or one that a living process makes.
        StoreError, CheckpointError: a file cannot be read or written.
    """
    plan = make_plan(name, seeds, scale, out)
    _claim(out)
    _begin(out, plan, resume)
    with stop_requests() as stopped, progress_of(out, _total(plan), console, stopped) as progress:
        progress.stage("starting")
        try:
            return _Doing(plan, out, progress, console, stopped).go()
        except BaseException as error:
            asked = isinstance(error, Interrupted | KeyboardInterrupt)
            progress.end("interrupted" if asked else "failed", "" if asked else one_line(f"{error}")[:500])
            raise


def _missing(plan: Plan) -> list[str]:
    return [name for name in plan.starts if not _is_finished(planning.RUNS / name)]


def _is_finished(run_dir: Path) -> bool:
    return (run_dir / FINAL / "manifest.json").is_file()


def _total(plan: Plan) -> int:
    """The study's length in sampled traces: trainings count as many as are sampled in their time."""
    trainings = sum(training.cost for training in plan.trainings)
    before = sum(seconds(load_config(name, presets_dir=planning.PRESETS)) for name in plan.starts)
    before += sum(seconds(plan.backbone_config(one, Path(one.name))) for one in plan.study.backbones if one.steps)
    readings = len(plan.seeds) * (1 + len(plan.study.arms) * (1 + (plan.study.reading == "rewards")))
    return _as_traces(before + trainings) + readings * plan.problems * SAMPLES


def _as_traces(cost: float) -> int:
    return round(cost / SECONDS_SAMPLED)


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be made ({error.strerror}); name another --out") from error
    if process := living_process(read_status(out)):
        raise ConfigError(f"{out.name} is being written by {process}; wait for it, or end it with SIGTERM")


def _begin(out: Path, plan: Plan, resume: bool) -> None:
    """Write down what is studied, or check that ``out`` holds the same. Raises ConfigError."""
    marker, asked = out / MARKER, _asked(plan)
    if not resume and marker.exists():
        for name in (RUNS, STARTS, SAMPLED, READ):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (MARKER, *report.FILES):
            (out / name).unlink(missing_ok=True)
    if not marker.exists():
        held = [name for name in (RUNS, STARTS, SAMPLED, READ) if (out / name).exists()]
        if held:
            raise ConfigError(f"{out.name}: holds {', '.join(held)} of something else; name another --out")
        write_whole(marker, json.dumps(asked, indent=1) + "\n")
        return
    found = load_json(marker)
    changed = [key for key in sorted(found.keys() | asked.keys()) if found.get(key) != json_of(asked.get(key))]
    if changed:
        raise ConfigError(
            f"{out.name}: holds a study with another {differing(changed, found, asked)}; name another --out, or start "
            "again with --no-resume"
        )


def _asked(plan: Plan) -> dict[str, Any]:
    settings = {training.name: training.config.fingerprint() for training in plan.trainings}
    return {"study": plan.study.name, "seeds": plan.seeds, "scale": plan.scale, "settings": settings}


# -------------------------------------------------------------------------------------------------- doing it


@dataclass(slots=True)
class _Doing:
    """The stages. ``failed``: the runs that diverged, with the reason; no figure of that arm counts the seed."""

    plan: Plan
    out: Path
    progress: Progress
    console: Console | None
    stopped: StopRequests
    exam: Exam = field(init=False)
    starts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    policies: dict[str, dict[int, dict[str, Columns]]] = field(default_factory=dict)
    rewards: dict[str, dict[int, dict[str, Columns]]] = field(default_factory=dict)

    def go(self) -> dict[str, Any]:
        self._before()
        self.exam = open_exam("demo", self.plan.problems)
        found: dict[str, Any] = {}
        for seed in self.plan.seeds:
            self._sample(START, seed, planning.RUNS / POLICY_START / FINAL)
            for training in self.plan.trainings:
                if training.seed == seed:
                    self._arm(training)
            self.progress.stage("reporting")
            found = self._report(self.plan.seeds[: self.plan.seeds.index(seed) + 1])
        self.progress.end("finished")
        return found

    # -- what the arms start from ------------------------------------------------------------------------------

    def _before(self) -> None:
        """The presets and backbones that the arms start from, trained where they are not there yet."""
        for name in self.plan.starts:
            config = load_config(name, presets_dir=planning.PRESETS)
            self.starts[name] = checkpoint_hash(self._train(config, planning.RUNS / name))
        for backbone in self.plan.study.backbones:
            path = self._backbone(backbone)
            self.starts[f"backbone {backbone.name}"] = checkpoint_hash(path)

    def _backbone(self, backbone: Backbone) -> Path:
        path = backbone_folder(self.plan.study, backbone.name, self.out)
        untrained = path.parents[1] / f"{backbone.name}-untrained" if backbone.steps else path
        if not (untrained / "manifest.json").is_file():
            make_untrained(planning.RUNS / POLICY_START / FINAL, untrained, backbone)
        if backbone.steps:
            self._train(self.plan.backbone_config(backbone, untrained), path.parent)
        return path

    # -- training ----------------------------------------------------------------------------------------------

    def _train(self, config: TrainConfig, run_dir: Path) -> Path:
        """The finished checkpoint of a run, which is trained, or gone on with, where it is not there yet."""
        cost, progress = _as_traces(seconds(config)), self.progress
        progress.stage(f"training {run_dir.name}")
        if _is_finished(run_dir):
            progress.skip(cost)
            return run_dir / FINAL

        def on_step(step: int, steps: int, metrics: dict[str, float], seconds_left: float) -> None:
            progress.within(cost, step / steps)

        final = train(config, run_dir, (run_dir / CONFIG).is_file(), on_step, say=self._say)
        progress.advance(cost)
        return final

    def _say(self, line: str) -> None:
        if self.console is not None:
            self.console.print(Text(line))

    def _arm(self, training: Training) -> None:
        """Train one run of the study, sample its policy, and read its reward."""
        try:
            final = self._train(training.config, self.out / RUNS / training.name)
        except FloatingPointError as error:
            self.failed[training.name] = one_line(str(error))
            self.progress.skip(_as_traces(seconds(training.config)))
            return
        self._sample(training.arm.name, training.seed, final)
        if self.plan.study.reading == "rewards":
            self._read(training, final)

    # -- sampling and reading ----------------------------------------------------------------------------------

    def _sample(self, arm: str, seed: int, final: Path) -> None:
        """16 solutions of every held-out problem, drawn with the run's own seed."""
        name = f"{arm}-{seed}"
        path = self.out / SAMPLED / f"{name}.parquet"

        def voice() -> rollouts.Voice:
            return rollouts.Voice.load(final, str(training_device()))

        parts = rollouts.read_samples(voice, self.exam.asked, SAMPLES, seed, name)
        self._write(path, name, final, parts, {"sampling_seed": seed})
        self.policies.setdefault(arm, {})[seed] = measured(load(path))

    def _read(self, training: Training, final: Path) -> None:
        """What a run's discriminator makes of the samples that the start drew with the first seed."""
        given = self.out / SAMPLED / f"{START}-{self.plan.seeds[0]}.parquet"
        path = self.out / READ / f"{training.name}.parquet"
        calibration = load_json(final / "config.json")["localisation"]
        known = {"samples": given.stem, "calibration": calibration}
        self._write(path, training.name, final, _readings(given, final), known)
        self.rewards.setdefault(training.arm.name, {})[training.seed] = measured(load(path))

    def _write(self, path: Path, name: str, final: Path, parts: Iterator[Part], provenance: dict[str, Any]) -> None:
        told = {
            "command": f"irl-lens study {self.plan.study.name}",
            "checkpoint": name,
            "checkpoint_sha256": checkpoint_hash(final),
            "input": self.exam.name,
            "input_sha256": self.exam.sha256,
            "temperature": rollouts.TEMPERATURE,
            "top_p": rollouts.TOP_P,
            **provenance,
        }
        title = f"{'sampling' if path.parent.name == SAMPLED else 'reading'} {name}"
        count = len(self.exam.asked) * SAMPLES
        write(Stage(path, title, told, count, parts), self.progress)

    # -- reporting ---------------------------------------------------------------------------------------------

    def _report(self, seeds: Sequence[int]) -> dict[str, Any]:
        given = self.policies[START][self.plan.seeds[0]]
        known = {
            "created": now(),
            "starts": self.starts,
            "failed": self.failed,
            "input_sha256": self.exam.sha256,
            "machine": this_machine(),
            "versions": versions(),
            "code": code_state(),
        }
        return report.write(report.figures(self.plan, seeds, self.policies, self.rewards, given, known), self.out)


def _readings(given: Path, final: Path) -> Iterator[Part]:
    """The traces of a run as the discriminator of a checkpoint reads them."""
    from irl_core.scorer import Lens

    rows = read_run(given).to_pylist()
    loaded: list[Lens] = []
    for some in rollouts.windows(rows, rollouts.TRACES_AT_ONCE):

        def make(on_step: resumable.OnStep, some: Sequence[ScoredRow] = some) -> resumable.Made:
            if not loaded:
                loaded.append(Lens.load(final, str(training_device())))
            lens = loaded[0]
            return rollouts.scored_rows(lens, [lens.encoder.encode(trace_of(row)) for row in some]), []

        yield Part(len(some), make)
