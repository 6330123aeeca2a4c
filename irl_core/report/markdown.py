"""The report in Markdown: the questions with their answers first, then each section's tables, cited ones apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from irl_core.evaluation.report import Report
from irl_core.report import published
from irl_core.report.headlines import headline
from irl_core.report.tables import escaped, markdown
from irl_core.reward.verdict import Judged
from irl_core.storage.provenance import machine_in_words

FILES = {"run": "solutions", "perturbed": "corrupted copies", "probes": "probes with their honest solutions"}

# What a summary shows of the report; the rest is in report.json.
SHOWN = {
    "pass_at_k": ("pass@k by policy",),
    "separation": ("Correct against incorrect solutions of the same problem",),
    "reranking": ("Best of N", "Votes weighted by exp(score / temperature)"),
    "ways": ("Right answers and tokens",),
    "localisation": (
        "First wrong step, solutions of the run",
        "What was decided, at the held-out threshold",
        "Kinds of mistakes",
        "First wrong step, corrupted expert solutions",
    ),
    "probes": ("What fools which score",),
}


def to_markdown(report: Report) -> str:
    """The whole report. Texts that come from data or models are escaped."""
    parts = [f"# {escaped(report.title)}\n"]
    parts += [f"- {escaped(line)}" for line in origin(report.provenance)]
    parts += ["", "Brackets hold 95 % intervals, over problems where nothing else is said; n counts what they are of."]
    parts += answers(report, "\n##")
    for name, section in report.sections.items():
        parts.append(f"\n## {section.title}\n")
        parts += [markdown(table) for table in section.tables if table.rows]
        for cited in published.beside(name):  # under a heading of its own: never beside a measured column
            note = f"Cited, not measured here. Source: {cited.source}, {cited.place}. {cited.note}"
            table = markdown(replace(cited, title=f"Published: {cited.title}", note=note))
            parts.append(f"{table}\nRead at {cited.seen}.\n")
    parts.append("\n## Published figures that were not found\n")
    parts += [f"- {escaped(line)}" for line in published.NOT_FOUND]
    return "\n".join(parts) + "\n"


def summary(report: Report, level: int = 2) -> str:
    """The questions with their answers as headings of a level, and the tables of ``SHOWN``."""
    parts = answers(report, "#" * level)
    for name, titles in SHOWN.items():
        tables = report.sections[name].tables if name in report.sections else ()
        parts += [markdown(table) for table in tables if table.title in titles and table.rows]
    return "\n".join(parts)


def answers(report: Report, mark: str) -> list[str]:
    """Each question as a heading, with the sentences and paragraphs that answer it."""
    parts = []
    for question, names in report.questions.items():
        parts.append(f"{mark} {question}\n")
        for name in names:
            section = report.sections[name]
            first = headline(name, section).sentence
            if not section.paragraph.startswith(first):
                parts.append(f"**{escaped(first)}**\n")
            parts.append(f"{escaped(section.paragraph)}\n")
    return parts


def origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say what was evaluated, on what, when, on which machine and with which seed."""
    known = dict(provenance)
    name, sha = known.get("checkpoint", "not known"), known.get("checkpoint_sha256")
    yield f"checkpoint: {name}" + (f" (sha256 {sha})" if sha else "")
    if "input" in known:
        yield f"data: {known['input']} (sha256 {known.get('input_sha256', 'not known')})"
    counted = [f"{known[key]} {key}" for key in ("problems", "samples") if key in known]
    traces = known.get("report", {}).get("traces", {})
    yield ", ".join([*counted, *(f"{count} {FILES[name]}" for name, count in traces.items() if count)])
    if judged := known.get("report", {}).get("judged"):
        yield Judged(**judged).words
    if "temperature" in known and "samples" in known:  # given solutions were not sampled here
        yield f"sampled at temperature {known['temperature']:g}, top-p {known['top_p']:g}"
    if "seed" in known:
        yield f"seed: {known['seed']}; of the bootstrap: {known.get('report', {}).get('seed')}"
    if "created" in known or "date" in known:
        yield f"date: {known.get('created', known.get('date'))}"
    if isinstance(known.get("machine"), dict):
        yield f"machine: {machine_in_words(known['machine'])}"
    commit = (known.get("code") or {}).get("commit") if isinstance(known.get("code"), dict) else None
    if commit:
        yield f"code: {commit}" + (", with changes that are not committed" if known["code"].get("dirty") else "")
