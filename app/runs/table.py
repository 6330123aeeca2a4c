"""Training runs and scored runs as one table: search, differences of their settings, seeds together. No streamlit."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import yaml

from app.analysis import catalogue
from app.analysis.catalogue import RunInfo
from app.jobs.training_runs import FILES, MAX_CONFIG_BYTES, TrainingRun
from app.runs.labels import Label
from irl_core.errors import StoreError
from irl_core.home import runs_folder
from irl_core.storage.training_run import CONFIG

if TYPE_CHECKING:
    from irl_core.evaluation.reranking import Reranking
    from irl_core.evaluation.section import Table

What = Literal["training", "scored run"]
RESULT: Final = "eval/pass@1"
SEED: Final = "run.seed"
OF_NO_GROUP: Final = (SEED, "run.name", "run.out", "run.output", "run.folder")
MOST_CARDS: Final = 12
ABSENT: Final = "not set"
EVALUATION: Final = "evaluation"  # the folder of a training's evaluation, in its own
WRITTEN: Final = "written (UTC)"
JUDGED: Final = "cannot judge"
JUDGED_MEANS: Final = (
    "Of how many solutions of a scored run the model cannot judge: they are unlike those that its checkpoint was made "
    "for (unfamiliar), or without a signal. Their rewards say nothing."
)
PASS: Final = "pass@1"
BEST: Final = "best of N"  # by the reward


@dataclass(frozen=True, slots=True)
class Run:
    """A run of either kind.

    Attributes:
        key: its name among all runs of both kinds.
        state: of a training; for a scored run its number of traces.
        result: pass@1 on held-out problems, where a training has measured it.
        checkpoint: of a scored run, the one that scored it.
        written: when it was written to last.
        judged: of a scored run, how many of its solutions the model cannot judge, in words.
        title: what an upload is listed as; empty for a run that is none.
    """

    key: str
    what: What
    name: str
    path: Path
    state: str
    preset: str = ""
    method: str = ""
    seed: str = ""
    result: float | None = None
    checkpoint: str = ""
    written: datetime | None = None
    label: Label = field(default_factory=Label)
    title: str = ""
    judged: str = ""

    @property
    def listed(self) -> str:
        """What it is listed as."""
        return self.title or self.name

    @property
    def searched(self) -> str:
        """The text that is looked through."""
        told = (self.title, self.name, self.preset, self.method, self.checkpoint, self.state)
        return "\n".join((*told, *self.label.tags, self.label.note)).lower()


def runs(
    trainings: Sequence[TrainingRun],
    results: Mapping[str, float],
    scored: Sequence[RunInfo],
    labels: Mapping[str, Label],
    checkpoint_of: Callable[[Mapping[str, Any]], str],
) -> list[Run]:
    """All runs, the last written to first.

    Args:
        trainings: the training runs.
        results: pass@1 by the name of a training.
        scored: the scored runs.
        labels: what was noted, by the key of a run.
        checkpoint_of: the name of the checkpoint that scored a run, from its provenance.
    """
    found = [
        Run(
            key, "training", one.name, one.path, one.state, one.preset, one.method,
            shown(one.seed), results.get(one.name), "", written(one.path), labels.get(key, Label()),
        )
        for one in trainings
        for key in [training_key(one.name)]
    ]  # fmt: skip
    found += [
        Run(
            key, "scored run", one.name, one.path, f"{one.rows:,} solutions" if not one.reason else "cannot be read",
            checkpoint=checkpoint_of(one.provenance), seed=shown(one.provenance.get("seed")),
            written=datetime.fromtimestamp(one.key[1] / 1e9, UTC) if one.key[1] else None,
            label=labels.get(key, Label()), title=one.title, judged=judged_in(one),
        )
        for one in scored
        for key in [f"scored/{one.name}"]
    ]  # fmt: skip
    return sorted(found, key=lambda run: run.written or datetime.min.replace(tzinfo=UTC), reverse=True)


def training_key(name: str) -> str:
    """The key of a training among all runs, by its name."""
    return f"training/{name}"


def judged_in(run: RunInfo) -> str:
    """How many of a scored run's solutions the model cannot judge, of how many; empty where it cannot be read."""
    if not run.reason:
        with contextlib.suppress(StoreError):  # gone or written over since it was found: the next look-up says so
            return catalogue.judged(run.key).cell
    return ""


def shown(seed: object) -> str:
    """A seed as it is shown; empty where it is not said."""
    return "" if seed is None else str(seed)


def written(path: Path) -> datetime | None:
    """When a training's folder was written to last."""
    times = []
    for name in FILES:
        with contextlib.suppress(OSError):
            times.append((path / name).stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC) if times else None


def search(found: Sequence[Run], words: str, what: str = "all", *, archived: bool = False) -> list[Run]:
    """The runs of a kind (``all`` for both) that hold all of some words."""
    wanted = words.lower().split()
    return [
        run for run in found
        if run.label.archived <= archived and what in ("all", run.what) and all(word in run.searched for word in wanted)
    ]  # fmt: skip


def rows(found: Sequence[Run]) -> list[dict[str, Any]]:
    """A row of the table for each run."""
    return [
        {
            "run": run.listed, "what": run.what, "state": run.state, "tags": ", ".join(run.label.tags),
            "note": run.label.note, "preset": run.preset, "seed": run.seed, "pass@1": run.result,
            JUDGED: run.judged,
            "checkpoint": run.checkpoint, WRITTEN: run.written,
        }
        for run in found
    ]  # fmt: skip


def cards(found: Sequence[Run]) -> Table:
    """The same for a narrow screen, as a table that is drawn a card a run: of ``MOST_CARDS``, what each has."""
    from irl_core.evaluation.section import Table

    told = rows(found[:MOST_CARDS])
    head = [name for name in told[0] if name != "what"] if told else ["run"]
    cells = [
        [one[name].strftime("%Y-%m-%d %H:%M") if name == WRITTEN and one[name] else one[name] for name in head]
        for one in told
    ]
    more = len(found) - MOST_CARDS
    return Table("Runs", head, cells, f"and {more:,} more: search for them" if more > 0 else "")


# ------------------------------------------------------------------------------------------------------------- settings


def settings(path: Path) -> dict[str, str]:
    """The settings of a training by their full names; empty where they cannot be read."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
        if (path / CONFIG).stat().st_size <= MAX_CONFIG_BYTES:
            return dict(_flat(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))))
    return {}


def _flat(value: Any, before: str = "", depth: int = 0) -> list[tuple[str, str]]:
    if isinstance(value, dict) and depth < 6:
        return [pair for name, one in value.items() for pair in _flat(one, f"{before}.{name}".lstrip("."), depth + 1)]
    return [(before, str(value))] if before else []


def differences(chosen: Sequence[Run]) -> list[dict[str, str]]:
    """The settings in which trainings differ, a row a setting and a column a run, those that all of them have first.
    A run whose settings are not known has no column."""
    of_run = {run.name: known for run in chosen if (known := settings(run.path))}
    names = {name for one in of_run.values() for name in one}
    return [
        {"setting": name, **{run: one.get(name, ABSENT) for run, one in of_run.items()}}
        for name in sorted(names, key=lambda name: (any(name not in one for one in of_run.values()), name))
        if len({one.get(name, ABSENT) for one in of_run.values()}) > 1
    ]


def beside(run: Run, chosen: Reranking) -> dict[str, Any]:
    """A scored run as a row of the table that has several beside each other.

    Args:
        run: the scored run.
        chosen: the figures on choosing among its solutions.
    """
    from irl_core.evaluation.reranking import RANDOM_SAMPLE

    one = chosen.baselines.get(RANDOM_SAMPLE, {}).get("1")
    best = chosen.by_score[chosen.vote.score]["1"].value if chosen.by_score else None
    known = f"{chosen.correct:,} of {chosen.traces:,} ({chosen.correct / chosen.traces:.0%})" if chosen.traces else ""
    return {
        "run": run.listed, "solutions": run.state.removesuffix(" solutions"), "right": known, JUDGED: run.judged,
        PASS: one.value if one and one.defined else None, BEST: best.value if best and best.defined else None,
        "checkpoint": run.checkpoint, WRITTEN: run.written,
    }  # fmt: skip


def seeds_together(found: Sequence[Run]) -> list[dict[str, Any]]:
    """Trainings that differ in their seed alone, with the mean and the spread of what they came to."""
    told = []
    by_name = {run.name: run for run in found if run.what == "training"}
    for names in same_but_seed({name: run.path for name, run in by_name.items()}):
        group = [by_name[name] for name in names]
        values = [run.result for run in group if run.result is not None]
        told.append(
            {
                "runs": ", ".join(sorted(names)),
                "seeds": ", ".join(sorted((run.seed for run in group), key=lambda seed: (len(seed), seed))),
                "n": len(values),
                "mean pass@1": statistics.fmean(values) if values else None,
                "standard deviation": statistics.stdev(values) if len(values) > 1 else None,
                "lowest": min(values, default=None),
                "highest": max(values, default=None),
            }
        )
    return told


def same_but_seed(paths: Mapping[str, Path]) -> list[list[str]]:
    """The names of trainings that differ in their seed alone, two or more together, by their folders."""
    groups: dict[frozenset[tuple[str, str]], list[str]] = {}
    for run, path in paths.items():
        if known := settings(path):
            key = frozenset((name, value) for name, value in known.items() if name not in OF_NO_GROUP)
            groups.setdefault(key, []).append(run)
    return [names for names in groups.values() if len(names) > 1]


def scoring(run: Run, checkpoint: str, path: Path, device: str) -> tuple[Path, list[str]]:
    """The folder of a scored run's texts as another checkpoint scores them, and the arguments that do it.

    ``checkpoint``: its name; ``path``: its folder.
    """
    folder = runs_folder() / f"{run.name}-by-{checkpoint}".replace("/", "-")
    return folder, [
        "score", str(run.path.resolve()), "--out", str((folder / "run.parquet").resolve()), "--format",
        "scored-run", "--checkpoint", str(path.resolve()), "--device", device,
    ]  # fmt: skip


def evaluation(
    run: Run, checkpoint: Path, data: str, problems: int, samples: int, device: str
) -> tuple[Path, list[str]]:
    """The folder of a finished training's evaluation, and the arguments of ``irl-lens`` that make it."""
    folder = run.path / EVALUATION
    return folder, [
        "evaluate", "--out", str(folder.resolve()), "--checkpoint", str(checkpoint.resolve()), "--data", data,
        "--problems", str(problems), "--samples", str(samples), "--device", device,
    ]  # fmt: skip
