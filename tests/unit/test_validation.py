"""Documents checked by pydantic: strict scalars, and errors in words of the caller's kind."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass

from irl_core.errors import CheckpointError, ConfigError
from irl_core.validation import STRICT, Flag, Number, Range, Text, Whole, nearest, validated


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Inner:
    depth: Annotated[Whole, Range(1, 9)] = 2
    width: Annotated[Number, Range(0, 1, above=True)] = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Outer:
    name: Text
    inner: Inner = field(default_factory=Inner)
    kind: Literal["one", "two"] = "one"
    exactly: Literal[True] = True
    pair: tuple[Number, Number] = (1.0, 2.0)
    wide: Flag = False
    note: str | None = None


def told(document: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        validated(Outer, document, CheckpointError, "a.json: ")
    return str(caught.value)


def test_a_document_becomes_the_class_with_its_defaults() -> None:
    document = {"name": "n", "inner": {"depth": 3}, "pair": [1, "2e-3"], "note": None}
    assert validated(Outer, document, ConfigError) == Outer(name="n", inner=Inner(depth=3), pair=(1.0, 0.002))
    assert validated(Outer, {"name": "n", "inner": None}, ConfigError).inner == Inner()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": "x"}, "unknown key 'nam'; nearest is 'name'"),
        ({"depht": 1}, "unknown key 'depht'; nearest is 'inner.depth'"),
        ({"inner": {"dept": 1}}, "unknown key 'inner.dept'; nearest is 'inner.depth'"),
        ({"inner": {"zzz": 1}}, "unknown key 'inner.zzz'; known here: depth, width"),
        ({7: 1}, "unknown key '7'; known here: name, inner, kind, exactly, pair, wide, note"),
        ({"inner": 5}, "inner is 5; keys with values are expected"),
        ({"inner": {"depth": True}}, "inner.depth is True (true/false); a whole number is expected"),
        ({"inner": {"depth": 2.0}}, "inner.depth is 2.0 (a number with a point); a whole number is expected"),
        ({"inner": {"depth": 10}}, "inner.depth is 10; it must lie in [1, 9]"),
        ({"inner": {"width": 0}}, "inner.width is 0.0; it must lie in (0, 1]"),
        ({"inner": {"width": "inf"}}, "inner.width is inf; a finite number is expected"),
        ({"kind": "tow"}, "kind is 'tow'; one of one, two is expected; nearest is 'two'"),
        ({"exactly": False}, "exactly is False; one of True is expected"),
        ({"pair": [1]}, "pair has 1 entries; 2 are expected"),
        ({"pair": []}, "pair has 0 entries; 2 are expected"),
        ({"pair": [1, 2, 3]}, "pair has 3 entries; 2 are expected"),
        ({"pair": [1, [2]]}, "pair[1] is [2] (a list); a number is expected"),
        ({"wide": "yes"}, "wide is 'yes' (text); true or false is expected"),
        ({"note": 5}, "note is 5 (a whole number); text is expected"),
        ({"note": {"a": 1}}, "note is {'a': 1} (keys); text is expected"),
        ({"name": None}, "name is None (nothing); text is expected"),
        ({"name": b"x"}, "name is b'x' (other); text is expected"),
    ],
)
def test_errors_name_key_value_and_what_is_expected(change: dict[Any, Any], message: str) -> None:
    assert told({"name": "n"} | change) == f"a.json: {message}"


def test_what_is_missing_or_no_mapping() -> None:
    assert told({}) == "a.json: name is missing"
    assert told([1]) == "a.json: a JSON object is expected"


def test_a_long_value_is_cut() -> None:
    assert len(told({"name": "n", "pair": "x" * 10_000})) < 200
    assert len(told({"name": "n", "x" * 10_000: 1})) < 400


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_whatever_a_value_is_the_error_is_in_words(value: object) -> None:
    for name in ("name", "inner", "kind", "exactly", "pair", "wide", "note"):
        try:
            validated(Outer, {"name": "n", name: value}, CheckpointError)
        except CheckpointError as error:
            assert str(error).startswith(name)


def test_the_nearest_name() -> None:
    assert nearest("plolicy", ["policy", "reward"]) == "; nearest is 'policy'"
    assert nearest("xyz", ["policy", "reward"]) == ""
