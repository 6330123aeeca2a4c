"""Score a file of solutions into a run: streaming, resumable, and no row lost without a word.

The input is read in windows of ``WINDOW`` traces; a window is scored in batches of similar length and written as one
part of the run, so memory does not grow with the file, and a run that was killed goes on after its last whole part. A
window is always cut and batched alike, so the result equals that of an unbroken run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console

from irl_core.data.formats import Format, RowError, read
from irl_core.errors import InputError
from irl_core.storage.rows import row_of
from irl_core.storage.schema import RefusedRow, ScoredRow
from irl_core.storage.scored_run import RunWriter
from train.planning.describe import hours
from train.progress import progress_bar

if TYPE_CHECKING:
    from irl_core.scorer import Lens
    from irl_core.types import EncodedTrace, Trace

WINDOW = 512
FORMAT_NAMES = {"model-solutions": "solutions"}

Window = tuple[list["Trace"], list[RefusedRow]]


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a batch: rows scored, rows that could not be, and where both are."""

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


def check_source(source: Path, out: Path, layout: str) -> None:
    """Refuse, before any model is loaded, what cannot be read or written.

    Raises:
        DatasetError: the source is missing or of no known format.
        InputError: ``out`` is a folder, the source, or no .parquet.
    """
    read(source, _format(layout))
    if out.is_dir() or out.resolve() == source.resolve():
        raise InputError(
            f"{out} is {'a folder' if out.is_dir() else 'the input itself'}; name another file with --out."
        )
    if out.suffix.lower() not in ("", ".parquet"):
        raise InputError(f"{out.name}: a scored run is a Parquet file; name it {out.stem}.parquet.")


def _format(layout: str) -> Format:
    return cast(Format, FORMAT_NAMES.get(layout, layout))


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
    """Score every row of ``source`` into the run ``out``; what could not be goes to ``<out>.errors.jsonl``.

    Raises:
        DatasetError: the source cannot be read at all. StoreError: the run cannot be written, or there is an
        unfinished one of another input or checkpoint.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    digest, lines = _digest(source)
    writer = RunWriter(out, _provenance(source, digest, lens, layout, batch_tokens, window), resume=resume)
    scored = failed = continued = 0
    done, fresh, started = 0, 0, time.monotonic()
    with progress_bar("Scoring", lines, console=console, shown=console is not None) as bar:
        for number, (traces, errors) in enumerate(windows(read(source, _format(layout)), window)):
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
    failed = _write_errors(writer, _errors_path(out))
    scored = _finish(writer)
    return Summary(scored, failed, min(continued, scored), out, _errors_path(out))


def _finish(writer: RunWriter) -> int:
    if writer.rows() == 0:
        writer.discard()
        return 0
    return writer.finish()


def _errors_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}.errors.jsonl")


def windows(rows: Iterable[Trace | RowError], size: int) -> Iterator[Window]:
    """The rows in windows of ``size`` traces (the last one shorter), each with the bad rows met while it filled."""
    traces: list[Trace] = []
    errors: list[RefusedRow] = []
    for row in rows:
        if isinstance(row, RowError):
            errors.append({"file": row.file, "line": row.line, "field": row.field, "message": row.message})
        else:
            traces.append(row)
        if len(traces) == size or len(errors) >= 10 * size:
            yield traces, errors
            traces, errors = [], []
    if traces or errors:
        yield traces, errors


def score_window(
    lens: Lens, traces: Iterable[Trace], *, run_id: str, batch_tokens: int
) -> tuple[list[ScoredRow], list[RefusedRow]]:
    """Rows of the traces in their order, and what was refused (too long for the context, blank), by trace id."""
    encoded: list[EncodedTrace] = []
    refused: list[RefusedRow] = []
    for trace in traces:
        try:
            encoded.append(lens.encode(trace))
        except InputError as error:
            refused.append({"trace_id": trace.trace_id, "message": str(error)})
    scored = lens.score_encoded(encoded, batch_tokens)
    return [row_of(one, lens.locate(one), run_id=run_id) for one in scored], refused


def _write_errors(writer: RunWriter, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for error in writer.errors():
            file.write(json.dumps(error, ensure_ascii=False) + "\n")
            count += 1
    if not count:
        path.unlink()
    return count


def _digest(source: Path) -> tuple[str, int]:
    """sha256 of a file and its number of lines, read once in pieces."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    with source.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            lines += piece.count(b"\n")
            last = piece
    return digest.hexdigest(), lines + (not last.endswith(b"\n"))


def _provenance(source: Path, digest: str, lens: Lens, layout: str, batch_tokens: int, window: int) -> dict[str, Any]:
    return {
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
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
