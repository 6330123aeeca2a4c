"""Agreement of annotators with each other and with the model: observed agreement and Cohen's kappa, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from irl_core.data.annotations import Annotation, latest
from irl_core.statistics.bootstrap import Estimate, bootstrap, problem_index, share, too_few, undefined

Array = npt.NDArray[np.float64]

UNSURE = "unsure"
NOTHING_SURE = undefined(0, "solutions", "no solution that both were sure about")


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two annotators, or of one and the model, on the traces that both labelled.

    Attributes:
        first, second: their names.
        unsure: traces left out, since one of them was not sure.
        observed: the share of equal labels.
        kappa: Cohen's (1960), chance agreement removed.
        kinds_kappa: the same where only 'some step is wrong' and 'none is' count.
        confusion: counts of label pairs.
    """

    first: str
    second: str
    unsure: int
    observed: Estimate
    kappa: Estimate
    kinds_kappa: Estimate
    confusion: dict[tuple[str, str], int]


def between_annotators(annotations: Sequence[Annotation], *, seed: int = 0) -> list[Agreement]:
    """Agreement of every two annotators with a trace in common; an annotator's newest label of a trace counts."""
    newest = latest(annotations).values()
    names = sorted({one.annotator for one in newest})
    pairs = []
    for first, second in combinations(names, 2):
        sides = [{one.text_sha256: one for one in newest if one.annotator == name} for name in (first, second)]
        common = [key for key in sides[0] if key in sides[1]]
        if common:
            ours, theirs = ([side[key].label for key in common] for side in sides)
            problems = [sides[0][key].problem_id for key in common]
            pairs.append(agreement(first, second, ours, theirs, problems, seed=seed))
    return pairs


def with_model(
    annotations: Sequence[Annotation], said: Mapping[str, str], *, blind_only: bool = True, seed: int = 0
) -> list[Agreement]:
    """Each annotator against the model. ``said``: the model's label by text_sha256, as `label_of` spells it; an
    annotation that was not blind is left out, unless ``blind_only`` is False."""
    newest = [one for one in latest(annotations).values() if one.blind or not blind_only]
    pairs = []
    for name in sorted({one.annotator for one in newest}):
        own = [one for one in newest if one.annotator == name and one.text_sha256 in said]
        if own:
            ours, theirs = [one.label for one in own], [said[one.text_sha256] for one in own]
            pairs.append(agreement(name, "model", ours, theirs, [one.problem_id for one in own], seed=seed))
    return pairs


def label_of(decision: str | None, step: int | None) -> str:
    """The model's decision (``error``, ``no_error``, ``uncertain``) as an annotator's label."""
    if decision == "error" and step is not None:
        return f"step {step + 1}"
    return "none" if decision == "no_error" else UNSURE


def agreement(
    first: str, second: str, ours: Sequence[str], theirs: Sequence[str], problems: Sequence[str], *, seed: int = 0
) -> Agreement:
    """Agreement of two lists of labels on the same traces. Intervals by a bootstrap over problems."""
    kept = [place for place in range(len(ours)) if UNSURE not in (ours[place], theirs[place])]
    pairs = [(ours[place], theirs[place]) for place in kept]
    ids = [problems[place] for place in kept]
    kinds = [tuple("none" if label == "none" else "error" for label in pair) for pair in pairs]
    return Agreement(
        first,
        second,
        len(ours) - len(kept),
        share([one == other for one, other in pairs], ids, seed=seed) if pairs else NOTHING_SURE,
        kappa(pairs, ids, seed=seed),
        kappa([(one, other) for one, other in kinds], ids, seed=seed),
        dict(Counter(pairs)),
    )


def kappa(pairs: Sequence[tuple[str, str]], ids: Sequence[str], *, seed: int = 0) -> Estimate:
    """Cohen's kappa of pairs of labels: (observed - expected) / (1 - expected) agreement.

    Undefined where both annotators give one and the same label to all traces.
    """
    if not pairs:
        return NOTHING_SURE
    labels = {label: place for place, label in enumerate(sorted({label for pair in pairs for label in pair}))}
    size = len(labels)
    if size == 1:
        return undefined(len(pairs), "solutions", "both give the same label to all")
    count, codes = problem_index(list(ids))
    if few := too_few(count):
        return undefined(len(pairs), "solutions", few)
    columns = np.zeros((count, size * size))
    cells = np.array([labels[one] * size + labels[other] for one, other in pairs])
    np.add.at(columns, (codes, cells), 1.0)

    def statistic(totals: Array) -> Array:
        table = totals.reshape(-1, size, size)
        n = table.sum(axis=(1, 2))
        observed = np.trace(table, axis1=1, axis2=2) / n
        expected = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1) / n**2
        kappas: Array = np.full(len(table), np.nan)
        np.divide(observed - expected, 1 - expected, out=kappas, where=1 - expected > 1e-12)
        return kappas

    return bootstrap(columns, statistic, n=len(pairs), unit="solutions", bounded=False, seed=seed)
