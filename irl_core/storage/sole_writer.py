"""One writer at a time: a lock that the operating system frees however its holder ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from irl_core.errors import StoreError, UserError
from irl_core.files import escaped

LOCK = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF)  # of a file system that has none


@contextlib.contextmanager
def sole_writer(folder: Path, what: str, error: type[UserError] = StoreError) -> Iterator[None]:
    """Hold the lock of a folder while the block runs; a second process is refused, not made to wait.

    Args:
        folder: made where it is missing; removed at the end if nothing is left in it.
        what: the name of what is written, for the message.
        error: the kind of error for a second process.

    Raises:
        error: another process holds the lock.
        StoreError: the folder cannot be made or written.
    """
    lock = folder / LOCK
    with contextlib.ExitStack() as held:
        held.callback(remove_empty, folder)
        try:
            descriptor = locked_file(lock)
            if descriptor is not None:
                held.callback(os.close, descriptor)
                held.callback(lock.unlink, missing_ok=True)  # before it is freed: who waits for it sees it is gone
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError as failure:
            where, reason = escaped(str(folder)), failure.strerror or type(failure).__name__
            raise StoreError(f"{where} cannot be made or written ({reason}); name another --out") from failure
        if descriptor is None:
            holder = ""
            with contextlib.suppress(OSError):  # it ends just now
                holder = lock.read_text(errors="replace")[:20].strip()
            raise error(f"{what} is being written by process {holder or '?'}; wait for it, or end it with SIGTERM")
        yield


def remove_empty(folder: Path) -> None:
    """Remove a folder, where nothing is in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def locked_file(lock: Path) -> int | None:
    """The descriptor of the lock file, made and locked; None where another process holds it."""
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            if not lock.parent.parent.exists():
                raise
            continue  # the one before has just removed the folder
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as failure:
            if failure.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
        with contextlib.suppress(FileNotFoundError):
            if os.stat(lock).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # the one before has removed the file while this one waited for it
