"""The samplers side by side in one process: seconds a token, each against ``generate``, and memory on CUDA.

    python -m benchmarks.sampling [--model FOLDER --dtype bfloat16 --lora 16] [--device cuda --hidden 2048 ...]

The model of a folder, or a Llama of the shape asked for with random weights, samples the same prompts, of lengths like
GSM8K's, with every sampler. So many of its ids end a completion that these are ``--mean-tokens`` long on average, of
different lengths. Every repeat runs all samplers in turn, on prompts of its own; a ratio (seconds a token over those of
``generate``; below 1 is faster) is the geometric mean over the repeats with its 95 % interval. On the CPU seconds are
the processor's, so that other programs do not count; set OMP_NUM_THREADS=1 there.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.packing import draw_traces, ratio_with_interval

BASELINE = "generate, dynamic"


@dataclass
class Measured:
    """One sampler: the seconds and tokens of every repeat."""

    sampler: Any
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def pace(self) -> list[float]:
        """Seconds a token."""
        return [seconds / tokens for seconds, tokens in zip(self.seconds, self.tokens, strict=True)]


def build_model(chosen: argparse.Namespace) -> Any:
    """The model of a folder or of a name, or a Llama with random weights; with adapters where asked for."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    from irl_core.models.hub import locate

    torch.manual_seed(chosen.seed)
    if chosen.model:
        folder = locate(chosen.model, None)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, chosen.dtype))
        chosen.vocab = model.config.vocab_size
        model = model.to(chosen.device).eval()
        return with_random_adapters(model, chosen.lora) if chosen.lora else model
    config = LlamaConfig(
        vocab_size=chosen.vocab, hidden_size=chosen.hidden, intermediate_size=4 * chosen.hidden,
        num_hidden_layers=chosen.layers, num_attention_heads=chosen.heads, num_key_value_heads=chosen.key_heads,
        tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.device(chosen.device):
        return LlamaForCausalLM(config).to(getattr(torch, chosen.dtype)).eval()


def with_random_adapters(model: Any, rank: int) -> Any:
    """The model with float32 adapters on every layer that change what it says a little."""
    from irl_core.config import LoraConfig
    from irl_core.models.pretrained import with_adapters

    adapted = with_adapters(model, LoraConfig(rank=rank))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 1e-3)
    return adapted.eval()


def samplers(chosen: argparse.Namespace) -> dict[str, Measured]:
    """Every sampler, with the same end ids and limit."""
    from irl_core.policy.generate import GenerateSampler
    from irl_core.policy.sampling import LoopSampler

    some = max(1, round(chosen.vocab / chosen.mean_tokens))
    ends = random.Random(chosen.seed).sample(range(chosen.vocab), some)  # the first ids of a real model are frequent
    found = {
        "loop": Measured(LoopSampler(ends, 0, chosen.max_tokens)),
        "generate, dynamic": Measured(GenerateSampler(ends, 0, "dynamic", chosen.max_tokens)),
        "generate, static": Measured(GenerateSampler(ends, 0, "static", chosen.max_tokens)),
    }
    if chosen.device != "cpu":
        return found
    return {**found, "loop, own forward": Measured(ForwardLoop(ends, 0, chosen.max_tokens))}


@dataclass
class ForwardLoop:
    """The loop as it runs for a model that it has no fused weights for: by the model's own forward pass."""

    end_ids: Sequence[int]
    pad_id: int
    max_tokens: int

    def __call__(self, model: Any, prompts: Sequence[Any], **settings: Any) -> Any:
        from irl_core.policy.sampling import LoopSampler

        own = model.forward
        model.forward = own  # a forward pass that something wraps is not taken apart
        try:
            return LoopSampler(self.end_ids, self.pad_id, self.max_tokens)(model, prompts, **settings)
        finally:
            del model.forward


def run_once(model: Any, measured: Measured, prompts: Sequence[Any], chosen: argparse.Namespace) -> list[Any]:
    """Sample once and note what it took; returns the samples' ids."""
    import torch

    cuda = chosen.device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    groups = measured.sampler(
        model, prompts, num_samples=chosen.num_samples, max_new_tokens=chosen.max_new_tokens, seeds=range(len(prompts))
    )
    if cuda:
        torch.cuda.synchronize()
        measured.peak_bytes = max(measured.peak_bytes, torch.cuda.max_memory_allocated())
    ids = [one.token_ids for rows in groups for one in rows]
    measured.seconds.append(clock() - began)
    measured.tokens.append(sum(map(len, ids)))
    return ids


def compare(model: Any, found: dict[str, Measured], chosen: argparse.Namespace) -> float:
    """All samplers in turn on every repeat's prompts, after a first that is not counted; returns the share of samples
    that the loop and ``generate`` with a dynamic cache gave alike."""
    alike = total = 0
    for repeat in range(-1, chosen.repeats):
        traces = draw_traces(chosen.prompts, chosen.vocab, seed=repeat)
        order = list(found) if repeat % 2 else list(reversed(found))
        ids = {name: run_once(model, found[name], [one.prompt_ids for one in traces], chosen) for name in order}
        pairs = zip(ids["loop"], ids[BASELINE], strict=True)
        alike, total = alike + sum(one == other for one, other in pairs), total + len(ids["loop"])
    for measured in found.values():
        del measured.seconds[0], measured.tokens[0]
    return alike / total


def report(found: dict[str, Measured]) -> None:
    """A line a sampler."""
    import numpy

    for name, measured in found.items():
        memory = f", peak {measured.peak_bytes / 2**30:.2f} GiB" if measured.peak_bytes else ""
        line = (
            f"{name:18} {numpy.median(measured.seconds):.3f} s (median of {len(measured.seconds)}), "
            f"{1 / numpy.median(measured.pace):,.0f} tokens/s{memory}"
        )
        if name != BASELINE:
            middle, low, high = ratio_with_interval(measured.pace, found[BASELINE].pace)
            line += f"; seconds a token / generate's: {middle:.3f} [{low:.3f}, {high:.3f}]"
        print(line, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: bfloat16 on CUDA, else float32")
    parser.add_argument(
        "--model",
        help="a pretrained model: a folder or a name, as model.policy takes it; the shape below is not used then",
    )
    parser.add_argument("--lora", type=int, default=0, help="rank of random adapters on the model of the folder")
    parser.add_argument("--samplers", nargs="*", help="only these, such as loop; default: all")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--key-heads", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=4096)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--num-samples", type=int, default=8, help="of each prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--mean-tokens", type=float, default=32, help="of a completion that is not cut off")
    parser.add_argument("--max-tokens", type=int, default=2**18, help="cached at once (policy.sampling_tokens)")
    parser.add_argument("--repeats", type=int, default=5, help="2 or more")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.repeats < 2:
        parser.error(f"--repeats is {chosen.repeats}; an interval needs 2 or more")
    chosen.dtype = chosen.dtype or ("bfloat16" if chosen.device.startswith("cuda") else "float32")
    model = build_model(chosen)
    wanted = samplers(chosen)
    found = {name: wanted[name] for name in {BASELINE: 0} | dict.fromkeys(chosen.samplers or wanted)}
    print(f"{chosen.prompts} x {chosen.num_samples} samples; {chosen.dtype} on {chosen.device}", flush=True)
    alike = compare(model, found, chosen)
    report(found)
    print(f"samples that loop and generate gave alike: {alike:.1%}")


if __name__ == "__main__":
    main()
