"""Many solutions at once: a pasted file becomes requests. Knows no streamlit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.inspect.request import Inspection, Request
from app.inspect.results import verdict_of
from irl_core.data.fields import RowError
from irl_core.data.formats import read
from irl_core.data.sources import FIELDS
from irl_core.errors import DatasetError, UserError
from irl_core.reward.verdict import KINDS, NO_STEP

MOST: Final = 50
MOST_CHARACTERS: Final = 500_000
_CLOSING: Final = re.compile(r"^####", re.MULTILINE)
_BETWEEN: Final = re.compile(r"^[ \t]*-{3,}[ \t]*$", re.MULTILINE)


class ManyError(UserError, ValueError):
    """A pasted file that is not taken; the message says why, with the limit and the fix."""


@dataclass(frozen=True, slots=True)
class Pasted:
    """The requests in a pasted file, and why rows of it are none."""

    requests: tuple[Request, ...]
    faults: tuple[str, ...] = ()


@dataclass(slots=True)
class Work:
    """A pasted file that is being worked through: what came of the first ``done`` requests."""

    pasted: Pasted
    found: list[Inspection] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    done: int = 0
    stopped: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or it was stopped."""
        return self.stopped or self.done >= len(self.pasted.requests)


def read_pasted(text: str, problem: str = "", answer: str = "") -> Pasted:
    """The requests in ``text``: JSON lines or a CSV table of any known format, or else solutions of ``problem`` with a
    line of dashes between them.

    Raises:
        ManyError: empty, too long, too many, of no known format, or solutions without a problem.
    """
    if not text.strip():
        raise ManyError("Nothing is pasted; JSON lines, CSV, or solutions with a line of --- between them.")
    if len(text) > MOST_CHARACTERS:
        raise ManyError(f"{len(text):,} characters; the limit is {MOST_CHARACTERS:,}. Take the Upload page.")
    pasted = read_rows(text) if holds_rows(text) else read_solutions(text, problem, answer)
    if len(pasted.requests) > MOST:
        raise ManyError(f"{len(pasted.requests):,} solutions; the limit is {MOST}. Take the Upload page for more.")
    return pasted


def holds_rows(text: str) -> bool:
    """Whether a text is JSON, or a table whose first line has names of columns, a known one among them."""
    start = text.lstrip()
    names = [name.strip(' "') for name in re.split(r"[,;\t]", start.partition("\n")[0].strip())]
    return start.startswith(("{", "[")) or (len(names) > 1 and not set(names).isdisjoint(FIELDS))


def read_rows(text: str) -> Pasted:
    """The rows of JSON lines or of a table as requests. Raises ManyError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pasted"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            rows = list(read(path))
        except DatasetError as error:
            raise ManyError(f"{error}.") from error
    faults = [f"line {row.line}: {row.message}" for row in rows if isinstance(row, RowError)]
    requests = [
        Request(row.problem, row.text, row.reference_answer or "") for row in rows if not isinstance(row, RowError)
    ]
    if not requests:
        raise ManyError(f"No row can be read; the first reason: {faults[0]}." if faults else "There is no row.")
    return Pasted(tuple(requests), tuple(faults))


def read_solutions(text: str, problem: str, answer: str) -> Pasted:
    """Solutions of one problem, a line of dashes between them. Raises ManyError where there is no problem, or one part
    closes several times: blank lines alone do not part solutions, which have some themselves."""
    parts = [part.strip("\r\n") for part in _BETWEEN.split(text) if part.strip()]
    if not problem.strip():
        raise ManyError("These are solutions, and there is no problem in the form that they are solutions of.")
    for number, part in enumerate(parts, start=1):
        if (closings := len(_CLOSING.findall(part))) > 1:
            raise ManyError(f"Solution {number} has {closings} closing lines; a line of --- goes between solutions.")
    return Pasted(tuple(Request(problem, part, answer) for part in parts))


def words(inspections: Sequence[Inspection], refused: int, left: int = 0) -> str:
    """What came of them: how many have an error, end wrong with none named, cannot be judged, were refused; ``left``:
    how many were not begun, since it was stopped."""
    if not inspections and not refused:
        return f"Stopped before the first of {left} was inspected."
    kinds = [verdict_of(one).ruling.kind for one in inspections]
    wrong = sum(
        kind == "uncertain" and one.scored[0].trace.correct is False
        for kind, one in zip(kinds, inspections, strict=True)
    )
    counts = {
        "with an error": kinds.count("error"), f"with a {NO_STEP}": wrong,
        "with no error found": kinds.count("no_error"), KINDS["uncertain"]: kinds.count("uncertain") - wrong,
        "that the model cannot judge": kinds.count("cannot_judge"),
    }  # fmt: skip
    said = ", ".join(f"{number} {name}" for name, number in counts.items() if number) or "none"
    total = len(inspections) + refused + left
    count = f"{len(inspections)} inspected" if total == len(inspections) else f"{len(inspections)} of {total} inspected"
    rest = [f"{refused} refused"] if refused else []
    rest += [f"stopped before the other {left}"] if left else []
    return "; ".join((f"{count}: {said}", *rest)) + "."
