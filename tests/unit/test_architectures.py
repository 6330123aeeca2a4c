"""Shapes in closed form against the models that transformers builds of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from irl_core.config import LoraConfig
from irl_core.errors import ConfigError
from irl_core.models.hub import KNOWN_MODELS
from train.planning.architectures import KNOWN, LINEARS, architecture_of, transformers_config

# What the hub's pages of these models say (safetensors, parameters).
PUBLISHED = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-Math-1.5B-Instruct": 1_543_714_304,
}
SMALL = {
    "num_hidden_layers": 3, "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 96, "vocab_size": 100, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


def on_meta(config: Any) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_the_papers_models_are_known() -> None:
    assert set(KNOWN) == set(PUBLISHED) == set(KNOWN_MODELS)
    assert {name for name, known in KNOWN.items() if known.gated} == {n for n in KNOWN if n.startswith("meta-llama")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_model_and_the_published_ones(name: str) -> None:
    config = transformers_config(name)
    model, shape = on_meta(config), KNOWN[name].shape
    assert shape.parameters == sum(p.numel() for p in model.parameters()) == PUBLISHED[name]
    linears = [m for n, m in model.named_modules() if n.rpartition(".")[2] in LINEARS]
    assert shape.linear_parameters == sum(m.weight.numel() for m in linears)
    assert replace(shape, rope=()) == architecture_of(config.to_dict(), name)
    assert config.rope_parameters["rope_theta"] == dict(shape.rope)["rope_theta"]


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"tie_word_embeddings": False, "attention_bias": True}),
        ("mistral", {"tie_word_embeddings": False, "head_dim": 32}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"tie_word_embeddings": False, "head_dim": 32}),
        ("qwen3", {"tie_word_embeddings": True, "attention_bias": True}),
    ],
)
def test_parameters_of_other_shapes(family: str, changes: dict[str, Any]) -> None:
    config = AutoConfig.for_model(family, **SMALL, **changes)
    shape = architecture_of(config.to_dict(), "this")
    assert shape.parameters == sum(p.numel() for p in on_meta(config).parameters())


@pytest.mark.parametrize("targets", [LoraConfig().targets, ("q_proj", "down_proj"), ("v_proj", "lm_head")])
def test_adapters_are_counted_as_peft_makes_them(targets: tuple[str, ...]) -> None:
    import peft

    config = AutoConfig.for_model("qwen2", **SMALL, tie_word_embeddings=False)
    model = peft.get_peft_model(on_meta(config), peft.LoraConfig(r=8, target_modules=list(targets)))
    found = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert architecture_of(config.to_dict(), "this").adapter_parameters(8, targets) == found


def test_adapters_by_hand() -> None:
    # Llama-3.1-8B, rank 16: q, o 4096+4096; k, v 4096+1024; gate, up, down 4096+14336; 32 layers.
    count = 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert KNOWN["meta-llama/Llama-3.1-8B-Instruct"].shape.adapter_parameters(16, LINEARS) == count == 41_943_040
    with pytest.raises(ConfigError, match=r"lora.targets names 'query'; layers are q_proj"):
        KNOWN["Qwen/Qwen2.5-0.5B-Instruct"].shape.adapter_parameters(16, ("query",))


def test_a_cached_token_by_hand() -> None:
    # 32 layers, 8 key heads of 128, a key and a value, 2 bytes each.
    assert KNOWN["meta-llama/Llama-3.1-8B-Instruct"].shape.kv_bytes("bfloat16") == 131_072
    assert KNOWN["Qwen/Qwen2.5-0.5B-Instruct"].shape.kv_bytes("float32") == 2 * 24 * 2 * 64 * 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "gpt2"}, "m is of the kind 'gpt2'; shapes are known of llama, mistral, qwen2, qwen3"),
        ({}, "m is of the kind 'None'"),
        ({"model_type": "llama"}, "m: its config.json gives no shape (KeyError: 'hidden_size')"),
        ({"model_type": "llama", "hidden_size": "x", "num_attention_heads": 1}, "m: its config.json gives no shape"),
        ({"model_type": "llama", "hidden_size": 8, "num_attention_heads": 0}, "m: its config.json gives no shape"),
    ],
)
def test_what_is_no_known_shape(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        architecture_of(config, "m")
    assert message in str(caught.value)


def test_an_unknown_name_has_no_configuration() -> None:
    with pytest.raises(ConfigError, match=r"the shape of 'a/b' is not known here; known are meta-llama/"):
        transformers_config("a/b")
