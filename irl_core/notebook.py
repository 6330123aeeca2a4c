"""Three lines in a notebook: ``lens = irl_core.load()``, ``lens.show(problem, solution)`` draws the coloured tokens,
``lens.score(rows)`` gives a data frame.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from irl_core.errors import InputError
from irl_core.report.heatmap.export import to_html
from irl_core.report.heatmap.payload import VIEWS, score_name
from irl_core.report.inspection_json import InspectionResult, to_json, with_ids
from irl_core.reward.token_scores import DEFAULT_GAMMA, rank
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace, with_reference
from irl_core.types import ScoredTrace, Trace

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_SAMPLES: Final = 4
LINE_PIXELS, EDGE_PIXELS, MOST_PIXELS = 30, 420, 1600
COLUMNS: Final = (
    "problem", "solution", "answer", "correct", "verdict", "kind", "found_by", "first_wrong_step", "cannot_judge",
    "confidence", "score", "lowest_step",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shown:
    """An inspection as a notebook draws it; in a plain console its verdicts. ``result`` is it as data."""

    result: InspectionResult
    page: str

    def __repr__(self) -> str:
        return "\n".join(trace["verdict"]["headline"] for trace in self.result["traces"])

    def _repr_html_(self) -> str:
        """The page in a frame of its own, which can run its own script and reach nothing else."""
        lines = sum(trace["text"].count("\n") + len(trace["text"]) // 90 + 1 for trace in self.result["traces"])
        pixels = min(MOST_PIXELS, EDGE_PIXELS * len(self.result["traces"]) + LINE_PIXELS * lines)
        return (
            f'<iframe title="irl-lens" sandbox="allow-scripts allow-downloads" srcdoc="{html.escape(self.page)}" '
            f'style="width: 100%; height: {pixels}px; border: 0"></iframe>'
        )

    def save(self, path: str | Path) -> None:
        """Write the page as one file. Raises InputError where it cannot be written."""
        try:
            Path(path).write_text(self.page, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror}).") from None


class NotebookLens:
    """A loaded checkpoint for use in a notebook; ``lens`` is it with all that it can do."""

    def __init__(self, lens: Lens) -> None:
        self.lens = lens

    def __repr__(self) -> str:
        return f"irl-lens with checkpoint {self.lens.name} on {self.lens.device}"

    def show(
        self,
        problem: str,
        solution: str | None = None,
        *,
        answer: str | None = None,
        samples: int = DEFAULT_SAMPLES,
        seed: int = 0,
        view: str = "credit",
    ) -> Shown:
        """Colour a solution token by token and name its first error; without one, solutions that the policy samples.

        Args:
            problem: its text.
            solution: its text.
            answer: the right answer, where it is known.
            samples: how many solutions to sample where none is given.
            seed: of the samples.
            view: what the colours show at first: raw, standardised, discounted or credit.

        Raises:
            InputError: a text that is blank or too long, or an unknown view.
        """
        if view not in VIEWS:
            raise InputError(f"Unknown view {view!r}; choose one of {', '.join(VIEWS)}.")
        traces = (
            [make_trace(problem, solution, reference_answer=answer, trace_id="given")]
            if solution is not None
            else [with_reference(one, answer) for one in self.lens.sample(problem, samples, seed)]
        )
        scored = self.lens.score(traces, standardise_over="reference" if solution is not None else "group")
        kind = self.lens.default_trace_score
        scored = [scored[index] for index in rank(scored, kind)]
        result = self._result(problem, scored)
        page = to_html(with_ids(result, scored), view=view, gamma=DEFAULT_GAMMA, score_name=score_name(kind))
        return Shown(result, page)

    def score(self, rows: pd.DataFrame | Sequence[Mapping[str, object]]) -> pd.DataFrame:
        """A row a solution: the verdict in words, who named which step (from 1), what the model cannot judge, the trace
        score (higher is better) and the lowest score of a step.

        Args:
            rows: with the fields ``problem`` and ``solution``, and ``answer`` where the right one is known.

        Raises:
            InputError: a row lacks a field, or a text that is blank or too long; it names the row.
        """
        import pandas as pd

        if isinstance(rows, pd.DataFrame):
            rows = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
        given = list(rows)
        traces = [trace_of(number, row) for number, row in enumerate(given)]
        for number, trace in enumerate(traces):
            try:
                self.lens.encode(trace)
            except InputError as error:
                raise InputError(f"Row {number}: {error}") from None
        scored = self.lens.score(traces)
        found = []
        for one in scored:
            (told,) = self._result(one.trace.problem, [one])["traces"]
            said, steps = told["verdict"], [step["score"] for step in told["steps"] if step["score"] is not None]
            found.append(
                (
                    one.trace.problem, one.trace.text, told["answer"], told["correct"], said["headline"], said["kind"],
                    said["by"], None if said["step"] is None else said["step"] + 1, told["cannot_judge"],
                    told["confidence"], told["trace_score"], min(steps, default=None),
                )
            )  # fmt: skip
        return pd.DataFrame(found, columns=list(COLUMNS)).astype({"first_wrong_step": "Int64"})

    def _result(self, problem: str, scored: Sequence[ScoredTrace]) -> InspectionResult:
        return to_json(
            scored,
            [self.lens.locate(one) for one in scored],
            problem=problem,
            checkpoint=self.lens.name,
            familiarity=self.lens.familiarities(scored),
            kind=self.lens.default_trace_score,
        )


def load(checkpoint: str = "auto", device: str = "auto") -> NotebookLens:
    """Load a checkpoint by its name or folder: the one way in for a notebook.

    Raises:
        InputError, CheckpointError: there is none of that name, it is not whole, or the device cannot be used.
    """
    from irl_core.models.bundled import checkpoint_folder

    return NotebookLens(Lens.load(checkpoint_folder(checkpoint, on_note=print), device))


def trace_of(number: int, row: Mapping[str, object]) -> Trace:
    """The trace of a row. Raises InputError, naming the row and the field that it lacks."""
    texts = []
    for name in ("problem", "solution"):
        text = row.get(name)
        if not isinstance(text, str):
            raise InputError(f"Row {number} has no text in {name!r}; a row needs 'problem' and 'solution'.")
        texts.append(text)
    answer = row.get("answer")
    known = None if answer is None or answer != answer else str(answer)  # a frame's missing answer is NaN
    return make_trace(texts[0], texts[1], reference_answer=known, trace_id=f"row-{number}")
