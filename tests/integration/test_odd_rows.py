"""Odd rows: each is a row error that names its line, in a scoring and in an upload; the rows beside it are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.analysis import uploads
from irl_core.data.formats import read
from irl_core.data.trace_format import trace_row
from irl_core.scorer import Lens
from irl_core.storage.scored_run import read_run
from irl_core.types import Trace
from tests.tiny import PROBLEM, SOLUTION
from train.score_file import score_file

HALF, HUGE = "half \ud800", 10**400
PLAIN = {"question": PROBLEM, "solution": SOLUTION, "answer": "10"}
STEPS = {"problem": PROBLEM, "steps": ["3 * 4 = 12", "12 - 2 = 10"], "label": -1, "generator": "m"}
MR = {"question": PROBLEM, "model_output_steps": ["a", "b"], "model_output_solution_first_error_step": 1}
SOLUTIONS = {"question": PROBLEM, "solution": SOLUTION, "is_correct": True}


def whole(**changes: Any) -> dict[str, Any]:
    """A row of our own format, changed."""
    from irl_core.text.segmentation import make_trace

    row = trace_row(make_trace(PROBLEM, SOLUTION, reference_answer="10", trace_id="t", problem_id="p"))
    return {**row, **changes}


ODD: list[dict[str, Any]] = [
    *[{**PLAIN, name: HALF} for name in ("question", "solution", "answer", "id", "problem_id")],
    *[{**PLAIN, name: {}} for name in ("question", "solution", "answer", "id", "problem_id")],
    {**PLAIN, "question": 7},
    {**PLAIN, "answer": float("inf")},
    *[{**STEPS, name: HALF} for name in ("problem", "generator", "id")],
    {**STEPS, "steps": ["a", HALF]},
    {**STEPS, "label": 2**40},
    {**STEPS, "label": 1.0},
    {**MR, "model_output_steps": [HALF]},
    {**MR, "model_output_solution_first_error_reason": HALF},
    {**MR, "model_output_solution_first_error_step": HUGE},
    {**SOLUTIONS, "model": HALF},
    {**SOLUTIONS, "reference": HALF},
    {**SOLUTIONS, "is_correct": 1},
    *[whole(**{name: HALF}) for name in ("id", "problem_id", "question", "solution", "answer", "final_answer")],
    *[whole(**{name: 5}) for name in ("question", "solution", "answer", "final_answer", "layout", "source", "extra")],
    *[whole(truth={"first_error_step": None, "kind": one}) for one in (5, HALF, ["x"])],
    *[whole(truth={"first_error_step": one}) for one in (1.5, True, "1", HUGE)],
    whole(truth={"first_error_step": None, "note": 5}),
    whole(truth=[1]),
    whole(truth="none"),
    whole(extra={"family": HALF}),
    whole(extra={HALF: "x"}),
    *[whole(extra={"perturbed_from_token": one}) for one in ("many", "-1", 2**31, "٣")],
    *[whole(token_ids=[one]) for one in (-1, 2**31, 2**64, 10**400, float("inf"), "a", None, 2.5, True)],
    *[whole(token_ids=[1], logprobs=one) for one in ([HUGE], ["a"], [[]], 3, {"a": 1})],
    *[whole(token_ids=one) for one in (5, "12", {"a": 1}, [10**6], [1, 2])],
    *[whole(step_spans=one) for one in (5, None, [HUGE], [[0, HUGE, "answer"]], [[0, 2, {}]], [[-5, -1, "answer"]])],
    *[whole(**{name: one}) for name in ("finished", "correct") for one in (2, "yes", [])],
]  # fmt: skip


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def layout_of(row: dict[str, Any]) -> str:
    from irl_core.data.formats import format_of

    return str(format_of(row))


@pytest.mark.parametrize("number", range(len(ODD)))
def test_an_odd_row_is_a_row_error_and_the_rest_is_scored(tmp_path: Path, lens: Lens, number: int) -> None:
    odd = ODD[number]
    good = {"trace": whole(), "plain": PLAIN, "processbench": STEPS, "mr-gsm8k": MR, "solutions": SOLUTIONS}
    layout = layout_of(odd)
    source = lines(tmp_path / "in.jsonl", [good[layout], odd, good[layout]])
    summary = score_file(source, tmp_path / "out.parquet", lens, layout=layout)
    assert (summary.scored, summary.failed) == (2, 1)
    (error,) = map(json.loads, (tmp_path / "out.errors.jsonl").read_text().splitlines())
    assert error["message"] and (error.get("line") == 2 or error["trace_id"])
    assert read_run(tmp_path / "out.parquet").num_rows == 2


@pytest.mark.parametrize("layout", ["trace", "plain", "processbench", "mr-gsm8k", "solutions"])
def test_an_upload_names_every_odd_row(tmp_path: Path, lens: Lens, layout: str) -> None:
    good = {"trace": whole(), "plain": PLAIN, "processbench": STEPS, "mr-gsm8k": MR, "solutions": SOLUTIONS}[layout]
    odd = [one for one in ODD if layout_of(one) == layout]
    source = lines(tmp_path / "in.jsonl", [good, *odd])
    checked = uploads.check(source.read_bytes(), "auto")
    read_at_all = [one for one in read(source) if isinstance(one, Trace)]
    assert checked.traces == len(read_at_all)
    assert checked.traces + checked.faulty == 1 + len(odd)
    # What no reader can know without the tokenizer: ids that do not spell the text.
    assert checked.traces == 1 + sum(one.get("token_ids") in ([10**6], [1, 2]) for one in odd)
    assert checked.faults[0].startswith("line 2")


def test_a_row_without_steps_is_scored(tmp_path: Path, lens: Lens) -> None:
    source = lines(tmp_path / "in.jsonl", [whole(), whole(step_spans=[], id="none")])
    assert score_file(source, tmp_path / "out.parquet", lens).scored == 2


def test_a_row_that_no_column_can_hold_is_refused_alone(tmp_path: Path, lens: Lens, monkeypatch: Any) -> None:
    """Whatever a reader may let through in time to come: the store refuses the row, not the run."""
    from train import score_file as module

    original = module.row_of

    def odd(scored: Any, *arguments: Any, **named: Any) -> Any:
        row = original(scored, *arguments, **named)
        changes: dict[str, Any] = {"a": {"kind": HALF}, "b": {"n_steps": 2**40}, "c": {"family": 5}}
        return {**row, **changes.get(scored.trace.trace_id, {})}

    monkeypatch.setattr(module, "row_of", odd)
    source = lines(tmp_path / "in.jsonl", [{**PLAIN, "id": name} for name in "xabcy"])
    summary = score_file(source, tmp_path / "out.parquet", lens)
    assert (summary.scored, summary.failed) == (2, 3)
    assert read_run(tmp_path / "out.parquet")["trace_id"].to_pylist() == ["x", "y"]
    told = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert [one["trace_id"] for one in told] == ["a", "b", "c"]
    assert all("no column of a scored run holds" in one["message"] for one in told)
