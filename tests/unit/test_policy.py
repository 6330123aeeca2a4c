"""The policy: log-probabilities against a plain softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core.models import logprobs
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs, logprobs_of_hidden
from irl_core.models.tokenization import TraceEncoder
from irl_core.types import EncodedTrace
from tests.tiny import expert_traces, tiny_model, tiny_tokenizer

ENCODER = TraceEncoder(tiny_tokenizer())
EXPERTS = expert_traces(ENCODER)
MODEL = tiny_model()


def plain_logprobs(model: Any, encoded: EncodedTrace, temperature: float = 1.0) -> list[float]:
    """One trace alone through the whole model, one token at a time."""
    ids = [*encoded.prompt_ids, *encoded.completion_ids]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double() / temperature
    start = len(encoded.prompt_ids)
    return [logits[t - 1].log_softmax(-1)[ids[t]].item() for t in range(start, len(ids))]


# ---------------------------------------------------------------------------------------- log-probabilities


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_of_a_batch_equal_each_trace_alone(temperature: float) -> None:
    batch = collate(EXPERTS, ENCODER.pad_id)
    values = completion_logprobs(MODEL, batch, temperature=temperature)
    assert values.shape == batch.response_mask.shape
    for row, encoded in enumerate(EXPERTS):
        expected = torch.tensor(plain_logprobs(MODEL, encoded, temperature))
        torch.testing.assert_close(values[row, : len(expected)].detach(), expected, atol=1e-4, rtol=1e-4)
    assert values[~batch.response_mask].eq(0.0).all()


def test_the_end_token_is_predicted_from_the_token_before_it() -> None:
    one = EXPERTS[2]
    values = completion_logprobs(MODEL, collate([one], ENCODER.pad_id))[0]
    with torch.no_grad():
        logits = MODEL(input_ids=torch.tensor([[*one.prompt_ids, *one.completion_ids[:-1]]])).logits[0, -1]
    assert one.completion_ids[-1] == ENCODER.end_ids[0]
    torch.testing.assert_close(values[-1], logits.log_softmax(-1)[ENCODER.end_ids[0]], atol=1e-4, rtol=1e-4)


def test_the_pad_id_does_not_matter() -> None:
    first, second = (completion_logprobs(MODEL, collate(EXPERTS, pad)) for pad in (ENCODER.pad_id, 77))
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


def gradients(model: Any, value: Tensor) -> list[Tensor]:
    model.zero_grad()
    value.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_equal_the_whole_with_their_gradients(chunk: int) -> None:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(0, 300, (40,), generator=generator)
    weight = torch.randn(40, generator=generator)
    inputs = torch.randn(40, 24, generator=generator)
    head = MODEL.get_output_embeddings()
    results = []
    for size in (chunk, 40):
        hidden = inputs.clone().requires_grad_()
        values = logprobs_of_hidden(hidden, head, targets, chunk=size)
        head.zero_grad()
        (values * weight).sum().backward()
        results.append((values.detach(), hidden.grad, head.weight.grad.clone()))
    expected = head(inputs).log_softmax(-1)[torch.arange(40), targets].detach()
    torch.testing.assert_close(results[0][0], expected)
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    MODEL.zero_grad(set_to_none=True)


def test_the_whole_models_gradients_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = collate(EXPERTS, ENCODER.pad_id)
    whole = gradients(MODEL, completion_logprobs(MODEL, batch).sum())
    original = logprobs_of_hidden
    monkeypatch.setattr(logprobs, "logprobs_of_hidden", lambda *a, **k: original(*a, **k, chunk=5))
    for one, other in zip(gradients(MODEL, completion_logprobs(MODEL, batch).sum()), whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-4)
    MODEL.zero_grad(set_to_none=True)


def test_no_targets_at_all() -> None:
    empty = logprobs_of_hidden(torch.zeros(0, 24), MODEL.get_output_embeddings(), torch.zeros(0, dtype=torch.long))
    assert empty.shape == (0,)


def test_bfloat16_hidden_states_give_float32() -> None:
    half = tiny_model().bfloat16()
    values = completion_logprobs(half, collate(EXPERTS, ENCODER.pad_id))
    assert values.dtype == torch.float32
    assert values.isfinite().all()
