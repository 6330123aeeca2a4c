"""What a large file takes under `accelerate launch`: each part of the work a trace, and the plan for a million of them.

    python -m benchmarks.large_files [--checkpoint demo --traces 128 --repeats 5 --plan 1000000]

The traces are those of the bundled scored run, under other ids. Every repeat reads them, scores them, writes their part
and merges it, and takes the processor's seconds of each, so that other programs do not count; figures are means over
the repeats with Student's 95 % interval. The plan adds them up: reading is done by every process, scoring and writing
are divided, merging is the first one's. It holds for a core like this one; of a GPU the share of scoring is another.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from irl_core.scorer import Lens
from irl_core.storage.provenance import machine_in_words, this_machine
from irl_core.storage.run_writer import RunWriter
from train.cli.options import checkpoint_folder
from train.score_file import WINDOW, read_traces, score_window

BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "scored_run" / "run.parquet"
WORK = ("read", "score", "write", "merge")
PROCESSES = (1, 8, 64)
T = TypeVar("T")


def source_of(folder: Path, traces: int) -> Path:
    """A file with so many solutions of the bundled run."""
    rows = pq.read_table(BUNDLED, columns=["problem", "text"]).to_pylist()
    path = folder / "in.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(traces):
            row = rows[number % len(rows)]
            line = {"id": f"t-{number}", "question": row["problem"], "solution": row["text"]}
            file.write(json.dumps(line) + "\n")
    return path


def timed(kept: list[float], work: Callable[[], T]) -> T:
    """What the work returns; its seconds of the processor are kept."""
    began = time.process_time()
    done = work()
    kept.append(time.process_time() - began)
    return done


def once(lens: Lens, source: Path, out: Path, seconds: dict[str, list[float]], batch_tokens: int) -> int:
    """All of the work once; returns the bytes of the run."""
    traces: list[Any] = timed(seconds["read"], lambda: list(read_traces(source, "plain")[1]))
    scored = timed(seconds["score"], lambda: score_window(lens, traces, run_id="run", batch_tokens=batch_tokens))
    writer = RunWriter(out, {"created": "now"}, resume=False)
    timed(seconds["write"], lambda: writer.write(*scored))
    timed(seconds["merge"], writer.finish)
    return out.stat().st_size


def mean_with_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--traces", type=int, default=128, help="512 at most: one part")
    parser.add_argument("--repeats", type=int, default=5, help="2 or more")
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--plan", type=int, default=1_000_000, help="traces of the file that is planned for")
    chosen = parser.parse_args()
    if not 1 <= chosen.traces <= WINDOW or chosen.repeats < 2:
        parser.error(f"--traces {chosen.traces}, --repeats {chosen.repeats}: 1 to {WINDOW}, and 2 or more")
    lens = Lens.load(checkpoint_folder(chosen.checkpoint), "cpu")
    seconds: dict[str, list[float]] = {name: [] for name in WORK}
    with tempfile.TemporaryDirectory() as folder:
        source = source_of(Path(folder), chosen.traces)
        given = source.stat().st_size
        for _ in range(1 + chosen.repeats):
            written = once(lens, source, Path(folder) / "run.parquet", seconds, chosen.batch_tokens)
    print(
        f"{chosen.checkpoint} on {machine_in_words(this_machine())}; {chosen.traces} traces, {chosen.repeats} repeats"
    )
    each: dict[str, float] = {}
    for name, values in seconds.items():
        each[name], half = mean_with_interval([one / chosen.traces for one in values[1:]])
        low, high = 1e3 * (each[name] - half), 1e3 * (each[name] + half)
        print(f"{name:6} {1e3 * each[name]:9.3f} ms a trace [{low:.3f}, {high:.3f}]")
    print(f"bytes a trace: {given / chosen.traces:,.0f} read, {written / chosen.traces:,.0f} in the run")
    for processes in PROCESSES:
        divided = chosen.plan * (each["score"] + each["write"]) / processes
        whole = chosen.plan * (each["read"] + each["merge"])
        print(f"{chosen.plan:,} traces on {processes:3} processes: {(divided + whole) / 3600:7.2f} h")


if __name__ == "__main__":
    main()
