"""Many sessions at once, near the limits of the queue before a checkpoint, for as long as is asked for."""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median
from subprocess import Popen

from app.inspect.scoring_queue import MAX_WAITING, MOST_TRACES_WAITING
from tests.soak.figures import Figures
from tests.soak.served import ROOT, Held, complaints, held, rises, running
from tests.soak.tab import Drawn, Tab, TabError

SHARE = 0.9  # of the limits of the queue, which the sessions together keep filled
SECONDS_BETWEEN_LOOKS = 10.0
LOOKS_A_LINE = 6  # how many until the next line on the terminal
MOST_WARM = 15.0  # minutes until memory has to be flat, at most a quarter of the whole
SAMPLED = (1, 8, 16)  # how many traces a request asks for; one stands for a solution that is pasted
HOW_OFTEN = (20, 45, 35)
QUESTIONS = 12  # of each kind, so that each is asked again and again, and has to be answered as before
PAGES = ("Failures", "Distributions", "Correlations", "Reranking", "Training curves", "Runs", "Upload")


class Turnstile:
    """Lets as many requests in as keep the queue filled to its share, and no more."""

    def __init__(self) -> None:
        self.room = {"requests": round(SHARE * MAX_WAITING), "traces": round(SHARE * MOST_TRACES_WAITING)}
        self.inside = {"requests": 0, "traces": 0}
        self.filled: list[dict[str, int]] = []
        self.changed = threading.Condition()

    @contextmanager
    def entered(self, traces: int) -> Iterator[None]:
        """Wait until there is room, and take it for as long as the block lasts."""
        taken = {"requests": 1, "traces": traces}
        with self.changed:
            self.changed.wait_for(lambda: all(self.inside[one] + taken[one] <= self.room[one] for one in taken))
            self.inside = {one: self.inside[one] + taken[one] for one in taken}
            self.filled.append(self.inside)
        try:
            yield
        finally:
            with self.changed:
                self.inside = {one: self.inside[one] - taken[one] for one in taken}
                self.changed.notify_all()


@dataclass(slots=True)
class Crowd:
    """What the sessions share: where they go, how long, what they have seen."""

    address: str
    until: float
    turnstile: Turnstile = field(default_factory=Turnstile)
    answers: dict[tuple[int, int, str], str] = field(default_factory=dict)
    figures: Figures = field(default_factory=lambda: Figures("sessions at once"))
    lock: threading.Lock = field(default_factory=threading.Lock)
    ahead: list[int] = field(default_factory=list)
    waited: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def note(self, outcome: str, seconds: float, fault: str = "") -> None:
        """Count something that a session did."""
        with self.lock:
            self.figures.add(outcome, fault=fault)
            self.waited[outcome].append(seconds)

    def live(self, number: int, seed: int) -> None:
        """The life of one session: tabs that are opened, used and closed, until the time is over."""
        rng = random.Random(seed * 1000 + number)
        while time.monotonic() < self.until:
            try:
                with Tab(self.address) as tab:
                    with self.turnstile.entered(1):  # the first example is inspected at once
                        self.did("opened", tab.open)
                    self.use(tab, rng)
            except Exception as error:  # whatever a session meets is counted
                self.note("broken off", 0.0, f"session {number}: {type(error).__name__} {str(error)[:300]}")
                time.sleep(1)

    def use(self, tab: Tab, rng: random.Random) -> None:
        """Ask and look around in a tab; one in five is closed while its last request waits."""
        for _ in range(rng.randint(3, 12)):
            if time.monotonic() >= self.until:
                return
            if rng.random() < 0.15:
                page = rng.choice(PAGES)
                for name in (page, "Inspect"):
                    self.did("pages looked at", partial(tab.open, page=name))
            else:
                self.inspect(tab, *rng.choices(SAMPLED, HOW_OFTEN), rng.randrange(QUESTIONS))
        if rng.random() < 0.2:
            with self.turnstile.entered(1):
                tab.ask(button="Inspect", filled={"Solution (optional)": f"1+1={rng.random()}"})
                time.sleep(rng.random())
            self.note("closed while it waited", 0.0)

    def inspect(self, tab: Tab, traces: int, question: int) -> None:
        """One request: its answer is of its own question, and the one that it had before."""
        problem = f"Ben has {question + 20} nuts and eats 2 of them. How many nuts are left?"
        solution = f"{question + 20}-2={question + 18}\n#### {question + 18}" if traces == 1 else ""
        tab.run(filled={"Problem": problem, "Solution (optional)": solution})
        with self.turnstile.entered(traces):
            filled: dict[str, str | float] = {} if solution else {"Solutions to write": traces}
            drawn = self.did(f"inspections of {traces}", partial(tab.press, "Inspect", **filled))
        shown = [one.json or one.mixed.json for one in drawn.of("bidi_component")]  # type: ignore[attr-defined]
        title = json.loads(shown[0])["title"] if shown else ""  # a tab goes on with the trace that it showed before
        with self.lock:
            before = self.answers.setdefault((traces, question, title), "".join(shown))
        if len(shown) != 1 or (solution and f"{question + 18}" not in shown[0]):
            raise TabError(f"asked of {problem} and shown {shown[:1]}; {drawn.texts[:6]}")
        if before != shown[0]:
            raise TabError(f"another answer than before to {problem}: {shown[0][:300]} and {before[:300]}")

    def did(self, what: str, call: Callable[[], Drawn]) -> Drawn:
        """Do something in a tab, and count it with what the page says of errors."""
        began = time.monotonic()
        drawn = call()
        self.note(what, time.monotonic() - began, "; ".join(drawn.faults)[:300])
        if what.startswith("inspections"):
            first = next(iter(drawn.said), "")
            with self.lock:
                self.ahead.append(int(first.split()[1]) if first.startswith("Busy") else 0)
        return drawn


def crowd(sessions: int, minutes: float, seed: int, world: Path, table: Path | None) -> Iterator[Figures]:
    """Sessions of the app as ``irl-lens app`` serves it, and what the server holds meanwhile.

    Args:
        sessions: how many at once.
        minutes: how long.
        seed: of what they do.
        world: where the server works.
        table: where what it holds is written, a line a look.
    """
    home, log = world / "home", world / "server.log"
    (home / "tmp").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://localhost:{port}"
    command = [sys.executable, "-m", "train.cli.main", "app", "--port", str(port)]
    places = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT)}
    with running(command, home, log, port, **places) as process:
        began = time.monotonic()
        shared = Crowd(address, began + 60 * minutes)
        threads = [threading.Thread(target=shared.live, args=(one, seed), daemon=True) for one in range(sessions)]
        for thread in threads:
            thread.start()
        samples = watched(process, home, threads, shared, table)
    for fault in complaints(log):
        shared.figures.faults.append(f"the server's log: {fault[:300]}")
    shared.figures.attack = f"{sessions} sessions at once for {minutes:g} minutes"
    yield shared.figures
    yield filled(shared)
    yield waits(shared)
    yield flat(samples, min(MOST_WARM, minutes / 4))


def watched(
    process: Popen[bytes], home: Path, threads: list[threading.Thread], shared: Crowd, table: Path | None
) -> list[Held]:
    """Look at the server until the sessions have ended, and say now and then how it stands."""
    began, samples = time.monotonic(), []
    while any(thread.is_alive() for thread in threads):
        samples.append(held(process, home, began))
        if len(samples) % LOOKS_A_LINE == 0:
            said = [*filled(shared).outcomes.items(), ("faults", len(shared.figures.faults))]
            words = ", ".join(f"{name} {value}" for name, value in said)
            print(
                f"minute {samples[-1].minutes:.0f}: {words}, {samples[-1].megabytes:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
        if table is not None:
            lines = (",".join(f"{value:.10g}" for value in astuple(one)) for one in samples)
            table.write_text("minutes,megabytes,open_files,threads,files\n" + "\n".join(lines) + "\n")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return samples


def filled(shared: Crowd) -> Figures:
    """How full the queue was when a request came in: what the sessions had asked for, and what the page said.

    It is full where either limit is reached, so that the nearer one of each moment says how full it was.
    """
    figures = Figures("the queue when a request came in", n=len(shared.ahead))
    with shared.turnstile.changed:
        inside = shared.turnstile.filled or [shared.turnstile.inside]
        requests = [one["requests"] / MAX_WAITING for one in inside]
        traces = [one["traces"] / MOST_TRACES_WAITING for one in inside]
    figures.outcomes[f"% of {MAX_WAITING} requests"] = round(100 * mean(requests))
    figures.outcomes[f"% of {MOST_TRACES_WAITING} traces"] = round(100 * mean(traces))
    figures.outcomes["% of the limit that was nearer"] = round(100 * mean(map(max, zip(requests, traces, strict=True))))
    if shared.ahead:
        figures.outcomes["ahead of a request, as its page said (mean)"] = round(mean(shared.ahead))
    return figures


def waits(shared: Crowd) -> Figures:
    """How long what the sessions did took at the median, on this machine under this load."""
    figures = Figures("seconds at the median", n=sum(map(len, shared.waited.values())))
    figures.outcomes.update({what: round(median(seconds)) for what, seconds in shared.waited.items()})
    return figures


def flat(samples: list[Held], warm: float) -> Figures:
    """Whether what the server holds stays as it is after the first minutes, in which it grows."""
    figures = Figures(f"what the server holds from minute {warm:.0f} on", n=len(samples))
    for name, (average, rise, most) in rises(samples, warm).items():
        figures.outcomes[f"{name}, rising by {rise:+.1f} (flat up to {most:.1f})"] = round(average)
        if rise > most:
            figures.faults.append(f"{name} rise by {rise:.1f}, and {most:.1f} at most are called flat")
    return figures
