"""The embedded default as it lies in ``assets/``: whole, small, deterministic, and what its model card says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.inspect import examples
from irl_core.checkpoints.manifest import verify
from irl_core.evaluation import pass_at_k, reranking, reward_hacking
from irl_core.evaluation.evaluated_run import load
from irl_core.evaluation.report import KEYS
from irl_core.scorer import Lens
from irl_core.statistics.bootstrap import to_json
from irl_core.storage.scored_run import read_run, read_trace
from irl_core.text.segmentation import make_trace
from irl_core.types import Source
from tests.evaluated import figures_in

ASSETS = Path(__file__).resolve().parents[2] / "assets"
RUN = ASSETS / "scored_run" / "run.parquet"


@pytest.fixture(scope="module")
def bundled() -> Lens:
    return Lens.load(ASSETS / "demo", "cpu")


def test_it_is_whole_and_small() -> None:
    verify(ASSETS / "demo")
    others = (path for path in ASSETS.rglob("*") if path.is_file() and "gsm8k" not in path.relative_to(ASSETS).parts)
    assert sum(path.stat().st_size for path in others) < 15_000_000


def test_the_scored_run_is_large_enough_and_labelled() -> None:
    frame = read_run(RUN, ["problem_id", "true_first_error_step", "correct", "decision"]).to_pandas()
    assert frame["problem_id"].nunique() >= 150
    assert (frame.groupby("problem_id").size() == 16).all()
    assert frame["true_first_error_step"].notna().all()
    right = frame[frame["correct"] & (frame["true_first_error_step"] == -1)]
    assert (right["decision"] == "error").mean() < 0.13  # calibrated at 10 %, on other problems


def test_a_stored_trace_scores_again_as_stored(bundled: Lens) -> None:
    ids = read_run(RUN, ["trace_id"]).to_pylist()
    for row in ids[:: len(ids) // 5]:
        stored = read_trace(RUN, row["trace_id"])
        again = bundled.score_encoded([stored.encoded])[0]
        np.testing.assert_allclose(again.raw, stored.raw, atol=1e-3)


def test_the_model_card_holds_the_reports_figures() -> None:
    report = json.loads((ASSETS / "scored_run" / "report.json").read_text())
    card = (ASSETS / "MODEL_CARD.md").read_text()
    shown = [
        report["pass_at_k"]["policies"]["this run"]["1"],
        report["pass_at_k"]["differences"]["start"]["1"],
        report["localisation"]["methods"]["reward"]["exact"],
        report["localisation"]["methods"]["anchor"]["exact"],
        report["separation"]["scores"]["start_log_prob_mean"]["within"]["pair_accuracy"],
        report["reranking"]["weighted_vote"]["value"],
    ]
    for figure in shown:
        low, high = figure["interval"]
        assert f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]" in card


def test_the_bundled_report_is_that_of_the_bundled_run() -> None:
    stored = json.loads((ASSETS / "scored_run" / "report.json").read_text())
    run = load(ASSETS / "scored_run")
    assert tuple(stored) == KEYS and run.training and set(run.compare) == {"start", "control", "expert"}
    assert (
        stored["provenance"]["checkpoint_sha256"]
        == hashlib.sha256((ASSETS / "demo" / "manifest.json").read_bytes()).hexdigest()
    )
    for name, module in (("pass_at_k", pass_at_k), ("reranking", reranking), ("probes", reward_hacking)):
        again, before = (figures_in(found) for found in (to_json(module.figures(run)), stored[name]))
        assert len(again) == len(before) > 5
        for one, other in zip(again, before, strict=True):
            assert (one["value"], one["n"]) == (pytest.approx(other["value"], abs=1e-9), other["n"])


def test_same_seed_same_samples_and_scores(bundled: Lens) -> None:
    problem = examples.load()[0][0].problem
    first, second = (bundled.score(bundled.sample(problem, 3, seed=5)) for _ in range(2))
    assert [one.trace.text for one in first] == [one.trace.text for one in second]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.raw, other.raw)


def test_examples_are_right_and_wrong_as_they_say(bundled: Lens) -> None:
    found, faults = examples.load()
    assert not faults
    assert len(found) >= 10
    for example in found:
        right = make_trace(example.problem, example.solution, reference_answer=example.answer, source=Source.EXTERNAL)
        wrong = make_trace(example.problem, example.wrong_solution, reference_answer=example.answer)
        assert (right.correct, wrong.correct) == (True, False)
        expert, mistaken = bundled.score([right, wrong])
        assert "".join(right.text[start:end] for start, end in expert.encoded.spans) == right.text
        assert mistaken.has_signal


def test_familiar_problems_are_told_from_others(bundled: Lens) -> None:
    assert all(bundled.familiarity(example.problem).familiar for example in examples.load()[0])
    foreign = "A train of the Baltic line hauls ore at dusk; its driver wonders which fugue by Bach lasts seven bars."
    assert bundled.familiarity(foreign).familiar is False


def test_the_command_line_inspects_it() -> None:
    example = examples.load()[0][0]
    command = [sys.executable, "-m", "train.cli.main", "inspect", "--problem", example.problem]
    command += ["--solution", example.wrong_solution, "--json", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ASSETS.parent)
    result = json.loads(done.stdout)
    (trace,) = result["traces"]
    assert trace["text"] == example.wrong_solution
    assert "".join(token["text"] for token in trace["tokens"]) == trace["text"]
    assert trace["decision"] in ("error", "no_error", "uncertain")
    assert (trace["first_error_step"] is not None) == (trace["decision"] == "error")
