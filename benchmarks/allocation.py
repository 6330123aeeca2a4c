"""What becomes of freed tensors in a training on the CPU: time and memory of its passes under each way to allocate.

    python -m benchmarks.allocation [--model smollm2-135m] [--batches 6] [--repeats 2]

Passes forwards and backwards of a model with adapters over batches of changing shapes, as those of texts are. Each way
runs in a process of its own, the order turned round with each repetition; the first batch is not counted. Told are
seconds of the processor a batch, those of them that the system took, pages that it cleared, and the peak of resident
memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from irl_core.models.allocation import give_back_freed_tensors, keep_freed_tensors

ROOT = Path(__file__).resolve().parents[1]
APART = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
WAYS: dict[str, dict[str, str]] = {
    "kept until a batch is over (ours)": {},
    "as glibc does": {},
    "blocks above 1 MB mapped apart": APART,
    "the same, in huge pages": {**APART, "THP_MEM_ALLOC_ENABLE": "1"},
}
OURS = next(iter(WAYS))
TOKENS = (1200, 2400)  # of a batch
LENGTHS = (90, 320)


class Taken(NamedTuple):
    """What a batch took: seconds of the processor, of the system alone, pages cleared; and the peak of memory in MB."""

    seconds: float
    system: float
    pages: float
    memory: float


def passes(model_name: str, batches: int, ours: bool) -> Taken:
    """Run the passes in this process."""
    if ours:
        assert keep_freed_tensors()
    import torch  # from here on there are threads

    from benchmarks.training_on_a_cpu import adapted

    torch.manual_seed(0)
    draw, model = random.Random(0), adapted(model_name, casts=False, compiled=False)
    before = resource.getrusage(resource.RUSAGE_SELF)
    for number in range(batches + 1):
        length = draw.randint(*LENGTHS)
        ids = torch.randint(0, 40000, (max(1, draw.randint(*TOKENS) // length), length))
        hidden = model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state
        hidden.float().pow(2).mean().backward()
        if ours:
            give_back_freed_tensors()
        if not number:
            before = resource.getrusage(resource.RUSAGE_SELF)
    after = resource.getrusage(resource.RUSAGE_SELF)
    system = after.ru_stime - before.ru_stime
    spent = after.ru_utime - before.ru_utime + system
    pages = after.ru_minflt - before.ru_minflt
    return Taken(spent / batches, system / batches, pages / batches, after.ru_maxrss * 1024 / 1e6)


def measured(model: str, batches: int, way: str) -> Taken:
    """Run the passes in a process of their own."""
    command = [sys.executable, "-m", "benchmarks.allocation", "--model", model, "--batches", str(batches), "--way", way]
    known = {name: value for name, value in os.environ.items() if name not in {*APART, "THP_MEM_ALLOC_ENABLE"}}
    environment = {**known, **WAYS[way], "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return Taken(*json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help="measure this one alone, in this process")
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(passes(asked.model, asked.batches, asked.way == OURS)))
        return
    found: dict[str, list[Taken]] = {way: [] for way in WAYS}
    for repeat in range(asked.repeats):
        for way in list(WAYS)[:: -1 if repeat % 2 else 1]:
            found[way].append(measured(asked.model, asked.batches, way))
    ours = statistics.median(one.seconds for one in found[OURS])
    for way, all_taken in found.items():
        seconds, system, pages, memory = (statistics.median(values) for values in zip(*all_taken, strict=True))
        ratios = [one.seconds / ours for one in all_taken]
        print(
            f"{way:34} {seconds:.2f} s a batch, {system:.2f} of them the system's, {pages:,.0f} pages, at most "
            f"{memory:,.0f} MB; {statistics.median(ratios):.2f} times ours ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
