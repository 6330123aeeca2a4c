"""What choosing by the reward gains: best of N, votes, and how many samples they save.

A *vote* elects the answer with most weight, exp(score / temperature) a sample. Its score and temperature are chosen on
calibration problems by whoever samples the run (`choose_vote`), and stand in the run's provenance under ``vote``;
where they do not, the paper's score at one standard deviation is used, and the report says that it was not chosen.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from irl_core.errors import StoreError
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import REWARD_SCORES, TITLES, Array, Judged, answers, judged, score, spread
from irl_core.evaluation.wording import count, difference, extent, shown, side
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
from irl_core.statistics.bootstrap import Figure, mean_over_problems, paired_difference, plain, undefined

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


class Vote(NamedTuple):
    """The rule of a reward-weighted vote: weights are exp(score / temperature), the score one of ``TITLES``."""

    score: str
    temperature: float


def choose_vote(frame: pd.DataFrame) -> Vote:
    """The reward's score and the temperature whose vote elects most right answers on *these* problems: calibration
    problems, never the reported ones. Of equals the earlier score and the higher temperature, which is nearer to
    majority. Raises ValueError where no trace can be judged."""
    one = judged(frame)
    if not one.problems:
        raise ValueError("no trace with a known right answer: a vote cannot be chosen")
    spelt, best, best_share = answers(one.frame), None, -math.inf
    for name in REWARD_SCORES:
        values = score(one.frame, name)
        for times in TEMPERATURES:
            rule = Vote(name, times * spread(values))
            accuracy = float(vote(spelt, one.right, one.ids, values, rule.temperature).mean())
            if accuracy > best_share + 1e-12:
                best, best_share = rule, accuracy
    assert best is not None
    return best


def figures(run: EvaluatedRun, *, seed: int = 0) -> dict[str, Any]:
    """``by_score``: pass@k|N by each score, less random and less majority. ``baselines``, ``votes`` by each score.
    ``curves``: accuracy for 1 to N samples. ``samples_needed``: the fewest that reach the majority's accuracy at N."""
    one = judged(run.frame)
    rule, chosen = _rule(run, one)
    found: dict[str, Any] = {
        **one.counts(),
        "titles": TITLES | NAMES,
        "ties": TIES,
        "vote": {"score": rule.score, "temperature": rule.temperature, "chosen_on_calibration": chosen},
    }
    if max(one.samples, default=0) < 2:  # nothing to choose among: all would be the share of right samples
        return found | {key: {} for key in ("by_score", "baselines", "votes", "curves", "samples_needed")}
    choice = _Choices(one, seed)
    found |= {
        "baselines": choice.baselines(),
        "by_score": {name: choice.by_score(name) for name in TITLES},
        "votes": {name: choice.vote(Vote(name, spread(score(one.frame, name)))) for name in TITLES},
        "weighted_vote": choice.vote(rule),
        **_fewer_samples(one, choice, rule, seed),
    }
    return dict(plain(found))


def _rule(run: EvaluatedRun, one: Judged) -> tuple[Vote, bool]:
    """The vote's rule, and whether it was chosen on calibration problems."""
    known = run.provenance.get("vote")
    if known is None:
        name = next(iter(REWARD_SCORES))
        return Vote(name, spread(score(one.frame, name))), False
    if not _is_rule(known):
        raise StoreError(
            f"{run.path.name}: its provenance holds the vote {known}; it needs a temperature above 0 and a score out "
            f"of {', '.join(TITLES)}"
        )
    return Vote(known["score"], float(known["temperature"])), True


def _is_rule(known: Any) -> bool:
    """Whether what a provenance holds is a score that there is, and a temperature."""
    if not isinstance(known, dict) or known.get("score") not in TITLES:
        return False
    temperature = known.get("temperature")
    return isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature > 0


class _Choices:
    """What each way to choose achieves on each problem (P,), as figures beside random and majority."""

    def __init__(self, one: Judged, seed: int) -> None:
        self.one, self.seed, self.answers = one, seed, answers(one.frame)
        self.smallest = one.samples[0]
        texts = one.frame["text"].astype(object).tolist()
        ks = [k for k in KS if k <= self.smallest]
        self.random_text = {k: random_text_top(texts, one.right, one.ids, k) for k in ks}
        self.random_sample = {k: pass_values(one.right, one.ids, k) for k in ks}
        self.majority = vote(self.answers, one.right, one.ids)
        self.voted = any(answer is not None for answer in self.answers)

    def baselines(self) -> dict[str, dict[str, Figure]]:
        """By name and k; majority elects one answer and has k = 1 alone; the oracle is pass@N at every k."""
        return {
            RANDOM_TEXT: {str(k): self._mean(self.random_text.get(k)) for k in KS},
            RANDOM_SAMPLE: {str(k): self._mean(self.random_sample.get(k)) for k in KS},
            MAJORITY: {"1": self._election(self.majority)},
            ORACLE: {"1": self._mean(oracle(self.one.right, self.one.ids))},
        }

    def by_score(self, name: str) -> dict[str, dict[str, Figure]]:
        """pass@k|N by a score, by k."""
        values = score(self.one.frame, name)
        if not np.isfinite(values).any():
            nothing = undefined(self.one.problems, "problems", "every score is missing")
            return {str(k): {"value": nothing} for k in KS}
        return {str(k): self._beside(values, k) for k in KS}

    def _beside(self, values: Array, k: int) -> dict[str, Figure]:
        if k > self.smallest:
            return {"value": self._mean(None)}
        ours = best_of(values, self.one.right, self.one.ids, k)
        found = {"value": self._mean(ours)}
        rivals = {RANDOM_TEXT: self.random_text[k], RANDOM_SAMPLE: self.random_sample[k]}
        return found | self._less(ours, rivals | ({MAJORITY: self.majority} if k == 1 else {}))

    def vote(self, rule: Vote) -> dict[str, Any]:
        """The accuracy of a weighted vote, less majority's and random's."""
        values = score(self.one.frame, rule.score)
        if not np.isfinite(values).any():
            return {"value": undefined(self.one.problems, "problems", "every score is missing")}
        ours = vote(self.answers, self.one.right, self.one.ids, values, rule.temperature)
        rivals = {MAJORITY: self.majority, RANDOM_TEXT: self.random_text[1], RANDOM_SAMPLE: self.random_sample[1]}
        return {"temperature": rule.temperature, "value": self._election(ours), **self._less(ours, rivals, True)}

    def _less(self, ours: Array, rivals: dict[str, Array], elected: bool = False) -> dict[str, Figure]:
        """Ours, which may be ``elected`` too, less each rival: of elections only where there was a vote."""
        nothing = undefined(self.one.problems, "problems", NO_ANSWER)
        return {
            f"minus_{name}": paired_difference(ours, theirs, seed=self.seed)
            if self.voted or not (elected or name == MAJORITY)
            else nothing
            for name, theirs in rivals.items()
        }

    def _mean(self, values: Array | None) -> Figure:
        """The mean over problems; None where k is beyond the samples."""
        if values is None:
            return undefined(self.one.problems, "problems", f"a problem has {self.smallest} samples, fewer than k")
        return mean_over_problems(values, seed=self.seed)

    def _election(self, values: Array) -> Figure:
        return self._mean(values) if self.voted else undefined(self.one.problems, "problems", NO_ANSWER)


# ------------------------------------------------------------------------------------------------ fewer samples


def _sizes(smallest: int) -> list[int]:
    """Numbers of samples for the curves: all up to N, and of a large N ``MAX_SIZES`` of them, closer at the start."""
    if smallest <= MAX_SIZES:
        return list(range(1, smallest + 1))
    return sorted({round(smallest ** (i / (MAX_SIZES - 1))) for i in range(MAX_SIZES)})


def _fewer_samples(one: Judged, choice: _Choices, rule: Vote, seed: int) -> dict[str, Any]:
    sizes, spelt = _sizes(choice.smallest), choice.answers
    likely, values = score(one.frame, LIKELIHOOD), score(one.frame, rule.score)
    curves = {
        MAJORITY: vote_curve(spelt, one.right, one.ids, sizes, seed=seed),
        "weighted_vote": vote_curve(spelt, one.right, one.ids, sizes, values, rule.temperature, seed=seed),
        "log_prob_vote": vote_curve(spelt, one.right, one.ids, sizes, likely, spread(likely), seed=seed),
        "best_of": best_of_curve(values, one.right, one.ids, sizes),
        ORACLE: pass_curve(one.right, one.ids, sizes),
    }
    target = curves[MAJORITY][:, -1]
    nothing = undefined(one.problems, "problems", NO_ANSWER)
    means = {
        name: [
            mean_over_problems(column, seed=seed) if choice.voted or name not in ELECTIONS else nothing
            for column in curve.T
        ]
        for name, curve in curves.items()
    }
    return {
        "curves": {"sizes": sizes, **means},
        "samples_needed": {"target": means[MAJORITY][-1], **_needed(curves, target, sizes, choice.voted, seed)},
    }


def _needed(curves: dict[str, Array], target: Array, sizes: list[int], voted: bool, seed: int) -> dict[str, Figure]:
    """The samples that each way to choose needs for the accuracy of the majority among all, and those that the
    weighted vote saves."""
    ours, saved = curves["weighted_vote"], {"saved_to_majority": MAJORITY, "saved_to_log_prob_vote": "log_prob_vote"}
    reason = "one sample a problem: there is nothing to save" if len(sizes) < 2 else ""
    if reason := reason or ("" if voted else NO_ANSWER):
        return {name: undefined(len(target), "samples a problem", reason) for name in (*curves, *saved)}
    return {
        **{name: samples_needed(curve, target, sizes, seed=seed) for name, curve in curves.items()},
        **{key: samples_saved(ours, curves[other], target, sizes, seed=seed) for key, other in saved.items()},
    }


def paragraph(found: dict[str, Any]) -> str:
    """Does choosing by the reward find right answers that random choice and majority do not?"""
    if not found["by_score"]:
        why = "no problem has two samples" if found["problems"] else extent(found)
        return f"Choosing is undefined: {why}."
    return f"{_chosen(found)} {_elected(found)} {_saving(found['samples_needed'])}"


def _chosen(found: dict[str, Any]) -> str:
    """Best of N by the vote's score, beside what needs no reward."""
    name, base = found["vote"]["score"], found["baselines"]
    row = found["by_score"][name]["1"]
    text = f"On {extent(found)}, the sample with the highest {TITLES[name]} is right in {shown(row['value'])}"
    if row["value"]["value"] is None:
        return f"{text}."
    rivals = [
        f"{NAMES[rival]} {shown(base[rival]['1'])} (difference {_margin(row[f'minus_{rival}'])})"
        for rival in (RANDOM_TEXT, RANDOM_SAMPLE, MAJORITY)
    ]
    return f"{text}. Beside it: {'; '.join(rivals)}; {NAMES[ORACLE]} {shown(base[ORACLE]['1'])}."


def _margin(figure: dict[str, Any]) -> str:
    return difference(figure, "better", "worse")


def _elected(found: dict[str, Any]) -> str:
    rule, row = found["vote"], found["weighted_vote"]
    where = "chosen on calibration problems" if rule["chosen_on_calibration"] else "fixed, not chosen on other problems"
    weight = f"exp({TITLES[rule['score']]} / {rule['temperature']:.3g})"
    text = f"A vote weighted by {weight}, {where}, elects the right answer"
    if row["value"]["value"] is None:
        return f"{text} in {shown(row['value'])}."
    return f"{text} in {shown(row['value'])}, against the majority {_margin(row['minus_majority'])}."


def _saving(needed: dict[str, Any]) -> str:
    """What fewer samples would do, by the interval of the saving."""
    ours, saved = needed["weighted_vote"], needed["saved_to_majority"]
    if ours["value"] is None or saved["value"] is None:
        return f"The samples that it saves are undefined: {ours['reason'] or saved['reason']}."
    text = f"It reaches the majority's accuracy with {count(ours)} samples, the majority itself with "
    text += f"{count(needed[MAJORITY])}"
    if side(saved) != "above":
        return f"{text}; a saving is not shown."
    likely = needed["saved_to_log_prob_vote"]
    beyond = "it saves none that is shown beside" if side(likely) != "above" else f"it saves {count(likely)} beside"
    return f"{text}: it saves {count(saved)}; {beyond} a vote weighted by log-probability."
