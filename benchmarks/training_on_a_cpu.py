"""What makes a training step of a small pretrained model fast on a CPU, each against the plain way, in turns.

python -m benchmarks.training_on_a_cpu [--model smollm2-135m] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from irl_core.config import LoraConfig
from irl_core.models.logprobs import logprobs_of_hidden
from irl_core.models.precision import compile_layers, compute_adapters_in, cpu_precision_in_words
from irl_core.models.pretrained import Base, load_base, with_adapters
from irl_core.models.shared_prompts import attended

ROWS, LENGTH = 12, 256
COMPLETIONS, COMPLETION, PROMPT, HEADS, WIDTH = 7, 90, 105, 9, 64
HEAD_TOKENS, VOCABULARY, HIDDEN = 1500, 49152, 576


def adapted(model: str, *, casts: bool, compiled: bool) -> Any:
    """The model with adapters, as peft computes with them or in bfloat16 without casts, compiled or not."""
    made = with_adapters(load_base(Base(model, dtype="bfloat16")), LoraConfig(rank=16, alpha=32))
    if not casts:
        compute_adapters_in(made, torch.bfloat16)
    if compiled:
        compile_layers(made)
    return made


def step_of(model: Any) -> Callable[[], None]:
    """A forward and a backward pass over ``ROWS`` rows of ``LENGTH`` tokens."""
    ids = torch.randint(0, 40000, (ROWS, LENGTH))

    def step() -> None:
        model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state.float().mean().backward()

    return step


def head_of(once: bool) -> Callable[[], None]:
    """Log-probabilities under a frozen head, and their gradient."""
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=False).bfloat16().requires_grad_(False)
    states, targets = torch.randn(HEAD_TOKENS, HIDDEN).bfloat16(), torch.randint(0, VOCABULARY, (HEAD_TOKENS,))

    def run() -> None:
        hidden = states.clone().requires_grad_(True)
        logprobs_of_hidden(hidden, head, targets, once=once, chunk=700).sum().backward()

    return run


def attention_of(products: bool) -> Callable[[], None]:
    """Attention of completions to a prompt and to themselves, with its gradient."""
    shape, seen = (COMPLETIONS, HEADS, COMPLETION, WIDTH), (COMPLETIONS, HEADS, PROMPT + COMPLETION, WIDTH)
    query, key, value = (torch.randn(one).bfloat16().requires_grad_(True) for one in (shape, seen, seen))
    mask = torch.cat([torch.ones(COMPLETION, PROMPT), torch.ones(COMPLETION, COMPLETION).tril()], 1).bool()

    def run() -> None:
        if products:
            attended(query, key, value, mask, 0.0, WIDTH**-0.5).sum().backward()
        else:
            scaled_dot_product_attention(query, key, value, attn_mask=mask).sum().backward()

    return run


def in_turns(ways: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, which take turns; a first turn of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    """Measure, and print medians, ranges and ratios to the plain way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    steps = {
        "adapters as peft": step_of(adapted(asked.model, casts=True, compiled=False)),
        "adapters without casts": step_of(adapted(asked.model, casts=False, compiled=False)),
        "the same, compiled": step_of(adapted(asked.model, casts=False, compiled=True)),
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {cpu_precision_in_words()}")
    for title, ways in (
        (f"Step of {ROWS} x {LENGTH} tokens", steps),
        (f"Frozen head, {HEAD_TOKENS} tokens", {"recomputed": head_of(False), "in the forward pass": head_of(True)}),
        ("Attention of a family", {"fused kernel": attention_of(False), "products": attention_of(True)}),
    ):
        seconds = in_turns(ways, asked.repeats)
        plain = statistics.median(next(iter(seconds.values())))
        print(title)
        for name, found in seconds.items():
            middle = statistics.median(found)
            print(
                f"  {name:<24} {middle * 1e3:9.1f} ms [{min(found) * 1e3:.1f}, {max(found) * 1e3:.1f}], "
                f"{plain / middle:.2f} times the plain way's speed (n {len(found)})"
            )


if __name__ == "__main__":
    main()
