"""Slices of a scored run by family, kind of error or length, and the link that opens the page on one. No streamlit."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from app.analysis.columns import SORTS
from app.analysis.failures import OUTCOMES, Query
from app.inspect.links import LinkError, check_length, pack, unpack

if TYPE_CHECKING:
    import pyarrow as pa

PARAMETER: Final = "slice"
BY: Final = {"family": "family", "kind": "kind of error", "length": "length"}
MOST_SLICES: Final = 200
PARTS_OF_LENGTH: Final = 4
FEWEST_FOR_KINDS: Final = 10


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a run: its name, the expression that asks for it, its traces, of how many it is known whether they
    are right, and how many are wrong."""

    name: str
    where: str
    traces: int
    known: int
    wrong: int


def slices(table: pa.Table, by: str) -> list[Slice]:
    """The parts of the rows of a run's index by one of ``BY``, the largest share of wrong traces first, and of equal
    shares the most traces."""
    values = [_named(value) for value in table.column(by).to_pylist()] if by != "length" else _parts(table)
    correct = table.column("correct").to_pylist()
    found: dict[tuple[str, str], list[bool | None]] = {}
    for key, right in zip(values, correct, strict=True):
        found.setdefault(key, []).append(right)
    parts = [
        Slice(
            name,
            where.format(by=by),
            len(rights),
            sum(right is not None for right in rights),
            sum(right is False for right in rights),
        )
        for (name, where), rights in found.items()
    ]
    parts.sort(key=lambda one: (-(one.wrong / one.known if one.known else 0), -one.traces, one.name))
    return parts[:MOST_SLICES]


def tells(found: Sequence[Slice], by: str) -> bool:
    """Whether slices tell the label of a single trace: kinds of few traces, or of traces that are all of one kind."""
    return by == "kind" and (len(found) < 2 or sum(one.traces for one in found) < FEWEST_FOR_KINDS)


def _named(value: object) -> tuple[str, str]:
    if value is None:
        return "not said", "{by} == None"
    return str(value), "{by} == " + json.dumps(str(value), ensure_ascii=False).replace("{", "{{").replace("}", "}}")


def _parts(table: pa.Table) -> list[tuple[str, str]]:
    """The part of the lengths, with equally many traces each, that every row is in."""
    import pyarrow.compute as pc

    lengths = table.column("length")
    shares = [part / PARTS_OF_LENGTH for part in range(1, PARTS_OF_LENGTH)]
    cuts = sorted({int(value) for value in pc.quantile(lengths, shares).to_pylist() if value is not None})
    names = []
    for length in lengths.to_pylist():
        if length is None:
            names.append(("not said", "{by} == None"))
            continue
        low = max((cut for cut in cuts if cut < length), default=None)
        high = min((cut for cut in cuts if cut >= length), default=None)
        tests = [f"{{by}} > {low}"] * (low is not None) + [f"{{by}} <= {high}"] * (high is not None)
        ends = (f"{0 if low is None else low + 1}", "more" if high is None else f"{high}")
        names.append((f"{' to '.join(ends)} tokens", " and ".join(tests) or "{by} >= 0"))
    return names


# ------------------------------------------------------------------------------------------------------------- the link


@dataclass(frozen=True, slots=True)
class Opened:
    """What a link asks for: a run, and which of its traces in which order."""

    run: str
    query: Query


def parameters(run: str, query: Query) -> dict[str, str]:
    """The query parameters of a link. Raises LinkError where it would be too long."""
    said = {PARAMETER: pack(json.dumps({"run": run, **asdict(query)}, separators=(",", ":")))}
    check_length(said)
    return said


def opened(given: Mapping[str, str]) -> Opened | None:
    """What the query parameters ask for; None where they ask for no slice.

    Raises:
        LinkError: they are damaged, or not of this page.
    """
    if PARAMETER not in given:
        return None
    check_length(given)
    try:
        said = json.loads(unpack(given[PARAMETER]))
        run = said.pop("run")
        for name in ("kinds", "verdicts", "true_steps", "verdict_steps"):
            said[name] = tuple(said[name])
        said["scores"] = None if said["scores"] is None else (float(said["scores"][0]), float(said["scores"][1]))
        query = Query(**said)
        texts = (run, query.words, query.where, *query.kinds, *query.verdicts)
        numbers = (*query.true_steps, *query.verdict_steps)
        if not all(isinstance(text, str) for text in texts) or not all(type(number) is int for number in numbers):
            raise ValueError("types")
        if query.outcome not in OUTCOMES or query.sort not in SORTS or not isinstance(query.descending, bool):
            raise ValueError("outcome or sort")
        bool(query.telling)  # the expression is read
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, ArithmeticError, zlib.error) as error:
        raise LinkError("This link is not readable: it is damaged, or not one of this page.") from error
    return Opened(run, query)
