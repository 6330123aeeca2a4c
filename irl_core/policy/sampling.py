"""Samplers: completions of prompts from a policy, with the log-probability of every token as it was drawn.

``LoopSampler`` and ``GenerateSampler`` give the same tokens for the same seeds; see ``irl_core.policy.draws``.
Another engine needs only to be called as ``Sampler`` says.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from irl_core.policy.decoder import Decoding, FusedWeights, reason_not_to_decode
from irl_core.policy.draws import Drawing, check_finite
from irl_core.policy.generate import GenerateSampler
from irl_core.policy.protocol import (
    MAX_TOKENS,
    OnStep,
    Request,
    Rollout,
    Row,
    Sampler,
    base_of,
    device_of,
    last_position,
    left_padded,
    vocab_size,
)

if TYPE_CHECKING:
    from irl_core.config import PolicyConfig
    from irl_core.models.tokenization import TraceEncoder


def make_sampler(config: PolicyConfig, encoder: TraceEncoder) -> Sampler:
    """The sampler of a configuration, for the tokens of ``encoder``."""
    ends, pad, limit, size = encoder.end_ids, encoder.pad_id, config.sampling_tokens, vocab_size(encoder)
    if config.sampler == "engine":
        from irl_core.policy.engine_training import EngineSampler

        return EngineSampler.from_environment(encoder)
    if config.sampler == "generate":
        return GenerateSampler(ends, pad, config.cache, limit, size)
    return LoopSampler(ends, pad, limit, size)


@dataclass(frozen=True, slots=True)
class LoopSampler:
    """Our own decoding loop: a prompt is read once for all its samples, and rows that have ended leave the batch.

    On the CPU, Llama- and Qwen2-shaped models are decoded with fused weights (``irl_core.policy.decoder``); any other
    model by its own forward pass, with one warning.

    Args:
        end_ids: ids that end a completion.
        pad_id: id at masked positions.
        max_tokens: bounds the cached tokens (prompt and completion) of the samples decoded at once; what is drawn does
            not depend on it.
        vocab_size: ids from it on are never drawn; default: no limit.
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
        """See ``Sampler``. ``on_step`` counts token positions, batch after batch."""
        drawing = Drawing(temperature, top_p, self.vocab_size)
        request = Request(prompts, num_samples, max_new_tokens, seeds, drawing)
        reason = reason_not_to_decode(model)
        if reason and device_of(model).type == "cpu":
            say_slow(type(base_of(model)).__name__, reason)
        with torch.no_grad():
            weights = None if reason or not prompts else FusedWeights(model)
        return request.decoded(
            model, self.max_tokens, on_step, lambda rows, tick: self._decode(model, weights, request, rows, tick)
        )

    def _decode(
        self, model: Any, weights: FusedWeights | None, request: Request, rows: list[Row], tick: OnStep
    ) -> list[Rollout]:
        """The rollouts of one batch of rows."""
        device = device_of(model)
        read = list(dict.fromkeys(prompt for prompt, _ in rows))
        input_ids, attention = left_padded([request.prompts[number] for number in read], self.pad_id, device)
        output = model(
            input_ids=input_ids, attention_mask=attention, position_ids=positions(attention), use_cache=True,
            logits_to_keep=last_position(device),
        )  # fmt: skip
        owners = torch.tensor([read.index(prompt) for prompt, _ in rows], device=device)
        logits, filled = output.logits[:, -1][owners], output.past_key_values
        decoding: Decoding | ForwardDecoding
        if weights is None:
            decoding = ForwardDecoding(model, filled, attention, owners)
        else:
            decoding = Decoding(weights, filled, attention, owners)
        numbers = request.numbers(rows, device)
        ends, samples = set(self.end_ids), Samples(rows)
        for step in range(request.max_new_tokens):
            chosen, logprobs = request.drawing(logits, numbers[:, step])
            ids = chosen.tolist()
            samples.append(ids, logprobs.tolist())
            tick(step + 1, request.max_new_tokens)
            going = [place for place, token in enumerate(ids) if token not in ends]
            if step == request.max_new_tokens - 1 or not going:
                break
            if len(going) < len(ids):
                places = filled_from_behind(going)
                keep = torch.tensor(places, device=device)
                chosen, numbers = chosen[keep], numbers[keep]
                decoding.keep(places)
                samples.keep(places)
            logits = decoding.step(chosen)
        return samples.rollouts(ends)


@cache
def say_slow(name: str, reason: str) -> None:
    """Warn, once for each type of model, that it is decoded by its own forward pass."""
    logging.getLogger(__name__).warning("%s is sampled by its own forward pass, more slowly: %s", name, reason)


def filled_from_behind(going: Sequence[int]) -> list[int]:
    """Ascending places in an order in which as many as possible stay where they are: the last ones fill the gaps."""
    staying, behind = set(going), list(going)
    return [place if place in staying else behind.pop() for place in range(len(going))]


def positions(attention: Tensor) -> Tensor:
    """The position of every token ``(B, L)`` of rows padded on the left."""
    return (attention.cumsum(-1) - 1).clamp(min=0)


class ForwardDecoding:
    """Rows decoded together by the model's own forward pass; arguments as of ``Decoding``."""

    def __init__(self, model: Any, cache: Any, attention: Tensor, owners: Tensor) -> None:
        self.model, self.cache, self.attention = model, cache, attention[owners]
        cache.batch_select_indices(owners)

    def keep(self, places: Sequence[int]) -> None:
        """Keep these rows, in this order."""
        kept = torch.tensor(places, device=self.attention.device)
        self.cache.batch_select_indices(kept)
        self.attention = self.attention[kept]

    def step(self, ids: Tensor) -> Tensor:
        """Read one token ``(B,)`` of each row; the logits ``(B, V)`` of the next."""
        self.attention = torch.cat([self.attention, self.attention.new_ones(len(ids), 1)], dim=1)
        output = self.model(
            input_ids=ids.unsqueeze(1), attention_mask=self.attention, position_ids=positions(self.attention)[:, -1:],
            past_key_values=self.cache, use_cache=True,
        )  # fmt: skip
        return cast(Tensor, output.logits[:, -1])


class Samples:
    """The tokens drawn for each row; ``alive``: the rows that are still in the batch."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.alive = list(range(len(rows)))
        self.ids: list[list[int]] = [[] for _ in rows]
        self.logprobs: list[list[float]] = [[] for _ in rows]

    def append(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        """Add one token to each row that is alive."""
        for row, token, value in zip(self.alive, ids, logprobs, strict=True):
            check_finite([value], self.rows[row][0], len(self.ids[row]))
            self.ids[row].append(token)
            self.logprobs[row].append(value)

    def keep(self, places: Sequence[int]) -> None:
        """Keep these of the rows that are alive, in this order."""
        self.alive = [self.alive[place] for place in places]

    def rollouts(self, ends: set[int]) -> list[Rollout]:
        """All rows as rollouts, in their order."""
        pairs = zip(self.ids, self.logprobs, strict=True)
        return [Rollout(tuple(ids), tuple(logprobs), ids[-1] in ends) for ids, logprobs in pairs]
