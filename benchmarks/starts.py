"""What commands take to start, each beside the least that could be there, in turns.

    python -m benchmarks.starts [--repeats 5]

Seconds are the processor's of a new process, so that other programs do not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
MAIN = ("-m", "train.cli.main")


class Pair(NamedTuple):
    """A start of ours and what it stands beside, as arguments of Python."""

    name: str
    ours: Sequence[str]
    beside: str
    theirs: Sequence[str]


PAIRS = (
    Pair("irl-lens --help", (*MAIN, "--help"), "python -c pass", ("-c", "pass")),
    Pair("train --dry-run", (*MAIN, "train", "gsm8k-irl", "--dry-run"), "--help", (*MAIN, "--help")),
)


def seconds(arguments: Sequence[str], folder: str) -> float:
    """The processor's seconds of a Python process and its children."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IRL_LENS_HOME": folder}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for pair in PAIRS:
            taken = [(seconds(pair.ours, folder), seconds(pair.theirs, folder)) for _ in range(asked.repeats + 1)][1:]
            more = [ours - theirs for ours, theirs in taken]
            ours, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
            print(
                f"{pair.name:16} {ours:.2f} s, {pair.beside} {theirs:.2f} s: {statistics.median(more):+.2f} s "
                f"({min(more):+.2f} to {max(more):+.2f}, n {len(more)})",
                flush=True,
            )


if __name__ == "__main__":
    main()
