"""Samplers against a plain loop that reads every sequence from its beginning, one row and one token at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from irl_core.config import PolicyConfig
from irl_core.errors import ConfigError
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.packed_attention import use_packed_attention
from irl_core.models.precision import compute_in
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy import protocol
from irl_core.policy.draws import Drawing, uniforms
from irl_core.policy.generate import GenerateSampler
from irl_core.policy.protocol import Request, Rollout
from irl_core.policy.sampling import LoopSampler, make_sampler
from irl_core.types import EncodedTrace
from tests.small_models import random_model
from tests.tiny import PROBLEM, expert_traces, tiny_model, tiny_tokenizer

ENCODER = TraceEncoder(tiny_tokenizer())
PROMPTS = [expert.prompt_ids for expert in expert_traces(ENCODER)[:3]]
MODEL = tiny_model()
ENDS = tuple(range(50))  # a sixth of the vocabulary: rows end at different steps
SAMPLERS = {
    "loop": LoopSampler(ENDS, 0),
    "generate": GenerateSampler(ENDS, 0),
    "static": GenerateSampler(ENDS, 0, cache="static"),
}
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


@cache
def qwen() -> Any:
    return random_model("qwen2", 300)


def adapted(model: Any) -> Any:
    """The model in bfloat16 with adapters in float32 that change what it says."""
    adapted = get_peft_model(
        copy.deepcopy(model).bfloat16(), LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    generator = torch.Generator().manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return adapted.eval()


def sampled(sampler: Any, model: Any = MODEL, prompts: Any = PROMPTS, **settings: Any) -> list[list[Rollout]]:
    seeds = [100 + number for number in range(len(prompts))]
    return sampler(model, prompts, **({"num_samples": 3, "max_new_tokens": 8, "seeds": seeds} | settings))


def plain_sample(
    model: Any, prompt: Sequence[int], number: int, seed: int, *, max_new_tokens: int = 8, ends: Sequence[int] = ENDS,
    temperature: float = 1.0, top_p: float = 1.0, vocab_size: int = 300,
) -> Rollout:  # fmt: skip
    """One sample of one prompt; ids by a plain loop over the sorted probabilities, in Python's floats."""
    ids, logprobs = [], []
    for given in uniforms(seed, number, max_new_tokens).tolist():
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].double()
        kept = logits[:vocab_size]
        weights = (kept / temperature).softmax(-1).tolist() if temperature else one_hot(int(kept.argmax()), vocab_size)
        reached = 0.0
        for token in sorted(range(vocab_size), key=lambda i: -weights[i]):
            weights[token], reached = (weights[token] if reached < top_p else 0.0), reached + weights[token]
        target = given * sum(weights)
        token = next(token for token, below in enumerate(accumulate(weights)) if below > target)
        ids.append(token)
        logprobs.append(float(logits.log_softmax(-1)[token]))
        if token in ends:
            break
    return Rollout(tuple(ids), tuple(logprobs), ids[-1] in ends)


def one_hot(place: int, count: int) -> list[float]:
    return [float(number == place) for number in range(count)]


def assert_same(groups: list[list[Rollout]], others: list[list[Rollout]], tolerance: float = 1e-4) -> None:
    assert [len(rows) for rows in groups] == [len(rows) for rows in others]
    for one, other in zip(chain(*groups), chain(*others), strict=True):
        assert (one.token_ids, one.finished) == (other.token_ids, other.finished)
        assert one.logprobs == pytest.approx(other.logprobs, abs=tolerance)


# ------------------------------------------------------------------------------------------------- against a plain loop


@cache
def plain_samples(family: str, **settings: Any) -> list[list[Rollout]]:
    model = MODEL if family == "llama" else qwen()
    return [
        [plain_sample(model, prompt, number, 100 + place, **settings) for number in range(3)]
        for place, prompt in enumerate(PROMPTS)
    ]


@each_sampler
@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"top_p": 0.6}, {"temperature": 0.0}], ids=str)
def test_samples_are_those_of_a_plain_loop(sampler: Any, family: str, settings: dict[str, float]) -> None:
    model = MODEL if family == "llama" else qwen()
    expected = plain_samples(family, **settings)
    assert len({len(prompt) for prompt in PROMPTS}) > 1  # padded on the left, and it does not show
    assert_same(sampled(sampler, model, **settings), expected)


@each_sampler
@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_head_never_multiplies_a_slice_of_the_hidden_states(sampler: Any, num_samples: int) -> None:
    # torch copies the head once a row where the other factor is not contiguous
    model, seen = tiny_model(), []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    sampler(model, PROMPTS, num_samples=num_samples, max_new_tokens=3, seeds=[1, 2, 3])
    assert seen and all(hidden.is_contiguous() and hidden.shape[1] == 1 for hidden in seen)


@each_sampler
def test_recorded_logprobs_are_those_of_one_full_pass(sampler: Any) -> None:
    groups = sampled(sampler, max_new_tokens=16, temperature=0.7, top_p=0.9)
    pairs = [(prompt, one) for prompt, rows in zip(PROMPTS, groups, strict=True) for one in rows]
    batch = collate([rolled(prompt, one) for prompt, one in pairs], ENCODER.pad_id)
    values = completion_logprobs(MODEL, batch).detach()
    for row, (_, one) in enumerate(pairs):
        assert one.logprobs == pytest.approx(values[row, : len(one.logprobs)].tolist(), abs=1e-4)


def rolled(prompt: Sequence[int], rollout: Rollout) -> EncodedTrace:
    trace = ENCODER.encode(ENCODER.sampled_trace(PROBLEM, rollout.token_ids, rollout.logprobs))
    return EncodedTrace(trace.trace, tuple(prompt), trace.completion_ids, trace.spans)


@each_sampler
@pytest.mark.parametrize("change", ["packed attention", "no cache in training"])
def test_what_training_sets_changes_nothing(sampler: Any, change: str) -> None:
    model = copy.deepcopy(qwen())
    if change == "packed attention":
        use_packed_attention(model)
    else:
        model.config.use_cache = model.generation_config.use_cache = False
    assert_same(sampled(sampler, model), plain_samples("qwen2"))


@each_sampler
@pytest.mark.parametrize("adapters", [True, False])
def test_a_model_in_bfloat16_with_adapters_or_without(sampler: Any, adapters: bool) -> None:
    model = adapted(qwen()) if adapters else copy.deepcopy(qwen()).bfloat16()
    groups = sampled(sampler, model)
    pairs = [(prompt, one) for prompt, rows in zip(PROMPTS, groups, strict=True) for one in rows]
    values = completion_logprobs(model, collate([rolled(*pair) for pair in pairs], ENCODER.pad_id)).detach()
    for row, (_, one) in enumerate(pairs):
        assert one.logprobs == pytest.approx(values[row, : len(one.logprobs)].tolist(), abs=0.05)
    # float32, not rounded to bfloat16's 8 bits; and the adapters are in force
    recorded = torch.tensor([value for _, one in pairs for value in one.logprobs])
    assert not torch.equal(recorded, recorded.bfloat16().float())
    plain = sampled(sampler, copy.deepcopy(qwen()).bfloat16())
    assert (groups == plain) is not adapters


# --------------------------------------------------------------------------------------------- what draws depend on


@each_sampler
def test_draws_do_not_depend_on_the_other_prompts_nor_on_their_order(sampler: Any) -> None:
    together = sampled(sampler)
    for index, prompt in enumerate(PROMPTS):
        assert_same([together[index]], sampled(sampler, prompts=[prompt], seeds=[100 + index]), 1e-5)
    assert_same(sampled(sampler, prompts=PROMPTS[::-1], seeds=[102, 101, 100])[::-1], together, 1e-5)


@each_sampler
@pytest.mark.parametrize("max_tokens", [1, 150])
def test_draws_do_not_depend_on_what_is_decoded_at_once(sampler: Any, max_tokens: int) -> None:
    parted = replace(sampler, max_tokens=max_tokens)
    assert_same(sampled(parted, num_samples=4), sampled(sampler, num_samples=4), 1e-5)


@each_sampler
def test_fewer_samples_and_fewer_tokens_are_the_first_ones(sampler: Any) -> None:
    many = sampled(sampler, num_samples=4, max_new_tokens=12)
    assert_same(sampled(sampler, num_samples=2, max_new_tokens=12), [rows[:2] for rows in many], 1e-5)
    cut = [[Rollout(r.token_ids[:5], r.logprobs[:5], r.finished and len(r.token_ids) <= 5) for r in g] for g in many]
    assert_same(sampled(sampler, num_samples=4, max_new_tokens=5), cut, 1e-5)
    assert any(not one.finished for rows in cut for one in rows)


@each_sampler
def test_the_pad_id_does_not_matter(sampler: Any) -> None:
    assert_same(sampled(sampler), sampled(replace(sampler, pad_id=250)), 1e-5)


@each_sampler
def test_seeds_give_samples_and_the_global_generator_is_not_touched(sampler: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampled(sampler, prompts=PROMPTS[:1], num_samples=8, seeds=[5])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert sampled(sampler, prompts=PROMPTS[:1], num_samples=8, seeds=[5]) == first
    assert sampled(sampler, prompts=PROMPTS[:1], num_samples=8, seeds=[6]) != first
    assert len({one.token_ids for one in first[0]}) > 1


def test_batches_hold_every_row_once_within_the_limit() -> None:
    prompts = [[1] * length for length in (30, 5, 12, 90)]
    request = Request(prompts, 4, 10, [0] * 4, Drawing())
    batches = request.batches(100)
    assert sorted(row for rows in batches for row in rows) == [(p, s) for p in range(4) for s in range(4)]
    for rows in batches:
        assert len(rows) * (max(len(prompts[p]) for p, _ in rows) + 10) <= 100
    # rows of 15, 22, 40 and 100 tokens, shortest first: 4 x 22 fits, a fifth does not
    assert [len(rows) for rows in batches] == [4, 4, 2, 2, 1, 1, 1, 1]
    assert [len(rows) for rows in request.batches(1)] == [1] * 16
    assert [len(rows) for rows in request.batches(10**6)] == [16]


# ---------------------------------------------------------------------------------------------------- the end, the mask


@each_sampler
def test_rows_end_at_their_own_end_token(sampler: Any) -> None:
    rollouts = [one for rows in sampled(sampler, max_new_tokens=12, num_samples=4) for one in rows]
    assert {one.finished for one in rollouts} == {True, False}
    assert len({len(one.token_ids) for one in rollouts}) > 3
    for one in rollouts:
        assert len(one.token_ids) == len(one.logprobs) <= 12
        assert one.finished == (one.token_ids[-1] in ENDS)
        assert not set(ENDS) & set(one.token_ids[:-1])
        assert one.finished or len(one.token_ids) == 12


@each_sampler
def test_an_end_token_on_the_last_position_finishes(sampler: Any) -> None:
    endless = replace(sampler, end_ids=())
    ((whole,),) = sampled(endless, prompts=PROMPTS[:1], num_samples=1, max_new_tokens=4)
    assert (len(whole.token_ids), whole.finished) == (4, False)
    cut = whole.token_ids.index(whole.token_ids[-1]) + 1
    ending = replace(sampler, end_ids=(299, whole.token_ids[-1]))
    ((one,),) = sampled(ending, prompts=PROMPTS[:1], num_samples=1, max_new_tokens=cut)
    assert (one.token_ids, one.finished) == (whole.token_ids[:cut], True)


@each_sampler
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"temperature": 0.0}], ids=str)
def test_ids_that_the_tokenizer_does_not_have_are_never_drawn(sampler: Any, settings: dict[str, float]) -> None:
    groups = sampled(replace(sampler, end_ids=range(5), vocab_size=60), **settings)
    assert max(token for rows in groups for one in rows for token in one.token_ids) < 60
    assert max(token for rows in sampled(sampler, **settings) for one in rows for token in one.token_ids) >= 60
    # log-probabilities stay those of the whole model
    assert_same(groups, plain_samples("llama", ends=range(5), vocab_size=60, **settings))


@pytest.mark.parametrize("sampler", [SAMPLERS["generate"], SAMPLERS["static"]], ids=["dynamic", "static"])
@pytest.mark.parametrize("adapters", [False, True])
def test_the_models_own_generation_settings_are_not_used(sampler: Any, adapters: bool) -> None:
    model = adapted(qwen()) if adapters else copy.deepcopy(qwen())
    expected = sampled(sampler, model)
    own = copy.deepcopy(model.generation_config)
    own.update(
        do_sample=True, top_k=1, temperature=0.1, repetition_penalty=1.5, no_repeat_ngram_size=1, min_new_tokens=9,
        suppress_tokens=[one.token_ids[0] for one in expected[0]], eos_token_id=60, max_length=4, num_beams=2,
    )  # fmt: skip
    for part in {id(model): model, id(protocol.base_of(model)): protocol.base_of(model)}.values():
        part.generation_config = own
    assert sampled(sampler, model) == expected
    assert model.generation_config is own and protocol.base_of(model).generation_config is own


# ------------------------------------------------------------------------------------------- cost, progress, cancelling


@pytest.mark.parametrize(("cache", "readers"), [("dynamic", 3), ("static", 9)])
def test_generate_reads_a_prompt_once_for_its_samples_where_the_cache_can_be_shared(
    monkeypatch: pytest.MonkeyPatch, cache: Any, readers: int
) -> None:
    read: list[int] = []
    forward = MODEL.forward

    def spy(*args: Any, **inputs: Any) -> Any:
        ids = inputs["input_ids"]
        read.append(ids.shape[0] * (ids.shape[1] - 1))  # the prompt's last token is read beside the samples
        return forward(*args, **inputs)

    monkeypatch.setattr(MODEL, "forward", spy)
    sampled(GenerateSampler(ENDS, 0, cache=cache))
    width = max(map(len, PROMPTS))
    assert sum(read) == readers * (width - 1) - (readers if cache == "dynamic" else 0)


def test_a_prompt_is_read_once_and_ended_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    forward = MODEL.forward

    def spy(**inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return forward(**inputs)

    monkeypatch.setattr(MODEL, "forward", spy)
    lengths = sorted(len(one.token_ids) for rows in sampled(SAMPLERS["loop"], num_samples=6) for one in rows)
    assert shapes[0] == (len(PROMPTS), max(map(len, PROMPTS)))
    assert [rows for rows, _ in shapes[1:]] == [sum(length > step for length in lengths) for step in range(1, 8)]


@each_sampler
def test_progress_counts_positions_over_all_batches(sampler: Any) -> None:
    sampler = replace(sampler, end_ids=())
    seen: list[tuple[int, int]] = []
    sampled(sampler, max_new_tokens=4, on_step=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    seen.clear()
    two = replace(sampler, max_tokens=2 * (len(PROMPTS[0]) + 4))
    sampled(two, prompts=PROMPTS[:1], num_samples=3, max_new_tokens=4, on_step=lambda *step: seen.append(step))
    assert seen == [(done, 8) for done in range(1, 9)]


@each_sampler
@pytest.mark.parametrize("training", [True, False])
def test_a_cancelled_sampling_leaves_the_model_as_it_was(sampler: Any, training: bool) -> None:
    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        assert not MODEL.training and not torch.is_grad_enabled()
        if done == 2:
            raise Cancelled

    own = MODEL.generation_config
    MODEL.train(training)
    try:
        with pytest.raises(Cancelled):
            sampled(sampler, on_step=cancel)
        assert MODEL.training is training and MODEL.generation_config is own
        sampled(sampler)
        assert MODEL.training is training
    finally:
        MODEL.eval()


# ---------------------------------------------------------------------------------------------------------- refusals


@each_sampler
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_an_error(sampler: Any, value: float) -> None:
    broken = copy.deepcopy(qwen())
    broken.model.norm.weight.data[3] = value
    with pytest.raises(FloatingPointError, match=r"not finite at completion token 0 of prompt \d \(nan\); lower"):
        sampled(sampler, broken)


@each_sampler
@pytest.mark.parametrize(
    "settings",
    [{"num_samples": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_new_tokens": 0}],
    ids=str,
)
def test_settings_that_cannot_sample_are_refused(sampler: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot sample \d+ of 3 prompts at temperature .* at most \d+ tokens"):
        sampled(sampler, **settings)


@each_sampler
def test_prompts_and_seeds_that_do_not_fit_are_refused(sampler: Any) -> None:
    with pytest.raises(ValueError, match="3 prompts with 2 seeds; give one for each"):
        sampled(sampler, seeds=[1, 2])
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        sampled(sampler, prompts=[[1], []])
    assert sampled(sampler, prompts=[]) == []


def test_a_static_cache_that_cannot_hold_the_models_types_is_refused() -> None:
    mixed = copy.deepcopy(qwen())
    compute_in(mixed, torch.bfloat16, "cpu")  # rotated keys stay in float32, values do not
    with pytest.raises(ConfigError, match=r"policy\.cache=static holds .*torch\.float32.*set policy\.sampler to loop"):
        sampled(SAMPLERS["static"], mixed)
    assert_same(sampled(SAMPLERS["generate"], mixed), sampled(SAMPLERS["loop"], mixed), 0.05)


# ----------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, LoopSampler(ENCODER.end_ids, ENCODER.pad_id, 262144, 300)),
        ({"sampler": "generate"}, GenerateSampler(ENCODER.end_ids, ENCODER.pad_id, "dynamic", 262144, 300)),
        (
            {"sampler": "generate", "cache": "static", "sampling_tokens": 99},
            GenerateSampler(ENCODER.end_ids, ENCODER.pad_id, "static", 99, 300),
        ),
    ],
    ids=str,
)
def test_the_configuration_chooses(settings: dict[str, Any], expected: Any) -> None:
    assert make_sampler(PolicyConfig(**settings), ENCODER) == expected


@pytest.mark.parametrize(("family", "count"), [("qwen2", 151_646), ("llama3", 128_256)])
def test_real_tokenizers_have_fewer_ids_than_models_have_logits(family: str, count: int, shared: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared / "tokenizers" / family, local_files_only=True)
    sampler: Any = make_sampler(PolicyConfig(), TraceEncoder(tokenizer))
    assert sampler.vocab_size == count and max(sampler.end_ids) < count
