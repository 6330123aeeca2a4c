"""Where rows come from: files of every kind, folders, data sets of the hub; told apart by what they hold, not by name.

A source is one or more files of one kind. `open_source` looks at them, `rows_of` reads one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from irl_core.data import inspect_logs
from irl_core.data.jsonl import json_rows, table_separator, unreadable_kind
from irl_core.data.tables import Rows, arrow_rows, count_rows, csv_rows, parquet_rows, typed_cells
from irl_core.errors import DatasetError
from irl_core.files import escaped

Kind = Literal["JSON Lines", "CSV", "Parquet", "Arrow", "Inspect AI log"]
Columns = Mapping[str, str]  # a format's field -> the column that holds it, its parts joined by points

HUB: Final = "hf:"
ARROW_STARTS: Final = (b"ARROW1", b"\xff\xff\xff\xff")  # of its file form and of its stream form
MOST_FILES: Final = 10_000
FIELDS: Final = (
    "question", "problem", "solution", "answer", "is_correct", "steps", "label", "first_error_step", "prompt",
    "completion", "completions", "labels", "messages", "id", "problem_id", "model",
)  # fmt: skip
_HUB_NAME = re.compile(r"hf:([\w-][\w.-]*/[\w-][\w.-]*)(?::([\w.-]+))?(?:@([\w.-]+))?")
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev)\b", re.IGNORECASE)
_INSPECT_KEYS = re.compile(rb'\A\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:')


@dataclass(frozen=True, slots=True)
class TraceSource:
    """Files of one kind that are read one after the other. ``name``: what the source is called in messages."""

    name: str
    kind: Kind
    files: tuple[Path, ...]

    def count(self, lines: int) -> int:
        """The number of rows, given the number of lines of all files. Raises DatasetError."""
        if self.kind in ("Parquet", "Arrow"):
            return sum(map(count_rows, self.files))
        return lines if self.kind == "JSON Lines" else sum(1 for file in self.files for _ in rows_of(file, self.kind))


def open_source(path: Path) -> TraceSource:
    """The files of a source: a file; a folder of files of one kind; ``hf:OWNER/NAME:CONFIGURATION@SPLIT`` of the hub.

    Raises:
        DatasetError: it is not there, cannot be read, or is of no kind that is known.
    """
    if str(path).startswith(HUB):
        return hub_source(str(path))
    try:
        files = folder_files(path) if path.is_dir() else [path]
        kinds = {kind_of_file(file) for file in files}
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(f"{escaped(path.name)[:80]!r} cannot be read ({reason}); name another file") from error
    if len(kinds) > 1:
        raise DatasetError(f"{path.name} holds files of several kinds ({', '.join(sorted(kinds))}); name one of them")
    return TraceSource(path.name, kinds.pop(), tuple(files))


def kind_of_file(path: Path) -> Kind:
    """The kind of a file by its first bytes. Raises DatasetError for one that is not there or of no kind that is
    read."""
    if not path.is_file():
        raise DatasetError(f"the file {path.name!r} is not there, or is not a plain file")
    with path.open("rb") as source:
        start = source.read(2048)
    if start.startswith(b"PAR1"):
        return "Parquet"
    if start.startswith(ARROW_STARTS):
        return "Arrow"
    if _INSPECT_KEYS.match(start) or (start.startswith(b"PK\x03\x04") and inspect_logs.is_log(path)):
        return "Inspect AI log"
    if kind := unreadable_kind(path):
        raise DatasetError(f"{path.name} is {kind}; JSON Lines, CSV, Parquet, Arrow or a log of Inspect AI is expected")
    return "CSV" if table_separator(path) else "JSON Lines"


def folder_files(folder: Path) -> list[Path]:
    """The files of a folder that hold rows: of a data set that ``datasets`` saved, or of files of one kind by name.

    Raises:
        DatasetError: there are none, or several splits, of which one is to be named.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(child.name for child in folder.iterdir() if (child / "state.json").is_file())
        if len(splits) != 1:
            raise DatasetError(f"{folder.name} has the splits {', '.join(splits)}; name one: {folder.name}/{splits[0]}")
        folder = folder / splits[0]
    groups = [
        sorted({file for pattern in patterns for file in folder.glob(pattern) if not file.name.startswith(".")})
        for patterns in (["*.arrow"], ["*.parquet", "data/*.parquet"], ["*.eval"], ["*.jsonl"], ["*.csv", "*.tsv"])
    ]
    kinds = [files for files in groups if files]
    if len(kinds) > 1:
        names = ", ".join(files[0].name for files in kinds)
        raise DatasetError(f"{folder.name} is a folder with files of several kinds, such as {names}; give one of them")
    for files in kinds:
        if len(files) > MOST_FILES:
            raise DatasetError(f"{folder.name} holds {len(files):,} files; the limit is {MOST_FILES:,}: name some")
        splits = sorted({split[1].lower() for file in files if (split := _SPLIT.match(file.name))})
        if len(splits) > 1:
            raise DatasetError(
                f"{folder.name} is a folder with {', '.join(splits)}; give one of its files, such as {files[0].name}"
            )
        return files
    raise DatasetError(f"{folder.name} is a folder without solutions; give one of its files, such as train.jsonl")


def hub_source(name: str) -> TraceSource:
    """A split of a data set of the hub, fetched by the library ``datasets``, which runs no code of it.

    Raises:
        DatasetError: the name is none, the data set is not to be had, or the split is to be named.
    """
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise DatasetError(f"{escaped(name)[:100]!r}: hf:OWNER/NAME, hf:OWNER/NAME:CONFIGURATION@SPLIT is expected")
    repository, configuration, split = match.groups()
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"{name} needs the package datasets: pip install datasets") from error
    try:
        loaded = datasets.load_dataset(repository, configuration, split=split)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DatasetError(f"{name} is neither to be had from the hub nor in the cache ({reason})") from error
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            raise DatasetError(
                f"{name} has the splits {', '.join(map(str, loaded))}; name one: {name}@{next(iter(loaded))}"
            )
        loaded = next(iter(loaded.values()))
    files = tuple(Path(entry["filename"]) for entry in loaded.cache_files)
    if not files:
        raise DatasetError(f"{name} has no rows in the cache; download it, and give its files")
    return TraceSource(name.removeprefix(HUB).rpartition("/")[2], "Arrow", files)


def rows_of(file: Path, kind: Kind, columns: Columns | None = None) -> Rows:
    """The numbered rows of a file, each a dict, or the reason why it is none; ``columns`` renames, and finds parts."""
    readers = {
        "JSON Lines": json_rows,
        "CSV": csv_rows,
        "Parquet": parquet_rows,
        "Arrow": arrow_rows,
        "Inspect AI log": inspect_logs.inspect_rows,
    }
    for number, row in readers[kind](file):
        if isinstance(row, str):
            yield number, row
            continue
        named = with_columns(row, columns) if columns else row
        yield number, typed_cells(named) if kind == "CSV" else named


def with_columns(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    """The row with a format's fields taken from other columns (``doc.question``: a part of one) alone."""
    found = {}
    for field, column in columns.items():
        value: Any = row
        for part in [column] if column in row else column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[field] = value
    return found


def column_map(given: list[str] | None) -> dict[str, str]:
    """What ``--map FIELD=COLUMN`` says. Raises DatasetError for a field that is not known, or one given twice."""
    columns: dict[str, str] = {}
    for one in given or []:
        field, _, column = (part.strip() for part in one.partition("="))
        if not (field and column) or field not in FIELDS:
            raise DatasetError(
                f"--map {escaped(one)[:60]!r}: FIELD=COLUMN is expected, with one of the fields {', '.join(FIELDS)}"
            )
        if field in columns:
            raise DatasetError(f"--map {field} is given twice; give each field one column")
        columns[field] = column
    return columns
