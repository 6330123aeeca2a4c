"""A file from the web by its address: verified, and continued where an earlier download of it stopped."""

from __future__ import annotations

import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from irl_core.errors import CheckpointError
from irl_core.models.gguf import OnProgress, sha256_of, silent

BLOCK = 2**18
TIMEOUT = 60.0  # seconds without a byte


def download(address: str, path: Path, sha256: str, on_progress: OnProgress = silent) -> None:
    """Make ``path`` the file at an address; what came of it is kept beside it, as ``<name>.part``, until it is whole.

    The certificates are those of the system (or of ``SSL_CERT_FILE``), the proxy that of the environment.

    Raises:
        CheckpointError: it could not be downloaded, or is another file than the hash says; the latter is removed.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        receive(address, part, on_progress)
    except (OSError, HTTPException, ValueError) as error:  # urllib's and http.client's own, and an address that is none
        kept = f"; {part.stat().st_size:,} bytes are kept, and the next try goes on there" if part.exists() else ""
        raise CheckpointError(f"{path.name} could not be downloaded ({error}){kept}") from error
    found = sha256_of(part, on_progress)
    if found != sha256:
        part.unlink()
        raise CheckpointError(
            f"{path.name} that came has the sha256 {found[:12]}..., and {sha256[:12]}... is expected; it was removed"
        )
    part.replace(path)


def receive(address: str, part: Path, on_progress: OnProgress) -> None:
    """Append to ``part`` what it lacks; a server that cannot go on in the middle sends all of it anew."""
    begun = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={begun}-"} if begun else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if (
            begun and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        ):  # it is whole, or another: the hash tells
            return
        raise
    with answer:
        continued = getattr(answer, "status", None) == HTTPStatus.PARTIAL_CONTENT
        done = begun if continued else 0
        total = done + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if continued else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                on_progress("downloading", done, max(total, done))
    if done < total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
