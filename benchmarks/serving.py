"""`irl-lens serve` under load from another process beside `irl-lens score` on the same traces: throughput, memory, and
whether every answer is `score`'s.

    python -m benchmarks.serving --checkpoint demo --turns 8 [--clients 8 --traces 4 --seconds 20]
    python -m benchmarks.serving --checkpoint gsm8k --hold 600    # the server alone, for so long: does its memory grow?

The traces are those of the bundled scored run. The two take turns on one machine, the order turned round each time:
`irl-lens score`'s own function makes rows of all of them, again and again for `--seconds`; then clients ask the server
for the same ones, each request with `--traces` of them. Both have as many threads, and the same token budget for a
batch. Answers are kept as they come and compared when the turn is over. A turn's ratio (traces a second of the server
over those of `score`; above 1 is faster) is taken by the clock, and by the processor's seconds of the server's process,
on which other programs of the machine have less influence; the geometric mean has a 95 % interval over the turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pyarrow.parquet as pq

from benchmarks.packing import ratio_with_interval
from irl_core.models.allocation import keep_freed_tensors
from irl_core.scorer import DEFAULT_BATCH_TOKENS, Lens
from irl_core.text.segmentation import make_trace
from train.cli.options import checkpoint_folder
from train.score_file import score_window
from train.serving.ports import free_port

BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "scored_run" / "run.parquet"


class Pace(NamedTuple):
    """Seconds a trace in one turn: the clock's, and the processor's."""

    clock: float
    processor: float


class Expected(NamedTuple):
    """What `score` finds of a trace."""

    rewards: list[float]
    step: int | None
    decision: str


@dataclass(slots=True)
class Load:
    """Clients of a server: what they ask for, what came back, and what was wrong with it.

    ``turns`` numbers the requests; ``answers`` are those of a turn, by the number of their first trace.
    """

    url: str
    given: Sequence[tuple[str, str]]
    size: int
    turns: Iterator[int] = field(default_factory=count)
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    overloaded: int = 0
    failed: int = 0
    traces: int = 0
    difference: float = 0.0
    decisions: int = 0

    def chosen(self, first: int) -> list[int]:
        """The numbers of the traces of a request."""
        return [(first + offset) % len(self.given) for offset in range(self.size)]

    def ask(self, until: float) -> None:
        """One client: ask until the time is over."""
        with httpx.Client(timeout=300) as client:
            while time.monotonic() < until:
                first = next(self.turns) * self.size
                texts = [self.given[one] for one in self.chosen(first)]
                body = {"traces": [{"problem": problem, "solution": solution} for problem, solution in texts]}
                began = time.monotonic()
                answer = client.post(f"{self.url}/score", json=body)
                if answer.status_code == 503:
                    self.overloaded += 1
                    time.sleep(min(int(answer.headers["retry-after"]), 2))
                elif answer.status_code != 200:
                    self.failed += 1
                else:
                    self.seconds.append(time.monotonic() - began)
                    self.answers.append((first, answer.content))

    def run(self, clients: int, seconds: float) -> int:
        """Ask with so many clients for so long; returns the number of traces that were answered."""
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for one in [pool.submit(self.ask, until) for _ in range(clients)]:
                one.result()
        return len(self.answers) * self.size

    def compare(self, expected: Sequence[Expected]) -> None:
        """Compare the answers with `score`'s, and let go of them."""
        for first, answer in self.answers:
            for number, found in zip(self.chosen(first), json.loads(answer)["traces"], strict=True):
                wanted = expected[number]
                pairs = zip((token["raw"] for token in found["tokens"]), wanted.rewards, strict=True)
                self.difference = max([self.difference, *(abs(here - there) for here, there in pairs)])
                told = found["first_error_step"], found["decision"]
                self.decisions += not found["cannot_judge"] and told != (wanted.step, wanted.decision)
                self.traces += 1
        self.answers.clear()


def texts(number: int) -> list[tuple[str, str]]:
    """The first so many problems with solutions of the bundled run."""
    rows = pq.read_table(BUNDLED, columns=["problem", "text"]).slice(0, number).to_pylist()
    return [(row["problem"], row["text"]) for row in rows]


def expected_of(lens: Lens, given: Sequence[tuple[str, str]]) -> list[Expected]:
    """What `score` finds of the texts."""
    found = lens.score([make_trace(problem, text) for problem, text in given])
    places = [lens.locate(one) for one in found]
    return [
        Expected(one.raw.tolist(), where.first_error_step, where.decision)
        for one, where in zip(found, places, strict=True)
    ]


def pace_of_score(lens: Lens, given: Sequence[tuple[str, str]], seconds: float) -> Pace:
    """Make rows of all texts, again and again for so long, as `irl-lens score` does."""
    done, processor, began = 0, time.process_time(), time.monotonic()
    while not done or time.monotonic() - began < seconds:
        traces = [make_trace(problem, text) for problem, text in given]
        score_window(lens, traces, run_id="benchmark", batch_tokens=DEFAULT_BATCH_TOKENS)
        done += len(given)
    return Pace((time.monotonic() - began) / done, (time.process_time() - processor) / done)


def pace_of_server(load: Load, server: psutil.Process, clients: int, seconds: float) -> Pace:
    """Ask a server for so long."""
    processor, began = processor_of(server), time.monotonic()
    done = max(load.run(clients, seconds), 1)
    return Pace((time.monotonic() - began) / done, (processor_of(server) - processor) / done)


def hold(load: Load, server: psutil.Process, clients: int, seconds: float) -> None:
    """Ask a server for so long, and print its memory ten times on the way."""
    for part in range(1, 11):
        done = load.run(clients, seconds / 10)
        memory = server.memory_info().rss / 1e6
        print(f"{part * seconds / 10:.0f} s: {done:,} traces answered, {memory:.0f} MB", flush=True)


def processor_of(server: psutil.Process) -> float:
    """The processor's seconds of a server's process."""
    times = server.cpu_times()
    return float(times.user + times.system)


def ratios(server: Sequence[Pace], score: Sequence[Pace]) -> dict[str, list[float]]:
    """Traces a second of the server over those of `score`, with the interval, by the clock and by the processor."""
    return {
        kind: [
            round(value, 3)
            for value in ratio_with_interval(
                [getattr(one, kind) for one in score], [getattr(one, kind) for one in server]
            )
        ]
        for kind in Pace._fields
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--turns", type=int, default=8, help="2 or more")
    parser.add_argument("--seconds", type=float, default=20, help="of each of the two in a turn")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--traces", type=int, default=4, help="of a request")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--hold", type=float, default=0, help="seconds to load the server alone, its memory told")
    chosen = parser.parse_args(argv)
    keep_freed_tensors()  # as irl-lens does, whose score is measured here
    given = texts(chosen.texts)
    lens = Lens.load(checkpoint_folder(chosen.checkpoint), "cpu")
    expected = expected_of(lens, given)
    port = free_port(None)
    command = [sys.executable, "-m", "train.cli.main", "serve", "--checkpoint", chosen.checkpoint, "--port", str(port)]
    server = subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    load, score, served = Load(f"http://127.0.0.1:{port}", given, chosen.traces), [], []
    try:
        wait_for(load.url, server)
        process = psutil.Process(server.pid)
        if chosen.hold:
            hold(load, process, chosen.clients, chosen.hold)
            load.compare(expected)
            print(f"{load.failed} requests failed; {load.decisions} other decisions than score's")
            return
        load.run(chosen.clients, 5)  # it allocates what it needs
        pace_of_score(lens, given, 1)
        load.compare(expected)
        load.seconds.clear()
        memory, busy = process.memory_info().rss, os.getloadavg()[0]
        for turn in range(chosen.turns):
            for ours in (turn % 2, 1 - turn % 2):
                if ours:
                    score.append(pace_of_score(lens, given, chosen.seconds))
                else:
                    served.append(pace_of_server(load, process, chosen.clients, chosen.seconds))
                    load.compare(expected)
        after = process.memory_info().rss
    finally:
        server.terminate()
        server.wait(60)
    print(
        f"{chosen.checkpoint}: {chosen.clients} clients, {chosen.traces} traces a request; {chosen.turns} turns of "
        f"{chosen.seconds:g} s of each; load of the machine before {busy:.1f}"
    )
    for kind, (ratio, low, high) in ratios(served, score).items():
        print(
            f"by the {kind:9}  served {in_ms(served, kind)} ms a trace, scored {in_ms(score, kind)}: "
            f"{ratio:.2f} [{low:.2f}, {high:.2f}] times as many traces a second"
        )
    print(
        f"{load.traces:,} traces answered, {load.failed} requests failed, {load.overloaded} met a full queue; "
        f"{load.decisions} other decisions than score's, rewards differ by {load.difference:.1e} at most"
    )
    median = sorted(load.seconds)[len(load.seconds) // 2] if load.seconds else float("nan")
    print(f"median of a request {median:.2f} s; memory {memory / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")


def in_ms(paces: Sequence[Pace], kind: str) -> str:
    """The least and the most milliseconds a trace."""
    found = [1000 * getattr(one, kind) for one in paces]
    return f"{min(found):.3g} to {max(found):.3g}"


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers. Raises SystemExit where it ended."""
    while server.poll() is None:
        try:
            httpx.get(f"{url}/health", timeout=5)
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise SystemExit(f"the server ended with {server.returncode}")


if __name__ == "__main__":
    main()
