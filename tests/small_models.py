"""Folders of pretrained models as they lie on the hub, with random weights: 2 layers of width 64.

bitsandbytes quantises blocks of 64 weights, so no narrower ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

KINDS = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}


def random_model(kind: str, vocab_size: int, *, seed: int = 0, contrast: float = 8.0, **options: Any) -> Any:
    """A model in float32; ``contrast`` scales its matrices, else every token would be about as likely as any other."""
    config_class, model_class = KINDS[kind]
    torch.manual_seed(seed)
    shape = {
        "vocab_size": vocab_size, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    model = model_class(config_class(**(shape | options))).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter.mul_(contrast)
    return model


def save_model(folder: Path, kind: str, tokenizer: Any, *, dtype: str = "float32", **options: Any) -> Path:
    """``folder`` with a random model and the tokenizer (or that of a folder), as a download would be."""
    if isinstance(tokenizer, Path):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True)
    model = random_model(kind, len(tokenizer), **options).to(getattr(torch, dtype))
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    # What a hub model brings along and sampling must not take over: top_k, repetition penalty.
    model.generation_config.update(eos_token_id=ends, do_sample=True, top_k=20, repetition_penalty=1.05)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def cached(cache: Path, name: str, model: Path, commit: str = "c0ffee" + "0" * 34) -> Path:
    """The model of a folder in a hub cache, under a name; returns the snapshot's folder."""
    home = cache / f"models--{name.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    shutil.copytree(model, snapshot)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    return snapshot


def edit_json(path: Path, **values: Any) -> None:
    """Change keys of a JSON file; ``...`` removes one."""
    document = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
