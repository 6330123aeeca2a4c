"""A file of solutions scored into a Parquet file: streaming, resumable, and no row lost silently.

The input is read in windows of ``WINDOW`` traces; a window is scored in batches of similar length and written as one
part of the scored run, so memory does not grow with the file, and scoring that was killed continues after its last
whole part. A window is always cut and batched alike, so the result equals that of an unbroken one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from rich.console import Console

from irl_core.data.fields import RowError
from irl_core.data.formats import UNREADABLE, Format, read
from irl_core.errors import InputError
from irl_core.files import escaped, now
from irl_core.progress import progress_bar
from irl_core.storage.provenance import ScoredRunProvenance, file_hash
from irl_core.storage.rows import row_of
from irl_core.storage.schema import RefusedRow, ScoredRow
from irl_core.storage.scored_run import RunWriter, errors_path
from train.planning.describe import hours

if TYPE_CHECKING:
    from irl_core.scorer import Lens
    from irl_core.types import EncodedTrace, Trace

WINDOW = 512
FORMAT_NAMES = {"model-solutions": "solutions"}


class Window(NamedTuple):
    """Traces that are scored together, and the rows between them that are no traces."""

    traces: list[Trace]
    errors: list[RefusedRow]


class ScoredRows(NamedTuple):
    """The rows of scored traces, and of those that were refused."""

    rows: list[ScoredRow]
    refused: list[RefusedRow]


@dataclass(frozen=True, slots=True)
class Summary:
    """The outcome: rows scored, rows that could not be, those of them scored before an interruption, both files."""

    scored: int
    failed: int
    continued: int
    out: Path
    errors: Path

    def sentence(self) -> str:
        """The outcome in words, with every row counted."""
        lost = f"; {self.failed:,} could not be scored, see {self.errors}" if self.failed else ""
        if not self.scored:
            return f"No trace was scored{lost or ': the file has no rows'}."
        before = f" ({self.continued:,} of them before it was interrupted)" if self.continued else ""
        return f"Scored {self.scored:,} trace{'s' * (self.scored != 1)}{before} into {self.out}{lost}."


def read_traces(source: Path, layout: str) -> Iterator[Trace | RowError]:
    """The traces of a file in the format that ``--format`` names. Raises DatasetError."""
    return read(source, cast(Format, FORMAT_NAMES.get(layout, layout)))


def check_source(source: Path, out: Path, layout: str) -> None:
    """Refuse, before any model is loaded, what cannot be read or written.

    Raises:
        DatasetError: the source is missing or of no known format.
        InputError: ``out`` is a folder, the source, or no .parquet.
    """
    read_traces(source, layout)
    if out.is_dir() or out.resolve() == source.resolve():
        raise InputError(
            f"{out} is {'a folder' if out.is_dir() else 'the input itself'}; name another file with --out."
        )
    if out.suffix.lower() not in ("", ".parquet"):
        raise InputError(f"{out.name}: a scored run is a Parquet file; name it {out.stem}.parquet.")


def score_file(
    source: Path,
    out: Path,
    lens: Lens,
    *,
    layout: str = "auto",
    resume: bool = True,
    batch_tokens: int = 8192,
    window: int = WINDOW,
    console: Console | None = None,
) -> Summary:
    """Score every row of ``source`` into the scored run ``out``; refused rows go to ``<out>.errors.jsonl``.

    Args:
        source: the file of solutions.
        out: the Parquet file to write.
        lens: the loaded checkpoint.
        layout: the file's format, by its name on the command line.
        resume: continue an unfinished scored run of the same input.
        batch_tokens: most tokens, padding included, in one batch.
        window: traces that are scored and written together.
        console: shows the progress.

    Raises:
        DatasetError: the source cannot be read at all.
        StoreError: the scored run cannot be written, or there is an unfinished one of another input or checkpoint.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    digest, lines = file_hash(source)
    provenance: ScoredRunProvenance = {
        "command": "irl-lens score",
        "input": source.name,
        "input_sha256": digest,
        "format": layout,
        "checkpoint": lens.name,
        "checkpoint_sha256": lens.fingerprint,
        "checkpoint_provenance": lens.provenance,
        "standardised_over": lens.reference.origin,
        "batch_tokens": batch_tokens,
        "window": window,
        "created": now(),
    }
    writer = RunWriter(out, provenance, resume=resume)
    continued, done, fresh, started = 0, 0, 0, time.monotonic()
    with progress_bar("Scoring", lines, console=console, shown=console is not None) as bar:
        for number, (traces, errors) in enumerate(windows(read_traces(source, layout), window)):
            if number < writer.done:
                continued += len(traces)
            else:
                rows, refused = score_window(lens, traces, run_id=out.stem, batch_tokens=batch_tokens)
                writer.write(rows, [*errors, *refused])
                fresh += len(traces) + len(errors)
            done += len(traces) + len(errors)
            left = (time.monotonic() - started) / fresh * max(0, lines - done) if fresh else None
            bar.update(done, beside="" if left is None else f"{hours(left)} left")
            bar.log(f"Scored {done:,} of {lines:,}")
    failed = writer.write_errors()
    scored = writer.finish(keep_empty=False)
    return Summary(scored, failed, min(continued, scored), out, errors_path(out))


def windows(rows: Iterable[Trace | RowError], size: int) -> Iterator[Window]:
    """The rows in windows of ``size`` traces (the last one shorter), each with the bad rows met while it filled."""
    window = Window([], [])
    for row in rows:
        if isinstance(row, RowError):
            window.errors.append({"file": row.file, "line": row.line, "field": row.field, "message": row.message})
        else:
            window.traces.append(row)
        if len(window.traces) == size or len(window.errors) >= 10 * size:
            yield window
            window = Window([], [])
    if window.traces or window.errors:
        yield window


def score_window(lens: Lens, traces: Iterable[Trace], *, run_id: str, batch_tokens: int) -> ScoredRows:
    """Rows of the traces in their order, and those that the checkpoint cannot read (too long, blank), or that make no
    row of a scored run."""
    encoded, refused = encode_all(lens, traces)
    rows: list[ScoredRow] = []
    for scored in lens.score_encoded(encoded, batch_tokens):
        try:
            rows.append(row_of(scored, lens.locate(scored), run_id=run_id))
        except UNREADABLE as error:
            message = f"makes no row of a scored run ({type(error).__name__}: {escaped(str(error))[:300]})"
            refused.append({"trace_id": scored.trace.trace_id, "message": message})
    return ScoredRows(rows, refused)


def encode_all(lens: Lens, traces: Iterable[Trace]) -> tuple[list[EncodedTrace], list[RefusedRow]]:
    """The traces as tokens, and those that the checkpoint cannot read."""
    encoded: list[EncodedTrace] = []
    refused: list[RefusedRow] = []
    for trace in traces:
        try:
            encoded.append(lens.encode(trace))
        except InputError as error:
            refused.append({"trace_id": trace.trace_id, "message": escaped(str(error))})
    return encoded, refused
