"""One process at a time writes into the folder of an evaluation or a study."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from irl_core.errors import ConfigError, StoreError
from irl_core.storage import sole_writer as module
from irl_core.storage.sole_writer import sole_writer
from irl_core.storage.training_run import machine
from train.evaluate.pipeline import evaluate
from train.evaluate.resumable import claimed_folder

ROOT = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys; from pathlib import Path\n"
    "from train.evaluate.resumable import claimed_folder\n"
    "with claimed_folder(Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.readline()\n"
)


def holder(out: Path) -> subprocess.Popen[str]:
    """A process that holds the folder until it reads a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_evaluation_is_refused_from_the_first_moment_on(tmp_path: Path) -> None:
    """Before there is a status, and whatever the clock says of the process that wrote one."""
    out = tmp_path / "out"
    first = holder(out)
    nothing: Any = None  # neither the checkpoint nor the settings are looked at
    for status in (None, {"state": "running", "pid": first.pid, "process_started": 1.0, "machine": machine()}):
        if status is not None:
            (out / "status.json").write_text(json.dumps(status))
        before = sorted(path.name for path in out.iterdir())
        with pytest.raises(ConfigError, match=f"out is being written by process {first.pid}; wait for it, or end it"):
            evaluate(nothing, out, nothing)
        assert sorted(path.name for path in out.iterdir()) == before
    (out / "status.json").unlink()
    first.communicate("\n", timeout=60)
    assert first.returncode == 0 and not out.exists()  # it had written nothing


def test_the_lock_of_a_killed_evaluation_is_free(tmp_path: Path) -> None:
    first = holder(tmp_path / "out")
    first.kill()
    first.communicate(timeout=60)
    with claimed_folder(tmp_path / "out"):
        assert (tmp_path / "out" / ".lock").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "out").exists()


def test_a_process_of_another_machine_is_asked_by_its_heartbeat(tmp_path: Path) -> None:
    from irl_core.files import now

    status = {"state": "running", "pid": 5, "host": "elsewhere", "heartbeat": now()}
    (tmp_path / "status.json").write_text(json.dumps(status))
    with pytest.raises(ConfigError, match="is being written by process 5 on 'elsewhere'"), claimed_folder(tmp_path):
        pass


def test_a_file_system_without_locks_lets_one_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", none)
    with sole_writer(tmp_path / "out", "out"):
        (tmp_path / "out" / "kept").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder ends between the opening of its file and the lock on it: the file that is there now counts."""
    flock, seen = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not seen:
            (tmp_path / ".lock").unlink()
        seen.append(descriptor)
        flock(descriptor, how)

    monkeypatch.setattr(module.fcntl, "flock", late)
    with sole_writer(tmp_path, "out"):
        assert len(seen) == 2
        monkeypatch.setattr(module.fcntl, "flock", flock)
        with pytest.raises(StoreError, match="out is being written by process"), sole_writer(tmp_path, "out"):
            pass
