"""Scored runs on disk: one Parquet file a run, one row a trace, read a column and a few rows at a time.

The file's metadata holds ``irl_lens.schema_version`` and ``irl_lens.provenance``, JSON of where the run comes from
(checkpoint, input, its sha256, command, date). The columns are those of ``irl_core.storage.schema``.

A run is written as part files in ``<name>.parts`` beside it and merged when it is finished: a run that was killed
continues after the last whole part and ends as the same file.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq

from irl_core.errors import StoreError
from irl_core.files import atomic_replacement, escaped, not_written
from irl_core.storage.provenance import ScoredRunProvenance
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import ADDED_COLUMNS, COLUMNS, READABLE_VERSIONS, SCHEMA_VERSION, RefusedRow, ScoredRow
from irl_core.storage.sole_writer import remove_empty
from irl_core.types import ScoredTrace

VERSION_KEY = b"irl_lens.schema_version"
PROVENANCE_KEY = b"irl_lens.provenance"
ROWS_PER_GROUP = 512
NO_ROW = (pa.ArrowException, ValueError, TypeError, OverflowError)  # what a value raises that no column can hold
OWN_NAME = re.compile(r"\.?(run\.json|merged|errors|part-\d{6}(\.errors\.jsonl|\.parquet))(\.[\w-]+)?(\.tmp)?")
MARKER = "run.json"  # among the parts: what run they are of; written first, removed first
COMPRESSION = 9  # a tenth smaller than the default, and read as fast


# ----------------------------------------------------------------------------------------------------- reading


def read_provenance(path: Path) -> ScoredRunProvenance:
    """The provenance of a run, as it was written. Raises StoreError for a file that is no run, or does not tell it."""
    written = checked_metadata(path).get(PROVENANCE_KEY, b"")
    try:
        known: ScoredRunProvenance = json.loads(written)
        json.dumps(known, ensure_ascii=False).encode()  # half a character cannot be shown
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path.name}: its provenance is not JSON; score the input again") from error
    if not isinstance(known, dict):
        raise StoreError(f"{path.name}: its provenance is not a JSON object; score the input again")
    return known


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """What pyarrow raises while it reads a damaged file (in one byte, it may be half a dozen kinds) as a StoreError."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"{path.name}: there is no such run") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path.name}: is not a readable Parquet file ({error})") from error


def checked_metadata(path: Path) -> dict[bytes, bytes]:
    """The Parquet metadata of a run of this schema version. Raises StoreError for any other file."""
    with parquet_errors(path):
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    version = metadata.get(VERSION_KEY)
    if version is None:
        raise StoreError(f"{path.name}: is a Parquet file, but not a scored run; make one with irl-lens score")
    if version not in [str(known).encode() for known in READABLE_VERSIONS]:
        raise StoreError(
            f"{path.name}: has schema version {version.decode(errors='replace')}; this program reads versions "
            f"{' and '.join(map(str, READABLE_VERSIONS))}. Score the input again with irl-lens score."
        )
    return metadata


def read_run(path: Path, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Rows of a run that pass ``filters`` (a ``pyarrow.dataset`` expression), with ``columns`` alone (None = all).

    Raises:
        StoreError: not a run of the version that this program reads, or a column that it does not have.
    """
    batches = [batch for table in read_batches(path, columns, filters) for batch in table.to_batches()]
    names = COLUMNS.names if columns is None else columns
    return pa.Table.from_batches(batches, pa.schema([COLUMNS.field(name) for name in names]))


def read_batches(path: Path, columns: Sequence[str] | None = None, filters: Any = None) -> Iterator[pa.Table]:
    """What `read_run` returns, a few hundred rows at a time: a run of any size in the memory of a row group."""
    checked_metadata(path)
    names = COLUMNS.names if columns is None else list(columns)
    unknown = [name for name in names if name not in COLUMNS.names]
    if unknown:
        raise StoreError(f"{path.name}: no column {', '.join(unknown)}; there are {', '.join(COLUMNS.names)}")
    with parquet_errors(path):
        data = pa.dataset.dataset(path, schema=full_schema(pq.read_schema(path), names), format="parquet")
        for batch in data.to_batches(columns=names, filter=filters, batch_size=ROWS_PER_GROUP):
            if batch.num_rows:
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def lacking(found: pa.Schema, names: Sequence[str]) -> list[str]:
    """The columns among ``names`` that a run's file must have and does not; those of `ADDED_COLUMNS` may be missing."""
    return [name for name in names if name not in found.names and name not in ADDED_COLUMNS]


def full_schema(found: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The file's schema with the columns that an older one lacks, which are read as null. Raises ValueError where a
    column is missing that every version has."""
    if missing := lacking(found, names):
        raise ValueError(f"no column {', '.join(missing)}")
    added = [COLUMNS.field(name) for name in ADDED_COLUMNS if name not in found.names]
    return pa.schema([*found, *added])


def read_group(file: pq.ParquetFile, group: int, names: Sequence[str]) -> pa.Table:
    """A row group of a run's file with some columns, in their order; null where an older file lacks one."""
    schema = full_schema(file.schema_arrow, names)
    there = file.read_row_group(group, columns=[name for name in names if name in file.schema_arrow.names])
    columns = [
        there.column(name) if name in there.column_names else pa.nulls(there.num_rows, schema.field(name).type)
        for name in names
    ]
    return pa.table(columns, names=list(names))


def read_row(path: Path, trace_id: str) -> ScoredRow:
    """Every column of one trace's row. Reads the ids, then one row group, whatever the size of the run.

    Raises:
        StoreError: not a run, or no trace of that id.
    """
    checked_metadata(path)
    with parquet_errors(path), pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["trace_id"]).column("trace_id")
            index = pa.compute.index(ids, trace_id).as_py()
            if index >= 0:
                row: ScoredRow = read_group(file, group, COLUMNS.names).slice(index, 1).to_pylist()[0]
                return row
    raise StoreError(f"{path.name}: no trace {trace_id!r}")


def read_trace(path: Path, trace_id: str) -> ScoredTrace:
    """One scored trace of a run. Raises StoreError where there is none of that id, or no discriminator has read it."""
    row = read_row(path, trace_id)
    if row["prompt_reward"] is None:
        raise StoreError(f"{path.name}: trace {trace_id!r} has no rewards: no discriminator has read it")
    return scored_of(row)


# ----------------------------------------------------------------------------------------------------- writing


def errors_path(path: Path) -> Path:
    """The file beside a run that holds the refused rows of its input."""
    return path.with_name(f"{path.stem}.errors.jsonl")


def parts_folder(path: Path) -> Path:
    """The folder beside a run that holds its parts until it is finished."""
    return path.with_name(f"{path.name}.parts")


class RunWriter:
    """Writer of a scored run, part by part; a part that was written stays, whatever happens to the process.

    Args:
        path: the Parquet file to write.
        provenance: JSON data, the same for a run that is to be continued, but for ``created``, of which the first is
            kept.
        resume: continue after the parts that are there; False throws them away.

    Raises:
        StoreError: the parts there are of another input, checkpoint or schema version.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self.parts = parts_folder(path)
        self.marker = self.parts / MARKER
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.provenance: Mapping[str, Any] = dict(provenance)
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            if not (resume and self.marker.exists()):
                remove_parts(self.parts)  # without a marker they are what is left of a run that was merged
        except OSError as error:
            raise not_written(self.parts.name, error, StoreError) from error
        if self.marker.exists():
            begun = self.begun()
            self.provenance = begun["provenance"]
            if begun.get("schema_version") != SCHEMA_VERSION:
                changed = ["schema version"]
            else:
                keys = (self.provenance.keys() | provenance.keys()) - {"created"}
                changed = sorted(key for key in keys if self.provenance.get(key) != provenance.get(key))
            if changed:
                raise StoreError(
                    f"{self.parts.name}: an unfinished run with another {', '.join(changed)}. "
                    "Finish it as it was begun, or start again with --no-resume."
                )
        document = {"schema_version": SCHEMA_VERSION, "provenance": self.provenance, "owner": self.owner}
        with atomic_replacement(self.marker, error=StoreError, temporary=self.temporary(MARKER)) as temporary:
            temporary.write_text(json.dumps(document), encoding="utf-8")
        self.done = len(self.finished_parts())

    def temporary(self, name: str) -> Path:
        """A path among the parts that no other writer uses."""
        return self.parts / f"{name}.{self.owner}.tmp"

    def begun(self) -> dict[str, Any]:
        """The schema version, provenance and owner of the parts that are there. Raises StoreError."""
        try:
            begun: dict[str, Any] = json.loads(self.marker.read_text(encoding="utf-8"))
            begun["provenance"].keys()
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise StoreError(f"{self.parts.name}: its run.json cannot be read; start again with --no-resume") from error
        return begun

    def check_owner(self) -> None:
        """Raise StoreError where another writer has taken the parts over, which a lock prevents where there are any."""
        if self.begun().get("owner") != self.owner:
            raise StoreError(f"{self.parts.name}: another process has taken it over; this one stops")

    def finished_parts(self) -> list[Path]:
        """The part files written so far, in order. Raises StoreError where one is missing."""
        parts = sorted(self.parts.glob("part-*.parquet"))
        if [part.name for part in parts] != [f"part-{number:06d}.parquet" for number in range(len(parts))]:
            raise StoreError(f"{self.parts.name}: parts are missing; start again with --no-resume")
        return parts

    def write(self, rows: Sequence[ScoredRow], errors: Sequence[RefusedRow] = ()) -> None:
        """Write one part: its rows, and the input rows that could not be scored. Whole when this returns.

        A row that no column can hold becomes one of those that could not be scored.

        Raises:
            StoreError: the part could not be written, or another writer has taken over.
        """
        name = f"part-{self.done:06d}"
        self.check_owner()
        table, refused = table_of(rows)
        lines = "".join(json_line(error) for error in (*errors, *refused))
        part, told = self.parts / f"{name}.parquet", self.parts / f"{name}.errors.jsonl"
        with atomic_replacement(told, error=StoreError, temporary=self.temporary(told.name)) as temporary:
            temporary.write_text(lines, encoding="utf-8")
        with atomic_replacement(part, error=StoreError, temporary=self.temporary(part.name)) as temporary:
            pq.write_table(table, temporary)
        self.done += 1

    def errors(self) -> Iterator[RefusedRow]:
        """The refused rows, in the order of the input, of all parts written so far."""
        for part in self.finished_parts():
            with part.with_suffix(".errors.jsonl").open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def rows(self) -> int:
        """The number of rows written so far."""
        return sum(int(pq.read_metadata(part).num_rows) for part in self.finished_parts())

    def write_errors(self) -> int:
        """Write the refused rows to `errors_path`, a JSON object a line; no file where there is none. Returns their
        number."""
        self.check_owner()
        lines, told = [json_line(error) for error in self.errors()], errors_path(self.path)
        if lines:
            with atomic_replacement(told, error=StoreError, temporary=self.temporary("errors")) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
        else:
            told.unlink(missing_ok=True)
        return len(lines)

    def finish(self, *, keep_empty: bool = True) -> int:
        """Merge the parts into the run, in one rename, and remove them; without ``keep_empty`` no run is written where
        there is no row. Returns the number of rows."""
        self.check_owner()
        if not (keep_empty or self.rows()):
            self.clear()
            return 0
        metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), PROVENANCE_KEY: json.dumps(self.provenance).encode()}
        options = {"compression": "zstd", "compression_level": COMPRESSION}
        count = 0
        with (
            atomic_replacement(self.path, error=StoreError, temporary=self.temporary("merged")) as temporary,
            pq.ParquetWriter(temporary, COLUMNS.with_metadata(metadata), **options) as writer,
        ):
            for part in self.finished_parts():
                table = pq.read_table(part, schema=COLUMNS)
                writer.write_table(table.replace_schema_metadata(metadata), row_group_size=ROWS_PER_GROUP)
                count += table.num_rows
        self.clear()
        return count

    def clear(self) -> None:
        """Remove the parts and their folder, where nothing else lies in it."""
        remove_parts(self.parts)
        remove_empty(self.parts)  # not where the lock is in it, or something of another's


def remove_parts(folder: Path) -> None:
    """Remove the parts of a run, the marker first; and nothing else that lies in their folder."""
    (folder / MARKER).unlink(missing_ok=True)
    for path in folder.iterdir():
        if OWN_NAME.fullmatch(path.name):
            path.unlink()


def is_leftover(path: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether the parts of a run are what a kill left of them after the run was merged: it is there and has this
    provenance, but for ``created`` and ``intake``, and the parts have no marker.

    Raises:
        StoreError: the run that is there cannot be read.
    """
    parts = parts_folder(path)
    begun = parts.is_dir() and any(OWN_NAME.fullmatch(one.name) for one in parts.iterdir())
    if not begun or (parts / MARKER).exists() or not path.exists():
        return False
    known: Mapping[str, Any] = read_provenance(path)
    asked = json.loads(json.dumps(dict(provenance)))
    return all(known.get(key) == asked.get(key) for key in (known.keys() | asked.keys()) - {"created", "intake"})


def json_line(error: RefusedRow) -> str:
    """A refused row as a line of JSON; a lone surrogate is written as its escape sequence."""
    return escaped(json.dumps(error, ensure_ascii=False)) + "\n"


def table_of(rows: Sequence[ScoredRow]) -> tuple[pa.Table, list[RefusedRow]]:
    """The rows as a table, and those that no column can hold."""
    try:
        return pa.Table.from_pylist([dict(row) for row in rows], schema=COLUMNS), []
    except NO_ROW:
        pass  # one of them, at least: each is asked for itself
    fit: list[ScoredRow] = []
    refused: list[RefusedRow] = []
    for row in rows:
        try:
            pa.Table.from_pylist([dict(row)], schema=COLUMNS)
            fit.append(row)
        except NO_ROW as error:
            message = f"no column of a scored run holds one of its values ({str(error)[:300]})"
            refused.append({"trace_id": str(row["trace_id"]), "message": message})
    return pa.Table.from_pylist([dict(row) for row in fit], schema=COLUMNS), refused


def write_run(path: Path, rows: Sequence[ScoredRow], provenance: Mapping[str, Any]) -> int:
    """Write rows (of ``row_of``) as a whole run at once; returns their number."""
    writer = RunWriter(path, provenance, resume=False)
    for start in range(0, len(rows), ROWS_PER_GROUP):
        writer.write(rows[start : start + ROWS_PER_GROUP])
    return writer.finish()
