"""Does the reward point at the first error? ProcessBench's and MR-GSM8K's figures, beside what needs no reward.

A trace is *wrong* where its first wrong step is known, and *correct* where it is known to have none, whatever its
final answer. ``exact`` is the share of wrong traces whose named step is the true one, were each known to be wrong; all
other figures heed the decision: a trace may be left without an error, or undecided, which counts as wrong.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.evaluation import perturbed
from irl_core.evaluation.calibration import conformal, reliability
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.first_error_table import (
    ANCHOR,
    Array,
    Judge,
    Located,
    Steps,
    column,
    decided,
    judge_of,
    located,
    share_of,
)
from irl_core.evaluation.wording import difference, ranking, rule, shown
from irl_core.reward.localisation import Rule
from irl_core.statistics.bootstrap import Figure, plain, problem_index, share_difference, undefined
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED, first_error, mr_gsm8k, oracle_threshold

Section = dict[str, Any]

REWARD, COMBINED = "reward", "checker_then_reward"
TITLES = {
    REWARD: "reward, calibrated rule",
    COMBINED: "arithmetic checker, then reward",
    "arithmetic": "arithmetic checker alone",
    "likelihood": "log-probability, calibrated rule",
    "least_likely": "least likely token",
    "anchor": "log-probability under the discriminator's start",
    "random": "random step (expected)",
    "first": "first step",
    "middle": "middle step",
    "last": "last step",
}
NO_RIVALS = (REWARD, COMBINED, "anchor")  # the anchor is what the reward knew before its adversarial training
CANDIDATES = 2000  # limits that the search for the oracle threshold tries at most


def figures(run: EvaluatedRun, *, seed: int = 0, answer_lines: bool | None = None) -> Section:
    """``methods``: every way to name a step, over the run's labelled traces, the reward's also at the ``oracle``
    threshold; ``distance`` in steps, ``reliability``, ``conformal``, ``kinds`` of mistakes, ``decisions``;
    ``perturbed``: the same on corrupted traces, down to tokens. ``answer_lines``: see `judge_of`.

    Raises:
        StoreError: the run cannot be judged by one rule.
    """
    judge = judge_of(run, answer_lines)
    if judge is None:
        return dict(plain({"titles": TITLES, "reason": "no trace was read by a discriminator"}))
    traces = located(run.path, judge, run.path.with_name(ANCHOR))
    found = {"titles": TITLES, "reason": "", **_judged_by(judge), **_labelled(traces, judge, seed)}
    spoilt = located(run.perturbed_path, judge) if len(run.perturbed) else Located(pd.DataFrame())
    found["perturbed"] = _perturbed(run, spoilt, judge, seed)
    return dict(plain(found))


def _judged_by(judge: Judge) -> Section:
    return {
        "rule": judge.rule.name,
        "threshold": judge.threshold if math.isfinite(judge.threshold) else None,
        "alpha": judge.calibration.alpha if judge.calibration else None,
        "answer_lines": judge.answer_lines,
    }


def _labelled(traces: Located, judge: Judge, seed: int) -> Section:
    frame = traces.frame
    if not len(frame):
        return {"counts": _counts(frame), "methods": {}}
    return {
        "counts": _counts(frame),
        "methods": _methods(frame, seed),
        "oracle": _oracle(traces, judge.rule, seed),
        "forced": _process(frame, np.where(decided(frame) == UNDECIDED, NO_ERROR, decided(frame)), seed),
        "distance": _distance(frame, seed),
        "decisions": _decisions(frame, seed),
        "reliability": reliability(frame, seed),
        "conformal": conformal(frame, judge, seed),
        "kinds": _kinds(frame, seed),
    }


def _counts(frame: pd.DataFrame) -> Section:
    if not len(frame):
        return {"traces": 0, "wrong": 0, "correct": 0, "problems": 0, "right_answer_but_wrong": 0}
    wrong = frame["true"] != NO_ERROR
    mixed = wrong & frame["right_answer"].eq(True)
    return {
        "traces": len(frame),
        "wrong": int(wrong.sum()),
        "correct": int((~wrong).sum()),
        "problems": frame["problem_id"].nunique(),
        "right_answer_but_wrong": int(mixed.sum()),
    }


# ------------------------------------------------------------------------------------------------ methods


def hits(frame: pd.DataFrame) -> dict[str, Array]:
    """How often each method names the true step of each trace, in expectation where it draws. Silence is 0."""
    true = column(frame, "true")
    checker = column(frame, "arithmetic")
    named = {name: column(frame, name) for name in TITLES if name in frame.columns}
    named[COMBINED] = np.where(checker == NO_ERROR, named[REWARD], checker)
    found = {name: (named[name] == true).astype(np.float64) for name in TITLES if name in named}
    return found | {"random": frame["chance"].to_numpy(dtype=np.float64)}


def _predictions(frame: pd.DataFrame) -> dict[str, Steps]:
    checker = column(frame, "arithmetic")
    found = {REWARD: decided(frame), "arithmetic": checker}
    found[COMBINED] = np.where(checker == NO_ERROR, found[REWARD], checker)
    for name in ("likelihood", "anchor"):
        if f"{name}_decision" in frame.columns:
            found[name] = decided(frame, name, f"{name}_decision")
    return found


def _methods(frame: pd.DataFrame, seed: int) -> Section:
    exact, predicted, always = _exact(frame, seed), _predictions(frame), "it names a step in every trace"
    rows: Section = {}
    for name, figures_of in exact.items():
        if name in predicted:
            judged = _process(frame, predicted[name], seed)
        else:
            keys = ("error_acc", "correct_acc", "f1", "step_accuracy", "mcc")
            judged = {key: undefined(len(frame), "traces", always) for key in keys}
        rows[name] = {**figures_of, **judged}
    return rows


def _exact(frame: pd.DataFrame, seed: int, unit: str = "wrong traces") -> dict[str, dict[str, Figure]]:
    """``exact`` of every method over the wrong traces, and the reward's less it, paired."""
    part = frame[frame["true"] != NO_ERROR]
    found, ids = hits(part), part["problem_id"].to_numpy()
    rows: dict[str, dict[str, Figure]] = {}
    for name in sorted(found, key=list(TITLES).index):
        rows[name] = {"exact": share_of(found[name], ids, unit, seed)}
        if name != REWARD:
            rows[name]["reward_minus_this"] = _less(found[REWARD], found[name], ids, unit, seed)
    return rows


def _less(ours: Array, theirs: Array, ids: npt.NDArray[Any], unit: str, seed: int) -> Figure:
    if not len(ours):
        return undefined(0, unit, f"no {unit}")
    return share_difference(ours, theirs, ids, unit=unit, seed=seed)


def _process(frame: pd.DataFrame, predicted: Steps, seed: int) -> dict[str, Figure]:
    true, ids = column(frame, "true"), frame["problem_id"].to_numpy()
    found, other = first_error(true, predicted, ids, seed=seed), mr_gsm8k(true, predicted, ids, seed=seed)
    return {
        "error_acc": found.error_acc,
        "correct_acc": found.correct_acc,
        "f1": found.f1,
        "step_accuracy": other.step_accuracy,
        "mcc": other.mcc,
    }


def _oracle(traces: Located, rule: Rule, seed: int) -> Section:
    """The reward at the limit with the best F1 on these very traces. Its intervals do not heed that it was chosen."""
    frame = traces.frame
    true, suspicion = column(frame, "true"), frame["reward_suspicion"].to_numpy(dtype=np.float64)
    if rule.choice == "argmin":
        limit, _ = oracle_threshold(true, column(frame, REWARD), suspicion)
        named = column(frame, REWARD)
    else:
        limit, named = _best_limit(true, traces.scores, suspicion)
    predicted = np.where(suspicion < limit, named, NO_ERROR)
    return {"threshold": limit if math.isfinite(limit) else None, **_process(frame, predicted, seed)}


def _best_limit(true: Steps, scores: Any, suspicion: Array) -> tuple[float, Steps]:
    """The limit with the best F1, and the steps it names, for a rule that names the first step below its limit: another
    limit names other steps. At most ``CANDIDATES`` limits are tried, quantiles of the step scores."""
    table = np.full((len(scores), max(len(row) for row in scores)), np.nan)
    for index, row in enumerate(scores):
        table[index, : len(row)] = row
    table[np.isnan(suspicion)] = np.nan
    limits = np.unique(table[~np.isnan(table)])
    if limits.size > CANDIDATES:
        limits = np.quantile(limits, np.linspace(0, 1, CANDIDATES))
    best, best_f1, best_named = math.inf, -1.0, np.full(len(true), UNDECIDED)
    for limit in [*limits, math.inf]:
        below = table < limit
        named = np.where(below.any(1), below.argmax(1), NO_ERROR)
        value = _plain_f1(true, named)
        if value > best_f1:
            best, best_f1, best_named = float(limit), value, named
    return best, best_named


def _plain_f1(true: Steps, predicted: Steps) -> float:
    wrong = true != NO_ERROR
    if wrong.all() or not wrong.any():
        return float((predicted == true).mean())
    found, kept = (predicted == true)[wrong].mean(), (predicted == true)[~wrong].mean()
    return float(2 * found * kept / (found + kept)) if found + kept else 0.0


# ------------------------------------------------------------------------------------------------ distance, kinds


def _distance(frame: pd.DataFrame, seed: int) -> Section:
    """Named less true step of the wrong traces where a step is named; negative = too early."""
    part = frame[(frame["true"] != NO_ERROR) & (frame[REWARD] >= 0)]
    away, ids = column(part, REWARD) - column(part, "true"), part["problem_id"].to_numpy()
    values, counts = np.unique(away, return_counts=True)
    unit = "wrong traces"
    return {
        "distribution": {str(value): int(count) for value, count in zip(values, counts, strict=True)},
        "mean_absolute": share_of(np.abs(away), ids, f"{unit}, steps", seed, bounded=False),
        "mean": share_of(away, ids, f"{unit}, steps", seed, bounded=False),
        "within_one": share_of(np.abs(away) <= 1, ids, unit, seed),
        "too_early": share_of(away < 0, ids, unit, seed),
        "too_late": share_of(away > 0, ids, unit, seed),
    }


def _decisions(frame: pd.DataFrame, seed: int) -> dict[str, Figure]:
    """What became of correct and of wrong traces."""
    found = {}
    for group, rows in (("correct", frame["true"] == NO_ERROR), ("wrong", frame["true"] != NO_ERROR)):
        part = frame[rows]
        for said in ("error", "uncertain", "no_error"):
            flags = (part["decision"] == said).to_numpy()
            found[f"{group}_{said}"] = share_of(flags, part["problem_id"].to_numpy(), f"{group} traces", seed)
    return found


def _kinds(frame: pd.DataFrame, seed: int) -> Section:
    """For each kind of mistake, most frequent first: its share of the wrong traces, and ``exact`` by method."""
    part = frame[frame["true"] != NO_ERROR]
    kinds = part["kind"].fillna("unknown").astype(str)
    rows = {}
    for kind in kinds.value_counts(sort=True).index if kinds.nunique() > 1 else []:
        mine = (kinds == kind).to_numpy()
        exact = _exact(part[mine], seed)
        rows[str(kind)] = {
            "share": share_of(mine, part["problem_id"].to_numpy(), "wrong traces", seed),
            **{name: exact[name]["exact"] for name in (REWARD, "least_likely", "arithmetic", "random")},
        }
    return rows


# ------------------------------------------------------------------------------------------------ corrupted traces


def _perturbed(run: EvaluatedRun, spoilt: Located, judge: Judge, seed: int) -> Section:
    if not len(spoilt.frame):
        return {"reason": "the run has no corrupted traces with a known first wrong step", "methods": {}}
    frame = spoilt.frame
    kinds = frame["kind"].fillna("unknown").astype(str)
    return {
        "reason": "",
        "traces": len(frame),
        "problems": int(problem_index(list(frame["problem_id"]))[0]),
        "methods": _exact(frame, seed, "corrupted traces"),
        "kinds": {
            kind: {name: row["exact"] for name, row in _exact(frame[kinds == kind], seed, "corrupted traces").items()}
            for kind in sorted(set(kinds))
        },
        **perturbed.figures(run.perturbed_path, judge, seed=seed),
    }


# ------------------------------------------------------------------------------------------------ words


def paragraph(found: Section) -> str:
    """Does the reward point at the first error, and more than what needs none?"""
    if found["reason"]:
        return f"Where the first error is cannot be judged: {found['reason']}."
    parts = [_on_labels(found), _confidence_words(found), _on_corrupted(found["perturbed"])]
    return " ".join(part for part in parts if part)


def _on_labels(found: Section) -> str:
    counts, rows = found["counts"], found["methods"]
    if not counts["wrong"]:
        return f"No trace of the run itself has a known first error ({counts['correct']} are known to have none)."
    head = (
        f"On {counts['wrong']} wrong and {counts['correct']} correct traces of {counts['problems']} problems, the "
        f"reward (rule: {rule(found['rule'])}) names the first wrong step in {shown(rows[REWARD]['exact'])} of the "
        "wrong ones"
    )
    rivals = [name for name in ("random", "first", "least_likely", "likelihood", "arithmetic") if name in rows]
    told = [f"{TITLES[name]} {shown(rows[name]['exact'])}" for name in rivals]
    best = best_baseline(rows)
    margin = difference(rows[best]["reward_minus_this"], "better than it", "worse than it")
    return (
        f"{head}; beside it: {', '.join(told)}. Against the best of what needs no reward, {TITLES[best]}, the margin "
        f"is {margin}. {_start_words(rows)}{_f1_words(found)}"
    )


def _start_words(rows: Section) -> str:
    """What the model that the discriminator started from names without any adversarial training."""
    if "anchor" not in rows:
        return ""
    row = rows["anchor"]
    margin = difference(row["reward_minus_this"], "better than it", "worse than it")
    return (
        f"The model that the discriminator started from names {shown(row['exact'])} by its log-probability alone, "
        f"before any adversarial training; the reward less this is {margin}. "
    )


def best_baseline(rows: Section) -> str:
    """Of the methods that need no reward, the one that finds most first wrong steps on these traces."""
    rivals = [name for name in rows if name not in NO_RIVALS]
    return max(rivals, key=lambda name: rows[name]["exact"]["value"] or 0.0)


def _f1_words(found: Section) -> str:
    row, oracle = found["methods"][REWARD], found["oracle"]
    if row["f1"]["value"] is None:
        return f"ProcessBench's F1 is {shown(row['f1'])}."
    return (
        f"At the held-out threshold error_acc is {shown(row['error_acc'])}, correct_acc {shown(row['correct_acc'])} "
        f"and F1 {shown(row['f1'])} (at the oracle threshold, an upper bound, {shown(oracle['f1'])}); MCC is "
        f"{shown(row['mcc'])}."
    )


def _confidence_words(found: Section) -> str:
    if "conformal" not in found:
        return ""
    ece = f"The confidence is off by {shown(found['reliability']['ece'])} on average (expected calibration error)."
    promised = next(level for level in found["conformal"]["levels"] if level["promised"])
    flagged = promised["flagged"]
    if flagged["value"] is None:
        return f"{ece} Whether correct traces are spared as promised is not known: {flagged['reason']}."
    if promised["alpha"] is None:
        return f"{ece} Of the correct traces {shown(flagged)} are flagged; {found['conformal']['reason']}."
    return (
        f"{ece} Of the correct traces {shown(flagged)} are flagged where at most {promised['alpha']:g} was promised: "
        f"{promised['verdict']}."
    )


def _on_corrupted(found: Section) -> str:
    if found["reason"]:
        return f"On corrupted expert traces nothing can be said: {found['reason']}."
    rows = found["methods"]
    text = (
        f"On {found['traces']} corrupted expert traces the reward names the corrupted step in "
        f"{shown(rows[REWARD]['exact'])}, the least likely token in {shown(rows['least_likely']['exact'])}, the "
        f"checker in {shown(rows['arithmetic']['exact'])}, a random step in {shown(rows['random']['exact'])}."
    )
    area = found["token_auc"][perturbed.ALL].get(found["signal"])
    if area is None:
        return text
    step = found["within_step"]
    return (
        f"{text} The AUC of {found['signal']} for the corrupted token against those before it is {shown(area['at'])} "
        f"({ranking(area['at'])}), with all after it {shown(area['from'])} ({ranking(area['from'])}). Within the wrong "
        f"step its most suspect token is the corrupted one in {shown(step['token_exact'])}, a random one in "
        f"{shown(step['random_token'])}."
    )
