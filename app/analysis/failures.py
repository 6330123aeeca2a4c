"""The contents of the Failures page: the rows of a scored run, filtered; other samples of a problem; annotations.

Knows no streamlit and runs no model.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.analysis import catalogue
from app.analysis.catalogue import ROW, RunInfo
from irl_core.data.annotations import Annotation, latest, text_hash
from irl_core.evaluation.agreement import label_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_batches

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

DATABASE: Final = Path("runs") / "annotations.sqlite"
PAGE_ROWS: Final = 50
OUTCOMES: Final = ("incorrect", "correct", "not judged", "all")
SORTS: Final = {
    ROW: "order in the file",
    "score_mean_discounted": "mean discounted reward",
    "score_credit_minimum": "lowest credit",
    "score_min": "lowest reward",
    "confidence": "confidence",
    "length": "length",
    "n_steps": "number of steps",
    "predicted_step": "step that the model names",
    "true_first_error_step": "true first wrong step",
    "problem_id": "problem",
}
# What a blind annotator may see of a trace before the answer: nothing that the model or a label says of its steps.
NEUTRAL: Final = ("problem", "text", "answer", "correct", "n_steps", "length")
TELLING: Final = ("kind", "true_first_error_step", "decision", "predicted_step", "confidence", "score_mean_discounted")
SCORE: Final = "score_mean_discounted"
COLUMN_TITLES: Final = {
    "trace_id": "trace", "problem": "problem", "text": "solution", "answer": "answer", "correct": "correct",
    "n_steps": "steps", "length": "tokens", "kind": "kind of error", "true_first_error_step": "true first error",
    "decision": "decision", "predicted_step": "the model names", "confidence": "confidence",
    "score_mean_discounted": "mean discounted reward", "mine": "you said",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Query:
    """Filters and order of the rows. Empty tuples, None and empty texts filter nothing.

    ``true_steps`` and ``predicted_steps`` are 0-based, -1 = known to have none, or none named.
    """

    outcome: str = "incorrect"
    kinds: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    true_steps: tuple[int, ...] = ()
    predicted_steps: tuple[int, ...] = ()
    scores: tuple[float, float] | None = None
    words: str = ""
    sort: str = ROW
    descending: bool = False

    @property
    def telling(self) -> bool:
        """Whether the choice of rows says something about the model's answer or the label."""
        chosen = (self.kinds, self.decisions, self.true_steps, self.predicted_steps, self.scores)
        return any(chosen) or self.sort not in (ROW, "length", "n_steps", "problem_id")


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows of a run that a query asks for, in its order, and the one that is looked at.

    Attributes:
        table: the index of the run.
        numbers: the numbers of the rows in it.
        place: where the row that is looked at stands in ``numbers``.
    """

    info: RunInfo
    table: pa.Table
    numbers: Sequence[int]
    place: int

    @classmethod
    def at_trace(
        cls, info: RunInfo, table: pa.Table, numbers: Sequence[int], trace_id: str | None, number: int | None = None
    ) -> Listing:
        """The listing at the trace of that id, wherever a sort has put it; at the first row where it is not there.

        ``number``: of its row, for a file may hold several traces of one id.
        """
        import pyarrow.compute as pc

        ids = table.column("trace_id")
        if trace_id is None:
            number = None
        elif number is None or number not in numbers or ids[number].as_py() != trace_id:
            number = pc.index(ids, trace_id).as_py()
        return cls(info, table, numbers, numbers.index(number) if number in numbers else 0)

    def trace_id(self, place: int) -> str:
        """The id of the trace at a place of the list."""
        return str(self.table.column("trace_id")[self.numbers[place]].as_py())

    @property
    def is_last(self) -> bool:
        """Whether there is no trace after the one that is looked at."""
        return self.place == len(self.numbers) - 1


@dataclass(frozen=True, slots=True)
class Choices:
    """The values that can be filtered by in a run, and the range of its scores (None where no trace has one)."""

    kinds: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    true_steps: tuple[int, ...] = ()
    predicted_steps: tuple[int, ...] = ()
    scores: tuple[float, float] | None = None
    sorts: tuple[str, ...] = field(default_factory=lambda: tuple(SORTS))


def choices(table: pa.Table) -> Choices:
    """The values that occur in the index of a run."""
    import pyarrow.compute as pc

    def distinct(name: str) -> list[Any]:
        return sorted(value for value in pc.unique(table.column(name)).to_pylist() if value is not None)

    ends = pc.min_max(table.column(SCORE)).as_py()
    known = None if ends["min"] is None else (float(ends["min"]), float(ends["max"]))
    return Choices(
        tuple(distinct("kind")),
        tuple(distinct("decision")),
        tuple(distinct("true_first_error_step")),
        tuple(distinct("predicted_step")),
        known,
    )


def numbers(info: RunInfo, table: pa.Table, query: Query) -> list[int]:
    """The numbers of the rows that a query asks for, in its order. Reads texts only where words are looked for.

    Raises:
        StoreError: the run cannot be read.
    """
    among = rows_with_words(info, query.words) if query.words.strip() else None
    return catalogue.numbers(table, filter_of(query), query.sort, query.descending, among)


def filter_of(query: Query) -> Any:
    """The ``pyarrow.dataset`` expression of a query's filters; None where it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tests: list[Any] = []
    if query.outcome == "not judged":
        tests.append(pc.field("correct").is_null())
    elif query.outcome != "all":
        tests.append(pc.field("correct") == (query.outcome == "correct"))
    for name, wanted, kind in (
        ("kind", query.kinds, pa.string()),
        ("decision", query.decisions, pa.string()),
        ("true_first_error_step", query.true_steps, pa.int32()),
        ("predicted_step", query.predicted_steps, pa.int32()),
    ):
        if wanted:
            tests.append(pc.field(name).isin(pa.array(wanted, kind)))
    if query.scores is not None:
        low, high = query.scores
        tests.append((pc.field(SCORE) >= low) & (pc.field(SCORE) <= high))
    return reduce(operator.and_, tests) if tests else None


def rows_with_words(info: RunInfo, words: str) -> list[int]:
    """The numbers of the rows whose problem, text or trace id holds the words, in upper or lower case."""
    import pyarrow.compute as pc

    numbers: list[int] = []
    start = 0
    for table in read_batches(info.path, ["problem", "text", "trace_id"]):
        hits = [
            pc.match_substring(column, words.strip(), ignore_case=True).fill_null(False).to_pylist()
            for column in table.columns
        ]
        numbers += [start + place for place, hit in enumerate(zip(*hits, strict=True)) if any(hit)]
        start += table.num_rows
    return numbers


def table_rows(info: RunInfo, chosen: Sequence[int], *, telling: bool) -> pd.DataFrame:
    """The rows of the table; without ``telling`` only what a blind annotator may see."""
    rows = catalogue.rows(info, chosen, ["trace_id", *NEUTRAL, *(TELLING if telling else ())])
    for name in ("true_first_error_step", "predicted_step"):
        if name in rows:
            rows[name] = rows[name].map(step_words)
    return rows


def step_words(step: Any) -> str:
    """A stored step in words: counted from 1, 'none' for known to have none, empty for not known."""
    if step is None or step != step:
        return ""
    return "none" if step < 0 else f"step {int(step) + 1}"


def model_words(row: ScoredRow) -> str:
    """The model's decision on a trace, in words."""
    if row["decision"] is None:
        return "No discriminator has read this trace."
    named = {"error": f"first error in {step_words(row['predicted_step'])}", "no_error": "no error found"}
    sure = "" if row["confidence"] is None else f", confidence {100 * row['confidence']:.0f}%"
    return f"The model: {named.get(row['decision'], 'too uncertain')}{sure}."


def label_words(row: ScoredRow) -> str:
    """The run's label of a trace, in words; empty where it has none."""
    known = step_words(row["true_first_error_step"])
    kind = f" ({row['kind']})" if row["kind"] else ""
    return f"Label: {known}{kind}." if known else ""


@dataclass(frozen=True, slots=True)
class Sample:
    """Another sample of a problem; ``score``: its mean discounted reward, None where it has none."""

    trace_id: str
    text: str
    score: float | None


def best_correct(info: RunInfo, table: pa.Table, problem_id: str, but: str) -> Sample | None:
    """The correct sample of a problem with the highest score, other than the trace ``but``; None without one."""
    import pyarrow.compute as pc

    wanted = (pc.field("problem_id") == problem_id) & pc.field("correct") & (pc.field("trace_id") != but)
    best = catalogue.numbers(table, wanted, SCORE, descending=True)[:1]
    if not best:
        return None
    trace_id, text, score = catalogue.rows(info, best, ["trace_id", "text", SCORE]).iloc[0]
    return Sample(trace_id, text, None if score is None or score != score else float(score))


def annotation(
    row: ScoredRow, run: str, annotator: str, choice: str, *, category: str, note: str, blind: bool
) -> Annotation:
    """The annotation of a row. ``choice``: ``none``, ``unsure``, or the 0-based step as a text.

    Raises:
        AnnotationError: a value outside its limits, named.
    """
    step = int(choice) if choice not in ("none", "unsure") else None
    return Annotation(
        run=run,
        trace_id=row["trace_id"],
        text_sha256=text_hash(row["problem"], row["text"]),
        problem_id=row["problem_id"] or row["trace_id"],
        annotator=annotator,
        verdict="error" if step is not None else "none" if choice == "none" else "unsure",
        step=step,
        category=category if step is not None else "",
        note=note,
        blind=blind,
    )


def own_annotation(row: ScoredRow, annotations: Sequence[Annotation], annotator: str) -> Annotation | None:
    """The newest annotation of a row by one annotator."""
    return latest(annotations).get((text_hash(row["problem"], row["text"]), annotator))


def agreement_rows(info: RunInfo, annotations: Sequence[Annotation]) -> list[dict[str, str | int]]:
    """A row for each pair of annotators, and for each annotator with the model: agreement and Cohen's kappa."""
    from irl_core.evaluation.agreement import between_annotators, with_model

    return [
        {
            "one": pair.first, "other": pair.second, "same label": str(pair.observed),
            "kappa, first wrong step": str(pair.kappa),
            "kappa, wrong or not": str(pair.kinds_kappa), "left out, unsure": pair.unsure,
        }
        for pair in (*between_annotators(annotations), *with_model(annotations, model_labels(info, annotations)))
    ]  # fmt: skip


def model_labels(info: RunInfo, annotations: Sequence[Annotation]) -> dict[str, str]:
    """The model's label by text_sha256, of the annotated traces that are in a run. Reads their rows alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = sorted({one.trace_id for one in annotations})
    if not ids:
        return {}
    wanted = pc.field("trace_id").isin(pa.array(ids, pa.string()))
    frame = catalogue.summary(info, ["problem", "text", "decision", "predicted_step"], wanted)
    return {
        text_hash(row["problem"], row["text"]): label_of(
            row["decision"], None if row["predicted_step"] is None else int(row["predicted_step"])
        )
        for row in frame.astype(object).where(frame.notna(), None).to_dict("records")
        if row["decision"] is not None
    }
