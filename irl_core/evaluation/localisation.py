"""Localisation of the first error, in words and in tables (the figures: `irl_core.evaluation.first_error`)."""

from __future__ import annotations

from collections.abc import Mapping

from irl_core.evaluation import first_error, perturbed
from irl_core.evaluation.calibration import conformal_table, reliability_table
from irl_core.evaluation.evaluated_run import EvaluatedRun
from irl_core.evaluation.first_error import (
    ALWAYS,
    COMBINED,
    REWARD,
    TITLES,
    VERDICTS,
    Localisation,
    OnLabels,
    OnPerturbed,
)
from irl_core.evaluation.section import Cell, Section, Table
from irl_core.reward.wording import rule_words
from irl_core.statistics.bootstrap import Estimate
from irl_core.statistics.wording import difference, ranking

NO_RIVALS = (REWARD, COMBINED, "anchor")  # the anchor is what the reward knew before its adversarial training


def section(run: EvaluatedRun, *, seed: int = 0, answer_lines: bool | None = None) -> Section[Localisation]:
    """Localisation as a section of the report; ``answer_lines``: may a closing line be the wrong step?

    Raises:
        StoreError: the traces cannot be located by one rule.
    """
    localisation = first_error.figures(run, seed=seed, answer_lines=answer_lines)
    return Section("Localisation", localisation, paragraph(localisation), tables(localisation), localisation.reason)


# ------------------------------------------------------------------------------------------------ words


def paragraph(localisation: Localisation) -> str:
    """The answer to: does the reward point at the first error, and better than what needs no reward?"""
    if localisation.reason:
        return f"Where the first error is cannot be judged: {localisation.reason}."
    parts = [
        label_words(localisation),
        confidence_words(localisation.on_labels),
        perturbed_words(localisation.perturbed),
    ]
    return " ".join(part for part in parts if part)


def label_words(localisation: Localisation) -> str:
    """The methods on the labelled traces."""
    labels, rows = localisation.labels, localisation.methods
    if not labels or not labels.wrong or not rows or not localisation.judged_by or not localisation.on_labels:
        correct = labels.correct if labels else 0
        return f"No solution of the run itself has a known first error ({correct} are known to have none)."
    rivals = [name for name in ("random", "first", "least_likely", "likelihood", "arithmetic") if name in rows]
    told = [f"{TITLES[name]} {rows[name]['exact'].words}" for name in rivals]
    best = best_baseline(rows)
    text = (
        f"On {labels.wrong} wrong and {labels.correct} correct solutions of {labels.problems} problems, the reward "
        f"(rule: {rule_words(localisation.judged_by.rule)}) names the first wrong step in "
        f"{rows[REWARD]['exact'].words} of the wrong ones; beside it: {', '.join(told)}. Against the best of what "
        f"needs no reward, {TITLES[best]}, the margin is {_margin(rows[best])}. "
    )
    if "anchor" in rows:
        text += (
            f"The model that the discriminator started from names {rows['anchor']['exact'].words} by its "
            "log-probability alone, before any adversarial training; the reward less this is "
            f"{_margin(rows['anchor'])}. "
        )
    row, oracle = rows[REWARD], localisation.on_labels.oracle
    if not row["f1"].defined:
        return f"{text}ProcessBench's F1 is {row['f1'].words}."
    return (
        f"{text}At the held-out threshold error_acc is {row['error_acc'].words}, correct_acc "
        f"{row['correct_acc'].words} and F1 {row['f1'].words} (at the oracle threshold, an upper bound, "
        f"{oracle.f1.words}); MCC is {row['mcc'].words}."
    )


def _margin(row: Mapping[str, Estimate]) -> str:
    return difference(row["reward_minus_this"], "better than it", "worse than it")


def best_baseline(rows: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Of the methods that need no reward, the one that names most first wrong steps of these traces."""
    rivals = [name for name in rows if name not in NO_RIVALS]
    return max(rivals, key=lambda name: rows[name]["exact"].value if rows[name]["exact"].defined else 0.0)


def confidence_words(labelled: OnLabels | None) -> str:
    """The calibration error, and the share of correct traces that is flagged against the promise."""
    if labelled is None:
        return ""
    ece = f"The confidence is off by {labelled.reliability.ece.words} on average (expected calibration error)."
    promised = next(level for level in labelled.conformal.levels if level.promised)
    flagged = promised.flagged
    if not flagged.defined:
        return f"{ece} Whether correct solutions are spared as promised is not known: {flagged.reason}."
    if promised.alpha is None:
        return f"{ece} Of the correct solutions {flagged.words} are flagged; {labelled.conformal.reason}."
    return (
        f"{ece} Of the correct solutions {flagged.words} are flagged where at most {promised.alpha:g} was promised: "
        f"{promised.verdict}."
    )


def perturbed_words(results: OnPerturbed | None) -> str:
    """The methods and tokens on the perturbed traces."""
    if results is None or results.reason or results.tokens is None:
        return f"On corrupted expert solutions nothing can be said: {results.reason if results else ''}."
    exact = {name: row["exact"].words for name, row in results.methods.items()}
    text = (
        f"On {results.traces} corrupted expert solutions the reward names the corrupted step in {exact[REWARD]}, the "
        f"least likely token in {exact['least_likely']}, the checker in {exact['arithmetic']}, a random step in "
        f"{exact['random']}."
    )
    signal, step = results.tokens.signal, results.tokens.within_step
    area = results.tokens.token_auc[perturbed.ALL].get(signal)
    if area is None:
        return text
    return (
        f"{text} The AUC of {signal} for the corrupted token against those before it is {area.at.words} "
        f"({ranking(area.at)}), with all after it {area.since.words} ({ranking(area.since)}). Within the wrong step "
        f"its most suspect token is the corrupted one in {step.token_exact.words}, a random one in "
        f"{step.random_token.words}."
    )


# ------------------------------------------------------------------------------------------------ tables

DECISIONS = {
    f"{truth}_{said}": f"{truth} solutions: '{said.replace('_', ' ')}'"
    for truth in ("correct", "wrong")
    for said in ("error", "uncertain", "no_error")
}
DISTANCES = {
    "mean_absolute": "distance, steps",
    "mean": "named less true, steps (below 0: too early)",
    "within_one": "at most one step away",
    "too_early": "too early",
    "too_late": "too late",
}
WITHIN = {
    "token_exact": "is the corrupted one",
    "random_token": "a random token of the step is the corrupted one",
    "same_part": "stands in the same part of the equation",
    "first_equation": "stands in the step's first equation",
    "distance": "distance to the corrupted one, in tokens",
}


def tables(localisation: Localisation) -> tuple[Table, ...]:
    """Methods, decisions, distance, confidence, kinds of mistakes; then the perturbed traces."""
    if localisation.reason:
        return ()
    keys = ("exact", "reward_minus_this", *VERDICTS)
    rows: list[list[Cell]] = []
    for name, row in (localisation.methods or {}).items():
        cells: list[Cell] = [row.get(key) for key in keys]
        rows.append(
            [TITLES[name], *("-" if isinstance(one, Estimate) and one.reason == ALWAYS else one for one in cells)]
        )
    if localisation.on_labels:
        oracle = [getattr(localisation.on_labels.oracle, key) for key in VERDICTS]
        forced = [getattr(localisation.on_labels.forced, key) for key in VERDICTS]
        rows.append(["reward, oracle threshold", None, None, *oracle])
        rows.append(["reward, undecided counted as no error", None, None, *forced])
    methods = Table(
        "First wrong step, solutions of the run",
        ["method", "exact", "reward less this", "error_acc", "correct_acc", "F1", "MR-GSM8K step accuracy", "MCC"],
        rows,
        "A dash: the method names a step in every solution and has no threshold. The oracle threshold has the best F1 "
        "on these very solutions, and is an upper bound.",
    )
    return (methods, *label_tables(localisation.on_labels), *perturbed_tables(localisation.perturbed))


def label_tables(labelled: OnLabels | None) -> list[Table]:
    """Decisions, distance, confidence, the flagged share, kinds of mistakes."""
    if labelled is None:
        return []
    names = [name for name in TITLES if any(name in row for row in labelled.kinds.values())]
    return [
        Table(
            "What was decided, at the held-out threshold",
            ["truth and decision", "share"],
            [[DECISIONS[key], estimate] for key, estimate in labelled.decisions.items()],
        ),
        Table(
            "Distance of the named from the true step, in wrong solutions",
            ["", "steps or share"],
            [[title, getattr(labelled.distance, key)] for key, title in DISTANCES.items()],
            mixed=True,
        ),
        reliability_table(labelled.reliability),
        conformal_table(labelled.conformal),
        Table(
            "Kinds of mistakes",
            ["kind", "share of wrong solutions", *(TITLES[name] for name in names)],
            [[kind, row["share"], *(row.get(name) for name in names)] for kind, row in labelled.kinds.items()],
        ),
    ]


def perturbed_tables(results: OnPerturbed | None) -> list[Table]:
    """Methods, kinds of perturbation, tokens."""
    if results is None or results.reason or results.tokens is None:
        return []
    areas = {kind: row for kind, row in results.tokens.token_auc.items() if row}
    signals = list(next(iter(areas.values()), {}))
    return [
        Table(
            "First wrong step, corrupted expert solutions",
            ["method", "exact", "reward less this"],
            [[TITLES[name], row["exact"], row.get("reward_minus_this")] for name, row in results.methods.items()],
        ),
        Table(
            "First wrong step by corruption",
            ["corruption", *(TITLES[name] for name in results.methods)],
            [[kind, *(row.get(name) for name in results.methods)] for kind, row in (results.kinds or {}).items()],
        ),
        Table(
            "Corrupted tokens",
            ["corruption", *(f"{signal}, {where}" for signal in signals for where in ("at", "from"))],
            [
                [kind, *(area for signal in signals for area in (row[signal].at, row[signal].since))]
                for kind, row in areas.items()
            ],
            "AUC of a low value: the first corrupted token (at) or all from it on (from), against those before it.",
        ),
        Table(
            "Within the wrong step: the most suspect token",
            ["", "share or tokens"],
            [[title, getattr(results.tokens.within_step, key)] for key, title in WITHIN.items()],
            mixed=True,
        ),
    ]
