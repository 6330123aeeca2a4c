"""A scored run's labels as annotations: one more annotator's answers (``irl-lens export --to labels``).

Those that people gave count as blind, as they gave them without this model. Others are not blind, and are in a name
that says who gave them: they count in no calibration that does not ask for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from irl_core.data.annotations import Annotation, now, text_hash, to_jsonl
from irl_core.data.formats import PEOPLE, UNKNOWN_AUTHOR
from irl_core.errors import InputError
from irl_core.files import escaped, write_whole
from irl_core.storage.scored_run import read_batches, read_provenance
from irl_core.types import Source

COLUMNS: Final = (
    "run_id", "trace_id", "problem_id", "problem", "text", "true_first_error_step", "n_steps", "source",
)  # fmt: skip


class Exported(NamedTuple):
    """How many labels were written, in whose name, and who gave them; ``by_people`` ones are blind annotations."""

    total: int
    annotator: str
    labels_by: str

    @property
    def by_people(self) -> bool:
        """Whether people gave them."""
        return self.labels_by == PEOPLE

    def sentences(self) -> str:
        """The outcome in words, with what labels that nobody vouches for are good for."""
        said = f"{self.total:,} annotations by {self.annotator!r}. Import them on Failures."
        if self.by_people:
            return said
        return (
            f"{said} They are not blind: the labels are by {self.labels_by}. A calibration counts them with "
            "'irl-lens calibrate --seen' alone, and no agreement with the model does."
        )


def labels_of(run: Path, annotator: str, *, blind: bool = True) -> list[Annotation]:
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
                    "none" if step < 0 else "error", None if step < 0 else step, blind=blind, created=created,
                ),
            )  # fmt: skip
    return list(found.values())


def labels_by(run: Path) -> str:
    """Who gave the labels of a scored run, as it keeps of its input. Raises StoreError."""
    return read_provenance(run).get("intake", {}).get("labels_by") or UNKNOWN_AUTHOR


def export_labels(run: Path, out: Path, annotator: str) -> Exported:
    """Write the labels of a scored run as JSON Lines that Failures imports; returns what was written.

    Where people did not give them, they are not blind, and the annotator's name says who did.

    Raises:
        InputError: the run has no label, or ``out`` is there already.
        StoreError, AnnotationError: as ``labels_of``.
    """
    if out.exists():
        raise InputError(f"{escaped(out.name)} is there already; name a new file.")
    by = labels_by(run)
    name = annotator if by == PEOPLE else f"{annotator} (by {by})"
    labels = labels_of(run, name, blind=by == PEOPLE)
    if not labels:
        raise InputError(
            f"{escaped(run.name)} has no known first wrong step; score a file with labels, in a form of docs/data.md."
        )
    write_whole(out, to_jsonl(labels))
    return Exported(len(labels), name, by)
