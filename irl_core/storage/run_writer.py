"""The writing of scored runs: part files in ``<name>.parts`` beside the run, merged when all are there.

A part that was written stays, whatever happens to its process: a run that was killed goes on with the parts that are
missing, and ends as the same file. Several processes may write parts of one run, each part by one of them; the first
begins the run and merges it, the others join it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from irl_core.data.scored_rows import PROVENANCE_KEY
from irl_core.errors import StoreError
from irl_core.files import atomic_replacement, escaped, not_written
from irl_core.storage.schema import COLUMNS, SCHEMA_VERSION, RefusedRow, ScoredRow
from irl_core.storage.scored_run import (
    ROWS_PER_GROUP,
    VERSION_KEY,
    errors_path,
    parts_folder,
    read_provenance,
)
from irl_core.storage.sole_writer import remove_empty

NO_ROW = (pa.ArrowException, ValueError, TypeError, OverflowError)  # what a value raises that no column can hold
OWN_NAME = re.compile(r"\.?(run\.json|merged|errors|part-\d{6}(\.errors\.jsonl|\.parquet))(\.[\w-]+)?(\.tmp)?")
MARKER = "run.json"  # among the parts: what run they are of; written first, removed first
SECONDS_TO_BE_SEEN = 90.0  # what one machine has written is seen by another, whose list of files may be a minute old
COMPRESSION = 9  # a tenth smaller than the default, and read as fast


class RunWriter:
    """Writer of a scored run, part by part; a part that was written stays, whatever happens to the process.

    Args:
        path: the Parquet file to write.
        provenance: JSON data, the same for a run that is to be continued, but for ``created``, of which the first is
            kept.
        resume: keep the parts that are there; False throws them away.
        owner: the ``owner`` of the first of several processes that write parts of this run together. This one joins it.

    Attributes:
        there: the numbers of the parts that were there at the start, and of those that this process has written.

    Raises:
        StoreError: the parts there are of another input, checkpoint or schema version, or the parts of ``owner`` cannot
            be seen from here.
    """

    def __init__(
        self, path: Path, provenance: Mapping[str, Any], *, resume: bool = True, owner: str | None = None
    ) -> None:
        self.path = path
        self.parts = parts_folder(path)
        self.marker = self.parts / MARKER
        self.own = f"{os.getpid()}-{secrets.token_hex(4)}"
        self.owner = owner or self.own
        self.provenance: Mapping[str, Any] = dict(provenance)
        if owner is None:
            self.begin(resume)
        else:
            self.join()
        self.there = self.finished_parts()

    def join(self) -> None:
        """Take part in the run that another process has begun. Raises StoreError where it is not seen from here."""

        def begun() -> bool:
            return self.marker.exists() and self.begun().get("owner") == self.owner

        if not waited(begun, SECONDS_TO_BE_SEEN):
            raise StoreError(
                f"{self.parts.name}: what the first process has begun there is not seen from process {os.getpid()} on "
                f"{socket.gethostname()}; name an --out on storage that all machines share"
            )
        self.provenance = self.begun()["provenance"]

    def begin(self, resume: bool) -> None:
        """Begin the run, or take over what is there of it. Raises StoreError."""
        provenance = self.provenance
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
                    f"{self.parts.name}: an unfinished run that differs in {', '.join(changed)}. "
                    "Finish it as it was begun, or start again with --no-resume."
                )
        document = {"schema_version": SCHEMA_VERSION, "provenance": self.provenance, "owner": self.owner}
        with atomic_replacement(self.marker, error=StoreError, temporary=self.temporary(MARKER)) as temporary:
            temporary.write_text(json.dumps(document), encoding="utf-8")

    def temporary(self, name: str) -> Path:
        """A path among the parts that no other writer uses."""
        return self.parts / f"{name}.{self.own}.tmp"

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

    @property
    def done(self) -> int:
        """The number of parts that are `there`."""
        return len(self.there)

    def finished_parts(self) -> set[int]:
        """The numbers of the parts that are on the disk."""
        return {int(part.stem.removeprefix("part-")) for part in self.parts.glob("part-??????.parquet")}

    def whole(self, count: int) -> None:
        """Wait until all of ``count`` parts are seen, those of other machines too. Raises StoreError where one is
        missing."""
        if not waited(lambda: self.finished_parts() >= set(range(count)), SECONDS_TO_BE_SEEN):
            missing = sorted(set(range(count)) - self.finished_parts())
            raise StoreError(
                f"{self.parts.name}: {len(missing)} of {count} parts are missing, the first is {missing[0]}; the same "
                "command makes them"
            )
        self.there = self.finished_parts()

    def in_order(self) -> list[Path]:
        """The part files in the order of the input. Raises StoreError where one before the last is missing."""
        numbers = self.finished_parts()
        if numbers != set(range(len(numbers))):
            raise StoreError(f"{self.parts.name}: parts are missing; the same command makes them")
        return [self.parts / f"part-{number:06d}.parquet" for number in sorted(numbers)]

    def write(self, rows: Sequence[ScoredRow], errors: Sequence[RefusedRow] = (), *, number: int | None = None) -> None:
        """Write one part: its rows, and the input rows that could not be scored. Whole when this returns.

        A row that no column can hold becomes one of those that could not be scored.

        Args:
            rows: of ``row_of``.
            errors: what was refused.
            number: of the part in the order of the input. [default: as many as are `there`]

        Raises:
            StoreError: the part could not be written, or another writer has taken over.
        """
        number = self.done if number is None else number
        name = f"part-{number:06d}"
        self.check_owner()
        table, refused = table_of(rows)
        lines = "".join(json_line(error) for error in (*errors, *refused))
        part, told = self.parts / f"{name}.parquet", self.parts / f"{name}.errors.jsonl"
        with atomic_replacement(told, error=StoreError, temporary=self.temporary(told.name)) as temporary:
            temporary.write_text(lines, encoding="utf-8")
        with atomic_replacement(part, error=StoreError, temporary=self.temporary(part.name)) as temporary:
            pq.write_table(table, temporary)
        self.there.add(number)

    def errors(self) -> Iterator[RefusedRow]:
        """The refused rows, in the order of the input, of all parts written so far."""
        for part in self.in_order():
            with part.with_suffix(".errors.jsonl").open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def rows(self) -> int:
        """The number of rows written so far."""
        return sum(int(pq.read_metadata(part).num_rows) for part in self.in_order())

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
            for part in self.in_order():
                table = pq.read_table(part, schema=COLUMNS)
                writer.write_table(table.replace_schema_metadata(metadata), row_group_size=ROWS_PER_GROUP)
                count += table.num_rows
        self.clear()
        return count

    def clear(self) -> None:
        """Remove the parts and their folder, where nothing else lies in it."""
        remove_parts(self.parts)
        remove_empty(self.parts)  # not where the lock is in it, or something of another's


def waited(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition holds, now or within so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


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
