"""Continuous batching as it runs on the CPU, and its bookkeeping with an engine that loses requests."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare

from irl_core.errors import ConfigError
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.packed_attention import use_packed_attention
from irl_core.policy import continuous
from irl_core.policy.continuous import BLOCK, ContinuousSampler, right_padded
from irl_core.policy.draws import Drawing
from irl_core.policy.protocol import Request, Rollout
from irl_core.policy.sampling import LoopSampler
from tests.small_models import random_model
from train.backends.transformers import compute_in

MODEL = random_model("qwen2", 120)
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [3] * 9]
ENDS = tuple(range(20))
SAMPLER = ContinuousSampler(ENDS, 0)


def sampled(model: Any = MODEL, sampler: Any = SAMPLER, prompts: Any = PROMPTS, **settings: Any) -> list[list[Rollout]]:
    seeds = list(range(len(prompts)))
    return sampler(model, prompts, **({"num_samples": 4, "max_new_tokens": 8, "seeds": seeds} | settings))


def assert_recorded(model: Any, groups: list[list[Rollout]], tolerance: float = 1e-4) -> None:
    """The recorded log-probabilities are those of one full pass over each sample alone."""
    for prompt, rows in zip(PROMPTS, groups, strict=True):
        for one in rows:
            batch = right_padded([list(prompt)], [list(one.token_ids)], 0)
            values = completion_logprobs(model, batch)[0].tolist()
            assert one.logprobs == pytest.approx(values, abs=tolerance)


# -------------------------------------------------------------------------------------------------------- what it gives


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.7}, {"top_p": 0.8}, {"temperature": 0.7, "top_p": 0.8}, {"temperature": 0.0}],
    ids=str,
)
def test_every_sample_is_there_with_the_models_log_probabilities(settings: dict[str, float]) -> None:
    groups = sampled(**settings)
    assert [len(rows) for rows in groups] == [4, 4, 4]
    for one in (one for rows in groups for one in rows):
        assert len(one.token_ids) == len(one.logprobs) <= 8
        assert one.finished == (one.token_ids[-1] in ENDS) and not set(ENDS) & set(one.token_ids[:-1])
        assert one.finished or len(one.token_ids) == 8
    assert_recorded(MODEL, groups)


def test_temperature_zero_is_the_loops() -> None:
    settings: dict[str, Any] = {"num_samples": 2, "max_new_tokens": 8, "seeds": [0, 1, 2], "temperature": 0.0}
    loop = LoopSampler(ENDS, 0, vocab_size=70)(MODEL, PROMPTS, **settings)
    ids = [[one.token_ids for one in rows] for rows in loop]
    groups = sampled(sampler=ContinuousSampler(ENDS, 0, 512, 70), **settings)
    assert ids == [[one.token_ids for one in rows] for rows in groups]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"top_p": 0.5}], ids=str)
def test_first_tokens_follow_the_distribution_asked_for(settings: dict[str, float]) -> None:
    count = 800
    rows = sampled(prompts=PROMPTS[:1], num_samples=count, max_new_tokens=1, **settings)[0]
    with torch.no_grad():
        logits = MODEL(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    shares = (logits / settings.get("temperature", 1.0)).softmax(-1)
    ordered, order = shares.sort(descending=True)
    shares[order[ordered.cumsum(0) - ordered >= settings.get("top_p", 1.0)]] = 0
    parts = torch.zeros(8, dtype=torch.float64).index_add_(0, torch.arange(120) % 8, shares / shares.sum())
    seen = torch.bincount(torch.tensor([one.token_ids[0] % 8 for one in rows]), minlength=8)
    assert all(shares[one.token_ids[0]] > 0 for one in rows)
    assert chisquare(seen.numpy(), (parts * count).numpy()).pvalue > 0.01


def test_ids_that_the_tokenizer_does_not_have_are_never_drawn() -> None:
    narrow = ContinuousSampler(range(5), 0, vocab_size=30)
    for settings in ({}, {"top_p": 0.9}):
        groups = sampled(sampler=narrow, num_samples=8, **settings)
        assert max(token for rows in groups for one in rows for token in one.token_ids) < 30
    # the engine's own log-probabilities are relative to the ids that may be drawn
    one = sampled(sampler=narrow)[0][0]
    with torch.no_grad():
        logits = MODEL(input_ids=torch.tensor([[*PROMPTS[0], *one.token_ids]])).logits[0, len(PROMPTS[0]) - 1 : -1, :30]
    expected = logits.log_softmax(-1)[torch.arange(len(one.token_ids)), list(one.token_ids)]
    assert one.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_same_call_gives_the_same_samples_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampled()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert sampled() == first
    assert sampled(seeds=[0, 1, 3]) != first
    assert len({one.token_ids for one in first[0]}) > 1


@pytest.mark.parametrize("prompt", [[7] * (BLOCK - 1), [7] * BLOCK, [7] * (BLOCK - 9)])
def test_a_cache_smaller_than_one_sample_is_made_large_enough(prompt: list[int]) -> None:
    small = ContinuousSampler((), 0, max_tokens=1)
    groups = sampled(sampler=small, prompts=[prompt, [5, 6]], max_new_tokens=9)
    assert [len(one.token_ids) for rows in groups for one in rows] == [9] * 8


def test_the_cache_holds_what_is_asked_for_and_not_more_than_is_needed() -> None:
    request = Request([[1] * 100, [1] * 300], 4, 100, [0, 0], Drawing())
    blocks = [ContinuousSampler((), 0, max_tokens=size)._blocks(request) for size in (10**9, 5 * BLOCK, 1)]
    assert blocks == [4 * (1 + 2), 5, 2]  # 201 and 401 places in blocks of 256


@pytest.mark.parametrize("change", ["half", "adapters", "packed attention", "own generation settings"])
def test_models_as_they_are_trained(change: str) -> None:
    model = copy.deepcopy(MODEL)
    if change == "packed attention":
        use_packed_attention(model)
    if change in ("half", "adapters"):
        model = model.bfloat16()
    if change == "adapters":
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM"))
        generator = torch.Generator().manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.3, generator=generator)
    if change == "own generation settings":
        model.generation_config.update(
            do_sample=True, top_k=1, temperature=0.1, repetition_penalty=1.5, num_return_sequences=3, max_new_tokens=2
        )
        assert sampled(model) == sampled()
    attention = model.config._attn_implementation
    model.train()
    groups = sampled(model)
    assert model.training and model.config._attn_implementation == attention
    assert_recorded(model.eval(), groups, 0.05 if change in ("half", "adapters") else 1e-4)


def test_a_model_whose_keys_are_of_another_type_than_its_weights_is_refused() -> None:
    mixed = copy.deepcopy(MODEL)
    compute_in(mixed, torch.bfloat16, "cpu")
    with pytest.raises(ConfigError, match=r"policy\.sampler=continuous holds .*set policy\.sampler to loop"):
        sampled(mixed)


def test_nothing_is_sampled_of_no_prompts() -> None:
    assert sampled(prompts=[]) == []
    with pytest.raises(ValueError, match="3 prompts with 1 seeds"):
        sampled(seeds=[1])


# ------------------------------------------------------------------------------------------------ progress, cancelling


def test_progress_counts_samples() -> None:
    seen: list[tuple[int, int]] = []
    sampled(on_step=lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {12} and seen == sorted(seen) and seen[-1] == (12, 12)


def test_a_cancelled_sampling_ends_the_engine_and_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        raise Cancelled

    passes: list[int] = []
    with monkeypatch.context() as patched:
        handle = MODEL.get_decoder().register_forward_pre_hook(lambda *arguments: passes.append(1))
        patched.setattr(continuous, "WAIT", 0.001)
        threads = threading.active_count()
        with pytest.raises(Cancelled):
            sampled(max_new_tokens=900, sampler=ContinuousSampler((), 0), on_step=cancel)
        handle.remove()
    assert threading.active_count() == threads
    assert len(passes) < 300  # of 900: what was left to do is dropped
    assert MODEL.config._attn_implementation == "sdpa" and not MODEL.training
    assert [len(rows) for rows in sampled()] == [4, 4, 4]


# ---------------------------------------------------------------------------------------------------------- bookkeeping


class Output:
    """A request's output as the engine gives it."""

    def __init__(
        self, name: str, tokens: Sequence[int] = (40, 3), logprobs: Sequence[float] = (-1.0, -2.0), error: Any = None
    ) -> None:
        self.request_id, self.error = name, error
        self.generated_tokens, self.logprobs = list(tokens), list(logprobs)
        self.complete = True

    def is_finished(self) -> bool:
        return self.complete


class Engine:
    """A stand-in: every request comes back as ``answer`` says, unless it says None; then the engine has stopped."""

    def __init__(self, answer: Callable[[str], Output | None]) -> None:
        self.answer = answer
        self.log: list[str] = []
        self.left: list[Output] = []

    def add_request(self, prompt: list[int], *, request_id: str, max_new_tokens: int, eos_token_id: list[int]) -> None:
        assert "start" not in self.log and max_new_tokens == 8 and eos_token_id == list(ENDS)
        output = self.answer(request_id)
        self.left += [output] if output else []
        self.log.append(request_id)

    def start(self) -> None:
        self.log.append("start")

    def is_running(self) -> bool:
        return False

    def get_result(self, timeout: float) -> Output | None:
        return self.left.pop(0) if self.left else None

    def warmup(self) -> None:
        self.log.append("warm")

    def stop(self, block: bool, hard_stop: bool = False) -> None:
        self.log.append("hard stop" if hard_stop else "stop")

    def destroy(self) -> None:
        self.log.append("destroy")


def with_engine(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Output | None]) -> Engine:
    engine = Engine(answer)
    monkeypatch.setattr(MODEL, "init_continuous_batching", lambda *settings: engine, raising=False)
    return engine


def test_samples_are_in_order_however_they_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = with_engine(monkeypatch, lambda name: Output(name, [30 + int(name[0]), int(name[2]) + 2]))
    monkeypatch.setattr(engine, "get_result", lambda timeout: engine.left.pop() if engine.left else None)
    ids = [[one.token_ids for one in rows] for rows in sampled(num_samples=2)]
    assert ids == [[(30 + prompt, 2), (30 + prompt, 3)] for prompt in range(3)]
    names = ["0-0", "0-1", "1-0", "1-1", "2-0", "2-1"]
    # all requests are there before it starts: what it batches does not depend on the time that takes
    assert engine.log == ["warm", *names, "start", "stop", "destroy"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda name: None, r"failed for 12 of 12 samples \(sample 0-0 did not come back\)"),
        (lambda name: None if name == "1-2" else Output(name), r"1 of 12 samples \(sample 1-2 did not come back\)"),
        (lambda name: Output(name, error="no room" if name[0] == "2" else None), r"4 of 12 .*2-0: no room\)"),
        (lambda name: Output(name, [], []), r"12 of 12 samples \(sample 0-0 has 0 tokens of at most 8\)"),
        (lambda name: Output(name, range(30, 39), [-1.0] * 9), r"12 of 12 .* 0-0 has 9 tokens of at most 8"),
        (lambda name: Output(name, [40, 3], [-1.0]), r"\(sample 0-0 has 1 log-probabilities for 2 tokens\)"),
        (lambda name: Output(name.replace("0-3", "0-3__child#0")), r"2 of 12 samples \(sample 0-3 did not come back\)"),
    ],
)
def test_samples_that_are_missing_or_broken_are_an_error(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Output | None], message: str
) -> None:
    engine = with_engine(monkeypatch, answer)
    with pytest.raises(RuntimeError, match=message + r".*; set policy\.sampler to loop or generate"):
        sampled()
    assert engine.log[-2:] == ["stop", "destroy"]


def test_an_output_that_is_not_complete_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = with_engine(monkeypatch, Output)
    part = Output("0-0", [99], [-1.0])
    part.complete = False
    engine.left.append(part)
    assert sampled()[0][0].token_ids == (40, 3)


def test_log_probabilities_that_are_no_numbers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with_engine(monkeypatch, lambda name: Output(name, logprobs=[-1.0, float("nan") if name == "1-3" else -1.0]))
    with pytest.raises(FloatingPointError, match=r"not finite at completion token 1 of prompt 1 \(nan\)"):
        sampled()


def test_a_cache_that_does_not_fit_into_memory_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise MemoryError("Memory footprint 2 is more than available memory 1")

    engine = with_engine(monkeypatch, Output)
    monkeypatch.setattr(engine, "warmup", full)
    message = r"a cache of 3,072 tokens does not fit .*lower policy\.sampling_tokens \(it is 262,144\)"
    with pytest.raises(ConfigError, match=message):
        sampled()
    assert engine.log == ["hard stop", "destroy"]
    assert MODEL.config._attn_implementation == "sdpa"


def test_log_probabilities_are_read_again_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sampled(temperature=0.9)
    monkeypatch.setattr(continuous, "REREAD_TOKENS", 30)
    parts = sampled(temperature=0.9)
    for one, other in zip((r for g in whole for r in g), (r for g in parts for r in g), strict=True):
        assert one.token_ids == other.token_ids and one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
