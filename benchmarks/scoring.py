"""Scoring solutions of mixed lengths: the product beside what most would write, and beside the bare passes.

    python -m benchmarks.scoring [--checkpoint gsm8k] [--traces 32] [--a-problem 1] [--repeats 3]

``padded loop``: ``AutoModelForTokenClassification`` of the same base in float32, in batches of 8 as the traces come.
``bare passes``: the policy's and the discriminator's decoders over batches of similar length, in the checkpoint's
precision, without heads, rewards or rows. The traces are random tokens of GSM8K's lengths. Every repeat runs all in
turn; a ratio is the geometric mean over the repeats with its 95 % interval. Seconds are the processor's, so that other
programs do not count; set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy
import torch

from benchmarks.packing import draw_traces, ratio_with_interval
from irl_core.models.allocation import keep_freed_tensors
from irl_core.models.batching import Batching
from irl_core.models.hub import locate
from irl_core.models.logprobs import hidden_states
from irl_core.models.pretrained import base_of
from irl_core.scorer import DEFAULT_BATCH_TOKENS, Lens
from irl_core.types import EncodedTrace
from train.cli.options import checkpoint_folder

PLAIN_BATCH = 8


def drawn(lens: Lens, count: int, a_problem: int, seed: int) -> list[EncodedTrace]:
    """Traces of random tokens, ``a_problem`` to a prompt, in random order."""
    vocabulary = lens.policy.config.vocab_size
    traces = draw_traces(count, vocabulary, seed)
    shared = [replace(one, prompt_ids=traces[index - index % a_problem].prompt_ids) for index, one in enumerate(traces)]
    random.Random(seed).shuffle(shared)
    return shared


def plain_model(lens: Lens) -> Any:
    """A token classifier on the checkpoint's base, as transformers loads it; its head is random."""
    from transformers import AutoModelForTokenClassification

    base = base_of(lens.policy)
    if base is None:
        from transformers import AutoConfig

        config = AutoConfig.for_model(**(lens.policy.config.to_dict() | {"num_labels": 1}))
        return AutoModelForTokenClassification.from_config(config).float().eval()
    folder = locate(base.name, base.revision)
    return AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32, num_labels=1).eval()


@torch.no_grad()
def padded_loop(model: Any, traces: Sequence[EncodedTrace]) -> None:
    """The loop as most write it: padded to the longest of eight neighbours, with an attention mask."""
    for start in range(0, len(traces), PLAIN_BATCH):
        rows = [[*one.prompt_ids, *one.completion_ids] for one in traces[start : start + PLAIN_BATCH]]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        model(input_ids=ids, attention_mask=mask).logits.squeeze(-1).tolist()


@torch.no_grad()
def bare_passes(lens: Lens, traces: Sequence[EncodedTrace]) -> None:
    """Both decoders alone."""
    batching = Batching(lens.encoder.pad_id, DEFAULT_BATCH_TOKENS)
    for indices in batching.split(traces):
        batch = batching.collate([traces[index] for index in indices])
        for model in (lens.policy, lens.discriminator.backbone):
            hidden_states(model, batch)


def seconds(work: Callable[[], object]) -> float:
    """What it took of the processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="gsm8k")
    parser.add_argument("--traces", type=int, default=32)
    parser.add_argument("--a-problem", type=int, default=1, help="solutions of each problem")
    parser.add_argument("--repeats", type=int, default=3, help="2 or more")
    asked = parser.parse_args()
    keep_freed_tensors()  # as irl-lens does; all three gain by it
    lens = Lens.load(checkpoint_folder(asked.checkpoint))
    model = plain_model(lens)
    taken: dict[str, list[float]] = {"score": [], "padded loop": [], "bare passes": []}
    for repeat in range(-1, asked.repeats):
        traces = drawn(lens, asked.traces if repeat >= 0 else PLAIN_BATCH, asked.a_problem, repeat)
        works: dict[str, Callable[[], object]] = {
            "score": partial(lens.score_encoded, traces),
            "padded loop": partial(padded_loop, model, traces),
            "bare passes": partial(bare_passes, lens, traces),
        }
        for name in sorted(works, reverse=bool(repeat % 2)):
            spent = seconds(works[name])
            if repeat >= 0:  # the first round prepares the kernels
                taken[name].append(spent)
    print(f"{lens.computes_on}; {torch.get_num_threads()} threads; {asked.traces} traces, {asked.a_problem} a problem")
    for name, all_spent in taken.items():
        line = f"{name:12} {asked.traces / numpy.median(all_spent):.2f} traces a second of the processor"
        if name != "score":
            middle, low, high = ratio_with_interval(all_spent, taken["score"])
            line += f"; score is {middle:.2f} [{low:.2f}, {high:.2f}] times as fast"
        print(line)


if __name__ == "__main__":
    main()
