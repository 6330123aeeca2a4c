"""A file of solutions scored into a Parquet file: streaming, resumable, and no row lost silently.

The input is read in windows of ``WINDOW`` traces; a window is scored in batches of similar length and written as one
part of the scored run, so memory does not grow with the file, and scoring that was killed continues after its last
whole part. A window is always cut and batched alike, so the result equals that of an unbroken one.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from pyarrow.parquet import read_metadata
from rich.console import Console

from irl_core.data.fields import RowError
from irl_core.data.formats import UNREADABLE, Format, read_counted
from irl_core.data.intake import Intake
from irl_core.data.sources import Columns, TraceSource, open_source
from irl_core.errors import InputError
from irl_core.files import escaped, now
from irl_core.models.allocation import give_back_freed_tensors
from irl_core.progress import ProgressBar, progress_bar
from irl_core.reward.verdict import Judged, rule_on
from irl_core.storage.provenance import ScoredRunProvenance, source_hash
from irl_core.storage.rows import row_of
from irl_core.storage.run_writer import RunWriter, is_leftover, remove_parts
from irl_core.storage.schema import RefusedRow, ScoredRow
from irl_core.storage.scored_run import errors_path, judged_in, parts_folder, read_run
from irl_core.storage.sole_writer import sole_writer
from train.planning.describe import hours
from train.score_target import COMMAND, check_target
from train.workers import Workers

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
    """The outcome: rows scored, rows that could not be, those of them scored before an interruption, both files.

    ``intake``: what became of the rows of the input; None where only the end of an earlier process was left to do.
    ``verdicts``: the traces by the kind of the verdict on them. ``answers``: by whether the answer is right, None where
    that is not known.
    """

    scored: int
    failed: int
    continued: int
    out: Path
    errors: Path
    judged: Judged
    intake: Intake | None = None
    verdicts: Mapping[str, int] = field(default_factory=dict)
    answers: Mapping[bool | None, int] = field(default_factory=dict)

    def sentence(self) -> str:
        """The outcome in words, with every row counted."""
        lost = f"; {self.failed:,} could not be scored, see {self.errors}" if self.failed else ""
        if not self.scored:
            return f"No solution was scored{lost or ': the file has no rows'}."
        before = f" ({self.continued:,} of them before it was interrupted)" if self.continued else ""
        said = f"Scored {self.scored:,} solution{'s' * (self.scored != 1)}{before} into {self.out}{lost}."
        return f"{said} {self.judged.words.capitalize()}." if self.judged.cannot or self.judged.not_measured else said

    def closing(self) -> list[str]:
        """Lines that say how many answers are wrong, in how many traces an error is named, how many are unfamiliar,
        without a signal and unread, and what to do next."""
        if not self.scored:
            return []
        wrong, unread = self.verdicts.get("error", 0), self.verdicts.get("unread", 0)
        told = f"An error is named in {wrong:,} of {self.scored:,}. "
        if known := self.scored - self.answers.get(None, 0):
            told = f"Wrong answers: {self.answers.get(False, 0):,} of {known:,}. {told}"
        told += f"Unfamiliar: {self.judged.unfamiliar:,}. "
        if self.judged.without_signal:
            told += f"Without a signal: {self.judged.without_signal:,}. "
        lines = [f"{told}Unread: {self.failed + unread:,}.", "Next: look at them on the page Failures (irl-lens app)."]
        if self.judged.unfamiliar:
            lines.append("On unfamiliar ones the reward has no say; 'irl-lens checkpoints' lists what else there is.")
        if self.failed:
            lines.append(f"{self.errors} says why each other row was left out; mend what you can, and score again.")
        return lines


def read_traces(source: Path, layout: str, columns: Columns | None = None) -> tuple[Intake, Iterator[Trace | RowError]]:
    """The traces of a source in the format that ``--format`` names, and what becomes of its rows. Raises
    DatasetError."""
    return read_counted(source, cast(Format, FORMAT_NAMES.get(layout, layout)), columns)


def check_source(source: Path, out: Path, layout: str, *, columns: Columns | None = None, force: bool = False) -> None:
    """Refuse, before any model is loaded, what cannot be read or written, or must not be replaced.

    Raises:
        DatasetError: the source is missing or of no known format.
        InputError: ``out`` is no name of a scored run's file.
        StoreError: `check_target` refuses it, it cannot be written, or another process is writing it.
    """
    read_traces(source, layout, columns)
    check_target(source, out, force=force)
    if out.suffix.lower() not in ("", ".parquet"):
        raise InputError(f"{escaped(out.name)}: a scored run is a Parquet file; name it {escaped(out.stem)}.parquet.")
    with sole_writer(parts_folder(out), escaped(out.name)):
        pass


def score_file(
    source: Path,
    out: Path,
    lens: Lens,
    *,
    layout: str = "auto",
    columns: Columns | None = None,
    resume: bool = True,
    force: bool = False,
    batch_tokens: int = 8192,
    window: int = WINDOW,
    console: Console | None = None,
    workers: Workers | None = None,
) -> Summary:
    """Score every row of ``source`` into the scored run ``out``; refused rows go to ``<out>.errors.jsonl``.

    Args:
        source: the file of solutions, or the folder or data set of the hub.
        out: the Parquet file to write.
        lens: the loaded checkpoint.
        layout: the format, by its name on the command line.
        columns: the columns in which a format's fields stand under other names.
        resume: continue an unfinished scored run of the same input.
        force: write over files that are not a scored run of the same input.
        batch_tokens: most tokens, padding included, in one batch.
        window: traces that are scored and written together.
        console: shows the progress.
        workers: the processes that score it together, each of which calls this.

    Raises:
        DatasetError: the source cannot be read at all.
        InputError, StoreError: `check_target` refuses ``out``, it cannot be written, another process is writing it,
            or there is an unfinished run of another input or checkpoint.
        ConfigError: another of the ``workers`` reads another input or checkpoint.
    """
    workers = workers or Workers()
    read_from = open_source(source)
    provenance, lines = run_provenance(read_from, lens, layout, columns, batch_tokens, window)
    workers.check_same(json.dumps(provenance), "inputs, checkpoint or options", "give every machine the same of them")
    provenance["created"] = now()
    with ExitStack() as held:

        def claim_target() -> Summary | None:
            held.enter_context(sole_writer(parts_folder(out), escaped(out.name)))
            check_target(source, out, force=force)
            return leftover(out, provenance) if resume else None

        if (before := workers.from_main(claim_target)) is not None:
            return before
        writer = workers.writer(out, provenance, resume=resume)
        with progress_bar("Scoring", lines, console=console, shown=console is not None) as bar:
            intake, rows = read_traces(source, layout, columns)
            continued = write_parts(writer, windows(rows, window), lens, read_from.name, lines, bar, workers)
        writer.provenance = {**writer.provenance, "intake": intake.record()}
        scored, failed = workers.from_main(lambda: merged(writer))
    known = Summary(scored, failed, min(continued, scored), out, errors_path(out), Judged(0, 0, 0, 0), intake)
    return counted(known) if scored and workers.is_main else known


def run_provenance(
    source: TraceSource, lens: Lens, layout: str, columns: Columns | None, batch_tokens: int, window: int
) -> tuple[ScoredRunProvenance, int]:
    """What decides the rows of a scored run, the same in every process that scores it, and the lines of ``source``.

    Raises:
        DatasetError: the source cannot be read.
    """
    digest, lines = source_hash(source)
    provenance: ScoredRunProvenance = {
        "command": COMMAND,
        "input": escaped(source.name),
        "input_sha256": digest,
        "format": layout,
        "checkpoint": lens.name,
        "checkpoint_sha256": lens.fingerprint,
        "checkpoint_provenance": lens.provenance,
        "standardised_over": lens.reference.origin,
        "batch_tokens": batch_tokens,
        "window": window,
    }
    if columns:
        provenance["columns"] = dict(columns)
    return provenance, lines


def leftover(out: Path, provenance: ScoredRunProvenance) -> Summary | None:
    """The outcome of a scoring that was killed while it removed its parts, which are removed; else None."""
    if not is_leftover(out, provenance):
        return None
    remove_parts(parts_folder(out))
    before, told = read_metadata(out).num_rows, errors_path(out)
    failed = len(told.read_text(encoding="utf-8").splitlines()) if told.exists() else 0
    return counted(Summary(before, failed, before, out, told, Judged(0, 0, 0, 0)))


def counted(summary: Summary) -> Summary:
    """The outcome with what its scored run says of the traces."""
    answers = Counter(read_run(summary.out, ["correct"]).column("correct").to_pylist())
    return replace(summary, judged=judged_in(summary.out), verdicts=verdicts_in(summary.out), answers=answers)


def merged(writer: RunWriter) -> tuple[int, int]:
    """Write the run and its refused rows; returns the numbers of both."""
    failed = writer.write_errors()
    return writer.finish(keep_empty=False), failed


def verdicts_in(path: Path) -> dict[str, int]:
    """The traces of a scored run by the kind of the verdict on them."""
    names = ["arithmetic_false", "arithmetic_first_false_step", "decision", "predicted_step", "cannot_judge", "correct"]
    columns = [column.to_pylist() for column in read_run(path, names).columns]
    return Counter(
        rule_on(false or 0, step, decision, named, None if cannot is None else not cannot, correct).kind
        for false, step, decision, named, cannot, correct in zip(*columns, strict=True)
    )


def write_parts(
    writer: RunWriter,
    parts: Iterable[Window],
    lens: Lens,
    name: str,
    lines: int,
    bar: ProgressBar,
    workers: Workers,
) -> int:
    """Score the windows of the input ``name`` that have no part yet, and write each; returns the number of traces that
    had one. Of several ``workers`` each scores the windows that it claims, and all leave when all windows have a part.
    """
    batch_tokens = int(writer.provenance["batch_tokens"])
    continued, done, fresh, number, started = 0, 0, 0, -1, time.monotonic()
    for number, (traces, errors) in enumerate(parts):
        if number in writer.there:
            continued += len(traces)
        else:
            if workers.claim(number):
                rows, refused = score_window(lens, traces, run_id=writer.path.stem, batch_tokens=batch_tokens)
                named: list[RefusedRow] = [{"file": escaped(name), **row} for row in refused]
                writer.write(rows, [*errors, *named], number=number)
                give_back_freed_tensors()
            fresh += len(traces) + len(errors)
        done += len(traces) + len(errors)
        left = (time.monotonic() - started) / fresh * max(0, lines - done) if fresh else None
        bar.update(min(done, lines), beside="" if left is None else f"{hours(left)} left")
        bar.log(f"Scored {min(done, lines):,} of {lines:,}")
    workers.finish_parts(writer, number + 1)
    return continued


def windows(rows: Iterable[Trace | RowError], size: int) -> Iterator[Window]:
    """The rows in windows of ``size`` traces (the last one shorter), each with the bad rows met while it filled."""
    window = Window([], [])
    for row in rows:
        if isinstance(row, RowError):
            window.errors.append(
                {"file": escaped(row.file), "line": row.line, "field": row.field, "message": row.message}
            )
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
    found = lens.score_encoded(encoded, batch_tokens)
    for scored, known in zip(found, lens.familiarities(found), strict=True):
        try:
            rows.append(row_of(scored, lens.locate(scored), run_id=run_id, familiarity=known))
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
