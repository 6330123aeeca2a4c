"""What a scoring writes over, where it cannot write, and that it alone writes: nothing is lost, and all is said."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from irl_core.errors import DatasetError, InputError, StoreError
from irl_core.scorer import Lens
from irl_core.storage import scored_run, sole_writer
from irl_core.storage.run_writer import RunWriter
from irl_core.storage.scored_run import read_provenance, read_run
from tests.tiny import PROBLEM
from train.score_file import check_source, score_file

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def plain(number: int) -> dict[str, str]:
    return {"id": f"row-{number}", "question": PROBLEM, "solution": f"She has {number} pens.", "answer": "10"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [plain(number) for number in range(11)])


# ------------------------------------------------------------------------------- what is there already, and the input


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(source: Path, out: Path, lens: Lens, message: str, kind: type[Exception] = StoreError) -> None:
    """Scoring is refused, before a model is loaded and as it begins; every file is as it was."""
    before = contents(source.parent)
    with pytest.raises(kind, match=message):
        check_source(source, out, "auto")
    with pytest.raises(kind, match=message):
        score_file(source, out, lens)
    assert contents(source.parent) == before


def test_the_input_is_never_deleted_or_replaced(tmp_path: Path, lens: Lens) -> None:
    source = write(tmp_path / "x.errors.jsonl", [plain(1), "{bad"])
    before = source.read_bytes()
    message = r"x\.errors\.jsonl is the input itself, where the refused rows of x.parquet go"
    refused(source, tmp_path / "x.parquet", lens, message, InputError)
    refused(source, tmp_path / "x", lens, "is the input itself", InputError)
    os.link(source, tmp_path / "y.parquet")
    refused(source, tmp_path / "y.parquet", lens, "is the input itself", InputError)
    (tmp_path / "z.errors.jsonl").symlink_to(source)
    for name in ("x", "y", "z"):
        with pytest.raises(InputError, match="is the input itself"):
            score_file(source, tmp_path / f"{name}.parquet", lens, force=True)
    assert source.read_bytes() == before


def test_a_run_of_the_same_input_alone_is_replaced(source: Path, tmp_path: Path, lens: Lens) -> None:
    out = tmp_path / "out.parquet"
    for _ in range(2):
        assert score_file(source, out, lens).scored == 11
    other = write(tmp_path / "other.jsonl", [plain(1), "{bad"])
    refused(other, out, lens, r"out\.parquet is a scored run of another input, in\.jsonl; .* replace it with --force")
    assert score_file(other, out, lens, force=True).scored == 1
    assert score_file(other, out, lens).failed == 1  # with its file of refused rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("out.parquet", "mine", "out.parquet is there and is not a scored run"),
        ("out.parquet", "", "out.parquet is there and is not a scored run"),
        ("out.errors.jsonl", "mine", "out.errors.jsonl is there and does not hold the refused rows of in.jsonl"),
        ("out.errors.jsonl", "", "does not hold the refused rows"),
        ("out.errors.jsonl", '{"message": "mine", "level": 3}\n', "does not hold the refused rows"),
        ("out.errors.jsonl", '{"message": "x", "file": "another.jsonl"}\n', "does not hold the refused rows"),
    ],
)
def test_a_file_of_anything_else_is_replaced_by_force_alone(
    source: Path, tmp_path: Path, lens: Lens, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    refused(source, tmp_path / "out.parquet", lens, message)
    assert score_file(source, tmp_path / "out.parquet", lens, force=True).scored == 11


def test_a_folder_of_parts_keeps_what_is_anothers(source: Path, tmp_path: Path, lens: Lens) -> None:
    parts = tmp_path / "out.parquet.parts"
    parts.mkdir()
    (parts / "notes.txt").write_text("mine")
    for resume in (True, False):
        assert score_file(source, tmp_path / "out.parquet", lens, resume=resume).scored == 11
    assert [(path.name, path.read_text()) for path in parts.iterdir()] == [("notes.txt", "mine")]


def test_all_rows_refused_twice(tmp_path: Path, lens: Lens) -> None:
    source = write(tmp_path / "in.jsonl", ["{broken", {**plain(3), "solution": "3 + 4 = 7. " * 99}])
    for _ in range(2):
        assert score_file(source, tmp_path / "out.parquet", lens, layout="plain").failed == 2


# ------------------------------------------------------------------------------------------- places that do not serve


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("file/out.parquet", "cannot be .*(Not a directory|File exists)"),
        ("x" * 251 + ".parquet", "File name too long"),
        ("x" * 242 + ".parquet", "File name too long"),
        ("deep/" * 900 + "out.parquet", "File name too long"),
        ("/proc/none/out.parquet", "cannot be made or written .*; name another --out"),
        ("/dev/null", "is no plain file"),
        ("half\udcff.parquet", "the name is not UTF-8"),
    ],
)
def test_a_place_that_cannot_be_written_is_said(
    source: Path, tmp_path: Path, lens: Lens, out: str, message: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((StoreError, InputError), match=message):
        check_source(source, tmp_path / out, "auto")
    with pytest.raises((StoreError, InputError), match=message):
        score_file(source, tmp_path / out, lens)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in.jsonl"]


def test_an_input_of_an_overlong_name_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot be read .*File name too long.*; name another file"):
        check_source(tmp_path / ("x" * 300), tmp_path / "o.parquet", "auto")


def test_the_command_says_it_without_a_traceback_and_escape_codes_are_signs(source: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "\x1b[31mx\x9b\u202e.parquet"
    hostile.write_text("mine")
    for out, message in ((hostile, "␛[31mx⟨U+009B⟩⟨U+202E⟩.parquet is there and is not a scored run"),
                         (Path("/proc/none/out.parquet"), "cannot be made or written")):  # fmt: skip
        command = [sys.executable, "-m", "train.cli.main", "score", str(source), "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
        assert "\x1b" not in done.stderr and "\x9b" not in done.stderr


@pytest.mark.parametrize("stage", ["mkdir", "run.json", "write_table", "errors", "ParquetWriter", "lock"])
def test_a_full_disk_is_said_and_goes_on_later(
    source: Path, tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write(source, [*[plain(number) for number in range(5)], "{bad"])
    out, write_text = tmp_path / "out.parquet", Path.write_text

    def text_full(path: Path, *arguments: Any, **named: Any) -> Any:
        return full() if path.name.startswith(f"{stage}.") else write_text(path, *arguments, **named)

    with monkeypatch.context() as patched:
        if stage == "mkdir":
            patched.setattr(Path, "mkdir", full)
        elif stage == "lock":
            patched.setattr(sole_writer.os, "ftruncate", full)
        elif stage in ("write_table", "ParquetWriter"):
            patched.setattr(scored_run.pq, stage, full)
        else:
            patched.setattr(Path, "write_text", text_full)
        with pytest.raises(StoreError, match="No space left on device"):
            score_file(source, out, lens, window=2)
    assert score_file(source, out, lens, window=2).scored == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.errors.jsonl", "out.parquet"]


# -------------------------------------------------------------------------------------------------------- two writers

HOLD = (
    "import sys; from pathlib import Path\n"
    "from tests.tiny import tiny_lens; from train import score_file as module\n"
    "original = module.score_window\n"
    "def slowly(*a, **n):\n"
    "    print('scoring', flush=True); sys.stdin.readline()\n"
    "    return original(*a, **n)\n"
    "module.score_window = slowly\n"
    "module.score_file(Path(sys.argv[1]), Path(sys.argv[2]), tiny_lens(), window=4)\n"
)


def holder(source: Path, out: Path) -> subprocess.Popen[str]:
    """A process that scores, and waits for a line of input before each window; it has begun when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(source), str(out)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "scoring\n"
    return process


def test_a_second_writer_is_refused_and_the_first_is_whole(source: Path, tmp_path: Path, lens: Lens) -> None:
    out = tmp_path / "out.parquet"
    other = write(tmp_path / "other.jsonl", [plain(number) for number in range(3)])
    first = holder(source, out)
    message = f"out.parquet is being written by process {first.pid}; wait for it, or end it with SIGTERM"
    for one in (source, other):
        for resume in (True, False):
            with pytest.raises(StoreError, match=message):
                score_file(one, out, lens, window=4, resume=resume, force=True)
        with pytest.raises(StoreError, match=message):
            check_source(one, out, "auto")
    printed = first.communicate("\n\n\n", timeout=120)
    assert first.returncode == 0 and "Traceback" not in printed[1]
    score_file(source, tmp_path / "whole" / "out.parquet", lens, window=4)
    assert read_run(out).equals(read_run(tmp_path / "whole" / "out.parquet"))
    assert not (tmp_path / "out.parquet.parts").exists()


def test_an_input_that_cannot_be_read_any_more_is_said_and_goes_on_later(
    tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "many.jsonl", [plain(number) for number in range(12)])

    class Failing(io.BufferedReader):
        lines = 0

        def readline(self, size: int | None = -1) -> bytes:
            self.lines += 1
            if self.lines > 9:
                raise OSError(errno.EIO, "Input/output error")
            return super().readline(size)

    real = Path.open

    def failing(self: Path, *how: Any, **options: Any) -> Any:
        return Failing(io.FileIO(self)) if self == source and how == ("rb",) else real(self, *how, **options)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(
        DatasetError, match=r"many\.jsonl cannot be read \(Input/output error\); see whether it is still"
    ):
        score_file(source, tmp_path / "out.parquet", lens, window=4)
    monkeypatch.undo()
    assert score_file(source, tmp_path / "out.parquet", lens, window=4).continued == 8


def test_the_lock_of_a_killed_writer_is_free(source: Path, tmp_path: Path, lens: Lens) -> None:
    out = tmp_path / "out.parquet"
    first = holder(source, out)
    first.kill()
    first.communicate(timeout=60)
    assert (tmp_path / "out.parquet.parts" / ".lock").read_text() == f"{first.pid}\n"
    assert score_file(source, out, lens, window=4).scored == 11
    assert not (tmp_path / "out.parquet.parts").exists()


def test_where_there_are_no_locks_the_one_that_was_overtaken_stops(tmp_path: Path) -> None:
    first = RunWriter(tmp_path / "r.parquet", {"input_sha256": "a"})
    first.write([])
    second = RunWriter(tmp_path / "r.parquet", {"input_sha256": "a"})
    for act in (lambda: first.write([]), first.write_errors, first.finish):
        with pytest.raises(StoreError, match=r"r\.parquet\.parts: another process has taken it over; this one stops"):
            act()
    second.write([])
    assert second.done == 2 and second.finish() == 0


def test_many_writers_leave_one_whole_run(tmp_path: Path, lens: Lens) -> None:
    """24 scorings of two inputs into one file, six at a time: the run is of one input, and whole."""
    sources = [write(tmp_path / f"{n}.jsonl", [plain(number) for number in range(n)]) for n in (3, 5)]
    out = tmp_path / "out.parquet"

    def one(number: int) -> str:
        time.sleep(number % 4 * 0.01)
        try:
            return f"scored {score_file(sources[number % 2], out, lens, window=2, force=True).scored}"
        except StoreError as error:
            return str(error)

    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(one, range(24)))
    done = [one for one in told if one.startswith("scored")]
    assert done and set(done) <= {"scored 3", "scored 5"}
    assert all("is being written by process" in one for one in told if one not in done)
    assert read_run(out).num_rows == {"3.jsonl": 3, "5.jsonl": 5}[read_provenance(out)["input"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3.jsonl", "5.jsonl", "out.parquet"]
