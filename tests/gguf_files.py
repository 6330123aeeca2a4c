"""Small GGUF files, written with the format's own package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy
import torch

from irl_core.models.gguf_header import LAYER_TENSORS, TENSORS


def neighbours_together(values: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a query or key projection in llama.cpp's order: (0, 2, 1, 3) of transformers is (0, 1, 2, 3) there."""
    return values.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def tensors_of(model: Any, kind: str) -> dict[str, numpy.ndarray[Any, Any]]:
    """A model's tensors under their names in a GGUF."""
    config, found = model.config, {}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    layer_names = {theirs: ours for ours, theirs in LAYER_TENSORS.items()}
    names = {theirs: ours for ours, theirs in TENSORS.items()}
    for name, values in model.state_dict().items():
        body, _, suffix = name.rpartition(".")
        part = body.split(".")[-1]
        if kind == "llama" and part in heads:
            values = neighbours_together(values, heads[part])
        if body in names:
            name = f"{names[body]}.{suffix}"
        else:
            _, _, number, rest = body.split(".", 3)
            name = f"blk.{number}.{layer_names[rest]}.{suffix}"
        found[name] = values.float().numpy()
    if config.tie_word_embeddings:
        found.pop("output.weight", None)
    return found


def write_gguf(
    path: Path, model: Any, tokenizer: Any, *, types: dict[str, str] | None = None, keys: dict[str, Any] | None = None,
    tensors: dict[str, Any] | None = None, default: str = "F32",
) -> Path:  # fmt: skip
    """A model and its tokenizer as a GGUF.

    Args:
        path: the file.
        model: a Llama or Qwen2 of transformers.
        tokenizer: a byte-level BPE tokenizer.
        types: how tensors are stored, by name; ``default``: that of all other matrices (vectors are F32).
        keys: of the header, in place of or beside the model's; ``...`` leaves one out.
        tensors: more of them, or others in their place.
    """
    config, kind = model.config, str(model.config.model_type)
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = set(tokenizer.all_special_tokens) | {one["content"] for one in document["added_tokens"] if one["special"]}
    rope = config.rope_parameters
    written: dict[str, Any] = {
        f"{kind}.block_count": config.num_hidden_layers,
        f"{kind}.context_length": config.max_position_embeddings,
        f"{kind}.embedding_length": config.hidden_size,
        f"{kind}.feed_forward_length": config.intermediate_size,
        f"{kind}.attention.head_count": config.num_attention_heads,
        f"{kind}.attention.head_count_kv": config.num_key_value_heads,
        f"{kind}.attention.key_length": getattr(config, "head_dim", 0)
        or config.hidden_size // config.num_attention_heads,
        f"{kind}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{kind}.rope.freq_base": float(rope["rope_theta"]),
        "general.license": "apache-2.0",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3 if token in special else 1 for token in vocabulary],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in document["model"]["merges"]],
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.chat_template": tokenizer.chat_template,
    } | (keys or {})
    writer = gguf.GGUFWriter(path, str(written.pop("general.architecture", kind)))
    for name, value in written.items():
        if value is ... or value is None:
            continue
        if isinstance(value, bool | str | list):
            {bool: writer.add_bool, str: writer.add_string, list: writer.add_array}[type(value)](name, value)
        else:
            (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(name, value)
    for name, values in (tensors_of(model, kind) | (tensors or {})).items():
        stored = (types or {}).get(name, "F32" if values.ndim == 1 else default)
        quantised = gguf.GGMLQuantizationType[stored]
        writer.add_tensor(name, gguf.quantize(values, quantised), raw_dtype=quantised)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
