"""Rows of tables: CSV and TSV, Parquet, and Arrow as the library ``datasets`` keeps it.

A value has the type that it has in the file. CSV has none: there the columns that a format needs as numbers, as true or
false, or as lists are read as such.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from irl_core.data.jsonl import MAX_LINE_BYTES
from irl_core.errors import DatasetError

Rows = Iterator[tuple[int, dict[str, Any] | str]]

ROWS_AT_ONCE = 64
MOST_VALUES = 50_000_000  # of one column of a row group, which is read whole
WHOLE_NUMBERS = ("label", "step")
FLAGS = ("is_correct", "final_answer_correct", "correct")
LISTS = ("steps", "model_output_steps", "completions", "labels", "messages", "resps")
_FLAGS = {"true": True, "false": False, "1": True, "0": False}


def csv_rows(path: Path) -> Rows:
    """Rows of a table with a line of names, separated by the sign that its first line has most of: , ; or tab.

    The number of a row is that of the line where it begins. Raises DatasetError where the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as source:
            names_line = source.readline(MAX_LINE_BYTES)
            separator = max(",;\t", key=names_line.count)
            source.seek(0)
            csv.field_size_limit(MAX_LINE_BYTES)
            yield from _csv_rows(csv.reader(source, delimiter=separator))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path.name} is not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror}); see whether it is still there") from error


def _csv_rows(reader: Any) -> Rows:
    names: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, f"not a row of a table ({error})"
            continue
        if cells is None:
            return
        if not names:
            names = [name.strip() for name in cells]
        elif len(cells) > len(names) and any(cells):
            yield line, f"too many cells ({len(cells)} under {len(names)} names); quote those that hold separators"
        elif len(cells) < len(names) and any(cells):
            yield line, f"too few cells ({len(cells)} of {len(names)}); give every column one, which may be empty"
        elif any(cells):
            yield line, dict(zip(names, cells, strict=True))


def typed_cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row of text cells with the types that formats ask of some columns; an empty cell there is a missing one."""
    typed = {name: value for name, value in row.items() if value != "" or name not in (*WHOLE_NUMBERS, *FLAGS)}
    for name, value in typed.items():
        if not isinstance(value, str):
            continue
        if name in WHOLE_NUMBERS and value.strip().lstrip("-").isdecimal() and len(value) < 10:
            typed[name] = int(value)
        elif name in FLAGS:
            typed[name] = _FLAGS.get(value.strip().lower(), value)
        elif name in LISTS and value.lstrip().startswith("["):
            try:
                typed[name] = json.loads(value)
            except (ValueError, RecursionError):
                continue  # the format's reader says what it expects
    return typed


def parquet_rows(path: Path) -> Rows:
    """Rows of a Parquet file, a few at a time; binary columns are left out. Raises DatasetError."""
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            for group in range(metadata.num_row_groups):
                values = max((metadata.row_group(group).column(n).num_values for n in range(metadata.num_columns)),
                             default=0)  # fmt: skip
                if values > MOST_VALUES:
                    raise DatasetError(
                        f"{path.name}: {values:,} values in a row group; over {MOST_VALUES:,} write smaller row groups"
                    )
            names = [field.name for field in file.schema_arrow if not _binary(field.type)]
            yield from _numbered(file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names))
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path.name} is not a Parquet file that can be read ({_reason(error)})") from error


def arrow_rows(path: Path) -> Rows:
    """Rows of an Arrow file, in either of its formats. Raises DatasetError."""
    try:
        with pa.memory_map(str(path)) as source:
            start = source.read(6)
            source.seek(0)
            if start == b"ARROW1":
                file = pa.ipc.open_file(source)
                batches: Iterator[Any] = (file.get_batch(number) for number in range(file.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(source))
            yield from _numbered(batches)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path.name} is not an Arrow file that can be read ({_reason(error)})") from error


def _numbered(batches: Iterator[Any]) -> Rows:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # a damaged file has offsets outside its memory, and reading there is a crash
        kept = [name for name, kind in zip(batch.schema.names, batch.schema.types, strict=True) if not _binary(kind)]
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            try:
                rows = batch.select(kept).slice(start, ROWS_AT_ONCE).to_pylist()
            except (ValueError, pa.ArrowException) as error:  # text that is not UTF-8
                rows = [f"not readable ({_reason(error)})"] * min(ROWS_AT_ONCE, batch.num_rows - start)
            for row in rows:
                number += 1
                yield number, row


def _binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def count_rows(path: Path) -> int:
    """The number of rows of a Parquet or Arrow file, of which little is read. Raises DatasetError."""
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PAR1":
                return int(pq.read_metadata(path).num_rows)
        with pa.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                whole = pa.ipc.open_file(source)
                return sum(whole.get_batch(number).num_rows for number in range(whole.num_record_batches))
            source.seek(0)
            return sum(batch.num_rows for batch in pa.ipc.open_stream(source))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(f"{path.name} cannot be read ({_reason(error)})") from error
