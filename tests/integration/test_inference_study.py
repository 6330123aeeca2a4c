"""The study of the reward while solutions are written: what stands in it, and that it goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irl_core.errors import ConfigError
from train.studies import inference
from train.studies.inference import compared, inference_study

DEMO = Path(__file__).resolve().parents[2] / "assets" / "demo"


def a_row(right: int, way: dict[str, Any]) -> dict[str, Any]:
    """A problem of which so many samples are right, and every way made the same."""
    samples = [{"answer": "1" if n < right else "2", "correct": n < right, "tokens": 10} for n in range(16)]
    ways = {name: {"answer": "1", "revised": False, "draft_correct": False, **way} for name in inference.WAYS}
    return {"problem": "p", "samples": samples, "ways": ways}


def test_ways_stand_beside_the_majority_of_as_many_tokens() -> None:
    rows = [a_row(16, {"correct": True, "tokens": 40})] * 4 + [a_row(0, {"correct": True, "tokens": 40})] * 6
    table, sentences = compared(rows)
    cells = {str(row[0]): row for row in table.rows}
    assert cells["one sample"][1].value == pytest.approx(0.4) and cells["one sample"][2] == 10
    assert cells["majority of 8"][2] == 80
    for name in ("early rejection", "self-revision", "guided decoding"):
        assert (cells[name][1].value, cells[name][2]) == (1.0, 40.0)
        assert cells[name][3].value == pytest.approx(0.6)  # four samples' majority is right in 0.4
    assert sentences[0].startswith("Early rejection takes 50% of the tokens of the majority of 8; its accuracy less")
    assert sentences[1] == "Early rejection by the reward less by likelihood: 0.000 [0.000, 0.000] (n 10)."
    assert sentences[3].startswith("Self-revision changes 0% of the solutions; its accuracy less that of its own first")
    assert "1.000 [1.000, 1.000] (n 10)" in sentences[3]


def test_a_study_that_was_stopped_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    document = inference_study(DEMO, whole, problems=2)
    assert len(document["rows"]) == 7 and "Early rejection" in (whole / "study.md").read_text()
    lines = (whole / "rows.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 2 and len(json.loads(lines[0])["samples"]) == 16
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "order.json").write_bytes((whole / "order.json").read_bytes())
    (broken / "rows.jsonl").write_text(lines[0] + lines[1][:40])  # killed while it wrote
    answered, made = inference.answered, []
    monkeypatch.setattr(inference, "answered", lambda *asked: made.append(asked[2]) or answered(*asked))
    assert inference_study(DEMO, broken, problems=2)["rows"] == document["rows"]
    assert made == [1001] and (broken / "rows.jsonl").read_text() == "".join(lines)
    with pytest.raises(
        ConfigError, match=r"holds a study that differs in data_sha256, problems \(then 2, now 3\); name another"
    ):
        inference_study(DEMO, broken, problems=3)
    again = inference_study(DEMO, broken, problems=2, seed=2, resume=False)
    assert again["order"]["seed"] == 2 and (broken / "rows.jsonl").read_text().count("\n") == 2
