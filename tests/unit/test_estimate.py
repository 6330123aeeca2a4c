"""Estimates of memory against what is really there: what a backward pass keeps, quantised weights, moments, caches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from irl_core.config import LoraConfig, ModelConfig, TrainConfig
from irl_core.models import logprobs
from irl_core.models.precision import compute_in
from irl_core.policy import draws
from irl_core.presets import load_config
from train.planning import memory as estimate
from train.planning.architectures import KNOWN, Architecture, architecture_of
from train.planning.memory import Memory, Pair, Part, Processes, estimate_memory, saved_bytes, weight_bytes

PRESETS = Path(__file__).resolve().parents[2] / "train" / "configs"
LLAMA_8B = KNOWN["meta-llama/Llama-3.1-8B-Instruct"].shape
LLAMA_1B = KNOWN["meta-llama/Llama-3.2-1B-Instruct"].shape
SMALL = {
    "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 160,
    "vocab_size": 128, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
LORA = LoraConfig(rank=8)
# How weights are held: frozen in bfloat16 under adapters, in float32, in float32 and cast where they compute.
HELD = {
    "adapters": ModelConfig(backend="transformers", policy="x", dtype="bfloat16", lora=LORA),
    "float32": ModelConfig(backend="transformers", policy="x"),
    "autocast": ModelConfig(backend="transformers", policy="x", dtype="bfloat16"),
}


def configured(**model: Any) -> TrainConfig:
    method = "grpo" if model.get("quantisation") == "int8" else "irl"  # no discriminator is held in it
    overrides = [f"run.method={method}", *(f"model.{key}={value}" for key, value in model.items())]
    return load_config("llama-8b-1b", overrides, PRESETS)


def part(memory: Memory, name: str, phase: str = "always") -> Part:
    return next(part for part in memory.parts if (part.name, part.phase) == (name, phase))


# ----------------------------------------------------------------------------------- against what is really there


def kept_for_backward(held: str, config: Any, tokens: int) -> int:
    """Bytes that a decoder keeps, its own weights and casts of them left out."""
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    if held == "adapters":
        model = peft.get_peft_model(
            model.to(torch.bfloat16), peft.LoraConfig(r=LORA.rank, target_modules=list(LORA.targets)),
            autocast_adapter_dtype=True,
        )  # fmt: skip
    elif held == "autocast":
        compute_in(model, torch.bfloat16, "cpu")
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    shapes = {p.shape for p in model.parameters()} | {p.t().shape for p in model.parameters() if p.dim() == 2}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and not (held == "autocast" and tensor.shape in shapes):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 128, (1, tokens))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("held", list(HELD))
def test_a_layer_keeps_what_is_estimated(family: str, held: str) -> None:
    tokens = 200  # no side of a weight, so that nothing is mistaken for one
    configs = [AutoConfig.for_model(family, **SMALL, num_hidden_layers=layers) for layers in (2, 3)]
    fewer, more = (kept_for_backward(held, config, tokens) for config in configs)
    config, shape = replace(TrainConfig(), model=HELD[held]), architecture_of(configs[0].to_dict(), "x")
    assert (more - fewer) / tokens == saved_bytes(config, shape)


def test_quantised_weights_take_what_is_estimated() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(512, 2048, dtype=torch.bfloat16)
    packed, state = functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    held = packed.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert held / weight.numel() == estimate.NF4_BYTES


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_moments_take_what_is_estimated(kind: str) -> None:
    parameter = torch.nn.Parameter(torch.randn(256, 512))
    optimizer: Any = torch.optim.AdamW([parameter])
    if kind == "adamw_8bit":
        optimizer = pytest.importorskip("bitsandbytes.optim").AdamW8bit([parameter])
    parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    tables = 2 * 256 * 4  # of 8-bit values, which all parameters share
    tensors = [value for value in optimizer.state[parameter].values() if isinstance(value, torch.Tensor)]
    flat = [t for t in tensors if t.numel() > 1]
    found = sum(t.nbytes for t in flat) - (tables if kind == "adamw_8bit" else 0)
    assert found / parameter.numel() == pytest.approx(estimate.MOMENT_BYTES[kind], abs=1e-6)


def test_a_cache_takes_what_is_estimated() -> None:
    config = AutoConfig.for_model("qwen2", **SMALL, num_hidden_layers=3)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16).eval()
    cache = DynamicCache(config=config)
    with torch.no_grad():
        model(input_ids=torch.randint(0, 128, (2, 11)), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert held == 22 * architecture_of(config.to_dict(), "x").kv_bytes("bfloat16")


def test_chunks_are_as_large_as_those_of_the_code() -> None:
    assert estimate.LOGITS_AT_ONCE == logprobs.LOGITS_AT_ONCE
    assert estimate.READ_AT_ONCE_ON_CPU == logprobs.READ_AT_ONCE_ON_CPU
    assert estimate.DRAWN_AT_ONCE == draws.LOGITS_AT_ONCE


# --------------------------------------------------------------------------------------------------------- by hand


def test_weights_by_hand() -> None:
    # 32 layers of 2 * 4096^2 + 2 * 4096 * 1024 + 3 * 4096 * 14336; embeddings and LM head; 65 norms of 4096.
    linear, embeddings, norms = 32 * 218_103_808, 2 * 128_256 * 4096, 65 * 4096
    assert (LLAMA_8B.linear_parameters, LLAMA_8B.embedding_parameters) == (linear, embeddings)
    nf4 = linear * (0.5 + 1 / 64 + 4 / 16384) + 2 * (embeddings + norms)
    assert weight_bytes(configured(), LLAMA_8B) == pytest.approx(nf4)
    assert nf4 == pytest.approx(5.70e9, rel=0.001)
    assert weight_bytes(configured(quantisation="none"), LLAMA_8B) == 2 * LLAMA_8B.parameters
    # LLM.int8(): a byte a weight and a scale of four bytes a row (6 rows of 4096 or 1024, 2 of 14336 each layer).
    rows = 32 * (4096 + 1024 + 1024 + 4096 + 14336 + 14336 + 4096)
    int8 = linear + 4 * rows + 2 * (embeddings + norms)
    assert weight_bytes(configured(quantisation="int8"), LLAMA_8B) == int8
    whole = configured(quantisation="none", lora="{rank: 0}")
    assert weight_bytes(whole, LLAMA_8B) == 4 * LLAMA_8B.parameters


def test_parts_by_hand() -> None:
    config = configured()
    memory = estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B))
    adapters = 335_544_320  # 8 times those of rank 16, which test_architectures counts
    assert part(memory, "policy: adapters").bytes == 4 * adapters
    assert part(memory, "policy: optimiser").bytes == pytest.approx(adapters * (2 + 8 / 256))
    assert part(memory, "policy: gradients", "policy").bytes == 4 * adapters
    # 65536 tokens hold 58 samples of 300 + 824; one layer's keys and values exist twice while they grow.
    assert part(memory, "policy: cache of the samples", "sampling").bytes == 58 * 1124 * 131_072 * (1 + 2 / 32)
    # 16384 tokens of 4096 numbers of 2 bytes at each of 32 layers.
    assert part(memory, "policy: checkpoints of layers", "policy").bytes == 16384 * 4096 * 2 * 32
    assert memory.total == pytest.approx(memory.of("always") + max(map(memory.of, estimate.PHASES)))


def test_the_largest_phase_counts_and_its_parts_are_ordered() -> None:
    parts = (Part("a", 1.0), Part("b", 5.0, "sampling", "x"), Part("c", 3.0, "policy"), Part("d", 4.0, "policy"))
    memory = Memory(parts)
    assert (memory.largest_phase, memory.total) == ("policy", 8.0)
    assert [part.name for part in memory.at_peak()] == ["d", "c", "a"]


def test_the_main_pair_fits_40_gb_in_4_bit() -> None:
    for name in ("llama-8b-1b", "llama-8b-1b-paper"):
        memory = estimate_memory(load_config(name, presets_dir=PRESETS), Pair(LLAMA_8B, LLAMA_1B))
        assert 20e9 < memory.total < 40e9


# ------------------------------------------------------------------------------------------- what settings change


def total(config: TrainConfig, phase: estimate.Phase = "policy", processes: Processes = Processes()) -> float:  # noqa: B008
    return estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B), processes).of(phase)


def with_run(config: TrainConfig, **changes: Any) -> TrainConfig:
    return replace(config, run=replace(config.run, **changes))


def test_every_setting_that_a_part_names_makes_it_smaller() -> None:
    large = configured(quantisation="none", gradient_checkpointing="false", optimiser="adamw")
    memory = estimate_memory(large, Pair(LLAMA_8B, LLAMA_1B))
    smaller = {
        "policy.sampling_tokens": "4096", "run.batch_tokens": "2048", "model.gradient_checkpointing": "true",
        "model.quantisation": "nf4", "model.optimiser": "paged_adamw_8bit", "model.lora.rank": "16",
    }  # fmt: skip
    named = {part.setting for part in memory.parts if part.setting}
    assert named <= set(smaller)
    assert named >= {"policy.sampling_tokens", "model.gradient_checkpointing", "model.quantisation", "model.optimiser"}
    for found in memory.parts:
        if found.setting:
            overrides = ["model.quantisation=none", "model.gradient_checkpointing=false", "model.optimiser=adamw"]
            config = load_config("llama-8b-1b", [*overrides, f"{found.setting}={smaller[found.setting]}"], PRESETS)
            after = estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B))
            assert part(after, found.name, found.phase).bytes < found.bytes, found


def test_checkpointing_is_named_where_it_is_off_and_the_budget_where_it_is_on() -> None:
    off = estimate_memory(configured(gradient_checkpointing="false"), Pair(LLAMA_8B, LLAMA_1B))
    on = estimate_memory(configured(), Pair(LLAMA_8B, LLAMA_1B))
    assert part(off, "policy: activations", "policy").setting == "model.gradient_checkpointing"
    assert part(on, "policy: activations", "policy").setting == "run.batch_tokens"
    # Off: 32 layers are kept in place of one.
    kept = saved_bytes(configured(), LLAMA_8B)
    more = part(off, "policy: activations", "policy").bytes - part(on, "policy: activations", "policy").bytes
    assert more == pytest.approx(16384 * 31 * kept)


def test_a_trace_longer_than_the_budget_still_stands_alone() -> None:
    config = with_run(configured(), batch_tokens=1)
    alone = estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B))
    assert part(alone, "policy: checkpoints of layers", "policy").bytes == 1124 * 4096 * 2 * 32


@pytest.mark.parametrize("name", ["sft-llama-8b", "grpo-llama-8b"])
def test_likelihood_and_outcome_rewards_have_no_discriminator(name: str) -> None:
    found = estimate_memory(load_config(name, presets_dir=PRESETS), Pair(LLAMA_8B))
    assert not [part for part in found.parts if part.name.startswith(("discriminator", "both"))]


def test_without_evaluation_likelihood_training_does_not_sample() -> None:
    config = load_config("sft-llama-8b", ["run.eval_every=0"], PRESETS)
    assert estimate_memory(config, Pair(LLAMA_8B)).of("sampling") == 0.0


def test_a_reference_takes_room_only_where_there_are_no_adapters() -> None:
    overrides = ["policy.kl_coefficient=0.1"]
    adapters = estimate_memory(load_config("llama-8b-1b", overrides, PRESETS), Pair(LLAMA_8B, LLAMA_1B))
    assert not [part for part in adapters.parts if part.name == "reference: weights"]
    overrides += ["model.quantisation=none", "model.lora.rank=0"]
    whole = estimate_memory(load_config("llama-8b-1b", overrides, PRESETS), Pair(LLAMA_8B, LLAMA_1B))
    assert part(whole, "reference: weights").bytes == 4 * LLAMA_8B.parameters


def test_divided_weights_are_gathered_for_sampling() -> None:
    config = configured(quantisation="none")
    alone = estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B))
    divided = estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B), Processes(4, sharded=True))
    linear = 2 * LLAMA_8B.linear_parameters
    saved = part(alone, "policy: weights").bytes - part(divided, "policy: weights").bytes
    assert saved == pytest.approx(0.75 * linear)
    assert part(divided, "policy: divided weights made whole", "sampling").bytes == pytest.approx(0.75 * linear)
    assert part(divided, "policy: layers made whole").bytes == pytest.approx(2 * linear / 32)


def test_processes_share_the_samples() -> None:
    config = load_config("llama-8b-1b", ["run.eval_every=0"], PRESETS)  # two prompts of 16 samples
    two = estimate_memory(config, Pair(LLAMA_8B, LLAMA_1B), Processes(2))
    assert part(two, "policy: cache of the samples", "sampling").bytes == 16 * 1124 * 131_072 * (1 + 2 / 32)


def test_a_gradient_penalty_costs_the_square_of_the_length() -> None:
    config = load_config(
        "qwen-3b-05b-paper", ["discriminator.loss=wasserstein", "discriminator.gradient_penalty=10"], PRESETS
    )
    shape: Architecture = KNOWN["Qwen/Qwen2.5-0.5B-Instruct"].shape
    memory = estimate_memory(config, Pair(KNOWN["Qwen/Qwen2.5-3B-Instruct"].shape, shape))
    found = part(memory, "discriminator: attention twice differentiated", "discriminator")
    assert found.bytes == 16 * 16384 * 1124 * 14 * 24
    assert memory.largest_phase == "discriminator"
