"""Separation of correct from incorrect traces by each score: pooled over problems, and within them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.located_traces import ANCHOR
from irl_core.evaluation.scores import (
    REWARD_SCORES,
    TITLES,
    WITHOUT_REWARD,
    Array,
    Counts,
    Graded,
    extent,
    graded,
    score,
)
from irl_core.evaluation.section import Section, Table
from irl_core.statistics.bootstrap import Estimate, bootstrap, point, ratio, share, undefined
from irl_core.statistics.correlation import centred
from irl_core.statistics.separation import Separation, auc, mean_auc, pair_accuracy, pair_columns, separation
from irl_core.statistics.wording import difference, ranking
from irl_core.storage.scored_run import read_run

Flags = npt.NDArray[np.bool_]

BINS = 40
FIRST = next(iter(REWARD_SCORES))
MEAN = "mean of the models"
BASELINE, START = "log_prob_mean", "start_log_prob_mean"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of correct and incorrect traces between the same ``edges``; all empty without a trace."""

    edges: list[float]
    correct: list[int]
    incorrect: list[int]


@dataclass(frozen=True, slots=True)
class ScoreSeparation:
    """The separation of correct from incorrect traces by one score.

    Attributes:
        missing: traces without this score, which are left out.
        correct: mean of the correct traces.
        incorrect: mean of the incorrect traces.
        pooled: over all traces: ``difference`` of the means, Welch's ``t`` and its ``p``, ``clustered_t`` and
            ``clustered_p`` with a standard error over problems, ``cohens_d``, ``auc``.
        within: ``pair_accuracy``, the share of pairs of the same problem that are ranked right; ``minus_log_prob``,
            that share less log-probability's; ``minus_start``, less the start's, where it is known; and what
            ``pooled`` holds, after each problem's mean is subtracted, over the problems that have both classes.
        histogram: of the score by class.
        by_model: where at least two models wrote the traces, the AUC within each model's own, and under `MEAN` their
            mean: what is left of the separation when style is no help.
    """

    missing: int
    correct: Estimate
    incorrect: Estimate
    pooled: dict[str, Estimate]
    within: dict[str, Estimate]
    histogram: Histogram
    by_model: dict[str, Estimate]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparationByScore(Counts):
    """How far each score separates the classes. Where the folder holds the traces as the discriminator's start read
    them, that model's log-probability is a score too, by the name ``START``."""

    titles: dict[str, str]
    scores: dict[str, ScoreSeparation]


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[SeparationByScore]:
    """Separation as a section of the report."""
    by_score = figures(run, seed=seed)
    return Section("Separation", by_score, paragraph(by_score), tables(by_score))


def figures(run: EvaluatedRun, *, seed: int = 0) -> SeparationByScore:
    """The separation of every score of an evaluation. ``seed``: of the bootstrap."""
    one = graded(run.frame)
    baseline, titles = score(one.frame, BASELINE), dict(TITLES)
    values = {name: score(one.frame, name) for name in TITLES}
    start = log_prob_under_the_start(run, one)
    if start is not None:
        values[START], titles[START] = start, "log-probability under the discriminator's start, mean"
    rows = {name: _separation_of(held, baseline, one, seed) for name, held in values.items()}
    if start is not None:
        for name in TITLES:
            known = np.isfinite(values[name])
            margin = _margin(values[name][known], start[known], one.right[known], one.ids[known], seed)
            rows[name].within["minus_start"] = margin
    return SeparationByScore(**asdict(one.counts()), titles=titles, scores=rows)


def log_prob_under_the_start(run: EvaluatedRun, one: Graded) -> Array | None:
    """The mean log-probability of each trace (M,) under the model that the discriminator started from: what the reward
    knew before its adversarial training. None where the run has no such file, NaN where it lacks a trace."""
    path = run.path.with_name(ANCHOR)
    if not path.exists():
        return None
    read = read_run(path, ["trace_id", "log_prob_mean"]).to_pydict()
    known = dict(zip(read["trace_id"], read["log_prob_mean"], strict=True))
    return np.array([known.get(name, math.nan) for name in one.frame["trace_id"]], dtype=np.float64)


def _separation_of(values: Array, baseline: Array, one: Graded, seed: int) -> ScoreSeparation:
    known = np.isfinite(values)
    values, baseline, right, ids = values[known], baseline[known], one.right[known], one.ids[known]
    authors = one.frame["model"].to_numpy(dtype=object)[known]
    means = {
        name: share(values[rows], ids[rows], unit=f"{name} solutions", bounded=False, seed=seed)
        for name, rows in (("correct", right), ("incorrect", ~right))
    }
    # within problems: less the problem's mean, over the problems that have both classes
    correct, total = np.bincount(ids, weights=right), np.bincount(ids)
    mixed = ((correct > 0) & (correct < total))[ids]
    less = centred(values[mixed], ids[mixed])
    histogram = Histogram([], [], [])
    if values.size:
        edges = np.histogram_bin_edges(values, BINS)
        histogram = Histogram(
            edges.tolist(), *(np.histogram(values[rows], edges)[0].tolist() for rows in (right, ~right))
        )
    return ScoreSeparation(
        missing=int((~known).sum()),
        **means,
        pooled=_tests(separation(values, right, ids, seed=seed), len(values)),
        within={
            "pair_accuracy": pair_accuracy(values, right, ids, seed=seed),
            "minus_log_prob": _margin(values, baseline, right, ids, seed),
            **_tests(separation(less, right[mixed], ids[mixed], seed=seed), int(mixed.sum())),
        },
        histogram=histogram,
        by_model=_within_models(values, right, ids, authors),
    )


def _within_models(
    values: Array, right: Flags, ids: npt.NDArray[np.int64], authors: npt.NDArray[np.object_]
) -> dict[str, Estimate]:
    """The AUC within the traces of each model, and the mean of these; empty where fewer than two are named."""
    named = np.array([isinstance(author, str) for author in authors], dtype=bool)
    names = sorted(set(authors[named]))
    if len(names) < 2:
        return {}
    each = {name: auc(values[rows], right[rows], ids[rows]) for name in names for rows in [authors == name]}
    return each | {MEAN: mean_auc(values[named], right[named], list(authors[named]), ids[named])}


def _tests(separation: Separation, n: int) -> dict[str, Estimate]:
    reason = separation.difference.reason or "no variance"
    welch = f"Welch's test, solutions taken as independent, {separation.degrees:.0f} degrees of freedom"
    clustered = "t test with a standard error over problems"
    numbers = {
        "t": (separation.t, welch),
        "p": (separation.p, f"{welch}, two-sided"),
        "clustered_t": (separation.clustered_t, clustered),
        "clustered_p": (separation.clustered_p, f"{clustered}, two-sided"),
    }
    return {
        "difference": separation.difference,
        **{
            name: undefined(n, method, reason) if math.isnan(value) else point(value, n, method)
            for name, (value, method) in numbers.items()
        },
        "cohens_d": separation.cohens_d,
        "auc": separation.auc,
    }


def _margin(values: Array, baseline: Array, right: Flags, ids: npt.NDArray[np.int64], seed: int) -> Estimate:
    """The share of pairs ranked right less that of the mean log-probability, on the same pairs."""
    ours, theirs = pair_columns(values, right, ids), pair_columns(baseline, right, ids)
    pairs = int(ours[:, 1].sum())
    if not pairs or np.isnan(theirs).any():
        reason = "no problem has both correct and incorrect samples" if not pairs else "log-probabilities are missing"
        return undefined(pairs, "pairs", reason)
    columns = np.column_stack([ours[:, 0] - theirs[:, 0], ours[:, 1]])
    return bootstrap(columns[ours[:, 1] > 0], ratio, n=pairs, unit="pairs, paired", bounded=False, seed=seed)


def paragraph(by_score: SeparationByScore) -> str:
    """The answer to: does the reward tell correct from incorrect traces, or only which problems are easy?"""
    if not 0 < by_score.correct < by_score.traces:
        right = f"{by_score.correct} of {by_score.traces} solutions are correct"
        return f"On {extent(by_score)}, {right}: nothing to separate."
    head = f"On {extent(by_score)}, {by_score.correct} of {by_score.traces} solutions correct:"
    if by_score.scores[FIRST].within["pair_accuracy"].n == 0:
        names = [*list(REWARD_SCORES)[:2], BASELINE, "shortness"]
        told = [f"{TITLES[name]} {_ranked(by_score.scores[name].pooled['auc'])}" for name in names]
        return (
            f"{head} AUC, pooled: {'; '.join(told)}. No problem has both correct and incorrect samples, so it is not "
            f"known whether this is more than which problems are easy.{_by_model_words(by_score)}"
        )
    scopes = [_sentence(by_score.scores[name], TITLES[name]) for name in list(REWARD_SCORES)[:2]]
    rivals = [
        f"{title} {by_score.scores[name].within['pair_accuracy'].words}"
        for name, title in WITHOUT_REWARD.items()
        if name in (BASELINE, "shortness")
    ]
    within = by_score.scores[FIRST].within
    text = (
        f"{head} {' '.join(scopes)} Without a reward, the same share of pairs is: {'; '.join(rivals)}. The first "
        "reward's less that of the mean log-probability is "
        f"{difference(within['minus_log_prob'], 'better than it', 'worse than it')}.{_by_model_words(by_score)}"
    )
    if START not in by_score.scores:
        return text
    return (
        f"{text} The model that the discriminator started from ranks "
        f"{by_score.scores[START].within['pair_accuracy'].words} of them right by its log-probability alone, before "
        "any adversarial training; the first reward's less this is "
        f"{difference(within['minus_start'], 'better than it', 'worse than it')}."
    )


def _sentence(row: ScoreSeparation, title: str) -> str:
    area, pairs = row.pooled["auc"], row.within["pair_accuracy"]
    text = f"{title[0].upper()}{title[1:]}, pooled: AUC {_ranked(area)}, Cohen's d {row.pooled['cohens_d'].words}; "
    text += f"share of the pairs of one problem ranked right: {_ranked(pairs)}."
    useless = ranking(pairs) in ("not shown to be better than chance", "worse than chance")
    if useless and ranking(area) in ("at least weak", "at least moderate", "strong"):
        text += " So nothing is shown but that it knows which problems are easy."
    return text


def _by_model_words(by_score: SeparationByScore) -> str:
    """What is left within each model's own traces, where several models wrote them; with a space before it."""
    names = [name for name in (*list(REWARD_SCORES)[:2], BASELINE) if by_score.scores[name].by_model]
    if not names:
        return ""
    models = len(by_score.scores[names[0]].by_model) - 1
    told = "; ".join(f"{by_score.titles[name]} {_ranked(by_score.scores[name].by_model[MEAN])}" for name in names)
    return f" Within the solutions of each of the {models} models, mean AUC: {told}."


def _ranked(estimate: Estimate) -> str:
    """An AUC or a share of pairs, and how well that ranks."""
    return f"{estimate.words} ({ranking(estimate)})" if estimate.defined else estimate.words


def tables(by_score: SeparationByScore) -> tuple[Table, ...]:
    """The tests of every score, pooled, within problems and, where several models wrote the traces, within each."""
    pooled = ("difference", "cohens_d", "auc", "t", "p", "clustered_t", "clustered_p")
    within = ["pair_accuracy", "minus_log_prob", "cohens_d", "auc"]
    head = ["score", "pairs ranked right", "less mean log-probability", "Cohen's d", "AUC"]
    if START in by_score.scores:
        within.insert(2, "minus_start")
        head.insert(3, "less the discriminator's start")
    titled = [(by_score.titles[name], row) for name, row in by_score.scores.items()]
    return (
        *_table_by_model(titled),
        Table(
            "Correct against incorrect solutions, pooled",
            ["score", "correct less incorrect", "Cohen's d", "AUC", "Welch t", "p", "t over problems",
             "p over problems"],
            [[title, *(row.pooled[key] for key in pooled)] for title, row in titled],
            "Welch's test takes solutions as independent, which samples of one problem are not; the last two columns "
            "do not.",
        ),
        Table(
            "Correct against incorrect solutions of the same problem",
            head,
            [[title, *(row.within.get(key) for key in within)] for title, row in titled],
            "d and AUC after each problem's mean is subtracted, over the problems that have both kinds.",
        ),
    )  # fmt: skip


def _table_by_model(titled: list[tuple[str, ScoreSeparation]]) -> list[Table]:
    names = list(titled[0][1].by_model)
    if not names:
        return []
    return [
        Table(
            "AUC of correct against incorrect solutions within each model's own",
            ["score", *names],
            [[title, *(row.by_model.get(name) for name in names)] for title, row in titled],
            "Solutions of one author differ little in style, so style alone separates little here.",
        )
    ]
