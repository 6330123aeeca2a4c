"""Uploads: what is taken, what is refused in words, and that a name never becomes a path."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from app.analysis import uploads
from app.analysis.catalogue import catalogue
from app.analysis.upload_records import UploadRecord, read_record
from app.analysis.uploads import SAMPLE, UploadError, arguments, check, clean_title, keep
from irl_core.data.fields import RowError
from irl_core.data.formats import read
from irl_core.types import Trace


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_is_taken_whole() -> None:
    assert check(SAMPLE.encode(), "auto") == uploads.Checked(2, 2, (), 0)


def test_the_same_upload_twice_at_once_is_kept_once() -> None:
    def kept(_: int) -> str:
        try:
            return keep(SAMPLE.encode(), "mine", "ada", check(SAMPLE.encode(), "auto"), "auto").name
        except UploadError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(kept, range(8)))
    name = clean_title("mine", SAMPLE.encode())
    record = read_record(uploads.FOLDER / name)
    assert record is not None and re.fullmatch(r"mine \(uploaded \d{4}-\d\d-\d\d \d\d:\d\d UTC\)", record.words)
    assert sorted(told) == sorted(
        [name, *[f"these solutions are here already, as {record.words}; give another title"] * 7]
    )
    assert [one.name for one in uploads.FOLDER.iterdir()] == [name]
    assert (uploads.FOLDER / name / uploads.TRACES).read_text() == SAMPLE


def test_rows_that_cannot_be_scored_are_named_by_line() -> None:
    found = check((SAMPLE + '{"question": "Why?"}\nnot json\n').encode(), "plain")
    assert (found.traces, found.faulty) == (2, 2)
    assert found.faults[0].startswith("line 3") and found.faults[1].startswith("line 4: not JSON")


def test_every_row_left_out_is_counted_once_with_its_reason_and_the_file_has_its_own_name() -> None:
    data = b'question,solution,answer\n"Q\n?",,1\n,7,7\n,8,8\nQ,"a\nb"\nQ,#### 60,sixty\n'
    found = check(data, "auto", "mine.csv")
    assert (found.traces, found.faulty, found.name, found.file) == (1, 4, "mine.csv", "traces.csv")
    assert found.losses == (
        "Left out: 2 rows, question: empty (first: mine.csv, line 4).",
        "Left out: 1 row, solution: empty (first: mine.csv, line 2).",
        "Left out: 1 row, too few cells (... of ...); give every column one, which may be empty (first: mine.csv, "
        "line 6).",
    )
    assert "such as 'sixty' with '60'" in found.intake[1]
    with pytest.raises(UploadError, match=r"^x{29}\u2026x{25}\.json: not readable as a JSON array"):
        check(b"[", "plain", "x" * 300 + ".json")


def test_an_upload_is_listed_by_its_title_and_its_file_by_its_own_name(here: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"question": ["Q"], "solution": ["#### 1"]}), here / "given.parquet")
    data = (here / "given.parquet").read_bytes()
    folder = keep(data, "My run\n2", "ann", check(data, "auto", "a\u202eb.parquet"), "auto")
    record = read_record(folder)
    assert record is not None and (record.title, record.file) == ("My run 2", "a\\u202eb.parquet")
    assert catalogue([here / "runs"]) == []  # the table that was given is no run
    (folder / uploads.RUN).write_bytes(data)
    twin = here / "runs" / "uploads" / "twin"
    shutil.copytree(folder, twin)
    first, second = catalogue([here / "runs"])
    assert first.title == f"{record.words} (uploads/{folder.name})" and second.title == f"{record.words} (uploads/twin)"
    (twin / "upload.json").write_text('{"title": 1}')
    alone, unknown = catalogue([here / "runs"])
    assert (alone.listed, unknown.listed) == (record.words, "uploads/twin")


def arrow(path: Path, form: Any, rows: list[dict[str, Any]], compression: str | None = None) -> bytes:
    table = pa.Table.from_pylist(rows)
    with form(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return path.read_bytes()


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_an_arrow_file_is_taken_in_both_of_its_forms_and_scored_by_the_same_reader(here: Path, form: Any) -> None:
    rows = [{"question": "Q", "solution": "#### 1", "answer": "1"}, {"question": "Q", "solution": "", "answer": "1"}]
    data = arrow(here / "data-00000-of-00001.arrow", form, rows)
    found = check(data, "auto", "data-00000-of-00001.arrow")
    assert (found.traces, found.faulty, found.file) == (1, 1, "traces.arrow")
    folder = keep(data, "mine", "ann", found, "auto")
    asked = arguments(folder, Path("runs/c"), "cpu", "auto", found)
    (trace, error) = read(Path(asked[1]))
    assert isinstance(trace, Trace) and (trace.problem, trace.correct) == ("Q", True) and isinstance(error, RowError)
    for compression in ("lz4", "zstd"):
        with pytest.raises(UploadError, match="the Arrow file is compressed; save it without compression"):
            check(arrow(here / "small.arrow", form, rows * 50, compression), "auto", "small.arrow")
    with pytest.raises(UploadError, match=r"^cut\.arrow is not an Arrow file that can be read"):
        check(data[:40], "plain", "cut.arrow")


def test_a_small_table_of_rows_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr(uploads, "MOST_ROWS", 10)
    data = arrow(here / "a.arrow", pa.ipc.new_stream, [{"question": "", "solution": ""}] * 11)
    with pytest.raises(UploadError, match=r"over 10 rows; 20,000 solutions are the limit: upload it in parts"):
        check(data, "plain", "a.arrow")


@pytest.mark.parametrize("about", [b"", b"[]", b"\xff", b'{"title": "a", "created": "now"}', b" " * 200_000])
def test_a_record_that_cannot_be_read_is_none(here: Path, about: bytes) -> None:
    (here / "upload.json").write_bytes(about)
    assert read_record(here) is None and read_record(here / "nowhere") is None


def test_a_record_without_the_name_of_its_file_is_read(here: Path) -> None:
    (here / "upload.json").write_text('{"title": "a", "created": "2026-01-02T04:04:05+01:00"}')
    record = read_record(here)
    assert isinstance(record, UploadRecord) and (record.words, record.file) == ("a (uploaded 2026-01-02 03:04 UTC)", "")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"\x80\x04\x95\0\0\0\0pickle", "the file is no text"),
        (b"x" * 5_000_001, r"the file has 5,000,001 bytes; the limit is 5,000,000: upload it in parts"),
        (b"\xff\xfe\xfa", "text in UTF-16; save the file as UTF-8"),
        (b'{"question": ""}\n', "no row can be scored|format"),
        (b"[1, 2, 3]", "no row|format"),
        (b"{" * 4_000_000, "no row|format|not JSON"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_words(data: bytes, said: str) -> None:
    with pytest.raises(UploadError, match=said) as refused:
        check(data, "plain")
    assert "/tmp" not in str(refused.value)


def test_an_unknown_format_is_told_in_the_words_of_the_page() -> None:
    with pytest.raises(UploadError) as refused:
        check(b'no JSON at all\n{"trace_id": "1"}\n', "auto", "mine.jsonl")
    assert str(refused.value) == (
        "the format is not recognised (its fields are trace_id; line 1: not JSON (Expecting value, column 1)); "
        "question and solution are expected: under 'Columns with other names' say which they are, as question=COLUMN, "
        "solution=COLUMN, and, if you have the right answers, answer=COLUMN: without them no solution is known to be "
        "right or wrong"
    )
    with pytest.raises(UploadError, match=r"mine\.jsonl has no column prompt; it has trace_id"):
        check(b'{"trace_id": "1"}\n', "auto", "mine.jsonl", "question=prompt")


def test_more_traces_than_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_TRACES", 1)
    with pytest.raises(UploadError, match="the file holds 2 solutions; the limit is 1: upload it in parts"):
        check(SAMPLE.encode(), "auto")
    with pytest.raises(UploadError, match="the format is 'pickle'; it is one of auto"):
        check(SAMPLE.encode(), "pickle")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("My run (2)", "my-run-2"), ("../../etc/passwd", "etc-passwd"), ("a\0b\n$(rm)", "a-b-rm"),
        ("\u202e", "solutions"), ("", "solutions"),
        ("x" * 500, "x" * 40), (".hidden", "hidden"), ("<img src=x>", "img-src-x"),
    ],
)  # fmt: skip
def test_a_title_becomes_a_name_and_no_path(given: str, words: str) -> None:
    # sha256('data') = 3a6eb079...
    assert clean_title(given, b"data") == f"{words}-3a6eb079"


def test_an_upload_is_kept_whole_in_a_folder_of_its_own(here: Path) -> None:
    data = SAMPLE.encode()
    folder = keep(data, "../../outside", "ann", check(data, "auto"), "auto")
    assert folder.resolve().parent == here / "runs" / "uploads"
    assert (folder / "traces.jsonl").read_bytes() == data
    about = json.loads((folder / "upload.json").read_text())
    assert (about["title"], about["who"], about["traces"]) == ("../../outside", "ann", 2)
    with pytest.raises(UploadError, match=r"these solutions are here already, as \.\./\.\./outside \(uploaded "):
        keep(data, "../../outside", "bob", check(data, "auto"), "auto")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_full_disk_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    data = SAMPLE.encode()
    checked = check(data, "auto")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UploadError, match=r"could not be kept \(No space left on device\); nothing of it stays"):
        keep(data, "t", "ann", checked, "auto")
    assert list((here / "runs" / "uploads").iterdir()) == []


def test_all_uploads_together_have_a_limit_on_the_disk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = SAMPLE.encode()
    checked = check(data, "auto")
    first = keep(data, "first", "ann", checked, "auto")
    (first / uploads.RUN).write_bytes(bytes(3_000_000))  # the run that was scored of it counts too
    monkeypatch.setattr(uploads, "MOST_KEPT_BYTES", 3_000_000)
    with pytest.raises(UploadError, match=r"uploads kept here take 3 MB; the limit is 3 MB: ask .* from runs/uploads"):
        keep(data, "second", "ann", checked, "auto")
    (first / uploads.RUN).unlink()
    assert keep(data, "second", "ann", checked, "auto").is_dir()


def test_an_upload_that_another_process_takes_away_meanwhile_does_not_count(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SAMPLE.encode()
    keep(data, "first", "ann", check(data, "auto"), "auto")
    kept, walk = uploads.kept_bytes(), os.walk
    assert kept > len(data)
    (here / uploads.FOLDER / ".other.new").mkdir()
    (here / uploads.FOLDER / ".other.new" / "traces.jsonl").write_bytes(data)

    def vanishing(top: Path) -> Any:
        for found in walk(top):
            shutil.rmtree(here / uploads.FOLDER / ".other.new", ignore_errors=True)
            yield found

    monkeypatch.setattr(os, "walk", vanishing)
    assert uploads.kept_bytes() == kept


def test_the_command_names_whole_paths(here: Path) -> None:
    found = arguments(Path("runs/uploads/x"), Path("runs/c"), "cpu", "plain")
    assert found == [
        "score", str(here / "runs/uploads/x/traces.jsonl"), "--out", str(here / "runs/uploads/x/run.parquet"),
        "--checkpoint", str(here / "runs/c"), "--device", "cpu", "--format", "plain",
    ]  # fmt: skip


def test_a_hundred_thousand_lines_are_refused_with_the_limit() -> None:
    data = b'{"problem":"p","solution":"1"}\n' * 100_000
    with pytest.raises(UploadError, match="the file holds 100,000 solutions; the limit is 20,000: upload it in parts"):
        check(data, "plain")


def test_an_id_given_twice_names_two_traces(here: Path) -> None:
    rows = [{"id": "a", "problem": "p", "solution": "1"}, {"id": "a", "problem": "q", "solution": "2"}]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    folder = keep(data, "twice", "ann", check(data, "auto"), "auto")
    ids = [getattr(row, "trace_id", None) for row in read(folder / uploads.TRACES)]
    assert ids == ["a", "a-L2"]
