"""Scored runs on disk: one Parquet file a run, one row a trace, read a column and a few rows at a time.

Schema version 1 (``COLUMNS`` below is the whole of it). The file's metadata holds ``irl_lens.schema_version`` and
``irl_lens.provenance``, JSON of where the run comes from (checkpoint, input, its sha256, command, date). Conventions:

- spans and step numbers as in ``irl_core.types``: character offsets into ``text``, 0-based steps;
- ``true_first_error_step``: null = not known, -1 = known to have no error; ``predicted_step``: null = none predicted;
- a score that is not defined is null; ``reference_answer`` and all other texts are null where there is none;
- ``arithmetic_false`` counts the equations in the text that do not hold, ``arithmetic_first_false_step`` is where.

A run is written as part files in ``<name>.parts`` beside it and merged when it is finished: a run that was killed
goes on after the last whole part and ends as the same file.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet as pq

from irl_core.arithmetic import find_equations, first_false_step
from irl_core.signals import trace_score
from irl_core.types import (
    EncodedTrace,
    Layout,
    Localisation,
    ScoredTrace,
    Source,
    Standardisation,
    Step,
    Trace,
    Truth,
)

SCHEMA_VERSION = 1
VERSION_KEY = b"irl_lens.schema_version"
PROVENANCE_KEY = b"irl_lens.provenance"
NO_ERROR = -1
ROWS_PER_GROUP = 512
STORED_SCORES = {
    "score_min": "minimum",
    "score_mean": "mean",
    "score_mean_discounted": "mean_discounted",
    "score_last": "last",
    "score_credit_sum": "credit_sum",
}

_STEP = pa.struct(
    {"start": pa.int32(), "end": pa.int32(), "text": pa.string(), "score": pa.float32(), "role": pa.string()}
)
_TOKEN = pa.struct(
    {"start": pa.int32(), "end": pa.int32(), "raw": pa.float32(), "logprob": pa.float32(), "id": pa.int32()}
)
COLUMNS = pa.schema(
    {
        "run_id": pa.string(),
        "trace_id": pa.string(),
        "problem_id": pa.string(),
        "family": pa.string(),
        "problem": pa.string(),
        "text": pa.string(),
        "reference_answer": pa.string(),
        "reference_solution": pa.string(),
        "answer": pa.string(),
        "correct": pa.bool_(),
        "true_first_error_step": pa.int32(),
        "kind": pa.string(),
        "decision": pa.string(),
        "predicted_step": pa.int32(),
        "confidence": pa.float32(),
        "rule": pa.string(),
        "threshold": pa.float64(),
        "n_steps": pa.int32(),
        "length": pa.int32(),
        **{name: pa.float64() for name in STORED_SCORES},
        "log_prob_mean": pa.float64(),
        "log_prob_min": pa.float64(),
        "arithmetic_false": pa.int32(),
        "arithmetic_first_false_step": pa.int32(),
        "standardisation_mean": pa.float64(),
        "standardisation_std": pa.float64(),
        "standardisation_origin": pa.string(),
        "prompt_reward": pa.float64(),
        "checkpoint": pa.string(),
        "layout": pa.string(),
        "source": pa.string(),
        "finished": pa.bool_(),
        "sampled": pa.bool_(),
        "extra": pa.map_(pa.string(), pa.string()),
        "prompt_ids": pa.list_(pa.int32()),
        "steps": pa.list_(_STEP),
        "tokens": pa.list_(_TOKEN),
    }
)
SUMMARY_COLUMNS = [name for name in COLUMNS.names if name not in ("prompt_ids", "steps", "tokens", "extra")]


class StoreError(ValueError):
    """A run that cannot be read or written as asked; the message names the file and the mend."""


# ------------------------------------------------------------------------------------------------ trace <-> row


def row_of(scored: ScoredTrace, where: Localisation, *, run_id: str, gamma: float = 0.9) -> dict[str, Any]:
    """One row of a run, by column name."""
    trace, unit = scored.trace, scored.standardisation
    return {
        "run_id": run_id,
        **_trace_columns(trace),
        "decision": where.decision,
        "predicted_step": where.first_error_step,
        "confidence": where.confidence,
        "rule": where.rule,
        "threshold": _finite(where.threshold),
        "n_steps": len(trace.steps),
        "length": len(scored.raw),
        **{name: _finite(trace_score(scored, kind, gamma)) for name, kind in STORED_SCORES.items()},
        "log_prob_mean": _finite(scored.logprobs.mean()) if scored.logprobs.size else None,
        "log_prob_min": _finite(scored.logprobs.min()) if scored.logprobs.size else None,
        **_arithmetic_columns(trace),
        "standardisation_mean": unit.mean,
        "standardisation_std": unit.std,
        "standardisation_origin": unit.origin,
        "prompt_reward": scored.prompt_reward,
        "checkpoint": scored.checkpoint,
        "prompt_ids": list(scored.encoded.prompt_ids),
        "steps": _step_structs(trace.steps, where.step_scores),
        "tokens": _token_structs(scored),
    }


def _trace_columns(trace: Trace) -> dict[str, Any]:
    extra = dict(trace.extra)
    return {
        "trace_id": trace.trace_id,
        "problem_id": trace.problem_id,
        "family": extra.pop("family", None),
        "problem": trace.problem,
        "text": trace.text,
        "reference_answer": trace.reference_answer,
        "reference_solution": extra.pop("reference_solution", None),
        "answer": trace.answer,
        "correct": trace.correct,
        "true_first_error_step": _true_step(trace.truth),
        "kind": trace.truth.kind if trace.truth else None,
        "layout": trace.layout.value,
        "source": trace.source.value,
        "finished": trace.finished,
        "sampled": trace.token_ids is not None,
        "extra": list(extra.items()),
    }


def _true_step(truth: Truth | None) -> int | None:
    if truth is None:
        return None
    return NO_ERROR if truth.first_error_step is None else truth.first_error_step


def _arithmetic_columns(trace: Trace) -> dict[str, int | None]:
    false = sum(not equation.true for equation in find_equations(trace.text))
    return {"arithmetic_false": false, "arithmetic_first_false_step": first_false_step(trace) if false else None}


def _step_structs(steps: Sequence[Step], scores: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"start": step.start, "end": step.end, "text": step.text, "score": _finite(score), "role": step.role}
        for step, score in zip(steps, scores, strict=True)
    ]


def _token_structs(scored: ScoredTrace) -> list[dict[str, Any]]:
    encoded = scored.encoded
    rows = zip(encoded.spans, scored.raw.tolist(), scored.logprobs.tolist(), encoded.completion_ids, strict=True)
    return [
        {"start": start, "end": end, "raw": raw, "logprob": logprob, "id": token}
        for (start, end), raw, logprob, token in rows
    ]


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def trace_of(row: Mapping[str, Any]) -> Trace:
    """The trace of a row (a mapping of every column)."""
    extra = dict(row["extra"] or [])
    extra |= {name: row[name] for name in ("family", "reference_solution") if row[name] is not None}
    sampled = row["sampled"]
    return Trace(
        problem=row["problem"],
        text=row["text"],
        steps=tuple(Step(step["start"], step["end"], step["text"], step["role"]) for step in row["steps"]),
        layout=Layout(row["layout"]),
        source=Source(row["source"]),
        trace_id=row["trace_id"],
        problem_id=row["problem_id"],
        answer=row["answer"],
        reference_answer=row["reference_answer"],
        correct=row["correct"],
        truth=_truth_of(row),
        token_ids=tuple(token["id"] for token in row["tokens"]) if sampled else None,
        logprobs=tuple(token["logprob"] for token in row["tokens"]) if sampled else None,
        finished=row["finished"],
        extra=extra,
    )


def _truth_of(row: Mapping[str, Any]) -> Truth | None:
    step = row["true_first_error_step"]
    return None if step is None else Truth(None if step == NO_ERROR else step, row["kind"])


def scored_of(row: Mapping[str, Any]) -> ScoredTrace:
    """The scored trace of a row (a mapping of every column)."""
    tokens = row["tokens"]
    spans = tuple((token["start"], token["end"]) for token in tokens)
    ids = tuple(token["id"] for token in tokens)
    unit = Standardisation(row["standardisation_mean"], row["standardisation_std"], row["standardisation_origin"])
    return ScoredTrace(
        EncodedTrace(trace_of(row), tuple(row["prompt_ids"]), ids, spans),
        np.array([token["raw"] for token in tokens], dtype=np.float32),
        np.array([token["logprob"] for token in tokens], dtype=np.float32),
        row["prompt_reward"],
        unit,
        row["checkpoint"],
    )


def localisation_of(row: Mapping[str, Any]) -> Localisation:
    """What was decided about a row when the run was scored."""
    return Localisation(
        decision=row["decision"],
        first_error_step=row["predicted_step"],
        confidence=row["confidence"],
        rule=row["rule"],
        threshold=math.nan if row["threshold"] is None else row["threshold"],
        step_scores=tuple(math.nan if step["score"] is None else step["score"] for step in row["steps"]),
    )


# ----------------------------------------------------------------------------------------------------- reading


def provenance(path: Path) -> dict[str, Any]:
    """Where a run comes from, as it was written. Raises StoreError for a file that is not a run of this version."""
    return dict(json.loads(_checked_metadata(path)[PROVENANCE_KEY]))


def _checked_metadata(path: Path) -> dict[bytes, bytes]:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError:
        raise StoreError(f"{path.name}: there is no such run") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path.name}: is not a readable Parquet file ({error})") from error
    version = metadata.get(VERSION_KEY)
    if version is None:
        raise StoreError(f"{path.name}: is a Parquet file, but not a scored run; make one with irl-lens score")
    if version != str(SCHEMA_VERSION).encode():
        raise StoreError(
            f"{path.name}: has schema version {version.decode(errors='replace')}; this program reads version "
            f"{SCHEMA_VERSION}. Score the input again with irl-lens score."
        )
    return metadata


def read_run(path: Path, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Rows of a run that pass ``filters`` (a ``pyarrow.dataset`` expression), with ``columns`` alone (None = all).

    Raises:
        StoreError: not a run of this schema version, or a column that it does not have.
    """
    _checked_metadata(path)
    unknown = [name for name in columns or () if name not in COLUMNS.names]
    if unknown:
        raise StoreError(f"{path.name}: no column {', '.join(unknown)}; there are {', '.join(COLUMNS.names)}")
    data = pa.dataset.dataset(path, format="parquet")
    return data.to_table(columns=None if columns is None else list(columns), filter=filters)


def read_row(path: Path, trace_id: str) -> dict[str, Any]:
    """Every column of one trace's row. Reads the ids, then one row group, whatever the size of the run.

    Raises:
        StoreError: not a run, or no trace of that id.
    """
    _checked_metadata(path)
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["trace_id"]).column("trace_id")
            index = pa.compute.index(ids, trace_id).as_py()
            if index >= 0:
                return dict(file.read_row_group(group).slice(index, 1).to_pylist()[0])
    raise StoreError(f"{path.name}: no trace {trace_id!r}")


def read_trace(path: Path, trace_id: str) -> ScoredTrace:
    """One scored trace of a run. Raises StoreError where there is none of that id."""
    return scored_of(read_row(path, trace_id))


# ----------------------------------------------------------------------------------------------------- writing


class RunWriter:
    """Writes a run part by part; a part that was written stays, whatever happens to the process.

    Args:
        path: the Parquet file to write. provenance: JSON data, the same for a run that is to be continued, but for
            ``created``, of which the first is kept.
        resume: continue after the parts that are there; False throws them away.

    Raises:
        StoreError: the parts there are of another input, checkpoint or schema version.
    """

    def __init__(self, path: Path, provenance: Mapping[str, Any], *, resume: bool = True) -> None:
        self.path = path
        self.parts = path.with_name(path.name + ".parts")
        if not resume:
            shutil.rmtree(self.parts, ignore_errors=True)
        self.provenance = self._begin(dict(provenance))
        self.done = len(self._finished_parts())

    def _begin(self, provenance: dict[str, Any]) -> dict[str, Any]:
        self.parts.mkdir(parents=True, exist_ok=True)
        marker = self.parts / "run.json"
        current = {"schema_version": SCHEMA_VERSION, "provenance": provenance}
        if not marker.exists():
            _write_atomically(marker, lambda temporary: temporary.write_text(json.dumps(current)))
            return provenance
        begun = json.loads(marker.read_text())
        changed = _differences(begun, current)
        if changed:
            raise StoreError(
                f"{self.parts.name}: an unfinished run with another {', '.join(changed)}. "
                "Finish it as it was begun, or start again with --no-resume."
            )
        return dict(begun["provenance"])

    def _finished_parts(self) -> list[Path]:
        parts = sorted(self.parts.glob("part-*.parquet"))
        expected = [f"part-{number:06d}.parquet" for number in range(len(parts))]
        if [part.name for part in parts] != expected:
            raise StoreError(f"{self.parts.name}: parts are missing; start again with --no-resume")
        return parts

    def write(self, rows: Sequence[Mapping[str, Any]], errors: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write one part: its rows, and the input rows that could not be scored. Whole when this returns."""
        name = f"part-{self.done:06d}"
        lines = "".join(json.dumps(error, ensure_ascii=False) + "\n" for error in errors)
        _write_atomically(self.parts / f"{name}.errors.jsonl", lambda temporary: temporary.write_text(lines))
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=COLUMNS)
        _write_atomically(self.parts / f"{name}.parquet", lambda temporary: pq.write_table(table, temporary))
        self.done += 1

    def errors(self) -> Iterator[dict[str, Any]]:
        """The input rows that could not be scored, in the order of the input, of all parts written so far."""
        for part in self._finished_parts():
            with part.with_suffix(".errors.jsonl").open() as lines:
                yield from map(json.loads, lines)

    def rows(self) -> int:
        """The number of rows written so far."""
        return sum(int(pq.read_metadata(part).num_rows) for part in self._finished_parts())

    def discard(self) -> None:
        """Remove the parts; the run is not made."""
        shutil.rmtree(self.parts)

    def finish(self) -> int:
        """Merge the parts into the run, in one rename, and remove them. Returns the number of rows."""
        count = _write_atomically(self.path, self._merge)
        shutil.rmtree(self.parts)
        return count

    def _merge(self, temporary: Path) -> int:
        metadata = {VERSION_KEY: str(SCHEMA_VERSION).encode(), PROVENANCE_KEY: json.dumps(self.provenance).encode()}
        count = 0
        with pq.ParquetWriter(temporary, COLUMNS.with_metadata(metadata), compression="zstd") as writer:
            for part in self._finished_parts():
                table = pq.read_table(part, schema=COLUMNS)
                writer.write_table(table.replace_schema_metadata(metadata), row_group_size=ROWS_PER_GROUP)
                count += table.num_rows
        return count


def write_run(path: Path, rows: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> int:
    """Write rows (of ``row_of``) as a whole run at once; returns their number."""
    writer = RunWriter(path, provenance, resume=False)
    for start in range(0, len(rows), ROWS_PER_GROUP):
        writer.write(rows[start : start + ROWS_PER_GROUP])
    return writer.finish()


def _differences(begun: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    if begun.get("schema_version") != current["schema_version"]:
        return ["schema version"]
    old, new = begun["provenance"], current["provenance"]
    return sorted(key for key in old.keys() | new.keys() if key != "created" and old.get(key) != new.get(key))


def _write_atomically(path: Path, write: Any) -> Any:
    """Call ``write`` with a temporary path beside ``path``, sync it and rename it; returns what ``write`` returned."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        result = write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise StoreError(f"{path.name}: not written: {reason}. What was written before is whole.") from error
    return result
