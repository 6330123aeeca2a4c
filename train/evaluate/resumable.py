"""A file of an evaluation, written in parts: what a killed process has finished stays, and is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irl_core.errors import StoreError
from irl_core.storage.schema import RefusedRow, ScoredRow
from irl_core.storage.scored_run import RunWriter, read_provenance
from train.evaluate.progress import Progress

MOST_OF_A_VALUE = 40  # characters of a value that is named in an error

Made = tuple[Sequence[ScoredRow], Sequence[RefusedRow]]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Part:
    """``count`` traces and what makes their rows; ``make`` is handed what to call as it goes on."""

    count: int
    make: Callable[[OnStep], Made]


@dataclass(frozen=True, slots=True)
class Stage:
    """One file: ``title`` in words, ``provenance`` as `RunWriter` takes it, ``count`` traces in ``parts``.

    The parts are always cut alike; those that are there already are gone through, but not made.
    """

    path: Path
    title: str
    provenance: Mapping[str, Any]
    count: int
    parts: Iterable[Part]


def write(stage: Stage, progress: Progress) -> int:
    """Make the file, or what is missing of it; returns the number of its rows. Without a row there is no file.

    Rows that could not be made are written to ``<name>.errors.jsonl`` beside it.

    Raises:
        StoreError: what is there was begun with other arguments.
    """
    progress.stage(stage.title)
    if stage.path.exists():
        _check(stage)
        progress.skip(stage.count)
        return rows_in(stage.path)
    stage.path.parent.mkdir(parents=True, exist_ok=True)
    writer = RunWriter(stage.path, stage.provenance)
    for number, part in enumerate(stage.parts):
        if number < writer.done:
            progress.skip(part.count)
            continue
        rows, errors = part.make(_ticking(progress, part.count))
        writer.write(rows, errors)
        progress.advance(part.count)
    write_errors(writer, errors_path(stage.path))
    if not writer.rows():
        writer.discard()
        return 0
    return writer.finish()


def _ticking(progress: Progress, count: int) -> OnStep:
    return lambda done, total: progress.within(count, done / max(1, total))


def _check(stage: Stage) -> None:
    """A finished file is of the same arguments. Raises StoreError."""
    found = read_provenance(stage.path)
    keys = sorted(set(found) | set(stage.provenance))
    changed = [key for key in keys if key != "created" and found.get(key) != json_of(stage.provenance.get(key))]
    if changed:
        raise StoreError(
            f"{stage.path.name}: was made with another {differing(changed, found, stage.provenance)}; name another "
            "--out, or start again with --no-resume"
        )


def differing(names: Sequence[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """'problems (then 10, now 12), input_sha256': what differs, with the values that are short enough to be read."""
    told = []
    for name in names:
        values = [json.dumps(json_of(one.get(name))) for one in (then, now)]
        short = max(map(len, values)) <= MOST_OF_A_VALUE
        told.append(f"{name} (then {values[0]}, now {values[1]})" if short else name)
    return ", ".join(told)


def json_of(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def rows_in(path: Path) -> int:
    """The number of rows of a finished file."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def errors_path(path: Path) -> Path:
    """Where the rows that a file lacks are named."""
    return path.with_name(f"{path.stem}.errors.jsonl")


def write_errors(writer: RunWriter, path: Path) -> int:
    """Write what could not become a row, a JSON object a line; no file where there is none. Returns their number."""
    lines = [json.dumps(error, ensure_ascii=False) for error in writer.errors()]
    if lines:
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
    return len(lines)


def remove(paths: Iterable[Path]) -> None:
    """Remove files of an evaluation with their parts and errors."""
    for path in paths:
        path.unlink(missing_ok=True)
        errors_path(path).unlink(missing_ok=True)
        shutil.rmtree(path.with_name(f"{path.name}.parts"), ignore_errors=True)
