"""Checkpoint directories, saved atomically: safetensors and JSON only.

A checkpoint is a directory with ``manifest.json`` (written last; the sha256 of every other file) and ``config.json``.
Saving writes ``<name>.new``, moves an earlier ``<name>`` to ``<name>.old``, moves the new one in, and removes the old
one: at every moment at least one whole directory exists, and ``find.newest_verified`` finds it. Nothing is ever
unpickled.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from irl_core.checkpoints.manifest import (
    CONFIG,
    FORMAT,
    MANIFEST,
    Manifest,
    check_config,
    check_file_name,
    failure,
    is_config,
)
from irl_core.errors import CheckpointError
from irl_core.files import now, sync

CHUNK_BYTES = 1 << 20
LEFTOVER_SUFFIXES = (".new", ".old")


def save_checkpoint(directory: Path, files: Mapping[str, Any], keep: int | None = None) -> Manifest:
    """Write a checkpoint atomically, replacing one of the same name, and return its manifest.

    Args:
        directory: where to.
        files: relative names, each with bytes, a ``Path`` to copy, tensors (``*.safetensors``) or a JSON object
            (``*.json``); ``config.json`` must be among them.
        keep: only the newest ``keep`` of a numbered family (``step-000100``, ``step-000200``, ...) stay.

    Raises:
        CheckpointError: it was not saved; the earlier checkpoint is untouched and nothing half-written is left. So too
            where another process is saving one of this name.
    """
    if keep is not None and keep < 1:
        raise CheckpointError(f"keep is {keep}; at least 1 checkpoint has to stay")
    check_names_to_save(directory.name, files)
    fresh, old = leftovers(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        settle_leftover(directory, fresh)
        with claimed(fresh, directory.name):
            manifest = write_tree(fresh, files)
            swap_in(directory, fresh, old)
    except OSError as error:
        reason, fix = error.strerror or type(error).__name__, "check that the folder exists and may be written to"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "the disk is full: free space or lower run.keep"
        raise CheckpointError(
            f"checkpoint {directory.name!r} was not saved ({reason}); {fix}, then resume. Earlier checkpoints are whole"
        ) from error
    if keep is not None:
        remove_older_siblings(directory, keep)
    return manifest


# -------------------------------------------------------------------------------------------- one save at a time


def settle_leftover(directory: Path, fresh: Path) -> None:
    """Finish a save that was killed between its two renames; remove what another killed one has left.

    Raises:
        CheckpointError: another process is saving just now.
    """
    if not fresh.exists():
        return
    with locked(fresh, directory.name):
        if not directory.exists() and failure(fresh) is None:
            os.replace(fresh, directory)
        else:
            shutil.rmtree(fresh)


@contextmanager
def claimed(fresh: Path, checkpoint: str) -> Iterator[None]:
    """Make the folder of a save, and hold its lock while the block runs; where that fails, the folder is removed.

    Raises:
        CheckpointError: another process has just made it.
    """
    try:
        fresh.mkdir()
    except FileExistsError:
        raise busy(checkpoint) from None
    with locked(fresh, checkpoint):
        try:
            yield
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise


@contextmanager
def locked(folder: Path, checkpoint: str) -> Iterator[None]:
    """Hold a folder's lock, which the system frees however this process ends. Raises CheckpointError where another
    process holds it, or has removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise busy(checkpoint) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise busy(checkpoint) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def busy(checkpoint: str) -> CheckpointError:
    """The error of a second process."""
    return CheckpointError(f"checkpoint {checkpoint!r} is being saved by another process; wait for it, then try again")


def check_names_to_save(checkpoint: str, files: Mapping[str, Any]) -> None:
    """Raise CheckpointError for names, or keys of configurations, that `verify` would refuse."""
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


# -------------------------------------------------------------------------------------------------- writing


def write_tree(root: Path, files: Mapping[str, Any]) -> Manifest:
    """Write the files into an empty directory, the manifest last, and wait until all of it is on the disk."""
    hashes = {}
    for name, content in sorted(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hashes[name] = write_hashed(path, chunks_of(name, content))
    manifest = Manifest(hashes, now())
    document = {"format": FORMAT, "files": manifest.files, "created": manifest.created}
    write_hashed(root / MANIFEST, chunks_of(MANIFEST, document))
    for folder in [*(path for path in root.rglob("*") if path.is_dir()), root]:
        sync(folder)
    return manifest


def chunks_of(name: str, content: Any) -> Iterator[bytes]:
    """The bytes of a file to save, a chunk at a time. Raises CheckpointError for what a checkpoint cannot hold."""
    if isinstance(content, Path):
        with content.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield chunk
    elif isinstance(content, bytes):
        yield content
    elif name.endswith(".safetensors") and isinstance(content, Mapping):
        from safetensors.torch import save

        try:
            tensors = {key: value.detach().contiguous() for key, value in content.items()}
            yield save(tensors, metadata={"format": "pt"})
        except (RuntimeError, AttributeError) as error:
            raise CheckpointError(f"{name}: cannot be saved ({error}); clone tensors that share memory") from error
    elif name.endswith(".json"):
        try:
            yield (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{name}: is not JSON ({error})") from error
    else:
        raise CheckpointError(f"{name}: cannot write {type(content).__name__}; give bytes, a Path, tensors or JSON")


def write_hashed(path: Path, chunks: Iterable[bytes]) -> str:
    """Write a new file, wait until it is on the disk, and return its sha256."""
    digest = hashlib.sha256()
    with path.open("xb") as target:
        for chunk in chunks:
            target.write(chunk)
            digest.update(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def swap_in(directory: Path, fresh: Path, old: Path) -> None:
    """Rename ``fresh`` to ``directory``; an earlier one waits as ``old`` until that is done."""
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


# ------------------------------------------------------------------------------------------------- siblings


def leftovers(directory: Path) -> tuple[Path, Path]:
    """What an interrupted save may leave beside a checkpoint: ``<name>.new`` and ``<name>.old``."""
    fresh, old = (directory.with_name(directory.name + suffix) for suffix in LEFTOVER_SUFFIXES)
    return fresh, old


def numbered_family(name: str) -> tuple[str, int | None]:
    """``step-000120`` -> (``step-``, 120); ``best`` -> (``best``, None); ``.new`` and ``.old`` do not count."""
    for suffix in LEFTOVER_SUFFIXES:
        name = name.removesuffix(suffix)
    match = re.fullmatch(r"(.*?)(\d{1,18})", name)
    return (match[1], int(match[2])) if match else (name, None)


def remove_older_siblings(directory: Path, keep: int) -> None:
    """Remove all but the newest ``keep`` of a numbered family, and what interrupted saves of it left."""
    family, number = numbered_family(directory.name)
    if number is None:
        return
    siblings: dict[Path, int] = {}
    for path in directory.parent.iterdir():
        name, number = numbered_family(path.name)
        if name == family and number is not None and path.is_dir() and not path.is_symlink():
            siblings[path] = number
    whole = [path for path in siblings if not path.name.endswith(LEFTOVER_SUFFIXES)]
    kept = {directory, *sorted(whole, key=siblings.__getitem__)[-keep:]}
    for path in siblings.keys() - kept:
        if path.name.endswith(LEFTOVER_SUFFIXES):
            shutil.rmtree(path)
        elif (path / MANIFEST).is_file():
            # renamed first, so that a half-removed directory is never taken for a checkpoint
            old = leftovers(path)[1]
            shutil.rmtree(old, ignore_errors=True)
            os.replace(path, old)
            shutil.rmtree(old)
