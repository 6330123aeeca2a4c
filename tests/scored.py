"""Scored runs on disk for the tests of pages, made without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from irl_core.storage.run_writer import write_run
from irl_core.storage.schema import COLUMNS
from tests.evaluated import frame


def written(path: Path, rows: list[dict[str, Any]], **provenance: Any) -> Path:
    """A scored run with these rows (of `tests.evaluated`), every other column null."""
    records = [
        dict.fromkeys(COLUMNS.names) | {name: value for name, value in row.items() if not _missing(value)}
        for row in frame(rows).to_dict("records")
    ]
    write_run(path, records, provenance)
    return path


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and bool(np.isnan(value)))
