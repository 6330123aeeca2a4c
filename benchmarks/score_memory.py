"""Memory and time of ``irl-lens score`` on files of growing length.

    python -m benchmarks.score_memory [--checkpoint demo] [--traces 1000 4000 16000]

Each file is scored by a process of its own, whose peak of resident memory and seconds of the processor are told. The
traces are the bundled solutions, again and again, under other ids.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOLUTIONS = ROOT / "assets" / "solutions-gsm8k.jsonl"


def write(path: Path, count: int) -> None:
    """A file of so many traces."""
    rows = [json.loads(line) for line in SOLUTIONS.read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            file.write(json.dumps({**row, "id": f"trace-{number}"}) + "\n")


def scored(source: Path, checkpoint: str) -> tuple[float, float]:
    """Peak memory in MB (10^6 bytes) and seconds of the processor of scoring a file."""
    command = [sys.executable, "-m", "train.cli.main", "score", str(source), "--checkpoint", checkpoint]
    command += ["--out", str(source.with_suffix(".parquet")), "--device", "cpu"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, told = process.communicate()
    if process.returncode:
        raise RuntimeError(told.decode(errors="replace")[-500:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # the largest child so far: files grow, so it is this one
    return after.ru_maxrss * 1024 / 1e6, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--traces", type=int, nargs="+", default=[1000, 4000, 16000])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for count in sorted(asked.traces):
            source = Path(folder) / f"{count}.jsonl"
            write(source, count)
            memory, spent = scored(source, asked.checkpoint)
            each = f"{1000 * spent / count:.1f} ms a trace, the start included"
            print(f"{count:7,} traces: at most {memory:,.0f} MB; {spent:.0f} s, {each}", flush=True)


if __name__ == "__main__":
    main()
