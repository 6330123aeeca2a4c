"""Kills at random moments, disks that are full, and two writers at once: what comes of each, counted."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.soak.figures import Figures
from tests.soak.forked import TRACEBACK, fork
from tests.soak.work import Study, Work

MOST_SECONDS = 3600.0  # for a whole piece of work, on a machine that has others
KILLS_AT_ONCE = 3  # of the same piece of work, at most, before it is let to its end


@dataclass(frozen=True, slots=True)
class Unbroken:
    """A piece of work, its result where nothing happened, and the seconds of processor time that it took."""

    work: Work
    folder: Path
    seconds: float

    @property
    def bytes(self) -> int:
        """The size of the result."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def unbroken(work: Work) -> Unbroken:
    """Do a piece of work once, undisturbed."""
    folder = work.world / "unbroken" / work.name
    for call in (work.prepare, lambda: work.go(folder)):
        ended = fork(call, work.world / "notes" / f"{work.name}-unbroken").wait(MOST_SECONDS)
        assert ended.status == 0, f"{work.name}: {ended.said[-2000:]}"
    return Unbroken(work, folder, ended.seconds)


def compared(whole: Unbroken, found: Path) -> str:
    """Why a result is not the one that nothing happened to; empty where it is."""
    try:
        whole.work.check(found, whole.folder)
    except Exception as error:  # whatever does not hold is a line of the table
        return f"{whole.work.name}: {type(error).__name__} {str(error)[:300]}"
    return ""


def kills(count: int, works: Sequence[Unbroken], rng: random.Random) -> Iterator[Figures]:
    """Kill each piece of work in turn at a random moment, go on with it, and compare the results.

    What ended before its moment came is no kill, and is done again.
    """
    given = [count // len(works) + (number < count % len(works)) for number in range(len(works))]
    for whole, share in zip(works, given, strict=True):
        figures, number = Figures(f"kill -9 of `{whole.work.name}`"), 0
        while (killed := figures.outcomes["killed"]) < share and figures.n < 5 * share:
            number += 1
            folder = whole.work.world / f"kill-{whole.work.name}-{number}"
            notes = whole.work.world / "notes" / folder.name
            for _ in range(min(share - killed, rng.randint(1, KILLS_AT_ONCE))):
                moment = rng.uniform(0.0, whole.seconds)
                ended = fork(lambda: whole.work.go(folder), notes).wait(MOST_SECONDS, kill_after=moment)  # noqa: B023
                try:
                    whole.work.check_killed(folder)
                    fault = ended.said[-300:] if ended.status == TRACEBACK else ""
                except Exception as error:
                    fault = f"{whole.work.name}: {type(error).__name__} {str(error)[:300]}"
                figures.add("killed" if ended.status == -9 else "ended before", fault=fault)
            ended = fork(lambda: whole.work.go(folder), notes).wait(MOST_SECONDS)  # noqa: B023
            fault = compared(whole, folder) if ended.status == 0 else f"not gone on with: {ended.said[-300:]}"
            figures.faults.extend(filter(None, [fault]))
            figures.outcomes["results compared"] += 1
            shutil.rmtree(folder, ignore_errors=True)
        if share:
            yield figures


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """A file system of that size at a folder; the block is given whether this machine lets us make one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder, ignore_errors=True)


def full_disks(count: int, works: Sequence[Unbroken], rng: random.Random) -> Iterator[Figures]:
    """Let the disk be full in the middle of each piece of work in turn; with room again it ends as it would have."""
    works = [whole for whole in works if not isinstance(whole.work, Study)]
    for place, whole in enumerate(works):
        share = count // len(works) + (place < count % len(works))
        figures = Figures(f"full disk under `{whole.work.name}`")
        for number in range(share):
            disk = whole.work.world / f"full-{whole.work.name}-{number}"
            with small_disk(disk, int(rng.uniform(0.05, 0.95) * whole.bytes) + 4096) as mounted:
                full_disk(whole, disk, mounted, rng, figures)
        if share:
            yield figures


def full_disk(whole: Unbroken, disk: Path, mounted: bool, rng: random.Random, figures: Figures) -> None:
    """One case: on the small disk, or, where none can be made, with a limit of the bytes of each file."""
    folder, notes = disk / "work", whole.work.world / "notes" / disk.name
    largest = max((path.stat().st_size for path in whole.folder.rglob("*") if path.is_file()), default=0)
    limit = None if mounted else rng.randint(1, largest)
    ended = fork(lambda: whole.work.go(folder), notes, most_file_bytes=limit).wait(MOST_SECONDS)
    fault = "" if ended.in_words else f"{whole.work.name} on a full disk: {ended.status} {ended.said[-400:]}"
    if mounted:
        subprocess.run(["mount", "-o", f"remount,size={20 * whole.bytes + 2**26}", str(disk)], check=True)
    again = fork(lambda: whole.work.go(folder), notes).wait(MOST_SECONDS)
    worse = compared(whole, folder) if again.status == 0 else f"not gone on with: {again.said[-400:]}"
    kind = "tmpfs" if mounted else "RLIMIT_FSIZE"
    figures.add(f"had room ({kind})" if ended.status == 0 else f"said in words ({kind})", fault=fault or worse)


def pairs(count: int, works: Sequence[Unbroken], rng: random.Random) -> Iterator[Figures]:
    """Start the same piece of work twice at once in one folder: one whole result, the other refused in words."""
    works = [whole for whole in works if not isinstance(whole.work, Study)]
    for place, whole in enumerate(works):
        share = count // len(works) + (place < count % len(works))
        figures = Figures(f"two `{whole.work.name}` at once")
        for number in range(share):
            folder = whole.work.world / f"pair-{whole.work.name}-{number}"
            notes = whole.work.world / "notes"
            both = [
                fork(lambda: whole.work.go(folder), notes / f"{folder.name}-{one}")  # noqa: B023
                for one in range(2)
            ]
            ended = [one.wait(2 * MOST_SECONDS) for one in both]
            states = sorted("done" if one.status == 0 else "refused" for one in ended)
            faults = [f"{whole.work.name}: {one.status} {one.said[-400:]}" for one in ended if not one.in_words]
            if "done" not in states:
                faults.append(f"{whole.work.name}: neither was done: {ended[0].said[-200:]} | {ended[1].said[-200:]}")
            faults = faults or list(filter(None, [compared(whole, folder)]))
            figures.add(" and ".join(states), fault="; ".join(faults))
            shutil.rmtree(folder, ignore_errors=True)
        if share:
            yield figures
