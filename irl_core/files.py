"""Atomic writes and appends: after a crash or on a full disk, a file is whole or as it was before."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from irl_core.errors import CheckpointError, UserError

MAX_LINE = 4000
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def not_written(name: str, failure: OSError, kind: type[UserError] = CheckpointError) -> UserError:
    """An error of the given kind for a file or folder that could not be written, with the reason and the fix."""
    reason = failure.strerror or type(failure).__name__
    return kind(
        f"{name} could not be written ({reason}); free space, or make the folder writable, and go on with --resume. "
        "What was written before is whole"
    )


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_replacement(
    path: Path,
    *,
    durable: bool = True,
    error: type[UserError] = CheckpointError,
    temporary: Path | None = None,
) -> Iterator[Path]:
    """A temporary path to write to, renamed to ``path`` when the block ends and removed when it fails.

    Args:
        path: the file to create or replace; its folder exists.
        durable: sync the new file before the rename.
        error: the kind of `UserError` that an `OSError` becomes.
        temporary: the path to write to, on the same file system. [default: ``path`` with ``.tmp`` behind it]

    Raises:
        error: the file could not be written; an earlier one is untouched.
    """
    temporary = path.with_name(f"{path.name}.tmp") if temporary is None else temporary
    try:
        yield temporary
        if durable:
            sync(temporary)
        os.replace(temporary, path)
    except BaseException as failure:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        if isinstance(failure, OSError):
            raise not_written(path.name, failure, error) from failure
        raise


def write_whole(path: Path, text: str, *, durable: bool = True, error: type[UserError] = CheckpointError) -> None:
    """Create or replace a text file (UTF-8) atomically; arguments and errors as for `atomic_replacement`."""
    with atomic_replacement(path, durable=durable, error=error) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append_lines(path: Path, text: str, *, durable: bool = True) -> None:
    """Append ``text`` to a file; where that fails, nothing of it stays.

    Raises:
        CheckpointError: the file could not be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            try:
                while data:
                    data = data[os.write(descriptor, data) :]
                if durable:
                    os.fsync(descriptor)
            except OSError:
                with contextlib.suppress(OSError):  # a device has no length to restore; report the first error
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise not_written(path.name, failure) from failure


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def escaped(text: str) -> str:
    """The text with every lone surrogate, which UTF-8 cannot write, as its escape sequence."""
    return text.encode("utf-8", "backslashreplace").decode()


def one_line(text: str) -> str:
    """Any text as one line of at most ``MAX_LINE`` characters, terminal control characters escaped."""
    line = " ".join(text.split())[:MAX_LINE]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
