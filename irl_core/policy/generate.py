"""The sampler over transformers' ``generate``, with the draws of our own loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from irl_core.policy.draws import Drawing, check_finite
from irl_core.policy.protocol import (
    MAX_TOKENS,
    OnStep,
    Request,
    Rollout,
    Row,
    base_of,
    check_cached_types,
    device_of,
    last_position,
    left_padded,
)


@dataclass(frozen=True, slots=True)
class GenerateSampler:
    """transformers' ``generate`` with our draws: a logits processor leaves the drawn token alone possible, so that the
    same seeds give the same tokens as ``LoopSampler``.

    With the dynamic cache a prompt is read once for all of its samples; unsloth's ``generate`` and a static cache take
    no prefilled cache, so that every sample reads its prompt again. A row that has ended stays in the batch until all
    have. The model's own ``generation_config`` is not used. With the static cache the model
    is compiled on a GPU, and not on the CPU.

    Args: as of ``LoopSampler``, and ``cache``.
    """

    end_ids: Sequence[int]
    pad_id: int
    cache: Literal["dynamic", "static"] = "dynamic"
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
        """See ``Sampler``. ``on_step`` counts token positions, batch after batch."""
        drawing = Drawing(temperature, top_p, self.vocab_size)
        request = Request(prompts, num_samples, max_new_tokens, seeds, drawing)
        with plain_generation_config(model):
            if self.cache == "static" and prompts:
                check_cached_types(model, "policy.cache=static")
            return request.decoded(
                model, self.max_tokens, on_step, lambda rows, tick: self._decode(model, request, rows, tick)
            )

    def _decode(self, model: Any, request: Request, rows: list[Row], tick: OnStep) -> list[Rollout]:
        device = device_of(model)
        input_ids, attention = left_padded([request.prompts[prompt] for prompt, _ in rows], self.pad_id, device)
        width = input_ids.shape[1]
        drawn = _DrawnScores(request.drawing, request.numbers(rows, device), width)

        def report(ids: Tensor, scores: Any, **_: Any) -> Tensor:
            tick(ids.shape[1] - width, request.max_new_tokens)
            return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)

        sequences = model.generate(
            input_ids=input_ids,
            attention_mask=attention,
            generation_config=self._config(request.max_new_tokens, compiles=device.type != "cpu"),
            logits_processor=LogitsProcessorList([drawn]),
            stopping_criteria=StoppingCriteriaList([report]),
            **self._prompts_read(model, request, rows, width),
        )
        generated = zip(rows, sequences[:, width:].tolist(), torch.stack(drawn.logprobs, 1).tolist(), strict=True)
        return [self._rollout(prompt, ids, logprobs) for (prompt, _), ids, logprobs in generated]

    def _prompts_read(self, model: Any, request: Request, rows: list[Row], width: int) -> dict[str, Any]:
        """What ``generate`` is told of prompts: to keep the last logits by an index and, unless the cache is static or
        there is nothing to share, the cache with each prompt but its last token, read once and repeated for its
        samples. Nothing where ``generate`` is not transformers' own."""
        base = base_of(model)
        different = list(dict.fromkeys(prompt for prompt, _ in rows))
        own_generate = "generate" not in vars(base) and "generate" not in vars(model)
        if not own_generate:
            return {}
        device = device_of(model)
        may_choose = "logits_to_keep" in signature(base.forward).parameters
        options: dict[str, Any] = {"logits_to_keep": last_position(device)} if may_choose else {}
        if self.cache != "dynamic" or width < 2 or len(different) == len(rows):
            return options
        # padded to the width of the batch, in which all of these prompts are
        ids, attention = left_padded([request.prompts[prompt] for prompt in different], self.pad_id, device)
        ids, attention = ids[:, : width - 1], attention[:, : width - 1]
        cache = DynamicCache(config=base.config)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        model(
            input_ids=ids, attention_mask=attention, position_ids=positions, past_key_values=cache, use_cache=True,
            **options,
        )  # fmt: skip
        place = {prompt: number for number, prompt in enumerate(different)}
        cache.batch_select_indices(torch.tensor([place[prompt] for prompt, _ in rows], device=device))
        return options | {"past_key_values": cache}

    def _config(self, max_new_tokens: int, compiles: bool) -> Any:
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(self.end_ids) or None,
            pad_token_id=self.pad_id,
            use_cache=True,
            cache_implementation="static" if self.cache == "static" else None,
            disable_compile=not compiles,
        )

    def _rollout(self, prompt: int, ids: Sequence[int], logprobs: Sequence[float]) -> Rollout:
        """A generated row as a rollout, cut after its end token."""
        length = next((place for place, token in enumerate(ids, start=1) if token in self.end_ids), len(ids))
        check_finite(logprobs[:length], prompt)
        return Rollout(tuple(ids[:length]), tuple(logprobs[:length]), ids[length - 1] in self.end_ids)


class _DrawnScores:
    """A logits processor: scores ``(B, V)`` become 0 at the token drawn and -inf elsewhere."""

    def __init__(self, drawing: Drawing, numbers: Tensor, width: int) -> None:
        self.drawing = drawing
        self.numbers = numbers
        self.width = width
        self.logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # Some devices are a step ahead of the check for the end; that step is undone.
        step = min(input_ids.shape[1] - self.width, self.numbers.shape[1] - 1)
        ids, logprobs = self.drawing(scores, self.numbers[:, step])
        self.logprobs.append(logprobs)
        return torch.full_like(scores, -torch.inf).scatter_(1, ids.unsqueeze(1), 0.0)


@contextmanager
def plain_generation_config(model: Any) -> Iterator[None]:
    """Replace the model's own ``generation_config`` (repetition penalties, suppressed tokens, minimum length) by the
    default inside the block."""
    parts = [part for part in (model, base_of(model)) if "generation_config" in vars(part)]
    own = [part.generation_config for part in parts]
    try:
        for part in parts:
            part.generation_config = GenerationConfig()
        yield
    finally:
        for part, config in zip(parts, own, strict=True):
            part.generation_config = config
