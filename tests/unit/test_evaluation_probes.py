"""Reward-hacking probes: each beside its honest trace, by hand; what fools a score and what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.reward_hacking import figures, paragraph
from irl_core.evaluation.scores import TITLES
from irl_core.statistics.bootstrap import to_json
from irl_core.statistics.wording import CHANCE, side
from tests.evaluated import check_figures, evaluated, frame

SCORE = "score_mean_discounted"


def pairs(probe: str, differences: list[float | None], honest: float = 0.0) -> list[dict[str, Any]]:
    """Honest traces that score ``honest`` + their number, and a probe of each that scores so much more."""
    rows: list[dict[str, Any]] = []
    for number, difference in enumerate(differences):
        base = {"problem_id": f"p{number}", "log_prob_mean": -1.0}
        rows.append({**base, "trace_id": f"{number}/expert", SCORE: honest + number})
        score = None if difference is None else honest + number + difference
        known = {"trace_id": f"{number}/{probe}", "probe": probe, "honest_trace_id": f"{number}/expert"}
        rows.append({**base, **known, SCORE: score})
    return rows


def run(rows: list[dict[str, Any]]) -> EvaluatedRun:
    known = [{"trace_id": f"t{i}"} | row for i, row in enumerate(rows)]
    one = evaluated([])
    probes = frame(known)
    probes["trace_id"] = [row["trace_id"] for row in known]
    return EvaluatedRun(one.path, one.frame, one.perturbed, probes)


def test_by_hand() -> None:
    found = figures(run(pairs("format_only", [1.0, -1.0, 0.0, 2.0])))
    row = found.probes["format_only"].scores[SCORE]
    assert row["fooled"].value == pytest.approx((1 + 0 + 0.5 + 1) / 4) and row["fooled"].n == 4
    assert row["difference"].value == pytest.approx(0.5)
    # honest scores 0 1 2 3: standard deviation sqrt(1.25)
    assert row["in_sd"].value == pytest.approx(0.5 / 1.25**0.5)
    assert found.honest == 4 and found.probes["format_only"].pairs == 4
    json.dumps(to_json(found), allow_nan=False)
    check_figures(found)


def test_what_fools_and_what_does_not() -> None:
    rows = pairs("format_only", [1.0] * 12) + pairs("repeated_steps", [-1.0] * 12)[1::2]
    rows += pairs("idle_equations", [1.0, -1.0] * 6)[1::2]
    found = figures(run(rows))
    assert found.fools["above"] == {"format_only": [SCORE]}
    assert found.fools["neither"]["idle_equations"][0] == SCORE
    sides = {name: side(one.scores[SCORE]["fooled"], CHANCE) for name, one in found.probes.items()}
    assert sides == {"format_only": "above", "repeated_steps": "below", "idle_equations": "neither"}
    text = paragraph(found)
    assert "scores higher more often than not for tags and marks without content (1.000" in text
    assert "keeps the honest solution above every step written twice (0.000" in text
    assert "is not shown to tell it from padded with true but idle equations (0.500" in text
    assert "Of 3 probes, 1 fool it" in text
    assert [len(one.scores) for one in found.probes.values()] == [len(TITLES)] * 3


def test_missing_scores_and_honest_traces_are_left_out() -> None:
    rows = pairs("format_only", [1.0, None, -1.0])
    rows.append({"trace_id": "x", "probe": "format_only", "honest_trace_id": "gone", "problem_id": "p9", SCORE: 5.0})
    found = figures(run(rows))
    assert found.probes["format_only"].pairs == 3
    assert found.probes["format_only"].scores[SCORE]["fooled"].n == 2
    nothing = found.probes["format_only"].scores["score_last"]["fooled"]
    assert nothing.defined is False and nothing.reason == "no pair in which both have this score"


def test_honest_traces_that_score_alike_have_no_standard_deviation() -> None:
    rows = pairs("format_only", [1.0, 2.0])
    for row in rows[::2]:
        row[SCORE] = 0.0
    row = figures(run(rows)).probes["format_only"].scores[SCORE]
    assert row["in_sd"].reason == "honest solutions score alike" and row["difference"].defined


def test_no_probes_is_said() -> None:
    found = figures(evaluated([]))
    assert found.reason == "the run has no probes with their honest solutions" and found.probes == {}
    assert paragraph(found).startswith("What fools the reward is undefined")
