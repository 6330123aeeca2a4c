"""The contents of the Failures page: the rows of a scored run, filtered; other samples of a problem; annotations.

Knows no streamlit and runs no model.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from app.analysis import catalogue, expression
from app.analysis.catalogue import ITEM, ROW, RULED_BY, VERDICT, VERDICT_STEP, RunInfo
from app.analysis.columns import SORTS
from irl_core.home import runs_folder
from irl_core.reward.verdict import FAMILIARITY, cell_of
from irl_core.reward.wording import step_name
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_batches
from irl_core.text.step_numbers import count_steps
from irl_core.types import Step

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

DATABASE: Final = runs_folder() / "annotations.sqlite"
PAGE_ROWS: Final = 50
OUTCOME_WORDS: Final = {"not judged": "not known"}  # as links have them, and as they are read
OUTCOMES: Final = ("incorrect", "correct", "not judged", "all")
# What a blind annotator may see of a trace before the answer: nothing that the model or a label says of its steps.
NEUTRAL: Final = ("problem", "text", "answer", "correct", "n_steps", "length")
TELLING: Final = (
    "kind", "true_first_error_step", VERDICT, "cannot_judge", "familiar", "familiarity", "confidence",
    "score_mean_discounted",
)  # fmt: skip
SCORE: Final = "score_mean_discounted"
SEPARATORS: Final = "/-_:. "
LONG_BEGINNING: Final = 8
MADE_ID: Final = re.compile(r"[0-9a-f]{16}(-(F\d+)?L\d+)?")  # as `irl_core.data.formats` gives it to rows without one


@dataclass(frozen=True, slots=True)
class Query:
    """Filters and order of the rows. Empty tuples, None and empty texts filter nothing.

    ``true_steps`` and ``verdict_steps`` are 0-based, -1 = known to have none, or none named. ``where`` is an expression
    as `app.analysis.expression` reads it.
    """

    outcome: str = "incorrect"
    kinds: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    true_steps: tuple[int, ...] = ()
    verdict_steps: tuple[int, ...] = ()
    scores: tuple[float, float] | None = None
    words: str = ""
    sort: str = ROW
    descending: bool = False
    where: str = ""

    @property
    def telling(self) -> bool:
        """Whether the choice of rows says something about the verdict or the label. That the most uncertain come first
        says how sure the model is, not of what."""
        chosen = (self.kinds, self.verdicts, self.true_steps, self.verdict_steps, self.scores)
        if self.where.strip() and expression.read(self.where).telling:
            return True
        uncertain_first = self.sort == "confidence" and not self.descending
        return any(chosen) or not (uncertain_first or self.sort in (ROW, "length", "n_steps", "problem_id"))


@dataclass(frozen=True, slots=True)
class Listing:
    """The texts of a run that a query asks for, in its order, and the one that is looked at.

    Attributes:
        table: the index of the run.
        numbers: the numbers of the rows in it, the first row of each text.
        place: where the row that is looked at stands in ``numbers``.
    """

    info: RunInfo
    table: pa.Table
    numbers: Sequence[int]
    place: int

    @classmethod
    def at_trace(
        cls, info: RunInfo, table: pa.Table, numbers: Sequence[int], trace_id: str | None, number: int | None = None
    ) -> Listing:
        """The listing at the trace of that id, wherever a sort has put it; at the first row where it is not there.

        ``number``: of its row, for a file may hold several traces of one id.
        """
        import pyarrow.compute as pc

        ids = table.column("trace_id")
        if trace_id is None:
            number = None
        elif number is None or number not in numbers or ids[number].as_py() != trace_id:
            number = pc.index(ids, trace_id).as_py()
            if number >= 0 and number not in numbers:  # it may be listed as another trace of the same text
                items = table.column(ITEM).to_pylist()
                number = next((one for one in numbers if items[one] == items[number]), number)
        return cls(info, table, numbers, numbers.index(number) if number in numbers else 0)

    def trace_id(self, place: int) -> str:
        """The id of the trace at a place of the list."""
        return str(self.table.column("trace_id")[self.numbers[place]].as_py())

    def item(self, place: int) -> str:
        """What the text at a place of the list has in common with equal ones."""
        return str(self.table.column(ITEM)[self.numbers[place]].as_py())

    def next_open(self, judged: Collection[str]) -> int | None:
        """The place of the next text that is not among the judged items, from the one that is looked at on and round
        to it again; None where all are."""
        size = len(self.numbers)
        places = ((self.place + step) % size for step in range(1, size + 1))
        return next((place for place in places if self.item(place) not in judged), None)


@dataclass(frozen=True, slots=True)
class Choices:
    """The values that can be filtered by in a run, and the range of its scores (None where no trace has one)."""

    kinds: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()
    true_steps: tuple[int, ...] = ()
    verdict_steps: tuple[int, ...] = ()
    scores: tuple[float, float] | None = None
    sorts: tuple[str, ...] = field(default_factory=lambda: tuple(SORTS))


def choices(table: pa.Table) -> Choices:
    """The values that occur in the index of a run."""
    import pyarrow.compute as pc

    def distinct(name: str) -> list[Any]:
        return sorted(value for value in pc.unique(table.column(name)).to_pylist() if value is not None)

    ends = pc.min_max(table.column(SCORE)).as_py()
    known = None if ends["min"] is None else (float(ends["min"]), float(ends["max"]))
    return Choices(
        tuple(distinct("kind")),
        tuple(distinct(VERDICT)),
        tuple(distinct("true_first_error_step")),
        tuple(distinct(VERDICT_STEP)),
        known,
    )


def numbers(info: RunInfo, table: pa.Table, query: Query, *, in_ids: bool = False) -> list[int]:
    """The numbers of the rows that a query asks for, in its order. Reads texts only where words are looked for.

    Args:
        info: the run.
        table: its index.
        query: what is asked for.
        in_ids: whether its words are looked for in the ids too, which a blind annotator is not to see.

    Raises:
        StoreError: the run cannot be read.
        ExpressionError: ``where`` is no expression, or compares what cannot be compared.
    """
    import pyarrow as pa

    among = rows_with_words(info, query.words, in_ids=in_ids) if query.words.strip() else None
    try:
        return catalogue.numbers(table, filter_of(query), query.sort, query.descending, among)
    except pa.ArrowException as error:
        if not query.where.strip():
            raise
        raise expression.ExpressionError("The expression compares a number with a text, or the like.") from error


def one_a_text(table: pa.Table, chosen: Iterable[int]) -> tuple[list[int], Counter[str]]:
    """The first of the chosen rows of each text, in their order, and how many there are of each item."""
    items = table.column(ITEM).to_pylist()
    copies: Counter[str] = Counter()
    first = []
    for number in chosen:
        if not copies[items[number]]:
            first.append(number)
        copies[items[number]] += 1
    return first, copies


def of_items(table: pa.Table, chosen: Iterable[int], wanted: Collection[str]) -> list[int]:
    """The chosen rows whose text is among the wanted items."""
    items = table.column(ITEM).to_pylist()
    return [number for number in chosen if items[number] in wanted]


def filter_of(query: Query) -> Any:
    """The ``pyarrow.dataset`` expression of a query's filters; None where it has none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tests: list[Any] = []
    if query.outcome == "not judged":
        tests.append(pc.field("correct").is_null())
    elif query.outcome != "all":
        tests.append(pc.field("correct") == (query.outcome == "correct"))
    for name, wanted, kind in (
        ("kind", query.kinds, pa.string()),
        (VERDICT, query.verdicts, pa.string()),
        ("true_first_error_step", query.true_steps, pa.int32()),
        (VERDICT_STEP, query.verdict_steps, pa.int32()),
    ):
        if wanted:
            tests.append(pc.field(name).isin(pa.array(wanted, kind)))
    if query.scores is not None:
        low, high = query.scores
        tests.append((pc.field(SCORE) >= low) & (pc.field(SCORE) <= high))
    if query.where.strip():
        tests.append(expression.read(query.where).filter)
    return reduce(operator.and_, tests) if tests else None


def rows_with_words(info: RunInfo, words: str, *, in_ids: bool) -> list[int]:
    """The numbers of the rows whose problem or text, or with ``in_ids`` trace id, holds the words, in upper or lower
    case."""
    import pyarrow.compute as pc

    numbers: list[int] = []
    start = 0
    for table in read_batches(info.path, ["problem", "text", *["trace_id"] * in_ids]):
        hits = [
            pc.match_substring(column, words.strip(), ignore_case=True).fill_null(False).to_pylist()
            for column in table.columns
        ]
        numbers += [start + place for place, hit in enumerate(zip(*hits, strict=True)) if any(hit)]
        start += table.num_rows
    return numbers


def table_rows(info: RunInfo, chosen: Sequence[int], *, telling: bool) -> pd.DataFrame:
    """The rows of the table; without ``telling`` only what a blind annotator may see."""
    import pandas as pd

    stored = [*(name for name in TELLING if name != VERDICT), *RULED_BY] if telling else []
    names = list(dict.fromkeys(["trace_id", *NEUTRAL, *stored, "steps"]))
    found = catalogue.numbered_rows(info, chosen, names)
    for row in found:
        steps = steps_of(row)
        row["n_steps"] = count_steps(step.role for step in steps)
        if not telling:
            continue
        ruled = catalogue.ruling(row)
        row[VERDICT] = cell_of(ruled, row["correct"], steps if (ruled.step or 0) < len(steps) else ())
        row["familiar"] = FAMILIARITY[row["familiar"]]
        row["confidence"] = None if row["cannot_judge"] else row["confidence"]
        row["true_first_error_step"] = first_error_words(row)
    return pd.DataFrame(found, columns=["trace_id", *NEUTRAL, *(TELLING if telling else ())])


def steps_of(row: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps of a row."""
    return tuple(Step(one["start"], one["end"], one["text"], one.get("role") or "reasoning") for one in row["steps"])


def step_called(row: Mapping[str, Any], step: int) -> str:
    """What a step of a row is called, as on Inspect: by the text's own number where it has one. By its place where the
    row has no such step: other versions may have cut the text otherwise."""
    steps = steps_of(row)
    return step_name(steps, step, of=False) if step < len(steps) else step_words(step)


def step_heading(row: Mapping[str, Any], step: int) -> str:
    """What a step of a row is called where it is a button or a heading: 'Step 3', 'Answer line'."""
    return step_called(row, step).removeprefix("the ").capitalize()


def first_error_words(row: Mapping[str, Any]) -> str:
    """The first wrong step by the run's label: what it is called, 'none' or empty as in `step_words`."""
    known = row["true_first_error_step"]
    return step_words(known) if known is None or known < 0 else step_called(row, known)


def step_words(step: Any) -> str:
    """A stored step of any solution in words: its place from 1, 'none' for known to have none, empty for not known."""
    if step is None or step != step:
        return ""
    return "none" if step < 0 else f"step {int(step) + 1}"


def name_of(trace_id: str, number: int, *, telling: bool) -> str:
    """What a trace is called: by its id; by its row, ``number`` counted from 0, where that is a hash of its text, and
    without ``telling``: an id such as 'slip/wrong' would answer what a blind annotator is asked."""
    return trace_id if telling and not MADE_ID.fullmatch(trace_id) else row_name(number)


def row_name(number: int) -> str:
    """What the row of that number, counted from 0, of a run's file is called."""
    return f"row {number + 1:,}"


def short_names(names: Sequence[str]) -> tuple[list[str], str]:
    """Names without the beginning that all of them share, an ellipsis for it, and that beginning; as they are, and an
    empty one, where it is short: in a narrow column names that begin alike would look alike."""
    first, last = min(names), max(names)
    apart = next((n for n, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    cut = max(first.rfind(sign, 0, apart) for sign in SEPARATORS) + 1
    if len(names) < 2 or cut < LONG_BEGINNING:
        return list(names), ""
    return [f"\u2026{name[cut:]}" for name in names], first[:cut]


def label_words(row: ScoredRow) -> str:
    """The run's label of a trace, in words; empty where it has none."""
    known = first_error_words(row)
    kind = f" ({row['kind']})" if row["kind"] else ""
    return f"{known}{kind}" if known else ""


@dataclass(frozen=True, slots=True)
class Sample:
    """Another sample of a problem; ``number``: of its row; ``score``: its mean discounted reward, None where it has
    none."""

    trace_id: str
    number: int
    text: str
    score: float | None


def best_correct(info: RunInfo, table: pa.Table, problem_id: str, but: str) -> Sample | None:
    """The correct sample of a problem with the highest score, other than the trace ``but``; None without one."""
    import pyarrow.compute as pc

    wanted = (pc.field("problem_id") == problem_id) & pc.field("correct") & (pc.field("trace_id") != but)
    best = catalogue.numbers(table, wanted, SCORE, descending=True)[:1]
    if not best:
        return None
    trace_id, text, score = catalogue.rows(info, best, ["trace_id", "text", SCORE]).iloc[0]
    return Sample(trace_id, best[0], text, None if score is None or score != score else float(score))
