"""Samplers: completions of prompts from a policy, with the log-probability of every token as it was drawn.

``LoopSampler`` and ``GenerateSampler`` give the same tokens for the same seeds; see ``irl_core.policy.draws``.
Another engine needs only to be called as ``Sampler`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from irl_core.policy.draws import Drawing, check_finite
from irl_core.policy.generate import GenerateSampler
from irl_core.policy.protocol import (
    MAX_TOKENS,
    OnStep,
    Request,
    Rollout,
    Row,
    Sampler,
    device_of,
    left_padded,
    vocab_size,
)

if TYPE_CHECKING:
    from irl_core.config import PolicyConfig
    from irl_core.models.tokenization import TraceEncoder


def make_sampler(config: PolicyConfig, encoder: TraceEncoder) -> Sampler:
    """The sampler of a configuration, for the tokens of ``encoder``."""
    ends, pad, limit, size = encoder.end_ids, encoder.pad_id, config.sampling_tokens, vocab_size(encoder)
    if config.sampler == "generate":
        return GenerateSampler(ends, pad, config.cache, limit, size)
    return LoopSampler(ends, pad, limit, size)


@dataclass(frozen=True, slots=True)
class LoopSampler:
    """Our own decoding loop: a prompt is read once and its cache shared by its samples, and rows that have ended leave
    the batch.

    Args:
        end_ids: ids that end a completion. pad_id: fills what no one reads.
        max_tokens: bounds the cached tokens (prompt and completion) of the samples decoded at once; what is drawn does
            not depend on it. vocab_size: ids from it on are never drawn; default: all that have logits may be.
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
        return request.decoded(
            model, self.max_tokens, on_step, lambda rows, tick: self._decode(model, request, rows, tick)
        )

    def _decode(self, model: Any, request: Request, rows: list[Row], tick: OnStep) -> list[Rollout]:
        device = device_of(model)
        read = list(dict.fromkeys(prompt for prompt, _ in rows))
        input_ids, attention = left_padded([request.prompts[number] for number in read], self.pad_id, device)
        output = model(
            input_ids=input_ids, attention_mask=attention, position_ids=_positions(attention), use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        cache = output.past_key_values
        shared = torch.tensor([read.index(prompt) for prompt, _ in rows], device=device)
        cache.batch_select_indices(shared)
        attention, logits = attention[shared], output.logits[:, -1][shared]
        numbers = request.numbers(rows, device)
        ends, samples = set(self.end_ids), _Samples(rows)
        for step in range(request.max_new_tokens):
            chosen, logprobs = request.drawing(logits, numbers[:, step])
            ids = chosen.tolist()
            samples.append(ids, logprobs.tolist())
            tick(step + 1, request.max_new_tokens)
            going = [place for place, token in enumerate(ids) if token not in ends]
            if step == request.max_new_tokens - 1 or not going:
                break
            if len(going) < len(ids):
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                attention, chosen, numbers = attention[keep], chosen[keep], numbers[keep]
                samples.keep(going)
            attention = torch.cat([attention, attention.new_ones(attention.shape[0], 1)], dim=1)
            output = model(
                input_ids=chosen.unsqueeze(1), attention_mask=attention, position_ids=_positions(attention)[:, -1:],
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            logits = output.logits[:, -1]
        return samples.rollouts(ends)


def _positions(attention: Tensor) -> Tensor:
    return (attention.cumsum(-1) - 1).clamp(min=0)


class _Samples:
    """What has been drawn for each row; ``alive`` are the rows that the batch still holds."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.alive = list(range(len(rows)))
        self.ids: list[list[int]] = [[] for _ in rows]
        self.logprobs: list[list[float]] = [[] for _ in rows]

    def append(self, ids: Sequence[int], logprobs: Sequence[float]) -> None:
        for row, token, value in zip(self.alive, ids, logprobs, strict=True):
            check_finite([value], self.rows[row][0], len(self.ids[row]))
            self.ids[row].append(token)
            self.logprobs[row].append(value)

    def keep(self, places: Sequence[int]) -> None:
        self.alive = [self.alive[place] for place in places]

    def rollouts(self, ends: set[int]) -> list[Rollout]:
        pairs = zip(self.ids, self.logprobs, strict=True)
        return [Rollout(tuple(ids), tuple(logprobs), ids[-1] in ends) for ids, logprobs in pairs]
