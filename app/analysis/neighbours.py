"""Which score a page's sentence is about, and what it and the pages beside it find of that, with a way there.

Three pages ask three questions of one score, and their answers need not agree. Here they stand in one sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import streamlit as st

from app.components.markdown import plain
from irl_core.statistics.wording import listed, true_minus

if TYPE_CHECKING:
    import pandas as pd

    from app.analysis.panel import Shown

VIEWS: Final = Path(__file__).resolve().parents[1] / "views"
QUESTIONS: Final = {
    "distributions": "Distributions: do correct solutions score higher?",
    "correlations": "Correlations: what does the reward move with?",
    "reranking": "Reranking: what does choosing by the reward gain?",
}
WHY: Final = (
    "They need not agree: over all solutions it counts which problems are easy, within a problem it does not; r counts "
    "by how much a score is higher, a pair and a choice only which is; and where n is small each may be chance."
)


@dataclass(frozen=True, slots=True)
class Answers:
    """What each page finds of one score, without intervals; NaN where it is undefined.

    Attributes:
        solutions: with the score, of which it is known whether they are right.
        pooled: r with correctness over all of them. within: the same less each problem's mean.
        pairs: of a correct and an incorrect solution of one problem. ranked: the share of them ranked right.
        problems: that are chosen among. best: the share of right ones with the highest score. chance: of any.
    """

    solutions: int
    pooled: float
    within: float
    pairs: int
    ranked: float
    problems: int
    best: float
    chance: float

    @property
    def words(self) -> dict[str, str]:
        """The answer of each page that has one."""
        told = {}
        if not math.isnan(self.ranked):
            told["distributions"] = (
                f"in {100 * self.ranked:.0f} % of the {self.pairs:,} pairs of one problem the right solution is higher "
                "(Distributions)"
            )
        if not math.isnan(self.pooled):
            inside = "" if math.isnan(self.within) else f", {self.within:.2f} within a problem"
            told["correlations"] = true_minus(
                f"r with correctness is {self.pooled:.2f} over all {self.solutions:,} solutions{inside} (Correlations)"
            )
        if not math.isnan(self.best):
            told["reranking"] = (
                f"the highest is right in {100 * self.best:.0f} % of {self.problems:,} problems, one drawn at random "
                f"in {100 * self.chance:.0f} % (Reranking)"
            )
        return told

    @property
    def disagree(self) -> bool:
        """Whether some of them speak for the score and some do not."""
        leanings = (self.pooled, self.within, self.ranked - 0.5, self.best - self.chance)
        return len({lean > 0 for lean in leanings if not math.isnan(lean)}) > 1


def answers(frame: pd.DataFrame, score: str) -> Answers:
    """What the three pages find of a score of these solutions."""
    import numpy as np

    from irl_core.evaluation.correlation import column_of
    from irl_core.evaluation.scores import graded
    from irl_core.evaluation.scores import score as values_of
    from irl_core.statistics.best_of_n import best_of, pass_values
    from irl_core.statistics.bootstrap import problem_index
    from irl_core.statistics.correlation import centred
    from irl_core.statistics.separation import pair_columns

    def r(one: np.typing.NDArray[np.float64], other: np.typing.NDArray[np.float64]) -> float:
        return float(np.corrcoef(one, other)[0, 1]) if len(one) > 1 and np.ptp(one) > 0 < np.ptp(other) else math.nan

    both = [column_of(frame, name) for name in (score, "correct")]
    known = np.isfinite(both[0]) & np.isfinite(both[1])
    ids = problem_index(list(frame["problem_id"]))[1][known]
    x, y = (column[known] for column in both)
    one = graded(frame)
    values = values_of(one.frame, score)
    kept = np.isfinite(values)
    right, pairs = pair_columns(values[kept], one.right[kept], one.ids[kept]).sum(axis=0) if kept.any() else (0.0, 0.0)
    several = kept.any() and max(one.samples, default=0) > 1
    return Answers(
        solutions=len(x),
        pooled=r(x, y),
        within=r(centred(x, ids), centred(y, ids)) if len(x) else math.nan,
        pairs=int(pairs),
        ranked=float(right / pairs) if pairs else math.nan,
        problems=one.problems,
        best=float(best_of(values, one.right, one.ids).mean()) if several else math.nan,
        chance=float(pass_values(one.right, one.ids, 1).mean()) if several else math.nan,
    )  # fmt: skip


def show(page: str, runs: Sequence[Shown], score: str, title: str, chosen: str) -> None:
    """Say which score the page is about, how it was ``chosen``, and what each page finds of it; lead to the others.

    Args:
        page: the one that is shown.
        runs: whose solutions are looked at.
        score: its column. title: what it is called.
        chosen: how it was chosen, in words.
    """
    st.caption(plain(f"The score is here: {title}; {chosen}."))
    for run in runs:
        found = answers(run.sample.frame, score)
        if told := list(found.words.values()):
            whose = f"{run.listed}, that" if len(runs) > 1 else "That"
            why = f" {WHY}" if found.disagree else ""
            st.caption(plain(f"{whose} score on each page: {listed(told)}.{why}"))
    with st.container(horizontal=True):
        for name, question in QUESTIONS.items():
            if name != page and st.button(question, type="tertiary", key=f"to_{name}", icon=":material/arrow_forward:"):
                st.switch_page(VIEWS / f"{name}.py")
