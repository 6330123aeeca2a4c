"""Atomic writes and appends: a file is whole or as it was."""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from irl_core.errors import CheckpointError, StoreError


def _write_atomically(path: Path, write: Any) -> Any:
    """Call ``write`` with a temporary path beside ``path``, sync it and rename it; returns what ``write`` returned."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        result = write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise StoreError(f"{path.name}: not written: {reason}. What was written before is whole.") from error
    return result


MAX_LINE = 4000
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def not_written(name: str, error: OSError) -> CheckpointError:
    """The error of a file of the run that could not be written, with the mend."""
    reason = error.strerror or type(error).__name__
    return CheckpointError(
        f"{name} could not be written ({reason}); free space, or make the folder writable, and go on with --resume. "
        "What was written before is whole"
    )


def write_whole(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file atomically; ``durable`` also waits for the disk. Raises CheckpointError."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            if durable:
                os.fsync(target.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise not_written(path.name, error) from error


def append_lines(path: Path, text: str, *, durable: bool = True) -> None:
    """Append ``text``; where that fails nothing of it stays. Raises CheckpointError."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            _append_all(descriptor, data, durable)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise not_written(path.name, error) from error


def _append_all(descriptor: int, data: bytes, durable: bool) -> None:
    size = os.fstat(descriptor).st_size
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        if durable:
            os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):  # a device has no length to restore; the first error is the one to tell
            os.ftruncate(descriptor, size)
        raise


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def one_line(text: str) -> str:
    """A text fit to be shown, whatever an error's message or a row of data holds: one line of bounded length, without
    characters that steer a terminal."""
    line = " ".join(text.split())[:MAX_LINE]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
