"""Scored runs: what is written is what is read; versions, parts, kills and full disks."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from irl_core.errors import StoreError
from irl_core.storage import run_writer, schema, scored_run
from irl_core.storage.rows import localisation_of, row_of
from irl_core.storage.run_writer import RunWriter, is_leftover, write_run
from irl_core.storage.schema import COLUMNS, SUMMARY_COLUMNS
from irl_core.storage.scored_run import read_provenance, read_row, read_run, read_trace
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Localisation, ScoredTrace, Source, Standardisation, Truth
from train.evaluate.resumable import Part, Stage, write
from train.score_file import ScoredRows

PROVENANCE = {"command": "test", "created": "2026-01-01"}


def scored_trace(number: int = 0, **changes: Any) -> ScoredTrace:
    text = "2 + 3 = 6\n7 pens\n#### 6"
    trace = make_trace("How many?", text, reference_answer="5", trace_id=f"t-{number}", problem_id="p-1")
    known = {"truth": Truth(0, "slip"), "extra": {"family": "prices", "model": "m"}}
    trace = replace(trace, **(known | changes))
    encoded = EncodedTrace(trace, (5, 6), (10, 11, 12), ((0, 9), (9, 17), (17, len(text))))
    raw, logprobs = np.array([1.0, -2.0, 0.5], np.float32), np.array([-1.0, -3.0, -0.5], np.float32)
    return ScoredTrace(encoded, raw, logprobs, 0.25, Standardisation(0.5, 2.0, "held-out"), "demo")


WHERE = Localisation("error", 1, 0.5, "raw/min", -1.5, (1.0, -2.0, math.nan))


def rows(count: int) -> list[dict[str, Any]]:
    return [row_of(scored_trace(number), WHERE, run_id="run") for number in range(count)]


def same(one: ScoredTrace, other: ScoredTrace) -> bool:
    arrays = np.array_equal(one.raw, other.raw) and np.array_equal(one.logprobs, other.logprobs)
    rest = (one.encoded, one.prompt_reward, one.standardisation, one.checkpoint)
    return arrays and rest == (other.encoded, other.prompt_reward, other.standardisation, other.checkpoint)


def test_row_by_hand() -> None:
    row = row_of(scored_trace(), WHERE, run_id="run", gamma=0.5)
    assert set(row) == set(COLUMNS.names)
    assert (row["true_first_error_step"], row["kind"], row["family"], row["correct"]) == (0, "slip", "prices", False)
    assert (row["decision"], row["predicted_step"], row["n_steps"], row["length"]) == ("error", 1, 3, 3)
    assert (row["score_min"], row["score_last"], row["score_credit_sum"]) == (-2.0, 0.5, 0.25)  # 0.5 - 0.25
    assert row["score_mean"] == pytest.approx(-1 / 6)  # (1 - 2 + 0.5) / 3
    # standardised 0.25, -1.25, 0; discounted -0.375, -1.25, 0
    assert row["score_mean_discounted"] == pytest.approx(-1.625 / 3)
    assert (row["log_prob_mean"], row["log_prob_min"]) == (-1.5, -3.0)
    assert (row["arithmetic_false"], row["arithmetic_first_false_step"]) == (1, 0)
    assert [step["score"] for step in row["steps"]] == [1.0, -2.0, None]
    assert row["extra"] == [("model", "m")]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"truth": None, "correct": None, "reference_answer": None},
        {"truth": Truth(None)},
        {"token_ids": (10, 11, 12), "logprobs": (-1.0, -3.0, -0.5), "source": Source.POLICY, "finished": False},
    ],
)
def test_what_is_written_is_what_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    scored = scored_trace(**changes)
    write_run(tmp_path / "run.parquet", [row_of(scored, WHERE, run_id="run")], PROVENANCE)
    row = read_row(tmp_path / "run.parquet", "t-0")
    assert same(read_trace(tmp_path / "run.parquet", "t-0"), scored)
    found = localisation_of(row)
    assert (found.decision, found.first_error_step, found.step_scores[:2]) == ("error", 1, (1.0, -2.0))
    assert math.isnan(found.step_scores[2])


def test_what_else_the_calibration_says_of_the_decision_is_kept(tmp_path: Path) -> None:
    where = replace(WHERE, uncertain_threshold=-0.5, score_tells=False)
    endless = replace(WHERE, uncertain_threshold=math.inf)  # as where held-out solutions are too few
    rows = [row_of(scored_trace(number), one, run_id="r") for number, one in enumerate((where, endless))]
    write_run(tmp_path / "r.parquet", rows, PROVENANCE)
    first, second = (localisation_of(read_row(tmp_path / "r.parquet", f"t-{number}")) for number in (0, 1))
    assert (first.uncertain_threshold, first.score_tells) == (-0.5, False)
    assert (second.uncertain_threshold, second.score_tells) == (None, True)


def test_unknown_and_no_error_are_told_apart(tmp_path: Path) -> None:
    traces = [scored_trace(0), scored_trace(1, truth=None), scored_trace(2, truth=Truth(None))]
    write_run(tmp_path / "r.parquet", [row_of(one, WHERE, run_id="r") for one in traces], PROVENANCE)
    assert read_run(tmp_path / "r.parquet").column("true_first_error_step").to_pylist() == [0, None, -1]


def test_columns_and_filters(tmp_path: Path) -> None:
    write_run(tmp_path / "r.parquet", rows(5), PROVENANCE)
    table = read_run(tmp_path / "r.parquet", ["trace_id"], pc.field("trace_id") > "t-2")
    assert table.to_pydict() == {"trace_id": ["t-3", "t-4"]}
    assert set(SUMMARY_COLUMNS) < set(COLUMNS.names)
    with pytest.raises(StoreError, match=r"r\.parquet: no column colour; there are run_id"):
        read_run(tmp_path / "r.parquet", ["colour"])


def test_text_that_is_hard_to_keep(tmp_path: Path) -> None:
    text = "NUL \x00 \u202e 😀 $5 <b>\r\n=cmd()"
    scored = scored_trace()
    trace = make_trace("p", text, trace_id="hard")
    encoded = EncodedTrace(trace, (1,), (2, 3, 4), ((0, 3), (3, 5), (5, len(text))))
    where = Localisation("uncertain", None, 0.0, "raw/min", 0.0, tuple(0.0 for _ in trace.steps))
    write_run(tmp_path / "r.parquet", [row_of(replace(scored, encoded=encoded), where, run_id="r")], PROVENANCE)
    assert read_trace(tmp_path / "r.parquet", "hard").trace == trace


def test_not_finite_rewards_survive(tmp_path: Path) -> None:
    scored = replace(scored_trace(), raw=np.array([np.nan, np.inf, 0.0], np.float32))
    row = row_of(scored, WHERE, run_id="r")
    assert row["score_mean"] is None
    write_run(tmp_path / "r.parquet", [row], PROVENANCE)
    np.testing.assert_array_equal(read_trace(tmp_path / "r.parquet", "t-0").raw, scored.raw)


def test_another_schema_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    table = pa.Table.from_pylist(rows(1), schema=COLUMNS).replace_schema_metadata({scored_run.VERSION_KEY: b"99"})
    pq.write_table(table, path)
    with pytest.raises(StoreError, match="has schema version 99; this program reads versions 2 and 3"):
        read_run(path)


def test_files_that_are_no_run(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(StoreError, match="but not a scored run"):
        read_run(tmp_path / "other.parquet")
    with pytest.raises(StoreError, match="is not a readable Parquet file"):
        read_run(tmp_path / "broken.parquet")
    with pytest.raises(StoreError, match="there is no such run"):
        read_run(tmp_path / "missing.parquet")
    write_run(tmp_path / "r.parquet", rows(1), PROVENANCE)
    with pytest.raises(StoreError, match="no solution 'missing'"):
        read_trace(tmp_path / "r.parquet", "missing")


def test_a_stopped_run_goes_on_and_ends_as_the_same_file(tmp_path: Path) -> None:
    everything = rows(6)
    whole, broken = tmp_path / "whole.parquet", tmp_path / "broken.parquet"
    writer = RunWriter(whole, PROVENANCE)
    for start in (0, 2, 4):
        writer.write(everything[start : start + 2], [{"line": start}])
    assert writer.finish() == 6
    RunWriter(broken, PROVENANCE).write(everything[:2], [{"line": 0}])
    (tmp_path / "broken.parquet.parts" / ".part-000001.parquet.tmp").write_bytes(b"cut off")
    second = RunWriter(broken, {**PROVENANCE, "created": "2026-01-02"})
    assert second.done == 1
    second.write(everything[2:4], [{"line": 2}])
    second.write(everything[4:])
    assert [error["line"] for error in second.errors()] == [0, 2]
    assert second.rows() == 6
    assert not broken.exists()
    second.finish()
    assert broken.read_bytes() == whole.read_bytes()
    assert read_provenance(broken) == PROVENANCE
    assert not (tmp_path / "broken.parquet.parts").exists()


def test_kill_at_every_removal_of_the_parts_leaves_a_whole_run(tmp_path: Path) -> None:
    """A writer that is killed before each removal in turn: the run is whole, what is left of its parts is none."""
    everything, outcomes = rows(6), []
    for point in range(12):
        path = tmp_path / f"{point}.parquet"
        pid = os.fork()
        if not pid:
            try:
                writer = RunWriter(path, PROVENANCE)
                for start in (0, 2, 4):
                    writer.write(everything[start : start + 2], [{"line": start}])
                writer.write_errors()
                removed, unlink = 0, Path.unlink

                def killed(self: Path, missing_ok: bool = False) -> None:
                    nonlocal removed
                    if removed == point:  # noqa: B023
                        os.kill(os.getpid(), signal.SIGKILL)
                    removed += not self.name.endswith(".tmp")
                    unlink(self, missing_ok)  # noqa: B023

                Path.unlink = killed  # type: ignore[method-assign,assignment]
                writer.finish()
            finally:
                os._exit(0)
        status = os.waitpid(pid, 0)[1]
        outcomes.append(os.WIFSIGNALED(status))
        assert read_run(path).num_rows == 6
        left = sorted(one.name for one in (tmp_path / f"{point}.parquet.parts").glob("*"))
        assert is_leftover(path, {**PROVENANCE, "created": "later"}) == (bool(left) and "run.json" not in left), left
        assert not is_leftover(path, {**PROVENANCE, "checkpoint": "another"})
        again = RunWriter(path, PROVENANCE)  # whoever begins anew has all parts, or none
        assert again.done == (3 if "run.json" in left else 0)
    assert outcomes == [True] * outcomes.count(True) + [False] * outcomes.count(False)
    assert outcomes.count(True) == 1 + 3 * 2  # the marker, and a part with its refused rows thrice


def test_what_a_kill_left_of_the_parts_of_an_evaluation_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    progress: Any = Mock()
    stage = Stage(path, "scoring", PROVENANCE, 2, [Part(2, lambda on_step: ScoredRows(rows(2), []))])
    assert write(stage, progress) == 2 and not (tmp_path / "run.parquet.parts").exists()
    (tmp_path / "run.parquet.parts").mkdir()
    for name in ("part-000000.parquet", "part-000000.errors.jsonl", "run.json.7-abc.tmp"):
        (tmp_path / "run.parquet.parts" / name).write_text("left")
    before = path.read_bytes()
    assert write(stage, progress) == 2 and path.read_bytes() == before
    assert not (tmp_path / "run.parquet.parts").exists()


def test_another_input_does_not_continue_a_run(tmp_path: Path) -> None:
    RunWriter(tmp_path / "r.parquet", {**PROVENANCE, "input_sha256": "a"}).write(rows(1))
    other = {**PROVENANCE, "input_sha256": "b"}
    with pytest.raises(StoreError, match=r"an unfinished run that differs in input_sha256.*--no-resume"):
        RunWriter(tmp_path / "r.parquet", other)
    assert RunWriter(tmp_path / "r.parquet", other, resume=False).done == 0


def test_a_part_that_is_missing_is_made_again_and_no_run_is_merged_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, everything = RunWriter(tmp_path / "r.parquet", PROVENANCE), rows(4)
    for start in (0, 2):
        writer.write(everything[start : start + 2])
    (writer.parts / "part-000000.parquet").unlink()
    again = RunWriter(tmp_path / "r.parquet", PROVENANCE)
    assert again.there == {1}
    for merge in (again.finish, again.write_errors):
        with pytest.raises(StoreError, match="parts are missing; the same command makes them"):
            merge()
    monkeypatch.setattr(run_writer, "SECONDS_TO_BE_SEEN", 0.0)
    with pytest.raises(StoreError, match="1 of 2 parts are missing, the first is 0"):
        again.whole(2)
    with pytest.raises(StoreError, match="2 of 3 parts are missing, the first is 0"):
        again.whole(3)
    again.write(everything[:2], number=0)
    again.whole(2)
    assert again.finish() == 4
    write_run(tmp_path / "whole.parquet", everything, PROVENANCE)
    assert read_run(tmp_path / "r.parquet").equals(read_run(tmp_path / "whole.parquet"))


def test_a_process_joins_the_run_that_another_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RunWriter(tmp_path / "r.parquet", PROVENANCE)
    second = RunWriter(tmp_path / "r.parquet", {**PROVENANCE, "created": "later"}, owner=first.owner)
    assert second.provenance == PROVENANCE
    second.write(rows(2), [{"line": 9}], number=1)
    first.write(rows(1), number=0)
    first.whole(2)
    assert first.write_errors() == 1 and first.finish() == 3
    monkeypatch.setattr(run_writer, "SECONDS_TO_BE_SEEN", 0.0)
    with pytest.raises(StoreError, match=r"is not seen from process .*name an --out on storage that all machines"):
        RunWriter(tmp_path / "r.parquet", PROVENANCE, owner=first.owner)


def test_a_full_disk_says_so_and_keeps_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path / "r.parquet", PROVENANCE)
    writer.write(rows(2))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(scored_run.pq, "write_table", full)
        with pytest.raises(
            StoreError, match=r"part-000001.parquet could not be written \(No space left on device\); free space"
        ):
            writer.write(rows(1))
    again = RunWriter(tmp_path / "r.parquet", PROVENANCE)
    assert again.done == 1 and again.finish() == 2
    assert not list(tmp_path.glob("**/*.tmp"))


def test_one_trace_of_many_reads_one_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.parquet"
    row = rows(1)[0]
    write_run(path, [{**row, "trace_id": f"t-{number}"} for number in range(3 * scored_run.ROWS_PER_GROUP)], PROVENANCE)
    assert pq.ParquetFile(path).num_row_groups == 3
    whole: list[int] = []
    original = pq.ParquetFile.read_row_group

    def counted(self: Any, group: int, *arguments: Any, **named: Any) -> Any:
        if len(named["columns"]) > 1:
            whole.append(group)
        return original(self, group, *arguments, **named)

    monkeypatch.setattr(scored_run.pq.ParquetFile, "read_row_group", counted)
    assert read_trace(path, f"t-{scored_run.ROWS_PER_GROUP + 5}").trace.trace_id == f"t-{scored_run.ROWS_PER_GROUP + 5}"
    assert whole == [1]


def test_provenance_is_json(tmp_path: Path) -> None:
    write_run(tmp_path / "r.parquet", rows(1), {"n": 1, "nested": {"a": [1, 2]}})
    assert read_provenance(tmp_path / "r.parquet") == {"n": 1, "nested": {"a": [1, 2]}}
    for name in ("true_first_error_step", "predicted_step", "arithmetic_first_false_step"):  # pages count from 1
        said = pq.read_schema(tmp_path / "r.parquet").field(name).metadata
        assert said[b"description"].startswith(b"index of a step, from 0")
    metadata = pq.read_schema(tmp_path / "r.parquet").metadata
    assert json.loads(metadata[scored_run.VERSION_KEY]) == schema.SCHEMA_VERSION == 6
