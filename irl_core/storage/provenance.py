"""Provenance of training runs and scored runs: code, data, versions and machine, so that a result can be repeated."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from irl_core.config import TrainConfig
from irl_core.data.intake import IntakeRecord
from irl_core.data.sources import TraceSource
from irl_core.errors import DatasetError
from irl_core.files import now
from irl_core.types import Trace

if TYPE_CHECKING:
    import torch

    from irl_core.distributed import World

PACKAGES = ("irl-lens", "torch", "transformers", "tokenizers", "peft", "accelerate", "bitsandbytes", "unsloth")
REPOSITORY = Path(__file__).resolve().parents[2]

Versions = dict[str, str | None]


class Machine(TypedDict):
    """The hardware of a measurement, without host name or path. ``cores``: those that the process may use;
    ``threads``: of torch; ``gpu``: None without one."""

    processor: str
    cores: int | None
    threads: int
    gpu: str | None


class CodeState(TypedDict):
    """A git commit, and whether tracked files differ from it; both None outside a git checkout."""

    commit: str | None
    dirty: bool | None


class DataState(TypedDict):
    """The training data: their source, the number of traces and their sha256 (`data_hash`)."""

    source: str
    traces: int
    sha256: str


class TrainingProvenance(TypedDict):
    """``provenance.json`` of a training run. ``resumed``: time, step and what has changed, of each resumption."""

    started: str
    command: str
    preset: str
    config: str
    seed: int
    data: DataState
    code: CodeState
    versions: Versions
    device: str
    processes: int
    resumed: list[dict[str, Any]]


class ScoredRunProvenance(TypedDict, total=False):
    """Provenance in a scored run's metadata; which keys there are depends on the command that made it.

    ``calibration``, ``likelihood_calibration`` and ``vote`` hold the rules that were chosen on calibration problems.
    ``intake``: what became of the rows that were read; ``columns``: those that stood for a format's fields.
    """

    command: str
    created: str
    checkpoint: str
    checkpoint_sha256: str
    checkpoint_provenance: dict[str, Any]
    standardised_over: str
    input: str
    input_sha256: str
    format: str
    columns: dict[str, str]
    intake: IntakeRecord
    problems: int
    samples: int | str
    seed: int
    read_by: str
    sampling_seed: int
    temperature: float
    top_p: float
    batch_tokens: int
    window: int
    compare: dict[str, str]
    engine: str
    ways: list[str]
    machine: Machine
    versions: Versions
    code: CodeState
    calibration: dict[str, Any]
    calibration_problems: int
    likelihood_calibration: dict[str, Any]
    vote: dict[str, Any]


def training_provenance(config: TrainConfig, traces: Sequence[Trace], device: str, world: World) -> TrainingProvenance:
    """The provenance of a training run that starts now.

    Args:
        config: the resolved configuration.
        traces: the training data as they were read.
        device: the device in words (`device_name`).
        world: the processes that train together.
    """
    return {
        "started": now(),
        "command": command_line(),
        "preset": config.run.preset,
        "config": config.fingerprint(),
        "seed": config.run.seed,
        "data": {"source": config.data.source, "traces": len(traces), "sha256": data_hash(traces)},
        "code": code_state(),
        "versions": versions(),
        "device": device,
        "processes": world.size,
        "resumed": [],
    }


def changes(before: Mapping[str, Any], after: TrainingProvenance) -> list[str]:
    """Differences of a resumed training run to the state that it was started in, a phrase each: with any of them,
    results may differ from an unbroken training run's."""
    differences = []
    for name, new in after["versions"].items():
        if (old := before.get("versions", {}).get(name)) != new:
            differences.append(f"{name} was {old} and is {new}")
    for name, new_state in after["code"].items():
        if (old := before.get("code", {}).get(name)) != new_state:
            differences.append(f"the code's {name} was {old} and is {new_state}")
    for name, now_is in (("device", after["device"]), ("processes", after["processes"])):
        if before.get(name) != now_is:
            differences.append(f"{name} was {before.get(name)} and is {now_is}")
    return differences


def command_line() -> str:
    """The command as it was given, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def data_hash(traces: Sequence[Trace]) -> str:
    """sha256 of the traces as they were read, in order: problem, solution, right answer."""
    digest = hashlib.sha256()
    for trace in traces:
        digest.update(json.dumps([trace.problem, trace.text, trace.reference_answer]).encode() + b"\n")
    return digest.hexdigest()


def file_hash(path: Path) -> tuple[str, int]:
    """sha256 of a file and its number of lines, read in pieces. Raises DatasetError where it cannot be read."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                lines += piece.count(b"\n")
                last = piece
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror})") from error
    return digest.hexdigest(), lines + (not last.endswith(b"\n"))


def source_hash(source: TraceSource) -> tuple[str, int]:
    """sha256 of a source of traces, of one file its own, and about how many rows it has. Raises DatasetError."""
    found = [file_hash(file) for file in source.files]
    rows = source.count(sum(lines for _, lines in found))
    if len(found) == 1:
        return found[0][0], rows
    return hashlib.sha256("".join(digest for digest, _ in found).encode()).hexdigest(), rows


def code_state(folder: Path = REPOSITORY) -> CodeState:
    """The state of the git checkout ``folder``."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top = git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():  # a checkout around an installed copy is not its own
        return {"commit": None, "dirty": None}
    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else changed != ""}


def versions() -> Versions:
    """Versions of Python and of the packages that decide what is computed; None for one that is not installed."""
    installed: Versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed


def device_name(device: torch.device) -> str:
    """A torch device in words: ``cuda:0 (NVIDIA A100)``."""
    if device.type != "cuda":
        return str(device)
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def this_machine() -> Machine:
    """The machine that this process runs on."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }


def machine_in_words(machine: Machine) -> str:
    """'CPU (AMD EPYC 7763, 2 cores)', or the GPU's name in the place of 'CPU'."""
    cores = "core" if machine["cores"] == 1 else "cores"
    on_cpu = f"{machine['processor']}, {machine['cores']} {cores}"
    return f"{machine['gpu']} ({on_cpu})" if machine.get("gpu") else f"CPU ({on_cpu})"
