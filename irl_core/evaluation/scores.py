"""The scores that are compared in every table, and the traces whose correctness is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.statistics.bootstrap import problem_index
from irl_core.text.answers import normalise_answer
from irl_core.types import Source

Array = npt.NDArray[np.float64]

REWARD_SCORES = {
    "score_mean_discounted": "mean discounted reward, response",
    "score_mean_discounted_answer": "mean discounted reward, answer",
    "score_mean": "mean reward",
    "score_min": "lowest reward",
    "score_last": "last reward",
    "score_product": "product over the tokens",
    "score_credit_sum": "sum of credit",
    "score_credit_minimum": "lowest credit",
}
WITHOUT_REWARD = {
    "log_prob_mean": "log-probability, mean",
    "log_prob_sum": "log-probability, sum",
    "log_prob_min": "log-probability, lowest",
    "shortness": "shortness",
}
TITLES = REWARD_SCORES | WITHOUT_REWARD


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The traces behind a section: problems, the fewest and the most samples of one (empty without a trace), traces
    with a known right answer, correct ones, and how many were left out because their right answer is not known."""

    problems: int
    samples: list[int]
    traces: int
    correct: int
    left_out: int


def extent(counts: Counts) -> str:
    """'160 problems with 16 samples each', and what was left out."""
    samples = counts.samples
    if not samples:
        return f"no solution with a known right answer ({counts.left_out} without one)"
    each = str(samples[0]) if samples[0] == samples[1] else f"{samples[0]} to {samples[1]}"
    plural = "sample" if each == "1" else "samples"
    left = f" ({counts.left_out} solutions without a known right answer are left out)" if counts.left_out else ""
    noun = "problem" if counts.problems == 1 else "problems"
    return f"{counts.problems} {noun} with {each} {plural} each{left}"


class Graded(NamedTuple):
    """The M traces that are known to be correct or incorrect.

    Attributes:
        frame: a row for each of them.
        right: (M,), whether it is correct.
        ids: (M,), the number of its problem.
        left_out: number of traces whose correctness is not known.
    """

    frame: pd.DataFrame
    right: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]
    left_out: int

    @property
    def problems(self) -> int:
        return int(self.ids.max(initial=-1)) + 1

    @property
    def samples(self) -> list[int]:
        """The fewest and the most samples of a problem; empty without a trace."""
        sizes = np.bincount(self.ids)
        return [int(sizes.min()), int(sizes.max())] if sizes.size else []

    def counts(self) -> Counts:
        """The counts that every section gives of its traces."""
        return Counts(
            problems=self.problems, samples=self.samples, traces=len(self.frame), correct=int(self.right.sum()),
            left_out=self.left_out,
        )  # fmt: skip


def graded(frame: pd.DataFrame) -> Graded:
    """The traces of a frame whose correctness is known. A policy's sample without a final answer is wrong where the
    right one is known; of a solution from elsewhere it may be that its answer was not found."""
    silent = frame["correct"].isna() & frame["answer"].isna() & frame["reference_answer"].notna()
    silent &= frame["source"] == Source.POLICY.value
    known = (frame["correct"].notna() | silent).to_numpy(dtype=bool)
    kept = frame.assign(correct=frame["correct"].astype(object).mask(silent, False))[known].reset_index(drop=True)
    right, ids = kept["correct"].to_numpy(dtype=bool), problem_index(list(kept["problem_id"]))[1]
    return Graded(kept, right, ids, int((~known).sum()))


def score(frame: pd.DataFrame, name: str) -> Array:
    """A score of ``TITLES`` (M,), higher = better; NaN where a trace has none."""
    if name == "log_prob_sum":
        return score(frame, "log_prob_mean") * score(frame, "length")
    if name == "shortness":
        return -score(frame, "length")
    values: Array = frame[name].to_numpy(dtype=np.float64)
    return values


def answers(frame: pd.DataFrame) -> list[str | None]:
    """The final answers in normalised spelling, by which votes are counted; None where there is none."""
    spelt = {answer: normalise_answer(answer) or None for answer in frame["answer"].dropna().unique()}
    return [spelt.get(answer) for answer in frame["answer"]]


def spread(values: Array) -> float:
    """One standard deviation of a score, the temperature of a vote for which none was chosen; 1 where there is none."""
    deviation = float(np.nanstd(values)) if np.isfinite(values).any() else 0.0
    return deviation if deviation > 0 else 1.0
