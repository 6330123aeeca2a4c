"""``irl-lens export --to labels``: labels of a scored run become annotations, blind if by people."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from irl_core.data.annotations import Annotations, from_jsonl, text_hash
from irl_core.data.formats import LABELS_BY, PEOPLE, UNKNOWN_AUTHOR, read_counted
from irl_core.data.scored_rows import PROVENANCE_KEY
from irl_core.errors import InputError
from irl_core.storage.scored_run import read_provenance, read_run
from train.calibrate_annotated import CalibrationRequest, agreed_labels, calibrate_annotated, read_annotations
from train.export_labels import export_labels, labels_of

ROOT = Path(__file__).resolve().parents[2]
RUN, PERTURBED = (ROOT / "assets" / "scored_run" / name for name in ("run.parquet", "perturbed.parquet"))


def labelled_by(by: str | None, path: Path) -> Path:
    """The bundled run as one whose input's labels ``by`` gave; None: as of a run that keeps nothing of its input."""
    table = pq.read_table(RUN)
    known = {**read_provenance(RUN), **({} if by is None else {"intake": {"labels_by": by}})}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, PROVENANCE_KEY: json.dumps(known)}), path)
    return path


def test_labels_are_the_runs_truth_and_those_by_people_count_as_blind(tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    n, name, _ = told = export_labels(labelled_by(PEOPLE, tmp_path / "run.parquet"), out, "labels of run")
    assert name == "labels of run" and "not blind" not in told.sentences()
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


@pytest.mark.parametrize("by", [None, *sorted({UNKNOWN_AUTHOR, *LABELS_BY.values()} - {PEOPLE})])
def test_labels_that_people_did_not_give_are_nobodys_blind_answers(tmp_path: Path, by: str | None) -> None:
    told = export_labels(labelled_by(by, tmp_path / "run.parquet"), tmp_path / "labels.jsonl", "Ann")
    found = from_jsonl((tmp_path / "labels.jsonl").read_text(encoding="utf-8"))
    assert {one.annotator for one in found} == {f"Ann (by {by or UNKNOWN_AUTHOR})"} == {told.annotator}
    assert (
        not any(one.blind for one in found)
        and f"not blind: the labels are by {by or UNKNOWN_AUTHOR}" in told.sentences()
    )


def test_a_calibration_takes_them(tmp_path: Path) -> None:
    run = labelled_by(PEOPLE, tmp_path / "run.parquet")
    export_labels(run, tmp_path / "labels.jsonl", "labels")
    request = CalibrationRequest(tmp_path / "labels.jsonl", run, ROOT / "assets" / "demo", tmp_path / "mine")
    assert "by 1 annotators" in next(iter(calibrate_annotated(request)))


def test_a_calibration_takes_those_of_nobody_only_where_it_is_asked_to(tmp_path: Path) -> None:
    told = export_labels(labelled_by("rollouts, not people", tmp_path / "run.parquet"), tmp_path / "labels.jsonl", "a")
    found = read_annotations(tmp_path / "labels.jsonl")
    assert agreed_labels(found).steps == {} and agreed_labels(found).left_out == {"not blind": told.total}
    assert len(agreed_labels(found, seen=True).steps) == told.total


def test_who_gave_the_labels_goes_on_to_a_run_that_is_scored_again(tmp_path: Path) -> None:
    run = labelled_by("rollouts, not people", tmp_path / "run.parquet")
    assert read_counted(run)[0].labels_by == "rollouts, not people"
    assert read_counted(RUN)[0].labels_by == "whoever gave them to the run"
    pq.read_table(run).slice(0, 2).to_pandas().to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    assert read_counted(tmp_path / "rows.jsonl")[0].labels_by == "whoever gave them to the run"


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
