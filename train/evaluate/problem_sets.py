"""What an evaluation measures on: problems to sample solutions of, or a file of solutions to score.

``demo`` are held-out problems of the bundled generator, the same ones for every checkpoint; ``gsm8k`` its test split,
from the hub or a folder; anything else is a file in one of the formats of ``irl_core.data.formats``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from irl_core.data.fields import RowError
from irl_core.data.formats import Format, detect_format, read, read_counted
from irl_core.data.gsm8k import gsm8k
from irl_core.data.intake import Intake
from irl_core.data.sources import HUB, Columns, open_source
from irl_core.data.word_problems.check import first_error
from irl_core.data.word_problems.generate import problems
from irl_core.data.word_problems.quantities import WordProblem
from irl_core.errors import ConfigError
from irl_core.storage.provenance import data_hash, source_hash
from irl_core.text.segmentation import make_trace
from irl_core.text.think_answer import as_think_answer
from irl_core.types import Source, Trace, Truth
from train.data import expert_trace

Holds = Literal["auto", "problems", "solutions"]  # what a file of data holds

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
        """The problem's text."""
        return self.expert.problem

    def truth(self, text: str) -> Truth | None:
        """The first error of a solution by the generator's checker; None where that is not known."""
        return None if self.generated is None else first_error(self.generated, text)

    @property
    def extra(self) -> dict[str, str]:
        """The ``extra`` of a trace of this problem."""
        family = {} if self.generated is None else {"family": self.generated.family}
        return {**family, "reference_solution": self.expert.text}


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """The data of an evaluation. ``questions`` and ``calibration`` share no problem; rules are chosen on the latter
    alone.

    ``solutions``: the file whose solutions are scored, None where solutions are sampled; ``lines``: its length.
    ``experts``: honest solutions that are perturbed and probed. ``sha256``: of the problems, or of the file.
    ``columns``: those of the file that stand for a format's fields. ``left_out``: a line for each row that cannot be
    used. ``intake``: what became of the rows of a file of solutions.
    """

    name: str
    sha256: str
    questions: Sequence[Question] = ()
    calibration: Sequence[Question] = ()
    experts: Sequence[Trace] = ()
    solutions: Path | None = None
    format: Format = "auto"
    lines: int = 0
    left_out: Sequence[str] = field(default=())
    columns: Columns = field(default_factory=dict)
    intake: Intake | None = None


def open_problem_set(
    data: str,
    count: int | None = None,
    *,
    holds: Holds = "auto",
    layout: str = "as_written",
    columns: Columns | None = None,
) -> ProblemSet:
    """The problem set that ``--data`` names.

    Args:
        data: ``demo``, ``gsm8k``, a folder with GSM8K's files, or a file, folder or data set of the hub with traces.
        count: at most so many problems (None: 160 of the demo, else all).
        holds: what a file is; auto takes GSM8K's layout and the generator's as problems, everything else as solutions.
        layout: how expert solutions are written.
        columns: the columns in which a format's fields stand under other names.

    Raises:
        ConfigError: too few problems, or an option that does not fit what is asked.
        DatasetError: the data is not there, or not readable.
    """
    path = Path(data)
    if data in ("demo", "gsm8k") or (path / "test.jsonl").is_file():
        if holds == "solutions":
            raise ConfigError(f"--holds solutions: {data} holds problems; leave it out")
        if data == "demo":
            return generated_problems(DEFAULT_PROBLEMS if count is None else count)
        rows = gsm8k("test", None if data == "gsm8k" else path)
        return given_problems("gsm8k" if data == "gsm8k" else f"{path.name}/test.jsonl", rows, count, layout)
    form = detect_format(path, columns)
    name = data.removeprefix(HUB).rpartition("/")[2] if data.startswith(HUB) else path.name
    if holds == "problems" or (holds == "auto" and form in PROBLEM_FORMATS):
        return given_problems(name, read(path, form, columns), count, layout)
    if count is not None:
        raise ConfigError(
            f"--problems {count}: {name} holds solutions, which are all scored; leave it out, or sample "
            "solutions of its problems with --holds problems"
        )
    digest, lines = source_hash(open_source(path))
    intake, rows = read_counted(path, form, columns)
    experts = honest_solutions(rows)
    return ProblemSet(
        name, digest, solutions=path, format=form, lines=lines, experts=experts, columns=columns or {}, intake=intake
    )


def generated_problems(count: int, families: Sequence[str] = ()) -> ProblemSet:
    """Held-out problems of the bundled generator, of these families (none: of all)."""
    if count < 2:
        raise ConfigError(f"--problems is {count}; an interval over problems needs two at least")
    questions = [Question(expert_trace(one), one) for one in problems(DEMO_SEED, count, "held_out", families)]
    others = problems(DEMO_SEED, min(count, MAX_CALIBRATION), "calibration", families)
    calibration = [Question(expert_trace(one), one) for one in others]
    experts = [question.expert for question in questions]
    return ProblemSet("demo", data_hash(experts), questions, calibration, experts[:MAX_EXPERTS])


def given_problems(name: str, rows: Iterator[Trace | RowError], count: int | None, layout: str) -> ProblemSet:
    """Problems of a file, each once: the first ``count`` are measured on, the next ones calibrated on; without a count
    every tenth calibrates."""
    by_text: dict[str, Question] = {}
    left_out: list[str] = []
    for row in rows:
        if isinstance(row, RowError):
            left_out.append(str(row))
            continue
        try:
            question = Question(expert_of(row, layout))
        except ValueError as error:
            left_out.append(f"{row.problem[:60]!r}: {error}")
        else:
            by_text.setdefault(row.problem, question)
    known = list(by_text.values())
    if count is not None:
        questions, calibration = known[:count], known[count : count + min(count, MAX_CALIBRATION)]
    else:
        numbers = range(0, len(known), CALIBRATION_SHARE)[:MAX_CALIBRATION] if len(known) > CALIBRATION_SHARE else ()
        calibration = [known[number] for number in numbers]
        questions = [question for number, question in enumerate(known) if number not in numbers]
    if len(questions) < 2:
        raise ConfigError(
            f"{len(questions)} problems of {name} to evaluate on ({len(known)} are readable and have an answer); an "
            "interval over problems needs two at least"
        )
    experts = [question.expert for question in questions]
    return ProblemSet(name, data_hash(experts), questions, calibration, experts[:MAX_EXPERTS], left_out=left_out)


def expert_of(row: Trace, layout: str) -> Trace:
    """A row as an honest solution. Raises ValueError where its own fields say otherwise, or it fits no such layout."""
    if row.reference_answer is None:
        raise ValueError("has no right answer; a field answer is expected")
    if row.correct is False:
        raise ValueError("its solution is wrong, and one to perturb must be right")
    expert = replace(row, source=Source.EXPERT, truth=None, trace_id=f"{row.problem_id}/expert")
    return as_think_answer(expert) if layout == "think_answer" else expert


def honest_solutions(rows: Iterator[Trace | RowError]) -> list[Trace]:
    """An honest solution of each problem of a file of solutions: the reference one where the file has it, else its
    first correct one that is not known to go wrong; at most ``MAX_EXPERTS``. Every row is read, to be counted."""
    honest: dict[str, Trace] = {}
    for row in rows:
        if isinstance(row, RowError) or row.problem_id in honest or len(honest) == MAX_EXPERTS:
            continue
        reference = row.extra.get("reference_solution", "")
        wrong = row.truth is not None and row.truth.first_error_step is not None
        if reference.strip():
            honest[row.problem_id] = make_trace(
                row.problem, reference, reference_answer=row.reference_answer, source=Source.EXPERT,
                trace_id=f"{row.problem_id}/expert", problem_id=row.problem_id,
            )  # fmt: skip
        elif row.correct and row.finished and not wrong:
            honest[row.problem_id] = row
    return list(honest.values())
