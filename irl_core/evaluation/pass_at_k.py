"""pass@k of the scored run's policy and of those compared on the same problems (the paper's table 2)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import Counts, Graded, extent, graded
from irl_core.evaluation.section import Section, Table, difference_cell
from irl_core.statistics.best_of_n import pass_at_k, pass_values
from irl_core.statistics.bootstrap import Estimate, paired_difference, undefined
from irl_core.statistics.wording import difference, listed
from irl_core.types import Source

KS = (1, 3, 5, 10, 16)
PAIR = 2  # of two samples a problem pass@2 is all there is beside pass@1
THIS = "this run"
ByK = dict[str, Estimate]  # by k, as text


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAtK(Counts):
    """pass@k by policy.

    Attributes:
        given: whether the traces are external solutions, whose pass@k is not that of the checkpoint's policy.
        policies: pass@k by policy and k.
        counts: the traces of each policy.
        differences: pass@k of this run minus that of each other policy, on the problems that both were sampled on, the
            problems resampled together.
    """

    given: bool
    policies: dict[str, ByK]
    counts: dict[str, Counts]
    differences: dict[str, ByK]


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[PassAtK]:
    """pass@k as a section of the report."""
    estimates = figures(run, seed=seed)
    return Section("pass@k", estimates, paragraph(estimates), tables(estimates))


def figures(run: EvaluatedRun, *, seed: int = 0) -> PassAtK:
    """pass@k of every policy of an evaluation. ``seed``: of the bootstrap."""
    ours = graded(run.frame)
    others = {name: graded(frame) for name, frame in run.compare.items()}
    every = {THIS: ours, **others}
    sources = set(run.frame["source"].dropna())
    smallest = min((int(np.bincount(one.ids).min()) for one in every.values() if one.problems), default=0)
    ks = sorted({*KS, PAIR}) if smallest == PAIR else KS
    nothing = undefined(0, "problems", "no solution with a known right answer")
    return PassAtK(
        **asdict(ours.counts()),
        given=bool(sources) and Source.POLICY.value not in sources,
        policies={
            name: {str(k): pass_at_k(one.right, one.ids, k, seed=seed) if one.problems else nothing for k in ks}
            for name, one in every.items()
        },
        counts={name: one.counts() for name, one in every.items()},
        differences={name: {str(k): _less(ours, theirs, k, seed) for k in ks} for name, theirs in others.items()},
    )


def _less(ours: Graded, theirs: Graded, k: int, seed: int) -> Estimate:
    """pass@k of ours minus theirs, paired on the problems that both have."""
    common = set(ours.frame["problem_id"]) & set(theirs.frame["problem_id"])
    if not common:
        return undefined(0, "problems", "no problem in common")
    by_problem = []
    for one in (ours, theirs):
        part = graded(one.frame[one.frame["problem_id"].isin(common).to_numpy(dtype=bool)])
        try:
            values = pass_values(part.right, part.ids, k)
        except ValueError as error:
            return undefined(part.problems, "problems", str(error))
        first = np.unique(part.ids, return_index=True)[1]  # problem ids in the order of their numbers
        by_problem.append(dict(zip(part.frame["problem_id"].iloc[first], values, strict=True)))
    mine, others = by_problem
    return paired_difference(list(mine.values()), [others[problem] for problem in mine], seed=seed)


def paragraph(estimates: PassAtK) -> str:
    """The answer to: does the policy solve more problems than the compared ones?"""
    own = estimates.policies[THIS]
    solved = [f"pass@{k} is {estimate.words}" for k, estimate in own.items() if estimate.defined]
    head = f"On {extent(estimates)}, {listed(solved) if solved else 'pass@k is undefined'}."
    if missing := [k for k, estimate in own.items() if not estimate.defined]:
        head += f" pass@{', '.join(missing)} cannot be given: {own[missing[0]].reason}."
    if estimates.given:
        return head + " These solutions were given, not sampled: this says nothing of the checkpoint's policy."
    if not estimates.differences:
        return head + " No other policy was sampled on these problems, so nothing is said about what training changed."
    told = [f"{name} {difference(by_k['1'])}" for name, by_k in estimates.differences.items()]
    return f"{head} pass@1 of this run minus that of the others, paired by problem: {'; '.join(told)}."


def tables(estimates: PassAtK) -> tuple[Table, ...]:
    """pass@k by policy."""
    rows = [
        [name, *by_k.values(), difference_cell(estimates.differences.get(name, {}).get("1"))]
        for name, by_k in estimates.policies.items()
    ]
    head = ["policy", *(f"pass@{k}" for k in estimates.policies[THIS]), "pass@1 of this run minus its"]
    return (Table("pass@k by policy", head, rows, "The differences are paired by problem."),)
