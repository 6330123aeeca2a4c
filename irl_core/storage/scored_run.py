"""Scored runs on disk: one Parquet file a run, one row a trace, read a column and a few rows at a time.

The file's metadata holds ``irl_lens.schema_version`` and ``irl_lens.provenance``, JSON of where the run comes from
(checkpoint, input, its sha256, command, date). The columns are those of ``irl_core.storage.schema``.

``irl_core.storage.run_writer`` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq

from irl_core.data.scored_rows import PROVENANCE_KEY
from irl_core.errors import StoreError
from irl_core.reward.verdict import Judged
from irl_core.storage.provenance import ScoredRunProvenance
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import ADDED_COLUMNS, COLUMNS, READABLE_VERSIONS, ScoredRow
from irl_core.types import ScoredTrace

VERSION_KEY = b"irl_lens.schema_version"
ROWS_PER_GROUP = 512


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
    raise StoreError(f"{path.name}: no solution {trace_id!r}")


def read_trace(path: Path, trace_id: str) -> ScoredTrace:
    """One scored trace of a run. Raises StoreError where there is none of that id, or no discriminator has read it."""
    row = read_row(path, trace_id)
    if row["prompt_reward"] is None:
        raise StoreError(f"{path.name}: solution {trace_id!r} has no rewards: no discriminator has read it")
    return scored_of(row)


# ------------------------------------------------------------------------------------------------- names of files


def errors_path(path: Path) -> Path:
    """The file beside a run that holds the refused rows of its input."""
    return path.with_name(f"{path.stem}.errors.jsonl")


def parts_folder(path: Path) -> Path:
    """The folder beside a run that holds its parts until it is finished."""
    return path.with_name(f"{path.name}.parts")


def judged_in(path: Path) -> Judged:
    """How many traces of a scored run the model cannot judge: two short columns are read. Raises StoreError."""
    table = read_run(path, ["cannot_judge", "familiar"])
    return Judged.of(*(column.to_pylist() for column in table.columns))
