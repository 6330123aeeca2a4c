"""Serving engines beside our own sampling loop, in turn on the same prompts: tokens a second, by the clock and by the
processor.

    python -m benchmarks.engines [--model smollm2-135m --threads 1]
    python -m benchmarks.engines --engine llama.cpp=http://127.0.0.1:8090 --engine other=http://127.0.0.1:8091,MODEL

It starts the engines that are installed (`benchmarks.engine_servers` says which and where they may lie), with the same
model and as many threads, and names those that are not; ``--engine`` takes those that run already instead. Each repeat
draws the same number of samples of the same bundled problems with every one of them, the order turned round each time;
a first repeat is not counted. Tokens are those that were drawn. The processor's seconds are those of the process that
listens at the engine's port, with its children, so that other programs of the machine count little; an engine on
another machine has none. A ratio (an engine's seconds a token over our loop's; below 1 is faster) is the geometric mean
over the repeats with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from benchmarks.engine_servers import Missing, engines, started
from benchmarks.packing import ratio_with_interval

PROBLEMS = Path(__file__).resolve().parents[1] / "assets" / "problems-gsm8k.jsonl"
OWN = "our loop"


@dataclass
class Measured:
    """One way to sample, and the tokens, the clock's and the processor's seconds of every repeat."""

    draw: Callable[[int], int]
    processor: Callable[[], float | None]
    tokens: list[int] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def once(self, seed: int) -> None:
        """Sample once, and note what it took."""
        before, began = self.processor(), time.perf_counter()
        self.tokens.append(self.draw(seed))
        self.clock.append(time.perf_counter() - began)
        after = self.processor()
        if before is not None and after is not None:
            self.cpu.append(after - before)

    def pace(self, seconds: Sequence[float]) -> list[float]:
        """Seconds a token."""
        return [one / tokens for one, tokens in zip(seconds, self.tokens, strict=True)]


def listening(url: str) -> psutil.Process | None:
    """The process of this machine that listens at the port of a URL."""
    port = urlsplit(url).port
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            return psutil.Process(connection.pid)
    return None


def seconds_of(process: psutil.Process) -> float:
    """The processor's seconds of a process and its children."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def own_loop(model: Any, encoder: Any, problems: Sequence[str], chosen: argparse.Namespace) -> Measured:
    """Our loop with a loaded model."""
    from irl_core.policy.sampling import LoopSampler

    sampler = LoopSampler(encoder.end_ids, encoder.pad_id)
    prompts = [encoder.encode_prompt(problem) for problem in problems]

    def draw(seed: int) -> int:
        drawn = sampler(
            model, prompts, num_samples=chosen.samples, max_new_tokens=chosen.max_new_tokens,
            seeds=[seed + number for number in range(len(prompts))],
        )  # fmt: skip
        return sum(len(one.token_ids) for rows in drawn for one in rows)

    return Measured(draw, time.process_time)


def of_engine(named: str, encoder: Any, problems: Sequence[str], chosen: argparse.Namespace) -> Measured:
    """An engine, as `irl-lens inspect` and `evaluate` ask it."""
    from irl_core.policy.engine import Drawn, EngineClient, asks_of
    from irl_core.policy.engine_requests import Drawing, Engine

    url, _, model = named.partition(",")
    client = EngineClient(Engine(url, model or None, parallel=chosen.parallel), encoder)
    process = listening(url)

    def draw(seed: int) -> int:
        asks = [ask for problem in problems for ask in asks_of(encoder, problem, chosen.samples, seed)]
        drawn = [one for one in client.draw(asks, Drawing(chosen.max_new_tokens)) if isinstance(one, Drawn)]
        if len(drawn) < len(asks):
            raise SystemExit(f"{url}: {len(asks) - len(drawn)} of {len(asks)} samples did not come")
        texts = [encoder.tokenizer(one.text, add_special_tokens=False).input_ids for one in drawn]
        ids = [one.token_ids or text for one, text in zip(drawn, texts, strict=True)]
        return sum(len(one) + drawn[number].finished for number, one in enumerate(ids))

    return Measured(draw, lambda: None if process is None else seconds_of(process))


def report(name: str, measured: Measured, own: Measured) -> None:
    """A line for one of them."""
    rate = np.median([tokens / seconds for tokens, seconds in zip(measured.tokens, measured.clock, strict=True)])
    line = f"{name:14} {np.median(measured.tokens):6,.0f} tokens, {rate:6,.1f} a second by the clock"
    if measured.cpu:
        line += f", {1e3 * np.median(measured.pace(measured.cpu)):6.1f} ms of the processor a token"
    if measured is not own:
        pairs = {"clock": (measured.clock, own.clock), "processor": (measured.cpu, own.cpu)}
        for what, (seconds, others) in pairs.items():
            if seconds:
                middle, low, high = ratio_with_interval(measured.pace(seconds), own.pace(others))
                line += f"; by the {what} {middle:.2f} [{low:.2f}, {high:.2f}] of our loop's"
    print(line, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="as model.policy of a preset")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--engine", action="append", help="NAME=URL, or NAME=URL,MODEL, that runs already; and again")
    parser.add_argument("--problems", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8, help="of each problem")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--parallel", type=int, default=8, help="requests at once")
    parser.add_argument("--threads", type=int, default=1, help="of our loop, and of engines that are started")
    parser.add_argument("--repeats", type=int, default=5, help="2 or more")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        compare(chosen, stack)


def running(chosen: argparse.Namespace, stack: ExitStack) -> dict[str, str]:
    """The engines by name, each as URL or URL,MODEL: those that are given, else those that are installed, started."""
    if chosen.engine:
        return {name: named for name, _, named in (one.partition("=") for one in chosen.engine)}
    found: dict[str, str] = {}
    for one in engines(chosen.model, chosen.threads):
        if isinstance(one, Missing):
            print(f"{one.name}: left out, {one.reason}", flush=True)
            continue
        url = stack.enter_context(started(one, chosen.threads))
        found[one.name] = f"{url},{one.model}" if one.model else url
    return found


def compare(chosen: argparse.Namespace, stack: ExitStack) -> None:
    """Measure, and print the figures."""
    import torch

    from irl_core.models import hub
    from irl_core.models.pretrained import Base, load_base, load_encoder

    torch.set_num_threads(chosen.threads)
    model = load_base(Base(chosen.model, None, "none", chosen.dtype), torch.device("cpu")).eval()
    encoder = load_encoder(hub.locate(chosen.model), model, "")
    problems = [json.loads(line)["problem"] for line in PROBLEMS.read_text(encoding="utf-8").splitlines()]
    problems = problems[: chosen.problems]
    found = {OWN: own_loop(model, encoder, problems, chosen)}
    for name, named in running(chosen, stack).items():
        found[name] = of_engine(named, encoder, problems, chosen)
    load = os.getloadavg()[0]
    for repeat in range(-1, chosen.repeats):
        for name in list(found) if repeat % 2 else list(reversed(found)):
            found[name].once(1000 * (repeat + 1))
    print(
        f"{len(problems)} x {chosen.samples} samples of at most {chosen.max_new_tokens} tokens, {chosen.threads} "
        f"threads, {chosen.repeats} repeats; load {load:.1f} at the start"
    )
    for measured in found.values():
        for values in (measured.tokens, measured.clock, measured.cpu):
            del values[:1]
    for name, measured in found.items():
        report(name, measured, found[OWN])


if __name__ == "__main__":
    main()
