"""What a scoring may write: never its own input, and no file of another kind or input without being told to."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path

from irl_core.data.sources import open_source
from irl_core.errors import InputError, StoreError
from irl_core.files import escaped, one_line
from irl_core.storage.provenance import source_hash
from irl_core.storage.schema import RefusedRow
from irl_core.storage.scored_run import errors_path, read_provenance

COMMAND = "irl-lens score"


def check_target(source: Path, out: Path, *, force: bool) -> None:
    """Refuse to write over anything but a scored run of the same input and its refused rows.

    Args:
        source: the input, which is never written over.
        out: the scored run to write.
        force: write over other files too.

    Raises:
        InputError: ``out``, or the file of refused rows beside it, is the input or no plain file.
        StoreError: it is a file of another kind, or a run of another input, and ``force`` is not set.
    """
    told, files = errors_path(out), open_source(source).files
    names = {escaped(name) for name in (source.name, *(file.name for file in files))}
    try:
        if escaped(out.name) != out.name:
            raise InputError(f"{escaped(out.name)}: the name is not UTF-8; name another file with --out.")
        for path in (out, told):
            if path.exists() and any(path.samefile(file) for file in files):
                which = "" if path == out else f", where the refused rows of {out.name} go"
                raise InputError(f"{escaped(str(path))} is the input itself{which}; name another file with --out.")
            if os.path.lexists(path) and not path.is_file():
                kind = "a folder" if path.is_dir() else "no plain file"
                raise InputError(f"{escaped(str(path))} is {kind}; name another file with --out.")
        if force:
            return
        if replaceable := out.exists():
            check_same_input(source, out)
        if told.exists() and not are_refused_rows(told, names, named=not replaceable):
            raise StoreError(
                f"{escaped(str(told))} is there and does not hold the refused rows of {escaped(source.name)}, which "
                "would replace it; name another --out, or replace it with --force"
            )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"{escaped(str(out))} cannot be written ({reason}); name another --out") from error


def check_same_input(source: Path, out: Path) -> None:
    """Raise StoreError unless ``out`` is a run that this command scored of the same input."""
    what = "is there and is not a scored run"
    try:
        known = read_provenance(out)
    except StoreError:
        known = {}
    if known:
        what = "is a scored run of another command"
        if known.get("command") == COMMAND:
            what = f"is a scored run of another input, {one_line(str(known.get('input')))[:80]}"
            if known.get("input_sha256") == source_hash(open_source(source))[0]:
                return
    raise StoreError(f"{escaped(str(out))} {what}; name another --out, or replace it with --force")


def are_refused_rows(path: Path, names: Collection[str], *, named: bool) -> bool:
    """Whether a file holds refused rows of inputs of those names and nothing else; ``named``: each says so itself."""
    known = RefusedRow.__annotations__.keys()
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if not (isinstance(row, dict) and "message" in row and row.keys() <= known):
                    return False
                if row.get("file", None if named else next(iter(names))) not in names:
                    return False
    except (ValueError, RecursionError):
        return False
    return path.stat().st_size > 0
