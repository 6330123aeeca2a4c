"""Verification of a checkpoint directory: its manifest, its files, its configuration. Loads nothing itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from irl_core.errors import CheckpointError

FORMAT = 1
MANIFEST = "manifest.json"
CONFIG = "config.json"
CODE_KEYS = frozenset(("auto_map", "custom_pipelines"))
ALLOWED_SUFFIXES = frozenset((".safetensors", ".json", ".jsonl", ".txt", ".md", ".jinja", ".model"))
PICKLE_SUFFIXES = frozenset((".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib"))
MAX_HEADER_BYTES = 100_000_000
MAX_JSON_BYTES = 100_000_000
MAX_FILE_BYTES = 200_000_000_000
MAX_FILES = 2_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a checkpoint, relative path to sha256 in hexadecimal, and when it was written (ISO 8601, UTC)."""

    files: dict[str, str]
    created: str


def verify(directory: Path, *, hashes: bool = True) -> Manifest:
    """Return the manifest of a checkpoint that may be loaded; read no file further than its checks need.

    ``hashes=False`` leaves out the sha256 of the contents, for lists.

    Raises:
        CheckpointError: files missing, extra, of another hash, truncated, too large, symbolic links, pickles, a
            configuration with ``auto_map`` or an unknown key; with the file's name relative to the checkpoint.
    """
    manifest = read_manifest(directory)
    files = dict(files_in(directory))
    files.pop(MANIFEST, None)
    for name in sorted(files.keys() - manifest.files.keys()):
        check_file_name(name)
        raise CheckpointError(f"{name!r} is not in the manifest; remove it, or save the checkpoint anew")
    for name in sorted(manifest.files.keys() - files.keys()):
        raise CheckpointError(f"{name} is missing; copy the checkpoint anew, whole")
    for name, path in files.items():
        check_size(name, path)
        if name.endswith(".safetensors"):
            check_safetensors(name, path)
        if hashes:
            with path.open("rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
            if digest != manifest.files[name]:
                raise CheckpointError(f"{name}: its sha256 is not the manifest's; changed or damaged, copy it anew")
        if is_config(name):
            check_config(name, read_json(name, path))
    if CONFIG not in files:
        raise CheckpointError(f"{CONFIG} is missing; this is not a whole checkpoint")
    return manifest


def failure(directory: Path, *, hashes: bool = True) -> str | None:
    """Why ``directory`` is no verified checkpoint, or None where it is one."""
    try:
        verify(directory, hashes=hashes)
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"not readable ({error.strerror})"
    return None


def read_manifest(directory: Path) -> Manifest:
    """The manifest, its file names and hashes checked. Raises CheckpointError."""
    path = directory / MANIFEST
    if directory.is_symlink() or path.is_symlink():
        raise CheckpointError(f"{MANIFEST}: lies behind a symbolic link; copy the checkpoint instead")
    if not path.is_file():
        raise CheckpointError(f"{MANIFEST} is missing; the save did not finish, or this is not a checkpoint")
    document = read_json(MANIFEST, path)
    check_format(MANIFEST, document)
    files = document.get("files")
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise CheckpointError(f"{MANIFEST}: 'files' must map at most {MAX_FILES} names to sha256 sums")
    for name, digest in files.items():
        check_file_name(name)
        if not (isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)):
            raise CheckpointError(f"{MANIFEST}: {name} has no sha256 of 64 hexadecimal digits")
    return Manifest(files, str(document.get("created", "")))


def files_in(directory: Path) -> Iterator[tuple[str, Path]]:
    """Relative name and path of every file in a directory. Raises CheckpointError for links and special files."""
    count = 0
    for folder, subfolders, names in os.walk(directory, followlinks=False):
        for name in (*subfolders, *names):
            path = Path(folder, name)
            relative = path.relative_to(directory).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise CheckpointError(f"{relative!r} is a symbolic link; a checkpoint holds plain files only")
            if stat.S_ISREG(mode):
                yield relative, path
            elif not stat.S_ISDIR(mode):
                raise CheckpointError(f"{relative!r} is neither a file nor a folder; remove it")
            count += 1
            if count > 2 * MAX_FILES:
                raise CheckpointError(f"more than {2 * MAX_FILES} entries; this is not a checkpoint")


def check_file_name(name: str) -> None:
    """Raise for a name that could leave the checkpoint (not echoed) or that may not be in one (named)."""
    parts = PurePosixPath(name).parts
    inside = bool(parts) and not name.startswith("/") and ".." not in parts and PurePosixPath(name).as_posix() == name
    if not inside or re.search(r"[\x00-\x1f\\:]", name):
        raise CheckpointError("a file name in the checkpoint leads outside it or holds control characters; refused")
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise CheckpointError(f"{name}: pickled weights can run code and are refused; convert them to safetensors")
    if suffix not in ALLOWED_SUFFIXES:
        raise CheckpointError(f"{name}: only {', '.join(sorted(ALLOWED_SUFFIXES))} may be in a checkpoint")


def check_size(name: str, path: Path) -> None:
    """Raise CheckpointError for a file over the limit of its kind."""
    limit = MAX_FILE_BYTES if name.endswith(".safetensors") else MAX_JSON_BYTES
    size = path.stat().st_size
    if size > limit:
        raise CheckpointError(f"{name}: {size:,} bytes; the limit is {limit:,}")


def check_safetensors(name: str, path: Path) -> None:
    """Check the header's length and that its tensors fill the file exactly, without reading them."""
    size = path.stat().st_size
    with path.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{name}: header of {length:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
        if size < 8 + length or size < 10:
            raise CheckpointError(f"{name}: truncated at {size:,} bytes, inside its header; copy it anew")
        header = parse_json(name, source.read(length))
    spans = []
    for key, entry in header.items():
        if key != "__metadata__":
            offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
            if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(value) is int for value in offsets)):
                raise CheckpointError(f"{name}: not a safetensors header; refused")
            spans.append((offsets[0], offsets[1]))
    position = 0
    for start, end in sorted(spans):
        if start != position or end < start:
            raise CheckpointError(f"{name}: its tensors overlap or leave a gap at byte {position:,}; refused")
        position = end
    if 8 + length + position != size:
        raise CheckpointError(f"{name}: {size:,} bytes, its header says {8 + length + position:,}; truncated or padded")


def is_config(name: str) -> bool:
    """Whether a library would read this file as a configuration (``config.json``, ``tokenizer_config.json``, ...)."""
    return name.endswith(".json") and "config" in PurePosixPath(name).name


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """Refuse keys that name code in any configuration; in the checkpoint's own, check every key and value."""
    for key in keys_at_any_depth(config):
        if key in CODE_KEYS:
            raise CheckpointError(f"{name}: the key {key!r} would load code from the checkpoint; refused")
    if name != CONFIG:
        return
    check_format(name, config)
    from irl_core.checkpoints.description import check_description  # pydantic, which no --help waits for

    check_description(name, config)


def check_format(name: str, document: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a document of another format than this program's."""
    if document.get("format") != FORMAT:
        raise CheckpointError(f"{name}: format {str(document.get('format'))[:20]}; this version reads format {FORMAT}")


def keys_at_any_depth(document: Any) -> Iterator[str]:
    """Every key of a JSON document (iterative: a deep document must not exhaust the stack)."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            yield from value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def read_json(name: str, path: Path) -> dict[str, Any]:
    """The JSON object in a file within the size limit, called ``name`` in errors."""
    check_size(name, path)
    return parse_json(name, path.read_bytes())


def parse_json(name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, called ``name`` in errors. Raises CheckpointError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name}: not readable as JSON ({type(error).__name__}); copy it anew") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{name}: holds {type(document).__name__}; a JSON object is needed")
    return document
