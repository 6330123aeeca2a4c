"""A file of an evaluation, written in parts: what a killed process has finished stays, and is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from irl_core.errors import ConfigError, StoreError
from irl_core.files import escaped
from irl_core.models.allocation import give_back_freed_tensors
from irl_core.storage.run_writer import remove_parts
from irl_core.storage.scored_run import errors_path, parts_folder, read_provenance
from irl_core.storage.sole_writer import remove_empty, sole_writer
from irl_core.storage.training_run import living_process, read_status
from train.evaluate.progress import Progress
from train.score_file import ScoredRows, merged
from train.workers import Workers

MOST_OF_A_VALUE = 40  # characters of a value that is named in an error

OnStep = Callable[[int, int], None]  # is called with what is done and what there is to do


@dataclass(frozen=True, slots=True)
class Part:
    """``count`` traces, and the call that makes their rows."""

    count: int
    make: Callable[[OnStep], ScoredRows]


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


def write(stage: Stage, progress: Progress, workers: Workers | None = None) -> int:
    """Make the file, or what is missing of it; returns the number of its rows. Without a row there is no file.

    Rows that could not be made are written to ``<name>.errors.jsonl`` beside it. Of several ``workers``, all of which
    call this, each makes the parts that it claims.

    Raises:
        StoreError: what is there was begun with other settings.
    """
    workers = workers or Workers()
    progress.stage(stage.title)
    if (rows := workers.from_main(lambda: finished_rows(stage))) is not None:
        progress.skip(stage.count)
        return rows
    stage.path.parent.mkdir(parents=True, exist_ok=True)
    writer, number = workers.writer(stage.path, stage.provenance), -1
    for number, part in enumerate(stage.parts):
        if number in writer.there or not workers.claim(number):
            progress.skip(part.count)
            continue

        def on_step(done: int, total: int, count: int = part.count) -> None:
            progress.within(count, done / max(1, total))

        writer.write(*part.make(on_step), number=number)
        give_back_freed_tensors()
        progress.advance(part.count)
    workers.finish_parts(writer, number + 1)
    return workers.from_main(lambda: merged(writer)[0])


def finished_rows(stage: Stage) -> int | None:
    """The number of rows of a file that is there already, None where it is not. Raises StoreError where it was made
    with other settings."""
    if not stage.path.exists():
        return None
    check_finished(stage)
    if (parts := parts_folder(stage.path)).is_dir():  # killed while it removed them
        remove_parts(parts)
        remove_empty(parts)
    return rows_in(stage.path)


@contextmanager
def claimed_folder(out: Path) -> Iterator[None]:
    """Make the folder of an evaluation or a study, in which this process alone writes while the block runs.

    Raises:
        StoreError: the folder cannot be made or written.
        ConfigError: another process writes into it.
    """
    with sole_writer(out, escaped(out.name), ConfigError):
        if process := living_process(read_status(out)):  # of another machine, or where there are no locks
            raise ConfigError(f"{out.name} is being written by {process}; wait for it, or end it with SIGTERM")
        yield


def check_finished(stage: Stage) -> None:
    """Raise StoreError where the finished file was made with other settings."""
    known: Mapping[str, Any] = read_provenance(stage.path)
    changed = changed_keys(known, stage.provenance, besides=("created",))
    if changed:
        raise StoreError(
            f"{stage.path.name}: differs in {differing(changed, known, stage.provenance)}; name another "
            "--out, or start again with --no-resume"
        )


def changed_keys(then: Mapping[str, Any], now: Mapping[str, Any], *, besides: Sequence[str] = ()) -> list[str]:
    """The keys whose values in ``now`` are not those that were read from JSON, sorted."""
    keys = sorted((then.keys() | now.keys()) - set(besides))
    return [key for key in keys if then.get(key) != json_of(now.get(key))]


def differing(names: Sequence[str], then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """'problems (then 10, now 12), input_sha256': what differs, with the values that are short enough to be read."""
    phrases = []
    for name in names:
        values = [json.dumps(json_of(one.get(name))) for one in (then, now)]
        short = max(map(len, values)) <= MOST_OF_A_VALUE
        phrases.append(f"{name} (then {values[0]}, now {values[1]})" if short else name)
    return ", ".join(phrases)


def json_of(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def rows_in(path: Path) -> int:
    """The number of rows of a finished file."""
    return int(pq.read_metadata(path).num_rows)


def remove(paths: Iterable[Path]) -> None:
    """Remove files of an evaluation with their parts and errors."""
    for path in paths:
        path.unlink(missing_ok=True)
        errors_path(path).unlink(missing_ok=True)
        shutil.rmtree(path.with_name(f"{path.name}.parts"), ignore_errors=True)
