"""pass@k of the run's policy and of those beside it on the same problems (the paper's table 2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import Judged, judged
from irl_core.evaluation.wording import difference, extent, listed, shown
from irl_core.statistics.best_of_n import pass_at_k, pass_values
from irl_core.statistics.bootstrap import Figure, paired_difference, plain, undefined
from irl_core.types import Source

KS = (1, 3, 5, 10, 16)
THIS = "this run"


def figures(run: EvaluatedRun, *, seed: int = 0) -> dict[str, Any]:
    """``policies``: pass@k by policy and k. ``differences``: this run's pass@k minus that of each other policy, on the
    problems that both were sampled on, the problems resampled together. ``given``: the traces are somebody else's."""
    ours = judged(run.frame)
    others = {name: judged(frame) for name, frame in run.compare.items()}
    policies = {name: _policy(one, seed) for name, one in {THIS: ours, **others}.items()}
    found = {
        **ours.counts(),
        "given": _are_given(run),
        "policies": policies,
        "counts": {name: one.counts() for name, one in {THIS: ours, **others}.items()},
        "differences": {name: _differences(ours, theirs, seed) for name, theirs in others.items()},
    }
    return dict(plain(found))


def _are_given(run: EvaluatedRun) -> bool:
    """Whether the traces are somebody else's solutions: then their pass@k says nothing of the checkpoint's policy."""
    sources = set(run.frame["source"].dropna())
    return bool(sources) and Source.POLICY.value not in sources


def _policy(one: Judged, seed: int) -> dict[str, Figure]:
    return {str(k): _pass(one, k, seed) for k in KS}


def _pass(one: Judged, k: int, seed: int) -> Figure:
    if not one.problems:
        return undefined(0, "problems", "no trace with a known right answer")
    return pass_at_k(one.right, one.ids, k, seed=seed)


def _differences(ours: Judged, theirs: Judged, seed: int) -> dict[str, Figure]:
    return {str(k): _difference(ours, theirs, k, seed) for k in KS}


def _difference(ours: Judged, theirs: Judged, k: int, seed: int) -> Figure:
    mine, others = _shared(ours, theirs), _shared(theirs, ours)
    if not len(mine.right):
        return undefined(0, "problems", "no problem in common")
    try:
        values = [dict(zip(_names(one), pass_values(one.right, one.ids, k), strict=True)) for one in (mine, others)]
    except ValueError as error:
        return undefined(mine.problems, "problems", str(error))
    return paired_difference([values[0][p] for p in values[0]], [values[1][p] for p in values[0]], seed=seed)


def _shared(one: Judged, other: Judged) -> Judged:
    """The traces of one whose problem the other has too."""
    common = one.frame["problem_id"].isin(set(other.frame["problem_id"])).to_numpy(dtype=bool)
    return judged(one.frame[common])


def _names(one: Judged) -> list[str]:
    """Problem ids in the order of their numbers."""
    first = np.unique(one.ids, return_index=True)[1]
    return [str(name) for name in one.frame["problem_id"].iloc[first]]


def paragraph(found: dict[str, Any]) -> str:
    """Does the policy solve more problems than those beside it?"""
    own = found["policies"][THIS]
    solved = [f"pass@{k} is {shown(figure)}" for k, figure in own.items() if figure["value"] is not None]
    head = f"On {extent(found)}, {listed(solved) if solved else 'pass@k is undefined'}."
    if missing := [k for k, figure in own.items() if figure["value"] is None]:
        head += f" pass@{', '.join(missing)} cannot be given: {own[missing[0]]['reason']}."
    if found["given"]:
        return head + " These solutions were given, not sampled: this says nothing of the checkpoint's policy."
    if not found["differences"]:
        return head + " No other policy was sampled on these problems, so nothing is said about what training changed."
    told = [f"{name} {difference(figures['1'])}" for name, figures in found["differences"].items()]
    return f"{head} pass@1 of this run minus that of the others, paired by problem: {'; '.join(told)}."
