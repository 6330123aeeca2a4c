"""`irl-lens compare`: evaluated runs beside each other, and their differences on the problems that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irl_core.errors import ConfigError
from irl_core.evaluation.evaluated_run import EvaluatedRun, load
from irl_core.evaluation.per_problem import TITLES, difference, estimate, measured
from irl_core.evaluation.report import judged
from irl_core.evaluation.section import Cell, Table, difference_cell
from irl_core.report.tables import page
from irl_core.reward.verdict import NOT_MEASURED, Judged
from irl_core.statistics.bootstrap import Estimate


def open_runs(paths: Sequence[Path]) -> dict[str, EvaluatedRun]:
    """The runs by name: the folder's or file's, with as many folders above it as it takes to tell them apart.

    Raises:
        ConfigError: fewer than two, or one twice.
        StoreError: a path that holds no run.
    """
    resolved = [path.resolve() for path in paths]
    if len(resolved) < 2:
        raise ConfigError(f"{len(resolved)} run to compare; name two at least")
    twice = next((path for number, path in enumerate(resolved) if path in resolved[:number]), None)
    if twice is not None:
        raise ConfigError(f"{twice.name} is named twice; a run is compared with others")
    names = [str(path) for path in resolved]
    for depth in range(max(len(path.parts) for path in resolved), 0, -1):
        shorter = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(shorter)) == len(shorter):
            names = shorter
    return {name: load(path) for name, path in zip(names, resolved, strict=True)}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Scored runs beside each other.

    Attributes:
        runs: what each one is of, in its provenance's words.
        judged: how many of each one's traces its model cannot judge, and how many are unfamiliar.
        problems: the number of each one's problems. shared: of those that it shares with the first.
        titles: of the measures. figures: by run and measure.
        first: the run that the others are set against.
        differences: each further run less the first, by measure, the problems that both have resampled together.
    """

    runs: dict[str, dict[str, object]]
    judged: dict[str, Judged]
    problems: dict[str, int]
    shared: dict[str, int]
    titles: dict[str, str]
    figures: dict[str, dict[str, Estimate]]
    first: str
    differences: dict[str, dict[str, Estimate]]


DESCRIBED = ("checkpoint", "checkpoint_sha256", "input", "input_sha256", "samples", "seed", "created")


def comparison(runs: Mapping[str, EvaluatedRun], *, seed: int = 0) -> Comparison:
    """The figures of each scored run, and the differences to the first one. ``seed``: of the bootstrap."""
    by_run = {name: measured(run) for name, run in runs.items()}
    first, *others = runs
    problems = {name: set(run.frame["problem"]) for name, run in runs.items()}
    return Comparison(
        runs={
            name: {"traces": len(run.frame), **{key: run.provenance[key] for key in DESCRIBED if key in run.provenance}}
            for name, run in runs.items()
        },
        judged={name: judged(run.frame) for name, run in runs.items()},
        problems={name: len(texts) for name, texts in problems.items()},
        shared={name: len(problems[first] & problems[name]) for name in others},
        titles={name: title for name, title in TITLES.items() if any(name in one for one in by_run.values())},
        figures={
            name: {key: estimate(key, columns, seed=seed) for key, columns in one.items()}
            for name, one in by_run.items()
        },
        first=first,
        differences={
            name: {
                key: difference(key, columns, by_run[first][key], seed=seed)
                for key, columns in by_run[name].items()
                if key in by_run[first]
            }
            for name in others
        },
    )


def tables(found: Comparison) -> list[Table]:
    """The comparison as tables: the figures, the differences to the first, and how much each model could judge, which
    says of how many traces the figures of its reward speak."""
    figures: list[list[Cell]] = [
        [title, *(found.figures[name].get(key) for name in found.runs)] for key, title in found.titles.items()
    ]
    differences: list[list[Cell]] = [
        [title, *(difference_cell(by_measure.get(key)) for by_measure in found.differences.values())]
        for key, title in found.titles.items()
        if any(key in by_measure for by_measure in found.differences.values())
    ]
    shared = "; ".join(f"{name}: {n} problems in common" for name, n in found.shared.items())
    return [
        Table("Figures", ["", *found.runs], figures, "Brackets: 95 % intervals over problems."),
        Table(
            f"Difference to {found.first}, on the same problems",
            ["", *found.differences],
            differences,
            f"{shared}. The problems are resampled together.",
        ),
        judged_table(found.judged),
    ]


def judged_table(found: Mapping[str, Judged]) -> Table:
    """What each run's model could judge, a column a run."""
    unlike: list[Cell] = [
        f"{one.unfamiliar:,} of {one.measured:,}" if one.measured else NOT_MEASURED for one in found.values()
    ]
    return Table(
        "What the model could judge",
        ["", *found],
        [
            ["solutions that it cannot judge", *(one.cell for one in found.values())],
            ["unfamiliar ones, of those measured", *unlike],
        ],
        "It cannot judge those unlike the ones that its checkpoint was made for (unfamiliar), or without a signal.",
    )


def to_html(found: Comparison) -> str:
    """The comparison as one page."""
    described = [
        f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in one.items())
        for name, one in found.runs.items()
    ]
    return page("Runs compared", described, tables(found))
