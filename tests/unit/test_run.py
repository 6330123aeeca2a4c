"""The files of a run: whole or not at all, claimed by one process, full disks, provenance, measures."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from irl_core.config import RunConfig, TrainConfig
from irl_core.distributed import World
from irl_core.errors import CheckpointError, ConfigError
from irl_core.files import append_lines, one_line, write_whole
from irl_core.storage import training_run
from irl_core.storage.provenance import changes, code_state, command_line, data_hash, training_provenance, versions
from irl_core.storage.training_run import living_process, machine, started
from irl_core.text.segmentation import make_trace
from train import run_folder
from train.distributed import from_main
from train.failures import explained
from train.interruption import Interrupted, stop_requests
from train.monitoring.throughput import Clock, best_of, learning_rates, memory, speed
from train.run_folder import Claim, Log, MetricsFile, Status, claimed, rounded

ROOT = Path(__file__).resolve().parents[2]
CONFIG = TrainConfig(run=RunConfig(steps=10, seed=3))
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full, the device that is always full")


# ---------------------------------------------------------------------------------------------------- whole files


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


@needs_full
def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_whole(path, "one")
    (tmp_path / "status.json.tmp").symlink_to(FULL)
    with pytest.raises(CheckpointError, match=r"status.json could not be written \(No space left on device\); free"):
        write_whole(path, "two")
    assert path.read_text() == "one"


@needs_full
def test_a_full_disk_is_told_where_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.symlink_to(FULL)
    with pytest.raises(CheckpointError, match=r"metrics.jsonl could not be written \(No space left on device\)"):
        append_lines(path, "a line\n")


def test_half_a_line_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    append_lines(path, "first\n")
    real = os.write

    def fills_up(descriptor: int, data: bytes) -> int:
        if data.startswith(b"sec"):
            return real(descriptor, data[:3])  # as a disk that becomes full in the middle does
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.os, "write", fills_up)
    with pytest.raises(CheckpointError):
        append_lines(path, "second\n")
    assert path.read_text() == "first\n"


def test_what_is_shown_is_one_line_that_steers_no_terminal() -> None:
    assert one_line("failed: a\nmessage of\r\ntwo lines") == "failed: a message of two lines"
    assert one_line("\x1b[31mred\x07 \ud800 \u202eback") == "\\x1b[31mred\\x07 \\ud800 \\u202eback"
    assert one_line("größer als 3 €, 数学 [bold]") == "größer als 3 €, 数学 [bold]"
    assert len(one_line("x" * 10_000)) == 4000


def test_the_log_is_a_line_an_entry_with_its_time(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.txt")
    log.write("started")
    log.write("saved step-000002")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [re.sub(r"^\S+ ", "", line) for line in lines] == ["started", "saved step-000002"]
    for line in lines:
        moment = datetime.fromisoformat(line.split(" ")[0])
        assert moment.tzinfo == UTC
        assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


# -------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_rounded_to_digits_not_to_places() -> None:
    assert rounded({"b": 1 / 3, "a": 1.23456789e-9, "c": 12345678.9, "d": 2}) == {
        "a": 1.2345679e-9, "b": 0.33333333, "c": 12345679.0, "d": 2.0,
    }  # fmt: skip
    assert list(rounded({"b": 1.0, "a": 1.0})) == ["a", "b"]


def test_lines_after_the_step_resumed_from_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0)
    assert (metrics.rows, metrics.reached) == ([], 0)
    for step in (1, 2, 3):
        metrics.append(step, {"disc/loss": step / 2})
    with path.open("a") as target:
        target.write('{"step": 4, "disc/lo')  # cut off by a kill
    resumed = MetricsFile(path, 2)
    assert resumed.rows == [{"step": 1, "disc/loss": 0.5}, {"step": 2, "disc/loss": 1.0}]
    assert resumed.reached == 3
    resumed.append(3, {"disc/loss": 9.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        *resumed.rows, {"step": 3, "disc/loss": 9.0},
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"step": "7"}', '{"loss": 1}', "\x00\x00", "\udcff"])
def test_lines_that_are_none_are_left_out(line: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line.encode("utf-8", "surrogateescape") + b'\n{"step": 2}\n')
    assert MetricsFile(path, 5).rows == [{"step": 1}, {"step": 2}]


def test_what_is_no_number_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        MetricsFile(tmp_path / "metrics.jsonl", 0).append(1, {"disc/loss": float("nan")})


# --------------------------------------------------------------------------------------------------------- status


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_the_status_names_its_process(tmp_path: Path) -> None:
    status = Status(tmp_path / "status.json", 10, step=4, seconds_left=12.345, warnings=2)
    status.write()
    found = read(tmp_path / "status.json")
    assert found["pid"] == os.getpid()
    assert found["process_started"] == started(os.getpid())
    assert {key: found[key] for key in ("state", "phase", "step", "steps", "seconds_left", "reason", "warnings")} == {
        "state": "running", "phase": "starting", "step": 4, "steps": 10, "seconds_left": 12.3, "reason": "",
        "warnings": 2,
    }  # fmt: skip
    assert living_process(found) == f"process {os.getpid()}"


def test_the_heart_beats_at_most_every_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [100.0]
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: moments[-1])
    status = Status(tmp_path / "status.json", 10)
    written = []
    for moment, phase in ((100.0, "a"), (101.9, "b"), (102.0, "c"), (103.0, "d"), (104.5, "e")):
        moments.append(moment)
        status.beat(phase)
        written.append(read(tmp_path / "status.json")["phase"])
    assert written == ["a", "a", "c", "c", "e"]


def dead(**changes: Any) -> dict[str, Any]:
    """The status of a process that ran and is gone."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    began = started(process.pid)
    process.wait()
    return {"state": "running", "pid": process.pid, "process_started": began, "machine": machine()} | changes


def alive(**changes: Any) -> dict[str, Any]:
    own = {"pid": os.getpid(), "process_started": started(os.getpid())}
    return {"state": "running", "machine": machine(), "host": socket.gethostname(), **own} | changes


def beat(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")


def test_who_is_alive() -> None:
    assert living_process({}) is None
    assert living_process(alive()) == f"process {os.getpid()}"
    assert living_process(alive(state="interrupted")) is None
    assert living_process(dead()) is None
    assert living_process(alive(process_started=(started(os.getpid()) or 0.0) + 0.01)) is None  # an id used again
    for nonsense in ("12", None, -1, 2**70, True):
        assert living_process(alive(pid=nonsense, process_started=None)) is None
        assert living_process(alive(pid=nonsense, process_started=0.5)) is None


def test_a_killed_child_that_nobody_waited_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    status = alive(pid=process.pid, process_started=started(process.pid))
    assert living_process(status) == f"process {process.pid}"
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, but not yet waited for
    assert living_process(status) is None
    process.wait()


def test_another_machine_is_known_by_its_heartbeat() -> None:
    def there(**more: Any) -> dict[str, Any]:
        return alive(host="elsewhere", machine="elsewhere boot pid:[1]", **more)

    assert living_process(there(heartbeat=beat(5), pid=7)) == "process 7 on 'elsewhere'"
    assert living_process(there(heartbeat=beat(90))) is None
    assert living_process(there(heartbeat="soon")) is None
    assert living_process(there()) is None
    assert living_process(there(heartbeat="2026-01-01T00:00:00")) is None  # without a zone


def test_before_a_restart_the_same_ids_were_others(monkeypatch: pytest.MonkeyPatch) -> None:
    status = alive(heartbeat=beat(90))
    assert living_process(status) == f"process {os.getpid()}"
    monkeypatch.setattr(training_run, "machine", lambda: "the same host, another boot")
    assert living_process(status) is None


@pytest.mark.parametrize("step", [-3600.0, -1.0, 1.0, 3600.0])
def test_a_step_of_the_clock_makes_nobody_dead_and_nobody_living(step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil adds the time of the boot, which the kernel corrects with every step of its clock."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    status = alive(pid=process.pid, process_started=started(process.pid), heartbeat=beat(0))
    gone = dead(heartbeat=beat(0))
    boot, clock = psutil.boot_time(), time.time
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + step)
    monkeypatch.setattr(time, "time", lambda: clock() + step)
    assert living_process(status) == f"process {process.pid}"
    assert living_process(gone) is None
    process.kill()
    process.wait()
    assert living_process(status) is None


# ------------------------------------------------------------------------------------------------------- claiming


def claim(*arguments: Any, **options: Any) -> Claim:
    """What a claim finds; it is over when this returns."""
    with claimed(*arguments, **options) as found:
        return found


def test_a_new_run_is_claimed_once(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    claimed = claim(CONFIG, folder, resume=False)
    assert (claimed.previous, claimed.finished) == ({}, False)
    assert (folder / "config.yaml").read_text() == CONFIG.to_yaml()
    assert read(folder / "status.json")["state"] == "running"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "status.json"]


def claimed_by(status: dict[str, Any], folder: Path) -> None:
    """A run with one step behind it."""
    claim(CONFIG, folder, resume=False)
    (folder / "status.json").write_text(json.dumps(status))
    MetricsFile(folder / "metrics.jsonl", 0).append(1, {})


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_is_being_trained_is_left_alone(resume: bool, tmp_path: Path) -> None:
    claimed_by(alive(step=4), tmp_path / "mine")
    before = (tmp_path / "mine" / "status.json").read_text()
    with pytest.raises(ConfigError, match=rf"mine is being trained by process {os.getpid()} \(step 4\); wait for it"):
        claim(CONFIG, tmp_path / "mine", resume)
    assert (tmp_path / "mine" / "status.json").read_text() == before


def test_a_dead_one_is_taken_over_on_resume_alone(tmp_path: Path) -> None:
    claimed_by(dead(step=4, best={"step": 2}), tmp_path / "mine")
    with pytest.raises(ConfigError, match="mine already holds a run; add --resume"):
        claim(CONFIG, tmp_path / "mine", resume=False)
    assert claim(CONFIG, tmp_path / "mine", resume=True).previous["step"] == 4
    found = read(tmp_path / "mine" / "status.json")
    assert (found["pid"], found["state"], found["step"], found["best"]) == (os.getpid(), "running", 4, {"step": 2})


def test_other_settings_and_nothing_to_resume(tmp_path: Path) -> None:
    claimed_by(dead(), tmp_path / "mine")
    with pytest.raises(ConfigError, match="mine was started with other settings"):
        claim(replace(CONFIG, run=RunConfig(steps=11)), tmp_path / "mine", resume=True)
    with pytest.raises(ConfigError, match=r"nothing to resume: nowhere has no config\.yaml; leave out --resume"):
        claim(CONFIG, tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("left", ["nothing", "half a save", "metrics", "a save"])
def test_a_run_that_failed_before_its_first_step_is_begun_anew(left: str, tmp_path: Path) -> None:
    # a setting was mistyped: the folder must not have to be removed by hand
    claimed_by(dead(state="failed"), tmp_path / "mine")
    if left != "metrics":
        (tmp_path / "mine" / "metrics.jsonl").unlink()
    if "save" in left:
        (tmp_path / "mine" / "checkpoints" / ("step-000001" + ".new" * ("half" in left))).mkdir(parents=True)
    mended = replace(CONFIG, run=RunConfig(steps=11))
    if left in ("nothing", "half a save"):
        claim(mended, tmp_path / "mine", resume=False)
        assert (tmp_path / "mine" / "config.yaml").read_text() == mended.to_yaml()
    else:
        with pytest.raises(ConfigError, match="already holds a run"):
            claim(mended, tmp_path / "mine", resume=False)


def test_a_status_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    claimed_by(dead(), tmp_path / "mine")
    (tmp_path / "mine" / "status.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"status\.json: not readable as JSON"):
        claim(CONFIG, tmp_path / "mine", resume=True)


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"runs could not be written \(Not a directory\)"):
        claim(CONFIG, tmp_path / "file" / "runs", resume=False)


HOLD = (
    "import sys; from pathlib import Path\n"
    "from train.run_folder import claimed; from tests.unit.test_run import CONFIG\n"
    "with claimed(CONFIG, Path(sys.argv[1]), False):\n"
    "    print('held', flush=True); sys.stdin.readline()\n"
)


def test_the_lock_of_a_run_is_held_for_life_whatever_its_status_says(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "mine")], cwd=ROOT, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    for status in (dead(step=3), {"state": "interrupted", "step": 3}, alive(machine="elsewhere", heartbeat=beat(90))):
        (tmp_path / "mine" / "status.json").write_text(json.dumps(status))
        with pytest.raises(ConfigError, match="mine is being trained by another process"):
            claim(CONFIG, tmp_path / "mine", resume=True)
    process.kill()
    process.communicate(timeout=60)
    assert claim(CONFIG, tmp_path / "mine", resume=True).previous["state"] == "running"


def test_a_file_system_without_locks_leaves_it_to_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("train.run_folder.fcntl.flock", none)
    assert claim(CONFIG, tmp_path / "mine", resume=False).previous == {}
    with pytest.raises(ConfigError, match=f"mine is being trained by process {os.getpid()}"):
        claim(CONFIG, tmp_path / "mine", resume=True)


def test_of_two_that_start_at_once_one_wins(tmp_path: Path) -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(8)

    def start() -> None:
        gate.wait()
        try:
            claim(CONFIG, tmp_path / "mine", resume=False)
            outcomes.append("claimed")
        except ConfigError:
            outcomes.append("refused")

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["claimed"] + ["refused"] * 7


# ----------------------------------------------------------------------------------------------- several processes


class TwoProcesses(World):
    """Rank 1 of two: what rank 0 gathered is given."""

    def gather(self, objects: Any) -> list[Any]:
        return [*ZERO, *objects]


ZERO: list[Any] = []


def test_what_the_first_process_finds_is_what_all_find() -> None:
    ZERO[:] = [("theirs", None)]
    assert from_main(TwoProcesses(1, 2), lambda: pytest.fail("run on the second process")) == "theirs"
    ZERO[:] = [(None, ConfigError("refused"))]
    with pytest.raises(ConfigError, match="refused"):
        from_main(TwoProcesses(1, 2), lambda: None)


def test_alone_it_is_the_function_itself() -> None:
    assert from_main(World(), lambda: 5) == 5
    with pytest.raises(CheckpointError, match="mine"):
        from_main(World(), lambda: (_ for _ in ()).throw(CheckpointError("mine")))


# --------------------------------------------------------------------------------------------------------- errors


def test_a_full_disk_anywhere_is_told_with_the_mend() -> None:
    told = explained(OSError(28, "No space left on device", "/some/where/events.out"), CONFIG)
    assert isinstance(told, CheckpointError)
    assert str(told).startswith("events.out could not be written (No space left on device); free space")
    other = FileNotFoundError(2, "No such file", "x")
    assert explained(other, CONFIG) is other
    assert "new run with a lower" in str(explained(FloatingPointError("policy/loss is nan"), CONFIG))


def test_a_full_gpu_names_the_settings_to_lower() -> None:
    told = explained(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has"), CONFIG)
    assert isinstance(told, ConfigError)
    assert "(CUDA out of memory)" in str(told) and "run.batch_tokens (16384)" in str(told)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), "the GPU's memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), "the GPU's memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 GB"), "main memory"),
        (MemoryError(), "main memory"),
    ],
)
def test_memory_that_a_library_ran_out_of_is_named_too(error: Exception, memory: str) -> None:
    told = explained(error, CONFIG)
    assert isinstance(told, ConfigError)
    assert str(told).startswith(f"{memory} is full (") and "lower run.batch_tokens" in str(told)
    assert explained(other := RuntimeError("shapes do not fit"), CONFIG) is other


def test_signals_are_remembered_and_the_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_requests() as stops:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert stops.received == [signal.SIGTERM, signal.SIGINT]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_request_is_obeyed_at_once_where_nothing_would_be_lost() -> None:
    with stop_requests() as stops:
        with stops.obeyed_at_once(True):
            pass
        with pytest.raises(Interrupted), stops.obeyed_at_once(True):
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it was not obeyed")
        os.kill(os.getpid(), signal.SIGTERM)  # outside it waits
        with stops.obeyed_at_once(False):
            pass
        with pytest.raises(Interrupted), stops.obeyed_at_once(True):
            pytest.fail("one from before was forgotten")


# ----------------------------------------------------------------------------------------------------- provenance


def trace(text: str = "#### 4", answer: str | None = "4") -> Any:
    return make_trace("2 + 2?", text, reference_answer=answer)


def test_the_data_hash_is_that_of_what_was_read() -> None:
    # echo '["2 + 2?", "#### 4", "4"]' | sha256sum
    assert data_hash([trace()]) == "3bb9913e521b1a5ab987e36a80008ce93d1fd336af294145e64d121b34fdb345"
    others = ([], [trace()], [trace(), trace()], [trace("#### 5")], [trace(answer=None)])
    assert len({data_hash(traces) for traces in others}) == 5


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_code_is_its_commit_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert code_state(tmp_path) == {"commit": None, "dirty": None}
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run" / "status.json").write_text("")  # what is not tracked is not code
    assert code_state(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "code.py").write_text("a = 2\n")
    assert code_state(tmp_path) == {"commit": commit, "dirty": True}
    # a copy installed inside somebody's own checkout does not have that checkout's commit
    (tmp_path / "site-packages").mkdir()
    assert code_state(tmp_path / "site-packages") == {"commit": None, "dirty": None}


def test_without_git_the_commit_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_state() == {"commit": None, "dirty": None}


def test_what_a_run_was_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/irl-lens", "train", "demo irl", "--set", "seed=3"])
    found = training_provenance(CONFIG, [trace()], "cpu", World())
    assert command_line() == "irl-lens train 'demo irl' --set seed=3"
    assert found["command"] == command_line()
    assert (found["seed"], found["config"], found["device"], found["processes"]) == (3, CONFIG.fingerprint(), "cpu", 1)
    assert found["data"] == {"source": "demo", "traces": 1, "sha256": data_hash([trace()])}
    assert found["versions"]["torch"] == torch.__version__
    assert versions()["unsloth"] is None or isinstance(versions()["unsloth"], str)
    assert "somewhere" not in json.dumps(found)


def test_what_has_changed_is_said_on_resume() -> None:
    before = training_provenance(CONFIG, [trace()], "cpu", World())
    assert changes(before, before) == []
    after = json.loads(json.dumps(before))
    after["versions"]["torch"], after["code"]["commit"], after["processes"] = "9.9", "abc", 2
    assert changes(before, after) == [
        f"torch was {torch.__version__} and is 9.9",
        f"the code's commit was {before['code']['commit']} and is abc",
        "processes was 1 and is 2",
    ]


# ------------------------------------------------------------------------------------------------------- measures


def test_the_pace_is_that_of_the_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, *[2.0 * n for n in range(1, 51)], *[100.0 + 10.0 * n for n in range(1, 51)]])
    monkeypatch.setattr("train.monitoring.throughput.time.perf_counter", lambda: next(moments))
    clock = Clock(200)
    assert clock.seconds_left(0) == 0.0
    assert [clock.seconds_left(step) for step in range(1, 51)][-1] == pytest.approx(2.0 * 150)
    assert [clock.seconds_left(step) for step in range(51, 101)][-1] == pytest.approx(10.0 * 100)


def test_tokens_a_second_count_what_was_sampled_and_trained_on() -> None:
    assert speed({"rollout/tokens": 30.0, "train/tokens": 50.0}, 2.0) == {"time/step_s": 2.0, "tokens/s": 40.0}
    assert speed({"train/tokens": 50.0}, 2.0) == {"time/step_s": 2.0, "tokens/s": 25.0}
    assert speed({}, 2.0) == {"time/step_s": 2.0}


def test_memory_on_the_cpu_is_what_is_resident() -> None:
    found = memory(torch.device("cpu"))
    assert found.keys() == {"memory/rss_gb"}
    assert found["memory/rss_gb"] == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.2)


def test_learning_rates_of_those_who_learn() -> None:
    class Learner:
        def __init__(self, *rates: float) -> None:
            groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
            self.optimizer = torch.optim.SGD(groups, lr=1.0)

    policy, discriminator = Learner(1e-4), Learner(5e-5, 5e-4)
    both = learning_rates({"policy": policy, "discriminator": discriminator})
    assert both == {"policy/learning_rate": 1e-4, "disc/learning_rate": 5e-5}
    assert learning_rates({"policy": policy}) == {"policy/learning_rate": 1e-4}


def test_the_best_is_the_first_of_the_highest() -> None:
    def row(step: int, value: float) -> dict[str, float]:
        return {"step": step, "eval/pass@1": value, "eval/low": value - 0.1, "eval/high": value + 0.1, "eval/n": 8.0}

    assert best_of([]) is None
    assert best_of([{"step": 1, "disc/loss": 1.0}]) is None
    best = best_of([row(1, 0.25), {"step": 2}, row(3, 0.5), row(4, 0.5), row(5, 0.375)])
    assert best == {"step": 3, "value": 0.5, "low": 0.4, "high": 0.6, "n": 8.0}
