"""What the Failures page shows of a scored run: its rows filtered, the trace beside the others of its problem, and
what annotators said. Knows no streamlit and runs no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.analysis import catalogue
from app.analysis.catalogue import ROW, RunInfo
from irl_core.data.annotations import Annotation, latest, text_hash
from irl_core.evaluation.agreement import label_of
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
    """Which rows are wanted, in which order. Empty tuples, None and empty texts ask for nothing.

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
class Choices:
    """What can be filtered by in a run, and the range of its scores (None where no trace has one)."""

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
    among = _with_words(info, query.words) if query.words.strip() else None
    return catalogue.numbers(table, _filters(query), query.sort, query.descending, among)


def _filters(query: Query) -> Any:
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
    found = None
    for test in tests:
        found = test if found is None else found & test
    return found


def _with_words(info: RunInfo, words: str) -> list[int]:
    """The rows whose problem, text or trace id holds the words, capitals aside."""
    import pyarrow.compute as pc

    found: list[int] = []
    start = 0
    for table in read_batches(info.path, ["problem", "text", "trace_id"]):
        hits = [
            pc.match_substring(column, words.strip(), ignore_case=True).fill_null(False).to_pylist()
            for column in table.columns
        ]
        found += [start + place for place, hit in enumerate(zip(*hits, strict=True)) if any(hit)]
        start += table.num_rows
    return found


def trace_id(table: pa.Table, number: int) -> str:
    """The id of the row of that number in the index of a run."""
    return str(table.column("trace_id")[number].as_py())


def place_of(table: pa.Table, chosen: Sequence[int], wanted: str | None) -> int:
    """Where the trace ``wanted`` stands in a list of row numbers, found by its id; 0 where it is not in the list."""
    import pyarrow.compute as pc

    number = -1 if wanted is None else pc.index(table.column("trace_id"), wanted).as_py()
    return chosen.index(number) if number in chosen else 0


def shown_rows(info: RunInfo, chosen: Sequence[int], *, telling: bool) -> pd.DataFrame:
    """The rows of the table; without ``telling`` only what a blind annotator may see."""
    columns = ["trace_id", *NEUTRAL, *(TELLING if telling else ())]
    found = catalogue.rows(info, chosen, columns)
    for name in ("true_first_error_step", "predicted_step"):
        if name in found:
            found[name] = found[name].map(step_words)
    return found


def step_words(step: Any) -> str:
    """A stored step in words: counted from 1, 'none' for known to have none, empty for not known."""
    if step is None or step != step:
        return ""
    return "none" if step < 0 else f"step {int(step) + 1}"


def model_words(row: Mapping[str, Any]) -> str:
    """What the model decided on a trace."""
    if row["decision"] is None:
        return "No discriminator has read this trace."
    named = {"error": f"first error in {step_words(row['predicted_step'])}", "no_error": "no error found"}
    sure = "" if row["confidence"] is None else f", confidence {100 * row['confidence']:.0f}%"
    return f"The model: {named.get(row['decision'], 'too uncertain')}{sure}."


def label_words(row: Mapping[str, Any]) -> str:
    """What the run's label says of a trace; empty where it has none."""
    known = step_words(row["true_first_error_step"])
    kind = f" ({row['kind']})" if row["kind"] else ""
    return f"Label: {known}{kind}." if known else ""


def best_correct(info: RunInfo, table: pa.Table, problem_id: str, but: str) -> dict[str, Any] | None:
    """The correct sample of a problem with the highest score, other than the trace ``but``; None without one."""
    import pyarrow.compute as pc

    wanted = (pc.field("problem_id") == problem_id) & pc.field("correct") & (pc.field("trace_id") != but)
    found = catalogue.numbers(table, wanted, SCORE, descending=True)
    if not found:
        return None
    rows = catalogue.rows(info, found[:1], ["trace_id", "text", SCORE])
    return {str(name): value for name, value in rows.iloc[0].to_dict().items()}


def annotation(
    row: Mapping[str, Any], run: str, annotator: str, choice: str, *, category: str, note: str, blind: bool
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


def own_annotation(row: Mapping[str, Any], annotations: Sequence[Annotation], annotator: str) -> Annotation | None:
    """The newest annotation of a row by one annotator."""
    return latest(annotations).get((text_hash(row["problem"], row["text"]), annotator))


def agreement_rows(info: RunInfo, annotations: Sequence[Annotation]) -> list[dict[str, str | int]]:
    """A row for each pair of annotators, and for each annotator with the model: agreement and Cohen's kappa."""
    from irl_core.evaluation.agreement import between_annotators, with_model
    from irl_core.report.charts.style import words

    return [
        {
            "one": pair.first, "other": pair.second, "same label": words(pair.observed.to_json()),
            "kappa, first wrong step": words(pair.kappa.to_json()),
            "kappa, wrong or not": words(pair.kinds_kappa.to_json()), "left out, unsure": pair.unsure,
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
