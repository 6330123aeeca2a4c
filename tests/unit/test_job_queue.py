"""The queue: what waits begins when the job before it has ended, in order, without a server and after a restart."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs import supervisor, waiting
from app.jobs.store import Job, JobError
from app.jobs.supervisor import Busy, Wanted

UNTIL_TOLD = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; whatever still runs is told to end."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    (tmp_path / "go").touch()
    for job in supervisor.list_jobs():
        supervisor.cancel(job.id)


def asked(name: str, code: str = UNTIL_TOLD, device: str = "cpu") -> Job:
    return waiting.start(Wanted("score", f"job {name}", [sys.executable, "-c", code], Path("runs") / name, device))


def states() -> dict[str, str]:
    return {job.name: job.state for job in supervisor.list_jobs()}


def until(wanted: dict[str, str]) -> None:
    for _ in range(1200):
        if states() == wanted:
            return
        time.sleep(0.05)
    raise AssertionError(states())


def test_what_waits_begins_in_order_though_no_server_looks(folder: Path) -> None:
    jobs = [asked(name) for name in ("a", "b", "c")]
    assert [job.state for job in jobs] == ["running", "queued", "queued"]
    assert waiting.places(supervisor.list_jobs()) == {jobs[1].id: 1, jobs[2].id: 2}
    assert asked("d", device="cuda:1").active  # another device has a queue of its own
    (folder / "go").touch()
    until(dict.fromkeys("abcd", "finished"))  # each was begun by the runner of the one before
    begun = [supervisor.get(job.id).ended or "" for job in jobs]
    assert begun == sorted(begun)


def test_a_queue_whose_runner_was_killed_goes_on_when_a_server_looks() -> None:
    first, second = asked("a"), asked("b")
    for process in supervisor.processes_of(supervisor.get(first.id)):
        for one in supervisor.with_descendants(process):
            one.kill()
    until({"a": "interrupted", "b": "queued"})
    assert waiting.begin(supervisor.list_jobs()) is True
    assert supervisor.get(second.id).active
    assert waiting.begin(supervisor.list_jobs()) is False


def test_what_is_taken_out_never_begins(folder: Path) -> None:
    first, second = asked("a"), asked("b")
    gone = supervisor.cancel(second.id)
    assert (gone.state, gone.reason) == ("cancelled", supervisor.NEVER_BEGUN)
    assert supervisor.cancel(second.id) == gone  # twice is harmless
    supervisor.cancel(first.id)
    until({"a": "cancelled", "b": "cancelled"})
    assert waiting.begin(supervisor.list_jobs()) is False and not (folder / "runs" / "b").exists()
    assert supervisor.resume(second.id).active  # and can be begun after all


def test_a_second_click_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked("a")
    with pytest.raises(Busy):
        asked("a")
    asked("b")
    with pytest.raises(JobError, match="b waits in the queue already"):
        asked("b")
    monkeypatch.setattr(waiting, "MOST_WAITING", 1)
    with pytest.raises(JobError, match="1 jobs wait already, the limit is 1"):
        asked("c")
    assert states() == {"a": "running", "b": "queued"}


def test_one_that_cannot_be_started_fails_and_the_next_begins(folder: Path) -> None:
    first = asked("a")
    asked("b")
    third = asked("c")
    (folder / "runs" / "b").write_text("a file where the folder should be")
    while supervisor.get(first.id).child is None:  # its runner listens
        time.sleep(0.02)
    supervisor.cancel(first.id)
    until({"a": "cancelled", "b": "failed", "c": "running"})
    assert supervisor.get(third.id).active
