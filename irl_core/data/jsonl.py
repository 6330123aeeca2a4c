"""Rows out of JSONL files and JSON arrays, line by line; a line that cannot be read becomes the reason why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from irl_core.errors import DatasetError

MAX_LINE_BYTES = 8_000_000
MAX_ARRAY_BYTES = 200_000_000


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and row, or the reason why that line is none. A file that begins with ``[`` is one JSON array."""
    with path.open("rb") as source:
        if source.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            yield from _array_rows(path)
            return
        source.seek(0)
        number = 0
        while line := source.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                _skip_line(source, line)
                yield number, f"longer than {MAX_LINE_BYTES:,} bytes; split it"
            elif row := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield number, _parse(row)


def _skip_line(source: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = source.readline(MAX_LINE_BYTES)


def _parse(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg}, column {error.colno})"
    except (ValueError, RecursionError) as error:
        return f"not JSON that can be read ({type(error).__name__})"
    return row if isinstance(row, dict) else f"{kind_of(row)} instead of a JSON object"


def _array_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    size = path.stat().st_size
    if size > MAX_ARRAY_BYTES:
        raise DatasetError(f"{path.name}: a JSON array of {size:,} bytes; over {MAX_ARRAY_BYTES:,} use JSONL")
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{path.name}: not readable as a JSON array ({error}); use one JSON object a line"
        ) from error
    for number, row in enumerate(rows, 1):
        yield number, row if isinstance(row, dict) else f"{kind_of(row)} instead of a JSON object"


def kind_of(value: Any) -> str:
    """The kind of a JSON value in words, for error messages."""
    names = {str: "text", bool: "true/false", int: "a number", float: "a number", list: "a list", type(None): "null"}
    return names.get(type(value), "an object")
