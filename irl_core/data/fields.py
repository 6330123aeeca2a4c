"""Validation of the fields of a row from outside; an error names the field.

Values keep the type that they have in the file: the text '007' stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from irl_core.data.jsonl import kind_of
from irl_core.text.segmentation import segment

MAX_TEXT = 100_000
MAX_STEPS = 2_000

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that could not be read: file name, 1-based line, field ('' = the whole row) and what is wrong with it."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}, {self.field or 'row'}: {self.message}"


class FieldError(ValueError):
    """A field that is missing, of the wrong kind, or contradicts another one."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def first_value(row: Row, *names: str) -> tuple[str, Any]:
    """Name and value of the first of the fields that is there. Raises FieldError where none is."""
    for name in names:
        if name in row:
            return name, row[name]
    raise FieldError(names[0], f"missing; {' or '.join(names)} is expected")


def text_field(row: Row, *names: str, blank: bool = False) -> str:
    """The text of the first of the fields that is there; ``blank`` allows an empty one."""
    field, value = first_value(row, *names)
    if not isinstance(value, str):
        raise FieldError(field, f"{kind_of(value)} where text is expected")
    if not blank and not value.strip():
        raise FieldError(field, "empty")
    return limited(field, value)


def limited(field: str, text: str) -> str:
    """The text, if it has at most ``MAX_TEXT`` characters and can be written as UTF-8."""
    if len(text) > MAX_TEXT:
        raise FieldError(field, f"{len(text):,} characters; the limit is {MAX_TEXT:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FieldError(field, f"character {error.start} is half of a surrogate pair; remove it") from error
    return text


def flag(row: Row, name: str) -> bool:
    """A true or false."""
    _, value = first_value(row, name)
    if not isinstance(value, bool):
        raise FieldError(name, f"{kind_of(value)} where true or false is expected")
    return value


def whole_number(row: Row, name: str) -> int:
    """A number without decimals."""
    _, value = first_value(row, name)
    if type(value) is not int:
        raise FieldError(name, f"{kind_of(value)} where a whole number is expected")
    return value


def identifier(row: Row, *names: str) -> str:
    """An identifier, text or number, as text; '' where there is none."""
    present = [name for name in names if row.get(name) is not None]
    if not present:
        return ""
    value = row[present[0]]
    if type(value) not in (str, int):
        raise FieldError(present[0], f"{kind_of(value)} where text or a whole number is expected")
    return limited(present[0], str(value))


def reference_answer(row: Row, *names: str) -> str | None:
    """A reference answer, text or number, as written; of a whole solution, in any layout, the answer that it states.

    A missing value (null, NaN) is none.
    """
    present = [name for name in names if row.get(name) is not None]
    if not present:
        return None
    field, value = present[0], row[present[0]]
    if type(value) not in (str, int, float):
        raise FieldError(field, f"{kind_of(value)} where text or a number is expected")
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        raise FieldError(field, f"{value} where a finite number is expected")
    text = limited(field, str(value)).strip()
    return segment(text)[2] or text.rpartition("####")[2].strip() or None


def steps_field(row: Row, *names: str) -> list[str]:
    """A list of steps, or the lines of a text; some may be blank, not all."""
    field, value = first_value(row, *names)
    if isinstance(value, str):
        value = [line for line in value.splitlines() if line.strip()]
    if not isinstance(value, list):
        raise FieldError(field, f"{kind_of(value)} where a list of steps is expected")
    if not 1 <= len(value) <= MAX_STEPS:
        raise FieldError(field, f"{len(value):,} steps; 1 to {MAX_STEPS:,} are expected")
    for number, step in enumerate(value, 1):
        if not isinstance(step, str):
            raise FieldError(field, f"step {number} is {kind_of(step)} where text is expected")
    if not any(step.strip() for step in value):
        raise FieldError(field, "empty")
    limited(field, "\n".join(value))
    return cast(list[str], value)


NO_ERROR = ("", "n/a", "none", "nan")


def one_based_step(field: str, value: Any, count: int) -> int | None:
    """A 1-based step, as a number or as text, to 0-based; ``N/A`` and its like to None."""
    text = str(value).strip().lower() if isinstance(value, (str, int)) and not isinstance(value, bool) else None
    if value is None or text in NO_ERROR or (isinstance(value, float) and math.isnan(value)):
        return None
    if text is None or not re.fullmatch(r"[0-9]{1,6}", text):
        raise FieldError(field, f"{str(value)[:40]!r} where a step number or N/A is expected")
    if not 1 <= int(text) <= count:
        raise FieldError(field, f"{text}; 1 to {count} is expected, there are {count} steps")
    return int(text) - 1
