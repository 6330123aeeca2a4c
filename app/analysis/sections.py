"""Rows and figures of scored runs for the pages on distributions, correlations and reranking.

The figures are those of ``irl_core.evaluation``, the same that the report holds. Knows no streamlit.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from irl_core.errors import StoreError
from irl_core.statistics.wording import true_minus
from irl_core.storage.scored_run import read_provenance, read_run

if TYPE_CHECKING:
    import pandas as pd

    from irl_core.evaluation.section import Section

MOST_TRACES: Final = 20_000
MOST_PROBLEMS: Final = 5_000  # the bootstrap draws problems: 20,000 of them take half a minute
MOST_SHOWN: Final = 40
SEED: Final = 0
COLUMNS: Final = (
    "trace_id", "problem_id", "source", "model", "text", "answer", "reference_answer", "correct", "length", "finished",
    "cannot_judge", "familiar",
    "score_min", "score_mean", "score_mean_discounted", "score_mean_discounted_answer", "score_last",
    "score_product", "score_credit_sum", "score_credit_minimum", "log_prob_mean", "log_prob_min", "arithmetic_false",
    "xml_count", "strict_format", "soft_format", "integer_answer",
)  # fmt: skip
SETTINGS: Final = (
    "Intervals are 95 %, by a bootstrap over problems (2,000 resamples, seed 0), for samples of one problem are not "
    "independent. Discounted scores are of standardised rewards, with a discount of 0.9."
)
INTERVALS: Final = (
    "Brackets hold a 95 % interval: of a hundred such, each from other problems of the same kind, about 95 hold the "
    "true figure. n is the number of solutions, pairs of solutions or problems behind a figure."
)
WORDS: Final = {
    "separation": "how far right and wrong are apart", "correlation": "correlations",
    "reranking": "what choosing gains", "pass_at_k": "what k samples solve",
}  # fmt: skip
LARGE: Final = 500  # solutions; of fewer it takes as long as one does, which tells nothing of a large run
# seconds a solution that each section took last in this process; at first as on one core with 2,560 solutions
took: Final = {"separation": 5e-4, "correlation": 3e-4, "reranking": 13e-4, "pass_at_k": 7e-4}
TIES_OF_PAIRS: Final = "Ties: a pair of equal scores counts half in an AUC and in a share of pairs."
TIES_OF_RANKS: Final = "Ties: equal values share the mean of their ranks."


@dataclass(frozen=True, slots=True)
class Sample:
    """The part of a run that is shown: ``frame`` has one row a trace with the columns ``COLUMNS``; ``traces`` and
    ``problems`` count the whole file, of which whole problems were drawn where it has more than ``MOST_TRACES`` traces
    or ``MOST_PROBLEMS`` problems."""

    frame: pd.DataFrame
    traces: int
    problems: int
    provenance: Mapping[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every trace of the file is in it."""
        return len(self.frame) == self.traces

    def words(self) -> str:
        """The number of traces behind the figures, how they were drawn, and how many of them the model can judge."""
        from irl_core.evaluation.report import judged as judged_of

        judged = judged_of(self.frame).words
        if self.whole:
            return f"all {self.traces:,} solutions of {self.problems:,} problems; {judged}"
        kept = self.frame["problem_id"].nunique()
        return (
            f"{len(self.frame):,} of {self.traces:,} solutions: {kept:,} of {self.problems:,} problems, drawn at "
            f"random (seed {SEED}) with all their solutions; the limits of these pages are {MOST_TRACES:,} solutions "
            f"and {MOST_PROBLEMS:,} problems; {judged}"
        )


def lone_words(frame: pd.DataFrame) -> str:
    """How many problems have one solution alone, where others have more; empty where all of them are alike."""
    from irl_core.evaluation.scores import graded

    counts = Counter(graded(frame).ids.tolist()).values()
    lone, most = sum(count == 1 for count in counts), max(counts, default=0)
    if not lone or most < 2:
        return ""
    more = len(counts) - lone
    return (
        f"{lone:,} of {len(counts):,} problems {'has' if lone == 1 else 'have'} one solution, which leaves nothing to "
        f"choose; {more:,} {'has' if more == 1 else 'have'} more, up to {most:,}. What is chosen among all solutions "
        f"of a problem is marked at {most:,}; no line leads there, since not every problem has so many."
    )


def sample(path: Path) -> Sample:
    """The rows that the pages show of the scored run ``path``.

    Raises:
        StoreError: it is no scored run, or no problem of it has few enough traces.
    """
    known = read_provenance(path)
    ids = read_run(path, ["problem_id"]).column("problem_id")
    problems = len(ids.unique())
    large = len(ids) > MOST_TRACES or problems > MOST_PROBLEMS
    frame = read_run(path, COLUMNS, among(drawn_problems(ids.to_pylist(), path.name)) if large else None).to_pandas()
    return Sample(frame, len(ids), problems, known)


def drawn_problems(ids: Sequence[str | None], name: str) -> list[str | None]:
    """The first problems of a random order that fit into the limits with all their traces."""
    import numpy as np

    sizes = Counter(ids)
    problems = list(sizes)
    order = np.random.default_rng(SEED).permutation(len(problems))
    fit = int((np.array(list(sizes.values()))[order].cumsum() <= MOST_TRACES).sum())
    if not fit:
        raise StoreError(
            f"{name}: a problem has more than {MOST_TRACES:,} solutions, the limit of these pages; evaluate it with "
            "irl-lens evaluate"
        )
    return [problems[place] for place in order[: min(fit, MOST_PROBLEMS)]]


def among(problems: Sequence[str | None]) -> Any:
    """A filter of the rows of these problems."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.field("problem_id").isin(pa.array(problems, pa.string()))


def section(name: str, path: Path, shown: Sample) -> Section[Any]:
    """The section ``separation``, ``correlation``, ``reranking`` or ``pass_at_k`` of the report, over the traces
    ``shown`` of the scored run ``path``.

    How long it takes is noted, for `waiting_words`.

    Raises:
        StoreError: the provenance says something about the scored run that cannot be.
    """
    began = time.perf_counter()
    from irl_core.evaluation.evaluated_run import EvaluatedRun
    from irl_core.evaluation.report import SECTIONS

    empty, problems = shown.frame.iloc[:0], None if shown.whole else among(list(shown.frame["problem_id"].unique()))
    others = {file.stem: read_run(file, COLUMNS, problems).to_pandas() for file in compared_files(path)}
    run = EvaluatedRun(path, shown.frame, empty, empty, others, shown.provenance)
    found: Section[Any] = SECTIONS[name].section(run, seed=SEED)
    if len(shown.frame) >= LARGE:
        took[name] = (time.perf_counter() - began) / len(shown.frame)
    return found


def waiting_words(name: str, run: str, shown: Sample) -> str:
    """What is computed of a scored run, and about how long it takes here: by the last time that it was, else as it took
    when this was written."""
    seconds = took[name] * len(shown.frame)
    about = f"about {seconds:,.0f} s" if seconds >= 2 else "a moment"
    return f"{run}: computing {WORDS[name]} over {len(shown.frame):,} solutions, with intervals; {about} \u2026"


def beside(path: Path) -> tuple[tuple[str, int, int], ...]:
    """The files in the run's folder that its figures are made with too: their names, times and sizes."""
    from irl_core.evaluation.evaluated_run import RUN
    from irl_core.evaluation.located_traces import ANCHOR

    if path.name != RUN:
        return ()
    files = [*path.parent.glob(ANCHOR), *compared_files(path)]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def compared_files(path: Path) -> list[Path]:
    """The files of other policies' traces on the problems of the run in the folder that irl-lens evaluate wrote."""
    from irl_core.evaluation.evaluated_run import COMPARE, RUN

    return sorted((path.parent / COMPARE).glob("*.parquet")) if path.name == RUN else []


def sentences(words: str) -> list[str]:
    """The sentences of a paragraph."""
    return re.split(r"(?<=\.) (?=[A-Z])", words)


# ------------------------------------------------------------------------------------------- traces that are worth it


def surprising(frame: pd.DataFrame, score: str) -> list[tuple[str, str]]:
    """(trace id, why) of the traces that a score judges most wrongly: the highest of the incorrect and the lowest of
    the correct, in turns; at most ``MOST_SHOWN``, the first in the file among equals."""
    import numpy as np

    from irl_core.evaluation.scores import graded
    from irl_core.evaluation.scores import score as values_of

    one = graded(frame)
    values, ids = values_of(one.frame, score), one.frame["trace_id"].tolist()
    sides = []
    for right, sign, words in ((False, -1.0, "incorrect, scored high"), (True, 1.0, "correct, scored low")):
        rows = np.flatnonzero(np.isfinite(values) & (one.right == right))
        best = rows[np.argsort(sign * values[rows], kind="stable")][: MOST_SHOWN // 2]
        sides.append([(ids[row], f"{words} ({true_minus(f'{values[row]:.3g}')})") for row in best])
    longest = max(map(len, sides))
    return [side[place] for place in range(longest) for side in sides if place < len(side)]


def centred(frame: pd.DataFrame, score: str) -> pd.DataFrame:
    """``frame`` with each problem's mean taken off a score, of the problems that have correct and incorrect traces;
    the traces that are not judged, or without the score, are left out."""
    import numpy as np

    from irl_core.evaluation.scores import graded
    from irl_core.evaluation.scores import score as values_of
    from irl_core.statistics.correlation import centred as less

    one = graded(frame)
    values = values_of(one.frame, score)
    known = np.isfinite(values)
    right, ids, values = one.right[known], one.ids[known], values[known]
    correct, total = (np.bincount(ids, weights=part) for part in (right, np.ones(len(ids))))
    mixed = ((correct > 0) & (correct < total))[ids]
    kept: pd.DataFrame = one.frame[known][mixed].copy()
    kept[score] = less(values[mixed], ids[mixed])
    return kept


# --------------------------------------------------------------------------------------------------------------- files


def origin_line(known: Mapping[str, Any], checkpoint: str = "") -> str:
    """Checkpoint, data and seed in one line; 'not said' where the run does not say.

    ``checkpoint``: its name in the sidebar, in the place of that which it calls itself.
    """
    names = {"checkpoint": "checkpoint", "data": "data", "input": "input", "seed": "seed"}
    known = {**known, "checkpoint": checkpoint or known.get("checkpoint")}
    told = {words: str(known[name]) for name, words in names.items() if known.get(name) is not None}
    parts = [f"{words} {text if len(text) <= 200 else text[:200] + ' …'}" for words, text in told.items()]
    return ", ".join(parts) if parts else "checkpoint and data not said"
