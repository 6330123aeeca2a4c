"""The sample problems that the Inspect page offers: rows of ``assets/problems.jsonl``, or of a file for a checkpoint
alone (``assets/problems-gsm8k.jsonl``)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

PROBLEMS = Path(__file__).resolve().parents[2] / "assets" / "problems.jsonl"


@dataclass(frozen=True, slots=True)
class Example:
    """A problem with a correct solution, perhaps an incorrect one, and its answer; ``name`` is its beginning."""

    name: str
    problem: str
    solution: str
    wrong_solution: str
    answer: str


def file_of(checkpoint: str) -> Path:
    """The file of a checkpoint's sample problems: its own where there is one, else those of the generator."""
    if not re.fullmatch(r"[\w.-]{1,100}", checkpoint, re.ASCII):
        return PROBLEMS
    own = PROBLEMS.with_name(f"{PROBLEMS.stem}-{checkpoint}{PROBLEMS.suffix}")
    return own if own.is_file() else PROBLEMS


def load(path: Path | None = None) -> tuple[list[Example], list[str]]:
    """The examples in ``path`` (default PROBLEMS), and a fault for each row left out; both empty without a file."""
    examples: list[Example] = []
    faults: list[str] = []
    path = path or PROBLEMS
    if not path.is_file():
        return examples, faults
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            problem = str(row["problem"])
            words = " ".join(problem.split())
            short = words if len(words) <= 72 else words[:71].rsplit(" ", 1)[0] + " \u2026"
            texts = [str(row.get(name) or "") for name in ("solution", "wrong_solution", "answer")]
            examples.append(Example(short, problem, *texts))
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            faults.append(f"{path.name} line {number} is left out: {type(error).__name__} {error}")
    return examples, faults
