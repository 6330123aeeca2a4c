"""``irl-lens export --to labels``: known first errors of a scored run become blind annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from irl_core.data.annotations import Annotations, from_jsonl, text_hash
from irl_core.errors import InputError
from irl_core.storage.scored_run import read_run
from train.calibrate_annotated import CalibrationRequest, calibrate_annotated
from train.export_labels import export_labels, labels_of

ROOT = Path(__file__).resolve().parents[2]
RUN, PERTURBED = (ROOT / "assets" / "scored_run" / name for name in ("run.parquet", "perturbed.parquet"))


def test_labels_are_the_runs_truth_and_count_as_blind(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    n = export_labels(RUN, out, "labels of run")
    found = {one.text_sha256: one for one in from_jsonl(out.read_text(encoding="utf-8"))}
    assert len(found) == n > 100
    for row in read_run(RUN, ["problem", "text", "true_first_error_step"]).to_pylist():
        one = found.get(text_hash(row["problem"], row["text"]))
        if (step := row["true_first_error_step"]) is None:
            assert one is None
        elif one is not None:  # a label behind the last step is none that a person can give
            assert (one.verdict, one.step) == (("none", None) if step < 0 else ("error", step)) and one.blind
    store = Annotations(tmp_path / "annotations.sqlite")
    assert store.add_all(list(found.values()), importer="Ann") == n


def test_a_calibration_takes_them(tmp_path: Path) -> None:
    export_labels(RUN, tmp_path / "labels.jsonl", "labels")
    request = CalibrationRequest(tmp_path / "labels.jsonl", RUN, ROOT / "assets" / "demo", tmp_path / "mine")
    assert "by 1 annotators" in next(iter(calibrate_annotated(request)))


def test_nobody_gave_the_labels_of_corrupted_copies() -> None:
    assert read_run(PERTURBED, ["true_first_error_step"]).column(0).null_count == 0
    assert labels_of(PERTURBED, "labels") == []


def test_a_run_without_labels_and_a_file_that_is_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"perturbed\.parquet has no known first wrong step"):
        export_labels(PERTURBED, tmp_path / "labels.jsonl", "labels")
    (tmp_path / "labels.jsonl").write_text("mine")
    with pytest.raises(InputError, match=r"labels\.jsonl is there already"):
        export_labels(RUN, tmp_path / "labels.jsonl", "labels")
    assert (tmp_path / "labels.jsonl").read_text() == "mine"
