"""`irl-lens study`: train the arms of a study once a seed, sample every policy on the same problems, read the rewards
on the same samples, and write the report. A study that was stopped continues, and ends as an unbroken one.

Trainings are those of ``irl-lens train``, a folder each; samples and readings are scored runs. It is done seed by seed,
so that the results so far can be read before the last seed is finished.
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
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.evaluation.evaluated_run import load
from irl_core.evaluation.per_problem import Columns, measured
from irl_core.files import now, one_line, write_whole
from irl_core.presets import load_config
from irl_core.scorer import Lens
from irl_core.storage.provenance import ScoredRunProvenance, code_state, this_machine, versions
from irl_core.storage.rows import trace_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_run
from irl_core.storage.training_run import CONFIG, FINAL, is_finished
from irl_core.text.visible import visible
from train.distributed import training_device
from train.evaluate import rollouts
from train.evaluate.problem_sets import ProblemSet, generated_problems
from train.evaluate.progress import Progress, progress_of
from train.evaluate.resumable import OnStep, Part, Stage, changed_keys, claimed_folder, differing, write
from train.evaluate.settings import checkpoint_hash
from train.interruption import Interrupted, stop_requests
from train.planning import plan as planning
from train.run import train
from train.score_file import ScoredRows
from train.studies import report
from train.studies.backbone import make_untrained
from train.studies.definitions import START, Backbone
from train.studies.plan import (
    SAMPLES,
    SECONDS_SAMPLED,
    Plan,
    Training,
    backbone_folder,
    make_plan,
    plan_lines,
    reads_rewards,
    seconds,
    start_folder,
)
from train.studies.seen import Seen, seen_by

MARKER = "order.json"
RUNS, STARTS, SAMPLED, READ = "runs", "starts", "samples", "rewards"
POLICY_START = "demo-sft"


def planned(
    name: str,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    scale: float = 1.0,
    demonstrations: int | None = None,
    arms: Sequence[str] = (),
) -> list[str]:
    """Every training of a study with an estimate of its time, a line each. Raises ConfigError."""
    plan = make_plan(name, seeds, scale, Path("."), demonstrations, arms)
    return list(plan_lines(plan, [name for name in plan.starts if not is_finished(planning.RUNS / name)]))


def study(
    name: str,
    out: Path,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    scale: float = 1.0,
    demonstrations: int | None = None,
    arms: Sequence[str] = (),
    resume: bool = True,
    console: Console | None = None,
) -> dict[str, Any]:
    """Make the study in ``out`` and return what ``study.json`` holds; ``study.md`` and ``study.html`` show the same.

    SIGTERM and SIGINT save and raise ``Interrupted``; the same call continues.

    Args:
        name: one of ``definitions.STUDIES``.
        out: the folder to write into.
        seeds: every arm is trained once with each.
        scale: multiplies rounds, and below a half the problems too; 16 samples of a problem stay.
        demonstrations: how many there are, of a study that is about their number.
        arms: these alone; the same folder takes others later. None stands for all.
        resume: continue what ``out`` holds; False removes an earlier study first.
        console: shows the progress.

    Raises:
        ConfigError: no such study, seeds or scale; ``out`` holds another study, or one that a living process makes.
        StoreError, CheckpointError: a file cannot be read or written.
    """
    plan = make_plan(name, seeds, scale, out, demonstrations, arms)
    with claimed_folder(out):
        begin(out, plan, resume)
        with stop_requests() as stopped, progress_of(out, traces_in_all(plan), console, stopped) as progress:
            progress.stage("starting")
            try:
                return StudyInProgress(plan, out, progress, console).make()
            except BaseException as error:
                asked = isinstance(error, Interrupted | KeyboardInterrupt)
                progress.end("interrupted" if asked else "failed", "" if asked else one_line(f"{error}")[:500])
                raise


def traces_in_all(plan: Plan) -> int:
    """The study's length in sampled traces: trainings count as many as are sampled in their time."""
    trainings = sum(training.cost for training in plan.trainings)
    before = sum(seconds(load_config(name, presets_dir=planning.PRESETS)) for name in plan.starts)
    before += seconds(plan.start) if plan.start else 0.0
    before += sum(seconds(plan.backbone_config(one, Path(one.name))) for one in plan.study.backbones if one.steps)
    read = sum(reads_rewards(plan, training) for training in plan.trainings)
    readings = len(plan.seeds) + len(plan.trainings) + read
    return as_traces(before + trainings) + readings * plan.problems * SAMPLES


def as_traces(cost: float) -> int:
    """The number of traces that are sampled in so many seconds."""
    return round(cost / SECONDS_SAMPLED)


def begin(out: Path, plan: Plan, resume: bool) -> None:
    """Write down what is studied, or check that ``out`` holds the same. Raises ConfigError."""
    marker = out / MARKER
    fingerprints = {training.name: training.config.fingerprint() for training in plan.trainings}
    order = {"study": plan.study.name, "seeds": plan.seeds, "scale": plan.scale, "settings": fingerprints}
    if not resume and marker.exists():
        for name in (RUNS, STARTS, SAMPLED, READ):
            shutil.rmtree(out / name, ignore_errors=True)
        for name in (MARKER, *report.FILES):
            (out / name).unlink(missing_ok=True)
    if not marker.exists():
        held = [name for name in (RUNS, STARTS, SAMPLED, READ) if (out / name).exists()]
        if held:
            raise ConfigError(f"{out.name}: holds {', '.join(held)} of something else; name another --out")
        write_whole(marker, json.dumps(order, indent=1) + "\n")
        return
    begun = load_json(marker)
    settings = {**begun.get("settings", {}), **fingerprints}
    changed = changed_keys(begun, {**order, "settings": {name: settings[name] for name in begun.get("settings", {})}})
    if changed:
        raise ConfigError(
            f"{out.name}: holds a study that differs in {differing(changed, begun, order)}; name another --out, or "
            "start again with --no-resume"
        )
    write_whole(marker, json.dumps({**order, "settings": settings}, indent=1) + "\n")  # with the arms that are new


@dataclass(slots=True)
class StudyInProgress:
    """A study that is being made. ``policies`` and ``rewards``: measures by arm and seed. ``failed``: the trainings
    that diverged, with the reason; no figure of that arm counts the seed."""

    plan: Plan
    out: Path
    progress: Progress
    console: Console | None
    problem_set: ProblemSet = field(init=False)
    starts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    policies: dict[str, dict[int, dict[str, Columns]]] = field(default_factory=dict)
    rewards: dict[str, dict[int, dict[str, Columns]]] = field(default_factory=dict)
    seen: dict[str, list[Seen]] = field(default_factory=dict)

    def make(self) -> dict[str, Any]:
        """Train, sample and read, seed by seed; returns the report."""
        self.make_starts()
        self.problem_set = generated_problems(self.plan.problems, self.plan.study.families)
        reported: dict[str, Any] = {}
        for number, seed in enumerate(self.plan.seeds, 1):
            self.sample_policy(START, seed, self.policy_start)
            for training in self.plan.trainings:
                if training.seed == seed:
                    self.make_arm(training)
            self.progress.stage("reporting")
            reported = self.write_report(self.plan.seeds[:number])
        self.progress.end("finished")
        return reported

    # -- training ----------------------------------------------------------------------------------------------

    @property
    def policy_start(self) -> Path:
        """The checkpoint that the policies start from."""
        return (start_folder(self.out) if self.plan.start else planning.RUNS / POLICY_START) / FINAL

    def make_starts(self) -> None:
        """The presets and backbones that the arms start from, trained where they are not there yet."""
        for name in self.plan.starts:
            config = load_config(name, presets_dir=planning.PRESETS)
            self.starts[name] = checkpoint_hash(self.train(config, planning.RUNS / name))
        if self.plan.start is not None:
            self.starts["the start"] = checkpoint_hash(self.train(self.plan.start, start_folder(self.out)))
        for backbone in self.plan.study.backbones:
            self.starts[f"backbone {backbone.name}"] = checkpoint_hash(self.make_backbone(backbone))

    def make_backbone(self, backbone: Backbone) -> Path:
        """The checkpoint of a backbone, made where it is not there yet."""
        path = backbone_folder(self.plan.study, backbone.name, self.out)
        untrained = path.parents[1] / f"{backbone.name}-untrained" if backbone.steps else path
        if not (untrained / "manifest.json").is_file():
            make_untrained(planning.RUNS / POLICY_START / FINAL, untrained, backbone)
        if backbone.steps:
            self.train(self.plan.backbone_config(backbone, untrained), path.parent)
        return path

    def train(self, config: TrainConfig, run_dir: Path) -> Path:
        """The final checkpoint of a training run, which is begun or resumed where it is not there yet."""
        cost, progress = as_traces(seconds(config)), self.progress
        progress.stage(f"training {run_dir.name}")
        if is_finished(run_dir):
            progress.skip(cost)
            return run_dir / FINAL

        def on_step(step: int, steps: int, metrics: dict[str, float], seconds_left: float) -> None:
            progress.within(cost, step / steps)

        def say(line: str) -> None:
            if self.console is not None:
                self.console.print(Text(visible(line)))

        final = train(config, run_dir, (run_dir / CONFIG).is_file(), on_step, say=say)
        progress.advance(cost)
        return final

    def make_arm(self, training: Training) -> None:
        """Train an arm with one seed, sample its policy, and read its reward."""
        try:
            final = self.train(training.config, self.out / RUNS / training.name)
        except FloatingPointError as error:
            self.failed[training.name] = one_line(str(error))
            self.progress.skip(as_traces(seconds(training.config)))
            return
        self.seen.setdefault(training.arm.name, []).append(seen_by(training.config, final.parent))
        self.sample_policy(training.arm.name, training.seed, final)
        if reads_rewards(self.plan, training):
            self.read_rewards(training, final)

    # -- sampling and reading ----------------------------------------------------------------------------------

    def sample_policy(self, arm: str, seed: int, final: Path) -> None:
        """16 solutions of every held-out problem, drawn with the training's own seed."""
        name = f"{arm}-{seed}"
        path = self.out / SAMPLED / f"{name}.parquet"

        def load_policy() -> rollouts.LoadedPolicy:
            return rollouts.LoadedPolicy.load(final, str(training_device()))

        parts = rollouts.unscored_samples(load_policy, self.problem_set.questions, SAMPLES, seed, name)
        self.write_rows(path, f"sampling {name}", final, parts, {"sampling_seed": seed})
        self.policies.setdefault(arm, {})[seed] = measured(load(path))

    def read_rewards(self, training: Training, final: Path) -> None:
        """The rewards of a training's discriminator on the samples that the start drew with the first seed."""
        given = self.out / SAMPLED / f"{START}-{self.plan.seeds[0]}.parquet"
        path = self.out / READ / f"{training.name}.parquet"
        calibration = load_json(final / "config.json")["localisation"]
        more: ScoredRunProvenance = {"samples": given.stem, "calibration": calibration}
        self.write_rows(path, f"reading {training.name}", final, readings(given, final), more)
        self.rewards.setdefault(training.arm.name, {})[training.seed] = measured(load(path))

    def write_rows(self, path: Path, title: str, final: Path, parts: Iterator[Part], more: ScoredRunProvenance) -> None:
        """Write a scored run of the study; ``more`` is added to the provenance that all of them have."""
        provenance: ScoredRunProvenance = {
            "command": f"irl-lens study {self.plan.study.name}",
            "checkpoint": path.stem,
            "checkpoint_sha256": checkpoint_hash(final),
            "input": self.problem_set.name,
            "input_sha256": self.problem_set.sha256,
            "temperature": rollouts.TEMPERATURE,
            "top_p": rollouts.TOP_P,
            **more,
        }
        write(Stage(path, title, provenance, len(self.problem_set.questions) * SAMPLES, parts), self.progress)

    # -- reporting ---------------------------------------------------------------------------------------------

    def write_report(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Write and return the report of the seeds that are done."""
        given = self.policies[START][self.plan.seeds[0]]
        about: report.StudyProvenance = {
            "created": now(),
            "starts": self.starts,
            "failed": self.failed,
            "input_sha256": self.problem_set.sha256,
            "machine": this_machine(),
            "versions": versions(),
            "code": code_state(),
        }
        families = {one.text: one.generated.family for one in self.problem_set.questions if one.generated}
        study = report.figures(self.plan, seeds, self.policies, self.rewards, given, about, self.seen, families)
        return report.write(study, self.out)


def readings(given: Path, final: Path) -> Iterator[Part]:
    """The traces of a scored run as the discriminator of a checkpoint reads them."""
    rows: list[ScoredRow] = read_run(given).to_pylist()
    loaded: list[Lens] = []
    for some in rollouts.chunks(rows, rollouts.TRACES_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[ScoredRow] = some) -> ScoredRows:
            if not loaded:
                loaded.append(Lens.load(final, str(training_device())))
            lens = loaded[0]
            return ScoredRows(rollouts.scored_rows(lens, [lens.encoder.encode(trace_of(row)) for row in some]), [])

        yield Part(len(some), make)
