"""Do correct traces score higher than incorrect ones: pooled over problems, and within them?"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.first_error_table import ANCHOR
from irl_core.evaluation.scores import REWARD_SCORES, TITLES, WITHOUT_REWARD, Array, Judged, judged, score
from irl_core.evaluation.wording import difference, extent, ranking, shown
from irl_core.statistics.bootstrap import Figure, bootstrap, plain, point, ratio, share, undefined
from irl_core.statistics.correlation import centred
from irl_core.statistics.separation import Separation, pair_accuracy, pair_columns, separation
from irl_core.storage.scored_run import read_run

Flags = npt.NDArray[np.bool_]

BINS = 40
BASELINE, START = "log_prob_mean", "start_log_prob_mean"


def figures(run: EvaluatedRun, *, seed: int = 0) -> dict[str, Any]:
    """``scores``: for each, ``correct`` and ``incorrect`` (their means, n the number of traces), ``pooled``, ``within``
    and a ``histogram``. Traces without a score are left out of it, and counted as ``missing``.

    ``within`` has the share of pairs of the same problem that are ranked right, that share less log-probability's, and
    the pooled figures after each problem's mean is subtracted, over the problems that have both classes. Where the
    run's folder holds its traces as the discriminator's start read them, that model's log-probability is a score too.
    """
    one = judged(run.frame)
    baseline, titles = score(one.frame, BASELINE), dict(TITLES)
    values = {name: score(one.frame, name) for name in TITLES}
    start = _under_the_start(run, one)
    if start is not None:
        values[START], titles[START] = start, "log-probability under the discriminator's start, mean"
    rows = {name: _score(one_score, baseline, one, seed) for name, one_score in values.items()}
    if start is not None:
        for name in TITLES:
            known = np.isfinite(values[name])
            margin = _margin(values[name][known], start[known], one.right[known], one.ids[known], seed)
            rows[name]["within"]["minus_start"] = margin
    return dict(plain({**one.counts(), "titles": titles, "scores": rows}))


def _under_the_start(run: EvaluatedRun, one: Judged) -> Array | None:
    """The mean log-probability of each trace (M,) under the model that the discriminator started from: what the reward
    knew before its adversarial training. None where the run has no such file, NaN where it lacks a trace."""
    path = run.path.with_name(ANCHOR)
    if not path.exists():
        return None
    read = read_run(path, ["trace_id", "log_prob_mean"]).to_pydict()
    known = dict(zip(read["trace_id"], read["log_prob_mean"], strict=True))
    return np.array([known.get(name, math.nan) for name in one.frame["trace_id"]], dtype=np.float64)


def _score(values: Array, baseline: Array, one: Judged, seed: int) -> dict[str, Any]:
    known = np.isfinite(values)
    values, baseline, right, ids = values[known], baseline[known], one.right[known], one.ids[known]
    return {
        "missing": int((~known).sum()),
        "correct": _mean(values[right], ids[right], "correct traces", seed),
        "incorrect": _mean(values[~right], ids[~right], "incorrect traces", seed),
        "pooled": _tests(separation(values, right, ids, seed=seed), len(values)),
        "within": _within(values, baseline, right, ids, seed),
        "histogram": _histogram(values, right),
    }


def _mean(values: Array, ids: npt.NDArray[np.int64], unit: str, seed: int) -> Figure:
    return share(values, ids, unit=unit, bounded=False, seed=seed) if values.size else undefined(0, unit, f"no {unit}")


def _tests(found: Separation, n: int) -> dict[str, Figure]:
    reason = found.difference.reason or "no variance"
    welch = f"Welch's test, traces taken as independent, {found.degrees:.0f} degrees of freedom"
    clustered = "t test with a standard error over problems"
    return {
        "difference": found.difference,
        "t": _number(found.t, n, welch, reason),
        "p": _number(found.p, n, f"{welch}, two-sided", reason),
        "clustered_t": _number(found.clustered_t, n, clustered, reason),
        "clustered_p": _number(found.clustered_p, n, f"{clustered}, two-sided", reason),
        "cohens_d": found.cohens_d,
        "auc": found.auc,
    }


def _number(value: float, n: int, method: str, reason: str) -> Figure:
    return undefined(n, method, reason) if math.isnan(value) else point(value, n, method)


def _within(values: Array, baseline: Array, right: Flags, ids: npt.NDArray[np.int64], seed: int) -> dict[str, Figure]:
    mixed = _in_mixed_problems(right, ids)
    less = centred(values[mixed], ids[mixed])
    tests = _tests(separation(less, right[mixed], ids[mixed], seed=seed), int(mixed.sum()))
    pairs = pair_accuracy(values, right, ids, seed=seed)
    return {"pair_accuracy": pairs, "minus_log_prob": _margin(values, baseline, right, ids, seed), **tests}


def _in_mixed_problems(right: Flags, ids: npt.NDArray[np.int64]) -> Flags:
    """Which traces belong to a problem with both correct and incorrect ones."""
    if not ids.size:
        return np.zeros(0, dtype=bool)
    correct, total = np.bincount(ids, weights=right), np.bincount(ids)
    return ((correct > 0) & (correct < total))[ids]


def _margin(values: Array, baseline: Array, right: Flags, ids: npt.NDArray[np.int64], seed: int) -> Figure:
    """The share of pairs ranked right less that of the mean log-probability, on the same pairs."""
    ours, theirs = pair_columns(values, right, ids), pair_columns(baseline, right, ids)
    pairs = int(ours[:, 1].sum())
    if not pairs or np.isnan(theirs).any():
        reason = "no problem has both correct and incorrect samples" if not pairs else "log-probabilities are missing"
        return undefined(pairs, "pairs", reason)
    columns = np.column_stack([ours[:, 0] - theirs[:, 0], ours[:, 1]])
    return bootstrap(columns[ours[:, 1] > 0], ratio, n=pairs, unit="pairs, paired", bounded=False, seed=seed)


def _histogram(values: Array, right: Flags) -> dict[str, list[float] | list[int]]:
    """Counts of correct and incorrect traces in the same bins, for the charts."""
    if not values.size:
        return {"edges": [], "correct": [], "incorrect": []}
    edges = np.histogram_bin_edges(values, BINS)
    counts = {name: np.histogram(values[rows], edges)[0] for name, rows in (("correct", right), ("incorrect", ~right))}
    return {"edges": edges.tolist(), **{name: found.tolist() for name, found in counts.items()}}


def paragraph(found: dict[str, Any]) -> str:
    """Does the reward tell correct from incorrect traces, and more than which problems are easy?"""
    if not 0 < found["correct"] < found["traces"]:
        return f"On {extent(found)}, {found['correct']} of {found['traces']} traces are correct: nothing to separate."
    if found["scores"][next(iter(REWARD_SCORES))]["within"]["pair_accuracy"]["n"] == 0:
        return _pooled_alone(found)
    scopes = [_sentence(found["scores"][name], TITLES[name]) for name in list(REWARD_SCORES)[:2]]
    rivals = [
        f"{title} {shown(found['scores'][name]['within']['pair_accuracy'])}"
        for name, title in WITHOUT_REWARD.items()
        if name in (BASELINE, "shortness")
    ]
    first = found["scores"][next(iter(REWARD_SCORES))]["within"]["minus_log_prob"]
    margin = difference(first, "better than it", "worse than it")
    return _with_start(
        f"On {extent(found)}, {found['correct']} of {found['traces']} traces correct: {' '.join(scopes)} "
        f"Without a reward, the same share of pairs is: {'; '.join(rivals)}. "
        f"The first reward's less that of the mean log-probability is {margin}.",
        found,
    )


def _with_start(text: str, found: dict[str, Any]) -> str:
    """The text, and what the discriminator's start achieves without any adversarial training."""
    if START not in found["scores"]:
        return text
    own = found["scores"][START]["within"]["pair_accuracy"]
    less = found["scores"][next(iter(REWARD_SCORES))]["within"]["minus_start"]
    margin = difference(less, "better than it", "worse than it")
    return (
        f"{text} The model that the discriminator started from ranks {shown(own)} of them right by its log-probability "
        f"alone, before any adversarial training; the first reward's less this is {margin}."
    )


def _pooled_alone(found: dict[str, Any]) -> str:
    """What can be said where no problem has both correct and incorrect samples."""
    names = [*list(REWARD_SCORES)[:2], BASELINE, "shortness"]
    told = [f"{TITLES[name]} {_judged(found['scores'][name]['pooled']['auc'])}" for name in names]
    return (
        f"On {extent(found)}, {found['correct']} of {found['traces']} traces correct: AUC, pooled: {'; '.join(told)}. "
        "No problem has both correct and incorrect samples, so it is not known whether this is more than which "
        "problems are easy."
    )


def _sentence(row: dict[str, Any], title: str) -> str:
    pooled, within = row["pooled"], row["within"]
    area, pairs = pooled["auc"], within["pair_accuracy"]
    text = f"{title[0].upper()}{title[1:]}, pooled: AUC {_judged(area)}, Cohen's d {shown(pooled['cohens_d'])}; "
    text += f"share of the pairs of one problem ranked right: {_judged(pairs)}."
    useless = ranking(pairs) in ("not shown to be better than chance", "worse than chance")
    if useless and ranking(area) in ("at least weak", "at least moderate", "strong"):
        text += " So nothing is shown but that it knows which problems are easy."
    return text


def _judged(figure: dict[str, Any]) -> str:
    """An AUC or a share of pairs, and how well that ranks."""
    return shown(figure) if figure["value"] is None else f"{shown(figure)} ({ranking(figure)})"
