"""Sampling by transformers' continuous batching: a sample that ends makes room for the next one at once."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from irl_core.errors import ConfigError
from irl_core.models.batching import Batch, token_budget_batches
from irl_core.models.logprobs import completion_logprobs
from irl_core.policy.draws import Drawing, check_finite
from irl_core.policy.protocol import (
    MAX_TOKENS,
    OnStep,
    Request,
    Rollout,
    base_of,
    check_cached_types,
    device_of,
    evaluating,
)

BLOCK = 256  # tokens; the kernel that decodes from blocks takes no other size
FORWARD_TOKENS = 2048  # of one pass: decoding takes one a sample, reading prompts the rest
REREAD_TOKENS = 2**15  # of one pass that computes log-probabilities afterwards
WAIT = 0.5  # seconds between looks at whether the engine still runs


@dataclass(frozen=True, slots=True)
class ContinuousSampler:
    """Continuous batching, on a GPU or (slowly) on the CPU.

    It draws by torch's global generator, which is seeded from all seeds of the call and put back afterwards: the same
    call gives the same samples, but what is drawn for a prompt depends on the other prompts of the call.

    Log-probabilities are the engine's own where it draws from the model's distribution (temperature 1, no nucleus;
    they are then relative to the ids below ``vocab_size``) or takes the likeliest; else they are computed by one more
    pass over the samples.

    Args: as of ``irl_core.policy.sampling.LoopSampler``; ``max_tokens`` is the size of the cache.
    """

    end_ids: Sequence[int]
    pad_id: int
    max_tokens: int = MAX_TOKENS
    vocab_size: int | None = None

    def __call__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        num_samples: int,
        max_new_tokens: int,
        seeds: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_step: OnStep | None = None,
    ) -> list[list[Rollout]]:
        """See ``Sampler``. ``on_step`` counts samples that are complete, and is called again while none is.

        Raises:
            ConfigError: the cache does not fit into memory.
            RuntimeError: not every sample came back.
        """
        drawing = Drawing(temperature, top_p, self.vocab_size)
        request = Request(prompts, num_samples, max_new_tokens, seeds, drawing)
        if not prompts:
            return []
        device = device_of(model)
        with evaluating(model), torch.random.fork_rng([device] if device.type == "cuda" else []):
            check_cached_types(model, "policy.sampler=continuous", base_of(model).dtype)
            outputs = self._outputs(base_of(model), request, on_step)
            completions = [list(outputs[name].generated_tokens) for name in _names(request)]
            if _returns_logprobs(drawing):
                logprobs = [list(outputs[name].logprobs) for name in _names(request)]
            else:
                logprobs = self._reread(model, request, completions)
        for index, values in enumerate(logprobs):
            check_finite(values, index // num_samples)
        pairs = zip(completions, logprobs, strict=True)
        rows = [Rollout(tuple(ids), tuple(values), ids[-1] in self.end_ids) for ids, values in pairs]
        return [rows[start : start + num_samples] for start in range(0, len(rows), num_samples)]

    def _outputs(self, base: Any, request: Request, on_step: OnStep | None) -> Mapping[str, Any]:
        """What the engine gives for each sample, by name. All samples are handed over before it starts, so that its
        batches, and with them what it draws, do not depend on how fast that goes."""
        names = _names(request)
        with self._engine(base, request) as engine:
            for index, name in enumerate(names):
                engine.add_request(
                    list(request.prompts[index // request.num_samples]), request_id=name,
                    max_new_tokens=request.max_new_tokens, eos_token_id=list(self.end_ids),
                )  # fmt: skip
            engine.start()
            outputs = collect(engine, len(names), on_step)
        check_complete(outputs, names, request.max_new_tokens, with_logprobs=_returns_logprobs(request.drawing))
        return outputs

    @contextmanager
    def _engine(self, base: Any, request: Request) -> Iterator[Any]:
        """The model's continuous batching, ready and not yet started; what was left to do when an error ended it is
        dropped. The model gets its attention back."""
        attention, manager, stopped = base.config._attn_implementation, None, False
        _use_pageable_attention(base)
        try:
            with _no_warnings():  # that what keeps ids from being drawn might not be known to the engine; it is
                manager = base.init_continuous_batching(*self._settings(base, request))
            self._warm_up(manager, request)
            yield manager
            manager.stop(block=True)
            stopped = True
        finally:
            if manager is not None:
                if not stopped:
                    manager.stop(block=True, hard_stop=True)
                manager.destroy()
            if base.config._attn_implementation != attention:
                base.set_attn_implementation(attention)

    def _warm_up(self, manager: Any, request: Request) -> None:
        """Allocate the cache and capture what a GPU captures."""
        try:
            manager.warmup()
        except MemoryError as error:
            raise ConfigError(
                f"a cache of {self._blocks(request) * BLOCK:,} tokens does not fit into memory ({error}); "
                f"lower policy.sampling_tokens (it is {self.max_tokens:,}) or set policy.sampler=loop"
            ) from error

    def _settings(self, base: Any, request: Request) -> tuple[Any, Any, Any]:
        """What ``init_continuous_batching`` takes."""
        from transformers import ContinuousBatchingConfig
        from transformers.generation.continuous_batching.utils import WorkloadHints

        longest, rows = max(map(len, request.prompts)), len(request.prompts) * request.num_samples
        engine = ContinuousBatchingConfig(
            block_size=BLOCK,
            num_blocks=self._blocks(request),
            max_batch_tokens=FORWARD_TOKENS,
            return_logprobs=_returns_logprobs(request.drawing),
            seed=random.Random(f"continuous-{list(request.seeds)}").getrandbits(62),
        )
        drawing = self._generation_config(request, base.config.get_text_config().vocab_size)
        return drawing, engine, WorkloadHints(longest, request.max_new_tokens, rows)

    def _generation_config(self, request: Request, logits: int) -> Any:
        """How the engine draws and when it ends; ``logits``: how many ids the model has them for."""
        from transformers import GenerationConfig

        drawing = request.drawing
        sampling = {"temperature": drawing.temperature, "top_p": drawing.top_p, "top_k": 0}
        # Not suppress_tokens: what it computes cannot be captured in a CUDA graph.
        never = {(token,): -math.inf for token in range(self.vocab_size or logits, logits)}
        return GenerationConfig(
            do_sample=drawing.temperature > 0,
            **(sampling if drawing.temperature > 0 else {}),
            max_new_tokens=request.max_new_tokens,
            eos_token_id=list(self.end_ids) or -1,
            pad_token_id=self.pad_id,
            sequence_bias=never or None,
        )

    def _blocks(self, request: Request) -> int:
        """Blocks of the cache: as many as ``max_tokens`` hold, not more than all samples need at once, and never so few
        that a sample does not fit (the engine asks for the next block one place early)."""
        needed = [(len(prompt) + request.max_new_tokens + 1) // BLOCK + 1 for prompt in request.prompts]
        return max(max(needed), min(self.max_tokens // BLOCK, request.num_samples * sum(needed)))

    def _reread(self, model: Any, request: Request, completions: Sequence[list[int]]) -> list[list[float]]:
        """``log p`` of every completion token, at temperature 1, by a pass of their own."""
        prompts = [list(prompt) for prompt in request.prompts for _ in range(request.num_samples)]
        rows = [prompt + ids for prompt, ids in zip(prompts, completions, strict=True)]
        found: list[list[float]] = [[] for _ in rows]
        for batch in token_budget_batches([len(row) for row in rows], REREAD_TOKENS):
            read = right_padded([prompts[i] for i in batch], [completions[i] for i in batch], self.pad_id)
            values = completion_logprobs(model, read.to(device_of(model))).tolist()
            for index, row in zip(batch, values, strict=True):
                found[index] = row[: len(completions[index])]
        return found


def _names(request: Request) -> list[str]:
    return [f"{prompt}-{sample}" for prompt in range(len(request.prompts)) for sample in range(request.num_samples)]


def _returns_logprobs(drawing: Drawing) -> bool:
    """Whether the engine's log-probabilities, those of the distribution that it draws from, are the model's."""
    return drawing.temperature == 0 or (drawing.temperature == 1 and drawing.top_p == 1)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """The engine's log without its warnings."""
    from transformers.generation.continuous_batching.requests import logger

    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _use_pageable_attention(base: Any) -> None:
    """Where the engine knows no paged kind of the model's attention, ``sdpa``."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own = base.config._attn_implementation
    if own not in ALL_ATTENTION_FUNCTIONS or f"paged|{own}" not in ALL_ATTENTION_FUNCTIONS:
        base.set_attn_implementation("sdpa")


def right_padded(prompts: Sequence[list[int]], completions: Sequence[list[int]], pad_id: int) -> Batch:
    """Prompts with their completions, one a row."""
    rows = [prompt + ids for prompt, ids in zip(prompts, completions, strict=True)]
    width, longest = max(map(len, rows)), max(map(len, completions))
    lengths = torch.tensor([len(ids) for ids in completions])
    mask: Tensor = torch.arange(longest).unsqueeze(0) < lengths.unsqueeze(1)
    return Batch(
        torch.tensor([row + [pad_id] * (width - len(row)) for row in rows]),
        torch.arange(len(rows)) * width,
        torch.tensor([len(prompt) for prompt in prompts]),
        mask,
    )


# ---------------------------------------------------------------------------------------------------------- bookkeeping


def collect(engine: Any, count: int, on_step: OnStep | None) -> dict[str, Any]:
    """The outputs of ``count`` requests by id, as many as came before the engine stopped."""
    outputs: dict[str, Any] = {}
    while len(outputs) < count:
        running = engine.is_running()  # asked first: what an engine left behind is read before it is given up
        output = engine.get_result(timeout=WAIT if running else 0.01)
        if output is not None and output.is_finished():
            outputs[output.request_id] = output
        if output is None and not running:
            break
        if on_step:
            on_step(len(outputs), count)
    return outputs


def check_complete(outputs: Mapping[str, Any], names: Sequence[str], max_new_tokens: int, with_logprobs: bool) -> None:
    """Refuse outputs that are not one whole completion for each of ``names``.

    Raises:
        RuntimeError: naming how many are missing or failed, the first reason, and the mend.
    """
    reasons = []
    for name in names:
        output = outputs.get(name)
        if output is None:
            reasons.append(f"sample {name} did not come back")
        elif output.error is not None:
            reasons.append(f"sample {name}: {output.error}")
        elif not 1 <= len(output.generated_tokens) <= max_new_tokens:
            reasons.append(f"sample {name} has {len(output.generated_tokens)} tokens of at most {max_new_tokens}")
        elif with_logprobs and len(output.logprobs) != len(output.generated_tokens):
            counts = f"{len(output.logprobs)} log-probabilities for {len(output.generated_tokens)} tokens"
            reasons.append(f"sample {name} has {counts}")
    unknown = sorted(set(outputs) - set(names))
    if unknown:
        reasons.append(f"{len(unknown)} that were not asked for, such as {unknown[0]}")
    if reasons:
        raise RuntimeError(
            f"continuous batching failed for {len(reasons)} of {len(names)} samples ({reasons[0]}); "
            "set policy.sampler to loop or generate"
        )
