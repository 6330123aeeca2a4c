"""Reader of JSONL files and JSON arrays, line by line; an unreadable line gives the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irl_core.errors import DatasetError

MAX_LINE_BYTES = 8_000_000
MAX_ARRAY_BYTES = 200_000_000


# First bytes of files that are no text, and what to say of them.
_SIGNATURES = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first (unzstd)"),
    (b"BZh", "compressed with bzip2; unpack it first (bunzip2)"),
    (b"\xfd7zXZ", "compressed with xz; unpack it first (unxz)"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV"),
    (b"SQLite format 3", "an SQLite database; write its rows out as JSONL first"),
    (b"%PDF", "a PDF"),
    (b"\x80\x04", "a Python pickle, which is not opened"),
    (b"\xff\xfe", "text in UTF-16; save the file as UTF-8"),
    (b"\xfe\xff", "text in UTF-16; save the file as UTF-8"),
    (b"{\x00", "text in UTF-16; save the file as UTF-8"),
    (b"\x00{", "text in UTF-16; save the file as UTF-8"),
    (b"[\x00", "text in UTF-16; save the file as UTF-8"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself; fetch it (git lfs pull)"),
)


def unreadable_kind(path: Path) -> str | None:
    """What a file is that holds no rows that are read, and what to do about it; None where it may be JSONL or CSV."""
    start = _start(path)
    for signature, kind in _SIGNATURES:
        if start.startswith(signature):
            return kind
    return "HTML or XML" if start.lstrip().startswith(b"<") else None


def table_separator(path: Path) -> str | None:
    """The separator of a table with a line of names (comma, semicolon or tab); None where the file is no such table."""
    lines = _start(path).removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
    if not lines or lines[0][:1] in b"{[":
        return None
    for separator in (b"\t", b",", b";"):
        names = [name.strip(b' "') for name in lines[0].split(separator)]
        if len(names) > 1 and all(re.fullmatch(rb"[A-Za-z_][\w .-]{0,60}", name) for name in names):
            return separator.decode()
    return "," if path.suffix.lower() in (".csv", ".tsv") else None


def _start(path: Path) -> bytes:
    with path.open("rb") as source:
        return source.read(2048)


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and row, or the reason why that line is none. A file that begins with ``[`` is one JSON array.

    Raises:
        DatasetError: the file cannot be read, or not any more, or is a JSON array that cannot be.
    """
    try:
        yield from _rows(path)
    except OSError as error:  # a disk that fails, a share that is gone: also midway
        raise DatasetError(
            f"{path.name} cannot be read ({error.strerror or type(error).__name__}); see whether it is still there"
        ) from error


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with path.open("rb") as source:
        if source.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            yield from _array_rows(path)
            return
        source.seek(0)
        number = 0
        while line := source.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):  # the rest of it
                    line = source.readline(MAX_LINE_BYTES)
                yield number, f"longer than {MAX_LINE_BYTES:,} bytes; split it"
            elif row := line.removeprefix(b"\xef\xbb\xbf").strip():
                yield number, _parse(row)


def _parse(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        return f"not JSON ({_reason(error)}, column {error.colno})"
    except (ValueError, RecursionError) as error:
        return f"not JSON that can be read ({type(error).__name__})"
    return row if isinstance(row, dict) else f"{kind_of(row)} instead of a JSON object"


def _reason(error: json.JSONDecodeError) -> str:
    """What is wrong with a line of JSON, a comma too many by its name."""
    rest = error.doc[error.pos :].strip()
    if error.msg == "Extra data" and rest == ",":
        return "a comma after the object: remove it"
    if rest[:1] in ("}", "]") and error.doc[: error.pos].rstrip().endswith(","):
        return "a comma before the closing bracket: remove it"
    if error.doc.strip() in ("{", "["):
        return "an object over several lines: put it on one"
    return error.msg


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
