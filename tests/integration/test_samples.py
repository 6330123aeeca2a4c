"""A sample of every outside format from end to end: scored to a run, taken by Upload, its labels read by evaluate."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.analysis import uploads
from irl_core.data.sources import column_map
from irl_core.scorer import Lens
from irl_core.storage.scored_run import read_provenance, read_run
from tests.conftest import REPOSITORY
from train.cli.evaluate import EvaluateRequest, run_evaluation
from train.score_file import check_source, score_file

SAMPLES = REPOSITORY / "tests" / "samples"
DEMO = REPOSITORY / "assets" / "demo"
RIGHT_AND_WRONG = [-1, 1, 1]  # first wrong steps of the three solutions that most samples have; -1: none
UNKNOWN = [None] * 3


class Sample(NamedTuple):
    """A sample, the labels and answers that are known of what is scored of it, and how many rows are left out."""

    name: str
    labels: list[int | None]
    correct: list[bool | None]
    left_out: int = 0
    labels_by: str = ""
    columns: tuple[str, ...] = ()
    needs: str = ""


KNOWN = [True, False, False]
ALL = (
    Sample("processbench.jsonl", RIGHT_AND_WRONG, KNOWN, labels_by="people"),
    Sample("mr_gsm8k.jsonl", RIGHT_AND_WRONG, KNOWN, labels_by="people"),
    Sample("prm800k.jsonl", [-1, 1, -1], [True, False, True], 2, labels_by="people"),
    Sample("math_shepherd.jsonl", RIGHT_AND_WRONG, KNOWN, labels_by="rollouts, not people"),
    Sample("stepwise", RIGHT_AND_WRONG, UNKNOWN, labels_by="whoever made the rows"),
    Sample("stepwise_splits", RIGHT_AND_WRONG, UNKNOWN, labels_by="whoever made the rows"),
    Sample("messages.parquet", UNKNOWN, KNOWN),
    Sample("named.csv", UNKNOWN, KNOWN, columns=("question=ask", "solution=reply", "answer=gold")),
    Sample("samples_own_words.jsonl", [None] * 4, [True, False, False, False], 2),
    Sample("completions_00001.parquet", [None] * 4, [None] * 4),
    Sample("inspect.eval", UNKNOWN, KNOWN, needs="inspect_ai"),
    Sample("inspect.json", UNKNOWN, KNOWN, needs="inspect_ai"),
)
EACH = [
    pytest.param(
        sample, id=sample.name,
        marks=pytest.mark.skipif(bool(sample.needs) and importlib.util.find_spec(sample.needs) is None,
                                 reason=f"{sample.needs} is not installed"),
    )
    for sample in ALL
]  # fmt: skip


@pytest.fixture(scope="module")
def lens() -> Lens:
    return Lens.load(DEMO, "cpu")


def test_no_sample_is_forgotten() -> None:
    there = {path.name for path in SAMPLES.iterdir() if path.name not in ("write.py", "__pycache__")}
    assert {sample.name for sample in ALL} == there


@pytest.mark.parametrize("sample", EACH)
def test_it_is_scored_to_a_run_with_its_labels_and_every_row_accounted_for(
    sample: Sample, tmp_path: Path, lens: Lens
) -> None:
    source, out = SAMPLES / sample.name, tmp_path / "run.parquet"
    columns = column_map(list(sample.columns))
    check_source(source, out, "auto", columns=columns)
    summary = score_file(source, out, lens, columns=columns)
    rows = read_run(out, ["true_first_error_step", "correct", "prompt_reward"]).to_pydict()
    assert (summary.scored, summary.failed) == (len(sample.labels), sample.left_out)
    assert (rows["true_first_error_step"], rows["correct"]) == (sample.labels, sample.correct)
    assert None not in rows["prompt_reward"]
    told = summary.errors.read_text().splitlines() if summary.errors.exists() else []
    assert len(told) == sample.left_out and all(json.loads(line)["message"] for line in told)
    assert read_provenance(out)["intake"]["labels_by"] == sample.labels_by


@pytest.mark.parametrize("sample", EACH)
def test_upload_takes_it_as_it_is_scored(sample: Sample) -> None:
    path = SAMPLES / sample.name
    for file in sorted(path.rglob("*.arrow")) or [path]:  # a browser uploads no folder
        found = uploads.check(file.read_bytes(), "auto", file.name, ", ".join(sample.columns))
        assert (found.traces, found.faulty) == (len(sample.labels), sample.left_out)
        assert found.file == f"traces{file.suffix}"
        assert any("Labels of steps" in line for line in found.intake) == bool(sample.labels_by)


@pytest.mark.parametrize("sample", [one for one in ALL if one.labels_by], ids=lambda one: one.name)
def test_evaluate_reads_its_labels(sample: Sample, tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lens, "load", classmethod(lambda cls, path, device="auto": lens))
    run_evaluation(EvaluateRequest(DEMO, tmp_path / "out", str(SAMPLES / sample.name), device="cpu"))
    assert read_run(tmp_path / "out" / "run.parquet", ["true_first_error_step"]).column(0).to_pylist() == sample.labels
    report: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())
    counts, wrong = report["localisation"]["counts"], sum(step >= 0 for step in sample.labels if step is not None)
    assert (counts["traces"], counts["wrong"], counts["correct"]) == (3, wrong, 3 - wrong)
    assert report["provenance"]["intake"]["labels_by"] == sample.labels_by
