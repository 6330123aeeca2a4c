"""The report as one HTML page: no network, nothing but itself; charts, their tables, and four traces token by token.

Every text of data or models is escaped or a text node; the page's policy forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.examples import Example
from irl_core.evaluation.report import Report
from irl_core.evaluation.section import Section
from irl_core.report import published
from irl_core.report.charts import evaluation, localisation, style, traces
from irl_core.report.charts.training import training
from irl_core.report.figures import laid, stylesheet
from irl_core.report.headlines import headline
from irl_core.report.heatmap import payload
from irl_core.report.heatmap.export import embed
from irl_core.report.inspection_json import to_json, with_ids
from irl_core.report.markdown import origin
from irl_core.report.tables import templates
from irl_core.reward.token_scores import DEFAULT_GAMMA
from irl_core.reward.wording import signed
from irl_core.storage.rows import familiarity_of, localisation_of, scored_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_row

HERE = Path(__file__).parent
SCORE = "score_mean_discounted"
VIEW = "credit"
CURVES: Mapping[str, Sequence[str]] = {
    "Reward by class": ("disc/reward_expert", "disc/reward_policy", "disc/reward_perturbed"),
    "Correctness, train and held-out": ("rollout/correct", "eval/pass@1"),
    "Discriminator right, by class": ("disc/accuracy_expert", "disc/accuracy_policy", "disc/accuracy_perturbed"),
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the page, drawn in both themes; ``key`` is the id of its element."""

    key: str
    title: str
    light: Any
    dark: Any

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.light.layout.height)


def to_html(run: EvaluatedRun, report: Report) -> str:
    """The page of a report and the scored run that it is of: a text that needs no other file.

    Raises:
        StoreError: a trace that the report names is not in the scored run.
    """
    with style.plain_template():
        charts = {name: list(charts_of(name, run, section)) for name, section in report.sections.items()}
    data = {
        chart.key: {"light": json.loads(chart.light.to_json()), "dark": json.loads(chart.dark.to_json())}
        for some in charts.values()
        for chart in some
    }
    shown = [(f"example-{number}", one, read_row(run.path, one.trace_id))
             for number, one in enumerate(report.examples.traces)]  # fmt: skip
    shown = [example for example in shown if example[2]["prompt_reward"] is not None]
    script = "\n".join(
        [style.plotly_source(), payload.renderer_source(), (HERE / "report.js").read_text(encoding="utf-8")]
    )
    return templates().get_template("report.html").render(
        report=report,
        headlines={name: headline(name, section) for name, section in report.sections.items()},
        laid=laid,
        questions=report.questions,
        origin=list(origin(report.provenance)),
        charts=charts,
        examples={key: row["problem"] for key, _, row in shown},
        cited=published.beside,
        not_found=published.NOT_FOUND,
        policy=_policy(script),
        style=Markup(payload.stylesheet() + stylesheet() + (HERE / "report.css").read_text(encoding="utf-8")),
        chart_data=Markup(embed(data)),
        example_data=Markup(embed({key: _example(row, one, key) for key, one, row in shown})),
        script=Markup(script),
    )  # fmt: skip


def _policy(script: str) -> str:
    """Plotly writes styles of its own, so that styles are allowed; of scripts only this very one is."""
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    sources = f"script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src blob: data:"
    return f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'"


def charts_of(name: str, run: EvaluatedRun, section: Section[Any]) -> Iterator[Chart]:
    """The charts of a section; none where it has none, or no figures."""
    figures = section.figures
    alone, frames = {"this run": figures}, {"this run": run.frame}
    makers: dict[str, list[tuple[str, Callable[..., Any]]]] = {
        "pass_at_k": [("Problems solved by k samples", partial(evaluation.pass_at_k, alone))],
        "separation": [
            ("Mean discounted reward by correctness", partial(traces.histogram, frames, SCORE)),
            ("Each solution", partial(traces.strip, frames, SCORE)),
        ],
        "reranking": [("Choosing among N samples", partial(evaluation.reranking, alone))],
        "correlation": [
            ("Pearson correlation", partial(evaluation.correlation_matrix, figures, "pearson")),
            ("Spearman correlation", partial(evaluation.correlation_matrix, figures, "spearman")),
        ],
        "localisation": [
            ("Finding the first wrong step", partial(localisation.localisation, figures)),
            ("By kind of mistake", partial(localisation.kinds, figures)),
            ("How far away", partial(localisation.distance, figures)),
            ("Is the confidence true?", partial(localisation.reliability, figures)),
        ],
        "training": [
            (title, partial(training, {"": run.training}, names, smooth=10)) for title, names in CURVES.items()
        ],
        "probes": [("What fools the reward", partial(evaluation.probes, figures))],
    }
    if not section.reason:
        for number, (title, draw) in enumerate(makers.get(name, [])):
            yield Chart(f"{name}-{number}", title, draw(theme="light"), draw(theme="dark"))


def _example(row: ScoredRow, one: Example, key: str) -> dict[str, Any]:
    """What the renderer draws of a stored trace."""
    scored = scored_of(row)
    result = to_json(
        [scored], [localisation_of(row)], problem=row["problem"], checkpoint=row["checkpoint"],
        familiarity=[familiarity_of(row)], kind="mean_discounted",
    )  # fmt: skip
    trace = with_ids(result, [scored])["traces"][0]
    title = f"{one.kind.capitalize()} solution, {one.why} score: {signed(one.score)} \u00b7 {one.trace_id}"
    return {
        **payload.settings(VIEW, DEFAULT_GAMMA, 1.0),
        **payload.describe(trace, title=title, caption=payload.answer_words(trace), file=key),
        "trace": trace,
    }
