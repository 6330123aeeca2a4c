"""A scored run's human labels as annotations: one more annotator's blind answers (``irl-lens export --to labels``)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from irl_core.data.annotations import Annotation, now, text_hash, to_jsonl
from irl_core.errors import InputError
from irl_core.files import escaped, write_whole
from irl_core.storage.scored_run import read_batches
from irl_core.types import Source

COLUMNS: Final = (
    "run_id", "trace_id", "problem_id", "problem", "text", "true_first_error_step", "n_steps", "source",
)  # fmt: skip


def labels_of(run: Path, annotator: str) -> list[Annotation]:
    """An annotation for each text of a scored run whose first wrong step, or that it has none, came with the input.

    Corrupted copies are left out: where they are wrong is known of how they were made, and nobody said it.

    Raises:
        StoreError: the run cannot be read.
        AnnotationError: the name is empty or too long.
    """
    created = now()
    found: dict[str, Annotation] = {}
    for batch in read_batches(run, COLUMNS):
        for row in batch.to_pylist():
            step = row["true_first_error_step"]
            if step is None or step >= row["n_steps"] or row["source"] == Source.PERTURBED:
                continue
            text = text_hash(row["problem"], row["text"])
            found.setdefault(
                text,
                Annotation(
                    row["run_id"], row["trace_id"], text, row["problem_id"], annotator,
                    "none" if step < 0 else "error", None if step < 0 else step, created=created,
                ),
            )  # fmt: skip
    return list(found.values())


def export_labels(run: Path, out: Path, annotator: str) -> int:
    """Write the labels of a scored run as JSON Lines that Failures imports; returns how many there are.

    Raises:
        InputError: the run has no label, or ``out`` is there already.
        StoreError, AnnotationError: as ``labels_of``.
    """
    if out.exists():
        raise InputError(f"{escaped(out.name)} is there already; name a new file.")
    labels = labels_of(run, annotator)
    if not labels:
        raise InputError(
            f"{escaped(run.name)} has no known first wrong step; score a file with labels, in a form of docs/data.md."
        )
    write_whole(out, to_jsonl(labels))
    return len(labels)
