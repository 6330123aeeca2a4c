"""Which scored runs there are, and reading only the rows that are shown."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from app.analysis import catalogue, failures, sections
from irl_core.data.scored_rows import PROVENANCE_KEY
from irl_core.errors import StoreError
from irl_core.storage.run_writer import write_run
from irl_core.storage.schema import COLUMNS
from tests.evaluated import simulated
from tests.scored import written

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    for place in ("demo", "demo/compare", "demo/x.parquet.parts", "demo/final"):
        (folder / place).mkdir(parents=True)
    written(folder / "demo" / "run.parquet", simulated(3, 4), checkpoint="demo")
    for name in ("perturbed", "probes", "compare/start", "x.parquet.parts/part-000000", "final/odd"):
        written(folder / "demo" / f"{name}.parquet", simulated(1, 1))
    written(folder / "labels.parquet", simulated(2, 1))
    written(folder / "probes.parquet", simulated(2, 1))  # beside no run of its own: a run like any other
    return folder


def test_runs_are_found_by_name_and_their_neighbours_are_not(root: Path) -> None:
    found = {info.name: info for info in catalogue.catalogue([root])}
    assert list(found) == ["demo", "labels", "probes"]
    assert found["demo"].rows == 12 and found["demo"].provenance == {"checkpoint": "demo"}
    assert catalogue.find("demo", [root]).path == root / "demo" / "run.parquet"
    with pytest.raises(StoreError, match="no scored run of that name") as refused:
        catalogue.find("../etc", [root])
    assert "etc" not in str(refused.value)


def test_the_bundled_run_is_first() -> None:
    assert catalogue.catalogue()[0].path == ROOT / "assets" / "scored_run" / "run.parquet"


def test_one_name_in_two_folders_stays_apart(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    written(other / "labels.parquet", simulated(1, 1))
    names = [info.name for info in catalogue.catalogue([root, other])]
    assert names == ["demo", "labels", "probes", "other/labels"]


def test_links_out_of_the_folder_are_passed_over(root: Path, tmp_path: Path) -> None:
    outside = written(tmp_path / "outside.parquet", simulated(1, 1))
    (root / "link.parquet").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    (root / "within.parquet").symlink_to(root / "labels.parquet")
    assert [info.name for info in catalogue.catalogue([root])] == ["demo", "labels", "probes", "within"]


def test_a_broken_file_is_listed_with_its_reason(root: Path) -> None:
    (root / "broken.parquet").write_bytes(b"PAR1")
    pq.write_table(pq.read_table(root / "labels.parquet").replace_schema_metadata(None), root / "foreign.parquet")
    found = {info.name: info for info in catalogue.catalogue([root])}
    assert found["broken"].reason.startswith("broken.parquet: is not a readable Parquet file")
    assert "not a scored run" in found["foreign"].reason
    with pytest.raises(StoreError, match=r"broken\.parquet"):
        catalogue.find("broken", [root])


def with_provenance(path: Path, written: bytes | None) -> None:
    """A whole scored run but for the bytes of its provenance; None: it has none."""
    table = pq.read_table(written_run(path))
    metadata = dict(table.schema.metadata) | {PROVENANCE_KEY: written or b""}
    if written is None:
        del metadata[PROVENANCE_KEY]
    pq.write_table(table.replace_schema_metadata(metadata), path)


def written_run(path: Path) -> Path:
    return written(path, simulated(2, 1))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (None, "its provenance is not JSON"),
        (b"", "its provenance is not JSON"),
        (b"{", "its provenance is not JSON"),
        (b"\xff\xfe", "its provenance is not JSON"),
        (b"[" * 100_000, "its provenance is not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "its provenance is not JSON"),
        (b'{"checkpoint": "\\ud800"}', "its provenance is not JSON"),
        (b"[1]", "its provenance is not a JSON object"),
        (b'"demo"', "its provenance is not a JSON object"),
        (b"null", "its provenance is not a JSON object"),
    ],
)
def test_one_bad_provenance_is_named_and_left_out(root: Path, bad: bytes | None, said: str) -> None:
    with_provenance(root / "bad.parquet", bad)
    found = {info.name: info for info in catalogue.catalogue([root])}
    assert found["bad"].reason.startswith(f"bad.parquet: {said}") and not found["demo"].reason
    with pytest.raises(StoreError, match=said):
        sections.sample(root / "bad.parquet")


def test_a_run_that_lacks_a_column_and_a_name_that_is_no_text_are_left_out(root: Path) -> None:
    table = pq.read_table(written_run(root / "short.parquet"))
    pq.write_table(table.drop_columns(["trace_id", "kind"]), root / "short.parquet")
    os.rename(written_run(root / "odd.parquet"), os.fsencode(root) + b"/odd\xff.parquet")
    found = {info.name: info.reason for info in catalogue.catalogue([root])}
    assert found["short"] == "short.parquet: has no column trace_id, kind; score the input again"
    assert found["odd?"].startswith("its name is not text in UTF-8") and not found["demo"]


def test_a_file_damaged_anywhere_is_said_and_the_others_are_there(root: Path) -> None:
    """Some bytes are changed at 150 places, half of them in the footer, which holds schema, statistics and metadata."""
    whole = written_run(root / "bad.parquet").read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    rng = random.Random(0)
    said = 0
    for trial in range(150):
        damaged = bytearray(whole)
        start = rng.randrange(*((footer, len(whole) - 8) if trial % 2 else (4, footer)))
        damaged[start : start + rng.choice([1, 8, 40])] = rng.randbytes(min(rng.choice([1, 8, 40]), len(whole) - start))
        (root / "bad.parquet").write_bytes(damaged)
        found = {info.name: info for info in catalogue.catalogue([root])}
        assert not found["demo"].reason
        said += bool(found["bad"].reason)
        for read in (catalogue.index, lambda info: catalogue.rows(info, [0, 1], ["text"]), failures_words):
            try:
                read(found["bad"])
            except StoreError as error:
                assert str(error).startswith("bad.parquet: ")
                said += 1
    assert said > 50


def failures_words(info: catalogue.RunInfo) -> list[int]:
    return failures.rows_with_words(info, "pen", in_ids=True)


def test_a_changed_file_has_another_key(root: Path) -> None:
    before = catalogue.find("labels", [root]).key
    written(root / "labels.parquet", simulated(2, 2))
    assert catalogue.find("labels", [root]).key != before


# ------------------------------------------------------------------------------------------------------------- rows


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> catalogue.RunInfo:
    """1,300 rows in three row groups; the score is the number backwards, every 13th row has none."""
    rows = [
        dict.fromkeys(COLUMNS.names) | {
            "trace_id": f"t{i}", "problem_id": f"p{i % 100}", "text": f"text {i}", "correct": i % 3 == 0,
            "score_mean": None if i % 13 == 0 else float(1300 - i), "length": i % 7, "prompt_reward": 0.0,
        }
        for i in range(1300)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("large") / "run.parquet"
    write_run(path, rows, {})
    return catalogue.catalogue([path.parent])[0]


def plain_loop(keep: Any, key: Any, descending: bool) -> list[int]:
    chosen = [i for i in range(1300) if keep(i)]
    known = [i for i in chosen if key(i) is not None]
    return sorted(known, key=lambda i: (-key(i) if descending else key(i), i)) + [i for i in chosen if key(i) is None]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["score_mean", "length", "row"])
def test_filtered_and_sorted_as_a_plain_loop_would(large: catalogue.RunInfo, sort: str, descending: bool) -> None:
    table = catalogue.index(large)
    keys = {
        "score_mean": lambda i: None if i % 13 == 0 else 1300 - i, "length": lambda i: i % 7, "row": lambda i: i,
    }  # fmt: skip
    found = catalogue.numbers(table, pc.field("correct") & (pc.field("length") > 2), sort, descending)
    assert found == plain_loop(lambda i: i % 3 == 0 and i % 7 > 2, keys[sort], descending)
    assert catalogue.numbers(table, None, sort, among=[7, 3]) == sorted([7, 3], key=lambda i: (keys[sort](i), i))


def test_a_page_is_read_from_its_row_groups_alone(large: catalogue.RunInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def noted(self: Any, group: int, **named: Any) -> Any:
        read.append(group)
        return real(self, group, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    numbers = catalogue.numbers(catalogue.index(large), pc.field("correct"))
    rows = catalogue.rows(large, numbers[2:5], ["trace_id", "text"])
    assert (rows["text"].tolist(), len(numbers)) == (["text 6", "text 9", "text 12"], 434)
    assert read == [0]
    assert catalogue.rows(large, [1299, 5], ["trace_id"])["trace_id"].tolist() == ["t1299", "t5"]
    assert read == [0, 0, 2]


def test_rows_that_are_gone_are_said(large: catalogue.RunInfo) -> None:
    with pytest.raises(StoreError, match="was written anew while it was read"):
        catalogue.rows(large, [1300], ["trace_id"])
    assert catalogue.rows(large, [], ["trace_id"]).empty
    assert catalogue.row(large, "t7")["text"] == "text 7"
    assert catalogue.row(large, "missing") is None
    assert catalogue.numbered_row(large, 1299) == catalogue.row(large, "t1299")
    with pytest.raises(StoreError, match="was written anew"):
        catalogue.numbered_row(large, 1300)


def test_rows_of_an_earlier_release_are_shown() -> None:
    old = catalogue.RunInfo("old", ROOT / "tests" / "golden" / "scored_run.parquet")
    table = catalogue.index(old)
    shown = catalogue.rows(old, [0], ["trace_id", "score_credit_minimum", "text"])
    assert shown["trace_id"][0] == table.column("trace_id")[0].as_py()
    assert shown["score_credit_minimum"][0] == table.column("score_credit_minimum")[0].as_py()
