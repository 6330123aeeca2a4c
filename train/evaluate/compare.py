"""`irl-lens compare`: evaluated runs beside each other, and their differences on the problems that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irl_core.errors import ConfigError
from irl_core.evaluation.evaluated_run import EvaluatedRun, load
from irl_core.evaluation.per_problem import TITLES, difference, figure, measured
from irl_core.report.tables import Table, cell, difference_cell, page
from irl_core.statistics.bootstrap import plain

Found = dict[str, Any]


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
    return {name: load(path) for name, path in zip(_names(resolved), resolved, strict=True)}


def _names(paths: Sequence[Path]) -> list[str]:
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def comparison(runs: Mapping[str, EvaluatedRun], *, seed: int = 0) -> Found:
    """``figures`` by run and measure; ``differences`` of each further run to the first one, the problems that both have
    resampled together; ``problems``: each run's, and those it shares with the first."""
    by_run = {name: measured(run) for name, run in runs.items()}
    first, *others = runs
    problems = {name: set(run.frame["problem"]) for name, run in runs.items()}
    found = {
        "runs": {name: _described(run) for name, run in runs.items()},
        "problems": {name: len(texts) for name, texts in problems.items()},
        "shared": {name: len(problems[first] & problems[name]) for name in others},
        "titles": {name: title for name, title in TITLES.items() if any(name in one for one in by_run.values())},
        "figures": {
            name: {key: figure(key, columns, seed=seed) for key, columns in one.items()} for name, one in by_run.items()
        },
        "first": first,
        "differences": {
            name: {
                key: difference(key, columns, by_run[first][key], seed=seed)
                for key, columns in by_run[name].items()
                if key in by_run[first]
            }
            for name in others
        },
    }
    return dict(plain(found))


def _described(run: EvaluatedRun) -> dict[str, Any]:
    known = run.provenance
    keys = ("checkpoint", "checkpoint_sha256", "input", "input_sha256", "samples", "seed", "created")
    return {"traces": len(run.frame), **{key: known[key] for key in keys if key in known}}


def tables(found: Found) -> list[Table]:
    """The comparison as two tables: the runs' figures, and the differences to the first."""
    names = list(found["runs"])
    figures, titles = found["figures"], found["titles"]
    rows = [[title, *(cell(figures[name].get(key)) for name in names)] for key, title in titles.items()]
    made = [Table("Figures", ["", *names], rows, "Brackets: 95 % intervals over problems.")]
    others = list(found["differences"])
    rows = [
        [title, *(difference_cell(found["differences"][name].get(key)) for name in others)]
        for key, title in titles.items()
        if any(key in found["differences"][name] for name in others)
    ]
    shared = "; ".join(f"{name}: {found['shared'][name]} problems in common" for name in others)
    title = f"Difference to {found['first']}, on the same problems"
    return [*made, Table(title, ["", *others], rows, f"{shared}. The problems are resampled together.")]


def to_html(found: Found) -> str:
    """The comparison as one page."""
    described = [
        f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in one.items())
        for name, one in found["runs"].items()
    ]
    return page("Runs compared", described, tables(found))
