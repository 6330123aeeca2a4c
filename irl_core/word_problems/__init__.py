"""Word problems of our own, with a checker that knows the first wrong step of any solution."""

from irl_core.word_problems.check import MistakeKind, first_error
from irl_core.word_problems.drills import drills
from irl_core.word_problems.generate import SPLITS, Split, problem, problems, split_of
from irl_core.word_problems.quantities import Quantity, WordProblem

__all__ = [
    "SPLITS",
    "MistakeKind",
    "Quantity",
    "Split",
    "WordProblem",
    "drills",
    "first_error",
    "problem",
    "problems",
    "split_of",
]
