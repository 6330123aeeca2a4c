"""The figures of a scored run that carries labels, from the run alone: no model is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from irl_core.localisation import Rule
from irl_core.store import StoreError, localisation_of, read_run, scored_of
from train.demo_report import report
from train.evaluate import frame_row


def run_figures(path: Path, *, answer_lines: bool = True, seed: int = 0) -> dict[str, Any]:
    """The report of ``train.demo_report`` on a scored run whose traces have a known truth.

    ``answer_lines=False`` never names a closing line such as ``#### 12``: outside labels count reasoning steps.

    Raises:
        StoreError: no trace of the run is labelled.
    """
    rows = [row for row in read_run(path).to_pylist() if row["true_first_error_step"] is not None]
    if not rows:
        raise StoreError(f"{path.name}: no trace has a known first wrong step or 'no error'; score a labelled file")
    frame = pd.DataFrame([_row(row, answer_lines) for row in rows])
    return report(frame, seed=seed)


def _row(row: dict[str, Any], answer_lines: bool) -> dict[str, Any]:
    located = localisation_of(row)
    rule = replace(parse_rule(located.rule), include_answer=answer_lines)
    known = row["true_first_error_step"] >= 0
    return frame_row(scored_of(row), rule, located.decision, located.threshold) | {"correct": not known}


def parse_rule(name: str) -> Rule:
    """The rule with this name, as ``Rule.name`` writes it."""
    plain, _, answer = name.partition("+")
    signal, reduction, choice = plain.split("/")
    return Rule(signal, reduction, choice, answer == "answer")  # type: ignore[arg-type]
