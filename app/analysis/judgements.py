"""What people said of the traces of a scored run: in words, made from a row, compared. No streamlit, no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from app.analysis import catalogue
from app.analysis.catalogue import RULED_BY, RunInfo
from app.analysis.failures import label_words, step_called
from irl_core.data.annotations import ADJUDICATED, Annotation, latest, text_hash
from irl_core.errors import AnnotationError
from irl_core.evaluation.agreement import label_of
from irl_core.storage.rows import verdict_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_run
from irl_core.types import Span

if TYPE_CHECKING:
    from irl_core.evaluation.agreement import Agreement
    from irl_core.statistics.bootstrap import Estimate

UNDONE: Final = "Undone"
_UNSPACED: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # Thai to Chinese: no blanks
_LETTER: Final = rf"[^\W\d{_UNSPACED}]"
_ENDING: Final = rf"(?:[^\W{_UNSPACED}]|[\u0300-\u036f])*"
_CURRENCY: Final = "[$\u00a2-\u00a5\u20a0-\u20cf]"
WORD: Final = re.compile(
    rf"(?:(?<![\w)\]])[-\u2212])?{_CURRENCY}?(?:\d+(?:[.,]\d+)*|(?<!\d)\.\d+)(?:%|{_CURRENCY}|{_ENDING})"
    rf"|{_LETTER}{_ENDING}(?:['\u2019-]{_LETTER}{_ENDING})*"
)


def said_words(one: Annotation, row: ScoredRow) -> str:
    """An annotator's word on the trace of a row, on one line."""
    more = "; ".join(filter(None, (one.category, " ".join(one.note.split()))))
    return (
        f"{one.annotator}: {label_of_row(one, row)}"
        + (f" ({more})" if more else "")
        + ("" if one.blind else ", not blind")
    )


def judged_items(annotations: Iterable[Annotation], annotator: str) -> set[str]:
    """The items that an annotator has judged."""
    return {one.text_sha256 for one in annotations if one.annotator == annotator}


def label_of_row(one: Annotation, row: Mapping[str, Any]) -> str:
    """An annotation's label on a row: ``none``, ``unsure``, or what the row's text calls the step."""
    return one.label if one.step is None else step_called(row, one.step)


def judgement_words(one: Annotation, row: ScoredRow) -> str:
    """An annotation's label in words: of no wrong step the word alone would read as if nothing had been said."""
    return spoken_label(label_of_row(one, row))


def spoken_label(label: str) -> str:
    """A label of `label_of_row` in a sentence."""
    return "no step is wrong" if label == "none" else label


def details_of(one: Annotation, text: str) -> str:
    """What an annotation says beside its label, in brackets: category, severity, the wrong words of the text, note."""
    words = words_of(one, text)
    said = (
        one.category, one.severity, f"the words \u201c{words}\u201d" if words else "",
        f"note \u201c{' '.join(one.note.split())}\u201d" if one.note.strip() else "",
    )  # fmt: skip
    return f" ({', '.join(filter(None, said))})" if any(said) else ""


def words_of(one: Annotation, text: str) -> str:
    """The words of a text that an annotation calls wrong; empty where it names none."""
    return text[slice(one.span_start, one.span_end)] if one.span_start is not None else ""


def note_of(one: Annotation, person: str) -> str:
    """The note of an annotation as the person wrote it: that of a settled disagreement begins with who settled it, and
    is no note of anybody else."""
    if one.annotator != ADJUDICATED:
        return one.note
    who, _, note = one.note.partition(": ")
    return note if who == person else ""


def spoken(row: ScoredRow, own: Annotation, beside: Annotation | None) -> list[tuple[str, str]]:
    """What is said of a trace, a line for each who says it: the speaker, and the rest of the line.

    Args:
        row: of the trace.
        own: the annotator's answer that counts.
        beside: see `noted_beside`.
    """
    verdict = verdict_of(row)
    read = row["prompt_reward"] is not None
    checked = "The arithmetic check" if read else "The checks"
    lines = [
        ("You", own_words(own, beside, row)),
        # where there are rewards, the whole of the verdict stands above them
        (checked if verdict.ruling.by == "arithmetic" or not read else "The model",
         f": {verdict.claim}." if read else f": {verdict.sentence}"),
    ]  # fmt: skip
    label = label_words(row)
    return [*lines, ("The label", f": {label}.")] if label else lines


def own_words(own: Annotation, beside: Annotation | None, row: ScoredRow) -> str:
    """What the annotator said of a trace and whether it was said blind; and what was noted beside a blind answer."""
    said = f" said: {judgement_words(own, row)}{details_of(own, row['text'])}"
    if beside is None:
        return f"{said}{'' if own.blind else ', with the answer in sight'}."
    later = f"{judgement_words(beside, row)}{details_of(beside, row['text'])}"
    return f"{said}, before you saw the model's answer; later you noted: {later}, which does not count."


def noted_beside(own: Annotation, annotations: Iterable[Annotation]) -> Annotation | None:
    """The newest answer that the annotator gave after a blind one on the same text, with the model's answer in sight:
    it is kept, and does not count. None where there is none, or ``own``, which counts, was not blind."""
    later = [
        one
        for one in annotations
        if (one.text_sha256, one.annotator) == (own.text_sha256, own.annotator)
        and own.blind and not one.blind and one.time > own.time
    ]  # fmt: skip
    return max(later, key=lambda one: one.time, default=None)


def last_said(row: ScoredRow, annotations: Iterable[Annotation], annotator: str) -> Annotation | None:
    """The newest answer that an annotator gave here on a row's text, whether it counts or not: what is undone first.
    None where there is none, or others have imported them all."""
    key = (text_hash(row["problem"], row["text"]), annotator)
    said = [one for one in annotations if (one.text_sha256, one.annotator) == key and one.own]
    return max(said, key=lambda one: one.time, default=None)


def undo_words(last: Annotation, counts: Annotation, row: ScoredRow) -> str:
    """What *Undo* does: withdraws the ``last`` answer on a row, beside the one that ``counts``."""
    if last == counts:
        return "Withdraws your answer. The next one on this text is not blind: the model's was shown."
    said, stays = judgement_words(last, row), judgement_words(counts, row)
    return f"Withdraws what you noted last, {said}. Your blind answer, {stays}, goes on counting."


def undone_words(last: Annotation, counts: Annotation, row: ScoredRow) -> str:
    """What was undone; for the three see `undo_words`."""
    said = judgement_words(last, row)
    if last == counts:
        return f"{UNDONE}: {said}."
    return f"{UNDONE}: {said}, which you noted last. What counts is your blind answer: {judgement_words(counts, row)}."


def again_words(own: Annotation, choice: str, row: ScoredRow, *, blind: bool) -> str:
    """What saving a choice does to an answer that was given before: changes it, or stands beside a blind one."""
    said, now = judgement_words(own, row), choice_words(choice, row)
    if said == now:
        return f"You said {said} before. Save keeps that, and notes what else you say of it now."
    if own.blind and not blind:
        return (
            f"You said {said} before you saw the model's answer, and that goes on counting; Save notes {now} beside "
            "it. To change your answer undo it first (Z, which takes back the newest first)."
        )
    return f"You said {said} before. Save changes it to {now}."


def choice_words(choice: str, row: ScoredRow) -> str:
    """A choice that is not saved yet, in the words of a judgement."""
    if choice in ("none", "unsure"):
        return spoken_label(choice)
    return step_called(row, int(choice))


def saved_words(before: Annotation | None, saved: Annotation, row: ScoredRow, name: str) -> str:
    """What was saved of the trace of a row, which goes by that name, and what became of the answer ``before``."""
    said = judgement_words(saved, row)
    if before is None:
        return f"Saved: {said} in {name}."
    old = judgement_words(before, row)
    if saved == before:
        return f"As before: {said} in {name}."
    if before.blind and not saved.blind:
        return f"Saved: {said} in {name}. What counts is your blind answer before: {old}."
    if old == said:
        return f"Saved again: {said} in {name}."
    return f"Changed from {old} to {said} in {name}."


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
    start, end = (None, None) if step is None else place_of(words.strip(), row, step, marked) or (None, None)
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


def step_with(row: ScoredRow, span: Span) -> int | None:
    """The step that holds a span of the text, from 0; None where none does."""
    return next((n for n, one in enumerate(row["steps"]) if one["start"] <= span[0] and span[1] <= one["end"]), None)


def place_of(words: str, row: ScoredRow, step: int, marked: Span | None) -> Span | None:
    """Where words stand in a step, rounded to whole words; None for no words.

    Of several places it is the one that was ``marked``, else the first where they are whole words, else the first.
    Raises AnnotationError where they do not stand in it.
    """
    if not words:
        return None
    text, start, end = row["text"], row["steps"][step]["start"], row["steps"][step]["end"]
    if marked is not None and text[slice(*marked)] == words and start <= marked[0] and marked[1] <= end:
        return whole_words(text, marked, (start, end))
    places = [(start + at, start + at + len(words)) for at in _places(words, text[start:end])]
    if not places:
        raise AnnotationError(f"the words {words[:60]!r} do not stand in {step_called(row, step)}; copy them from it")
    return next((one for one in places if whole_words(text, one, (start, end)) == one), None) or whole_words(
        text, places[0], (start, end)
    )


def _places(words: str, text: str) -> Iterator[int]:
    at = text.find(words)
    while at >= 0:
        yield at
        at = text.find(words, at + 1)


def whole_words(text: str, span: Span, within: Span) -> Span:
    """A span, which is not empty, rounded outward to whole words, but not beyond ``within``.

    A number with its decimals, sign, unit, currency or percent sign is one word; where a language writes without blanks
    nothing is rounded.
    """
    start, end = span
    for word in WORD.finditer(text, *within):
        if word.start() < end and start < word.end():
            start, end = min(start, word.start()), max(end, word.end())
    return start, end


def own_annotation(row: ScoredRow, annotations: Sequence[Annotation], annotator: str) -> Annotation | None:
    """The annotation of a row by one annotator that counts: the newest blind one, else the newest."""
    return latest(annotations).get((text_hash(row["problem"], row["text"]), annotator))


def agreements(info: RunInfo, annotations: Sequence[Annotation]) -> list[Agreement]:
    """The agreement of each pair of annotators, and of each annotator with the model."""
    from irl_core.evaluation.agreement import between_annotators, with_model

    return [*between_annotators(annotations), *with_model(annotations, model_labels(info, annotations))]


def agreement_rows(pairs: Iterable[Agreement]) -> list[dict[str, str | int]]:
    """A row for each pair of which something can be computed: agreement and Cohen's kappa."""
    return [
        {
            "one": pair.first, "other": pair.second,
            **{title: str(found) if found.defined else "" for title, found in estimates(pair).items()},
            "left out, unsure": pair.unsure,
        }
        for pair in pairs if any(found.defined for found in estimates(pair).values())
    ]  # fmt: skip


def estimates(pair: Agreement) -> dict[str, Estimate]:
    """What is computed of a pair, by its title."""
    return {
        "same label": pair.observed, "kappa, first wrong step": pair.kappa, "kappa, wrong or not": pair.kinds_kappa,
    }  # fmt: skip


def not_computed(pairs: Iterable[Agreement]) -> list[str]:
    """What cannot be computed, and why: a sentence for all pairs that lack the same for the same reason."""
    lacking: dict[str, list[str]] = {}
    for pair in pairs:
        titles: dict[str, list[str]] = {}
        for title, found in estimates(pair).items():
            if not found.defined:
                titles.setdefault(found.reason, []).append(title)
        if sum(map(len, titles.values())) == len(estimates(pair)):
            words = f"Nothing can be computed yet of {{}}: {pair.observed.reason}."
        else:
            words = " ".join(f"No {' and '.join(those)} of {{}}: {reason}." for reason, those in titles.items())
        if titles:
            lacking.setdefault(words, []).append(f"{pair.first} and {pair.second}")
    return [words.replace("{}", ", ".join(names)) for words, names in lacking.items()]


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
