"""The kernel that takes a packed row at once, against the loop over traces and against padded batches, on CUDA."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core.models import packed_attention as packing
from irl_core.models.batching import collate, pack
from irl_core.models.logprobs import completion_logprobs, hidden_states
from irl_core.models.packed_attention import packed_attention, use_packed_attention
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace, Source
from tests.small_models import random_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

DEVICE = "cuda"
LENGTHS = (130, 1, 64, 257, 20)
VOCABULARY = 64
TOLERANCE = 2e-2  # of the largest element: bfloat16 keeps 8 bits, 2^-8 = 4e-3 a rounding
KINDS = ("llama", "qwen2")


def a_trace(length: int, seed: int = 0) -> EncodedTrace:
    """A prompt of about half the length."""
    prompt = max(1, length // 2)
    ids = torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(1000 * seed + length)).tolist()
    trace = make_trace("a problem", "", source=Source.EXPERT)
    return EncodedTrace(trace, tuple(ids[:prompt]), tuple(ids[prompt:]), ((0, 0),) * (length - prompt))


def a_model(kind: str, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Heads of width 64, two query heads to a key head."""
    shape = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = random_model(kind, VOCABULARY, contrast=1.0, **shape).to(DEVICE, dtype)
    use_packed_attention(model)
    return model


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The dtype of every call of the kernel."""
    seen: list[torch.dtype] = []
    kernel = packing.varlen_attn
    packing._varlen_keywords()  # read before the kernel is hidden behind the watcher

    def watched(query: Tensor, *others: Any, **options: Any) -> Any:
        seen.append(query.dtype)
        return kernel(query, *others, **options)

    monkeypatch.setattr(packing, "varlen_attn", watched)
    return seen


def assert_near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [(8, 8), (8, 2), (7, 1)])
@pytest.mark.parametrize("width", [64, 128])
def test_the_kernel_equals_the_loop_with_its_gradients(
    monkeypatch: pytest.MonkeyPatch, calls: list[torch.dtype], dtype: torch.dtype, heads: tuple[int, int], width: int
) -> None:
    generator = torch.Generator(DEVICE).manual_seed(0)
    length, module = sum(LENGTHS), torch.nn.Module()
    module.num_key_value_groups = heads[0] // heads[1]  # type: ignore[assignment]
    states = [
        torch.randn(1, count, length, width, device=DEVICE, dtype=dtype, generator=generator).requires_grad_()
        for count in (heads[0], heads[1], heads[1])
    ]
    weights = torch.randn(1, length, heads[0], width, device=DEVICE, dtype=dtype, generator=generator)
    bounds = torch.tensor([0, *LENGTHS], device=DEVICE).cumsum(0).to(torch.int32)
    results = []
    for kernel in (True, False):
        if not kernel:
            monkeypatch.setattr(packing, "_varlen_runs", lambda query, value: False)
        attended, _ = packed_attention(
            module, *states, None, scaling=0.1, cu_seq_lens_q=bounds, packed_lengths=list(LENGTHS)
        )
        results.append([attended.detach(), *torch.autograd.grad((attended * weights).sum(), states)])
    assert calls == [dtype]
    for found, expected in zip(*results, strict=True):
        assert found.shape == expected.shape
        assert_near(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_packed_equals_padded_with_gradients(kind: str, checkpointing: bool, calls: list[torch.dtype]) -> None:
    model, encoded = a_model(kind).train(), [a_trace(length) for length in LENGTHS]
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    results = []
    for batch in (pack(encoded).to(DEVICE), collate(encoded, 0).to(DEVICE)):
        model.zero_grad()
        logprobs = completion_logprobs(model, batch)
        logprobs.sum().backward()
        results.append([logprobs.detach(), *(p.grad.float() for p in model.parameters())])
    assert len(calls) == (4 if checkpointing else 2) and set(calls) == {torch.bfloat16}
    for found, expected in zip(*results, strict=True):
        assert_near(found, expected, 0.05)


def test_under_autocast_the_kernel_gets_bfloat16(calls: list[torch.dtype]) -> None:
    model, encoded = a_model("qwen2", torch.float32), [a_trace(length) for length in LENGTHS]
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        packed = completion_logprobs(model, pack(encoded).to(DEVICE))
        padded = completion_logprobs(model, collate(encoded, 0).to(DEVICE))
    assert calls == [torch.bfloat16] * 2
    assert_near(packed, padded)


def test_float32_goes_trace_by_trace(calls: list[torch.dtype]) -> None:
    model, encoded = a_model("llama", torch.float32), [a_trace(length) for length in LENGTHS]
    with torch.no_grad():
        packed = completion_logprobs(model, pack(encoded).to(DEVICE))
        padded = completion_logprobs(model, collate(encoded, 0).to(DEVICE))
    assert not calls
    assert_near(packed, padded, 1e-3)  # TF32 may be on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changed", range(len(LENGTHS)))
def test_another_traces_tokens_change_nothing_bit_for_bit(kind: str, changed: int, calls: list[torch.dtype]) -> None:
    model, encoded = a_model(kind), [a_trace(length) for length in LENGTHS]
    others = [a_trace(length, seed=int(number == changed)) for number, length in enumerate(LENGTHS)]
    with torch.no_grad():
        before = hidden_states(model, pack(encoded).to(DEVICE)).split(LENGTHS)
        after = hidden_states(model, pack(others).to(DEVICE)).split(LENGTHS)
    assert calls
    for number, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(one, other) == (number != changed), f"trace {number}"


def test_a_long_row_needs_no_matrix_of_its_length() -> None:
    """64 traces of 512 tokens: a mask of 32,768 squared would be 1 GiB, before attention wrote a number."""
    model = a_model("llama")
    batch = pack([a_trace(512, seed) for seed in range(64)]).to(DEVICE)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        hidden_states(model, batch)
    assert torch.cuda.max_memory_allocated() - before < 32_768**2 / 2


def test_generation_gives_the_same_tokens_as_before() -> None:
    plain = random_model("qwen2", VOCABULARY).to(DEVICE, torch.bfloat16)
    prompts = torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]], device=DEVICE)
    arguments: dict[str, Any] = {
        "input_ids": prompts, "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5], device=DEVICE),
        "max_new_tokens": 24, "do_sample": False, "pad_token_id": 0,
    }  # fmt: skip
    before = plain.generate(**arguments)
    use_packed_attention(plain)
    assert torch.equal(plain.generate(**arguments), before)
