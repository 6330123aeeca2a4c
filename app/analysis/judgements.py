"""What people said of the traces of a scored run: in words, made from a row, compared. No streamlit, no model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.analysis import catalogue
from app.analysis.catalogue import RULED_BY, RunInfo
from irl_core.data.annotations import Annotation, latest, text_hash
from irl_core.errors import AnnotationError
from irl_core.evaluation.agreement import label_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_run
from irl_core.types import Span


def said_words(one: Annotation) -> str:
    """An annotator's word on a trace, on one line."""
    more = "; ".join(filter(None, (one.category, " ".join(one.note.split()))))
    return f"{one.annotator}: {one.label}" + (f" ({more})" if more else "") + ("" if one.blind else ", not blind")


def judged_items(annotations: Iterable[Annotation], annotator: str) -> set[str]:
    """The items that an annotator has judged."""
    return {one.text_sha256 for one in annotations if one.annotator == annotator}


def judgement_words(label: str) -> str:
    """An annotation's label in words: of no wrong step the word alone would read as if nothing had been said."""
    return "no step is wrong" if label == "none" else label


def own_words(own: Annotation) -> str:
    """What the annotator said of a trace, in words, and whether it was said blind."""
    said = ", ".join(filter(None, (own.category, own.severity)))
    category = f" ({said})" if said else ""
    return f"You said: {judgement_words(own.label)}{category}{'' if own.blind else ', with the answer in sight'}."


def again_words(own: Annotation, choice: str, row: ScoredRow, *, blind: bool) -> str:
    """What saving a choice does to an answer that was given before: changes it, or stands beside a blind one."""
    said, now = judgement_words(own.label), choice_words(choice, row)
    if said == now:
        return f"You said {said} before. Save keeps that, and notes what else you say of it now."
    if own.blind and not blind:
        return (
            f"You said {said} before you saw the model's answer, and that goes on counting; Save notes {now} beside "
            "it. To change your answer undo it first (Z)."
        )
    return f"You said {said} before. Save changes it to {now}."


def choice_words(choice: str, row: ScoredRow) -> str:
    """A choice that is not saved yet, in the words of a judgement."""
    if choice in ("none", "unsure"):
        return judgement_words(choice)
    return f"step {int(choice) + 1}"


def saved_words(before: Annotation | None, saved: Annotation, name: str) -> str:
    """What was saved of the trace of that name, and what became of the answer ``before``."""
    said = judgement_words(saved.label)
    if before is None:
        return f"Saved: {said} in {name}"
    old = judgement_words(before.label)
    if saved == before:
        return f"As before: {said} in {name}"
    if before.blind and not saved.blind:
        return f"Saved: {said} in {name}. What counts is your blind answer before: {old}. Undo takes one back."
    if old == said:
        return f"Saved again: {said} in {name}"
    return f"Changed from {old} to {said} in {name}. Undo with Z"


def annotation(
    row: ScoredRow,
    run: str,
    annotator: str,
    choice: str,
    *,
    category: str,
    note: str,
    blind: bool,
    severity: str = "",
    words: str = "",
    marked: Span | None = None,
) -> Annotation:
    """The annotation of a row.

    Args:
        row: of the trace.
        run: the scored run's name.
        annotator: who says it.
        choice: ``none``, ``unsure``, or the 0-based step as a text.
        category: of the error.
        note: whatever else is said.
        blind: whether the model's answer was hidden.
        severity: of the error.
        words: those of the step that are wrong.
        marked: where they stand in the text, where they were marked there: a word may stand in a step twice.

    Raises:
        AnnotationError: a value outside its limits, named; words that do not stand in the step.
    """
    step = int(choice) if choice not in ("none", "unsure") else None
    start = end = None
    if step is not None and words.strip():
        where = row["steps"][step]
        start = row["text"].find(words.strip(), where["start"], where["end"])
        if marked is not None and row["text"][slice(*marked)] == words.strip() and where["start"] <= marked[0]:
            start = marked[0] if marked[1] <= where["end"] else start
        if start < 0:
            raise AnnotationError(
                f"the words {words.strip()[:60]!r} do not stand in step {step + 1}; copy them from it"
            )
        end = start + len(words.strip())
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
        severity=severity if step is not None else "",
        span_start=start,
        span_end=end,
    )


def own_annotation(row: ScoredRow, annotations: Sequence[Annotation], annotator: str) -> Annotation | None:
    """The annotation of a row by one annotator that counts: the newest blind one, else the newest."""
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
    """The verdict's label by text_sha256, of the annotated traces that are in a run. Reads their rows alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = sorted({one.trace_id for one in annotations})
    if not ids:
        return {}
    wanted = pc.field("trace_id").isin(pa.array(ids, pa.string()))
    found: dict[str, str] = {}
    for row in read_run(info.path, ["problem", "text", *RULED_BY], wanted).to_pylist():
        ruled = catalogue.ruling(row)
        if ruled.kind != "unread":
            found[text_hash(row["problem"], row["text"])] = label_of(ruled.kind, ruled.step)
    return found
