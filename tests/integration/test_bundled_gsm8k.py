"""The default checkpoint: its files, without its pretrained model; and with it, where it is on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.inspect import examples
from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.checkpoints.manifest import verify
from irl_core.models.bases import BASES
from irl_core.models.pretrained import read_base
from irl_core.reward.localisation import Calibration
from irl_core.storage.scored_run import read_run
from irl_core.text.answers import answers_agree
from irl_core.text.equations import find_equations
from irl_core.text.segmentation import make_trace

ASSETS = Path(__file__).resolve().parents[2] / "assets"
CHECKPOINT = ASSETS / "gsm8k"
MOST_BYTES = 30e6
ROWS = [json.loads(line) for line in (ASSETS / "problems-gsm8k.jsonl").read_text().splitlines()]
KINDS = {"slip", "misread quantity", "skipped step", "wrong units", "right answer by a wrong way", "LaTeX", "Markdown",
         "prose without equations"}  # fmt: skip


def test_its_files_are_whole_and_small() -> None:
    verify(CHECKPOINT)
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) <= MOST_BYTES
    for part in ("policy", "discriminator"):
        assert read_base(CHECKPOINT / part).name in BASES
        assert {str(v.dtype) for v in load_tensors(CHECKPOINT / part / "adapter_model.safetensors").values()} == {
            "torch.bfloat16"
        }


def test_it_is_calibrated_on_held_out_problems_and_names_no_folder() -> None:
    config = load_json(CHECKPOINT / "config.json")
    calibration = Calibration.from_json(config["localisation"])
    assert calibration.n > 0 and calibration.alpha == 0.1 and calibration.threshold > float("-inf")
    assert config["provenance"]["data"] == config["train_config"]["data"]["source"] == "gsm8k"
    assert not any(text in json.dumps(config) for text in ('"/', "/tmp", "/home", "/work"))


def test_its_sample_problems_are_offered_and_of_every_kind() -> None:
    found, faults = examples.load(examples.file_of("gsm8k"))
    assert len(found) == len(ROWS) >= 12 and not faults
    assert {row["kind"] for row in ROWS} == KINDS
    assert examples.file_of("demo") == examples.file_of("../gsm8k") == examples.PROBLEMS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_a_right_solution_is_right_and_a_wrong_one_is_wrong(row: dict[str, str]) -> None:
    right, wrong = make_trace(row["problem"], row["solution"]), make_trace(row["problem"], row["wrong_solution"])
    assert right.answer is not None and answers_agree(right.answer, row["answer"])
    assert all(equation.true for equation in find_equations(row["solution"]))
    assert wrong.answer is not None and wrong.text != right.text
    same = answers_agree(wrong.answer, row["answer"])
    assert same == (row["kind"] == "right answer by a wrong way")


def test_the_bundled_run_holds_our_own_solutions_with_their_first_errors() -> None:
    solutions = [json.loads(line) for line in (ASSETS / "solutions-gsm8k.jsonl").read_text().splitlines()]
    assert {row["problem"] for row in solutions} == {row["problem"] for row in ROWS}
    rows = {row["trace_id"]: row for row in read_run(ASSETS / "scored_run_gsm8k" / "run.parquet").to_pylist()}
    assert rows.keys() == {row["id"] for row in solutions} and len(rows) == 24
    for row in solutions:
        stored = rows[row["id"]]
        assert stored["true_first_error_step"] == row["label"] and stored["correct"] is row["final_answer_correct"]
        assert [step["text"] for step in stored["steps"]] == row["steps"] and stored["familiar"]
    found = {name: row["arithmetic_first_false_step"] for name, row in rows.items() if row["arithmetic_false"]}
    assert found == {"slip-subtraction/wrong": 2, "last-step/wrong": 2}  # the two slips; the others are errors of sense
