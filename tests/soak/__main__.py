"""Attacks on everything that writes or reads a stranger's file, outside the tests: ``python -m tests.soak --help``.

A case that does not hold is printed as it is met; at the end comes a table in Markdown. Needs Linux. The exit status is
1 where something did not hold.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch

from tests.soak.attacks import full_disks, kills, pairs, unbroken
from tests.soak.crowd import crowd
from tests.soak.figures import Figures
from tests.soak.login import logins
from tests.soak.odd import odd_checkpoints, odd_rows
from tests.soak.work import WORKS, Score

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run what is asked for; returns the exit status."""
    asked = options()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was started is ended with it
    torch.set_num_threads(1)
    world = Path(tempfile.mkdtemp(prefix="soak-", dir=asked.folder))
    try:
        found = []
        for figures in run(asked, world):
            print(figures.row(), *(f"  NOT HELD: {fault}" for fault in figures.faults), sep="\n", flush=True)
            found.append(figures)
    finally:
        shutil.rmtree(world, ignore_errors=True)
    text = table(found, asked.seed)
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n", encoding="utf-8")
    return int(any(figures.faults for figures in found))


def options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    for name, most, what in (
        ("kills", 500, "kills of score, train, evaluate, annotate, upload, calibrate and study"),
        ("disks", 200, "full disks (a small tmpfs; a limit of file sizes where none can be mounted)"),
        ("pairs", 100, "pairs of writers"),
        ("checkpoints", 500, "malformed checkpoints"),
        ("rows", 500, "malformed rows"),
    ):
        parser.add_argument(f"--{name}", type=int, default=most, help=f"number of {what} [default: {most}]")
    parser.add_argument("--sessions", type=int, default=40, help="sessions of the app at once [default: 40]")
    parser.add_argument("--minutes", type=float, default=60, help="for how long [default: 60]")
    parser.add_argument(
        "--login", action=argparse.BooleanOptionalAction, default=True,
        help="logins at a provider that is started here, with nginx and Caddy in front (needs root) [default: yes]",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn [default: 0]")
    known = [kind.name for kind in WORKS]
    parser.add_argument(
        "--works",
        nargs="+",
        choices=known,
        default=known,
        help=f"what is killed, starved and doubled [default: {known}]",
    )
    parser.add_argument("--folder", type=Path, default=None, help="where to work [default: the temporary folder]")
    parser.add_argument("--out", type=Path, default=None, help="file for the table")
    return parser.parse_args()


def run(asked: argparse.Namespace, world: Path) -> Iterator[Figures]:
    """Every attack that is asked for, a row each."""
    rng = random.Random(asked.seed)
    if asked.rows or asked.checkpoints:
        lens = Score(world).lens
        if asked.rows:
            yield odd_rows(asked.rows, asked.seed, world, lens)
        if asked.checkpoints:
            yield odd_checkpoints(asked.checkpoints, asked.seed, world)
    if asked.kills or asked.disks or asked.pairs:
        works = []
        for kind in (kind for kind in WORKS if kind.name in asked.works):
            whole = unbroken(kind(world))
            print(f"{kind.name} undisturbed: {whole.seconds:.0f} s, {whole.bytes:,} bytes", file=sys.stderr, flush=True)
            works.append(whole)
        yield from full_disks(asked.disks, works, rng)
        yield from pairs(asked.pairs, works, rng)
        yield from kills(asked.kills, works, rng)
    if asked.login:
        yield from logins(world / "login")
    if asked.sessions and asked.minutes:
        table = asked.out.with_suffix(".held.csv") if asked.out else None
        yield from crowd(asked.sessions, asked.minutes, asked.seed, world / "crowd", table)


def table(found: list[Figures], number: int) -> str:
    """The figures as a table, with date, commit and seed."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    day = datetime.now(UTC).date().isoformat()
    head = [
        "| attack | n | outcomes | most processor time, most memory | did not hold |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join([f"{day}, commit {commit}, seed {number}", "", *head, *(figures.row() for figures in found)])


if __name__ == "__main__":
    sys.exit(main())
