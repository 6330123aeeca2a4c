"""Decoding with fused weights against the model's own forward pass, token by token."""

from __future__ import annotations

import copy
import logging
from itertools import chain
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from irl_core.models.precision import compute_in
from irl_core.policy import sampling
from irl_core.policy.decoder import PROJECTIONS, ROOM, Decoding, FusedWeights, Projection, reason_not_to_decode
from irl_core.policy.protocol import left_padded
from irl_core.policy.sampling import ForwardDecoding, LoopSampler, filled_from_behind, positions
from tests.small_models import random_model

VOCABULARY = 120
PROMPTS = [[7, 30, 41], [9] * 29 + [11], [50, 51, 52, 53, 54, 55, 56]]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, head of its own": ("llama", {"tie_word_embeddings": False}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, a key head a query": ("llama", {"num_key_value_heads": 4}),
    "llama, one key head, wide": ("llama", {"num_key_value_heads": 1, "head_dim": 32}),
    "llama, rope of llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "llama, rope divided": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}}),
    "qwen2": ("qwen2", {}),
    "qwen2, head of its own": ("qwen2", {"tie_word_embeddings": False}),
}


def a_model(shape: str) -> Any:
    kind, options = SHAPES[shape]
    model = random_model(kind, VOCABULARY, **options)
    model.lm_head.weight.data.mul_(10.0)  # else all tokens would be about as likely
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.5, generator=generator)
    return model


def adapted(model: Any, targets: tuple[str, ...] = PROJECTIONS) -> Any:
    settings = LoraConfig(r=4, lora_alpha=16, target_modules=list(targets), task_type="CAUSAL_LM")
    model = get_peft_model(copy.deepcopy(model), settings)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return model.eval()


@torch.no_grad()
def both(model: Any, steps: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``(steps, B, V)`` of fused decoding and of whole passes; two rows leave after the third token."""
    assert reason_not_to_decode(model) == ""
    ids, attention = left_padded(PROMPTS, 0, torch.device("cpu"))
    read = model(input_ids=ids, attention_mask=attention, position_ids=positions(attention), use_cache=True)
    owners = torch.tensor([0, 0, 1, 2, 2])
    decoding = Decoding(FusedWeights(model), read.past_key_values, attention, owners)
    rows = [list(PROMPTS[owner]) for owner in owners]
    generator, fused, whole = torch.Generator().manual_seed(1), [], []
    for step in range(steps):
        if step == 3:
            places = filled_from_behind([0, 3, 4])
            assert places == [0, 4, 3]
            decoding.keep(places)
            rows = [rows[place] for place in places]
        chosen = torch.randint(VOCABULARY, (len(rows),), generator=generator)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.append(token)
        fused.append(decoding.step(chosen))
        whole.append(torch.stack([model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]))
    return torch.cat(fused), torch.cat(whole)


@pytest.mark.parametrize("adapters", [False, True], ids=["plain", "adapters"])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_models_own_forward_pass(shape: str, adapters: bool) -> None:
    model = adapted(a_model(shape)) if adapters else a_model(shape)
    fused, whole = both(model)
    torch.testing.assert_close(fused, whole, atol=1e-4, rtol=0)
    assert whole.std() > 0.5  # of logits that tell tokens apart


def test_adapters_of_some_layers_switched_off_and_merged() -> None:
    plain = a_model("qwen2")
    model = adapted(plain, ("k_proj", "up_proj"))
    in_force, _ = both(model)
    with model.disable_adapter():
        torch.testing.assert_close(both(model)[0], both(plain)[0], atol=1e-4, rtol=0)
    assert (in_force - both(plain)[0]).abs().max() > 0.1
    model.merge_adapter()
    torch.testing.assert_close(both(model)[0], in_force, atol=1e-4, rtol=0)


def test_the_cache_grows_past_its_room() -> None:
    fused, whole = both(a_model("llama"), steps=ROOM + 5)  # 30 tokens in the longest prompt: grows twice
    torch.testing.assert_close(fused, whole, atol=1e-4, rtol=0)


def test_adapters_in_float32_on_weights_in_bfloat16_keep_small_updates() -> None:
    # Around 0.5 bfloat16 has steps of 1/256: added to such a weight an update of 0.001 is lost. Of an input of ones the
    # weights' parts cancel, and 64 * 1 * 0.001 is left.
    linear = nn.Linear(64, 64, bias=False)
    linear.weight.data = torch.tensor([0.5, -0.5]).repeat(64, 32)
    model = get_peft_model(nn.Sequential(linear), LoraConfig(r=1, lora_alpha=1, target_modules=["0"]))
    part = model.base_model.model[0]
    part.lora_A["default"].weight.data.fill_(1.0)
    part.lora_B["default"].weight.data.fill_(1e-3)
    part.base_layer.bfloat16()
    with torch.no_grad():
        found = Projection.of([part], torch.bfloat16)(torch.ones(1, 64, dtype=torch.bfloat16))
    torch.testing.assert_close(found.float(), torch.full((1, 64), 0.064), atol=2**-12, rtol=0)


def test_computing_in_bfloat16_with_weights_in_float32() -> None:
    model, exact = a_model("llama"), a_model("llama")
    compute_in(model, torch.bfloat16, "cpu")
    fused, whole = both(model)
    truth = both(exact)[1]
    assert fused.dtype == torch.bfloat16
    assert (fused.float() - truth).abs().mean() < 1.5 * (whole.float() - truth).abs().mean()


# ---------------------------------------------------------------------------------------------- what is not decoded so


def test_what_is_not_decoded_so_is_named() -> None:
    def reason(**options: Any) -> str:
        return reason_not_to_decode(random_model("llama", VOCABULARY, **options))

    assert reason() == ""
    dynamic = {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0}
    assert reason(rope_parameters=dynamic) == "its rotary embedding is 'dynamic'"
    assert "activation" in reason(hidden_act="gelu")
    window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    assert "attention not full" in reason_not_to_decode(random_model("qwen2", VOCABULARY, **window))
    assert reason_not_to_decode(nn.Linear(2, 2)) == "Linear is neither Llama nor Qwen2"
    dora = get_peft_model(
        a_model("llama"), LoraConfig(r=2, target_modules=["v_proj"], task_type="CAUSAL_LM", use_dora=True)
    )
    assert reason_not_to_decode(dora) == "its v_proj is Linear, neither linear nor with plain adapters"
    head = get_peft_model(
        a_model("llama, head of its own"), LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM")
    )
    assert reason_not_to_decode(head) == "its embeddings or its head are adapted"
    wrapped = a_model("llama")
    wrapped.forward = wrapped.forward
    assert reason_not_to_decode(wrapped) == "its forward pass is wrapped"


def test_another_model_is_sampled_all_the_same_and_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model(
        "llama", VOCABULARY, rope_parameters={"rope_type": "dynamic", "rope_theta": 9.0, "factor": 2.0}
    )
    sampling.say_slow.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (rows,) = LoopSampler((), 0)(model, [[5, 6]], num_samples=2, max_new_tokens=3, seeds=[1])
    assert [len(one.token_ids) for one in rows] == [3, 3]
    told = "LlamaForCausalLM is sampled by its own forward pass, more slowly: its rotary embedding is 'dynamic'"
    assert caplog.messages == [told]


# ------------------------------------------------------------------------------------------------------- in the sampler


def test_prompts_are_read_once_and_ended_rows_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read, decoded = a_model("qwen2"), list[tuple[int, ...]](), list[int]()
    own_forward, step = type(model).forward, Decoding.step

    def forward(self: Any, **given: Any) -> Any:
        read.append(tuple(given["input_ids"].shape))
        return own_forward(self, **given)

    def counted(self: Decoding, ids: torch.Tensor) -> torch.Tensor:
        decoded.append(len(ids))
        return step(self, ids)

    monkeypatch.setattr(type(model), "forward", forward)
    monkeypatch.setattr(Decoding, "step", counted)
    groups = LoopSampler(range(25), 0)(model, PROMPTS, num_samples=4, max_new_tokens=9, seeds=[1, 2, 3])
    lengths = [len(one.token_ids) for rows in groups for one in rows]
    assert read == [(3, 30)] and len(set(lengths)) > 2
    assert decoded == [sum(length > done for length in lengths) for done in range(1, max(lengths))]


@pytest.mark.parametrize("shape", ["llama, rope of llama 3", "qwen2, head of its own"])
def test_tokens_are_those_of_the_models_own_forward_pass(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(a_model(shape))
    settings: dict[str, Any] = {"num_samples": 6, "max_new_tokens": 40, "seeds": [1, 2, 3]}
    fused = LoopSampler(range(3), 0)(model, PROMPTS, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "reason_not_to_decode", lambda model: "asked for")
        patch.setattr(sampling, "Decoding", None)
        own = LoopSampler(range(3), 0)(model, PROMPTS, **settings)
    assert [[one.token_ids for one in rows] for rows in fused] == [[one.token_ids for one in rows] for rows in own]
    for one, other in zip(chain(*fused), chain(*own), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_gaps_are_filled_from_behind() -> None:
    assert filled_from_behind([0, 1, 2]) == [0, 1, 2]
    assert filled_from_behind([1, 3, 4]) == [4, 1, 3]
    assert filled_from_behind([5]) == [5]


def test_forward_decoding_keeps_rows_in_the_order_asked_for() -> None:
    model = a_model("llama")
    with torch.no_grad():
        ids, attention = left_padded(PROMPTS, 0, torch.device("cpu"))
        read = model(input_ids=ids, attention_mask=attention, position_ids=positions(attention), use_cache=True)
        decoding = ForwardDecoding(model, read.past_key_values, attention, torch.tensor([2, 1, 0]))
        decoding.keep([2, 0])
        logits = decoding.step(torch.tensor([3, 4]))
        expected = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in ([*PROMPTS[0], 3], [*PROMPTS[2], 4])]
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-4, rtol=0)
