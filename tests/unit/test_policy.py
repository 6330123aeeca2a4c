"""The policy: log-probabilities against a plain softmax, and sampling that records what it did."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core import policy
from irl_core.encoding import TraceEncoder, collate
from irl_core.policy import Rollout, completion_logprobs, draw, logprobs_of_hidden, nucleus, sample
from irl_core.types import EncodedTrace
from tests.tiny import PROBLEM, expert_traces, tiny_model, tiny_tokenizer

ENCODER = TraceEncoder(tiny_tokenizer())
EXPERTS = expert_traces(ENCODER)
MODEL = tiny_model()
PROMPTS = [expert.prompt_ids for expert in EXPERTS]


def plain_logprobs(model: Any, encoded: EncodedTrace, temperature: float = 1.0) -> list[float]:
    """One trace alone through the whole model, one token at a time."""
    ids = [*encoded.prompt_ids, *encoded.completion_ids]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double() / temperature
    start = len(encoded.prompt_ids)
    return [logits[t - 1].log_softmax(-1)[ids[t]].item() for t in range(start, len(ids))]


def rolled(prompt: tuple[int, ...], rollout: Rollout) -> EncodedTrace:
    """A rollout as the trainer encodes it (the prompt's own ids, whatever they are)."""
    trace = ENCODER.encode(ENCODER.sampled_trace(PROBLEM, rollout.token_ids, rollout.logprobs))
    return EncodedTrace(trace.trace, prompt, trace.completion_ids, trace.spans)


def sampled(prompts: list[tuple[int, ...]] = PROMPTS, seed: int = 0, **settings: Any) -> list[list[Rollout]]:
    values: dict[str, Any] = {"num_samples": 3, "max_new_tokens": 10, "end_ids": ENCODER.end_ids} | settings
    return sample(MODEL, prompts, pad_id=ENCODER.pad_id, generator=torch.Generator().manual_seed(seed), **values)


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
    monkeypatch.setattr(policy, "logprobs_of_hidden", lambda *a, **k: original(*a, **k, chunk=5))
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


# ------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.5, [0.5, 0, 0, 0]), (0.51, [0.5, 0, 0.25, 0]), (0.75, [0.5, 0, 0.25, 0]), (0.8, [0.5, 0.125, 0.25, 0])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p: float, kept: list[float]) -> None:
    # sorted 0.5, 0.25, 0.125, 0.0625: sums 0.5, 0.75, 0.875, 0.9375 (powers of two: exact)
    probabilities = torch.tensor([[0.5, 0.125, 0.25, 0.0625]])
    assert nucleus(probabilities, top_p).tolist() == [kept]


def test_a_nucleus_is_never_empty() -> None:
    assert nucleus(torch.tensor([[0.25, 0.75]]), 1e-9).tolist() == [[0.0, 0.75]]


def test_draws_stay_in_the_nucleus_and_follow_it() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log().expand(4000, 4)
    ids, logprobs = draw(logits, temperature=1.0, top_p=0.7, generator=torch.Generator().manual_seed(0))
    # the set is {0, 1}, renormalised 2/3 and 1/3; the log-probabilities are those of the model itself
    assert set(ids.tolist()) == {0, 1}
    assert (ids == 0).float().mean().item() == pytest.approx(2 / 3, abs=0.03)
    expected = torch.where(ids == 0, math.log(0.5), math.log(0.25))
    torch.testing.assert_close(logprobs, expected)


def test_draws_follow_the_temperature_and_record_temperature_one() -> None:
    logits = torch.tensor([[0.8, 0.2]]).log().expand(4000, 2)
    ids, logprobs = draw(logits, temperature=2.0, top_p=1.0, generator=torch.Generator().manual_seed(0))
    # sqrt(0.8) : sqrt(0.2) = 2 : 1
    assert (ids == 0).float().mean().item() == pytest.approx(2 / 3, abs=0.03)
    torch.testing.assert_close(logprobs, torch.where(ids == 0, math.log(0.8), math.log(0.2)))


# ------------------------------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"temperature": 0.0}])
def test_recorded_logprobs_are_those_of_the_completion(settings: dict[str, float]) -> None:
    # ends drawn from a sixth of the vocabulary: rows end at different steps and leave the batch
    groups = sampled(end_ids=range(0, 50), max_new_tokens=16, **settings)
    pairs = [(prompt, rollout) for prompt, rows in zip(PROMPTS, groups, strict=True) for rollout in rows]
    batch = collate([rolled(prompt, rollout) for prompt, rollout in pairs], ENCODER.pad_id)
    values = completion_logprobs(MODEL, batch)
    for row, (_, rollout) in enumerate(pairs):
        recorded = torch.tensor(rollout.logprobs)
        torch.testing.assert_close(values[row, : len(recorded)].detach(), recorded, atol=1e-4, rtol=1e-4)


def test_rows_end_at_their_own_end_token() -> None:
    ends = set(range(0, 50))
    rollouts = [one for rows in sampled(end_ids=ends, max_new_tokens=12) for one in rows]
    lengths = {len(one.token_ids) for one in rollouts}
    assert len(lengths) > 1
    for one in rollouts:
        assert len(one.token_ids) == len(one.logprobs) <= 12
        assert one.finished == (one.token_ids[-1] in ends)
        assert not ends & set(one.token_ids[:-1])
        assert one.finished or len(one.token_ids) == 12


def test_a_row_that_ends_on_the_last_token_is_finished() -> None:
    first = sampled(num_samples=1, max_new_tokens=3, temperature=0.0)[0][0].token_ids
    last = first[-1]
    cut = first.index(last) + 1
    (rollout,) = sampled(PROMPTS[:1], num_samples=1, max_new_tokens=cut, temperature=0.0, end_ids=[last])[0]
    assert (rollout.token_ids, rollout.finished) == (first[:cut], True)


def test_the_same_seed_gives_the_same_samples() -> None:
    assert sampled(seed=5) == sampled(seed=5)
    assert sampled(seed=5) != sampled(seed=6)


def test_the_global_random_state_is_not_touched() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    sampled()
    assert torch.equal(before, torch.get_rng_state())


def test_samples_of_one_prompt_differ_and_stay_in_their_prompts_order() -> None:
    groups = sampled(num_samples=4)
    assert [len(rows) for rows in groups] == [4, 4, 4, 4]
    assert len({one.token_ids for one in groups[0]}) > 1
    # greedy: all samples of a prompt are the same, and prompt by prompt those of the prompt alone
    greedy = sampled(num_samples=2, temperature=0.0)
    assert all(rows[0].token_ids == rows[1].token_ids for rows in greedy)
    for prompt, rows in zip(PROMPTS, greedy, strict=True):
        assert sampled([prompt], num_samples=1, temperature=0.0)[0][0].token_ids == rows[0].token_ids


@pytest.mark.parametrize("pad_id", [0, 250])
def test_greedy_is_the_argmax_of_the_whole_model(pad_id: int) -> None:
    # prompts of different lengths, padded on the left: the positions and the attention of a padded row are its own
    assert len({len(prompt) for prompt in PROMPTS}) > 1
    groups = sample(
        MODEL, PROMPTS, num_samples=1, max_new_tokens=8, end_ids=[], pad_id=pad_id,
        generator=torch.Generator(), temperature=0.0,
    )  # fmt: skip
    for prompt, (rollout,) in zip(PROMPTS, groups, strict=True):
        ids = list(prompt)
        for token in rollout.token_ids:
            with torch.no_grad():
                assert MODEL(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item() == token
            ids.append(token)
        assert not rollout.finished


def test_progress_counts_every_token() -> None:
    seen: list[tuple[int, int]] = []
    sampled(max_new_tokens=4, end_ids=[], on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("training", [True, False])
def test_a_cancelled_sampling_leaves_the_model_as_it_was(training: bool) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        assert not MODEL.training
        if done == 2:
            raise Cancelled

    MODEL.train(training)
    try:
        with pytest.raises(Cancelled):
            sampled(on_step=cancel)
        assert MODEL.training is training
        sampled()
        assert MODEL.training is training
    finally:
        MODEL.eval()
    assert all(parameter.grad is None for parameter in MODEL.parameters())


@pytest.mark.parametrize(
    "settings", [{"num_samples": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"prompts": []}]
)
def test_settings_that_cannot_sample_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot sample \d+ of \d prompts at temperature"):
        sampled(**settings)


def test_no_room_for_a_token_is_refused() -> None:
    with pytest.raises(ValueError):
        sampled(max_new_tokens=0)
