"""Jobs: one a device, found again whatever ends, stopped politely, killed late, and every fault in words."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.jobs import store, supervisor
from app.jobs.endings import now
from app.jobs.logs import job_tail
from app.jobs.store import Job, JobError
from app.jobs.supervisor import Busy, Wanted
from irl_core import sqlite

ROOT = Path(__file__).resolve().parents[2]
SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); " + SLEEP
FULL = Path("/dev/full")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own; no process of a job outlives the test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "runs"
    with contextlib.suppress(JobError):  # a table that is damaged on purpose
        for job in store.Jobs(tmp_path / "runs" / "jobs.sqlite").read():
            for process in supervisor.processes_of(job):
                for one in supervisor.with_descendants(process):
                    one.kill()


def python(code: str, **options: Any) -> Job:
    """A job that runs some Python in its run's folder."""
    name = options.pop("name", "a")
    values: dict[str, Any] = {"kind": "score", "device": "cpu"} | options
    kind, device = values.pop("kind"), values.pop("device")
    return supervisor.start(
        Wanted(kind, f"job {name}", [sys.executable, "-c", code], Path("runs") / name, device, **values)
    )


def until(condition: Callable[[], Any], seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")


def ended(job: Job, seconds: float = 120.0) -> Job:
    return until(lambda: None if (now := supervisor.get(job.id)).active else now, seconds)


def child(job: Job) -> psutil.Process:
    """The job's own process, once it runs."""
    return psutil.Process(until(lambda: supervisor.get(job.id).child))


def said(job: Job, word: str) -> None:
    until(lambda: word in job_tail(job))


# ------------------------------------------------------------------------------------------------------ start and end


def test_a_job_runs_prints_and_ends(runs: Path) -> None:
    job = python("print('one'); print('two')", user="ada")
    assert (job.id, job.state, job.kind, job.user, job.name) == (1, "running", "score", "ada", "a")
    done = ended(job)
    assert (done.state, done.reason) == ("finished", "") and done.ended is not None
    assert job_tail(done).splitlines()[1:] == ["one", "two"]
    assert supervisor.list_jobs() == [done]
    assert done.log == runs / "a" / "console.log"


def test_nothing_is_made_by_looking(runs: Path) -> None:
    assert supervisor.list_jobs() == [] and supervisor.active_job("cpu") is None and not runs.exists()
    with pytest.raises(JobError, match="there is no job 3"):
        supervisor.get(3)


def test_a_job_has_a_session_of_its_own() -> None:
    job = python(SLEEP)
    assert os.getsid(job.pid or 0) == job.pid != os.getsid(0)
    assert os.getpgid(child(job).pid) == child(job).pid


@pytest.mark.parametrize(
    ("code", "state", "reason"),
    [
        ("import sys; print('irl-lens: a plain reason', file=sys.stderr); sys.exit(2)", "failed", "a plain reason"),
        ("raise MemoryError('weights')", "failed", "MemoryError: weights"),
        ("import sys; sys.exit(3)", "failed", "exit status 3; its log says no more"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "killed from outside, most often because the"),
        ("import os; os.kill(os.getpid(), 11)", "failed", "ended by signal 11"),
        ("import os; os.kill(os.getpid(), 15)", "interrupted", "stopped"),
    ],
)
def test_how_a_job_ended_is_told(code: str, state: str, reason: str) -> None:
    done = ended(python(code))
    assert done.state == state and done.reason.startswith(reason)


def test_a_command_that_is_not_there_fails_with_the_reason() -> None:
    done = ended(supervisor.start(Wanted("score", "no such", ["/nonexistent/program"], Path("runs/a"), "cpu")))
    assert (done.state, done.reason) == ("failed", "it could not be started (No such file or directory)")


def test_the_tail_of_the_log_steers_no_terminal_and_keeps_the_last_of_a_progress_line(runs: Path) -> None:
    job = ended(python(r"print('10 %\r20 %\r30 %'); print('\x1b[31mred\x00'); print('x' * 1000)"))
    assert job_tail(job, 3).splitlines() == ["30 %", " [31mred ", "x" * 400]
    job.log.unlink()
    assert job_tail(job) == ""


# --------------------------------------------------------------------------------------------------- one job a device


def test_a_second_job_on_the_device_is_shown_the_first() -> None:
    first = python(SLEEP)
    with pytest.raises(Busy, match=r"cpu is busy with job 1, job a; wait for it, or cancel it") as caught:
        python(SLEEP, name="b")
    assert caught.value.job == first
    assert supervisor.active_job("cpu") == first and not Path("runs/b").exists()
    assert python(SLEEP, name="b", device="cuda:0").id == 2


def test_a_device_has_one_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor, "GPU_CONTROL", tmp_path / "nvidiactl")
    assert [supervisor.device_named(name) for name in ("auto", "cpu", "cuda", "cuda:1")] == [
        "cpu",
        "cpu",
        "cuda",
        "cuda:1",
    ]
    (tmp_path / "nvidiactl").touch()
    job = python(SLEEP, device="auto")
    assert job.device == "cuda" == supervisor.device_named("cuda:0")
    with pytest.raises(Busy):
        python(SLEEP, name="b", device="cuda:0")
    assert supervisor.active_job("auto") == job


def test_two_devices_do_not_share_a_folder() -> None:
    python(SLEEP)
    with pytest.raises(Busy):
        python(SLEEP, device="cuda:0")


def test_a_double_click_starts_one_job() -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(6)

    def click() -> None:
        gate.wait()
        try:
            outcomes.append(f"job {python(SLEEP).id}")
        except Busy as busy:
            outcomes.append(f"busy with {busy.job.id}")

    clicks = [threading.Thread(target=click) for _ in range(6)]
    for one in clicks:
        one.start()
    for one in clicks:
        one.join()
    assert sorted(outcomes) == ["busy with 1"] * 5 + ["job 1"]
    assert len(supervisor.list_jobs()) == 1


def _start_in_process(folder: str, number: int, gate: Any, outcomes: Any) -> None:
    os.chdir(folder)
    gate.wait()
    try:
        outcomes.put(("job", python(SLEEP, name=f"p{number}").id))
    except Busy as busy:
        outcomes.put(("busy", busy.job.id))


def test_two_processes_that_start_at_once_start_one_job(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, outcomes = context.Barrier(3), context.Queue()
    starters = [
        context.Process(target=_start_in_process, args=(str(tmp_path), number, gate, outcomes)) for number in range(3)
    ]
    for starter in starters:
        starter.start()
    found = sorted(outcomes.get(timeout=30) for _ in starters)
    for starter in starters:
        starter.join(10)
    assert found == [("busy", 1), ("busy", 1), ("job", 1)]
    assert [job.id for job in supervisor.list_jobs()] == [1]


def test_the_table_itself_allows_one_running_job_a_device() -> None:
    job = python(SLEEP)
    with store.Jobs(Path("runs/jobs.sqlite")).writing() as connection:
        other = {name: getattr(job, name) for name in store.COLUMNS if name != "id"} | {"run_dir": "elsewhere"}
        with pytest.raises(sqlite3.IntegrityError, match=r"jobs\.device"):
            store.insert(connection, other)


def test_a_device_is_free_again_when_its_job_has_ended() -> None:
    ended(python("pass"))
    assert ended(python("pass", name="b")).id == 2


# ------------------------------------------------------------------------------------------------- the server is gone


def test_a_job_outlives_the_server_and_is_found_again(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from app.jobs import supervisor as jobs\n"
        "jobs.start(jobs.Wanted('score', 'long', [sys.executable, '-c', sys.argv[2]], Path('runs/long'), 'cpu'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    go = tmp_path / "go"
    work = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\nprint('went on')"
    server = subprocess.run([sys.executable, "-c", code, str(ROOT), work], cwd=tmp_path, check=False)
    assert server.returncode == -signal.SIGKILL
    (job,) = supervisor.list_jobs()
    assert job.state == "running"
    go.touch()
    done = ended(job)
    assert done.state == "finished" and job_tail(done).endswith("went on")


def test_the_exit_status_is_known_although_the_server_that_started_it_died(tmp_path: Path) -> None:
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from app.jobs import supervisor as jobs\n"
        "command = [sys.executable, '-c', 'import sys; sys.exit(3)']\n"
        "jobs.start(jobs.Wanted('score', 'long', command, Path('runs/long'), 'cpu'))\n"
        "os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT)], cwd=tmp_path, check=False)
    assert ended(supervisor.get(1)).reason == "exit status 3; its log says no more"


def test_no_job_without_a_row(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server dies, or the disk is full, before the row is written: the process beside the job does not begin."""
    started: list[subprocess.Popen[bytes]] = []
    real = supervisor.start_runner

    def remembered(job: Job) -> subprocess.Popen[bytes]:
        started.append(real(job))
        return started[0]

    def full(*_: Any, **__: Any) -> Job:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(supervisor, "start_runner", remembered)
    monkeypatch.setattr(supervisor, "update", full)
    with pytest.raises(JobError, match=r"could not be written \(database or disk is full\); free space, and try again"):
        python("open('began', 'w')")
    assert started[0].wait(120) == 1
    assert supervisor.list_jobs() == [] and not Path("began").exists()


def test_the_job_goes_on_when_the_process_beside_it_is_killed() -> None:
    job = python(SLEEP)
    own = child(job)
    psutil.Process(job.pid or 0).kill()
    time.sleep(0.3)
    assert supervisor.get(job.id).state == "running" and own.is_running()
    supervisor.cancel(job.id)
    assert ended(job).state == "cancelled"
    assert not own.is_running() or own.status() == psutil.STATUS_ZOMBIE


def test_both_processes_gone_without_a_word_is_an_interruption() -> None:
    job = python(SLEEP)
    own = child(job)
    psutil.Process(job.pid or 0).kill()
    own.kill()
    done = ended(job)
    assert done.state == "interrupted" and "gone without a word" in done.reason


def scoring(end: str) -> Job:
    """A scoring that writes its whole run, and then ends by the code ``end``."""
    out = Path("runs/a/run.parquet").resolve()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
        "from irl_core.storage.run_writer import write_run\n"
        f"write_run(Path(sys.argv[2]), [], {{}}); print('whole', flush=True); {end}"
    )
    command = [sys.executable, "-c", code, "--out", str(out)]
    return supervisor.start(Wanted("score", "scoring of a", command, out.parent, "cpu"))


def test_a_scoring_whose_run_is_whole_is_finished_however_its_processes_went() -> None:
    job = scoring(SLEEP)
    said(job, "whole")
    own = child(job)
    psutil.Process(job.pid or 0).kill()
    own.kill()
    assert (ended(job).state, ended(job).reason) == ("finished", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_scoring_that_is_killed_after_its_run_is_whole_is_finished(number: int) -> None:
    assert ended(scoring(f"import os; os.kill(os.getpid(), {int(number)})")).state == "finished"


def test_a_training_that_finished_before_its_process_was_noted_is_finished() -> None:
    job = python(SLEEP, kind="train")
    own = child(job)
    status = {"state": "finished", "step": 9, "steps": 9, "pid": own.pid}
    (job.run_dir / "status.json").write_text(json.dumps(status))
    psutil.Process(job.pid or 0).kill()
    own.kill()
    changed(job, child=None, child_started=None)  # the table was locked when its runner was killed
    assert ended(job).state == "finished"


def changed(job: Job, **values: Any) -> None:
    with sqlite3.connect("runs/jobs.sqlite") as connection:
        for name, value in values.items():
            connection.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (value, job.id))


def test_a_process_id_that_is_another_process_now_is_never_signalled() -> None:
    bystander = subprocess.Popen([sys.executable, "-c", SLEEP])
    try:
        job = ended(python("pass"))
        changed(job, state="running", pid=bystander.pid, process_started=1.0)
        changed(job, child=bystander.pid, child_started=1.0)
        assert supervisor.cancel(job.id).state == "interrupted"
        assert supervisor.get(job.id).state == "interrupted"
        time.sleep(0.3)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_step_of_the_clock_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    job = python(SLEEP)
    own, boot = child(job), psutil.boot_time()
    for step in (-3600.0, 1.0, 3600.0):
        monkeypatch.setattr("psutil._pslinux.boot_time", lambda step=step: boot + step)
        assert supervisor.get(job.id).active
    changed(job, asked="2020-01-01T00:00:00+00:00")  # the clock was years behind when it was asked to stop
    assert supervisor.get(job.id).active and own.is_running()  # its runner counts the grace by a clock nobody sets
    assert supervisor.cancel(job.id).active
    assert ended(job).state == "cancelled"


def test_a_job_of_another_machine_is_not_signalled() -> None:
    job = python(SLEEP, kind="train")
    own = child(job)
    changed(job, machine="elsewhere boot pid:[1]")
    status = {"state": "running", "pid": own.pid, "host": "elsewhere", "heartbeat": now()}
    (job.run_dir / "status.json").write_text(json.dumps(status))
    with pytest.raises(JobError, match="runs on another machine; cancel it there"):
        supervisor.cancel(job.id)
    assert own.is_running()
    status["heartbeat"] = "2020-01-01T00:00:00+00:00"
    (job.run_dir / "status.json").write_text(json.dumps(status))
    assert supervisor.get(job.id).active  # its runner still touches its log
    long_ago = time.time() - 3600
    os.utime(job.log, (long_ago, long_ago))
    assert supervisor.get(job.id).state == "interrupted" and own.is_running()
    own.kill()


# --------------------------------------------------------------------------------------------------------- cancelling


def test_cancel_is_harmless_when_asked_twice_and_at_the_end() -> None:
    job = python(
        "import signal, sys, time\n"
        "asked = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        "print('ready', flush=True)\n"
        "while not asked: time.sleep(0.05)\n"
        "time.sleep(1.0); print(len(asked), 'requests'); sys.exit(len(asked))"
    )
    said(job, "ready")
    first = supervisor.cancel(job.id)
    assert first.active and first.asked is not None
    assert supervisor.cancel(job.id).asked == first.asked
    done = ended(job)
    assert (done.state, done.reason) == ("cancelled", "stopped")
    assert "1 requests" in job_tail(done)  # the second request was not passed on
    assert supervisor.cancel(job.id) == done == supervisor.cancel(job.id)


def test_one_that_ignores_the_request_is_killed_with_all_that_it_started() -> None:
    another = f"subprocess.Popen([sys.executable, '-c', {STUBBORN!r}], start_new_session=True)"
    job = python(f"import subprocess, sys; {another}; {STUBBORN}", grace=0.5)
    until(lambda: job_tail(job).count("ready") == 2)
    family = [psutil.Process(job.pid or 0), *psutil.Process(job.pid or 0).children(recursive=True)]
    assert len(family) == 3
    supervisor.cancel(job.id)
    done = ended(job)
    assert done.state == "cancelled" and done.reason.startswith("killed: it did not stop within 0 s")
    until(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family))


def test_what_a_job_leaves_behind_is_ended_with_it() -> None:
    left = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid, flush=True)"
    job = python(left)
    done = ended(job)
    pid = int(job_tail(done, 1))
    assert done.state == "finished" and not psutil.pid_exists(pid)


def test_one_that_the_process_beside_it_cannot_kill_is_killed_when_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    job = python(STUBBORN, grace=0.1)
    said(job, "ready")
    own = child(job)
    psutil.Process(job.pid or 0).kill()
    monkeypatch.setattr(supervisor, "SECONDS_FOR_RUNNER", 0.3)
    supervisor.cancel(job.id)
    assert own.is_running()
    assert ended(job).state == "cancelled"


def test_a_job_that_ends_well_although_it_was_asked_to_stop_is_finished() -> None:
    job = python("import signal, time; signal.signal(15, lambda *_: None); print('ready', flush=True); time.sleep(1)")
    said(job, "ready")
    supervisor.cancel(job.id)
    assert ended(job).state == "finished"


# ----------------------------------------------------------------------------------------------------------- trainings

TRAINING = """
import json, os, psutil, signal, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
(folder / 'config.yaml').write_text('x')
def status(state, step, reason=''):
    (folder / 'status.json').write_text(json.dumps({'state': state, 'step': step, 'steps': 9, 'reason': reason,
        'pid': os.getpid()}))
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
status('running', 1)
print('arguments', sys.argv[2:], flush=True)
if 'fail' in sys.argv[2:]:
    (folder / 'checkpoints').mkdir()
    status('failed', 3, "ConfigError: the GPU's memory is full (2 GiB); lower run.batch_tokens")
    sys.exit(2)
if '--resume' in sys.argv:
    status('finished', 9)
    sys.exit(0)
while not asked: time.sleep(0.05)
status('interrupted', 4)
"""


def training(*arguments: str) -> Job:
    folder = Path("runs/t").resolve()
    command = [sys.executable, "-c", TRAINING, str(folder), *arguments]
    return supervisor.start(Wanted("train", "a training", command, folder, "cpu"))


def test_a_training_is_cancelled_and_resumed_to_its_end() -> None:
    job = training()
    said(job, "arguments []")
    supervisor.cancel(job.id)
    stopped = ended(job)
    assert (stopped.state, stopped.reason) == ("cancelled", "stopped at step 4 of 9, and saved")
    again = supervisor.resume(job.id)
    assert (again.id, again.attempt, again.state, again.asked, again.reason) == (job.id, 2, "running", None, "")
    done = ended(again)
    assert done.state == "finished" and "arguments ['--resume']" in job_tail(done)
    with pytest.raises(JobError, match="job 1, a training, is finished; there is nothing to resume"):
        supervisor.resume(job.id)


def test_a_training_stopped_by_somebody_else_is_interrupted() -> None:
    job = training()
    said(job, "arguments")
    child(job).terminate()
    assert ended(job).state == "interrupted"


def test_out_of_memory_in_training_is_a_failure_with_the_reason_and_the_checkpoint_is_kept() -> None:
    done = ended(training("fail"))
    assert done.state == "failed"
    assert done.reason == "ConfigError: the GPU's memory is full (2 GiB); lower run.batch_tokens"
    assert (done.run_dir / "checkpoints").is_dir()
    assert supervisor.resume(done.id).attempt == 2


def test_a_job_that_somebody_else_resumed_in_between_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = ended(python("import sys; sys.exit(3)"))
    again = ended(supervisor.resume(stale.id))
    monkeypatch.setattr(supervisor, "get", lambda job_id: stale)
    with pytest.raises(JobError, match="was resumed by somebody else and is failed now"):
        supervisor.resume(stale.id)
    assert supervisor.list_jobs() == [again]


def test_a_scoring_of_another_machine_lives_by_the_log_that_is_touched() -> None:
    job = python(SLEEP)
    own = child(job)
    os.utime(job.log, (1, 1))
    until(lambda: job.log.stat().st_mtime > 1)  # its runner does so every few seconds
    changed(job, machine="elsewhere boot pid:[1]")
    assert supervisor.get(job.id).active
    with pytest.raises(Busy):
        python("pass")
    own.kill()


def test_a_running_job_is_not_resumed_twice() -> None:
    job = training()
    said(job, "arguments")
    with pytest.raises(Busy):
        supervisor.resume(job.id)


def test_a_training_that_never_got_to_its_folder_begins_again_without_resume() -> None:
    done = ended(
        supervisor.start(Wanted("train", "t", [sys.executable, "-c", "import sys; sys.exit(2)"], Path("runs/t"), "cpu"))
    )
    assert supervisor.command_of(supervisor.resume(done.id)) == done.command


# ------------------------------------------------------------------------------------------------ faults of the table


def locked(path: Path) -> sqlite3.Connection:
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    return holder


def test_a_table_that_stays_locked_is_told_after_two_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(python("pass"))
    monkeypatch.setattr(sqlite, "SECONDS_PER_TRY", 0.5)
    holder = sqlite3.connect("runs/jobs.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(JobError, match=r"jobs.sqlite has been locked by another process for 1 s; .* try again"):
        python("pass", name="b")
    holder.execute("ROLLBACK")
    assert ended(python("pass", name="c")).state == "finished"


def test_the_two_tries_take_ten_seconds() -> None:
    assert sqlite.TRIES * sqlite.SECONDS_PER_TRY == 10.0


def test_a_second_try_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    ended(python("pass"))
    monkeypatch.setattr(sqlite, "SECONDS_PER_TRY", 0.5)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sqlite3, time; c = sqlite3.connect('runs/jobs.sqlite', isolation_level=None); "
         "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(0.75); c.execute('ROLLBACK')"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with store.Jobs(Path("runs/jobs.sqlite")).writing() as connection:  # 0.5 s are over before it is free
        assert len(store.select(connection)) == 1
    holder.wait()


def test_a_damaged_table_is_told_and_nothing_can_be_started(runs: Path) -> None:
    runs.mkdir()
    (runs / "jobs.sqlite").write_bytes(b"not a database at all, " * 100)
    for call in (
        supervisor.list_jobs,
        lambda: python("pass"),
        lambda: supervisor.cancel(1),
        lambda: supervisor.resume(1),
    ):
        with pytest.raises(JobError, match=r"jobs.sqlite is damaged, .* move it away, .* runs themselves are whole"):
            call()
    assert (runs / "jobs.sqlite").read_bytes().startswith(b"not a database")


def test_a_table_of_a_later_version_is_left_alone(runs: Path) -> None:
    runs.mkdir()
    with sqlite3.connect(runs / "jobs.sqlite") as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(JobError, match=r"written by a later version of irl-lens \(9\); update this one"):
        python("pass")


def test_a_table_of_an_earlier_version_is_refused_with_the_fix(runs: Path) -> None:
    runs.mkdir()
    with sqlite3.connect(runs / "jobs.sqlite") as connection:
        connection.execute("CREATE TABLE jobs (id INTEGER PRIMARY KEY)")
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(JobError, match=r"no such column.* move it away, and a new one is begun: the runs .* are whole"):
        supervisor.list_jobs()


def test_an_ended_job_is_shown_as_it_is_while_the_table_cannot_be_written(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = python(SLEEP)
    own = child(job)
    psutil.Process(job.pid or 0).kill()
    own.kill()
    until(lambda: not supervisor.processes_of(store.Jobs(runs / "jobs.sqlite").get(job.id)))
    monkeypatch.setattr(sqlite, "SECONDS_PER_TRY", 0.1)
    holder = sqlite3.connect("runs/jobs.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert supervisor.get(job.id).state == "interrupted"
    holder.execute("ROLLBACK")
    assert supervisor.get(job.id).state == "interrupted"
    with sqlite3.connect("runs/jobs.sqlite") as connection:
        assert connection.execute("SELECT state FROM jobs").fetchall() == [("interrupted",)]


def test_the_end_of_a_job_is_written_as_soon_as_the_table_is_free_again() -> None:
    job = python("import time; time.sleep(0.5); print('done')")
    own = child(job)
    holder = sqlite3.connect("runs/jobs.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    until(lambda: not own.is_running() or own.status() == psutil.STATUS_ZOMBIE)
    assert supervisor.get(job.id).active  # its runner waits
    holder.execute("ROLLBACK")
    assert ended(job).state == "finished"


def test_a_folder_that_cannot_be_written_starts_nothing(runs: Path) -> None:
    runs.mkdir()
    (runs / "a").write_text("a file where the folder should be")
    with pytest.raises(JobError, match=r"a/ could not be written \(File exists\); free space, and try again"):
        python("pass")
    assert supervisor.list_jobs() == []


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full, the device that is always full")
def test_a_full_disk_under_the_log_starts_nothing(runs: Path) -> None:
    (runs / "a").mkdir(parents=True)
    (runs / "a" / "console.log").symlink_to(FULL)
    with pytest.raises(JobError, match=r"a/ could not be written \(No space left on device\); free space"):
        python("pass")
    assert supervisor.list_jobs() == []


ON_A_FULL_DISK = """
import sys, time
from pathlib import Path
from app.jobs import supervisor
from app.jobs.supervisor import Wanted
fill = "f = open('fill', 'wb', buffering=0)\\ntry:\\n    while True: f.write(b'x' * 512)\\nexcept OSError: pass\\n"
fill += "import time, sys; time.sleep(0.5); sys.exit('x' * 600)"
job = supervisor.start(Wanted("score", "s", [sys.executable, "-c", fill], Path("runs/a"), "cpu"))
while not Path("fill").exists():
    time.sleep(0.05)
size = Path("runs/jobs.sqlite").stat().st_size
while (now := supervisor.get(job.id)).active:
    time.sleep(0.05)
names = sorted(path.name for path in Path("runs").iterdir())
print(now.state, now.reason, now.child is not None, Path("runs/jobs.sqlite").stat().st_size - size, *names, sep="|")
"""


def test_a_disk_that_fills_up_later_still_leaves_the_exit_status() -> None:
    """On a file system of 128 KiB, which the job fills; mounted where the kernel lets a user do so."""
    mount = "mount -t tmpfs -o size=128k none /mnt && cd /mnt && exec "
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*inside, f"{mount} true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here ({error})")
    command = shlex.join([sys.executable, "-c", ON_A_FULL_DISK])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*inside, mount + command], env=environment, capture_output=True, text=True, timeout=60)
    state, reason, *rest = done.stdout.strip().split("|")
    assert (state, rest) == ("failed", ["True", "0", "a", "jobs.sqlite"]), done.stderr  # not a byte more, no journal
    assert reason in ("x" * 400, "exit status 1; its log says no more")  # whether the log had room in its last block


def test_the_end_of_a_job_takes_no_room_that_was_not_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written but what is there: no page more, and no journal."""
    job = ended(python("import sys; sys.exit(3)"))
    table = store.Jobs(Path("runs/jobs.sqlite"))
    with table.writing() as connection:
        job = store.update(connection, job, state="running", child=None, child_started=None)
    before = table.path.stat()

    class Full(sqlite3.Connection):
        in_memory = False

        def execute(self, sql: str, *values: Any) -> Any:
            self.in_memory |= sql == "PRAGMA journal_mode = MEMORY"
            if sql == "COMMIT" and not self.in_memory:
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *values)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection.__new__(Full)
        connection.__init__(*arguments, **options)  # type: ignore[misc]
        connection.execute(f"PRAGMA max_page_count = {before.st_size // 4096}")
        return connection

    monkeypatch.setattr(store.sqlite3, "connect", connect)
    job = table.change(job, child=2**31, child_started=1e9 + 0.123)
    done = table.change(job, state="failed", reason="\U0001f4a5" * 500, ended=now())
    assert (done.state, done.reason, done.child) == ("failed", "\U0001f4a5" * 500, 2**31)
    after = table.path.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full, the device that is always full")
def test_a_disk_that_is_full_for_a_training_fails_the_job_with_the_reason(runs: Path) -> None:
    (runs / "t").mkdir(parents=True)
    (runs / "t" / "log.txt").symlink_to(FULL)
    sizes = ("hidden_size=24", "layers=1", "heads=2", "intermediate_size=48", "vocab_size=320", "context=512")
    settings = [*(f"model.{size}" for size in sizes), "data.train_problems=20", "data.held_out=1", "data.drills=0"]
    command = supervisor.command_line("train", "demo-sft", *(f"--set={one}" for one in settings), "--run-dir=runs/t")
    done = ended(supervisor.start(Wanted("train", "t", command, runs / "t", "cpu")), 600)
    assert done.state == "failed"
    assert "log.txt could not be written (No space left on device); free space" in done.reason


# -------------------------------------------------------------------------------------------------------------- weight


def test_neither_the_runner_nor_the_list_loads_anything_heavy() -> None:
    heavy = "{'torch', 'transformers', 'streamlit', 'pandas', 'numpy', 'plotly'} & set(sys.modules)"
    code = f"import sys, app.jobs.supervisor, app.jobs.runner; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_stop_signals_are_those_that_end_a_process() -> None:
    from app.jobs.runner import STOP_SIGNALS

    assert set(STOP_SIGNALS) == {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
