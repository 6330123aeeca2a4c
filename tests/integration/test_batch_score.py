"""Scoring a file: every row accounted for, a killed run ends as the unbroken one, bounded batches."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irl_core.data import formats
from irl_core.data.fields import RowError
from irl_core.errors import DatasetError, InputError, StoreError
from irl_core.reward.verdict import Judged
from irl_core.scorer import Lens
from irl_core.storage import run_writer
from irl_core.storage.rows import verdict_of
from irl_core.storage.run_writer import RunWriter
from irl_core.storage.scored_run import read_provenance, read_run, read_trace
from irl_core.text.segmentation import make_trace
from tests.tiny import PROBLEM, SOLUTION
from train import score_file as batch_score
from train.score_file import check_source, score_file, windows


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def plain(number: int) -> dict[str, str]:
    text = SOLUTION if number % 2 else f"She has {number} pens.\n#### {number}"
    return {"id": f"row-{number}", "question": PROBLEM, "solution": text, "answer": "10"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", [plain(number) for number in range(11)])


def test_every_row_is_scored_in_the_order_of_the_input(source: Path, tmp_path: Path, lens: Lens) -> None:
    out = tmp_path / "deep" / "out.parquet"
    summary = score_file(source, out, lens, window=4)
    assert (summary.scored, summary.failed, summary.continued) == (11, 0, 0)
    assert summary.sentence() == f"Scored 11 solutions into {out}."
    wrong = [verdict_of(row).ruling.kind for row in read_run(out).to_pylist()].count("error")
    assert summary.verdicts["error"] == wrong and sum(summary.verdicts.values()) == 11
    answers = read_run(out).column("correct").to_pylist().count(False)
    first, then = summary.closing()[:2]
    assert first == (
        f"Wrong answers: {answers} of 11. An error is named in {wrong} of 11. "
        f"Unfamiliar: {summary.judged.unfamiliar}. Unread: 0."
    )
    silent = replace(summary, judged=Judged(traces=11, cannot=3, not_measured=0, unfamiliar=1))
    assert silent.closing()[0].endswith("Unfamiliar: 1. Without a signal: 2. Unread: 0.")
    assert then.startswith("Next: ")
    table = read_run(out).to_pydict()
    assert len(set(table["trace_id"])) == 11
    assert table["run_id"] == ["out"] * 11
    expected = [f"She has {n} pens.\n#### {n}" if n % 2 == 0 else SOLUTION for n in range(11)]
    assert table["text"] == expected
    alone = lens.score([make_trace(PROBLEM, SOLUTION)])[0]
    np.testing.assert_allclose(read_trace(out, table["trace_id"][1]).raw, alone.raw, atol=1e-5)
    assert read_provenance(out)["input"] == "in.jsonl"
    assert not (tmp_path / "deep" / "out.errors.jsonl").exists()


def test_bad_rows_are_reported_and_counted_and_the_rest_is_scored(tmp_path: Path, lens: Lens) -> None:
    rows = [plain(1), "{not json", {"question": PROBLEM}, plain(2), {**plain(3), "solution": "3 + 4 = 7. " * 99}]
    source = write(tmp_path / "in.jsonl", rows)
    summary = score_file(source, tmp_path / "out.parquet", lens)
    assert (summary.scored, summary.failed) == (2, 3)
    assert "3 could not be scored, see" in summary.sentence()
    assert "Unread: 3." in summary.closing()[0] and "mend what you can" in summary.closing()[-1]
    errors = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert [(error.get("line"), error.get("field")) for error in errors] == [(2, ""), (3, "solution"), (None, None)]
    assert "reads at most 160" in errors[2]["message"]


@pytest.mark.parametrize("stop_after", [0, 1, 2, 3])
def test_a_killed_run_ends_as_the_unbroken_one(
    source: Path, tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    whole, broken = tmp_path / "a" / "run.parquet", tmp_path / "b" / "run.parquet"
    score_file(source, whole, lens, window=4)
    original, calls = batch_score.score_window, []

    def killed(*arguments: Any, **named: Any) -> Any:
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(batch_score, "score_window", killed)
        if stop_after < 3:
            with pytest.raises(KeyboardInterrupt):
                score_file(source, broken, lens, window=4)
        else:
            patched.setattr(RunWriter, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                score_file(source, broken, lens, window=4)
    assert not broken.exists()
    calls.clear()
    monkeypatch.setattr(batch_score, "score_window", lambda *a, **n: (calls.append(1), original(*a, **n))[1])
    summary = score_file(source, broken, lens, window=4)
    assert len(calls) == 3 - stop_after
    assert (summary.scored, summary.continued) == (11, min(4 * stop_after, 11))
    assert read_run(broken).equals(read_run(whole))


def test_kill_9_in_the_middle_of_a_window(source: Path, tmp_path: Path, lens: Lens) -> None:
    out = tmp_path / "run.parquet"
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.tiny import tiny_lens; from train import score_file as batch_score\n"
        "lens, original, calls = tiny_lens(), batch_score.score_window, []\n"
        "def killed(*a, **n):\n"
        "    calls.append(1)\n"
        "    return original(*a, **n) if len(calls) < 3 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "batch_score.score_window = killed\n"
        "batch_score.score_file(Path(sys.argv[1]), Path(sys.argv[2]), lens, window=4)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code, str(source), str(out)], cwd=root, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert score_file(source, out, lens, window=4).continued == 8
    score_file(source, tmp_path / "whole" / "run.parquet", lens, window=4)
    assert read_run(out).equals(read_run(tmp_path / "whole" / "run.parquet"))


def test_killed_while_it_removes_its_parts_it_is_whole_and_nothing_is_scored_again(
    source: Path, tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run.parquet"

    def killed(folder: Path) -> None:
        if (folder / "run.json").exists():  # not before the first part
            (folder / "run.json").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_writer, "remove_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            score_file(source, out, lens, window=4)
    assert sorted(path.name for path in (tmp_path / "run.parquet.parts").iterdir())[0].startswith("part-")
    before = out.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(batch_score, "score_window", lambda *_, **__: pytest.fail("scored again"))
        summary = score_file(source, out, lens, window=4)
    assert (summary.scored, summary.failed, summary.continued) == (11, 0, 11)
    assert out.read_bytes() == before and not (tmp_path / "run.parquet.parts").exists()


def test_a_changed_input_does_not_continue(source: Path, tmp_path: Path, lens: Lens, monkeypatch: Any) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score_file(source, tmp_path / "out.parquet", lens, window=4)
    write(source, [plain(1)])
    with pytest.raises(StoreError, match="an unfinished run that differs in input_sha256"):
        score_file(source, tmp_path / "out.parquet", lens, window=4)
    assert score_file(source, tmp_path / "out.parquet", lens, window=4, resume=False).scored == 1


def test_nothing_to_score_makes_no_run(tmp_path: Path, lens: Lens) -> None:
    source = write(tmp_path / "in.jsonl", ["{broken", "[1, 2]"])
    summary = score_file(source, tmp_path / "out.parquet", lens, layout="plain")
    assert summary.scored == 0 and summary.failed == 2
    assert summary.sentence().startswith("No solution was scored; 2 could not be scored")
    assert not (tmp_path / "out.parquet").exists()


def test_windows_hold_no_more_than_their_size() -> None:
    bad = RowError("f", 1, "", "bad")
    rows = [make_trace("p", f"{number}") for number in range(5)]
    found = list(windows(iter([rows[0], bad, *rows[1:]]), 2))
    assert [(len(traces), len(errors)) for traces, errors in found] == [(2, 1), (2, 0), (1, 0)]
    only_bad = list(windows(iter([bad] * 45), 2))
    assert [len(errors) for _, errors in only_bad] == [20, 20, 5]


def test_the_file_is_read_as_it_is_scored(source: Path, tmp_path: Path, lens: Lens, monkeypatch: Any) -> None:
    """Never more than one window of traces is held: a window is scored before the next one is read."""
    events: list[str] = []
    score_window = batch_score.score_window

    def reading(*arguments: Any) -> Any:
        intake, rows = formats.read_counted(*arguments)

        def noted() -> Any:
            for row in rows:
                events.append("r")
                yield row

        return intake, noted()

    monkeypatch.setattr(batch_score, "read_counted", reading)
    monkeypatch.setattr(batch_score, "score_window", lambda *a, **n: (events.append("S"), score_window(*a, **n))[1])
    score_file(source, tmp_path / "out.parquet", lens, window=4)
    assert "".join(events) == "rrrrSrrrrSrrrS"


def test_what_cannot_be_read_or_written_is_refused_before_a_model_loads(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not there"):
        check_source(tmp_path / "missing.jsonl", tmp_path / "o.parquet", "auto")
    with pytest.raises(DatasetError, match="format 'xml' is not known"):
        check_source(source, tmp_path / "o.parquet", "xml")
    with pytest.raises(InputError, match="is the input itself"):
        check_source(source, source, "auto")
    with pytest.raises(InputError, match="is a folder"):
        check_source(source, tmp_path, "auto")
    with pytest.raises(InputError, match=r"run.csv: a scored run is a Parquet file; name it run\.parquet"):
        check_source(source, tmp_path / "run.csv", "auto")


@pytest.mark.parametrize("name", ["model_solutions_dev", "first_error_labels_dev"])
def test_real_traces_lose_no_row(shared: Path, tmp_path: Path, lens: Lens, name: str) -> None:
    lines = (shared / "data" / "traces" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:24]
    source = write(tmp_path / "in.jsonl", lines)
    summary = score_file(source, tmp_path / "out.parquet", lens)
    refused = (tmp_path / "out.errors.jsonl").read_text().splitlines() if summary.failed else []
    assert summary.scored + summary.failed == 24
    assert all("reads at most 160" in json.loads(line)["message"] for line in refused)  # the test's short context
