"""`irl-lens serve` under load from other processes: throughput beside `score` on the same traces, memory, and whether
every answer is `score`'s.

    python -m benchmarks.serving --checkpoint demo --seconds 60 [--clients 8 --traces 4]

The traces are those of the bundled scored run. First `irl-lens score`'s own function makes rows of them in this
process, timed; then a server is started, and clients ask for `--seconds`, each request with `--traces` of them, in
turn. Throughput is compared twice: by the clock, and by the processor's seconds a trace, on which other programs of the
machine have little influence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
import pyarrow.parquet as pq

from irl_core.scorer import DEFAULT_BATCH_TOKENS, Lens
from irl_core.text.segmentation import make_trace
from train.cli.app import free_port
from train.cli.options import checkpoint_folder
from train.score_file import score_window

BUNDLED = Path(__file__).resolve().parents[1] / "assets" / "scored_run" / "run.parquet"


@dataclass(slots=True)
class Asked:
    """What came back: traces answered, 503s, other refusals, the largest difference of a reward, other decisions."""

    traces: int = 0
    overloaded: int = 0
    failed: int = 0
    difference: float = 0.0
    decisions: int = 0
    seconds: list[float] = field(default_factory=list)


def texts(number: int) -> list[tuple[str, str]]:
    """The first so many problems with solutions of the bundled run."""
    rows = pq.read_table(BUNDLED, columns=["problem", "text"]).slice(0, number).to_pylist()
    return [(row["problem"], row["text"]) for row in rows]


def scored(lens: Lens, given: Sequence[tuple[str, str]]) -> tuple[list[dict[str, Any]], float, float]:
    """What is found of the texts, and the seconds of `irl-lens score` for all of them: the processor's, and the
    clock's."""
    traces = [make_trace(problem, text) for problem, text in given]
    began = time.process_time(), time.monotonic()
    score_window(lens, traces, run_id="benchmark", batch_tokens=DEFAULT_BATCH_TOKENS)
    processor, seconds = time.process_time() - began[0], time.monotonic() - began[1]
    found = lens.score(traces)
    places = [lens.locate(one) for one in found]
    return [
        {"raw": one.raw.tolist(), "step": where.first_error_step, "decision": where.decision}
        for one, where in zip(found, places, strict=True)
    ], processor, seconds  # fmt: skip


def ask(url: str, given: Sequence[tuple[str, str]], expected: Sequence[dict[str, Any]], size: int, until: float,
        turn: Any, asked: Asked) -> None:  # fmt: skip
    """Ask for traces until the time is over, and compare every answer."""
    with httpx.Client(timeout=300) as client:
        while time.monotonic() < until:
            first = next(turn) * size
            chosen = [(first + offset) % len(given) for offset in range(size)]
            body = {"traces": [{"problem": given[one][0], "solution": given[one][1]} for one in chosen]}
            began = time.monotonic()
            answer = client.post(f"{url}/score", json=body)
            if answer.status_code == 503:
                asked.overloaded += 1
                time.sleep(min(int(answer.headers["retry-after"]), 2))
                continue
            if answer.status_code != 200:
                asked.failed += 1
                continue
            asked.seconds.append(time.monotonic() - began)
            for one, found in zip(chosen, answer.json()["traces"], strict=True):
                asked.traces += 1
                rewards = [token["raw"] for token in found["tokens"]]
                pairs = zip(rewards, expected[one]["raw"], strict=True)
                asked.difference = max([asked.difference, *(abs(here - there) for here, there in pairs)])
                if found["cannot_judge"]:
                    continue
                same = (found["decision"], found["first_error_step"]) == (
                    expected[one]["decision"],
                    expected[one]["step"],
                )
                asked.decisions += not same


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--traces", type=int, default=4)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9, help="of what the server is compared with; its median counts")
    chosen = parser.parse_args(argv)
    given = texts(chosen.texts)
    lens = Lens.load(checkpoint_folder(chosen.checkpoint), "cpu")
    scored(lens, given[:32])
    measured = [scored(lens, given) for _ in range(chosen.repeats)]
    expected = measured[0][0]
    processor, alone = median(one[1] for one in measured), median(one[2] for one in measured)
    del lens
    port = free_port(None)
    command = [sys.executable, "-m", "train.cli.main", "serve", "--checkpoint", chosen.checkpoint, "--port", str(port)]
    server = subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    url, asked, turn = f"http://127.0.0.1:{port}", Asked(), count()
    try:
        wait_for(url, server)
        process = psutil.Process(server.pid)
        ask(url, given, expected, chosen.traces, time.monotonic() + 5, turn, Asked())  # it allocates what it needs
        memory, spent, began = process.memory_info().rss, sum(process.cpu_times()[:2]), time.monotonic()
        with ThreadPoolExecutor(chosen.clients) as pool:
            until = began + chosen.seconds
            work = [
                pool.submit(ask, url, given, expected, chosen.traces, until, turn, asked) for _ in range(chosen.clients)
            ]
            for one in work:
                one.result()
        seconds, after = time.monotonic() - began, process.memory_info().rss
        spent = sum(process.cpu_times()[:2]) - spent
    finally:
        server.terminate()
        server.wait(60)
    print(json.dumps({
        "checkpoint": chosen.checkpoint, "seconds": round(seconds, 1), "traces": asked.traces,
        "traces_a_second": asked.traces / seconds, "score_traces_a_second": len(given) / alone,
        "share_of_score": asked.traces / seconds / (len(given) / alone),
        "processor_ms_a_trace": 1000 * spent / max(asked.traces, 1),
        "score_processor_ms_a_trace": 1000 * processor / len(given),
        "score_processor_ms_range": [1000 * pick(one[1] for one in measured) / len(given) for pick in (min, max)],
        "overloaded": asked.overloaded,
        "failed": asked.failed, "largest_difference": asked.difference, "other_decisions": asked.decisions,
        "median_seconds": sorted(asked.seconds)[len(asked.seconds) // 2] if asked.seconds else None,
        "memory_mb_before": memory / 1e6, "memory_mb_after": after / 1e6,
    }, indent=1))  # fmt: skip


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
