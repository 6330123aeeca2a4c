"""Attention for packed rows: several traces in one row, without padding, none of which attends to another.

A packed row needs positions that restart with every trace (see ``batching.pack``) and attention within each trace.
``use_packed_attention`` sets the attention: torch's variable-length kernel where it runs, else ``sdpa`` trace by trace.
No ``(L, L)`` mask is made. Batches that are not packed (padded ones, generation with a cache) use transformers' own
``sdpa``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from irl_core.errors import ConfigError
from irl_core.models.batching import Batch

ATTENTION = "packed_rows"
_WIDEST_HEAD = 256  # the flash kernels take head widths up to this, in multiples of 8
# Options of some models' attention that packed attention does not implement.
_NOT_READ = ("sliding_window", "position_bias", "s_aux", "softcap")


# ----------------------------------------------------------------------------------------------------- the attention


def use_packed_attention(model: Any) -> None:
    """Set the attention of a causal LM, with or without adapters, to one that also takes packed rows.

    Raises:
        ConfigError: a model with more than plain causal attention between tokens.
    """
    decoder = model.get_decoder()
    reason = reason_not_to_pack(decoder)
    if reason:
        raise ConfigError(f"{type(decoder).__name__} {reason}, which packed rows do not keep; set model.packing=false")
    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def reason_not_to_pack(decoder: Any) -> str:
    """Why a decoder cannot take packed rows; empty for plain causal attention."""
    config = decoder.config
    others = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    if others:
        return f"has layers of {', '.join(others)}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"attends within a window of {config.sliding_window} tokens"
    if decoder._is_stateful or not getattr(config, "is_causal", True):
        return "has layers that are not causal attention"
    if not (decoder._supports_sdpa and decoder._can_set_attn_implementation()):
        return "brings its own attention"
    return ""


def attention_arguments(model: Any, batch: Batch) -> dict[str, Any]:
    """Arguments of the decoder's forward pass for a packed batch; empty for a padded one.

    Raises:
        ConfigError: the batch is packed, but ``use_packed_attention`` was not called on the model.
    """
    if batch.cu_seqlens is None:
        return {}
    decoder = model.get_decoder()
    attention = decoder.config._attn_implementation
    if attention != ATTENTION:
        raise ConfigError(
            f"{type(decoder).__name__} has the attention {attention!r}, which looks across the solutions of a packed "
            "row; call use_packed_attention on the model, or set model.packing=false"
        )
    return {
        # A mask of four dimensions counts as prepared: none is made. Being empty it fits no other attention.
        "attention_mask": torch.empty(1, 1, 0, 0, dtype=torch.bool, device=batch.cu_seqlens.device),
        "cu_seq_lens_q": batch.cu_seqlens,
        "packed_lengths": batch.cu_seqlens.diff().tolist(),
    }


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    packed_lengths: Sequence[int] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each trace of a packed row, or ``sdpa`` where ``packed_lengths`` is not given.

    Args:
        module: the attention layer.
        query: (1, heads, L, D).
        key, value: (1, key heads, L, D).
        attention_mask: of padded rows; empty for packed ones.
        dropout, scaling, options: as of transformers' attention functions.
        cu_seq_lens_q: (B + 1,), the bounds of the B traces in the row.
        packed_lengths: their B lengths.

    Returns:
        (1, L, heads, D), and None for the attention weights.

    Raises:
        ConfigError: the model does not pass on ``attention_arguments``, or uses an option that is not implemented.
    """
    if packed_lengths is None or cu_seq_lens_q is None:
        if attention_mask is not None and not attention_mask.numel():
            raise ConfigError(
                f"{type(module).__name__} is not told where packed solutions end; set model.packing=false"
            )
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    unread = [name for name in _NOT_READ if options.get(name) is not None]
    if unread:
        raise ConfigError(f"{type(module).__name__} needs {', '.join(unread)} in packed rows; set model.packing=false")
    query, key, value = _in_autocast_dtype(query, key, value)
    if not dropout and _varlen_runs(query, value):
        return _attend_at_once(query, key, value, cu_seq_lens_q, max(packed_lengths), scaling), None
    pieces = zip(*(states.split(packed_lengths, dim=2) for states in (query, key, value)), strict=True)
    attended = [sdpa_attention_forward(module, q, k, v, None, dropout, scaling)[0] for q, k, v in pieces]
    return torch.cat(attended, dim=1), None


def _in_autocast_dtype(*states: Tensor) -> list[Tensor]:
    """Queries, keys and values in autocast's type, where autocast is on.

    Autocast does so for ``scaled_dot_product_attention``, but not for the variable-length kernel, and rotated queries
    and keys are float32.
    """
    device_type = states[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return list(states)
    dtype = torch.get_autocast_dtype(device_type)
    return [tensor.to(dtype) for tensor in states]


def _varlen_runs(query: Tensor, value: Tensor) -> bool:
    """Whether torch's variable-length kernel (flash attention, on Ampere GPUs and later) takes these tensors.

    Flash attention is switched off where a second derivative is needed.
    """
    width = query.shape[-1]
    return (
        query.is_cuda
        and torch.backends.cuda.flash_sdp_enabled()
        and query.dtype in (torch.bfloat16, torch.float16)
        and width == value.shape[-1]
        and width % 8 == 0
        and width <= _WIDEST_HEAD
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


@cache
def _varlen_keywords() -> frozenset[str]:
    """The parameters of ``varlen_attn``: ``is_causal`` in torch 2.10, ``window_size`` and ``scale`` from 2.11 on,
    ``enable_gqa`` from 2.12 on."""
    return frozenset(inspect.signature(varlen_attn).parameters)


def _attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, longest: int, scaling: float | None
) -> Tensor:
    """All traces of a row in one kernel. Shapes as in ``packed_attention``."""
    known = _varlen_keywords()
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = True
    else:
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None:
        query = query * (scaling * query.shape[-1] ** 0.5)  # the kernel divides by that root itself
    query, key, value = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))  # (L, heads, D)
    attended = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, longest, longest, **options)
    return cast(Tensor, attended).unsqueeze(0)
