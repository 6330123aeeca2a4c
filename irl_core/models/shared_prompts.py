"""Batches in which traces of one problem share its prompt: it is read once, and every completion attends to it.

In a round of training a problem has an expert trace, samples and perturbed copies, whose prompts are half of all
tokens. The row holds families end to end, each a prompt and its completions. Attention runs family by family, outside
of what ``torch.compile`` sees, so that no shape of a family makes it compile anew.

The families travel as the attention mask, as whole numbers: gradient checkpointing calls a layer again with the
arguments that it had, long after anything that was set around the forward pass is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from irl_core.errors import ConfigError
from irl_core.models.batching import Batch, BatchLayout, Family
from irl_core.models.packed_attention import reason_not_to_pack

ATTENTION = "shared_prompts"


@dataclass(frozen=True, slots=True)
class FamilyMask:
    """A family, and the ``mask`` ``(C, P + C)`` of the positions that each of ``C`` completion tokens attends to."""

    family: Family
    mask: Tensor


@lru_cache(maxsize=2)  # every layer of a model asks for those of a batch, and no later batch does
def masks_of(families: tuple[Family, ...]) -> tuple[FamilyMask, ...]:
    """The masks of a batch's families."""
    return tuple(mask_of(family) for family in families)


def mask_of(family: Family) -> FamilyMask:
    """The mask of a family: all of the prompt, and a completion's own tokens up to each."""
    longest = max(family.completions)
    own = torch.ones(longest, longest, dtype=torch.bool).tril()
    return FamilyMask(family, torch.cat([torch.ones(longest, family.prompt, dtype=torch.bool), own], 1))


def use_shared_prompts(model: Any) -> None:
    """Set the attention of a causal LM, with or without adapters, to one that also takes families.

    Raises:
        ConfigError: a model with more than plain causal attention between tokens, or not on the CPU.
    """
    decoder = model.get_decoder()
    reason = reason_not_to_pack(decoder)
    if not reason and next(model.parameters()).device.type != "cpu":
        reason = "is not on the CPU"
    if reason:
        name = type(decoder).__name__
        raise ConfigError(f"{name} {reason}: prompts cannot be shared; set model.shared_prompts to false")
    AttentionInterface.register(ATTENTION, shared_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def sharing_layout(*models: Any) -> BatchLayout:
    """How batches lie for all of these models: with shared prompts where each can take them, which is set, else padded.

    Their results are the same but for rounding.
    """
    if any(next(one.parameters()).device.type != "cpu" or reason_not_to_pack(one.get_decoder()) for one in models):
        return "padded"
    for one in models:
        use_shared_prompts(one)
    return "shared_prompts"


def family_arguments(batch: Batch) -> dict[str, Any]:
    """The decoder's arguments for a batch of families."""
    lengths = [number for one in batch.families for number in (one.prompt, len(one.completions), *one.completions)]
    # A mask of four dimensions counts as prepared: none is made.
    mask = torch.tensor(lengths, dtype=torch.int64).view(1, 1, 1, -1)
    return {"position_ids": batch.position_ids, "attention_mask": mask}


def families_in(mask: Tensor) -> tuple[Family, ...]:
    """The families that ``family_arguments`` wrote into an attention mask."""
    families: list[Family] = []
    numbers, at = mask.flatten().tolist(), 0
    while at < len(numbers):
        end = at + 2 + numbers[at + 1]
        families.append(Family(numbers[at], tuple(numbers[at + 2 : end])))
        at = end
    return tuple(families)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def shared_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, **options: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention within families where the mask names them, else ``sdpa``.

    Args:
        module: the attention layer.
        query: (1, heads, L, D).
        key, value: (1, key heads, L, D).
        attention_mask: of padded rows, or that of ``family_arguments``.
        dropout, scaling, options: as of transformers' attention functions.

    Returns:
        (1, L, heads, D), and None for the attention weights.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotated ones may be float32
    pieces: list[Tensor] = []
    start = 0
    for one in masks_of(families_in(attention_mask)):
        end = start + one.family.length
        asked, keys, values = (states[0, :, start:end].transpose(0, 1) for states in (query, key, value))
        pieces += family_attention(one, asked, keys, values, dropout, scaling)
        start = end
    return torch.cat(pieces).unsqueeze(0), None


def family_attention(
    one: FamilyMask, query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None
) -> list[Tensor]:
    """What a family's tokens attend to, in order: ``(P, heads, D)``, then ``(C, heads, D)`` of each completion.

    ``query`` is ``(L, heads, D)``, ``key`` and ``value`` are ``(L, key heads, D)``.
    """
    prompt, lengths = one.family.prompt, one.family.completions
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    first = [states[:prompt].transpose(0, 1).unsqueeze(0) for states in (query, key, value)]  # (1, heads, P, D)
    causal = torch.ones(prompt, prompt, dtype=torch.bool).tril()
    read = attended(first[0], first[1], first[2], causal, dropout, scaling)
    rows = [  # (K, heads, C, D)
        pad_sequence(states[prompt:].split(lengths), batch_first=True).transpose(1, 2) for states in (query, key, value)
    ]
    keys, values = (
        torch.cat([before.expand(len(lengths), -1, -1, -1), own], 2)
        for before, own in zip(first[1:], rows[1:], strict=True)
    )
    mixed = attended(rows[0], keys, values, one.mask, dropout, scaling)
    ends = [row[:, :length].transpose(0, 1) for row, length in zip(mixed, lengths, strict=True)]
    return [read[0].transpose(0, 1), *ends]


def attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: float, scaling: float) -> Tensor:
    """Attention of ``(K, heads, C, D)`` queries to ``(K, key heads, T, D)`` where ``mask`` ``(C, T)`` is True.

    With gradients by plain products, the queries of one key head together: the fused kernel's backward pass takes twice
    their time at these lengths, and repeated keys are copies.
    """
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    if dropout or not torch.is_grad_enabled():
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    query = (query * scaling).reshape(-1, groups * length, width)
    unseen = torch.zeros(mask.shape, dtype=query.dtype).masked_fill(~mask, -torch.inf).repeat(groups, 1)
    scores = torch.baddbmm(unseen.expand(len(query), -1, -1), query, key.flatten(0, 1).transpose(1, 2))
    return (scores.softmax(-1) @ value.flatten(0, 1)).view(rows, heads, length, width)
