"""Packed rows against padded batches of the same traces, side by side in one run: seconds, and memory on CUDA.

    python -m benchmarks.packing [--device cuda --hidden 2048 --layers 36 --heads 16 --key-heads 2 --vocab 151936]

A Qwen2 of that shape with random weights reads the same traces, of lengths like GSM8K's, in micro-batches of at most
``--tokens``: padded ones as training makes them (similar lengths together), and packed rows. ``score`` is a forward
pass for log-probabilities, ``update`` one with gradients. Every repeat runs both in turn; the ratio (packed over
padded; below 1 packing is faster) is the geometric mean over the repeats with its 95 % interval. On the CPU seconds
are the processor's, so that other programs do not count; set OMP_NUM_THREADS=1 there.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Tokens of GSM8K's training problems (in the chat template) and solutions as the Qwen2 tokenizer counts them, at these
# quantiles; lengths between them are interpolated. A long problem has a long solution: the correlation is 0.5.
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
PROMPTS = (31, 52, 63, 75, 89, 120, 147, 231)
COMPLETIONS = (30, 57, 84, 112, 151, 230, 288, 454)
PASSES = ("score", "update")


@dataclass
class Measured:
    """One layout: its micro-batches, and the seconds of every repeat."""

    batches: list[Any]
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def positions(self) -> int:
        return sum(batch.input_ids.numel() for batch in self.batches)


def at_quantile(table: Sequence[int], quantile: float) -> int:
    """A length between those of the table."""
    import numpy

    return round(float(numpy.interp(quantile, QUANTILES, table)))


def draw_traces(count: int, vocabulary: int, seed: int) -> list[Any]:
    """Traces of random tokens with lengths like GSM8K's."""
    from irl_core.text.segmentation import make_trace
    from irl_core.types import EncodedTrace, Source

    rng = random.Random(seed)
    trace = make_trace("a problem", "", source=Source.POLICY)
    encoded = []
    for _ in range(count):
        quantile = rng.random()
        prompt = at_quantile(PROMPTS, quantile)
        completion = at_quantile(COMPLETIONS, quantile if rng.random() < 0.5 else rng.random())
        ids = [rng.randrange(vocabulary) for _ in range(prompt + completion)]
        encoded.append(EncodedTrace(trace, tuple(ids[:prompt]), tuple(ids[prompt:]), ((0, 0),) * completion))
    return encoded


def build_model(chosen: argparse.Namespace) -> Any:
    """A Qwen2 with random weights, ready for packed rows."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from irl_core.models.packed_attention import use_packed_attention

    torch.manual_seed(chosen.seed)
    config = Qwen2Config(
        vocab_size=chosen.vocab, hidden_size=chosen.hidden, intermediate_size=4 * chosen.hidden,
        num_hidden_layers=chosen.layers, num_attention_heads=chosen.heads, num_key_value_heads=chosen.key_heads,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.device(chosen.device):
        model = Qwen2ForCausalLM(config).to(getattr(torch, chosen.dtype))
    use_packed_attention(model)
    if chosen.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def layouts(traces: Sequence[Any], tokens: int, device: str) -> dict[str, Measured]:
    """The same traces in both layouts, on the device."""
    from irl_core.models.batching import Batching, BatchLayout

    found: dict[str, Measured] = {}
    names: tuple[BatchLayout, ...] = ("padded", "packed")
    for name in names:
        batching = Batching(pad_id=0, tokens=tokens, layout=name)
        groups = [[traces[index] for index in group] for group in batching.split(traces)]
        found[name] = Measured([batching.collate(group).to(device) for group in groups])
    return found


def score(model: Any, batch: Any) -> float:
    """The summed log-probability of a micro-batch."""
    import torch

    from irl_core.models.logprobs import completion_logprobs

    with torch.no_grad():
        return float(completion_logprobs(model, batch).sum())


def update(model: Any, batch: Any) -> float:
    """The same with its gradients."""
    from irl_core.models.logprobs import completion_logprobs

    total = completion_logprobs(model, batch).sum()
    total.backward()
    return float(total.detach())


def run_once(model: Any, layout: Measured, step: Callable[[Any, Any], float], cuda: bool) -> tuple[float, float]:
    """Seconds of one pass over all traces, and the sum that it computed."""
    import torch

    model.zero_grad(set_to_none=True)
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    total = sum(step(model, batch) for batch in layout.batches)
    if cuda:
        torch.cuda.synchronize()
        layout.peak_bytes = max(layout.peak_bytes, torch.cuda.max_memory_allocated())
    return clock() - began, total


def compare(model: Any, found: dict[str, Measured], step: Callable[[Any, Any], float], repeats: int) -> float:
    """Both layouts in turn, ``repeats`` times after a first; returns how far their sums are apart, relatively."""
    cuda = next(model.parameters()).is_cuda
    sums = {name: run_once(model, layout, step, cuda)[1] for name, layout in found.items()}
    for layout in found.values():
        layout.seconds, layout.peak_bytes = [], 0
    for repeat in range(repeats):
        order = list(found) if repeat % 2 else list(reversed(found))
        for name in order:
            found[name].seconds.append(run_once(model, found[name], step, cuda)[0])
    return abs(sums["packed"] / sums["padded"] - 1)


def ratio_with_interval(packed: Sequence[float], padded: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of the repeats' ratios with Student's 95 % interval."""
    import numpy
    from scipy import stats

    logs = numpy.log(numpy.asarray(packed) / numpy.asarray(padded))
    half = float(stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    middle = float(logs.mean())
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def report(name: str, found: dict[str, Measured], apart: float) -> None:
    """One pass: a line a layout, and the ratio."""
    import numpy

    for layout, measured in found.items():
        memory = f", peak {measured.peak_bytes / 2**30:.2f} GiB" if measured.peak_bytes else ""
        print(
            f"{name:6} {layout}: {numpy.median(measured.seconds):.3f} s (median of {len(measured.seconds)}), "
            f"{len(measured.batches)} micro-batches, {measured.positions:,} positions{memory}"
        )
    middle, low, high = ratio_with_interval(found["packed"].seconds, found["padded"].seconds)
    print(f"{name:6} packed / padded: {middle:.3f} [{low:.3f}, {high:.3f}]; sums {apart:.1e} apart", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on CUDA, else float32")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--key-heads", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--traces", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=4096, help="positions of a micro-batch, padding included")
    parser.add_argument("--repeats", type=int, default=5, help="2 or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpointing", action="store_true", help="recompute layers in the backward pass")
    chosen = parser.parse_args()
    if chosen.repeats < 2:
        parser.error(f"--repeats is {chosen.repeats}; an interval needs 2 or more")
    chosen.dtype = chosen.dtype or ("bfloat16" if chosen.device.startswith("cuda") else "float32")
    model = build_model(chosen)
    traces = draw_traces(chosen.traces, chosen.vocab, chosen.seed)
    real = sum(len(trace.prompt_ids) + len(trace.completion_ids) for trace in traces)
    print(f"{len(traces)} traces, {real:,} tokens; {chosen.dtype} on {chosen.device}", flush=True)
    found = layouts(traces, chosen.tokens, chosen.device)
    for name, step in zip(PASSES, (score, update), strict=True):
        report(name, found, compare(model, found, step, chosen.repeats))


if __name__ == "__main__":
    main()
