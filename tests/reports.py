"""A small evaluated run with rewards, and its report page, whose texts are hostile."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from irl_core.evaluation.evaluated_run import load
from irl_core.evaluation.report import make
from irl_core.report.html import to_html
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run

BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "scored_run" / "run.parquet"
HOSTILE = (
    "<img src=x onerror=alert(1)></script><script>alert(2)</script>\u2028\0 $5 and $10 :red[x] ![](http://x.invalid/y)"
)


@cache
def hostile_page(problems: int = 6) -> str:
    """The page of the bundled run's first problems; checkpoint, problems and trace ids are not to be trusted."""
    rows = read_run(BUNDLED).slice(0, 16 * problems).to_pylist()
    for number, row in enumerate(rows):
        row |= {"problem": HOSTILE, "trace_id": f"{HOSTILE}{number}", "checkpoint": HOSTILE}
    provenance: dict[str, Any] = {"checkpoint": HOSTILE, "input": HOSTILE, "machine": HOSTILE}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.parquet"
        write_run(path, rows, provenance)
        run = load(path)
        return to_html(run, make(run))
