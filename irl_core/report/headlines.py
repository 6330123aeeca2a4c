"""What a section says in one sentence and three numbers, for whoever reads no further.

The sentence says no more than the intervals allow: 'clearly' where the whole interval lies on one side.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from irl_core.evaluation.correlation import Correlations, left_beyond
from irl_core.evaluation.first_error import REWARD, TITLES, Localisation
from irl_core.evaluation.localisation import best_baseline
from irl_core.evaluation.pass_at_k import THIS, PassAtK
from irl_core.evaluation.reranking import MAJORITY, RANDOM_SAMPLE, Reranking
from irl_core.evaluation.scores import REWARD_SCORES
from irl_core.evaluation.section import Section
from irl_core.evaluation.separation import BASELINE, SeparationByScore
from irl_core.evaluation.ways import Ways
from irl_core.report.terms import term_of
from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import ranking, side, true_minus

MOST_DIGITS: Final = 2
UNITS: Final = {"share": " %", "gap": " points", "plain": ""}


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a headline: a ``share`` in hundredths, a ``gap`` of two shares in points (both with ``digits`` after
    the point), or ``plain``."""

    title: str
    estimate: Estimate
    kind: Literal["share", "gap", "plain"] = "share"
    digits: int = 0

    @property
    def value(self) -> str:
        """The value alone: '73 %', '0.51', or 'undefined'."""
        if not self.estimate.defined:
            return "undefined"
        return self._written(self.estimate.value) + UNITS[self.kind]

    @property
    def means(self) -> str:
        """What its term means; empty where it has none."""
        return term_of(self.title)

    @property
    def extent(self) -> str:
        """Interval and n: '67 to 80 %, n 160'; the reason where it is undefined."""
        one = self.estimate
        if not one.defined:
            return f"{one.reason}; n {one.n:,}"
        if one.interval is None:
            return f"n {one.n:,}"
        low, high = one.interval
        return f"{self._written(low)} to {self._written(high)}{UNITS[self.kind]}, n {one.n:,}"

    def _written(self, value: float) -> str:
        sign = "+" if self.kind == "gap" else ""
        text = f"{value:.2f}" if self.kind == "plain" else f"{100 * value:{sign}.{self.digits}f}"
        return true_minus(text)


START: Final = "start"  # the policy before its training, by the name that irl-lens evaluate is given


@dataclass(frozen=True, slots=True)
class Headline:
    """One sentence, and at most three numbers."""

    sentence: str
    numbers: tuple[Number, ...] = ()


def headline(name: str, section: Section[Any]) -> Headline:
    """The headline of a section of the report, by its name; where it has none of its own the first sentence."""
    make = MAKERS.get(name)
    found = make(section.figures) if make and not section.reason else None
    return found or Headline(re.split(r"(?<=\.) (?=[A-Z])", section.paragraph, maxsplit=1)[0])


def in_percent(value: float, digits: int = 0) -> str:
    """A share in hundredths: '73 %'."""
    return f"{100 * value:.{digits}f} %"


def digits_that_add_up(one: Estimate, other: Estimate, difference: Estimate) -> int:
    """The fewest digits after the point, two at most, with which two shares and their difference add up as they are
    written; 0 where none do, since the difference is over other problems than the shares."""
    if not (one.defined and other.defined and difference.defined):
        return 0
    values = [100 * each.value for each in (one, other, difference)]
    for digits in range(MOST_DIGITS + 1):
        left, right, between = (Decimal(f"{value:.{digits}f}") for value in values)
        if left - right == between:
            return digits
    return 0


def gap(difference: Estimate, digits: int = 0) -> str:
    """A difference of shares in words: '10 points more, clearly better'."""
    if not difference.defined:
        return f"the difference is undefined ({difference.reason})"
    points = f"{abs(100 * difference.value):.{digits}f}"
    more = "more" if difference.value > 0 else "fewer"
    size = f"{points} point{'s' * (points != '1')} {more}" if float(points) else "the same within a point"
    sure = {"above": "clearly better", "below": "clearly worse", "neither": "which may be chance"}
    return f"{size}, {sure.get(side(difference), 'of too few problems to say more')}"


def reranking(one: Reranking) -> Headline | None:
    """What choosing by the reward gains."""
    if not one.by_score:
        return None
    best, majority = one.by_score[one.vote.score]["1"], one.baselines[MAJORITY]["1"]
    random = one.baselines[RANDOM_SAMPLE]["1"]
    if not best.value.defined:
        return None
    rival, words, less = (
        (majority, "majority", best.minus_majority)
        if majority.defined
        else (random, "a random sample", best.minus_random_sample)
    )
    digits = 0 if less is None else digits_that_add_up(best.value, rival, less)
    sentence = f"Choosing by the reward: {in_percent(best.value.value, digits)} right"
    if rival.defined and less is not None:
        sentence += f"; {words} {in_percent(rival.value, digits)}; {gap(less, digits)}"
    return Headline(
        f"{sentence}.",
        (
            Number("right when the reward chooses", best.value, digits=digits),
            Number("right by majority", majority, digits=digits),
            Number("right by a random sample", random, digits=digits),
        ),
    )


def separation(one: SeparationByScore, score: str = next(iter(REWARD_SCORES))) -> Headline | None:
    """Whether correct traces score higher, by one score."""
    entry = one.scores[score]
    pairs, area, margin = entry.within["pair_accuracy"], entry.pooled["auc"], entry.within["minus_log_prob"]
    known = pairs if pairs.defined else area
    if not known.defined:
        return Headline(f"Whether correct solutions score higher is undefined: {known.reason}.")
    what = "the reward" if score in REWARD_SCORES else one.titles[score]
    of = "solution of one problem" if pairs.defined else "solution"
    compared = f"{known.n:,} pairs" if pairs.defined else f"pairs of {known.n:,} solutions"
    sentence = (
        f"Of a correct and an incorrect {of}, {what} puts the correct one higher in {in_percent(known.value)} of the "
        f"{compared}: {ranking(known)}"
    )
    if pairs.defined and margin.defined and score != BASELINE:
        sentence += f"; beside log-probability alone {gap(margin)}"
    return Headline(
        f"{sentence}.",
        (
            Number("pairs of one problem ranked right", pairs),
            Number("AUC over all solutions", area, kind="plain"),
            Number("Cohen's d over all solutions", entry.pooled["cohens_d"], kind="plain"),
        ),
    )


def correlation(one: Correlations) -> Headline | None:
    """Whether the reward goes with correctness, and with what else."""
    partial = one.partial[next(iter(REWARD_SCORES))]
    plain, length, both = (partial.pooled[key] for key in ("nothing", "length", "length_and_log_prob"))
    if not plain.defined:
        return Headline(f"Whether the reward goes with correctness is undefined: {plain.reason}.")
    goes = {"above": "goes with correctness", "below": "goes against correctness"}
    first = goes.get(side(plain), "is not shown to go with correctness")
    left = left_beyond(partial, "length_and_log_prob", "length and likelihood")
    return Headline(
        f"The reward {first} (r {true_minus(f'{plain.value:.2f}')}); {left}",
        (
            Number("r with correctness", plain, kind="plain"),
            Number("r with length removed", length, kind="plain"),
            Number("r with length and likelihood removed", both, kind="plain"),
        ),
    )


def pass_at_k(one: PassAtK) -> Headline | None:
    """How many problems one sample solves, and how many."""
    own = {int(k): estimate for k, estimate in one.policies[THIS].items() if estimate.defined}
    if 1 not in own:
        return None
    most = max(own)
    sentence = f"One sample is right in {in_percent(own[1].value)} of the problems"
    if most > 1:
        sentence += f"; among {most} there is a right one in {in_percent(own[most].value)}"
    numbers = [Number("pass@1", own[1])] + ([Number(f"pass@{most}", own[most])] if most > 1 else [])
    name = START if START in one.differences else next(iter(one.differences), None)
    if name is not None and not one.given and (less := one.differences[name]["1"]).defined:
        sentence += f". Beside {name}: {gap(less)}"
        numbers.append(Number(f"pass@1 less that of {name}", less, "gap"))
    return Headline(f"{sentence}.", tuple(numbers))


def localisation(one: Localisation) -> Headline | None:
    """How often the reward names the first wrong step."""
    rows = one.methods
    if not rows or not rows[REWARD]["exact"].defined:
        return None
    best = best_baseline(rows)
    ours, theirs, less = rows[REWARD]["exact"], rows[best]["exact"], rows[best]["reward_minus_this"]
    digits = digits_that_add_up(ours, theirs, less)
    sentence = f"The reward names the first wrong step in {in_percent(ours.value, digits)} of the wrong solutions"
    if theirs.defined:
        sentence += f"; {TITLES[best]} {in_percent(theirs.value, digits)}; {gap(less, digits)}"
    named = (("the reward", ours), (TITLES[best], theirs))
    numbers = [Number(f"named by {who}", share, digits=digits) for who, share in named]
    return Headline(f"{sentence}.", (*numbers, Number("F1 at the held-out threshold", rows[REWARD]["f1"])))


def ways(one: Ways) -> Headline | None:
    """What the best way of writing with the reward gains over the majority of as many tokens."""
    known = {name: way for name, way in one.ways.items() if way.minus_majority.defined}
    if not known:
        return None
    name, best = max(known.items(), key=lambda item: item[1].minus_majority.value)
    return Headline(
        f"{name.capitalize()} is right in {in_percent(best.accuracy.value)}; beside the majority of as many tokens: "
        f"{gap(best.minus_majority)}.",
        (
            Number(f"right by {name}", best.accuracy),
            Number("less the majority of as many tokens", best.minus_majority, "gap"),
            Number("right by one sample", one.one),
        ),
    )


MAKERS: Final[dict[str, Callable[[Any], Headline | None]]] = {
    "pass_at_k": pass_at_k,
    "separation": separation,
    "reranking": reranking,
    "correlation": correlation,
    "localisation": localisation,
    "ways": ways,
}
