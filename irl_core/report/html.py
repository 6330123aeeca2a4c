"""The report as one HTML page: no network, nothing but itself; charts, their tables, and four traces token by token.

Every text of data or models is escaped or a text node; the page's policy forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irl_core.evaluation import published
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.report import QUESTIONS
from irl_core.report.charts import style, traces
from irl_core.report.heatmap import payload
from irl_core.report.heatmap.export import embed
from irl_core.report.inspection_json import to_json, with_ids
from irl_core.report.markdown import HEADINGS, origin, section_tables
from irl_core.report.tables import Table
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.storage.rows import localisation_of, scored_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_row

HERE = Path(__file__).parent
SCORE = "score_mean_discounted"
VIEW = "credit"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<nav aria-label="Contents"><ol>{contents}</ol></nav>
<main>
{body}
</main>
<script type="application/json" id="report-charts">{charts}</script>
<script type="application/json" id="report-examples">{examples}</script>
<script>{script}</script>
</body>
</html>
"""


@dataclass(slots=True)
class _Page:
    """What is collected while the page is written: charts and examples by the id of their element."""

    charts: dict[str, dict[str, Any]] = field(default_factory=dict)
    examples: dict[str, dict[str, Any]] = field(default_factory=dict)


def to_html(run: EvaluatedRun, report: Mapping[str, Any]) -> str:
    """The page of a report and the run that it is of: a text that needs no other file.

    Raises:
        StoreError: a trace that the report names is not in the run.
    """
    page = _Page()
    title = f"Evaluation of {report['provenance'].get('checkpoint', 'a scored run')}"
    with style.plain_template():
        sections = [_section(page, name, run, report[name]) for name in HEADINGS]
    body = [_opening(title, report), *sections, _missing(), _footer()]
    script = "\n".join(
        [style.plotly_source(), payload.renderer_source(), (HERE / "report.js").read_text(encoding="utf-8")]
    )
    return _PAGE.format(
        policy=_policy(script),
        title=_text(title),
        style=payload.stylesheet() + (HERE / "report.css").read_text(encoding="utf-8"),
        contents="".join(f'<li><a href="#{name}">{_text(words)}</a></li>' for name, words in HEADINGS.items()),
        body="\n".join(body),
        charts=embed(page.charts),
        examples=embed(page.examples),
        script=script,
    )


def _policy(script: str) -> str:
    """Plotly writes styles of its own, so that styles are allowed; of scripts only this very one is."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    sources = f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src blob: data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def _text(value: object) -> str:
    """Text for HTML; a character that HTML does not know is replaced."""
    return html.escape(str(value).replace("\0", "\ufffd"))


# ------------------------------------------------------------------------------------------------------------- parts


def _opening(title: str, report: Mapping[str, Any]) -> str:
    lines = "".join(f"<li>{_text(line)}</li>" for line in origin(report["provenance"]) if line)
    answers = "".join(
        f'<section class="answer"><h3>{_text(question)}</h3>'
        + "".join(f"<p>{_text(report[name]['paragraph'])}</p>" for name in names)
        + "</section>"
        for question, names in QUESTIONS.items()
    )
    note = "Brackets and bands are 95 % intervals, over problems where nothing else is said; n counts what they are of."
    return f'<h1>{_text(title)}</h1><ul class="origin">{lines}</ul><p class="note">{note}</p>{answers}'


def _section(page: _Page, name: str, run: EvaluatedRun, found: Mapping[str, Any]) -> str:
    parts = [f'<h2 id="{name}">{_text(HEADINGS[name])}</h2>']
    if found.get("reason"):
        parts.append(f'<p class="note">Undefined: {_text(found["reason"])}.</p>')
    parts += [_chart(page, f"{name}-{number}", *chart) for number, chart in enumerate(_charts(name, run, found))]
    parts += [_details(table) for table in section_tables(name, found)]
    if name == "localisation":
        parts.append(_examples(page, run, found["examples"]))
    parts += [_cited(table) for table in published.beside(name)]
    return "\n".join(parts)


def _chart(page: _Page, key: str, title: str, light: Any, dark: Any) -> str:
    figures = {"light": light, "dark": dark}
    page.charts[key] = {theme: json.loads(figure.to_json()) for theme, figure in figures.items()}
    height, words = int(light.layout.height), _text(title)
    return (
        f'<h3>{words}</h3><div class="chart" id="{key}" role="img" style="min-height: {height}px" '
        f'aria-label="{words}; the values are in the tables of this section"></div>'
    )


def _charts(name: str, run: EvaluatedRun, found: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(title, light, dark) of each chart of a section."""
    from irl_core.report.charts import figures as charts

    alone, frames = {"this run": found}, {"this run": run.frame}
    makers: dict[str, list[tuple[str, Any]]] = {
        "pass_at_k": [("Problems solved by k samples", lambda theme: charts.pass_at_k(alone, theme=theme))],
        "separation": [
            ("Mean discounted reward by correctness", lambda theme: traces.histogram(frames, SCORE, theme=theme)),
            ("Each trace", lambda theme: traces.strip(frames, SCORE, theme=theme)),
        ],
        "reranking": [("Choosing among N samples", lambda theme: charts.reranking(alone, theme=theme))],
        "correlation": [
            ("Pearson correlation", lambda theme: charts.correlation_matrix(found, "pearson", theme=theme)),
            ("Spearman correlation", lambda theme: charts.correlation_matrix(found, "spearman", theme=theme)),
        ],
        "localisation": [
            ("Finding the first wrong step", lambda theme: charts.localisation(found, theme=theme)),
            ("By kind of mistake", lambda theme: charts.kinds(found, theme=theme)),
            ("How far away", lambda theme: charts.distance(found, theme=theme)),
            ("Is the confidence true?", lambda theme: charts.reliability(found, theme=theme)),
        ],
        "training": [
            (title, lambda theme, names=names: charts.training({"": run.training}, names, smooth=10, theme=theme))
            for title, names in _CURVES.items()
        ],
        "probes": [("What fools the reward", lambda theme: charts.probes(found, theme=theme))],
    }
    if not found.get("reason"):
        for title, make in makers[name]:
            yield title, make("light"), make("dark")


_CURVES: Mapping[str, Sequence[str]] = {
    "Reward by class": ("disc/reward_expert", "disc/reward_policy", "disc/reward_perturbed"),
    "Correctness, train and held-out": ("rollout/correct", "eval/pass@1"),
    "Discriminator right, by class": ("disc/accuracy_expert", "disc/accuracy_policy", "disc/accuracy_perturbed"),
}


def _details(table: Table) -> str:
    note = f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return f"<details><summary>{_text(table.title)}</summary>{_table(table.head, table.rows)}{note}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'


def _cited(table: published.Table) -> str:
    """A published table in a frame of its own, with its source."""
    rows = [[row.name, *row.cells] for row in table.rows]
    return (
        f'<aside class="cited"><h3>Published, not measured here: {_text(table.title)}</h3>'
        f"{_table(['', *table.columns], rows)}"
        f'<p class="note">Source: {_text(table.source)} ({_text(table.address)}), {_text(table.place)}. '
        f"{_text(table.note)} Read at {_text(table.seen)}.</p></aside>"
    )


def _missing() -> str:
    lines = "".join(f"<li>{_text(line)}</li>" for line in published.NOT_FOUND)
    return f'<h2>Published figures that were not found</h2><ul class="origin">{lines}</ul>'


def _footer() -> str:
    return "<footer>Made with irl-lens. Nothing in this page is sent anywhere.</footer>"


# ---------------------------------------------------------------------------------------------------------- examples


def _examples(page: _Page, run: EvaluatedRun, chosen: Mapping[str, Any]) -> str:
    """The traces that the rule chose, coloured by credit."""
    parts = ["<h3>Four traces, token by token</h3>", f'<p class="note">{_text(chosen["rule"])}</p>']
    if chosen["reason"]:
        parts.append(f'<p class="note">Fewer than four: {_text(chosen["reason"])}.</p>')
    for number, one in enumerate(chosen["traces"]):
        key = f"example-{number}"
        row = read_row(run.path, one["trace_id"])
        if row["prompt_reward"] is None:
            continue
        page.examples[key] = _example(row, one, key)
        parts.append(f'<p class="problem">{_text(row["problem"])}</p><section class="trace" id="{key}"></section>')
    return "\n".join(parts)


def _example(row: ScoredRow, one: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What the renderer draws of a stored trace."""
    scored = scored_of(row)
    result = to_json(
        [scored], [localisation_of(row)], problem=row["problem"], checkpoint=row["checkpoint"], kind="mean_discounted"
    )
    trace = with_ids(result, [scored])["traces"][0]
    title = f"{one['class'].capitalize()} trace, {one['why']} score: {one['score']:.2f} \u00b7 {one['trace_id']}"
    return {
        **payload.settings(VIEW, DEFAULT_GAMMA, 1.0),
        **payload.describe(trace, title=title, caption=payload.answer_words(trace), file=key),
        "trace": trace,
    }
