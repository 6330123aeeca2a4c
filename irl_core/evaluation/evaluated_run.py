"""An evaluation as stored on disk: data frames of one row a trace, and their provenance. No model is run.

The folder's files are described in ``docs/scored-runs.md``. The tokens of a run stay on disk: `read_batches` and
`read_trace` of ``irl_core.storage.scored_run`` read them from `EvaluatedRun.path` and its neighbours when they are
needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from irl_core.errors import StoreError
from irl_core.storage.schema import SUMMARY_COLUMNS
from irl_core.storage.scored_run import read_provenance, read_run
from irl_core.storage.training_run import METRICS, read_metrics

RUN = "run.parquet"
PERTURBED = "perturbed.parquet"
PROBES = "probes.parquet"
COMPARE = "compare"
WAYS = "ways"
TOKENS_WRITTEN, DRAFT_CORRECT = "tokens_written", "draft_correct"  # in the ``extra`` of a trace of a way


@dataclass(frozen=True, slots=True)
class EvaluatedRun:
    """The stored parts that a report is computed from.

    ``path``: the scored run's file. ``frame``, ``perturbed``, ``probes``, and each of ``compare`` by its name: one row
    a trace with the columns ``SUMMARY_COLUMNS`` of ``irl_core.storage.scored_run``, empty where there is no such file.
    ``ways``: the same of solutions that were written with the reward, by the way's name, with the columns
    ``TOKENS_WRITTEN`` and, of revisions, ``DRAFT_CORRECT``.
    ``provenance``: the run's own. ``training``: the lines of the ``metrics.jsonl`` of the run that made the checkpoint.
    """

    path: Path
    frame: pd.DataFrame
    perturbed: pd.DataFrame
    probes: pd.DataFrame
    compare: dict[str, pd.DataFrame] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    training: list[dict[str, float]] = field(default_factory=list)
    ways: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def perturbed_path(self) -> Path:
        """The file of the perturbed traces; there is one where ``perturbed`` is not empty."""
        return self.path.with_name(PERTURBED)


def load(path: Path) -> EvaluatedRun:
    """Load the folder that ``irl-lens evaluate`` wrote, or the scored run ``path`` alone.

    Raises:
        StoreError: there is no scored run there, or a file that this program does not read.
    """
    if not path.is_dir():
        return EvaluatedRun(path, _frame(path), _frame(None), _frame(None), provenance=read_provenance(path))
    main = path / RUN
    if not main.is_file():
        raise StoreError(f"{path.name}: holds no {RUN}; make one with irl-lens evaluate, or name a scored run's file")
    return EvaluatedRun(
        path=main,
        frame=_frame(main),
        perturbed=_frame(path / PERTURBED),
        probes=_frame(path / PROBES),
        compare={file.stem: _frame(file) for file in sorted((path / COMPARE).glob("*.parquet"))},
        provenance=read_provenance(main),
        training=read_metrics(path / METRICS),
        ways={file.stem: _way(file) for file in sorted((path / WAYS).glob("*.parquet"))},
    )


def _frame(path: Path | None) -> pd.DataFrame:
    """The summary columns of a file, or no row where a folder has none."""
    if path is None or (path.name in (PERTURBED, PROBES) and not path.exists()):
        return pd.DataFrame(columns=SUMMARY_COLUMNS)
    frame: pd.DataFrame = read_run(path, SUMMARY_COLUMNS).to_pandas()
    return frame


def _way(path: Path) -> pd.DataFrame:
    """The summary columns of the solutions of a way, with what they took. Raises StoreError where that is not known."""
    table = read_run(path, [*SUMMARY_COLUMNS, "extra"])
    frame: pd.DataFrame = table.select(SUMMARY_COLUMNS).to_pandas()
    extra = [dict(one) for one in table["extra"].to_pylist()]
    try:
        frame[TOKENS_WRITTEN] = [int(one[TOKENS_WRITTEN]) for one in extra]
    except (KeyError, ValueError) as error:
        raise StoreError(f"{path.name}: a row has no {TOKENS_WRITTEN}; start again with --no-resume") from error
    frame[DRAFT_CORRECT] = [{"True": True, "False": False}.get(one.get(DRAFT_CORRECT, "")) for one in extra]
    return frame
