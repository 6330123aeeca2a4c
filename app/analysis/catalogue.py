"""The catalogue of scored runs, and the rows of one; only the rows that are asked for are read.

A scored run is a Parquet file of ``irl_core.storage.scored_run`` in one of the folders that checkpoints may lie in.
Knows no streamlit.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from app.analysis.upload_records import ABOUT, read_record
from irl_core.checkpoints.find import default_roots
from irl_core.data.annotations import text_hash
from irl_core.errors import StoreError
from irl_core.models.bundled import called
from irl_core.reward.localisation import Calibration
from irl_core.reward.verdict import Judged, Ruling, rule_on
from irl_core.storage.schema import COLUMNS, ScoredRow
from irl_core.storage.scored_run import (
    judged_in,
    lacking,
    parquet_errors,
    read_batches,
    read_group,
    read_provenance,
    read_row,
    read_run,
)
from irl_core.text.step_numbers import count_steps

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_DEPTH: Final = 4
SUFFIX: Final = ".parquet"
MAIN: Final = "run"
BESIDE_A_RUN: Final = {"perturbed", "probes", "calibration", "anchor"}  # files of an evaluation that are no run
PASSED_OVER: Final = {"checkpoints", "final", "best", "compare", "samples", "tensorboard"}
INDEX_COLUMNS: Final = (
    "trace_id", "problem_id", "family", "correct", "true_first_error_step", "kind", "decision", "predicted_step",
    "cannot_judge", "familiar", "confidence", "n_steps", "length", "score_min", "score_mean", "score_mean_discounted",
    "score_mean_discounted_answer", "score_last", "score_credit_sum", "score_credit_minimum", "log_prob_mean",
    "arithmetic_false", "arithmetic_first_false_step", "source", "finished",
)  # fmt: skip
ROW: Final = "row"
ITEM: Final = "item"  # the same for equal texts of one problem
VERDICT: Final = "verdict"
VERDICT_STEP: Final = "verdict_step"
FILES_KEPT: Final = 1_000  # whose counts are remembered
RULED_BY: Final = (
    "arithmetic_false", "arithmetic_first_false_step", "decision", "predicted_step", "cannot_judge", "correct",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A scored run.

    Attributes:
        name: its path under its folder, without what all have; it is known by it, in links too.
        key: path, time and size of the file: it changes when the file does.
        reason: why it cannot be read; empty for one that can.
        title: what an upload is listed as; empty for a run that is none.
    """

    name: str
    path: Path
    rows: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    key: tuple[str, int, int] = ("", 0, 0)
    reason: str = ""
    title: str = ""

    @property
    def listed(self) -> str:
        """What it is listed as: the title of an upload and when it came, else the name."""
        return self.title or self.name


# ----------------------------------------------------------------------------------------------------- which there are


def catalogue(roots: Sequence[Path] | None = None) -> list[RunInfo]:
    """Every scored run in the allowed folders, the bundled one first, those that cannot be read with their reason."""
    runs: dict[str, RunInfo] = {}
    for root in default_roots() if roots is None else roots:
        for path in run_files(root, root.resolve(), 0):
            relative = path.relative_to(root).with_suffix("")
            is_main = relative.name == MAIN and len(relative.parts) > 1
            name = "/".join(relative.parts[:-1] if is_main else relative.parts)
            name = name.encode("utf-8", "replace").decode()  # a file's name may be any bytes
            while name in runs:
                name = f"{root.name}/{name}"
            runs[name] = of_upload(run_info(name, path))
    times = Counter(info.listed for info in runs.values())
    return [
        replace(info, title=f"{info.title} ({info.name})") if info.title and times[info.title] > 1 else info
        for info in runs.values()
    ]


def of_upload(info: RunInfo) -> RunInfo:
    """The run of an upload under its title, its input by the name that the file had; any other run as it is."""
    record = read_record(info.path.parent) if info.path.name == f"{MAIN}{SUFFIX}" else None
    if record is None:
        return info
    given = {"input": record.file} if record.file and not info.reason else {}
    return replace(info, title=record.words, provenance={**info.provenance, **given})


def find(name: str, roots: Sequence[Path] | None = None) -> RunInfo:
    """The run of that name. Raises StoreError (without echoing it) where there is none, or it cannot be read."""
    info = next((info for info in catalogue(roots) if info.name == name), None)
    if info is None:
        raise StoreError("there is no scored run of that name here; choose one in the list")
    if info.reason:
        raise StoreError(info.reason)
    return info


def run_files(folder: Path, root: Path, depth: int) -> Iterator[Path]:
    """The scored runs in a folder and below it, by name; nothing that a symbolic link leads to outside the root."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(".") or not is_inside(entry, root):
            continue
        if entry.suffix == SUFFIX and entry.is_file():
            given = entry.stem != MAIN and entry.with_name(ABOUT).is_file()  # a table that was uploaded
            if not (given or (entry.stem in BESIDE_A_RUN and entry.with_name(f"{MAIN}{SUFFIX}").is_file())):
                yield entry
        elif depth < MOST_DEPTH and entry.is_dir() and entry.name not in PASSED_OVER and entry.suffix != ".parts":
            yield from run_files(entry, root, depth + 1)


def is_inside(entry: Path, root: Path) -> bool:
    """Whether a path leads to somewhere below the root; False where its links go round in a circle."""
    try:
        return entry.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return False


def run_info(name: str, path: Path) -> RunInfo:
    """The scored run in a file, with its number of rows; or why it cannot be read."""
    import pyarrow.parquet as pq

    try:
        str(path).encode()
        stat = path.stat()
        provenance = read_provenance(path)
        with parquet_errors(path):
            metadata = pq.read_metadata(path)
            missing = lacking(metadata.schema.to_arrow_schema(), COLUMNS.names)
            rows = int(metadata.num_rows)
        if missing:
            raise StoreError(f"{path.name}: has no column {', '.join(missing)}; score the input again")
    except UnicodeEncodeError:
        return RunInfo(name, path, reason="its name is not text in UTF-8; give the file or its folder another")
    except StoreError as error:
        return RunInfo(name, path, reason=str(error))
    except OSError as error:
        return RunInfo(name, path, reason=f"{path.name}: cannot be read ({error.strerror})")
    return RunInfo(name, path, rows, provenance, (str(path), stat.st_mtime_ns, stat.st_size))


# ------------------------------------------------------------------------------------------------------ rows of a run


def summary(info: RunInfo, columns: Sequence[str], filters: Any = None) -> pd.DataFrame:
    """Rows that pass ``filters`` (a ``pyarrow.dataset`` expression) with some columns. Raises StoreError."""
    return read_run(info.path, columns, filters).to_pandas()


@lru_cache(FILES_KEPT)
def judged(file: tuple[str, int, int]) -> Judged:
    """How many traces of a run's file the model cannot judge, by the ``key`` of the run: read once as long as the file
    is the same. Raises StoreError."""
    return judged_in(Path(file[0]))


def index(info: RunInfo) -> pa.Table:
    """The short columns of every row (``INDEX_COLUMNS``): what is filtered and sorted by, with what follows of them.

    Added are its number (``row``), its verdict and the step that it names, and what equal texts have in common
    (``item``). The confidence is null where the model cannot judge; ``n_steps`` counts as one reads, without closing
    lines. Texts are read some hundred rows at a time, no token is. Raises StoreError.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_run(info.path, list(INDEX_COLUMNS))
    rulings = [ruling(row) for row in table.select(RULED_BY).to_pylist()]
    items: list[str] = []
    counts: list[int] = []
    for batch in read_batches(info.path, ["problem", "text", "steps"]):
        problems, texts = (batch.column(name).to_pylist() for name in ("problem", "text"))
        items += map(text_hash, problems, texts)
        counts += map(count_steps, roles(batch.column("steps")))
    barred = table.column("cannot_judge").fill_null(False)
    sure = pc.if_else(barred, pa.scalar(None, pa.float32()), table.column("confidence"))
    changed = {"confidence": sure, "n_steps": pa.array(counts, pa.int32())}
    for name, values in changed.items():
        table = table.set_column(table.column_names.index(name), name, values)
    added = {
        ROW: pa.array(range(table.num_rows), pa.int64()),
        ITEM: pa.array(items, pa.string()),
        VERDICT: pa.array([one.kind for one in rulings], pa.string()),
        VERDICT_STEP: pa.array([one.step for one in rulings], pa.int32()),
    }
    for name, values in added.items():
        table = table.append_column(name, values)
    return table


def roles(steps: pa.ChunkedArray) -> list[list[str | None]]:
    """The roles of the steps of each row, from the column that holds them; no text of a step becomes an object."""
    import pyarrow.compute as pc

    flat = iter(pc.struct_field(pc.list_flatten(steps), "role").to_pylist())
    lengths = pc.fill_null(pc.list_value_length(steps), 0).to_pylist()
    return [list(islice(flat, length)) for length in lengths]


def ruling(row: Mapping[str, Any]) -> Ruling:
    """What the verdict on a row comes to, from its columns ``RULED_BY``."""
    return rule_on(
        row["arithmetic_false"] or 0,
        row["arithmetic_first_false_step"],
        row["decision"],
        row["predicted_step"],
        None if row["cannot_judge"] is None else not row["cannot_judge"],
        row["correct"],
    )


def numbers(
    table: pa.Table, filters: Any = None, sort: str = ROW, descending: bool = False, among: Sequence[int] | None = None
) -> list[int]:
    """The numbers of some rows of an index, in order; those without a value last, equal ones in the file's order.

    Args:
        table: of `index`.
        filters: a ``pyarrow.dataset`` expression that the rows pass; None for all.
        sort: the column that they are sorted by.
        descending: the highest first.
        among: the numbers that are looked among; None for all.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    passing = table if filters is None else table.filter(filters)
    if among is not None:
        passing = passing.filter(pc.field(ROW).isin(pa.array(among, pa.int64())))
    order = [(sort, "descending" if descending else "ascending"), (ROW, "ascending")]
    keys = order[:1] if sort == ROW else order
    places = pc.sort_indices(passing, sort_keys=keys)  # nulls come last, whatever the direction
    chosen: list[int] = passing.column(ROW).take(places).to_pylist()
    return chosen


def rows(info: RunInfo, chosen: Sequence[int], columns: Sequence[str]) -> pd.DataFrame:
    """The rows of those numbers, in that order; only the row groups that hold one are read.

    Raises:
        StoreError: a number that the file does not have: it was written anew meanwhile.
    """
    import pandas as pd

    return pd.DataFrame(numbered_rows(info, chosen, columns), columns=list(columns))


def numbered_row(info: RunInfo, number: int) -> ScoredRow:
    """Every column of the row of that number; one row group is read. Raises StoreError as `rows` does."""
    return completed(cast("ScoredRow", numbered_rows(info, [number], COLUMNS.names)[0]), info.provenance)


def numbered_rows(info: RunInfo, chosen: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of those numbers, in that order, with some columns. Raises StoreError as `rows` does."""
    import pyarrow.parquet as pq

    by_number: dict[int, dict[str, Any]] = {}
    wanted = sorted(set(chosen))
    with (
        parquet_errors(info.path),
        pq.ParquetFile(info.path) as file,
    ):  # opened once: its footer grows with the number of row groups
        start = done = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            here = wanted[done : (done := bisect_left(wanted, end, done))]
            if here:
                places = [number - start for number in here]
                read = read_group(file, group, columns).take(places).to_pylist()
                by_number |= zip(here, read, strict=True)
            start = end
    if len(by_number) < len(wanted):
        raise StoreError(f"{info.path.name}: was written anew while it was read; open it again")
    return [by_number[number] for number in chosen]


def row(info: RunInfo, trace_id: str) -> ScoredRow | None:
    """Every column of one trace, None where there is none of that id. Raises StoreError for a file that is no run."""
    try:
        return completed(read_row(info.path, trace_id), info.provenance)
    except StoreError:
        read_provenance(info.path)
        return None


def completed(row: ScoredRow, known: Mapping[str, Any]) -> ScoredRow:
    """A row of a file of any version as one of today: its checkpoint by the name that it goes by here, and what an
    evaluation's provenance says of the calibration that decided. ``known``: the provenance of the run."""
    own, origin = row["checkpoint"], row["standardisation_origin"]
    name = called(own, str(known.get("checkpoint_sha256")))
    if origin is not None:
        origin = origin.replace(f"checkpoint {own}", f"checkpoint {name}")
    row = {**row, "checkpoint": name, "standardisation_origin": origin}
    if row["score_tells"] is None and row["decision"] is not None and "calibration" in known:
        with contextlib.suppress(ValueError):  # what cannot be read is not known
            found = Calibration.from_json(known["calibration"])
            if (found.rule.name, found.threshold) == (row["rule"], row["threshold"]):
                row["uncertain_threshold"], row["score_tells"] = found.uncertain_threshold, found.score_tells
    return row
