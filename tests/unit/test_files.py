"""Atomic replacement of a file: whole or as it was, with an error of the caller's kind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from irl_core.errors import CheckpointError, StoreError, UserError
from irl_core.files import atomic_replacement, not_written, write_whole


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    with atomic_replacement(path) as temporary:
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [RuntimeError("stop"), KeyboardInterrupt()])
def test_a_block_that_fails_leaves_the_earlier_file(tmp_path: Path, stop: BaseException) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"old")
    with pytest.raises(type(stop)), atomic_replacement(path) as temporary:
        temporary.write_bytes(b"new")
        raise stop
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [CheckpointError, StoreError])
def test_an_error_of_the_disk_is_of_the_callers_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[UserError]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "a.json"
    with pytest.raises(kind, match=r"a\.json could not be written \(No space left on device\); free space") as caught:
        write_whole(path, "text", error=kind)
    assert type(caught.value) is kind and list(tmp_path.iterdir()) == []
    write_whole(path, "text", durable=False)  # never syncs
    assert path.read_text() == "text"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a\.json could not be written \(No such file or directory\)"):
        write_whole(tmp_path / "none" / "a.json", "text", error=StoreError)


def test_an_error_without_words_is_named_by_its_class() -> None:
    assert str(not_written("a.json", TimeoutError())).startswith("a.json could not be written (TimeoutError); free")
