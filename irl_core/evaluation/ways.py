"""Solutions that were written with the reward's help, beside the majority of as many tokens of plain samples.

The future work of arXiv 2510.01857: early rejection, self-revision, guided decoding (``irl_core.strategies``). The
reward's own passes over a text are not counted among the tokens.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from irl_core.evaluation.evaluated_run import DRAFT_CORRECT, TOKENS_WRITTEN, EvaluatedRun
from irl_core.evaluation.scores import Counts, Graded, answers, extent, graded
from irl_core.evaluation.section import Cell, Section, Table, difference_cell
from irl_core.statistics.best_of_n import at_size, vote_curve
from irl_core.statistics.bootstrap import Array, Estimate, mean_over_problems, paired_difference, undefined
from irl_core.statistics.wording import difference

ONE = "one sample"
NOTE = (
    "The majority is that of as many tokens: of the run's own samples, interpolated between numbers of them and paired "
    "by problem. A way that wrote more than all of them stands beside the majority of all."
)


@dataclass(frozen=True, slots=True)
class Way:
    """What came of a way of writing.

    Attributes:
        accuracy: the share of the problems that it answers rightly.
        tokens: all that the policy wrote for a problem, on average.
        samples: as many plain samples have as many tokens.
        minus_majority: its accuracy less that of the majority of so many samples.
        minus_drafts: of revisions, the accuracy less that of their own first drafts; None for other ways.
    """

    accuracy: Estimate
    tokens: float
    samples: float
    minus_majority: Estimate
    minus_drafts: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways(Counts):
    """Every way of an evaluation.

    Attributes:
        one: the share of plain samples that are right.
        tokens: those of one plain sample, on average.
        ways: by name.
    """

    one: Estimate
    tokens: float
    ways: dict[str, Way]


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[Ways]:
    """The ways of an evaluation as a section of the report."""
    estimates = figures(run, seed=seed)
    return Section("The reward while solutions are written", estimates, paragraph(estimates), tables(estimates))


def figures(run: EvaluatedRun, *, seed: int = 0) -> Ways:
    """Accuracy and tokens of every way, beside those of the run's samples. ``seed``: of the bootstrap."""
    plain = graded(run.frame)
    each = float(plain.frame["length"].mean()) if plain.problems else float("nan")
    curve = pd.DataFrame(majorities(plain, seed), index=plain.frame["problem_id"].drop_duplicates())
    return Ways(
        **asdict(plain.counts()),
        one=mean_over_problems(curve[0], seed=seed) if plain.problems else undefined(0, "problems", "no sample"),
        tokens=each,
        ways={name: beside(frame, curve, each, seed) for name, frame in run.ways.items()},
    )


def majorities(plain: Graded, seed: int) -> Array:
    """(P, S): the accuracy of the majority of 1, 2, ... of each problem's samples, as many as every problem has."""
    sizes = range(1, plain.samples[0] + 1) if plain.problems else range(1, 2)
    if not plain.problems:
        return np.zeros((0, 1))
    return vote_curve(answers(plain.frame), plain.right, plain.ids, sizes, seed=seed)


def beside(frame: pd.DataFrame, curve: pd.DataFrame, each: float, seed: int) -> Way:
    """A way beside the majority (P, S) of plain samples of ``each`` tokens, on the problems that both have."""
    known = graded(frame).frame  # as the samples that it stands beside: without an answer it is wrong
    known = known[known["problem_id"].isin(curve.index)]
    if known.empty:
        nothing = undefined(0, "problems", "no problem in common with a known right answer")
        return Way(nothing, float("nan"), float("nan"), nothing, None)
    right, tokens = known["correct"].to_numpy(dtype=float), float(known[TOKENS_WRITTEN].mean())
    majority = at_size(curve.loc[known["problem_id"]].to_numpy(), tokens / each)
    drafts = known[DRAFT_CORRECT]
    return Way(
        mean_over_problems(right, seed=seed),
        tokens,
        tokens / each,
        paired_difference(right, majority, seed=seed),
        paired_difference(right, drafts.to_numpy(dtype=float), seed=seed) if drafts.notna().all() else None,
    )


def paragraph(estimates: Ways) -> str:
    """The answer to: does the reward help while solutions are written?"""
    told = [
        f"On {extent(estimates)}, one sample is right in {estimates.one.words} and has {estimates.tokens:.0f} tokens."
    ]
    for name, way in estimates.ways.items():
        if not way.accuracy.defined:
            told.append(f"{name.capitalize()}: {way.accuracy.reason}.")
            continue
        said = (
            f"{name.capitalize()} is right in {way.accuracy.words} for {way.tokens:.0f} tokens, those of "
            f"{way.samples:.1f} samples; less the majority of as many tokens: "
            f"{difference(way.minus_majority, 'better', 'worse')}"
        )
        if way.minus_drafts is not None:
            said += f"; less its own first drafts: {difference(way.minus_drafts, 'better', 'worse')}"
        told.append(f"{said}.")
    return " ".join(told)


def tables(estimates: Ways) -> tuple[Table, ...]:
    """Accuracy and tokens of every way."""
    head = ("way", "right", "tokens a problem", "less the majority", "less first drafts")
    rows: list[list[Cell]] = [
        [ONE, estimates.one, estimates.tokens, None, None],
        *(
            [name, way.accuracy, way.tokens, difference_cell(way.minus_majority), difference_cell(way.minus_drafts)]
            for name, way in estimates.ways.items()
        ),
    ]
    return (Table("Right answers and tokens", head, rows, NOTE),)
