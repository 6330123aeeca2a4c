"""Runs for the tests of the evaluation: frames with every summary column, made without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.statistics.bootstrap import to_json
from irl_core.storage.schema import SUMMARY_COLUMNS


def frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows with the columns named, the others empty; a trace's text is its answer where it has none of its own."""
    known = [{"trace_id": f"t{i}", "length": 10, "text": f"#### {row.get('answer')}"} for i, row in enumerate(rows)]
    return pd.DataFrame([first | row for first, row in zip(known, rows, strict=True)], columns=SUMMARY_COLUMNS)


def evaluated(rows: list[dict[str, Any]], **parts: Any) -> EvaluatedRun:
    return EvaluatedRun(Path("run.parquet"), frame(rows), frame([]), frame([]), **parts)


def simulated(
    problems: int = 60, samples: int = 8, *, reward: float = 1.5, ease: float = 0.0, brevity: float = 0.0, seed: int = 0
) -> list[dict[str, Any]]:
    """Samples scored ``reward`` x correctness + ``ease`` x the problem's ease + ``brevity`` x shortness + noise;
    with ``brevity``, right ones are shorter. The right answer is 0; a wrong one is one of three."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        easy = rng.normal()
        for _ in range(samples):
            right = bool(rng.random() < 1 / (1 + np.exp(-1.5 * easy)))
            length = int(40 + 8 * rng.normal() - 10 * right * (brevity > 0))
            noise = rng.normal()
            score = reward * right + ease * easy - brevity * (length - 40) / 8 + noise
            answer = "0" if right else str(rng.integers(1, 4))
            rows.append(
                {
                    "problem_id": f"p{problem}", "answer": answer, "correct": right, "length": length,
                    "text": f"{length} {noise:.3f}", "score_mean_discounted": score,
                    "score_mean_discounted_answer": score + 0.1 * rng.normal(), "score_mean": score,
                    "score_min": score - 1, "score_last": score + rng.normal(), "score_product": score - length,
                    "score_credit_sum": score - 2,
                    "score_credit_minimum": score + 0.5 * rng.normal(), "log_prob_mean": -abs(rng.normal()),
                    "log_prob_min": -3 - abs(rng.normal()), "arithmetic_false": int(not right and rng.random() < 0.5),
                    "xml_count": 0.0, "strict_format": 0.0, "soft_format": 0.0,
                    "integer_answer": 0.5 * float(rng.random() < 0.9),
                }
            )  # fmt: skip
    return rows


def figures_in(value: Any) -> list[dict[str, Any]]:
    """Every figure in a section of a report."""
    if isinstance(value, dict):
        if {"value", "n", "interval", "method", "reason"} <= value.keys():
            return [value]
        return [found for _, item in sorted(value.items()) for found in figures_in(item)]
    return [found for item in value for found in figures_in(item)] if isinstance(value, list) else []


def check_figures(section: Any, *, without_interval: int = 0) -> None:
    """Every figure has a value inside its interval, or a reason; ``without_interval`` of them are bare numbers, beside
    those that say that their problems are too few for one."""
    bare = 0
    for figure in figures_in(to_json(section)):
        assert set(figure) == {"value", "n", "interval", "method", "reason"} and figure["method"]
        assert (figure["value"] is None) == bool(figure["reason"]), figure
        if figure["value"] is not None and figure["interval"] is None:
            bare += "no interval: fewer than" not in figure["method"]
        elif figure["value"] is not None:
            low, high = figure["interval"]
            assert low <= high and low - 1e-9 <= figure["value"] <= high + 1e-9, figure
    assert bare == without_interval
