"""Checkpoint directories: saved atomically, verified before use, safetensors and JSON only.

A checkpoint is a directory with ``manifest.json`` (written last; the sha256 of every other file) and ``config.json``.
Saving writes ``<name>.new``, moves an earlier ``<name>`` to ``<name>.old``, moves the new one in, and removes the old
one: at every moment at least one whole directory exists, and ``newest_verified`` finds it. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irl_core.checkpoints.manifest import (
    CONFIG,
    FORMAT,
    MANIFEST,
    Manifest,
    check_config,
    check_file_name,
    check_safetensors,
    failure,
    is_config,
    read_json,
    verify,
)
from irl_core.errors import CheckpointError
from irl_core.files import sync

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "Manifest",
    "default_roots",
    "list_checkpoints",
    "load_json",
    "load_tensors",
    "newest_verified",
    "resolve_checkpoint",
    "save_checkpoint",
    "verify",
]

CHUNK_BYTES = 1 << 20
LEFTOVER_SUFFIXES = (".new", ".old")
ROOTS_VARIABLE = "IRL_LENS_CHECKPOINTS"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint in a list: ``name`` is what ``resolve_checkpoint`` takes; ``reason`` says why not ``verified``."""

    name: str
    path: Path
    verified: bool
    reason: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


# ---------------------------------------------------------------------------------------------------- saving


def save_checkpoint(directory: Path, files: Mapping[str, Any], keep: int | None = None) -> Manifest:
    """Write a checkpoint atomically, replacing one of the same name, and return its manifest.

    ``files`` maps relative names to bytes, a ``Path`` to copy, tensors (``*.safetensors``) or JSON objects
    (``*.json``); ``config.json`` must be among them. With ``keep``, only the newest ``keep`` siblings of the same
    numbered family (``step-000100``, ``step-000200``, ...) stay. Raises CheckpointError; the earlier checkpoint is
    then untouched and nothing half-written is left.
    """
    if keep is not None and keep < 1:
        raise CheckpointError(f"keep is {keep}; at least 1 checkpoint has to stay")
    _check_names_to_save(directory.name, files)
    fresh, old = _leftovers(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _finish_interrupted(directory)
        manifest = _write_tree(fresh, files)
        _swap_in(directory, fresh, old)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError):
            raise _save_error(directory.name, error) from error
        raise
    if keep is not None:
        _prune(directory, keep)
    return manifest


def _leftovers(directory: Path) -> tuple[Path, Path]:
    fresh, old = (directory.with_name(directory.name + suffix) for suffix in LEFTOVER_SUFFIXES)
    return fresh, old


def _check_names_to_save(checkpoint: str, files: Mapping[str, Any]) -> None:
    if checkpoint.endswith(LEFTOVER_SUFFIXES):
        raise CheckpointError(f"the name {checkpoint!r} ends like a half-finished save; choose another")
    for name, content in files.items():
        check_file_name(name)
        if is_config(name) and isinstance(content, Mapping):
            check_config(name, content)
    if MANIFEST in files:
        raise CheckpointError(f"{MANIFEST} is written by the save itself; leave it out of the files")
    if not isinstance(files.get(CONFIG), Mapping):
        raise CheckpointError(f"{CONFIG} is missing; a checkpoint needs it as a JSON object")


def _write_tree(root: Path, files: Mapping[str, Any]) -> Manifest:
    root.mkdir()
    hashes = {}
    for name, content in sorted(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hashes[name] = _write_file(path, _chunks(name, content))
    manifest = Manifest(hashes, datetime.now(UTC).isoformat(timespec="seconds"))
    document = {"format": FORMAT, "files": manifest.files, "created": manifest.created}
    _write_file(root / MANIFEST, [_json_bytes(MANIFEST, document)])
    for folder in [*(path for path in root.rglob("*") if path.is_dir()), root]:
        sync(folder)
    return manifest


def _chunks(name: str, content: Any) -> Iterator[bytes]:
    if isinstance(content, Path):
        with content.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk
    elif isinstance(content, bytes):
        yield content
    elif name.endswith(".safetensors") and isinstance(content, Mapping):
        yield _tensor_bytes(name, content)
    elif name.endswith(".json"):
        yield _json_bytes(name, content)
    else:
        raise CheckpointError(f"{name}: cannot write {type(content).__name__}; give bytes, a Path, tensors or JSON")


def _tensor_bytes(name: str, tensors: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    try:
        return save({key: value.detach().contiguous() for key, value in tensors.items()}, metadata={"format": "pt"})
    except (RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{name}: cannot be saved ({error}); clone tensors that share memory") from error


def _json_bytes(name: str, document: Any) -> bytes:
    try:
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{name}: is not JSON ({error})") from error


def _write_file(path: Path, chunks: Iterator[bytes] | list[bytes]) -> str:
    digest = hashlib.sha256()
    with path.open("xb") as target:
        for chunk in chunks:
            target.write(chunk)
            digest.update(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _finish_interrupted(directory: Path) -> None:
    """Complete a save that was killed between its two renames, and drop a half-written ``.new``."""
    fresh, _ = _leftovers(directory)
    if not directory.exists() and failure(fresh) is None:
        os.replace(fresh, directory)
    elif fresh.exists():
        shutil.rmtree(fresh)


def _swap_in(directory: Path, fresh: Path, old: Path) -> None:
    replaced = directory.exists()
    if replaced:
        if old.exists():
            shutil.rmtree(old)
        os.replace(directory, old)
    try:
        os.replace(fresh, directory)
    except OSError:
        if replaced:
            os.replace(old, directory)
        raise
    sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def _save_error(name: str, error: OSError) -> CheckpointError:
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        mend = "the disk is full: free space or lower run.keep, then resume"
    else:
        mend = "check that the folder exists and may be written to, then resume"
    return CheckpointError(f"checkpoint {name!r} was not saved ({reason}); {mend}. Earlier checkpoints are whole")


def _prune(directory: Path, keep: int) -> None:
    """Remove the older siblings of a numbered family, and what interrupted saves of it left behind."""
    family, number = _family(directory.name)
    if number is None:
        return
    siblings = [path for path in directory.parent.iterdir() if path.is_dir() and not path.is_symlink()]
    numbered = {path: _family(path.name)[1] for path in siblings if _family(path.name)[0] == family}
    whole = [path for path in numbered if not path.name.endswith(LEFTOVER_SUFFIXES)]
    kept = {directory, *sorted(whole, key=lambda path: numbered[path] or 0)[-keep:]}
    for path in set(numbered) - kept:
        if numbered[path] is not None and (path.name.endswith(LEFTOVER_SUFFIXES) or (path / MANIFEST).is_file()):
            _remove(path)


def _remove(path: Path) -> None:
    """Rename first, so that a half-removed directory is never taken for a checkpoint."""
    target = path if path.name.endswith(LEFTOVER_SUFFIXES) else _leftovers(path)[1]
    if target != path:
        shutil.rmtree(target, ignore_errors=True)
        os.replace(path, target)
    shutil.rmtree(target)


def _family(name: str) -> tuple[str, int | None]:
    """``step-000120`` -> (``step-``, 120); ``best`` -> (``best``, None); ``.new`` and ``.old`` do not count."""
    for suffix in LEFTOVER_SUFFIXES:
        name = name.removesuffix(suffix)
    match = re.fullmatch(r"(.*?)(\d{1,18})", name)
    return (match[1], int(match[2])) if match else (name, None)


# --------------------------------------------------------------------------------------------------- finding


def default_roots(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The folders that checkpoints may lie in: the bundled ``assets``, ``./runs``, and IRL_LENS_CHECKPOINTS."""
    bundled = Path(__file__).resolve().parents[2] / "assets"
    named = (Path(part) for part in environ.get(ROOTS_VARIABLE, "").split(os.pathsep) if part)
    return (bundled, Path("runs"), *named)


def resolve_checkpoint(name_or_path: str | Path, roots: Sequence[Path]) -> Path:
    """The resolved directory of a checkpoint given by its name under a root, or by a path inside one.

    Raises CheckpointError (without echoing what was asked for) for NUL, ``..``, a place outside the roots also
    through symbolic links, and where no checkpoint is.
    """
    asked = str(name_or_path)
    if not asked or "\x00" in asked or ".." in re.split(r"[/\\]", asked):
        raise CheckpointError("the checkpoint's name is empty or leads elsewhere ('..', NUL); refused")
    allowed = [root.resolve() for root in roots]
    outside = Path(asked).is_absolute()
    for candidate in _candidates(asked, roots):
        try:
            resolved = candidate.resolve()
            found = (resolved / MANIFEST).is_file()
        except (OSError, RuntimeError, ValueError):
            continue
        if not any(resolved.is_relative_to(root) for root in allowed):
            outside = outside or candidate.exists()
        elif found:
            return resolved
    if outside:
        raise CheckpointError(
            f"the checkpoint lies outside the allowed folders; move it, or name its in {ROOTS_VARIABLE}"
        )
    known = [name for name, _ in _find(roots)][:8]
    raise CheckpointError(f"no checkpoint of that name; there are: {', '.join(known) or 'none'}; or give its folder")


def _candidates(asked: str, roots: Sequence[Path]) -> Iterator[Path]:
    if Path(asked).is_absolute():
        yield Path(asked)
        return
    for root in roots:
        yield root / asked
        if root.resolve().name == asked:
            yield root
    yield Path(asked)


def list_checkpoints(roots: Sequence[Path], *, hashes: bool = True) -> list[CheckpointInfo]:
    """Every checkpoint under the roots (three folders deep), each verified or with the reason why not."""
    return [_info(name, path, hashes) for name, path in _find(roots)]


def _info(name: str, path: Path, hashes: bool) -> CheckpointInfo:
    reason = failure(path, hashes=hashes)
    config: dict[str, Any] = {}
    if reason is None:
        config = read_json(CONFIG, path / CONFIG)
    provenance = config.get("provenance")
    return CheckpointInfo(
        name, path, reason is None, reason or "", provenance if isinstance(provenance, dict) else {}, config
    )


def _find(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
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


def newest_verified(run_dir: Path) -> tuple[Path, list[str]]:
    """The newest whole checkpoint of a run, and a line for each one passed over (its name and the reason).

    Looks in ``run_dir/checkpoints`` where that exists, else in ``run_dir``; newest is the highest number in the
    name. A whole ``.new`` or ``.old`` counts where an interrupted save left nothing better under the proper name.
    Raises CheckpointError where there is none.
    """
    folder = run_dir / "checkpoints" if (run_dir / "checkpoints").is_dir() else run_dir
    passed_over: list[str] = []
    for path in sorted(_saved(folder), key=_age):
        reason = failure(path)
        if reason is None:
            return path, passed_over + _unfinished(path)
        passed_over.append(f"{path.name}: {reason}")
    details = "; ".join(passed_over) or "there are none"
    raise CheckpointError(f"no whole checkpoint to resume from ({details}); start the run anew")


def _saved(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            looks_saved = path.name.endswith(LEFTOVER_SUFFIXES) or _family(path.name)[1] is not None
            if path.is_dir() and (looks_saved or (path / MANIFEST).is_file()):
                yield path


def _age(path: Path) -> tuple[bool, int, float, int]:
    """Sort key, newest first: numbered before others, then the time; the proper name before .new before .old."""
    number = _family(path.name)[1]
    rank = next((place for place, suffix in enumerate(LEFTOVER_SUFFIXES, 1) if path.name.endswith(suffix)), 0)
    time = path.stat().st_mtime if number is None and rank == 0 else 0.0
    return number is None, -(number or 0), -time, rank


def _unfinished(path: Path) -> list[str]:
    """Lines for what an interrupted save of this same checkpoint left beside it."""
    if path.name.endswith(LEFTOVER_SUFFIXES):
        return []
    return [f"{extra.name}: left by an interrupted save; ignored" for extra in _leftovers(path) if extra.exists()]


# --------------------------------------------------------------------------------------------------- loading


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError for any other or a damaged file."""
    if path.suffix != ".safetensors" or path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path.name}: is not a plain safetensors file; only those are loaded")
    check_safetensors(path.name, path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path.name}: not readable as safetensors ({error})") from error


def load_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 100 MB. Raises CheckpointError where it is missing or something else."""
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{path.name}: is missing or not a plain file")
    return read_json(path.name, path)
