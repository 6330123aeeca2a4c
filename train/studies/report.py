"""The report of a study: figures over seeds, paired differences, tables and paragraphs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypedDict

from irl_core.evaluation.per_problem import TITLES, Columns, difference_over_seeds, over_seeds
from irl_core.evaluation.section import Cell, Table, difference_cell
from irl_core.files import write_whole
from irl_core.report import published
from irl_core.report.tables import escaped, markdown, page
from irl_core.statistics.bootstrap import Estimate, to_json
from irl_core.statistics.wording import difference, listed, side
from irl_core.storage.provenance import CodeState, Machine, Versions, machine_in_words
from train.studies.claims import CLAIMS, POLICIES, REWARDS, Claim
from train.studies.definitions import START
from train.studies.plan import SAMPLES, Plan
from train.studies.seen import Seen, mean_of

BySeed = Mapping[int, Mapping[str, Columns]]

JSON, MARKDOWN, HTML = "study.json", "study.md", "study.html"
FILES = (JSON, MARKDOWN, HTML)
PASS = ("pass@1", "pass@3", "pass@5", "pass@10", "pass@16")
REWARD = ("pairs", "pairs_lowest", "best", "best_lowest", "first_step", "error_acc", "correct_acc")
GAINS = {"over_random": "pass@1", "over_majority": "majority"}  # what reranking by the reward is set against
RERANKED = ("best", "best_lowest")
VERDICTS = {"above": "Shown", "neither": "Not shown, nor the opposite", "below": "The opposite is shown"}


@dataclass(frozen=True, slots=True)
class Pair:
    """The figures of one arm less those of another, by measure, on the seeds that both have."""

    ours: str
    theirs: str
    figures: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Compared:
    """Arms beside each other.

    Attributes:
        figures: by arm and measure, over seeds.
        differences: of every two arms the later one less the earlier.
        gains: by arm, what choosing the best of a problem's samples by the reward adds to a random one and to the
            majority.
    """

    figures: dict[str, dict[str, Estimate]]
    differences: list[Pair]
    gains: dict[str, dict[str, Estimate]] | None = None


class ArmRecord(TypedDict, total=False):
    """An arm in ``study.json``; of the start only the ``title``. ``steps``, ``warmup_rounds``: as trained, scaled."""

    title: str
    preset: str
    settings: list[str]
    backbone: str
    steps: int
    warmup_rounds: int


class StudyProvenance(TypedDict):
    """Provenance of a study. ``starts``: sha256 by name; ``failed``: the diverged training runs with the reason."""

    created: str
    starts: dict[str, str]
    failed: dict[str, str]
    input_sha256: str
    machine: Machine
    versions: Versions
    code: CodeState


@dataclass(frozen=True, slots=True)
class StudyReport:
    """What ``study.json`` holds of the seeds that are done.

    Attributes:
        arms: by name.
        published: the number of the paper's table that the study repeats.
        rewards: of a study whose arms differ in the reward.
        seen: what each arm's models have seen, the mean over its seeds.
        parts: policies on some of the held-out problems, by the title of these.
    """

    study: str
    title: str
    question: str
    note: str
    seeds: list[int]
    seeds_done: list[int]
    scale: float
    problems: int
    samples: int
    arms: dict[str, ArmRecord]
    policies: Compared
    published: int
    about: StudyProvenance = field(metadata={"flat": True})
    rewards: Compared | None = None
    seen: dict[str, Seen] = field(default_factory=dict)
    parts: dict[str, Compared] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------- figures


def figures(
    plan: Plan,
    seeds: Sequence[int],
    policies: Mapping[str, BySeed],
    rewards: Mapping[str, BySeed],
    given: Mapping[str, Columns],
    about: StudyProvenance,
    seen: Mapping[str, Sequence[Seen]] | None = None,
    families: Mapping[str, str] | None = None,
) -> StudyReport:
    """The report of the seeds that are done.

    Args:
        plan: of the study.
        seeds: that are done.
        policies: measures by arm and seed, as ``measured`` gives them.
        rewards: the same of the arms' rewards.
        given: measures of the fixed samples that the rewards were read on.
        about: provenance.
        seen: what each arm has seen, by seed.
        families: of the held-out problems, by their text.
    """
    study = plan.study
    parts = {
        title: compared(only(policies, {text for text, name in (families or {}).items() if name in names}), PASS)
        for title, names in study.parts
    }
    first = {training.arm.name: training.config for training in reversed(plan.trainings)}
    arms: dict[str, ArmRecord] = {
        arm.name: {
            "title": arm.title,
            "preset": arm.preset,
            "settings": list(arm.settings),
            "backbone": arm.backbone,
            "steps": first[arm.name].run.steps,
            "warmup_rounds": first[arm.name].discriminator.warmup_rounds,
        }
        for arm in study.arms
    }
    read = study.reading == "rewards"
    return StudyReport(
        study=study.name,
        title=study.title,
        question=study.question,
        note=study.note,
        seeds=list(plan.seeds),
        seeds_done=list(seeds),
        scale=plan.scale,
        problems=plan.problems,
        samples=SAMPLES,
        arms={START: {"title": "the start"}, **arms},
        policies=compared(policies, PASS),
        published=study.published,
        about=about,
        rewards=replace(compared(rewards, REWARD), gains=gains(rewards, given)) if read else None,
        seen={arm: mean_of(runs) for arm, runs in (seen or {}).items()},
        parts=parts,
    )


def only(arms: Mapping[str, BySeed], problems: set[str]) -> dict[str, BySeed]:
    """The measures on these problems alone."""
    return {
        arm: {
            seed: {name: {text: columns[text] for text in columns if text in problems} for name, columns in one.items()}
            for seed, one in by_seed.items()
        }
        for arm, by_seed in arms.items()
    }


def compared(arms: Mapping[str, BySeed], names: Sequence[str]) -> Compared:
    """The measures of every arm over its seeds, and the differences of every two."""
    return Compared(
        {
            arm: {name: over_seeds(name, [one[name] for one in by_seed.values()]) for name in _in_all(names, by_seed)}
            for arm, by_seed in arms.items()
        },
        [Pair(ours, theirs, _less(arms[ours], arms[theirs], names)) for theirs, ours in combinations(arms, 2)],
    )


def _in_all(names: Iterable[str], *sides: BySeed) -> list[str]:
    """The measures that every seed has; none without a seed."""
    return [name for name in names if all(side and all(name in one for one in side.values()) for side in sides)]


def _less(ours: BySeed, theirs: BySeed, names: Sequence[str]) -> dict[str, Estimate]:
    both = [seed for seed in ours if seed in theirs]
    mine, others = ({seed: side[seed] for seed in both} for side in (ours, theirs))
    return {
        name: difference_over_seeds(name, [one[name] for one in mine.values()], [one[name] for one in others.values()])
        for name in _in_all(names, mine, others)
    }


def gains(rewards: Mapping[str, BySeed], given: Mapping[str, Columns]) -> dict[str, dict[str, Estimate]]:
    """What choosing the best of a problem's samples by the reward adds to a random one and to the majority."""
    return {
        arm: {
            f"{best}_{key}": difference_over_seeds(best, [one[best] for one in by_seed.values()], [given[against]])
            for best in _in_all(RERANKED, by_seed)
            for key, against in GAINS.items()
            if against in given
        }
        for arm, by_seed in rewards.items()
    }


# -------------------------------------------------------------------------------------------------------- words


def paragraphs(study: StudyReport) -> list[str]:
    """The findings that the figures support, and the conditions they were made under."""
    said = [study.question, *findings(study), _conditions(study)]
    if study.rewards:
        parts = [
            f"{study.arms[arm]['title']} {difference(one['best_lowest_over_random'])}"
            for arm, one in (study.rewards.gains or {}).items()
            if "best_lowest_over_random" in one
        ]
        said.append("Best of 16 by lowest credit less a random one: " + "; ".join(parts) + "." if parts else "")
    if failed := study.about["failed"]:
        runs = listed([f"{name} ({reason})" for name, reason in failed.items()])
        said.append(f"Diverged, and counted in no figure of its arm: {runs}.")
    return [text for text in [*said, study.note] if text]


def findings(study: StudyReport) -> list[str]:
    """The claims of a study by what its figures allow to be said of them, each with the paired difference behind it; a
    claim on an arm that was not trained is left out."""
    by_side: dict[str, list[str]] = {one: [] for one in VERDICTS}
    for where, sentence in _judged(study):
        by_side[where].append(sentence)
    return [f"{VERDICTS[where]}: {'; '.join(found)}." for where, found in by_side.items() if found]


def _judged(study: StudyReport) -> Iterator[tuple[str, str]]:
    """Each claim as a sentence, with the side of zero on which its difference lies."""
    for claim in CLAIMS[study.study]:
        held = {POLICIES: study.policies, REWARDS: study.rewards, **study.parts}.get(claim.among)
        for ours in claim.ours:
            less = held and _difference(held, ours, claim)
            if less and (where := side(less)) in VERDICTS:
                titles = {"ours": study.arms[ours]["title"], "theirs": study.arms[claim.theirs]["title"]}
                yield where, f"{claim.words.format(**titles)} ({less.words})"


def _difference(held: Compared, ours: str, claim: Claim) -> Estimate | None:
    """What the measure of an arm is above that of the claim's other one; None where either was not measured."""
    for pair in held.differences:
        if (found := pair.figures.get(claim.measure)) is None:
            continue
        if (pair.ours, pair.theirs) == (ours, claim.theirs):
            return found
        if (pair.theirs, pair.ours) == (ours, claim.theirs):
            return replace(found, value=-found.value, low=-found.high, high=-found.low)
    return None


def _conditions(study: StudyReport) -> str:
    done, about = study.seeds_done, study.about
    state = f" Unfinished: seeds {listed([str(s) for s in done])} of {len(study.seeds)} are done."
    scale = "" if study.scale == 1 else f" At {study.scale:g} of the full number of rounds."
    started = listed([f"{name} (sha256 {digest[:12]})" for name, digest in about["starts"].items()])
    plural = "seed" if len(done) == 1 else "seeds"
    resampled = "problems and seeds resampled together" if len(done) > 1 else "problems resampled; no spread over seeds"
    return (
        f"{len(done)} {plural}; {study.samples} samples of each of {study.problems} held-out problems of the bundled "
        f"generator, the same for every policy.{scale}{'' if done == study.seeds else state} All arms start from "
        f"{started}. Intervals: 95 %, {resampled}. {machine_in_words(about['machine'])}, {about['created'][:10]}."
    )


# ------------------------------------------------------------------------------------------------------- tables


def tables(study: StudyReport) -> list[Table]:
    """The measured tables, and the published one, which is apart and marked as cited."""
    titles, made = {arm: one["title"] for arm, one in study.arms.items()}, []
    sections = [("Policies", study.policies), *((f"Policies, {title}", one) for title, one in study.parts.items())]
    for heading, held in (*sections, ("Rewards, on the same samples of the start", study.rewards)):
        if held is None:
            continue
        names = [name for name in TITLES if any(name in one for one in held.figures.values())]
        head = ["", *(TITLES[name] for name in names)]
        rows: list[list[Cell]] = [[titles[arm], *map(one.get, names)] for arm, one in held.figures.items()]
        note = "Means over seeds; brackets: 95 % intervals, problems and seeds resampled together; n counts all seeds."
        made.append(Table(heading, head, rows, note))
        rows = [
            [
                f"{titles[one.ours]} less {titles[one.theirs]}",
                *(difference_cell(one.figures.get(name)) for name in names),
            ]
            for one in held.differences
        ]
        note = "Paired by problem and seed. 'No difference shown': the interval holds 0."
        made.append(Table(f"{heading}: differences", head, rows, note))
    if study.rewards:
        heads = {
            f"{best}_{key}": f"{TITLES[best]}, less {'a random sample' if key == 'over_random' else 'the majority'}"
            for best in RERANKED
            for key in GAINS
        }
        rows = [
            [titles[arm], *(difference_cell(one.get(name)) for name in heads)]
            for arm, one in (study.rewards.gains or {}).items()
        ]
        head = ["", *heads.values()]
        made.append(Table("What reranking by the reward adds", head, rows, "One of 16 samples is chosen."))
    return [*made, *_seen(study), *(_published(study.published) if study.published else ())]


def _seen(study: StudyReport) -> list[Table]:
    """What the models of each arm have seen in training, beyond what their starts saw."""
    if not study.seen:
        return []
    head = [
        "", "different demonstrations", "read by the policy", "read by the discriminator", "bare problems", "samples",
        "updates of the policy", "minutes",
    ]  # fmt: skip
    rows: list[list[Cell]] = [
        [
            study.arms[arm]["title"],
            *(f"{value:,.0f}" for value in (
                one.demonstrations, one.by_policy, one.by_discriminator, one.bare, one.samples, one.updates
            )),
            f"{one.seconds / 60:.1f}",
        ]
        for arm, one in study.seen.items()
    ]  # fmt: skip
    note = "Means over seeds, beyond what the start has seen; a demonstration counts each time it is read."
    return [Table("What each arm has seen", head, rows, note)]


def _published(number: int) -> list[Table]:
    """The published table of this number, or a row that says that it could not be read."""
    place = f"table {number}"
    cited = [one for one in published.TABLES if one.source == published.PAPER and one.place.startswith(place)]
    if not cited:
        missing = next(line for line in published.NOT_FOUND if place in line)
        return [Table(f"Published, cited: {place}", ["", "what is not given here"], [[published.PAPER, missing]])]
    return [
        replace(
            one,
            title=f"Published, cited, not measured here: {one.title}",
            note=f"Cited: {one.source}, {one.place}; {one.address}; seen at {one.seen}. {one.note}".strip(),
        )
        for one in cited
    ]


# ------------------------------------------------------------------------------------------------------- writing


def write(study: StudyReport, out: Path) -> dict[str, Any]:
    """``study.json``, ``study.md`` and ``study.html``, each whole or not at all; returns what the first holds.

    Raises:
        CheckpointError: a file cannot be written.
    """
    said, shown = paragraphs(study), tables(study)
    document: dict[str, Any] = to_json(study) | {"paragraphs": said}
    write_whole(out / JSON, json.dumps(document, indent=1, allow_nan=False) + "\n")
    text = [f"# {study.title}\n", *(f"{escaped(line)}\n" for line in said), *(markdown(table) for table in shown)]
    write_whole(out / MARKDOWN, "\n".join(text))
    write_whole(out / HTML, page(study.title, said, shown))
    return document
