"""The report of an evaluation: every section's figures, paragraph and tables. Runs no model.

``report.json`` holds the figures and paragraphs. The same evaluation, seed and code give the same report: there is no
date in it but that of the training run's traces.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from irl_core.evaluation import (
    correlation,
    localisation,
    pass_at_k,
    reranking,
    reward_hacking,
    separation,
    training,
    ways,
)
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.examples import Examples, choose
from irl_core.evaluation.section import Section
from irl_core.reward.verdict import Judged
from irl_core.statistics.bootstrap import to_json

REPORT_VERSION = 1
SECTIONS = {
    "pass_at_k": pass_at_k,
    "separation": separation,
    "reranking": reranking,
    "correlation": correlation,
    "localisation": localisation,
    "training": training,
    "probes": reward_hacking,
}
WAYS = "ways"  # a section of evaluations alone that were asked for it
KEYS = ("provenance", *SECTIONS)
# The questions of the paper, and the sections whose paragraphs answer them.
QUESTIONS = {
    "Does training against the reward improve the policy?": ("pass_at_k", "training"),
    "Does the reward separate correct from incorrect solutions, and what fools it?": ("separation", "probes"),
    "Does choosing by the reward find more right answers?": ("reranking",),
    "Does the reward help while solutions are written?": (WAYS,),
    "Does the reward go with correctness, and does it point at the first error?": ("correlation", "localisation"),
}


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation's report.

    Attributes:
        provenance: of the scored run, and of the report itself under ``report``.
        sections: by the names of ``SECTIONS``; each section's figures are the type that its module defines.
        examples: the traces to be shown token by token.
    """

    provenance: dict[str, Any]
    sections: dict[str, Section[Any]]
    examples: Examples

    @property
    def questions(self) -> dict[str, tuple[str, ...]]:
        """Those of ``QUESTIONS`` that its sections answer."""
        return {question: names for question, names in QUESTIONS.items() if set(names) <= self.sections.keys()}

    @property
    def title(self) -> str:
        """The heading of the document."""
        return f"Evaluation of {self.provenance.get('checkpoint', 'a scored run')}"

    def to_json(self) -> dict[str, Any]:
        """What ``report.json`` holds: the keys ``KEYS`` and perhaps ``WAYS``, of each section its paragraph and
        figures."""
        document: dict[str, Any] = {"provenance": to_json(self.provenance)}
        for name, section in self.sections.items():
            document[name] = {"paragraph": section.paragraph, **to_json(section.figures)}
        document["localisation"]["examples"] = to_json(self.examples)
        return document


def make(
    run: EvaluatedRun,
    *,
    seed: int = 0,
    answer_lines: bool | None = None,
    on_section: Callable[[str], None] = lambda name: None,
) -> Report:
    """The report of an evaluation.

    Args:
        run: the evaluation as it lies on disk.
        seed: of the bootstrap.
        answer_lines: may a closing line be the wrong step? None: not where all labels come from outside.
        on_section: called with the name of each section before it is computed.

    Raises:
        StoreError: the traces cannot be located by one rule, or their provenance holds something unreadable.
    """
    sections: dict[str, Section[Any]] = {}
    for name, module in SECTIONS.items():
        on_section(name)
        if module is localisation:
            sections[name] = localisation.section(run, seed=seed, answer_lines=answer_lines)
        else:
            sections[name] = module.section(run, seed=seed)
    if run.ways:
        on_section(WAYS)
        sections[WAYS] = ways.section(run, seed=seed)
    counts = {"run": run.frame, "perturbed": run.perturbed, "probes": run.probes}
    provenance = {
        **run.provenance,
        "report": {
            "version": REPORT_VERSION,
            "seed": seed,
            "answer_lines": answer_lines,
            "file": run.path.name,
            "traces": {name: len(frame) for name, frame in counts.items()},
            "judged": asdict(judged(run.frame)),
            "compared": {name: len(frame) for name, frame in run.compare.items()},
            "training_lines": len(run.training),
        },
    }
    return Report(provenance, sections, choose(run))


def judged(frame: pd.DataFrame) -> Judged:
    """How many traces of a run the model cannot judge."""
    known = frame[["cannot_judge", "familiar"]].astype(object)
    known = known.where(known.notna(), None)
    return Judged.of(known["cannot_judge"], known["familiar"].tolist())


def to_text(report: Report) -> str:
    """The report as strict JSON, the same text for the same report."""
    return json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
