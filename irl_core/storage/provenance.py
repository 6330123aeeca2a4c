"""What a run was made with: code, data and versions, so that its numbers can be made again."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.files import now
from irl_core.types import Trace

PACKAGES = ("irl-lens", "torch", "transformers", "tokenizers", "peft", "accelerate", "bitsandbytes", "unsloth")
REPOSITORY = Path(__file__).resolve().parents[2]


def provenance(config: TrainConfig, traces: Sequence[Trace], device: str, world: World) -> dict[str, Any]:
    """The document of ``provenance.json``."""
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


def command_line() -> str:
    """The command as it was given, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def data_hash(traces: Sequence[Trace]) -> str:
    """sha256 of the traces as they were read, in order: problem, solution, right answer."""
    digest = hashlib.sha256()
    for trace in traces:
        digest.update(json.dumps([trace.problem, trace.text, trace.reference_answer]).encode() + b"\n")
    return digest.hexdigest()


def code_state(folder: Path = REPOSITORY) -> dict[str, Any]:
    """The commit of the code, and whether tracked files differ from it; both None where it is not a git checkout."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != folder.resolve():  # a checkout around an installed copy is not its own
        return {"commit": None, "dirty": None}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(folder, "rev-parse", "HEAD"), "dirty": None if changes is None else changes != ""}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that decide what a run computes; None where one is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def device_name(device: Any) -> str:
    """A torch device in words: ``cuda:0 (NVIDIA A100)``."""
    if device.type != "cuda":
        return str(device)
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What a run is resumed with that it was not started with: exactly the same results are then not certain."""
    found = []
    for name, value in after["versions"].items():
        if (old := before.get("versions", {}).get(name)) != value:
            found.append(f"{name} was {old} and is {value}")
    for name in ("commit", "dirty"):
        if (old := before.get("code", {}).get(name)) != (new := after["code"][name]):
            found.append(f"the code's {name} was {old} and is {new}")
    for name in ("device", "processes"):
        if before.get(name) != after[name]:
            found.append(f"{name} was {before.get(name)} and is {after[name]}")
    return found
