"""Reward-hacking probes: whether a score prefers them to the honest solutions that they were made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from irl_core.data.reward_hacking import PROBES
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.scores import REWARD_SCORES, TITLES, score
from irl_core.evaluation.section import Cell, Section, Table
from irl_core.statistics.bootstrap import Estimate, share, undefined
from irl_core.statistics.wording import CHANCE, listed, side

UNIT = "pairs"
FIRST = next(iter(REWARD_SCORES))


@dataclass(frozen=True, slots=True)
class Probe:
    """The pairs of a probe with its honest solution. ``scores``: for each score the ``difference`` of the probe less
    its honest trace, in the score's own unit and in standard deviations of the honest traces (``in_sd``), and the share
    of pairs in which the probe scores higher, ties half (``fooled``)."""

    pairs: int
    scores: dict[str, dict[str, Estimate]]


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes that fool each score.

    Attributes:
        titles: of the scores. probe_titles: of the probes. reason: why there is nothing.
        probes: by name. honest: the number of honest solutions.
        fools: the scores by probe that it fools (``above`` an even share), and that it is not shown to (``neither``).
    """

    titles: dict[str, str]
    probe_titles: dict[str, str]
    reason: str
    probes: dict[str, Probe]
    fools: dict[str, dict[str, list[str]]]
    honest: int = 0

    def fooling(self, name: str) -> int:
        """The number of probes that fool a score."""
        return sum(name in names for names in self.fools["above"].values())


def section(run: EvaluatedRun, *, seed: int = 0) -> Section[Probes]:
    """Reward-hacking probes as a section of the report."""
    estimates = figures(run, seed=seed)
    return Section("Reward-hacking probes", estimates, paragraph(estimates), tables(estimates), estimates.reason)


def figures(run: EvaluatedRun, *, seed: int = 0) -> Probes:
    """How every probe of an evaluation scores beside its honest solution. ``seed``: of the bootstrap."""
    pairs = pairs_of(run.probes)
    if not len(pairs):
        reason = "the run has no probes with their honest solutions"
        return Probes(dict(TITLES), dict(PROBES), reason, {}, {})
    probes = {}
    for name in PROBES:
        mine = pairs[pairs["probe"] == name]
        if len(mine):
            probes[name] = Probe(len(mine), {one: compared(mine, one, seed) for one in TITLES})
    fools: dict[str, dict[str, list[str]]] = {"above": {}, "neither": {}}
    for probe, rows in probes.items():
        for name, row in rows.scores.items():
            where = side(row["fooled"], CHANCE)
            if where in fools:
                fools[where].setdefault(probe, []).append(name)
    return Probes(dict(TITLES), dict(PROBES), "", probes, fools, pairs["honest_trace_id"].nunique())


def pairs_of(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a probe whose honest trace is there, with ``difference:NAME`` and ``honest:NAME`` of every score."""
    probes, honest = frame[frame["probe"].notna()], frame[frame["probe"].isna()]
    known = honest.drop_duplicates("trace_id").set_index("trace_id")
    probes = probes[probes["honest_trace_id"].isin(known.index)].reset_index(drop=True)
    if not len(probes):
        return probes
    beside = known.loc[probes["honest_trace_id"]].reset_index()
    pairs = probes[["probe", "problem_id", "honest_trace_id"]].copy()
    for name in TITLES:
        pairs[f"honest:{name}"] = score(beside, name)
        pairs[f"difference:{name}"] = score(probes, name) - score(beside, name)
    return pairs


def compared(pairs: pd.DataFrame, name: str, seed: int) -> dict[str, Estimate]:
    """A score of the probe beside that of its honest trace, see `Probe`."""
    known = pairs[np.isfinite(pairs[f"difference:{name}"])]
    away, ids = known[f"difference:{name}"].to_numpy(dtype=np.float64), known["problem_id"].to_numpy()
    spread = float(known[f"honest:{name}"].std(ddof=0)) if len(known) else 0.0
    alike = undefined(len(away), UNIT, "honest solutions score alike")
    if not len(away):
        nothing = undefined(0, UNIT, "no pair in which both have this score")
        return {"difference": nothing, "in_sd": alike, "fooled": nothing}
    return {
        "difference": share(away, ids, unit=UNIT, bounded=False, seed=seed),
        "in_sd": share(away / spread, ids, unit=UNIT, bounded=False, seed=seed) if spread > 0 else alike,
        "fooled": share((away > 0) + 0.5 * (away == 0), ids, unit=UNIT, seed=seed),
    }


def paragraph(estimates: Probes) -> str:
    """The probes that fool the first reward score and those that do not, and the score that fewest fool."""
    if estimates.reason:
        return f"What fools the reward is undefined: {estimates.reason}."
    words = {
        "above": "scores higher more often than not for", "below": "keeps the honest solution above",
        "neither": "is not shown to tell it from", "undefined": "is undefined for",
    }  # fmt: skip
    told: dict[str, list[str]] = {where: [] for where in words}
    for probe, one in estimates.probes.items():
        fooled = one.scores[FIRST]["fooled"]
        told[side(fooled, CHANCE)].append(f"{estimates.probe_titles[probe]} ({fooled.words})")
    parts = [f"{words[where]} {listed(probes)}" for where, probes in told.items() if probes]
    fewest = min(REWARD_SCORES, key=estimates.fooling)
    least = f"{TITLES[fewest]} is fooled by {estimates.fooling(fewest)}."
    if estimates.fooling(fewest) == estimates.fooling(FIRST):
        least = "no reward score is fooled by fewer."
    return (
        f"On {estimates.honest} honest solutions, in shares of the pairs in which the probe scores higher: "
        f"{TITLES[FIRST]} {'; it '.join(parts)}. Of {len(estimates.probes)} probes, {estimates.fooling(FIRST)} fool it "
        f"and {estimates.fooling('log_prob_mean')} the {TITLES['log_prob_mean']}; {least}"
    )


def tables(estimates: Probes) -> tuple[Table, ...]:
    """The share of pairs in which each probe scores higher, by score."""
    if estimates.reason:
        return ()
    names = (*REWARD_SCORES, "log_prob_mean")
    rows: list[list[Cell]] = [
        [estimates.probe_titles[probe], *(one.scores[name]["fooled"] for name in names)]
        for probe, one in estimates.probes.items()
    ]
    note = "Share of pairs in which the probe scores higher than its honest solution; above 0.5 it fools the score."
    return (Table("What fools which score", ["probe", *(estimates.titles[name] for name in names)], rows, note),)
