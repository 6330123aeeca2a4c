"""What each study could show, in sentences; its report says which of it the figures bear out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from train.studies.definitions import START

POLICIES, REWARDS = "policies", "rewards"


class Claim(NamedTuple):
    """That one arm is better than another: a sentence with the titles of both, ``{ours}`` and ``{theirs}``, for each of
    ``ours``. ``measure``: higher is better. ``among``: the policies, the rewards, or a study's part of the problems."""

    words: str
    ours: tuple[str, ...]
    theirs: str
    measure: str = "pass@1"
    among: str = POLICIES


LEARNED = ("irl", "best_of_n", "preferences", "relativistic", "maxent", "implicit")
BETTER = "the policy of '{ours}' is right more often than that of '{theirs}'"
TAUGHT = "the policy of '{ours}' is right more often than the start"
RANKS = "the reward of '{ours}' ranks the samples of a problem better than that of '{theirs}'"
POINTS = "the reward of '{ours}' names more first wrong steps than that of '{theirs}'"

CLAIMS: Mapping[str, tuple[Claim, ...]] = {
    "policies": (
        Claim(TAUGHT, ("irl", "sft", "grpo"), START),
        Claim(BETTER, ("irl",), "sft"),
        Claim(BETTER, ("irl",), "grpo"),
    ),
    "backbones": (
        *(Claim(RANKS, ("expert",), other, "pairs_lowest", REWARDS) for other in ("sft", "small", "nothing")),
        *(Claim(POINTS, ("expert",), other, "first_step", REWARDS) for other in ("sft", "small", "nothing")),
        Claim(TAUGHT, ("expert", "sft", "small", "nothing"), START),
    ),
    "perturbation": (
        Claim(RANKS, ("paper", "all"), "none", "pairs_lowest", REWARDS),
        Claim(POINTS, ("paper", "all"), "none", "first_step", REWARDS),
        Claim(TAUGHT, ("none", "paper", "all"), START),
    ),
    "wasserstein": (
        Claim(RANKS, ("clipped", "penalty"), "bce", "pairs_lowest", REWARDS),
        Claim(POINTS, ("clipped", "penalty"), "bce", "first_step", REWARDS),
        Claim(TAUGHT, ("bce", "clipped", "penalty"), START),
    ),
    "teach": (
        Claim(TAUGHT, (*LEARNED, "process_reward"), START),
        Claim(f"{TAUGHT}, in families without any demonstration", LEARNED, START, "pass@1", "families without any"),
        Claim(BETTER, LEARNED, "likelihood"),
        Claim(BETTER, ("irl",), "start_reward"),
        Claim(BETTER, ("best_of_n",), "start_best_of_n"),
        Claim(TAUGHT, ("likelihood", "start_reward", "start_best_of_n"), START),
        Claim(f"{TAUGHT} (the upper bound)", ("grpo", "right_of_n"), START),
        Claim(RANKS, ("irl", "relativistic", "maxent", "implicit"), "start_reward", "pairs_lowest", REWARDS),
        Claim(RANKS, ("best_of_n",), "start_best_of_n", "pairs_lowest", REWARDS),
        Claim(POINTS, ("irl", "relativistic", "maxent", "implicit"), "start_reward", "first_step", REWARDS),
        Claim(POINTS, ("best_of_n",), "start_best_of_n", "first_step", REWARDS),
    ),
}
