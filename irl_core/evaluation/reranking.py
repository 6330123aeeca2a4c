"""Reranking by the reward: best of N, weighted votes, and the samples that they save.

A weighted vote elects the answer with the largest sum of weights exp(score / temperature) over its samples. Score and
temperature are chosen on calibration problems when the traces are sampled (`choose_vote`) and stored in the provenance
under ``vote``; without them the paper's score at one standard deviation is used, and the report says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from irl_core.errors import StoreError
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import (
    REWARD_SCORES,
    TITLES,
    Array,
    Counts,
    Graded,
    answers,
    extent,
    graded,
    score,
    spread,
)
from irl_core.evaluation.section import Section, Table
from irl_core.statistics.best_of_n import (
    best_of,
    best_of_curve,
    oracle,
    pass_curve,
    pass_values,
    random_text_top,
    samples_needed,
    samples_saved,
    vote,
    vote_curve,
)
from irl_core.statistics.bootstrap import Estimate, mean_over_problems, paired_difference, undefined
from irl_core.statistics.wording import difference, side

KS = (1, 3, 5)
MAX_SIZES = 64
LIKELIHOOD = "log_prob_mean"
TEMPERATURES = (5.0, 2.5, 1.5, 1.0, 0.75, 0.5, 0.35, 0.2, 0.1)  # in standard deviations, the nearest to majority first
NO_ANSWER = "no sample has an answer"
RANDOM_TEXT, RANDOM_SAMPLE, MAJORITY, ORACLE = "random_text", "random_sample", "majority", "oracle"
ELECTIONS = (MAJORITY, "weighted_vote", "log_prob_vote")
NAMES = {
    RANDOM_TEXT: "random score per distinct text",
    RANDOM_SAMPLE: "random sample",
    MAJORITY: "majority vote",
    ORACLE: "oracle (any sample right)",
}
TIES = (
    "Samples with equal scores compete for a place in random order: the figure is the expected value, and so is that "
    "of answers with equal weight. A missing score ranks last and has no weight; a sample without an answer has no "
    "vote, and a problem without a vote counts as wrong."
)


@dataclass(frozen=True, slots=True)
class VoteRule:
    """The rule of a weighted vote: weights are exp(score / temperature), the score one of ``TITLES``; and whether it
    was chosen on calibration problems."""

    score: str
    temperature: float
    chosen_on_calibration: bool


def choose_vote(frame: pd.DataFrame) -> VoteRule:
    """The reward's score and the temperature whose vote elects most right answers on *these* problems: calibration
    problems, never the reported ones. Of equals the earlier score and the higher temperature, which is nearer to
    majority. Raises ValueError where no trace's correctness is known."""
    one = graded(frame)
    if not one.problems:
        raise ValueError("no solution with a known right answer: a vote cannot be chosen")
    spelt, best, best_share = answers(one.frame), None, -math.inf
    for name in REWARD_SCORES:
        values = score(one.frame, name)
        for times in TEMPERATURES:
            rule = VoteRule(name, times * spread(values), True)
            accuracy = float(vote(spelt, one.right, one.ids, values, rule.temperature).mean())
            if accuracy > best_share + 1e-12:
                best, best_share = rule, accuracy
    assert best is not None
    return best


@dataclass(frozen=True, slots=True)
class Choice:
    """The accuracy of one selection method, and its difference to each rival; None where the two were not compared.
    ``temperature``: of a vote."""

    value: Estimate
    minus_random_text: Estimate | None = None
    minus_random_sample: Estimate | None = None
    minus_majority: Estimate | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Curves:
    """The accuracy of each selection method, by name, among so many samples; None where it selects none."""

    sizes: list[int] | None = None
    by_way: dict[str, list[Estimate]] | None = field(default=None, metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranking(Counts):
    """Choosing one of a problem's samples; empty where no problem has two.

    Attributes:
        titles: of scores and baselines. ties: how equal scores are handled, in words. vote: the vote's rule.
        by_score: pass@k|N by each score and k, less random and less majority.
        baselines: by name and k; majority elects one answer and has k = 1 alone, the oracle is pass@N.
        votes: the vote by each score at one standard deviation. weighted_vote: the one by the rule.
        curves: accuracy for 1 to N samples.
        samples_needed: the fewest samples that reach the majority's accuracy at N, by way to choose.
    """

    titles: dict[str, str]
    ties: str
    vote: VoteRule
    baselines: dict[str, dict[str, Estimate]]
    by_score: dict[str, dict[str, Choice]]
    votes: dict[str, Choice]
    weighted_vote: Choice | None = None
    curves: Curves
    samples_needed: dict[str, Estimate]


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[Reranking]:
    """Reranking as a section of the report."""
    reranking = figures(run, seed=seed)
    return Section("Reranking", reranking, paragraph(reranking), tables(reranking))


def figures(run: EvaluatedRun, *, seed: int = 0) -> Reranking:
    """The accuracy of every selection method on an evaluation. ``seed``: of the bootstrap.

    Raises:
        StoreError: the provenance holds a vote that cannot be followed.
    """
    one = graded(run.frame)
    rule = vote_rule(run, one)
    known: dict[str, Any] = {**asdict(one.counts()), "titles": TITLES | NAMES, "ties": TIES, "vote": rule}
    if max(one.samples, default=0) < 2:  # nothing to choose among: all would be the share of right samples
        return Reranking(**known, by_score={}, baselines={}, votes={}, curves=Curves(), samples_needed={})
    choice = Choices(one, seed)
    curves, needed = fewer_samples(one, choice, rule, seed)
    return Reranking(
        **known,
        by_score={name: choice.by_score(name) for name in TITLES},
        baselines=choice.baselines(),
        votes={name: choice.vote(name, spread(score(one.frame, name))) for name in TITLES},
        curves=curves,
        samples_needed=needed,
        weighted_vote=choice.vote(rule.score, rule.temperature),
    )


def vote_rule(run: EvaluatedRun, one: Graded) -> VoteRule:
    """The vote's rule in the provenance, else the paper's score at one standard deviation. Raises StoreError."""
    known = run.provenance.get("vote")
    if known is None:
        name = next(iter(REWARD_SCORES))
        return VoteRule(name, spread(score(one.frame, name)), False)
    temperature = known.get("temperature") if isinstance(known, dict) else None
    above_0 = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature > 0
    if temperature is None or not above_0 or known.get("score") not in TITLES:
        raise StoreError(
            f"{run.path.name}: its provenance holds the vote {known}; it needs a temperature above 0 and a score out "
            f"of {', '.join(TITLES)}"
        )
    return VoteRule(known["score"], float(temperature), True)


class Choices:
    """The accuracy of each selection method, with its difference to random and majority."""

    def __init__(self, one: Graded, seed: int) -> None:
        self.one, self.seed, self.answers = one, seed, answers(one.frame)
        self.smallest = one.samples[0]
        texts = one.frame["text"].astype(object).tolist()
        ks = [k for k in KS if k <= self.smallest]
        self.random_text = {k: random_text_top(texts, one.right, one.ids, k) for k in ks}
        self.random_sample = {k: pass_values(one.right, one.ids, k) for k in ks}
        self.majority = vote(self.answers, one.right, one.ids)
        self.voted = any(answer is not None for answer in self.answers)

    def baselines(self) -> dict[str, dict[str, Estimate]]:
        """The baselines that need no score, by name and k."""
        return {
            RANDOM_TEXT: {str(k): self.mean(self.random_text.get(k)) for k in KS},
            RANDOM_SAMPLE: {str(k): self.mean(self.random_sample.get(k)) for k in KS},
            MAJORITY: {"1": self.election(self.majority)},
            ORACLE: {"1": self.mean(oracle(self.one.right, self.one.ids))},
        }

    def by_score(self, name: str) -> dict[str, Choice]:
        """pass@k|N by a score, by k."""
        values = score(self.one.frame, name)
        if not np.isfinite(values).any():
            return {str(k): Choice(self.undefined("every score is missing")) for k in KS}
        scores = {}
        for k in KS:
            if k > self.smallest:
                scores[str(k)] = Choice(self.mean(None))
                continue
            ours = best_of(values, self.one.right, self.one.ids, k)
            rivals = {RANDOM_TEXT: self.random_text[k], RANDOM_SAMPLE: self.random_sample[k]}
            less = self.less(ours, rivals | ({MAJORITY: self.majority} if k == 1 else {}))
            scores[str(k)] = Choice(self.mean(ours), **less)
        return scores

    def vote(self, name: str, temperature: float) -> Choice:
        """A vote weighted by a score."""
        values = score(self.one.frame, name)
        if not np.isfinite(values).any():
            return Choice(self.undefined("every score is missing"))
        ours = vote(self.answers, self.one.right, self.one.ids, values, temperature)
        rivals = {MAJORITY: self.majority, RANDOM_TEXT: self.random_text[1], RANDOM_SAMPLE: self.random_sample[1]}
        return Choice(self.election(ours), temperature=temperature, **self.less(ours, rivals, elected=True))

    def less(self, ours: Array, rivals: Mapping[str, Array], elected: bool = False) -> dict[str, Any]:
        """Ours, which may be ``elected`` too, less each rival: of elections only where there was a vote."""
        return {
            f"minus_{name}": paired_difference(ours, theirs, seed=self.seed)
            if self.voted or not (elected or name == MAJORITY)
            else self.undefined(NO_ANSWER)
            for name, theirs in rivals.items()
        }

    def mean(self, values: Array | None) -> Estimate:
        """The mean over problems; None where k is beyond the samples."""
        if values is None:
            return self.undefined(f"a problem has {self.smallest} samples, fewer than k")
        return mean_over_problems(values, seed=self.seed)

    def election(self, values: Array) -> Estimate:
        """The mean over problems of what was elected."""
        return self.mean(values) if self.voted else self.undefined(NO_ANSWER)

    def undefined(self, reason: str) -> Estimate:
        """An accuracy that does not exist."""
        return undefined(self.one.problems, "problems", reason)


# ------------------------------------------------------------------------------------------------ fewer samples


def fewer_samples(one: Graded, choice: Choices, rule: VoteRule, seed: int) -> tuple[Curves, dict[str, Estimate]]:
    """The accuracy of every way to choose among fewer samples, and the samples that it needs for the accuracy of the
    majority among all. Of many samples ``MAX_SIZES`` numbers are tried, closer at the start."""
    smallest, spelt = choice.smallest, choice.answers
    sizes = list(range(1, smallest + 1))
    if smallest > MAX_SIZES:
        sizes = sorted({round(smallest ** (i / (MAX_SIZES - 1))) for i in range(MAX_SIZES)})
    likely, values = score(one.frame, LIKELIHOOD), score(one.frame, rule.score)
    curves = {
        MAJORITY: vote_curve(spelt, one.right, one.ids, sizes, seed=seed),
        "weighted_vote": vote_curve(spelt, one.right, one.ids, sizes, values, rule.temperature, seed=seed),
        "log_prob_vote": vote_curve(spelt, one.right, one.ids, sizes, likely, spread(likely), seed=seed),
        "best_of": best_of_curve(values, one.right, one.ids, sizes),
        ORACLE: pass_curve(one.right, one.ids, sizes),
    }
    means = {
        name: [choice.election(column) if name in ELECTIONS else choice.mean(column) for column in curve.T]
        for name, curve in curves.items()
    }
    target = curves[MAJORITY][:, -1]
    saved = {"saved_to_majority": MAJORITY, "saved_to_log_prob_vote": "log_prob_vote"}
    reason = "one sample a problem: there is nothing to save" if len(sizes) < 2 else ""
    needed: dict[str, Estimate] = {"target": means[MAJORITY][-1]}
    if reason := reason or ("" if choice.voted else NO_ANSWER):
        needed |= {name: undefined(len(target), "samples a problem", reason) for name in (*curves, *saved)}
    else:
        ours = curves["weighted_vote"]
        needed |= {name: samples_needed(curve, target, sizes, seed=seed) for name, curve in curves.items()}
        needed |= {key: samples_saved(ours, curves[other], target, sizes, seed=seed) for key, other in saved.items()}
    return Curves(sizes, means), needed


# ------------------------------------------------------------------------------------------------ words and tables


def paragraph(reranking: Reranking) -> str:
    """The answer to: does choosing by the reward find right answers that random choice and majority do not?"""
    if not reranking.by_score or reranking.weighted_vote is None:
        why = "no problem has two samples" if reranking.problems else extent(reranking)
        return f"Choosing is undefined: {why}."
    name, base = reranking.vote.score, reranking.baselines
    best = reranking.by_score[name]["1"]
    text = f"On {extent(reranking)}, the sample with the highest {TITLES[name]} is right in {best.value.words}"
    if best.value.defined:
        rivals = [
            f"{NAMES[rival]} {base[rival]['1'].words} (difference {_margin(getattr(best, f'minus_{rival}'))})"
            for rival in (RANDOM_TEXT, RANDOM_SAMPLE, MAJORITY)
        ]
        text += f". Beside it: {'; '.join(rivals)}; {NAMES[ORACLE]} {base[ORACLE]['1'].words}"
    elected = reranking.weighted_vote
    chosen = reranking.vote.chosen_on_calibration
    where = "chosen on calibration problems" if chosen else "fixed, not chosen on other problems"
    text += f". A vote weighted by exp({TITLES[name]} / {reranking.vote.temperature:.3g}), {where}, elects "
    text += f"the right answer in {elected.value.words}"
    if elected.value.defined and elected.minus_majority:
        text += f", against the majority {_margin(elected.minus_majority)}"
    return f"{text}. {_saving(reranking.samples_needed)}"


def _margin(estimate: Estimate) -> str:
    return difference(estimate, "better", "worse")


def _saving(needed: Mapping[str, Estimate]) -> str:
    """The samples that the weighted vote saves, by the interval of the saving."""
    ours, saved = needed["weighted_vote"], needed["saved_to_majority"]
    if not ours.defined or not saved.defined:
        return f"The samples that it saves are undefined: {ours.reason or saved.reason}."
    text = f"It reaches the majority's accuracy with {ours.words} samples, the majority itself with "
    text += needed[MAJORITY].words
    if side(saved) != "above":
        return f"{text}; a saving is not shown."
    likely = needed["saved_to_log_prob_vote"]
    beyond = "it saves none that is shown beside" if side(likely) != "above" else f"it saves {likely.words} beside"
    return f"{text}: it saves {saved.words}; {beyond} a vote weighted by log-probability."


WAYS = {
    "target": "(the accuracy to be reached)",
    MAJORITY: "majority vote",
    "weighted_vote": "reward-weighted vote",
    "log_prob_vote": "vote weighted by log-probability",
    "best_of": "best of N by the vote's score",
    ORACLE: "oracle",
    "saved_to_majority": "saved by the reward-weighted vote, beside majority",
    "saved_to_log_prob_vote": "saved by it, beside the log-probability vote",
}


def tables(reranking: Reranking) -> tuple[Table, ...]:
    """Best of N, votes, and the samples that they save."""
    if not reranking.by_score or reranking.weighted_vote is None:
        return ()
    titles, rule, ks = reranking.titles, reranking.vote, [str(k) for k in KS]
    best = [
        [titles[name], *(by_k[k].value for k in ks), by_k["1"].minus_random_text, by_k["1"].minus_majority]
        for name, by_k in reranking.by_score.items()
    ]
    best += [[titles[name], *(by_k.get(k) for k in ks), None, None] for name, by_k in reranking.baselines.items()]
    where = "chosen on calibration problems" if rule.chosen_on_calibration else "not chosen on other problems"
    votes = {
        f"{titles[rule.score]}, temperature {rule.temperature:.3g}, {where}": reranking.weighted_vote,
        **{f"{titles[name]}, one standard deviation": one for name, one in reranking.votes.items()},
    }
    return (
        Table(
            "Best of N",
            ["chosen by", *(f"pass@{k}|N" for k in KS), "pass@1|N less random text", "less majority"],
            best,
            reranking.ties,
        ),
        Table(
            "Votes weighted by exp(score / temperature)",
            ["score", "right", "less random text", "less majority"],
            [[name, one.value, one.minus_random_text, one.minus_majority] for name, one in votes.items()],
        ),
        Table(
            "Samples a problem that reach the majority's accuracy with all of them",
            ["way to choose", "samples"],
            [[WAYS[name], estimate] for name, estimate in reranking.samples_needed.items()],
            mixed=True,
        ),
    )
