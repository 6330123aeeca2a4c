"""Models of random weights for measuring: real shapes, real files, nothing downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from benchmarks.random_model import SPREAD, write_model

SIZE = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen2Config])
@pytest.mark.parametrize("tied", [True, False])
def test_a_random_model_loads_as_any_other(kind: type, tied: bool, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    folder = tmp_path / "model"
    count = write_model(kind(**SIZE, tie_word_embeddings=tied), folder, tokenizer, seed=3)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto")
    assert count == sum(p.numel() for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    weights = model.model.layers[2].mlp.up_proj.weight.float()
    assert weights.std().item() == pytest.approx(SPREAD, rel=0.1)
    assert model.model.layers[0].input_layernorm.weight.eq(1).all()
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    # a shard for every layer and one for the rest, so that one layer at a time is in memory
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 4
    assert (folder / "tokenizer.json").is_file()
