"""Hidden states and log-probabilities of given tokens under a causal LM, without the (T, V) matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from irl_core.models.batching import Batch

LOGITS_AT_ONCE = 2**27  # 512 MiB in float32
# Without gradients on the CPU, where more is no faster: 32 MiB. With gradients each further chunk is computed twice.
READ_AT_ONCE_ON_CPU = 2**23


def _chunk_logprobs(hidden: Tensor, lm_head: torch.nn.Module, targets: Tensor, temperature: float) -> Tensor:
    logits: Tensor = lm_head(hidden).float()
    if temperature != 1.0:  # a pass over the largest tensor there is
        logits = logits / temperature
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def logprobs_of_hidden(
    hidden: Tensor,
    lm_head: Any,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
    once: bool = True,
) -> Tensor:
    """``log p(target | hidden)`` for ``(N, H)`` hidden states, ``(N,)`` float32, ``chunk`` rows at a time (default: as
    many as hold ``LOGITS_AT_ONCE`` logits, without gradients on the CPU ``READ_AT_ONCE_ON_CPU``).

    The full ``(N, V)`` matrix never exists: with gradients each chunk is recomputed in the backward pass. A frozen head
    on the CPU is not: see ``FrozenHeadLogprobs``.
    """
    if once and hidden.device.type == "cpu" and type(lm_head) is torch.nn.Linear and lm_head.bias is None:
        weight = lm_head.weight
        if torch.is_grad_enabled() and hidden.requires_grad and not weight.requires_grad:
            dtype = getattr(lm_head, "computes_in", None) or weight.dtype
            return FrozenHeadLogprobs.apply(hidden.to(dtype), weight.to(dtype), targets, temperature)
    read_on_cpu = hidden.device.type == "cpu" and not torch.is_grad_enabled()
    at_once = READ_AT_ONCE_ON_CPU if read_on_cpu else LOGITS_AT_ONCE
    chunk = chunk or max(1, at_once // lm_head.weight.shape[0])
    pieces = []
    for start in range(0, hidden.shape[0], chunk):
        arguments = (hidden[start : start + chunk], lm_head, targets[start : start + chunk], temperature)
        if torch.is_grad_enabled() and hidden.shape[0] > chunk:
            pieces.append(checkpoint(_chunk_logprobs, *arguments, use_reentrant=False))
        else:
            pieces.append(_chunk_logprobs(*arguments))
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)


ROWS_AT_ONCE = 128  # of a frozen head's logits: 25 MB for 49,152 tokens, which stay in the processor's cache


class FrozenHeadLogprobs(torch.autograd.Function):
    """``log p(target | hidden)`` under a frozen head, with the gradient computed in the forward pass.

    The gradient of one log-probability is ``(W[target] - softmax W) / temperature``, whatever is made of it later:
    computing it while a chunk's logits are in the cache saves their second computation. It has no second derivative.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        values = torch.empty(len(targets), dtype=torch.float32)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(targets), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            chosen = targets[rows].unsqueeze(1)
            logits = (hidden[rows] @ weight.T).float().div_(temperature)
            total = logits.logsumexp(1, keepdim=True)
            values[rows] = (logits.gather(1, chosen) - total).squeeze(1)
            chances = logits.sub_(total).exp_().to(weight.dtype)
            gradient[rows] = (weight[targets[rows]] - chances @ weight) / temperature
        ctx.save_for_backward(gradient)
        return values

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream.unsqueeze(1).to(gradient.dtype), None, None, None


def hidden_states(model: Any, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
    """Last hidden states ``(R * L, H)`` of a causal LM's backbone, flat; of ``embeddings`` ``(R, L, H)`` where given.

    Rows are padded on the right, which causal attention never reads: no mask is passed, so that attention takes its
    fast path. States at padding are undefined. Packed rows need a model prepared by
    ``irl_core.models.packed_attention.use_packed_attention``.
    """
    inputs: dict[str, Any] = {"input_ids": batch.input_ids} if embeddings is None else {"inputs_embeds": embeddings}
    if batch.families:
        from irl_core.models.shared_prompts import family_arguments

        inputs |= family_arguments(batch)
    elif batch.cu_seqlens is not None:
        from irl_core.models.packed_attention import attention_arguments

        inputs |= {"position_ids": batch.position_ids} | attention_arguments(model, batch)
    states: Tensor = model.get_decoder()(**inputs, use_cache=False).last_hidden_state
    return states.flatten(0, 1)


def completion_logprobs(
    model: Any, batch: Batch, hidden: Tensor | None = None, temperature: float = 1.0, *, once: bool = True
) -> Tensor:
    """``log p(y_t | x, y_<t)`` of every completion token, ``(B, T)`` float32, exactly 0 at masked positions.

    ``once``: whether one derivative is enough.
    """
    hidden = hidden_states(model, batch) if hidden is None else hidden
    mask = batch.response_mask
    tokens = batch.completion_index[mask]
    targets = batch.input_ids.flatten()[tokens]
    head = model.get_output_embeddings()
    values = logprobs_of_hidden(hidden[batch.preceding_index[mask]], head, targets, temperature=temperature, once=once)
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values)


def mean_prompt_logprobs(model: Any, batch: Batch, hidden: Tensor) -> Tensor:
    """Mean ``log p`` of each trace's prompt tokens after the first, ``(B,)``; 0 for a prompt of one token.

    A prompt that traces share is read once.
    """
    begins, which = batch.first.unique(return_inverse=True)
    starts = torch.empty_like(begins).scatter_(0, which, batch.starts)
    whole = Batch(batch.input_ids, begins, starts, batch.response_mask)
    counts = (starts - 1).clamp(min=0)
    values = prompt_logprobs(model, whole, hidden)
    trace = torch.arange(len(begins), device=values.device).repeat_interleave(counts)
    sums = values.new_zeros(len(begins)).index_add_(0, trace, values)
    return (sums / counts.clamp(min=1))[which]


def prompt_logprobs(model: Any, batch: Batch, hidden: Tensor) -> Tensor:
    """``log p`` of the prompt tokens after the first, as one flat ``(N,)`` vector, trace after trace."""
    longest = int(batch.starts.max())
    offsets = torch.arange(1, longest, device=hidden.device).unsqueeze(0)
    inside = offsets < batch.starts.unsqueeze(1)
    tokens = (batch.first.unsqueeze(1) + offsets)[inside]
    return logprobs_of_hidden(hidden[tokens - 1], model.get_output_embeddings(), batch.input_ids.flatten()[tokens])
