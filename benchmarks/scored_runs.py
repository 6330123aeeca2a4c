"""A large scored run beside a small one: what each thing that the Failures page does takes on 100,000 traces over what
it takes on 1,000.

    python -m benchmarks.scored_runs [--large 100000 --small 1000 --repeats 9]

Both files hold the bundled run's traces, again and again under other ids, so a trace weighs the same in both. Every
repeat does each thing on both files in turn; a ratio is the geometric mean over the repeats with its 95 % interval.
Seconds are the processor's, so that other programs do not count. The files are in the system's cache from their
making. The lines of ``page`` are what a person waits for on the server: the whole page, opened with nothing kept, and
then filtered. The others are its parts; the index is read once a run and kept, so it is in the opening alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import streamlit as st
from streamlit.testing.v1 import AppTest

from app.analysis import catalogue, chooser, failures
from app.analysis.catalogue import RunInfo
from app.analysis.failures import PAGE_ROWS, Query
from benchmarks.packing import ratio_with_interval
from irl_core.checkpoints import find
from irl_core.storage.scored_run import ROWS_PER_GROUP

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "app" / "views" / "failures.py"
BUNDLED = ROOT / "assets" / "scored_run" / "run.parquet"
QUERY = Query(outcome="incorrect", verdicts=("error",), sort="score_mean_discounted")


def make_run(path: Path, rows: int) -> RunInfo:
    """A run of so many traces, a row group at a time."""
    bundled, written = pq.read_table(BUNDLED), 0
    with pq.ParquetWriter(path, bundled.schema, compression="zstd") as writer:
        while written < rows:
            piece = bundled.slice(written % bundled.num_rows, min(ROWS_PER_GROUP, rows - written))
            ids = pa.array([f"trace-{written + number}" for number in range(piece.num_rows)])
            writer.write_table(piece.set_column(piece.schema.get_field_index("trace_id"), "trace_id", ids))
            written += piece.num_rows
    return catalogue.find(path.stem, [path.parent])


def things(info: RunInfo) -> dict[str, Callable[[], Any]]:
    """What the page does, each on a kept index but for the opening itself."""
    table = catalogue.index(info)
    found = failures.numbers(info, table, QUERY)

    def filtered() -> Any:
        return failures.table_rows(info, failures.numbers(info, table, QUERY)[:PAGE_ROWS], telling=True)

    return {
        "open: read the index": lambda: catalogue.index(info),
        "filter, sort and show 50 rows": filtered,
        "go to the next trace": lambda: catalogue.numbered_row(info, found[-1]),
        "look for words in all texts": lambda: failures.numbers(info, table, Query(words="each week")),
    }


def pages(info: RunInfo) -> dict[str, Callable[[], Any]]:
    """The Failures page as the server draws it, without a browser."""
    opened: list[AppTest] = []

    def shown(page: AppTest) -> None:
        page.run()
        if page.exception or not page.dataframe:
            raise RuntimeError(f"the page shows no table: {[error.message for error in page.exception]}")

    def opening() -> None:
        st.cache_resource.clear()
        st.cache_data.clear()
        page = AppTest.from_file(str(PAGE), default_timeout=120)
        page.session_state[chooser.STATE] = [info.name]
        shown(page)
        opened[:] = [page]

    def filtering() -> None:
        st.cache_data.clear()  # else the numbers of the same filter are kept
        (toggle,) = (one for one in opened[0].toggle if one.key == "descending")
        toggle.set_value(not toggle.value)
        shown(opened[0])

    return {"page: open": opening, "page: sort and filter again": filtering}


def seconds(thing: Callable[[], Any]) -> float:
    before = time.process_time()
    thing()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--repeats", type=int, default=9)
    chosen = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(failures, "DATABASE", Path(folder) / "annotations.sqlite"),
        patch.object(find, "default_roots", lambda environ=None: (Path(folder),)),
    ):
        runs = [make_run(Path(folder) / f"{rows}.parquet", rows) for rows in (chosen.large, chosen.small)]
        large, small = (pages(run) | things(run) for run in runs)
        print(f"{chosen.large:,} traces over {chosen.small:,}; {chosen.repeats} repeats")
        for name in large:
            pairs = [(seconds(large[name]), seconds(small[name])) for _ in range(chosen.repeats)]
            ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            mean, low, high = ratio_with_interval(ours, theirs)
            typical = [1000 * sorted(values)[len(values) // 2] for values in (ours, theirs)]
            print(f"{name:<32} {mean:8.2f} [{low:.2f}, {high:.2f}]   {typical[0]:.1f} ms, {typical[1]:.1f} ms")


if __name__ == "__main__":
    main()
