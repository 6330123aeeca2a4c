"""Every outside format -> ``Trace``, and back. The only place where other conventions of step numbers are known.

A bad row never stops the reading: it comes out as a ``RowError`` that names file, line and field, and the rest follows.
JSONL is read line by line, so memory does not grow with the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, cast

from irl_core.data.jsonl import json_rows, kind_of
from irl_core.errors import DatasetError
from irl_core.files import atomic_replacement
from irl_core.text.segmentation import make_trace, segment
from irl_core.types import Layout, Source, Step, Trace, Truth

Format = Literal["auto", "gsm8k", "processbench", "mr-gsm8k", "solutions", "plain", "demo", "trace"]

MAX_TEXT = 100_000
MAX_STEPS = 2_000
TRACE_FORMAT = "irl-lens-trace-1"
NO_ERROR = ("", "n/a", "none")


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that could not be read: file name, 1-based line, field ('' = the whole row) and what is wrong with it."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, {self.field or 'row'}: {self.message}"


class _BadField(ValueError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


Row = Mapping[str, Any]


# --------------------------------------------------------------------------------------------------- reading


def read(path: Path, format: Format = "auto") -> Iterator[Trace | RowError]:
    """The rows of a JSONL file (or a JSON array) in order, each a ``Trace`` or a ``RowError``; blank lines are skipped.

    ``trace_id`` is the row's own, else a hash of problem and text; a repeated one gets ``-L<line>``. Raises
    DatasetError at once where the file is missing or its format is not recognised.
    """
    name = detect_format(path) if format == "auto" else format
    if name not in READERS:
        raise DatasetError(f"format {name!r} is not known; one of auto, {', '.join(READERS)} is expected")
    return _convert(path.name, json_rows(_existing(path)), READERS[name])


def detect_format(path: Path) -> Format:
    """The format of a file by the fields of its first readable row. Raises DatasetError where none fits."""
    fields: list[str] = []
    for _, row in islice(json_rows(_existing(path)), 50):
        if isinstance(row, dict):
            name = _format_of(row)
            if name:
                return name
            fields = fields or sorted(map(str, row))
    found = f"its fields are {', '.join(fields)[:200]}" if fields else "it has no row that is a JSON object"
    if not path.stat().st_size:
        raise DatasetError(f"{path.name}: the file is empty; a JSON object a line is expected")
    raise DatasetError(f"{path.name}: the format is not recognised ({found}); question and solution are expected")


def _format_of(row: Row) -> Format | None:
    keys = row.keys()
    if row.get("format") == TRACE_FORMAT:
        return "trace"
    if {"problem", "steps", "label"} <= keys:
        return "processbench"
    if "model_output_steps" in keys or {"question", "steps", "first_error_step"} <= keys:
        return "mr-gsm8k"
    if {"question", "solution", "is_correct"} <= keys:
        return "solutions"
    if {"text", "solution", "quantities"} <= keys:
        return "demo"
    if "solution" in keys and keys & {"question", "problem"}:
        return "plain"
    return "gsm8k" if {"question", "answer"} <= keys else None


def _existing(path: Path) -> Path:
    if path.is_dir():
        raise DatasetError(f"{path.name} is a folder; give one of its files, such as train.jsonl")
    if not path.is_file():
        raise DatasetError(f"the file {path.name!r} is not there, or is not a plain file")
    return path


def _convert(
    file: str, rows: Iterable[tuple[int, dict[str, Any] | str]], reader: Callable[[Row], Trace]
) -> Iterator[Trace | RowError]:
    seen = _Seen()
    for line, row in rows:
        if isinstance(row, str):
            yield RowError(file, line, "", row)
            continue
        try:
            trace = reader(row)
        except _BadField as error:
            yield RowError(file, line, error.field, str(error))
        except ValueError as error:
            yield RowError(file, line, "", str(error)[:300])
        else:
            yield _with_ids(trace, line, seen)


def _with_ids(trace: Trace, line: int, seen: _Seen) -> Trace:
    trace_id = trace.trace_id or _hash(trace.problem, trace.text)
    if seen.before(trace_id):
        trace_id = f"{trace_id}-L{line}"
    return replace(trace, trace_id=trace_id, problem_id=trace.problem_id or _hash(trace.problem))


def _hash(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


class _Seen:
    """Which ids came before, in constant memory (a Bloom filter of 4 MB): a false 'yes' only lengthens an id."""

    def __init__(self) -> None:
        self.bits = bytearray(1 << 22)

    def before(self, name: str) -> bool:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        known = True
        for start in range(0, 16, 4):
            byte, bit = divmod(int.from_bytes(digest[start : start + 4], "little") % (8 * len(self.bits)), 8)
            known = known and bool(self.bits[byte] >> bit & 1)
            self.bits[byte] |= 1 << bit
        return known


# ---------------------------------------------------------------------------------------------------- fields


def _value(row: Row, *names: str) -> tuple[str, Any]:
    """The first of the fields that is there, and its value."""
    for name in names:
        if name in row:
            return name, row[name]
    raise _BadField(names[0], f"missing; {' or '.join(names)} is expected")


def _text(row: Row, *names: str, blank: bool = False) -> str:
    field, value = _value(row, *names)
    if not isinstance(value, str):
        raise _BadField(field, f"{kind_of(value)} where text is expected")
    if not blank and not value.strip():
        raise _BadField(field, "empty")
    return _limited(field, value)


def _limited(field: str, text: str) -> str:
    if len(text) > MAX_TEXT:
        raise _BadField(field, f"{len(text):,} characters; the limit is {MAX_TEXT:,}")
    return text


def _flag(row: Row, name: str) -> bool:
    _, value = _value(row, name)
    if not isinstance(value, bool):
        raise _BadField(name, f"{kind_of(value)} where true or false is expected")
    return value


def _whole(field: str, value: Any) -> int:
    if type(value) is not int:
        raise _BadField(field, f"{kind_of(value)} where a whole number is expected")
    return value


def _name(row: Row, *names: str) -> str:
    """An identifier, text or number, as text; '' where there is none."""
    present = [name for name in names if row.get(name) is not None]
    if not present:
        return ""
    value = row[present[0]]
    if type(value) not in (str, int):
        raise _BadField(present[0], f"{kind_of(value)} where text or a whole number is expected")
    return _limited(present[0], str(value))


def _answer(row: Row, *names: str) -> str | None:
    """A reference answer, text or number, as written; of a whole solution the part after ``####``."""
    present = [name for name in names if row.get(name) is not None]
    if not present:
        return None
    value = row[present[0]]
    if type(value) not in (str, int, float):
        raise _BadField(present[0], f"{kind_of(value)} where text or a number is expected")
    return _limited(present[0], str(value)).rpartition("####")[2].strip() or None


def _steps(row: Row, *names: str) -> list[str]:
    field, value = _value(row, *names)
    if isinstance(value, str):
        value = [line for line in value.splitlines() if line.strip()]
    if not isinstance(value, list):
        raise _BadField(field, f"{kind_of(value)} where a list of steps is expected")
    if not 1 <= len(value) <= MAX_STEPS:
        raise _BadField(field, f"{len(value):,} steps; 1 to {MAX_STEPS:,} are expected")
    for number, step in enumerate(value, 1):
        if not isinstance(step, str):
            raise _BadField(field, f"step {number} is {kind_of(step)} where text is expected")
    if not any(step.strip() for step in value):
        raise _BadField(field, "empty")
    _limited(field, "\n".join(value))
    return cast(list[str], value)


def _given_steps_trace(problem: str, steps: Sequence[str], first_error: int | None, note: str, **known: Any) -> Trace:
    """A trace of given steps, joined by newlines, with the spans that this gives; roles as the segmentation says."""
    trace = make_trace(problem, "\n".join(steps), **known)
    ends = [0]
    for step in steps:
        ends.append(ends[-1] + len(step) + 1)
    spans = [(start, end - 1) for start, end in pairwise(ends)]
    kept = tuple(
        Step(start, end, text, _role(start, end, trace.steps)) for (start, end), text in zip(spans, steps, strict=True)
    )
    return replace(trace, steps=kept, truth=Truth(first_error, note=note))


def _role(start: int, end: int, segmented: Sequence[Step]) -> Literal["reasoning", "answer"]:
    roles = {step.role for step in segmented if step.start < end and start < step.end}
    return "answer" if roles == {"answer"} else "reasoning"


# --------------------------------------------------------------------------------------------------- formats


def _read_gsm8k(row: Row) -> Trace:
    solution = _text(row, "answer")
    reference = segment(solution)[2]
    if reference is None:
        raise _BadField("answer", "no final answer; a last line such as '#### 12' is expected")
    return make_trace(_text(row, "question"), solution, reference_answer=reference, source=Source.EXPERT)


def _read_processbench(row: Row) -> Trace:
    steps = _steps(row, "steps")
    label = _whole("label", _value(row, "label")[1])
    if not -1 <= label < len(steps):
        raise _BadField(
            "label", f"{label}; -1 (no error) to {len(steps) - 1} is expected, there are {len(steps)} steps"
        )
    trace = _given_steps_trace(
        _text(row, "problem"), steps, None if label == -1 else label, "", trace_id=_name(row, "id")
    )
    extra = {"generator": _name(row, "generator")} if "generator" in row else {}
    return replace(trace, correct=_flag(row, "final_answer_correct"), extra=extra)


def _read_mr_gsm8k(row: Row) -> Trace:
    steps = _steps(row, "model_output_steps", "steps")
    field, value = _value(row, "model_output_solution_first_error_step", "first_error_step")
    first = _one_based(field, value, len(steps))
    reason = _reason(row)
    trace = _given_steps_trace(
        _text(row, "question"),
        steps,
        first,
        reason,
        trace_id=_name(row, "uuid"),
        reference_answer=_answer(row, "ground_truth_answer", "answer"),
    )
    stated = row.get("model_output_answer_correctness")
    return replace(trace, correct=stated == "correct") if stated in ("correct", "incorrect") else trace


def _one_based(field: str, value: Any, count: int) -> int | None:
    """A 1-based step, as a number or as text, to 0-based; ``N/A`` and its like to None."""
    text = str(value).strip().lower() if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if value is None or text in NO_ERROR:
        return None
    if text is None or not re.fullmatch(r"[0-9]{1,6}", text):
        raise _BadField(field, f"{str(value)[:40]!r} where a step number or N/A is expected")
    if not 1 <= int(text) <= count:
        raise _BadField(field, f"{text}; 1 to {count} is expected, there are {count} steps")
    return int(text) - 1


def _reason(row: Row) -> str:
    for name in ("model_output_solution_first_error_reason", "error_reason"):
        if isinstance(row.get(name), str) and row[name].strip().lower() not in NO_ERROR:
            return _limited(name, row[name])
    return ""


def _read_solutions(row: Row) -> Trace:
    reference = _text(row, "reference", blank=True) if "reference" in row else ""
    extra = {"model": _name(row, "model"), "reference_solution": reference}
    trace = make_trace(
        _text(row, "question"),
        _text(row, "solution"),
        reference_answer=segment(reference)[2] if reference.strip() else None,
        problem_id=_name(row, "problem_id"),
        extra={name: value for name, value in extra.items() if value},
    )
    return replace(trace, correct=_flag(row, "is_correct"))


def _read_plain(row: Row) -> Trace:
    return make_trace(
        _text(row, "question", "problem"),
        _text(row, "solution"),
        reference_answer=_answer(row, "answer"),
        trace_id=_name(row, "id", "trace_id"),
        problem_id=_name(row, "problem_id"),
    )


def _read_demo(row: Row) -> Trace:
    return make_trace(
        _text(row, "text"),
        _text(row, "solution"),
        reference_answer=_answer(row, "answer"),
        source=Source.EXPERT,
        problem_id=_name(row, "problem_id"),
        extra={"family": _name(row, "family")},
    )


def _read_trace(row: Row) -> Trace:
    text = _text(row, "solution", blank=True)
    try:
        return Trace(
            problem=_text(row, "question", blank=True),
            text=text,
            steps=_spans_to_steps(text, row["step_spans"]),
            layout=Layout(row["layout"]),
            source=Source(row["source"]),
            trace_id=_name(row, "id"),
            problem_id=_name(row, "problem_id"),
            answer=_optional(row, "final_answer", str),
            reference_answer=_optional(row, "answer", str),
            correct=_optional(row, "correct", bool),
            truth=Truth(**row["truth"]) if row["truth"] is not None else None,
            token_ids=_tuple(row["token_ids"], int),
            logprobs=_tuple(row["logprobs"], float),
            finished=_flag(row, "finished"),
            extra={str(key): str(value) for key, value in row["extra"].items()},
        )
    except KeyError as error:
        raise _BadField(str(error.args[0]), "missing") from error
    except (TypeError, AttributeError) as error:
        raise _BadField("", f"a field has the wrong type ({error})") from error


def _spans_to_steps(text: str, spans: Any) -> tuple[Step, ...]:
    steps = []
    for number, entry in enumerate(spans, 1):
        whole = isinstance(entry, list) and len(entry) == 3 and all(type(place) is int for place in entry[:2])
        if not whole or entry[2] not in ("reasoning", "answer"):
            raise _BadField("step_spans", f"entry {number} is not [start, end, 'reasoning' or 'answer']")
        steps.append(Step(entry[0], entry[1], text[entry[0] : entry[1]], entry[2]))
    return tuple(steps)


def _optional(row: Row, name: str, kind: type) -> Any:
    if row[name] is not None and type(row[name]) is not kind:
        raise _BadField(name, f"{kind_of(row[name])} where {kind.__name__} or null is expected")
    return row[name]


def _tuple(values: Any, kind: type) -> tuple[Any, ...] | None:
    return None if values is None else tuple(kind(value) for value in values)


READERS: dict[str, Callable[[Row], Trace]] = {
    "gsm8k": _read_gsm8k,
    "processbench": _read_processbench,
    "mr-gsm8k": _read_mr_gsm8k,
    "solutions": _read_solutions,
    "plain": _read_plain,
    "demo": _read_demo,
    "trace": _read_trace,
}


# --------------------------------------------------------------------------------------------------- writing


def write_jsonl(traces: Iterable[Trace], path: Path) -> int:
    """Write traces, one a line, atomically: ``read`` gives them back equal. Returns their number.

    ``question``, ``solution`` and ``answer`` stand where other programs look for them.

    Raises:
        DatasetError: the file could not be written; an earlier one is untouched.
    """
    count = 0
    with atomic_replacement(path, error=DatasetError) as temporary, temporary.open("w", encoding="ascii") as target:
        for trace in traces:
            target.write(json.dumps(_row_of(trace)) + "\n")
            count += 1
    return count


def _row_of(trace: Trace) -> dict[str, Any]:
    truth = trace.truth
    return {
        "format": TRACE_FORMAT,
        "id": trace.trace_id,
        "problem_id": trace.problem_id,
        "question": trace.problem,
        "solution": trace.text,
        "answer": trace.reference_answer,
        "final_answer": trace.answer,
        "correct": trace.correct,
        "layout": trace.layout.value,
        "source": trace.source.value,
        "step_spans": [[step.start, step.end, step.role] for step in trace.steps],
        "truth": truth and {"first_error_step": truth.first_error_step, "kind": truth.kind, "note": truth.note},
        "token_ids": trace.token_ids,
        "logprobs": trace.logprobs,
        "finished": trace.finished,
        "extra": trace.extra,
    }


# ----------------------------------------------------------------------------------------------------- gsm8k


def gsm8k(split: Literal["train", "test"], folder: Path | None = None) -> Iterator[Trace | RowError]:
    """GSM8K's expert traces: from ``folder`` (train.jsonl, test.jsonl), else from the hub (``openai/gsm8k``, main).

    Raises DatasetError that names the folder or cache looked in, and how to give a local one.
    """
    if folder is not None:
        if not (folder / f"{split}.jsonl").is_file():
            raise DatasetError(f"GSM8K: no {split}.jsonl in the folder {str(folder)!r}; put it there, or name another")
        return read(folder / f"{split}.jsonl", "gsm8k")
    rows = ((number, dict(row)) for number, row in enumerate(_hub_gsm8k(split), 1))
    return _convert(f"openai/gsm8k/{split}", rows, _read_gsm8k)


def _hub_gsm8k(split: str) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise DatasetError("GSM8K from the hub needs the package datasets: pip install datasets") from error
    try:
        return cast(Iterable[Mapping[str, Any]], datasets.load_dataset("openai/gsm8k", "main", split=split))
    except Exception as error:
        cache = datasets.config.HF_DATASETS_CACHE
        raise DatasetError(
            f"GSM8K is neither to be had from the hub ({type(error).__name__}) nor in the cache {str(cache)!r}; "
            "go online once, or give a folder with train.jsonl and test.jsonl (evaluate: --data FOLDER; train: "
            "data.source=FOLDER)"
        ) from error
