"""What a causal LM says of given tokens: hidden states, and log-probabilities without the (T, V) matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from irl_core.encoding import Batch

LOGITS_AT_ONCE = 2**27  # 512 MiB in float32


def _chunk_logprobs(hidden: Tensor, lm_head: torch.nn.Module, targets: Tensor, temperature: float) -> Tensor:
    logits = lm_head(hidden).float() / temperature
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def logprobs_of_hidden(
    hidden: Tensor,
    lm_head: Any,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Tensor:
    """``log p(target | hidden)`` for ``(N, H)`` hidden states, ``(N,)`` float32, ``chunk`` rows at a time (default: as
    many as hold ``LOGITS_AT_ONCE`` logits).

    The full ``(N, V)`` matrix never exists: with gradients each chunk is recomputed in the backward pass.
    """
    chunk = chunk or max(1, LOGITS_AT_ONCE // lm_head.weight.shape[0])
    pieces = []
    for start in range(0, hidden.shape[0], chunk):
        arguments = (hidden[start : start + chunk], lm_head, targets[start : start + chunk], temperature)
        if torch.is_grad_enabled() and hidden.shape[0] > chunk:
            pieces.append(checkpoint(_chunk_logprobs, *arguments, use_reentrant=False))
        else:
            pieces.append(_chunk_logprobs(*arguments))
    return torch.cat(pieces) if pieces else hidden.new_zeros(0, dtype=torch.float32)


def hidden_states(model: Any, batch: Batch, embeddings: Tensor | None = None) -> Tensor:
    """Last hidden states ``(R * L, H)`` of a causal LM's backbone, flat; of ``embeddings`` ``(R, L, H)`` where given.

    Rows are padded on the right, where a causal model's tokens never look: no mask is passed, so that attention takes
    its fast path. States at padding mean nothing, and nothing reads them. Packed rows need a model prepared by
    ``irl_core.packing.use_packed_attention``.
    """
    inputs: dict[str, Any] = {"input_ids": batch.input_ids} if embeddings is None else {"inputs_embeds": embeddings}
    if batch.cu_seqlens is not None:
        from irl_core.packing import attention_arguments

        inputs |= {"position_ids": batch.position_ids} | attention_arguments(model, batch)
    output = model.get_decoder()(**inputs, use_cache=False)
    return output.last_hidden_state.flatten(0, 1)


def completion_logprobs(model: Any, batch: Batch, hidden: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """``log p(y_t | x, y_<t)`` of every completion token, ``(B, T)`` float32, exactly 0 at masked positions."""
    hidden = hidden_states(model, batch) if hidden is None else hidden
    mask = batch.response_mask
    tokens = batch.completion_index[mask]
    targets = batch.input_ids.flatten()[tokens]
    values = logprobs_of_hidden(hidden[tokens - 1], model.get_output_embeddings(), targets, temperature=temperature)
    return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values)


def prompt_logprobs(model: Any, batch: Batch, hidden: Tensor) -> Tensor:
    """``log p`` of the prompt tokens after the first, as one flat ``(N,)`` vector, trace after trace."""
    longest = int(batch.starts.max())
    offsets = torch.arange(1, longest, device=hidden.device).unsqueeze(0)
    inside = offsets < batch.starts.unsqueeze(1)
    tokens = (batch.first.unsqueeze(1) + offsets)[inside]
    return logprobs_of_hidden(hidden[tokens - 1], model.get_output_embeddings(), batch.input_ids.flatten()[tokens])


@dataclass(frozen=True, slots=True)
class Rollout:
    """A sampled completion: its ids (the end token included where ``finished``), and log p of each at temperature 1."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


def load_causal_lm(directory: Path) -> Any:
    """The causal LM in a folder of a verified checkpoint, on the CPU, for evaluation: safetensors, no remote code."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False, use_safetensors=True
    ).eval()


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of tokens that reaches ``top_p`` (Holtzman et al. 2020); not renormalised."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))


def draw(logits: Tensor, *, temperature: float, top_p: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One token a row of ``(B, V)`` logits: ``(ids, log p at temperature 1)``. Temperature 0 takes the likeliest."""
    logprobs = logits.float().log_softmax(-1)
    if temperature == 0:
        ids = logprobs.argmax(-1)
    else:
        probabilities = (logprobs / temperature).softmax(-1)
        if top_p < 1.0:
            probabilities = nucleus(probabilities, top_p)
        ids = torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
    return ids, logprobs.gather(1, ids.unsqueeze(1)).squeeze(1)


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    num_samples: int,
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_p: float = 1.0,
    on_step: Callable[[int, int], None] | None = None,
) -> list[list[Rollout]]:
    """``num_samples`` rollouts of each prompt, in the prompts' order.

    ``on_step(tokens_done, max_new_tokens)`` is called after every token; an exception it raises cancels the sampling.
    Prompts are padded on the left; rows that have ended leave the batch.

    Raises:
        ValueError: no prompt, ``num_samples`` or ``max_new_tokens`` < 1, temperature < 0, or top_p outside (0, 1].
    """
    if not prompts or num_samples < 1 or max_new_tokens < 1 or temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"cannot sample {num_samples} of {len(prompts)} prompts at temperature {temperature}, top_p {top_p} "
            f"and at most {max_new_tokens} tokens"
        )
    was_training = model.training
    model.eval()
    try:
        rows = _decode(
            model, prompts, num_samples, max_new_tokens, set(end_ids), pad_id, generator, temperature, top_p, on_step
        )
    finally:
        model.train(was_training)
    return [rows[i * num_samples : (i + 1) * num_samples] for i in range(len(prompts))]


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    num_samples: int,
    max_new_tokens: int,
    end_ids: set[int],
    pad_id: int,
    generator: torch.Generator,
    temperature: float,
    top_p: float,
    on_step: Callable[[int, int], None] | None,
) -> list[Rollout]:
    device = next(model.parameters()).device
    width = max(map(len, prompts))
    input_ids = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    output = model(input_ids=input_ids, attention_mask=attention, position_ids=_positions(attention), logits_to_keep=1)
    cache, logits = output.past_key_values, output.logits[:, -1].repeat_interleave(num_samples, 0)
    cache.batch_repeat_interleave(num_samples)  # each prompt is read once and shared by its samples
    attention = attention.repeat_interleave(num_samples, 0)
    alive = torch.arange(len(prompts) * num_samples)
    ends = torch.tensor(sorted(end_ids), device=device)
    ids: list[list[int]] = [[] for _ in alive]
    logprobs: list[list[float]] = [[] for _ in alive]
    for step in range(max_new_tokens):
        chosen, chosen_logprobs = draw(logits, temperature=temperature, top_p=top_p, generator=generator)
        for row, token, value in zip(alive.tolist(), chosen.tolist(), chosen_logprobs.tolist(), strict=True):
            ids[row].append(token)
            logprobs[row].append(value)
        if on_step:
            on_step(step + 1, max_new_tokens)
        going = ~torch.isin(chosen, ends)
        if step == max_new_tokens - 1 or not going.any():
            break
        if not going.all():
            keep = going.nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            attention, chosen, alive = attention[keep], chosen[keep], alive[keep.cpu()]
        attention = torch.cat([attention, attention.new_ones(attention.shape[0], 1)], dim=1)
        output = model(
            input_ids=chosen.unsqueeze(1), attention_mask=attention, position_ids=_positions(attention)[:, -1:],
            past_key_values=cache,
        )  # fmt: skip
        logits = output.logits[:, -1]
    return [Rollout(tuple(i), tuple(p), i[-1] in end_ids) for i, p in zip(ids, logprobs, strict=True)]


def _positions(attention: Tensor) -> Tensor:
    return (attention.cumsum(-1) - 1).clamp(min=0)
