"""Packed rows: the same numbers as padded batches, and no trace sees another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from irl_core.errors import ConfigError
from irl_core.models import packed_attention as packing
from irl_core.models.batching import Batch, Batching, collate, pack, token_budget_rows
from irl_core.models.logprobs import completion_logprobs, hidden_states
from irl_core.models.packed_attention import attention_arguments, packed_attention, use_packed_attention
from irl_core.reward.discriminator import Discriminator
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Source
from tests.small_models import random_model

VOCABULARY = 64
LENGTHS = ((5, 7), (1, 1), (9, 20), (3, 12), (2, 1))  # (prompt, completion) of five traces: L = 61
KINDS = ("llama", "qwen2")


def a_trace(prompt: int, completion: int, seed: int = 0) -> EncodedTrace:
    """Random ids; packing reads nothing else."""
    generator = torch.Generator().manual_seed(1000 * seed + 31 * prompt + completion)
    ids = torch.randint(VOCABULARY, (prompt + completion,), generator=generator).tolist()
    trace = make_trace("a problem", "", source=Source.EXPERT)
    return EncodedTrace(trace, tuple(ids[:prompt]), tuple(ids[prompt:]), ((0, 0),) * completion)


def traces(seed: int = 0) -> list[EncodedTrace]:
    return [a_trace(prompt, completion, seed) for prompt, completion in LENGTHS]


def packed_model(kind: str = "llama", **options: Any) -> Any:
    model = random_model(kind, VOCABULARY, **options)
    use_packed_attention(model)
    return model


def lora(model: Any) -> Any:
    """Adapters that already say something."""
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0.0, 0.05, generator=generator)
    return adapted


def weighted(batch: Batch, logprobs: Tensor) -> Tensor:
    """A loss in which every token of every trace has a weight of its own."""
    traces, tokens = logprobs.shape
    weights = torch.arange(1.0, 1 + traces).unsqueeze(1) * torch.arange(1.0, 1 + tokens).cos()
    return (weights * batch.response_mask * logprobs).sum()


def loss_and_gradients(model: Any, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    logprobs = completion_logprobs(model, batch)
    weighted(batch, logprobs).backward()
    return logprobs.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]


def assert_all_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Every tensor within ``tolerance`` of its own largest element (0 equals 0)."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale)


# ---------------------------------------------------------------------------------------------------- rows, by hand


def test_a_packed_row_by_hand() -> None:
    trace = make_trace("a problem", "", source=Source.EXPERT)
    batch = pack([EncodedTrace(trace, (7, 8), (9,), ((0, 0),)), EncodedTrace(trace, (4,), (5, 6, 3), ((0, 0),) * 3)])
    assert batch.input_ids.tolist() == [[7, 8, 9, 4, 5, 6, 3]]
    assert batch.position_ids is not None and batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 2, 3]]
    assert batch.cu_seqlens is not None and batch.cu_seqlens.tolist() == [0, 3, 7]
    assert batch.cu_seqlens.dtype == torch.int32 and batch.first.dtype == torch.int64
    assert batch.first.tolist() == [0, 3] and batch.starts.tolist() == [2, 1]
    assert batch.response_mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.prompt_index.tolist() == [1, 3]
    assert batch.completion_index.tolist() == [[2, 1, 1], [4, 5, 6]]


def test_flat_indices_find_the_same_tokens_in_both_layouts() -> None:
    encoded = traces()
    for batch in (pack(encoded), collate(encoded, pad_id=0)):
        flat = batch.input_ids.flatten()
        for number, trace in enumerate(encoded):
            mask = batch.response_mask[number]
            assert tuple(flat[batch.completion_index[number][mask]].tolist()) == trace.completion_ids
            assert flat[batch.prompt_index[number]] == trace.prompt_ids[-1]


def test_rows_by_hand() -> None:
    assert token_budget_rows([5, 4, 3, 2, 1], 6) == [[0, 4], [1, 3], [2]]
    assert token_budget_rows([2, 9, 2], 4) == [[1], [0, 2]], "longer than the budget: alone"
    assert token_budget_rows([4, 5, 1], 6) == [[1, 2], [0]], "the row with the least room that holds it"
    assert token_budget_rows([], 6) == []


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 50))
def test_rows_keep_the_budget_and_every_trace(lengths: list[int], budget: int) -> None:
    rows = token_budget_rows(lengths, budget)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert sum(lengths[index] for index in row) <= budget or len(row) == 1
    fullest = sorted(sum(lengths[index] for index in row) for row in rows)
    assert len(fullest) < 2 or fullest[0] + fullest[1] > budget, "two rows that fit in one"


def test_packed_batches_hold_the_traces_they_name() -> None:
    encoded = traces()
    batching = Batching(pad_id=0, tokens=30, layout="packed")
    for group in batching.split(encoded):
        batch = batching.collate([encoded[index] for index in group])
        assert batch.cu_seqlens is not None and int(batch.cu_seqlens[-1]) <= 30
        assert batch.cu_seqlens.diff().tolist() == [sum(LENGTHS[index]) for index in group]


# ------------------------------------------------------------------------------------------ packed = padded = alone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prepare", [lambda model: model, lora], ids=["whole", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_packed_equals_padded_equals_alone(kind: str, prepare: Callable[[Any], Any], checkpointing: bool) -> None:
    model = prepare(random_model(kind, VOCABULARY)).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    encoded = traces()
    padded, padded_gradients = loss_and_gradients(model, collate(encoded, pad_id=0))
    use_packed_attention(model)
    packed, gradients = loss_and_gradients(model, pack(encoded))
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-5)
    assert_all_close(gradients, padded_gradients, 1e-5)
    with torch.no_grad():
        alone = [completion_logprobs(model, collate([trace], pad_id=0)) for trace in encoded]
    for row, one in zip(packed, alone, strict=True):
        torch.testing.assert_close(row[: one.shape[1]], one[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_of_every_token_are_those_of_the_trace_alone(kind: str) -> None:
    model, encoded = packed_model(kind), traces()
    with torch.no_grad():
        packed = hidden_states(model, pack(encoded))
        alone = torch.cat([hidden_states(model, collate([trace], pad_id=0)) for trace in encoded])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_one_packed_trace_is_that_trace() -> None:
    model = packed_model()
    for lengths in ((1, 0), (1, 1), (4, 9)):
        trace = a_trace(*lengths)
        with torch.no_grad():
            packed, alone = hidden_states(model, pack([trace])), hidden_states(model, collate([trace], pad_id=0))
        torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)


def test_input_embeddings_are_packed_like_tokens() -> None:
    model, batch = packed_model(), pack(traces())
    embeddings = model.get_input_embeddings()(batch.input_ids)
    with torch.no_grad():
        torch.testing.assert_close(hidden_states(model, batch, embeddings), hidden_states(model, batch), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16(kind: str) -> None:
    """Log-probabilities within 0.1 of padded ones, and no farther from float32 than twice the padded ones are."""
    encoded, exact = traces(), packed_model(kind, contrast=2.0)
    model = copy.deepcopy(exact).to(torch.bfloat16)
    with torch.no_grad():
        padded, packed = completion_logprobs(model, collate(encoded, 0)), completion_logprobs(model, pack(encoded))
        float32 = completion_logprobs(exact, pack(encoded))
    torch.testing.assert_close(packed, padded, rtol=0, atol=0.1)
    error = (padded - float32).abs().max()
    assert 0 < (packed - float32).abs().max() <= 2 * error


def test_under_autocast_weights_stay_float32_and_attention_computes_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    kernel = packing.sdpa_attention_forward

    def watched(module: Any, query: Tensor, key: Tensor, value: Tensor, *others: Any, **options: Any) -> Any:
        seen.extend([query.dtype, key.dtype, value.dtype])
        return kernel(module, query, key, value, *others, **options)

    model, encoded = packed_model(contrast=2.0), traces()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        padded = completion_logprobs(model, collate(encoded, 0))
        monkeypatch.setattr(packing, "sdpa_attention_forward", watched)
        packed = completion_logprobs(model, pack(encoded))
    assert set(seen) == {torch.bfloat16} and len(seen) == 3 * 2 * len(encoded)
    torch.testing.assert_close(packed, padded, rtol=0, atol=0.1)


@pytest.mark.parametrize("head", ["linear", "anchored", "cumulative"])
def test_the_discriminator_scores_packed_traces_as_padded_ones(head: Any) -> None:
    backbone = packed_model("qwen2")
    discriminator, encoded = Discriminator(backbone, head), traces()
    torch.nn.init.normal_(discriminator.head.linear.weight, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        padded, packed = discriminator(collate(encoded, 0)), discriminator(pack(encoded))
    mask = pack(encoded).response_mask
    torch.testing.assert_close(packed.logits[mask], padded.logits[mask], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(packed.prompt_logit, padded.prompt_logit, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ nothing leaks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_another_traces_tokens_change_nothing_bit_for_bit(kind: str, changed: int) -> None:
    model, encoded = packed_model(kind), traces()
    others = list(encoded)
    others[changed] = traces(seed=1)[changed]
    lengths = [sum(pair) for pair in LENGTHS]
    with torch.no_grad():
        before = hidden_states(model, pack(encoded)).split(lengths)
        after = hidden_states(model, pack(others)).split(lengths)
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(one, other) == (number != changed), f"trace {number}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", range(len(LENGTHS)))
def test_gradients_stay_in_their_trace_bit_for_bit(kind: str, asked: int) -> None:
    """A loss of one trace has no gradient at any other's input, and its own does not depend on its neighbours."""
    model, encoded = packed_model(kind), traces()
    lengths = [sum(pair) for pair in LENGTHS]
    found = []
    for seed in (0, 1):
        row = [trace if number == asked else traces(seed)[number] for number, trace in enumerate(encoded)]
        batch = pack(row)
        embeddings = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
        hidden = hidden_states(model, batch, embeddings).split(lengths)[asked]
        (hidden * hidden.detach().cos()).sum().backward()
        assert embeddings.grad is not None
        found.append(embeddings.grad[0].split(lengths))
    for number, (one, other) in enumerate(zip(*found, strict=True)):
        assert torch.equal(one, other)
        assert bool(one.any()) == (number == asked), f"trace {number}"


class Sizes(TorchDispatchMode):
    """Notes the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def test_no_matrix_of_the_rows_length_is_made() -> None:
    model, encoded = packed_model(), [a_trace(10, 40, seed) for seed in range(8)]
    batch = pack(encoded)
    row = batch.input_ids.shape[1]
    assert row == 400
    with torch.no_grad(), Sizes() as packed:
        hidden_states(model, batch)
    assert packed.largest == row * model.config.intermediate_size < row * row
    with torch.no_grad(), Sizes() as masked:  # what the test would see: transformers' own way with restarting positions
        model.get_decoder()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
    assert masked.largest >= row * row


# --------------------------------------------------------------------------- what is not packed stays as it was


def test_padded_batches_are_read_as_before_bit_for_bit() -> None:
    plain, encoded = random_model("llama", VOCABULARY), traces()
    prepared = copy.deepcopy(plain)
    use_packed_attention(prepared)
    assert attention_arguments(prepared, collate(encoded, 0)) == {}
    before, gradients = loss_and_gradients(plain, collate(encoded, 0))
    after, others = loss_and_gradients(prepared, collate(encoded, 0))
    assert torch.equal(before, after)
    assert all(torch.equal(one, other) for one, other in zip(gradients, others, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("prepare", [lambda model: model, lora], ids=["whole", "lora"])
def test_generation_gives_the_same_tokens_and_logits_as_before(
    kind: str, cache: str, prepare: Callable[[Any], Any]
) -> None:
    model = prepare(random_model(kind, VOCABULARY))
    prompts = torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5], [0, 0, 0, 0, 3]])
    arguments: dict[str, Any] = {
        "input_ids": prompts, "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5, [0, 0, 0, 0, 1]]),
        "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "cache_implementation": cache,
        "return_dict_in_generate": True, "output_logits": True, "disable_compile": True,
    }  # fmt: skip
    before = model.generate(**arguments)
    use_packed_attention(model)
    after = model.generate(**arguments)
    assert before.sequences.shape == (3, 17)
    assert torch.equal(before.sequences, after.sequences)
    assert torch.equal(torch.stack(before.logits), torch.stack(after.logits))


def test_restarting_positions_without_our_arguments_keep_traces_apart_all_the_same() -> None:
    model, encoded = packed_model(), traces()
    batch = pack(encoded)
    with torch.no_grad():
        own = model.get_decoder()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        torch.testing.assert_close(own.last_hidden_state[0], hidden_states(model, batch), rtol=1e-5, atol=1e-5)


def test_the_attentions_name_is_not_saved_and_a_copy_keeps_it(tmp_path: Path) -> None:
    model = packed_model()
    model.save_pretrained(tmp_path)
    assert packing.ATTENTION not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert torch.equal(hidden_states(copy.deepcopy(model), pack(traces())), hidden_states(model, pack(traces())))


def test_preparing_twice_changes_nothing() -> None:
    model = packed_model()
    before = hidden_states(model, pack(traces()))
    use_packed_attention(model)
    assert torch.equal(hidden_states(model, pack(traces())), before)


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("prepare", [lambda model: model, lora], ids=["whole", "lora"])
def test_a_packed_batch_on_another_attention_is_refused(prepare: Callable[[Any], Any]) -> None:
    model = prepare(random_model("llama", VOCABULARY))
    with pytest.raises(ConfigError, match=r"LlamaModel has the attention 'sdpa'.*model\.packing=false"):
        hidden_states(model, pack(traces()))


def test_a_sliding_window_is_refused() -> None:
    window = random_model("qwen2", VOCABULARY, use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ConfigError, match=r"Qwen2Model has layers of sliding_attention.*model\.packing=false"):
        use_packed_attention(window)
    assert window.config._attn_implementation == "sdpa"
    off = random_model("qwen2", VOCABULARY, use_sliding_window=False, sliding_window=8)
    use_packed_attention(off)


def test_a_window_without_layer_types_is_refused() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    size = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4}
    with pytest.raises(ConfigError, match=r"window of 4 tokens.*model\.packing=false"):
        use_packed_attention(MistralForCausalLM(MistralConfig(**size, **heads, sliding_window=4)))
    use_packed_attention(MistralForCausalLM(MistralConfig(**size, **heads, sliding_window=None)))


def test_models_that_join_tokens_otherwise_are_refused() -> None:
    from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

    mamba = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, state_size=4, num_hidden_layers=1))
    with pytest.raises(ConfigError, match=r"MambaModel .*model\.packing=false"):
        use_packed_attention(mamba)
    bloom = BloomForCausalLM(BloomConfig(vocab_size=8, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(ConfigError, match=r"BloomModel brings its own attention.*model\.packing=false"):
        use_packed_attention(bloom)
    two_ways = random_model("llama", VOCABULARY, is_causal=False)
    with pytest.raises(ConfigError, match=r"not causal attention"):
        use_packed_attention(two_ways)


def test_a_model_that_drops_the_bounds_on_their_way_is_refused() -> None:
    model, batch = packed_model(), pack(traces())
    arguments = attention_arguments(model, batch)
    kept = {"attention_mask": arguments["attention_mask"]}
    with pytest.raises(ConfigError, match=r"LlamaAttention is not told where packed solutions end"):
        model.get_decoder()(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **kept)


def test_what_a_packed_row_would_go_without_is_refused() -> None:
    states = torch.zeros(1, 2, 4, 8)
    bounds: dict[str, Any] = {"cu_seq_lens_q": torch.tensor([0, 4]), "packed_lengths": [4]}
    module = torch.nn.Module()
    with pytest.raises(ConfigError, match=r"Module needs sliding_window, softcap in packed rows"):
        packed_attention(module, states, states, states, None, sliding_window=2, softcap=3.0, **bounds)
    attended, _ = packed_attention(module, states, states, states, None, sliding_window=None, **bounds)
    assert attended.shape == (1, 4, 2, 8)


# -------------------------------------------------------------------------- the kernel that takes a row at once


def of_torch_2_10(calls: list[str]) -> Callable[..., Tensor]:
    def kernel(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int,
        is_causal: bool = False, return_aux: Any = None,
    ) -> Tensor:  # fmt: skip
        calls.append("2.10")
        assert is_causal
        return by_hand(query, key, value, cu_seq_q, max_q, None, False)

    return kernel


def of_torch_2_11(calls: list[str]) -> Callable[..., Tensor]:
    def kernel(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
        return_aux: Any = None, scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
    ) -> Tensor:  # fmt: skip
        calls.append("2.11")
        assert window_size == (-1, 0)
        return by_hand(query, key, value, cu_seq_q, max_q, scale, False)

    return kernel


def of_torch_2_12(calls: list[str]) -> Callable[..., Tensor]:
    def kernel(
        query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
        scale: float | None = None, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        calls.append("2.12")
        assert window_size == (-1, 0)
        return by_hand(query, key, value, cu_seq_q, max_q, scale, enable_gqa)

    return kernel


def by_hand(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None, enable_gqa: bool
) -> Tensor:
    """Softmax attention of ``(L, heads, D)``, token by token."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    assert longest == int(bounds.diff().max())
    if enable_gqa:
        key, value = (states.repeat_interleave(query.shape[1] // key.shape[1], 1) for states in (key, value))
    assert query.shape == key.shape == value.shape
    rows = []
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for at in range(begin, end):
            scores = (query[at].unsqueeze(0) * key[begin : at + 1]).sum(-1) * scale
            rows.append((scores.softmax(0).unsqueeze(-1) * value[begin : at + 1]).sum(0))
    return torch.stack(rows)


@pytest.fixture
def forget_the_kernel() -> Any:
    packing._varlen_keywords.cache_clear()
    yield
    packing._varlen_keywords.cache_clear()


@pytest.mark.usefixtures("forget_the_kernel")
@pytest.mark.parametrize("version", [of_torch_2_10, of_torch_2_11, of_torch_2_12])
@pytest.mark.parametrize("scaling", [16**-0.5, 0.3, None])
def test_the_kernel_is_called_as_each_torch_wants_it(
    monkeypatch: pytest.MonkeyPatch, version: Callable[[list[str]], Callable[..., Tensor]], scaling: float | None
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(packing, "varlen_attn", version(calls))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 11, 16, generator=generator) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]
    bounds: dict[str, Any] = {"cu_seq_lens_q": torch.tensor([0, 4, 5, 11]), "packed_lengths": [4, 1, 6]}
    expected, _ = packed_attention(module, query, key, value, None, scaling=scaling, **bounds)
    assert not calls, "the CPU has no such kernel"
    monkeypatch.setattr(packing, "_varlen_runs", lambda query, value: True)
    found, weights = packed_attention(module, query, key, value, None, scaling=scaling, **bounds)
    assert len(calls) == 1 and weights is None
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    packed_attention(module, query, key, value, None, dropout=0.5, scaling=scaling, **bounds)
    assert len(calls) == 1, "the kernel has no dropout"


def test_this_torchs_kernel_takes_the_call() -> None:
    """On the meta device: torch checks the arguments and gives the shape, and computes nothing."""
    query, key, value = (torch.empty(1, heads, 11, 16, dtype=torch.bfloat16, device="meta") for heads in (4, 2, 2))
    bounds = torch.empty(4, dtype=torch.int32, device="meta")
    attended = packing._attend_at_once(query, key, value, bounds, 6, 0.25)
    assert attended.shape == (1, 11, 4, 16) and attended.dtype == torch.bfloat16
