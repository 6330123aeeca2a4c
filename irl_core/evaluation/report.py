"""The report of an evaluated run: every section's figures and paragraph, as plain JSON. Runs no model.

``report.json`` holds exactly this, the report page and the app's pages show it. The same run, seed and code give the
same report: there is no date in it but that of the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from irl_core.evaluation import (
    correlation,
    examples,
    first_error,
    pass_at_k,
    reranking,
    reward_hacking,
    separation,
    training,
)
from irl_core.evaluation.evaluated_run import EvaluatedRun

Report = dict[str, Any]

REPORT_VERSION = 1
SECTIONS = {
    "pass_at_k": pass_at_k,
    "separation": separation,
    "reranking": reranking,
    "correlation": correlation,
    "localisation": first_error,
    "training": training,
    "probes": reward_hacking,
}
KEYS = ("provenance", *SECTIONS)
# The questions of the paper, and the sections whose paragraphs answer them.
QUESTIONS = {
    "Does training against the reward improve the policy?": ("pass_at_k", "training"),
    "Does the reward separate correct from incorrect solutions, and what fools it?": ("separation", "probes"),
    "Does choosing by the reward find more right answers?": ("reranking",),
    "Does the reward go with correctness, and does it point at the first error?": ("correlation", "localisation"),
}


def make(
    run: EvaluatedRun,
    *,
    seed: int = 0,
    answer_lines: bool | None = None,
    on_section: Callable[[str], None] = lambda name: None,
) -> Report:
    """The report with the keys ``KEYS``; each section holds its figures and its ``paragraph``.

    ``seed``: of the bootstrap. ``answer_lines``: may a closing line be the wrong step (None: not where all labels come
    from outside)? ``on_section`` is called with the name of each section before it is computed.
    ``localisation.examples`` are the traces to be shown token by token.

    Raises:
        StoreError: the run cannot be judged by one rule, or its provenance holds something unreadable.
    """
    report: Report = {"provenance": _provenance(run, seed, answer_lines)}
    for name, module in SECTIONS.items():
        on_section(name)
        options = {"answer_lines": answer_lines} if module is first_error else {}
        found = module.figures(run, seed=seed, **options)
        report[name] = {"paragraph": module.paragraph(found), **found}
    report["localisation"]["examples"] = examples.choose(run)
    return dict(finite(report))


def _provenance(run: EvaluatedRun, seed: int, answer_lines: bool | None) -> dict[str, Any]:
    counts = {"run": run.frame, "perturbed": run.perturbed, "probes": run.probes}
    return {
        **run.provenance,
        "report": {
            "version": REPORT_VERSION,
            "seed": seed,
            "answer_lines": answer_lines,
            "file": run.path.name,
            "traces": {name: len(frame) for name, frame in counts.items()},
            "compared": {name: len(frame) for name, frame in run.compare.items()},
            "training_lines": len(run.training),
        },
    }


def finite(value: Any) -> Any:
    """A tree of JSON data with None in place of every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_text(report: Report) -> str:
    """The report as strict JSON, the same text for the same report."""
    return json.dumps(report, indent=1, allow_nan=False) + "\n"
