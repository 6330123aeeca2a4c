"""Checkpoints on disk: by name under the allowed folders, all of them as a list, the newest whole one of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irl_core.checkpoints.manifest import CONFIG, MANIFEST, failure, read_json
from irl_core.checkpoints.save import LEFTOVER_SUFFIXES, leftovers, numbered_family
from irl_core.checkpoints.step_models import described, step_layout
from irl_core.errors import CheckpointError
from irl_core.home import runs_folder

ROOTS_VARIABLE = "IRL_LENS_CHECKPOINTS"
NAMES = {"anchored": "log-probability added after the training", "code_version": "version"}  # of a provenance


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint in a list: ``name`` is what ``resolve_checkpoint`` takes; ``reason`` says why not ``verified``."""

    name: str
    path: Path
    verified: bool
    reason: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> dict[str, str]:
        """Where it comes from, in words: the provenance by plain names; entries with several parts on one line."""
        return {NAMES.get(name, name): origin_words(value) for name, value in self.provenance.items()}


def origin_words(value: Any) -> str:
    """An entry of a provenance: as it is, or the entries within it, 'weight 0.5, date 2026-12-01'."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{NAMES.get(name, name)} {origin_words(one)}" for name, one in value.items())


def default_roots(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The folders that checkpoints may lie in: the bundled ``assets``, `runs_folder`, and IRL_LENS_CHECKPOINTS."""
    bundled = Path(__file__).resolve().parents[2] / "assets"
    named = (Path(part) for part in environ.get(ROOTS_VARIABLE, "").split(os.pathsep) if part)
    return (bundled, runs_folder(environ), *named)


def resolve_checkpoint(name_or_path: str | Path, roots: Sequence[Path]) -> Path:
    """The resolved directory of a checkpoint given by its name under a root, or by a path inside one.

    Raises:
        CheckpointError: NUL, ``..``, a place outside the roots also through symbolic links, or no checkpoint there. The
            message does not repeat what was asked for.
    """
    asked = str(name_or_path)
    if not asked or "\x00" in asked or ".." in re.split(r"[/\\]", asked):
        raise CheckpointError("the checkpoint's name is empty or leads elsewhere ('..', NUL); refused")
    allowed = [root.resolve() for root in roots]
    outside = Path(asked).is_absolute()
    candidates = [Path(asked)]
    if not outside:
        own_name = [root for root in roots if root.resolve().name == asked]
        candidates = [*(root / asked for root in roots), *own_name, *candidates]
    for candidate in candidates:
        try:
            resolved = candidate.resolve()
            is_checkpoint = (resolved / MANIFEST).is_file() or is_step_model(resolved)
        except (OSError, RuntimeError, ValueError):  # a name that no file can have, or a circle of links
            continue
        if not any(resolved.is_relative_to(root) for root in allowed):
            outside = outside or candidate.exists()
        elif is_checkpoint:
            return resolved
    if outside:
        raise CheckpointError(
            f"the checkpoint lies outside the allowed folders; move it, or name its folder in {ROOTS_VARIABLE}"
        )
    known = [name for name, _ in checkpoints_under(roots)][:8]
    raise CheckpointError(f"no checkpoint of that name; there are: {', '.join(known) or 'none'}; or give its folder")


def list_checkpoints(roots: Sequence[Path], *, hashes: bool = True) -> list[CheckpointInfo]:
    """Every checkpoint under the roots (three folders deep), each verified or with the reason why not; then the
    process-reward models of others, of which only headers were read."""
    listed = []
    for name, path in checkpoints_under(roots):
        reason = failure(path, hashes=hashes)
        config = read_json(CONFIG, path / CONFIG) if reason is None else {}
        provenance = config.get("provenance")
        known = provenance if isinstance(provenance, dict) else {}
        listed.append(CheckpointInfo(name, path, reason is None, reason or "", known, config))
    for name, path in step_models_under(roots):
        if (layout := step_layout(path)) is not None:
            said = described(path, layout)
            listed.append(CheckpointInfo(name, path, True, "", said["provenance"], said))
    return listed


def checkpoints_under(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Name and resolved path of every directory under the roots that has a manifest, each once."""
    seen: set[Path] = set()
    for root in roots:
        patterns = ("*/" * depth + MANIFEST for depth in range(4))
        for manifest in sorted(path for pattern in patterns for path in root.glob(pattern)):
            directory = manifest.parent
            name = directory.relative_to(root).as_posix() if directory != root else root.resolve().name
            resolved = directory.resolve()
            inside = resolved.is_relative_to(root.resolve())
            if inside and resolved not in seen and not name.endswith(LEFTOVER_SUFFIXES):
                seen.add(resolved)
                yield name, resolved


def is_step_model(folder: Path) -> bool:
    """Whether a folder holds a process-reward model of others."""
    try:
        return step_layout(folder) is not None
    except (CheckpointError, OSError, ValueError):
        return False


def step_models_under(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Name and resolved path of every process-reward model of others under the roots, outside of checkpoints."""
    for root in roots:
        patterns = ("*/" * depth + CONFIG for depth in range(1, 4))
        for config in sorted(path for pattern in patterns for path in root.glob(pattern)):
            folder = config.parent.resolve()
            inside = folder.is_relative_to(root.resolve())
            within = any((above / MANIFEST).is_file() for above in (folder, folder.parent, folder.parent.parent))
            if inside and not within and is_step_model(folder):
                yield config.parent.relative_to(root).as_posix(), folder


def newest_verified(run_dir: Path) -> tuple[Path, list[str]]:
    """The newest whole checkpoint of a training run, and a line for each one passed over (its name and the reason).

    Looks in ``run_dir/checkpoints`` where that exists, else in ``run_dir``; newest is the highest number in the
    name. A whole ``.new`` or ``.old`` counts where an interrupted save left nothing better under the proper name.

    Raises:
        CheckpointError: there is none.
    """
    folder = run_dir / "checkpoints" if (run_dir / "checkpoints").is_dir() else run_dir
    passed_over: list[str] = []
    for path in newest_first(folder):
        reason = failure(path)
        if reason is None:
            if not path.name.endswith(LEFTOVER_SUFFIXES):
                beside = [left for left in leftovers(path) if left.exists()]
                passed_over += [f"{left.name}: left by an interrupted save; ignored" for left in beside]
            return path, passed_over
        passed_over.append(f"{path.name}: {reason}")
    details = "; ".join(passed_over) or "there are none"
    raise CheckpointError(f"no whole checkpoint to resume from ({details}); start the run anew")


def newest_first(folder: Path) -> list[Path]:
    """The directories in a folder that a save has left, whole or not: numbered ones before others, then by time; of
    one checkpoint the proper name before ``.new`` before ``.old``."""

    def age(path: Path) -> tuple[bool, int, float, int]:
        number = numbered_family(path.name)[1]
        rank = next((place for place, suffix in enumerate(LEFTOVER_SUFFIXES, 1) if path.name.endswith(suffix)), 0)
        time = path.stat().st_mtime if number is None and rank == 0 else 0.0
        return number is None, -(number or 0), -time, rank

    saved = []
    for path in folder.iterdir() if folder.is_dir() else ():
        named_so = path.name.endswith(LEFTOVER_SUFFIXES) or numbered_family(path.name)[1] is not None
        if path.is_dir() and (named_so or (path / MANIFEST).is_file()):
            saved.append(path)
    return sorted(saved, key=age)
