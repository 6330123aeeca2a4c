"""Sizes that a model's description names, checked before anything of that size is built.

A description is a stranger's: 100,000 layers would be built for hours, and a table of a billion rows fills the memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irl_core.errors import CheckpointError

# The largest open models have 126 layers, a width of 18,432 and 262,144 tokens. Transformers' names, and those that
# older kinds of models have for the same.
MOST_LAYERS, MOST_HEADS, MOST_EXPERTS = 512, 1024, 1024
WIDEST, WIDEST_HEAD, MOST_TOKENS, LONGEST_CONTEXT = 65_536, 1024, 1_000_000, 100_000_000
LIMITS = {
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), MOST_LAYERS
    ),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim"), WIDEST),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "moe_intermediate_size"), 8 * WIDEST),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads"), MOST_HEADS),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), MOST_EXPERTS),
    "head_dim": WIDEST_HEAD,
    "vocab_size": MOST_TOKENS,
    **dict.fromkeys(("max_position_embeddings", "n_positions"), LONGEST_CONTEXT),
}
LONGEST_LIST = 10_000  # of values in one list, such as the kinds of the layers


def check_sizes(name: str, document: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a size that is no whole number above 0, or over its limit, at any depth of a model's
    configuration, which the file ``name`` holds."""
    pending: list[Any] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            for key, size in value.items():
                limit = LIMITS.get(key)
                if limit is None or size is None:
                    continue
                if type(size) is not int or not 1 <= size <= limit:
                    raise CheckpointError(
                        f"{name}: {key} is {repr(size)[:40]}; a whole number from 1 to {limit:,} is expected"
                    )
            pending.extend(value.values())
        elif isinstance(value, list):
            if len(value) > LONGEST_LIST:
                raise CheckpointError(f"{name}: holds a list of {len(value):,} values; the limit is {LONGEST_LIST:,}")
            pending.extend(value)


def check_fits_weights(folder: Path) -> None:
    """Raise CheckpointError where a folder's configuration names a model of more weights than its files have bytes.

    Weights that are missing take memory before they can be named. The model is built without any (on torch's ``meta``
    device) to count them.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    named = sum(parameter.numel() for parameter in skeleton.parameters())  # tied ones once
    held = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if named > held:
        raise CheckpointError(
            f"{folder}: config.json names a model of {named:,} weights, which {held:,} bytes of files cannot hold; "
            "copy both anew"
        )
