"""An evaluated run is opened from its folder or from one file, without a model and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from irl_core.errors import StoreError
from irl_core.evaluation.evaluated_run import load
from irl_core.storage.run_writer import write_run
from irl_core.storage.schema import SCHEMA_VERSION, SUMMARY_COLUMNS
from irl_core.storage.scored_run import VERSION_KEY, read_batches

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "scored_run.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An evaluation of eight traces, its files written by this version, with a compared policy and a training run."""
    rows = [row for table in read_batches(GOLDEN) for row in table.to_pylist()]
    write_run(tmp_path / "run.parquet", rows, {"checkpoint": "demo", "seed": 3})
    corrupted = [{**row, "source": "perturbed", "perturbed_kind": "offset", "perturbed_from_token": 4} for row in rows]
    write_run(tmp_path / "perturbed.parquet", corrupted[:2], {})
    write_run(tmp_path / "probes.parquet", [{**rows[0], "probe": "padding"}], {})
    (tmp_path / "compare").mkdir()
    write_run(tmp_path / "compare" / "start.parquet", rows[:4], {})
    lines = ('{"step": 1, "disc/loss": 0.7}', '{"step": 2, "disc/loss": 0.6}', '{"step": 3, "di')
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_a_folder(folder: Path) -> None:
    run = load(folder)
    assert run.path == folder / "run.parquet" and run.provenance == {"checkpoint": "demo", "seed": 3}
    assert list(run.frame.columns) == SUMMARY_COLUMNS and len(run.frame) == 8
    assert run.perturbed["perturbed_from_token"].tolist() == [4, 4]
    assert run.perturbed["perturbed_kind"].tolist() == ["offset", "offset"]
    assert run.probes["probe"].tolist() == ["padding"]
    assert list(run.compare) == ["start"] and len(run.compare["start"]) == 4
    assert run.training == [{"step": 1, "disc/loss": 0.7}, {"step": 2, "disc/loss": 0.6}]  # the cut-off line is no line
    assert run.perturbed_path.is_file()


def test_only_the_run_itself_must_be_there(folder: Path) -> None:
    for name in ("perturbed.parquet", "probes.parquet", "metrics.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "compare")
    run = load(folder)
    assert len(run.frame) == 8 and run.perturbed.empty and run.probes.empty
    assert list(run.perturbed.columns) == SUMMARY_COLUMNS
    assert run.compare == {} and run.training == []


def test_a_single_file_stands_alone(folder: Path) -> None:
    run = load(folder / "run.parquet")
    assert len(run.frame) == 8 and run.perturbed.empty and run.compare == {} and run.training == []


def test_a_file_of_an_earlier_release() -> None:
    run = load(GOLDEN)
    assert len(run.frame) == 8 and run.frame["score_credit_minimum"].notna().all()


def test_what_is_no_run_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing\.parquet: there is no such run"):
        load(tmp_path / "missing.parquet")
    with pytest.raises(StoreError, match=r"compare: holds no run\.parquet; make one with irl-lens evaluate"):
        load(folder / "compare")
    table = pq.read_table(folder / "perturbed.parquet")
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"99"}), folder / "perturbed.parquet")
    with pytest.raises(StoreError, match=r"perturbed\.parquet: has schema version 99; this program reads"):
        load(folder)
    assert SCHEMA_VERSION == 6


def test_loading_and_every_figure_need_no_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from irl_core.evaluation import evaluated_run as run\n"
        "from irl_core.evaluation import pass_at_k, separation, reranking, "
        "correlation\n"
        f"for path in (Path({str(folder)!r}), Path({str(GOLDEN)!r})):\n"
        "    found = run.load(path)\n"
        "    for part in (pass_at_k, separation, reranking, correlation):\n"
        "        part.paragraph(part.figures(found))\n"
        "import json; print(json.dumps(sorted({'torch', 'transformers', 'streamlit', 'plotly'} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
