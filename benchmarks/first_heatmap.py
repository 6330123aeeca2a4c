"""From a pasted solution to its coloured tokens, against one bare forward pass of the same model, in turns.

python -m benchmarks.first_heatmap [--checkpoint gsm8k] [--repeats 3]

The bare pass is the discriminator's decoder over problem and solution, in its precision: no policy, no familiarity, no
page.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from irl_core.data.formats import read
from irl_core.models.batching import collate
from irl_core.models.logprobs import hidden_states
from irl_core.notebook import NotebookLens
from irl_core.scorer import Lens
from irl_core.types import EncodedTrace, Trace
from train.cli.options import checkpoint_folder

SOLUTIONS = Path(__file__).resolve().parents[1] / "assets" / "solutions-gsm8k.jsonl"


def main() -> None:
    """Print the medians over all solutions and repetitions, and what the page adds to the passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="gsm8k")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    lens = Lens.load(checkpoint_folder(asked.checkpoint))
    notebook = NotebookLens(lens)
    traces = [one for one in read(SOLUTIONS) if isinstance(one, Trace)]
    bare: list[float] = []
    whole: list[float] = []
    for repeat in range(asked.repeats + 1):
        for trace in traces:
            encoded = lens.encode(trace)
            pair = seconds(partial(forward, lens, encoded)), seconds(partial(show, notebook, trace))
            if repeat:  # the first round warms up
                bare.append(pair[0])
                whole.append(pair[1])
    left = [after - 3 * before for before, after in zip(bare, whole, strict=True)]
    first, second = statistics.median(bare), statistics.median(whole)
    print(f"{len(bare)} runs on {len(traces)} solutions; {lens.computes_on}; {torch.get_num_threads()} threads")
    print(f"bare forward pass {first * 1e3:.0f} ms, first heatmap {second * 1e3:.0f} ms: {second / first:.2f} times")
    print(f"beyond three bare passes: median {statistics.median(left) * 1e3:.0f} ms, largest {max(left) * 1e3:.0f} ms")


def forward(lens: Lens, encoded: EncodedTrace) -> None:
    """One pass of the discriminator's decoder."""
    batch = collate([encoded], lens.encoder.pad_id).to(lens.device)
    with torch.no_grad():
        hidden_states(lens.discriminator.backbone, batch)


def show(notebook: NotebookLens, trace: Trace) -> None:
    """What Inspect does with a pasted solution: rewards, first error, familiarity, the page."""
    notebook.show(trace.problem, trace.text, answer=trace.reference_answer)


def seconds(work: Callable[[], None]) -> float:
    """How long it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
