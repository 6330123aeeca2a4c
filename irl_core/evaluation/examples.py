"""The traces that are shown token by token: two correct and two wrong ones, chosen by a rule and not by eye.

The paper's figures 5, 6 and 14-17 show such traces; by what rule they were chosen is not said there.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import TITLES, graded, score
from irl_core.statistics.first_error import NO_ERROR

SCORE = "score_mean_discounted"
RULE = (
    f"By the {TITLES[SCORE]}: of the solutions with the right answer and no known wrong step the one at the median and "
    "the lowest, of those with a wrong answer the one at the median and the highest. So each class shows a typical "
    "solution and the one that this score judges worst. Equal scores go by solution id, and no text is shown twice."
)


@dataclass(frozen=True, slots=True)
class Example:
    """A trace to be shown. ``kind``: correct or wrong; ``why``: median, lowest or highest ``score`` of its class."""

    trace_id: str
    problem_id: str
    kind: str = field(metadata={"key": "class"})
    why: str
    score: float


@dataclass(frozen=True, slots=True)
class Examples:
    """At most four traces, by a ``rule`` over a ``score``. ``reason``: why there are fewer than four, else empty."""

    score: str
    rule: str
    traces: list[Example]
    reason: str


def choose(run: EvaluatedRun) -> Examples:
    """Choose the traces of a scored run that are shown, by ``RULE``."""
    one = graded(run.frame)
    frame = one.frame.assign(score=score(one.frame, SCORE), right=one.right)
    frame = frame[np.isfinite(frame["score"])].sort_values(["score", "trace_id"]).drop_duplicates("text")
    sound = frame["true_first_error_step"].isna() | (frame["true_first_error_step"] == NO_ERROR)
    correct = _two(frame[frame["right"] & sound], "correct", "lowest")
    wrong = _two(frame[~frame["right"]], "wrong", "highest")
    lacking = [
        f"{name} solutions with a score: {len(some)}"
        for name, some in (("correct", correct), ("wrong", wrong))
        if len(some) < 2
    ]
    return Examples(SCORE, RULE, [*correct, *wrong], "; ".join(lacking))


def _two(frame: pd.DataFrame, kind: str, extreme: str) -> list[Example]:
    """The median of the traces, sorted by score, and the one at their end; of a single trace that one."""
    if not len(frame):
        return []
    end = 0 if extreme == "lowest" else len(frame) - 1
    middle = (len(frame) - 1) // 2
    if middle == end and len(frame) > 1:  # of two the end is kept as such
        middle = len(frame) - 1 - end
    places = {middle: "median"} | {end: extreme}
    return [
        Example(str(row["trace_id"]), str(row["problem_id"]), kind, why, float(row["score"]))
        for place, why in places.items()
        for row in (frame.iloc[place],)
    ]
