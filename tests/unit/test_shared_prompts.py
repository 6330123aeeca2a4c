"""Traces of one problem that share its prompt: the same numbers as alone, and none sees another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from irl_core.errors import ConfigError
from irl_core.models.batching import Batching, collate, families, pack_families
from irl_core.models.logprobs import completion_logprobs, hidden_states, mean_prompt_logprobs, prompt_logprobs
from irl_core.models.shared_prompts import ATTENTION, sharing_layout, use_shared_prompts
from irl_core.reward.discriminator import Discriminator
from irl_core.types import EncodedTrace
from tests.small_models import random_model
from tests.unit.test_packing import VOCABULARY, a_trace, lora, weighted


def traces() -> list[EncodedTrace]:
    """Two problems with three and one trace, mixed, and one of a single token each."""
    first, second = a_trace(5, 7), a_trace(9, 20)
    others = [replace(a_trace(5, n, seed=3), prompt_ids=first.prompt_ids) for n in (12, 1)]
    return [first, second, others[0], a_trace(1, 1), others[1]]


def a_model(kind: str = "llama") -> Any:
    model = lora(random_model(kind, VOCABULARY))
    use_shared_prompts(model)
    return model


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_log_probabilities_and_gradients_are_those_of_padded_rows(kind: str, checkpointing: bool) -> None:
    model, encoded = a_model(kind), traces()
    found = []
    model.train()
    if checkpointing:  # calls a layer again in the backward pass
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for batch in (collate(encoded, 0), pack_families(encoded)):
        model.zero_grad()
        logprobs = completion_logprobs(model, batch)
        weighted(batch, logprobs).backward()
        found.append((logprobs.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]))
    (padded, wanted), (shared, gradients) = found
    torch.testing.assert_close(shared, padded, atol=1e-5, rtol=1e-4)
    assert any(gradient.abs().max() > 1e-3 for gradient in wanted)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_rewards_and_prompt_log_probabilities_too() -> None:
    model, encoded = a_model(), traces()
    discriminator = Discriminator(model, "anchored")
    torch.nn.init.normal_(discriminator.head.linear.weight)
    padded, shared = collate(encoded, 0), pack_families(encoded)
    with torch.no_grad():
        wanted, found = discriminator(padded), discriminator(shared)
        prompts = [prompt_logprobs(model, batch, hidden_states(model, batch)) for batch in (padded, shared)]
    mask = padded.response_mask
    torch.testing.assert_close(found.logits[mask], wanted.logits[mask], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.prompt_logit, wanted.prompt_logit, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prompts[1], prompts[0], atol=1e-5, rtol=1e-4)


def test_the_mean_of_a_prompt_is_that_of_its_tokens_once_a_problem() -> None:
    model, encoded = a_model(), traces()
    padded, shared = collate(encoded, 0), pack_families(encoded)
    with torch.no_grad():
        every = prompt_logprobs(model, padded, hidden_states(model, padded))
        found = [mean_prompt_logprobs(model, batch, hidden_states(model, batch)) for batch in (padded, shared)]
    wanted = [part.mean() if len(part) else torch.tensor(0.0) for part in every.split([4, 8, 4, 0, 4])]
    torch.testing.assert_close(found[0], torch.stack(wanted), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-4)


def test_prompts_are_shared_only_where_every_model_can() -> None:
    plain, windowed = (
        random_model("qwen2", VOCABULARY, use_sliding_window=windowed, sliding_window=4, max_window_layers=0)
        for windowed in (False, True)
    )
    before = plain.config._attn_implementation
    assert sharing_layout(plain, windowed) == "padded"
    assert plain.config._attn_implementation == before
    assert sharing_layout(plain, plain) == "shared_prompts"
    assert plain.config._attn_implementation == ATTENTION


def test_a_prompt_is_read_once() -> None:
    batch = pack_families(traces())
    assert batch.input_ids.shape == (1, (5 + 7 + 12 + 1) + (9 + 20) + (1 + 1))
    assert [one.length for one in batch.families] == [25, 29, 2]
    assert families(traces()) == [[0, 2, 4], [1], [3]]


@pytest.mark.parametrize("budget", [1, 20, 26, 1000])
def test_every_trace_is_in_one_batch_within_the_budget_where_it_can_be(budget: int) -> None:
    encoded = traces()
    parts = Batching(0, budget, "shared_prompts").split(encoded)
    assert sorted(index for part in parts for index in part) == list(range(len(encoded)))
    for part in parts:
        assert len(part) == 1 or pack_families([encoded[i] for i in part]).input_ids.numel() <= budget


def test_a_padded_batch_and_a_cache_still_take_the_plain_attention() -> None:
    model, encoded = a_model(), traces()[:1]
    plain = lora(random_model("llama", VOCABULARY))
    with torch.no_grad():
        assert torch.equal(
            completion_logprobs(model, collate(encoded, 0)), completion_logprobs(plain, collate(encoded, 0))
        )
        ids = torch.tensor([encoded[0].prompt_ids])
        assert torch.equal(model(ids, use_cache=True).logits, plain(ids, use_cache=True).logits)


def test_a_model_with_more_than_causal_attention_is_refused() -> None:
    model = random_model("qwen2", VOCABULARY, use_sliding_window=True, sliding_window=4, max_window_layers=0)
    with pytest.raises(ConfigError, match=r"prompts cannot be shared; set model.shared_prompts to false"):
        use_shared_prompts(model)
