"""Typed values from plain documents: every value checked, an unknown key answered with the nearest one.

What ``irl_core.config`` is built with; it knows no particular setting.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from irl_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive limits of a number; ``above`` excludes the lower one, ``below`` the upper one."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        left = "(" if self.above or math.isinf(self.low) else "["
        right = ")" if self.below or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


def build(kind: type, document: Any) -> Any:
    """An instance of the dataclass ``kind`` from a nested mapping; missing keys take their defaults.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value of the wrong type or outside its limits.
    """
    return _build(kind, document, "", kind)


def _build(kind: type, document: Any, key: str, root: type) -> Any:
    document = {} if document is None else document
    if not isinstance(document, Mapping):
        raise ConfigError(f"{key} is {document!r}; keys with values are expected")
    hints = get_type_hints(kind, include_extras=True)
    values = {}
    for name, value in document.items():
        full = f"{key}.{name}" if key else str(name)
        if name not in hints:
            raise ConfigError(f"unknown key {full!r}{_nearest_key(str(name), key, list(hints), root)}")
        values[name] = _convert(value, hints[name], full, root)
    return kind(**values)


def _convert(value: Any, hint: Any, key: str, root: type) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _in_range(_convert(value, arguments[0], key, root), arguments[1], key)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            near = nearest(str(value), [str(choice) for choice in arguments])
            raise ConfigError(f"{key} is {value!r}; one of {', '.join(map(str, arguments))} is expected{near}")
        return value
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _convert(value, inner, key, root)
    if origin is tuple:
        return _convert_list(value, arguments, key, root)
    if dataclasses.is_dataclass(hint):
        return _build(cast(type, hint), value, key, root)
    return _scalar(value, hint, key)


def _convert_list(value: Any, arguments: tuple[Any, ...], key: str, root: type) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{key} is {_shown(value)}; a list such as [a, b] is expected")
    if arguments[-1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise ConfigError(f"{key} has {len(value)} entries; {len(arguments)} are expected")
    pairs = enumerate(zip(value, arguments, strict=True))
    return tuple(_convert(entry, hint, f"{key}[{number}]", root) for number, (entry, hint) in pairs)


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_GIVEN = _NAMES | {
    bool: "true/false",
    float: "a number with a point",
    type(None): "nothing",
    list: "a list",
    dict: "keys",
}


def _scalar(value: Any, kind: type, key: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 1e-5 (no point) as text
        value = _number(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{key} is {_shown(value)}; {_NAMES[kind]} is expected")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} is {value}; a finite number is expected")
    return value


def _shown(value: Any) -> str:
    return f"{str(value)[:80] if not isinstance(value, str) else repr(value[:80])} ({_GIVEN.get(type(value), 'other')})"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _in_range(value: Any, limits: Range, key: str) -> Any:
    if not limits.holds(value):
        raise ConfigError(f"{key} is {value}; it must lie in {limits}")
    return value


def _nearest_key(name: str, section: str, siblings: list[str], root: type) -> str:
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return _suggest(f"{section}.{near[0]}" if section else near[0])
    leaves = _leaves(root, "")
    by_name = {leaf.rpartition(".")[2]: leaf for leaf in reversed(leaves)}
    near = difflib.get_close_matches(name, list(by_name), n=1)
    return _suggest(by_name[near[0]]) if near else f"; known here: {', '.join(siblings)}"


def nearest(name: str, names: Sequence[str]) -> str:
    """``; nearest is '...'`` for an error's end, or nothing where no name is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return _suggest(near[0]) if near else ""


def _suggest(name: str) -> str:
    return f"; nearest is {name!r}"


def _leaves(kind: type, section: str) -> list[str]:
    """Every key as dotted text: ``run.seed``, ``model.lora.rank``, ..."""
    leaves: list[str] = []
    for name, hint in get_type_hints(kind).items():
        full = f"{section}.{name}" if section else name
        leaves += _leaves(cast(type, hint), full) if dataclasses.is_dataclass(hint) else [full]
    return leaves


def plain(value: Any) -> Any:
    """Dictionaries, lists and scalars alone: tuples as lists, at every depth."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value
