"""What an evaluation measures, and its record in ``evaluation.json``: a folder holds one evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import MANIFEST, verify
from irl_core.errors import ConfigError, StoreError
from irl_core.evaluation.evaluated_run import COMPARE, PERTURBED, PROBES, RUN, WAYS
from irl_core.files import now, write_whole
from irl_core.policy.engine_requests import Engine
from irl_core.scorer import Lens
from irl_core.storage.provenance import CodeState, Machine, Versions, code_state, this_machine, versions
from irl_core.storage.training_run import METRICS
from train.evaluate.problem_sets import ProblemSet
from train.evaluate.resumable import changed_keys, differing, remove

RECORD = "evaluation.json"
CALIBRATION = "calibration.parquet"
KEPT = "engine.jsonl"  # an engine's samples as they came
ANCHOR = "anchor.parquet"
MAX_NAME = 60


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """What is measured of a checkpoint. ``compare``: folders of further checkpoints, whose policies are sampled on the
    same problems. ``training``: the folder of the training run that made the checkpoint, whose metrics are reported.
    ``engine``: a server that is sampled in place of the checkpoint's policy. ``ways``: names of
    ``irl_core.strategies.STRATEGIES``, in each of which one solution of every problem is written."""

    problem_set: ProblemSet
    samples: int = 16
    seed: int = 0
    compare: Mapping[str, Path] = field(default_factory=dict)
    training: Path | None = None
    engine: Engine | None = None
    ways: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ways and self.engine is not None:
            raise ConfigError("--way: its solutions are written by the checkpoint's policy; leave out --engine")
        if self.ways and self.problem_set.solutions is not None:
            raise ConfigError(
                f"--way: {self.problem_set.name} holds solutions, and none are written; leave it out, or sample "
                "solutions of its problems with --holds problems"
            )
        if self.engine is not None and self.problem_set.solutions is not None:
            raise ConfigError(
                f"--engine: {self.problem_set.name} holds solutions, and none are sampled; leave it out, or sample "
                "solutions of its problems with --holds problems"
            )
        if self.compare and self.problem_set.solutions is not None:
            raise ConfigError(
                f"--compare: {self.problem_set.name} holds solutions, and none are sampled; leave it out, or sample "
                "solutions of its problems with --holds problems"
            )
        for name in self.compare:
            if not name.replace("-", "").replace("_", "").replace(" ", "").isalnum() or len(name) > MAX_NAME:
                raise ConfigError(f"--compare {name!r}: letters, digits, - and _ are expected, at most {MAX_NAME}")

    @property
    def traces(self) -> int:
        """The number of traces of the scored run."""
        if self.problem_set.solutions is not None:
            return self.problem_set.lines
        return len(self.problem_set.questions) * self.samples


class Arguments(TypedDict, total=False):
    """The settings as they are recorded. ``problems`` and ``samples``: where solutions are sampled; ``engine``: what
    the engine calls its model, where one is sampled; ``ways``: where there are any."""

    checkpoint: str
    checkpoint_sha256: str
    input: str
    input_sha256: str
    problems: int
    samples: int
    seed: int
    compare: dict[str, str]
    engine: str
    ways: list[str]


class EvaluationRecord(TypedDict):
    """``evaluation.json``; ``seconds``: of all processes that worked on the evaluation."""

    arguments: Arguments
    created: str
    machine: Machine
    versions: Versions
    code: CodeState
    seconds: float


def files_in(out: Path) -> list[Path]:
    """The files that an evaluation writes before its report."""
    return [out / name for name in (CALIBRATION, RUN, ANCHOR, PERTURBED, PROBES, KEPT)] + sorted(
        path.with_suffix("") if path.suffix == ".parts" else path
        for folder in (COMPARE, WAYS)
        for path in (out / folder).glob("*.parquet*")
    )


def arguments_of(lens: Lens, settings: EvaluationSettings) -> Arguments:
    """The settings to record. Raises CheckpointError where a checkpoint to compare with cannot be trusted."""
    data = settings.problem_set
    sampled: Arguments = {} if data.solutions else {"problems": len(data.questions), "samples": settings.samples}
    if settings.engine is not None:
        sampled["engine"] = settings.engine.model or "its only model"
    if settings.ways:
        sampled["ways"] = list(settings.ways)
    return {
        "checkpoint": lens.name,
        "checkpoint_sha256": lens.fingerprint,
        "input": data.name,
        "input_sha256": data.sha256,
        **sampled,
        "seed": settings.seed,
        "compare": {name: checkpoint_hash(path) for name, path in settings.compare.items()},
    }


def checkpoint_hash(path: Path) -> str:
    """sha256 of a verified checkpoint's manifest, which names that of every file. Raises CheckpointError."""
    verify(path)
    return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()


def begin(out: Path, arguments: Arguments, resume: bool) -> EvaluationRecord:
    """The record of the evaluation, written where there is none yet. Raises StoreError where it has other settings."""
    path = out / RECORD
    if not resume:
        remove(files_in(out))
        for name in (RECORD, METRICS):
            (out / name).unlink(missing_ok=True)
    if path.exists():
        record: EvaluationRecord = load_json(path)  # type: ignore[assignment]
        begun = record.get("arguments", {})
        changed = changed_keys(begun, arguments)
        if changed:
            raise StoreError(
                f"{out.name}: holds an evaluation that differs in {differing(changed, begun, arguments)}; name another "
                "--out, or start again with --no-resume"
            )
        return record
    if (out / RUN).exists():
        raise StoreError(f"{out.name}: holds a {RUN} of another kind; name another --out, or add --no-resume")
    record = {
        "arguments": arguments,
        "created": now(),
        "machine": this_machine(),
        "versions": versions(),
        "code": code_state(),
        "seconds": 0.0,
    }
    write_whole(path, json.dumps(record, indent=1) + "\n")
    return record
