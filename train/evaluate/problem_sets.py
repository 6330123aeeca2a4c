"""What an evaluation asks: problems to sample solutions of, or solutions that are there already and are scored.

``demo`` are held-out problems of the bundled generator, the same ones for every checkpoint; ``gsm8k`` its test split,
from the hub or a folder; anything else is a file in one of the formats of ``irl_core.data.formats``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from irl_core.data.formats import Format, RowError, detect_format, gsm8k, read
from irl_core.data.word_problems.check import first_error
from irl_core.data.word_problems.generate import problems
from irl_core.data.word_problems.quantities import WordProblem
from irl_core.errors import ConfigError, DatasetError
from irl_core.storage.provenance import data_hash
from irl_core.text.segmentation import make_trace
from irl_core.text.think_answer import as_think_answer
from irl_core.types import Source, Trace, Truth
from train.data import expert_trace

Holds = Literal["auto", "problems", "solutions"]

DEMO_SEED = 11
DEFAULT_PROBLEMS = 160
MAX_CALIBRATION = 160
CALIBRATION_SHARE = 10  # of a file's problems every tenth, where --problems does not leave others
MAX_EXPERTS = 400
PROBLEM_FORMATS = ("gsm8k", "demo")


@dataclass(frozen=True, slots=True)
class Question:
    """A problem with its expert's solution, and the generator's own record of it, where it has one."""

    expert: Trace
    generated: WordProblem | None = None

    @property
    def text(self) -> str:
        return self.expert.problem

    def truth(self, text: str) -> Truth | None:
        """Where a solution goes wrong, by the generator's checker; None where that is not known."""
        return None if self.generated is None else first_error(self.generated, text)

    @property
    def known(self) -> dict[str, str]:
        """What a trace of this problem keeps about it."""
        family = {} if self.generated is None else {"family": self.generated.family}
        return {**family, "reference_solution": self.expert.text}


@dataclass(frozen=True, slots=True)
class Exam:
    """What is asked. ``asked`` and ``calibration`` share no problem; rules are chosen on the latter alone.

    ``solutions``: the file whose solutions are scored, None where solutions are sampled. ``lines``: its length.
    ``experts``: honest solutions that are corrupted and probed. ``sha256``: of the problems, or of the file.
    """

    name: str
    sha256: str
    asked: Sequence[Question] = ()
    calibration: Sequence[Question] = ()
    experts: Sequence[Trace] = ()
    solutions: Path | None = None
    format: Format = "auto"
    lines: int = 0
    left_out: Sequence[str] = field(default=())


def open_exam(data: str, problems: int | None = None, *, holds: Holds = "auto", layout: str = "as_written") -> Exam:
    """The exam that ``--data`` names, with at most ``problems`` problems (None: 160 of the demo, else all).

    ``holds``: what a file is; auto takes GSM8K's layout and the generator's as problems, everything else as solutions.
    ``layout``: how expert solutions are written.

    Raises:
        ConfigError: too few problems, or an option that does not fit what is asked.
        DatasetError: the data is not there, or not readable.
    """
    if data == "demo":
        _no_choice(holds, data)
        return _generated(DEFAULT_PROBLEMS if problems is None else problems)
    path = Path(data)
    if data == "gsm8k" or path.is_dir():
        _no_choice(holds, data)
        rows = gsm8k("test", None if data == "gsm8k" else path)
        return _asked("gsm8k" if data == "gsm8k" else f"{path.name}/test.jsonl", rows, problems, layout)
    form = detect_format(path)
    if holds == "problems" or (holds == "auto" and form in PROBLEM_FORMATS):
        return _asked(path.name, read(path, form), problems, layout)
    if problems is not None:
        raise ConfigError(
            f"--problems {problems}: {path.name} holds solutions, which are all scored; leave it out, or sample "
            "solutions of its problems with --holds problems"
        )
    return _given(path, form)


def _no_choice(holds: Holds, data: str) -> None:
    if holds == "solutions":
        raise ConfigError(f"--holds solutions: {data} holds problems; leave it out")


# ------------------------------------------------------------------------------------------------------ problems


def _generated(count: int) -> Exam:
    if count < 2:
        raise ConfigError(f"--problems is {count}; an interval over problems needs two at least")
    asked = [Question(expert_trace(one), one) for one in problems(DEMO_SEED, count, "held_out")]
    others = problems(DEMO_SEED, min(count, MAX_CALIBRATION), "calibration")
    calibration = [Question(expert_trace(one), one) for one in others]
    experts = [question.expert for question in asked]
    return Exam("demo", data_hash(experts), asked, calibration, experts[:MAX_EXPERTS])


def _asked(name: str, rows: Iterator[Trace | RowError], count: int | None, layout: str) -> Exam:
    known: dict[str, Question] = {}
    left_out: list[str] = []
    for row in rows:
        if isinstance(row, RowError):
            left_out.append(str(row))
            continue
        try:
            question = Question(_expert(row, layout))
        except ValueError as error:
            left_out.append(f"{row.problem[:60]!r}: {error}")
        else:
            known.setdefault(row.problem, question)
    asked, calibration = _divided(list(known.values()), name, count)
    experts = [question.expert for question in asked]
    return Exam(name, data_hash(experts), asked, calibration, experts[:MAX_EXPERTS], left_out=left_out)


def _expert(row: Trace, layout: str) -> Trace:
    """A row as an honest solution. Raises ValueError where it is none by its own account, or fits no such layout."""
    if row.reference_answer is None:
        raise ValueError("has no right answer; a field answer is expected")
    if row.correct is False:
        raise ValueError("its solution is wrong, and one to corrupt must be right")
    expert = replace(row, source=Source.EXPERT, truth=None, trace_id=f"{row.problem_id}/expert")
    return as_think_answer(expert) if layout == "think_answer" else expert


def _divided(questions: list[Question], name: str, count: int | None) -> tuple[list[Question], list[Question]]:
    """The first ``count`` questions, and others to calibrate on; without a count every tenth calibrates."""
    if count is None:
        chosen = questions[::CALIBRATION_SHARE][:MAX_CALIBRATION] if len(questions) > CALIBRATION_SHARE else []
        taken = {id(one) for one in chosen}
        asked = [one for one in questions if id(one) not in taken]
    else:
        asked, chosen = questions[:count], questions[count : count + min(count, MAX_CALIBRATION)]
    if len(asked) < 2:
        raise ConfigError(
            f"{len(asked)} problems of {name} to evaluate on ({len(questions)} are readable and have an answer); an "
            "interval over problems needs two at least"
        )
    return asked, chosen


# ----------------------------------------------------------------------------------------------------- solutions


def _given(path: Path, form: Format) -> Exam:
    digest, lines = file_hash(path)
    return Exam(path.name, digest, solutions=path, format=form, lines=lines, experts=_experts_in(path, form))


def _experts_in(path: Path, form: Format) -> list[Trace]:
    """An honest solution of each problem: the reference one where the file has it, else its first correct one that is
    not known to go wrong; at most ``MAX_EXPERTS``."""
    found: dict[str, Trace] = {}
    for row in read(path, form):
        if len(found) == MAX_EXPERTS:
            break
        if not isinstance(row, RowError) and row.problem_id not in found:
            honest = _honest(row)
            if honest is not None:
                found[row.problem_id] = honest
    return list(found.values())


def _honest(row: Trace) -> Trace | None:
    reference = row.extra.get("reference_solution", "")
    if reference.strip():
        return make_trace(
            row.problem, reference, reference_answer=row.reference_answer, source=Source.EXPERT,
            trace_id=f"{row.problem_id}/expert", problem_id=row.problem_id,
        )  # fmt: skip
    wrong = row.truth is not None and row.truth.first_error_step is not None
    return row if row.correct and row.finished and not wrong else None


def file_hash(path: Path) -> tuple[str, int]:
    """sha256 of a file and its number of lines, read in pieces. Raises DatasetError."""
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
                lines += piece.count(b"\n")
                last = piece
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read ({error.strerror})") from error
    return digest.hexdigest(), lines + (not last.endswith(b"\n"))
