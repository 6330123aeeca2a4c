"""YAML and other nested documents, checked by pydantic; errors name the key, its value and what is expected.

Classes to check are pydantic dataclasses with ``config=STRICT`` and the strict scalars below: pydantic alone would take
``"5"`` and ``True`` for a number.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import yaml
from pydantic import BeforeValidator, ConfigDict, GetCoreSchemaHandler, Strict, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from irl_core.errors import ConfigError, UserError

Document = TypeVar("Document")

MAX_FILE_BYTES = 1_000_000
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)
EXPECTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
            "tuple": "a list such as [a, b]"}  # fmt: skip
GIVEN = {bool: "true/false", int: "a whole number", float: "a number with a point", str: "text", list: "a list",
         dict: "keys", type(None): "nothing"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive limits of a number; ``above`` excludes the lower one, ``below`` the upper one."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Whether the number lies within the limits."""
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        left = "(" if self.above or math.isinf(self.low) else "["
        right = ")" if self.below or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: float) -> float:
            if not self.holds(value):
                raise PydanticCustomError("range", f"is {value}; it must lie in {self}")
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def number_from_text(value: object) -> object:
    """The number in a text, as YAML 1.1 reads 1e-5 (no point); anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), BeforeValidator(number_from_text)]
Text = Annotated[str, Strict()]  # not bytes, which YAML's !!binary gives
Whole = Annotated[int, Strict()]
Count = Annotated[Whole, Range(1)]
CountOrZero = Annotated[Whole, Range(0)]
Share = Annotated[Number, Range(0, 1)]
NotNegative = Annotated[Number, Range(0)]
Positive = Annotated[Number, Range(0, above=True)]
Rate = Annotated[Number, Range(0, 1, above=True)]
Momentum = Annotated[Number, Range(0, 1, below=True)]


def validated(kind: type[Document], document: object, error: type[UserError], label: str = "") -> Document:
    """An instance of the dataclass ``kind`` from a nested mapping; missing keys take their defaults.

    Args:
        kind: the class.
        document: the mapping; an empty section (None) counts as an empty mapping.
        error: the kind of `UserError` to raise.
        label: what the error's message begins with, such as the file's name.

    Raises:
        error: an unknown key, with the nearest known one, or a value of the wrong type or outside its limits.
    """
    one: type = kind
    try:
        return cast(Document, _adapter(one).validate_python(_with_empty_sections(one, document)))
    except ValidationError as failure:
        raise error(label + explain(failure, kind)) from failure


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _sections(kind: type) -> dict[str, type | None]:
    """The fields of a dataclass: the class of each that is itself a dataclass, None of the others."""
    hints: dict[str, type] = get_type_hints(kind)
    return {name: hint if is_dataclass(hint) else None for name, hint in hints.items()}


def _with_empty_sections(kind: type, document: object) -> object:
    if not isinstance(document, Mapping):
        return {} if document is None else document
    sections = _sections(kind)
    return {
        name: value if (section := sections.get(name)) is None else _with_empty_sections(section, value)
        for name, value in document.items()
    }


def explain(failure: ValidationError, kind: type) -> str:
    """The first of pydantic's errors in words, for a document of the dataclass ``kind``."""
    details = failure.errors(include_url=False)
    place, value, sort = details[0]["loc"], details[0]["input"], details[0]["type"]
    key = _dotted(place)
    match sort:
        case "unexpected_keyword_argument" | "invalid_key":
            key = _dotted((*place[:-1], str(place[-1])))[:200]  # YAML has keys that are numbers
            return f"unknown key {key!r}{_nearest_key(place, kind)}"
        case "missing" if isinstance(place[-1], int):  # of a list of a fixed length
            missing = sum(one["loc"][:-1] == place[:-1] for one in details)
            return f"{_dotted(place[:-1])} has {len(value)} entries; {len(value) + missing} are expected"
        case "missing":
            return f"{key} is missing"
        case "too_long":
            return f"{key} has {len(value)} entries; {details[0]['ctx']['max_length']} are expected"
        case "range":
            return f"{key} {details[0]['msg']}"
        case "value_error":
            return str(details[0]["ctx"]["error"])
        case "literal_error":
            choices = [choice.strip("'") for choice in re.split(", | or ", details[0]["ctx"]["expected"])]
            return f"{key} is {_shown(value)}; one of {', '.join(choices)} is expected{nearest(str(value), choices)}"
        case "finite_number":
            return f"{key} is {value}; a finite number is expected"
        case "dataclass_type":
            return f"{key} is {_shown(value)}; keys with values are expected" if key else "a JSON object is expected"
    expected = EXPECTED.get(sort.partition("_")[0], details[0]["msg"])
    return f"{key} is {_shown(value)} ({GIVEN.get(type(value), 'other')}); {expected} is expected"


def _shown(value: object) -> str:
    return repr(value[:80]) if isinstance(value, str) else str(value)[:80]


def _dotted(place: Sequence[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def nearest(name: str, names: Sequence[str]) -> str:
    """``; nearest is '...'`` for the end of an error's message, or nothing where no name is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return f"; nearest is {near[0]!r}" if near else ""


def _nearest_key(place: Sequence[str | int], kind: type) -> str:
    """The nearest key of the same section, else of the whole document, else all keys of the section."""
    section = kind
    for part in place[:-1]:
        section = _sections(section)[str(part)] or section
    name, siblings = str(place[-1]), list(_sections(section))
    if near := difflib.get_close_matches(name, siblings, n=1):
        return f"; nearest is {_dotted((*place[:-1], near[0]))!r}"
    by_name = {leaf.rpartition(".")[2]: leaf for leaf in reversed(_leaves(kind))}
    if near := difflib.get_close_matches(name, list(by_name), n=1):
        return f"; nearest is {by_name[near[0]]!r}"
    return f"; known here: {', '.join(siblings)}"


def _leaves(kind: type, above: str = "") -> list[str]:
    """Every key as dotted text: ``run.seed``, ``model.lora.rank``, ..."""
    leaves: list[str] = []
    for name, section in _sections(kind).items():
        leaves += [above + name] if section is None else _leaves(section, f"{above}{name}.")
    return leaves


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error; PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise ConfigError(f"the key {twice!r} is given twice, line {node.start_mark.line + 1} on; remove one")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, empty for an empty file; no tag makes an object of ours.

    Raises:
        ConfigError: not YAML, no mapping, a key given twice, or more than ``MAX_FILE_BYTES``.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ConfigError(f"{path.name}: {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path.name}: not readable as YAML ({error})") from error
    except ConfigError as error:
        raise ConfigError(f"{path.name}: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path.name}: holds {type(document).__name__}; keys with values are expected")
    return document
