"""What a study found: figures over seeds, paired differences, tables, and paragraphs that say no more."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from irl_core.evaluation import published
from irl_core.evaluation.per_problem import TITLES, Columns, difference_over_seeds, over_seeds
from irl_core.evaluation.wording import difference, listed
from irl_core.files import write_whole
from irl_core.report.tables import Table, cell, difference_cell, escaped, markdown, page
from irl_core.statistics.bootstrap import plain
from irl_core.storage.provenance import machine_in_words
from train.studies.definitions import SAMPLES, START, Plan

Found = dict[str, Any]
BySeed = Mapping[int, Mapping[str, Columns]]

JSON, MARKDOWN, HTML = "study.json", "study.md", "study.html"
FILES = (JSON, MARKDOWN, HTML)
PASS = ("pass@1", "pass@3", "pass@5", "pass@10", "pass@16")
REWARD = ("pairs", "pairs_lowest", "best", "best_lowest", "first_step", "error_acc", "correct_acc")
GAINS = {"over_random": "pass@1", "over_majority": "majority"}  # what reranking by the reward is set against
RERANKED = ("best", "best_lowest")


# ------------------------------------------------------------------------------------------------------- figures


def figures(
    plan: Plan,
    seeds: Sequence[int],
    policies: Mapping[str, BySeed],
    rewards: Mapping[str, BySeed],
    given: Mapping[str, Columns],
) -> Found:
    """What ``study.json`` holds of the seeds that are done. ``policies`` and ``rewards``: measures by arm and seed, as
    ``measured`` gives them; ``given``: those of the fixed samples that the rewards were read on."""
    study = plan.study
    found = {
        "study": study.name,
        "title": study.title,
        "question": study.question,
        "note": study.note,
        "seeds": list(plan.seeds),
        "seeds_done": list(seeds),
        "scale": plan.scale,
        "problems": plan.problems,
        "samples": SAMPLES,
        "arms": {START: {"title": "the start"}} | _arms(plan),
        "policies": compared(policies, PASS),
        "published": study.published,
    }
    if study.reading == "rewards":
        found["rewards"] = compared(rewards, REWARD) | {"gains": gains(rewards, given)}
    return dict(plain(found))


def _arms(plan: Plan) -> Found:
    """Of each arm: what it is, its length, and what it sets."""
    first = {training.arm.name: training.config for training in reversed(plan.trainings)}
    return {
        arm.name: {
            "title": arm.title,
            "preset": arm.preset,
            "settings": list(arm.settings),
            "backbone": arm.backbone,
            "steps": first[arm.name].run.steps,
            "warmup_rounds": first[arm.name].discriminator.warmup_rounds,
        }
        for arm in plan.study.arms
    }


def compared(arms: Mapping[str, BySeed], names: Sequence[str]) -> Found:
    """``figures`` by arm and measure, over seeds; ``differences``: of every two arms the later one less the earlier,
    on the seeds that both have."""
    return {
        "figures": {arm: _over(by_seed, names) for arm, by_seed in arms.items()},
        "differences": [
            {"ours": ours, "theirs": theirs, "figures": _differences(arms[ours], arms[theirs], names)}
            for theirs, ours in combinations(arms, 2)
        ],
    }


def _over(by_seed: BySeed, names: Sequence[str]) -> Found:
    return {
        name: over_seeds(name, [one[name] for one in by_seed.values()])
        for name in names
        if by_seed and all(name in one for one in by_seed.values())
    }


def _differences(ours: BySeed, theirs: BySeed, names: Sequence[str]) -> Found:
    seeds = [seed for seed in ours if seed in theirs]
    return {
        name: difference_over_seeds(name, [ours[s][name] for s in seeds], [theirs[s][name] for s in seeds])
        for name in names
        if seeds and all(name in side_[s] for side_ in (ours, theirs) for s in seeds)
    }


def gains(rewards: Mapping[str, BySeed], given: Mapping[str, Columns]) -> Found:
    """What choosing the best of a problem's samples by the reward adds to a random one and to the majority."""
    return {
        arm: {
            f"{best}_{key}": difference_over_seeds(best, [one[best] for one in by_seed.values()], [given[against]])
            for best in RERANKED
            for key, against in GAINS.items()
            if against in given and by_seed and all(best in one for one in by_seed.values())
        }
        for arm, by_seed in rewards.items()
    }


# -------------------------------------------------------------------------------------------------------- words


def paragraphs(found: Found) -> list[str]:
    """What the figures bear out, and under which conditions."""
    arms = found["arms"]
    said = [found["question"], _conditions(found), _about("Policies", found["policies"], arms, ("pass@1", "pass@16"))]
    if "rewards" in found:
        names = ("pairs_lowest", "best_lowest", "first_step")
        said += [_about("Rewards", found["rewards"], arms, names), _reranking(found["rewards"]["gains"], arms)]
    if found["failed"]:
        runs = listed([f"{name} ({reason})" for name, reason in found["failed"].items()])
        said.append(f"Diverged, and counted in no figure of its arm: {runs}.")
    return [text for text in [*said, found["note"]] if text]


def _conditions(found: Found) -> str:
    done, seeds = found["seeds_done"], found["seeds"]
    state = "" if done == seeds else f" Unfinished: seeds {listed([str(s) for s in done])} of {len(seeds)} are done."
    scale = "" if found["scale"] == 1 else f" At {found['scale']:g} of the full number of rounds."
    started = listed([f"{name} (sha256 {digest[:12]})" for name, digest in found["starts"].items()])
    plural = "seed" if len(done) == 1 else "seeds"
    resampled = "problems and seeds resampled together" if len(done) > 1 else "problems resampled; no spread over seeds"
    return (
        f"{len(done)} {plural}; {found['samples']} samples of each of {found['problems']} held-out problems of the "
        f"bundled generator, the same for every policy.{scale}{state} All arms start from {started}. Intervals: 95 %, "
        f"{resampled}. {machine_in_words(found['machine'])}, {found['created'][:10]}."
    )


def _about(what: str, section: Found, arms: Found, names: Sequence[str]) -> str:
    """The differences of every two arms on the chief measures, with their verdicts."""
    parts = [_pair(one, arms, names) for one in section["differences"]]
    said = [part for part in parts if part]
    return f"{what}: " + "; ".join(said) + "." if said else ""


def _pair(one: Found, arms: Found, names: Sequence[str]) -> str:
    measures = [f"{TITLES[name]} {difference(one['figures'][name])}" for name in names if name in one["figures"]]
    pair = f"{arms[one['ours']]['title']} less {arms[one['theirs']]['title']}"
    return f"{pair}: {', '.join(measures)}" if measures else ""


def _reranking(gained: Found, arms: Found) -> str:
    parts = [
        f"{arms[arm]['title']} {difference(one['best_lowest_over_random'])}"
        for arm, one in gained.items()
        if "best_lowest_over_random" in one
    ]
    return "Best of 16 by lowest credit less a random one: " + "; ".join(parts) + "." if parts else ""


# ------------------------------------------------------------------------------------------------------- tables


def tables(found: Found) -> list[Table]:
    """The measured tables, and the published one, which is apart and marked as cited."""
    arms, made = found["arms"], []
    for key, title in (("policies", "Policies"), ("rewards", "Rewards, on the same samples of the start")):
        if key in found:
            made += [_figures(title, found[key], arms), _between(title, found[key], arms)]
    if "rewards" in found:
        made.append(_gained(found["rewards"]["gains"], arms))
    return [*made, *_published(found["published"])]


def _columns(section: Found) -> list[str]:
    return [name for name in TITLES if any(name in one for one in section["figures"].values())]


def _figures(title: str, section: Found, arms: Found) -> Table:
    names = _columns(section)
    rows = [[arms[arm]["title"], *(cell(one.get(name)) for name in names)] for arm, one in section["figures"].items()]
    note = "Means over seeds; brackets: 95 % intervals, problems and seeds resampled together; n counts all seeds."
    return Table(title, ["", *(TITLES[name] for name in names)], rows, note)


def _between(title: str, section: Found, arms: Found) -> Table:
    names = _columns(section)
    rows = [
        [
            f"{arms[one['ours']]['title']} less {arms[one['theirs']]['title']}",
            *(difference_cell(one["figures"].get(name)) for name in names),
        ]
        for one in section["differences"]
    ]
    note = "Paired by problem and seed. 'No difference shown': the interval holds 0."
    return Table(f"{title}: differences", ["", *(TITLES[name] for name in names)], rows, note)


def _gained(gained: Found, arms: Found) -> Table:
    heads = {
        f"{best}_{key}": f"{TITLES[best]}, less {'a random sample' if key == 'over_random' else 'the majority'}"
        for best in RERANKED
        for key in GAINS
    }
    rows = [[arms[arm]["title"], *(difference_cell(one.get(name)) for name in heads)] for arm, one in gained.items()]
    return Table("What reranking by the reward adds", ["", *heads.values()], rows, "One of 16 samples is chosen.")


def _published(number: int) -> list[Table]:
    """The published table of this number, or a row that says that it could not be seen."""
    place = f"table {number}"
    shown_ = [table for table in published.TABLES if table.source == published.PAPER and table.place.startswith(place)]
    if not shown_:
        missing = next(line for line in published.NOT_FOUND if place in line)
        return [Table(f"Published, cited: {place}", ["", "what is not given here"], [[published.PAPER, missing]])]
    return [
        Table(
            f"Published, cited, not measured here: {table.title}",
            ["", *table.columns],
            [[row.name, *row.cells] for row in table.rows],
            f"Cited: {table.source}, {table.place}; {table.address}; seen at {table.seen}. {table.note}".strip(),
        )
        for table in shown_
    ]


# ------------------------------------------------------------------------------------------------------- writing


def write(found: Found, out: Path) -> None:
    """``study.json``, ``study.md`` and ``study.html``, each whole or not at all. Raises CheckpointError."""
    said, shown_ = paragraphs(found), tables(found)
    document = found | {"paragraphs": said}
    write_whole(out / JSON, json.dumps(document, indent=1, allow_nan=False) + "\n")
    text = [f"# {found['title']}\n", *(f"{escaped(line)}\n" for line in said), *(markdown(table) for table in shown_)]
    write_whole(out / MARKDOWN, "\n".join(text))
    write_whole(out / HTML, page(found["title"], said, shown_))
