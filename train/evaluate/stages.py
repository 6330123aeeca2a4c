"""The files of an evaluation, one after the other; each file's provenance holds the rules that it is read with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from irl_core.checkpoints.description import trained_with
from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import MANIFEST, verify
from irl_core.data.formats import read
from irl_core.errors import StoreError
from irl_core.evaluation.evaluated_run import COMPARE, PERTURBED, PROBES, RUN, WAYS
from irl_core.files import write_whole
from irl_core.models.pretrained import load_causal_lm
from irl_core.scorer import Lens
from irl_core.storage.provenance import ScoredRunProvenance
from irl_core.storage.rows import scored_of, unscored_row
from irl_core.storage.schema import COLUMNS, RefusedRow, ScoredRow
from irl_core.storage.scored_run import read_batches, read_run
from irl_core.storage.training_run import METRICS
from irl_core.types import Trace
from train.calibrate import perturbed_experts
from train.evaluate import rollouts, ways
from train.evaluate.calibration_rules import chosen_rules, likelihood_rule
from train.evaluate.engine_policy import EnginePolicy
from train.evaluate.progress import Progress
from train.evaluate.resumable import OnStep, Part, Stage, rows_in, write
from train.evaluate.rollouts import SampledPolicy
from train.evaluate.settings import ANCHOR, CALIBRATION, EvaluationRecord, EvaluationSettings
from train.score_file import ScoredRows, Window, score_window, windows
from train.workers import Workers

CALIBRATION_SAMPLES = 8  # of each calibration problem


class Anchor(NamedTuple):
    """The model that a discriminator started from: what the reward knows without any adversarial training."""

    name: str
    model: Any


@dataclass(slots=True)
class Evaluation:
    """An evaluation of a loaded checkpoint into the folder ``out``."""

    lens: Lens
    out: Path
    settings: EvaluationSettings
    record: EvaluationRecord
    workers: Workers = field(default_factory=Workers)
    perturbed: list[Trace] = field(init=False)
    probes: list[Trace] = field(init=False)
    anchor: Anchor | None = field(init=False)
    policy: SampledPolicy | None = field(init=False, default=None)  # once it is sampled

    def __post_init__(self) -> None:
        experts, seed = self.settings.problem_set.experts, self.settings.seed
        self.perturbed = rollouts.perturbed_traces(self.lens.encoder, experts, seed)
        self.probes = rollouts.probes_with_honest(experts, seed)
        self.anchor = anchor_of(self.lens)

    @property
    def total(self) -> int:
        """The number of traces of all files."""
        runs = 1 + len(self.settings.compare) + (self.anchor is not None)
        calibration = len(self.settings.problem_set.calibration) * CALIBRATION_SAMPLES
        answered = len(self.settings.ways) * len(self.settings.problem_set.questions)
        return max(1, calibration + runs * self.settings.traces + answered + len(self.perturbed) + len(self.probes))

    @property
    def provenance(self) -> ScoredRunProvenance:
        """What every file's provenance holds."""
        record, intake = self.record, self.settings.problem_set.intake
        return {
            **record["arguments"],
            "command": "irl-lens evaluate",
            "checkpoint_provenance": self.lens.provenance,
            "standardised_over": self.lens.reference.origin,
            "temperature": rollouts.TEMPERATURE,
            "top_p": rollouts.TOP_P,
            "created": record["created"],
            "machine": record["machine"],
            "versions": record["versions"],
            "code": record["code"],
            **({} if intake is None else {"intake": intake.record()}),
        }

    def make_files(self, progress: Progress) -> None:
        """Make the files that are not there yet."""
        settings, training = self.settings, self.settings.training
        if training is not None and self.workers.is_main:
            metrics = (training / METRICS).read_text(encoding="utf-8", errors="replace")
            write_whole(self.out / METRICS, metrics)
        progress.stage("calibrating")
        calibration = self.calibration_rows(progress)
        provenance: ScoredRunProvenance = {**self.provenance, **chosen_rules(self.lens, calibration)}
        parts = self.run_parts()
        if not write(Stage(self.out / RUN, "sampling", provenance, settings.traces, parts), progress, self.workers):
            raise StoreError(
                f"{settings.problem_set.name}: no solution could be scored; run.errors.jsonl in "
                f"{self.out.name} says why"
            )
        if self.anchor is not None:
            write(self.anchor_stage(self.anchor, calibration), progress, self.workers)
        for name, title, traces in ((PERTURBED, "perturbed", self.perturbed), (PROBES, "probes", self.probes)):
            parts = rollouts.scored_traces(self.lens, traces)
            write(Stage(self.out / name, title, provenance, len(traces), parts), progress, self.workers)
        for name in settings.ways:
            questions, file = settings.problem_set.questions, self.out / WAYS / f"{name}.parquet"
            parts = ways.answered(self.lens, questions, name, settings.seed)
            write(Stage(file, name, provenance, len(questions), parts), progress, self.workers)
        for name, path in settings.compare.items():
            write(self.compare_stage(name, path), progress, self.workers)

    def sampled(self) -> SampledPolicy:
        """What is sampled: the checkpoint's policy, or the engine in its place. Raises EngineError."""
        if self.policy is None:
            own, engine = rollouts.LoadedPolicy.of(self.lens), self.settings.engine
            self.policy = own if engine is None else EnginePolicy.open(own, engine, self.out)
        return self.policy

    def notes(self) -> list[str]:
        """What is to be said of an engine's samples, a sentence each."""
        return list(self.policy.client.notes()) if isinstance(self.policy, EnginePolicy) else []

    def calibration_rows(self, progress: Progress) -> list[ScoredRow]:
        """The scored rows of the calibration problems; of problems whose truth is not known, perturbed experts too."""
        questions, lens, seed = self.settings.problem_set.calibration, self.lens, self.settings.seed + 1
        if not questions:
            return []
        wrong = [] if questions[0].generated else perturbed_experts([one.expert for one in questions], seed)

        def parts() -> Iterator[Part]:
            yield from rollouts.scored_samples(self.sampled(), lens, questions, CALIBRATION_SAMPLES, seed)
            yield from (replace(part, count=0) for part in rollouts.scored_traces(lens, wrong))

        path, count = self.out / CALIBRATION, len(questions) * CALIBRATION_SAMPLES
        there = write(Stage(path, "calibrating", self.provenance, count, parts()), progress, self.workers)
        rows: list[ScoredRow] = read_run(path).to_pylist() if there else []
        return rows

    def run_parts(self) -> Iterator[Part]:
        """The traces of the scored run: samples of the problems, or the solutions of the file."""
        settings, data, lens = self.settings, self.settings.problem_set, self.lens
        if data.solutions is None:
            parts = rollouts.scored_samples(self.sampled(), lens, data.questions, settings.samples, settings.seed)
            yield from with_errors(parts, data.left_out)
            return
        for window in windows(read(data.solutions, data.format, data.columns), rollouts.TRACES_AT_ONCE):

            def make(on_step: OnStep, window: Window = window) -> ScoredRows:
                scored = score_window(lens, window.traces, run_id=lens.name, batch_tokens=rollouts.BATCH_TOKENS)
                return ScoredRows(scored.rows, [*window.errors, *scored.refused])

            yield Part(len(window.traces) + len(window.errors), make)

    def anchor_stage(self, anchor: Anchor, calibration: Sequence[ScoredRow]) -> Stage:
        """The traces of the scored run as the discriminator's start reads them, with a rule of their own."""

        def read_again(rows: Sequence[ScoredRow]) -> list[ScoredRow]:
            encoded = [scored_of(row).encoded for row in rows]
            values = rollouts.logprobs_under(anchor.model, encoded, self.lens.encoder.pad_id)
            return [
                unscored_row(one, logprobs, run_id=self.lens.name, checkpoint=anchor.name)
                for one, logprobs in zip(encoded, values, strict=True)
            ]

        def parts() -> Iterator[Part]:
            for table in read_batches(self.out / RUN, COLUMNS.names):

                def make(on_step: OnStep, table: pa.Table = table) -> ScoredRows:
                    return ScoredRows(read_again(table.to_pylist()), [])

                yield Part(table.num_rows, make)

        rule = likelihood_rule(self.lens, calibration, read_again(calibration))
        provenance: ScoredRunProvenance = {**self.provenance, "read_by": anchor.name, **rule}
        return Stage(self.out / ANCHOR, "baselines", provenance, rows_in(self.out / RUN), parts())

    def compare_stage(self, name: str, path: Path) -> Stage:
        """Samples of another checkpoint's policy on the same problems."""
        settings = self.settings

        def load() -> rollouts.LoadedPolicy:
            return rollouts.LoadedPolicy.load(path, self.lens.device)

        questions = settings.problem_set.questions
        parts = rollouts.unscored_samples(load, questions, settings.samples, settings.seed, name)
        provenance: ScoredRunProvenance = {
            **self.provenance,
            "checkpoint": name,
            "checkpoint_sha256": self.record["arguments"]["compare"][name],
            "checkpoint_provenance": load_json(path / "config.json").get("provenance", {}),
        }
        title, file = f"sampling {name}", self.out / COMPARE / f"{name}.parquet"
        return Stage(file, title, provenance, settings.traces, parts)


def with_errors(parts: Iterator[Part], lines: Sequence[str]) -> Iterator[Part]:
    """The parts, the first with the rows of the input that could not be read."""
    for number, part in enumerate(parts):
        if number or not lines:
            yield part
            continue

        def make(on_step: OnStep, first: Callable[[OnStep], ScoredRows] = part.make) -> ScoredRows:
            scored = first(on_step)
            unread: list[RefusedRow] = [{"message": line} for line in lines]
            return ScoredRows(scored.rows, [*unread, *scored.refused])

        yield replace(part, make=make)


def anchor_of(lens: Lens) -> Anchor | None:
    """The model that the discriminator started from, where it is a checkpoint of ours and still there. None where it
    reads other tokens."""
    named = trained_with(lens.config, "model").get("discriminator")
    if not isinstance(named, str) or lens.discriminator_encoder is not None:
        return None
    path = Path(named)
    if not (path / "policy").is_dir() or not (path / MANIFEST).is_file():
        return None
    verify(path)
    return Anchor(str(load_json(path / "config.json")["name"]), load_causal_lm(path / "policy", lens.device))
