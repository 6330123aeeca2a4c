"""The model card and the sample problems come from an evaluation, by a stated rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irl_core.evaluation.report import make
from irl_core.presets import load_config
from irl_core.report.model_card import EXAMPLES, MEANING, example_rows, facts_of, model_card, parameters
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run
from tests.evaluated import evaluated, simulated
from train.cli.model_card import model_card as command
from train.planning.plan import PRESETS

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "scored_run.parquet"
DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"
MACHINE = {"processor": "CPU X", "cores": 2, "threads": 1, "gpu": None}
PROVENANCE = {"problems": 160, "samples": 16, "created": "2026-11-23T00:00:00+00:00", "machine": MACHINE}


def row(family: str, number: int, kind: str | None, correct: bool) -> dict[str, Any]:
    return {
        "family": family, "kind": kind, "correct": correct, "problem_id": f"{family}-{number}", "problem": "p",
        "reference_solution": "s", "text": f"text {number}", "reference_answer": "1",
    }  # fmt: skip


def test_the_first_mistake_of_meaning_of_each_family() -> None:
    operand, slip = MEANING[0].value, "slip of arithmetic"
    rows = [row("a", 0, None, True), row("a", 1, slip, False), row("a", 2, operand, True), row("a", 3, operand, False)]
    rows += [row("a", 4, operand, False), row("b", 5, MEANING[2].value, False)]
    found = example_rows(rows)
    assert [one["id"] for one in found] == ["a-3", "b-5"]
    assert found[0] == {"id": "a-3", "problem": "p", "solution": "s", "wrong_solution": "text 3", "answer": "1"}
    assert len(example_rows([row(f"f{i}", i, operand, False) for i in range(30)])) == EXAMPLES


def test_parameters_are_counted_from_the_files() -> None:
    from irl_core.checkpoints.load import load_tensors

    expected = sum(tensor.numel() for tensor in load_tensors(DEMO / "policy" / "model.safetensors").values())
    assert parameters(DEMO / "policy") == expected > 1_000_000


def test_the_card_says_what_it_is_and_what_was_measured() -> None:
    report = make(evaluated(simulated(problems=12, samples=4)))
    card = model_card(report, facts_of(DEMO, PROVENANCE, sft_steps=3100, expert_steps=420))
    assert "160 held-out problems x 16 samples" in card and "CPU (CPU X, 2 cores)" in card
    assert "`demo-sft` (3100 steps of likelihood" in card and "`demo-expert` (420 further ones" in card
    assert "irl-lens train demo-irl" in card and "{" not in card.partition("## ")[0]
    assert all(f"## {question}" in card for question in report.questions) and len(report.questions) == 4
    for policy in report.sections["pass_at_k"].figures.policies.values():
        assert policy["1"].interval and f"{policy['1'].words} (n " in card


def test_the_command_writes_card_and_problems_with_the_presets_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = replace(make(evaluated(simulated(problems=12, samples=4))), provenance=PROVENANCE)
    monkeypatch.setattr("irl_core.report.model_card.draw", lambda folder: SimpleNamespace(report=report))
    evaluation, out = tmp_path / "evaluation", tmp_path / "out"
    evaluation.mkdir()
    out.mkdir()
    rows = read_run(GOLDEN).to_pylist()
    rows[3]["kind"] = MEANING[0].value  # a wrong sample, whose mistake was a slip
    write_run(evaluation / "run.parquet", rows, {})
    command(evaluation, DEMO, out)
    steps = load_config("demo-sft", presets_dir=PRESETS).run.steps
    assert f"`demo-sft` ({steps} steps of likelihood" in (out / "MODEL_CARD.md").read_text()
    (problem,) = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert (problem["id"], problem["wrong_solution"]) == (rows[3]["problem_id"], rows[3]["text"])
    assert capsys.readouterr().out == f"Wrote {out / 'MODEL_CARD.md'}\nWrote {out / 'problems.jsonl'}\n"
