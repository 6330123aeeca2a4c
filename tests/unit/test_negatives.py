"""The discriminator's examples: parts of a round, tails, copies of demonstrations, departures by value, styles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from irl_core.config import DiscriminatorConfig
from irl_core.distributed import World
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.segmentation import make_trace
from irl_core.training.discriminator_step import step_numbers, weigh
from irl_core.training.groups import Group
from irl_core.training.negatives import Example, by_problem, labelled_examples, sample_departure, without_tail
from irl_core.types import EncodedTrace, Source
from tests.tiny import changed, expert_traces, pair_config, tiny_tokenizer, tiny_trainer
from train.data import ExpertData, in_a_style

WRONG = "Bo pays 5 * 2 = 10 dollars.\nHe gets 20 + 10 = 30 back.\nSo he has 30 dollars.\n#### 30"


def encoder() -> TraceEncoder:
    return TraceEncoder(tiny_tokenizer())


def sample_of(expert: EncodedTrace, text: str = WRONG) -> EncodedTrace:
    return encoder().encode(make_trace(expert.trace.problem, text, source=Source.POLICY))


def bo() -> EncodedTrace:
    """The demonstration of the problem that ``WRONG`` is a solution of."""
    return expert_traces(encoder())[1]


def settings(**values: Any) -> DiscriminatorConfig:
    return changed(pair_config(), "discriminator", **values).discriminator


def departed_text(sample: EncodedTrace, departure: int) -> str:
    return sample.trace.text[sample.spans[departure][0] :]


def test_a_sample_departs_at_its_first_value_that_leads_nowhere() -> None:
    sample = sample_of(bo())
    found = sample_departure(bo(), sample, settings(policy_labels="from_departed_value"))
    assert departed_text(sample, found).lstrip().startswith("20 + 10 = 30")


def test_without_its_tail_a_trace_ends_with_the_step_in_which_it_departs() -> None:
    sample = sample_of(bo())
    departure = sample_departure(bo(), sample, settings(policy_labels="from_departed_value"))
    shorter = without_tail(Example(sample, departure)).encoded
    kept = shorter.trace.text[: shorter.spans[-1][1]]
    assert kept.rstrip() == "Bo pays 5 * 2 = 10 dollars.\nHe gets 20 + 10 = 30 back."
    assert shorter.completion_ids == sample.completion_ids[: len(shorter.completion_ids)]


@pytest.mark.parametrize("departure", [10**6, 0])
def test_a_trace_that_does_not_depart_is_read_to_its_end_and_one_that_does_at_once_keeps_a_step(departure: int) -> None:
    sample = sample_of(bo())
    shorter = without_tail(Example(sample, departure)).encoded
    if departure:
        assert shorter is sample
    else:
        assert shorter.trace.text[: shorter.spans[-1][1]].rstrip() == "Bo pays 5 * 2 = 10 dollars."


def groups() -> list[Group]:
    experts = expert_traces(encoder())
    return [Group(one, (sample_of(one, one.trace.text + "1"),), number) for number, one in enumerate(experts)]


def test_copies_of_a_demonstration_as_many_as_asked_for() -> None:
    trainer = tiny_trainer(changed(pair_config(), "discriminator", perturbed_copies=3))
    examples = labelled_examples(groups(), trainer.pair, trainer.config.discriminator, trainer.replay, trainer.seed)
    copies = [one for one in examples if one.encoded.trace.source is Source.PERTURBED]
    assert 12 < len(copies) <= 4 * (3 + 1)  # three of each demonstration, and one of a sample where it can be


def test_the_share_of_tails_is_kept_and_demonstrations_always_are() -> None:
    trainer = tiny_trainer(changed(pair_config(), "discriminator", tail=0.0, perturbed_copies=2))
    examples = labelled_examples(groups(), trainer.pair, trainer.config.discriminator, trainer.replay, trainer.seed)
    whole = [one for one in examples if len(one.encoded.trace.text) == one.encoded.spans[-1][1]]
    assert [one for one in examples if one.encoded.trace.source is Source.EXPERT] == [
        one for one in whole if one.encoded.trace.source is Source.EXPERT
    ]
    assert len(whole) < len(examples)
    for one in examples:
        assert one.departure < len(one.encoded.spans) or one.encoded.trace.source is Source.EXPERT or one in whole


def test_a_rounds_parts_hold_every_example_once_and_no_problem_twice() -> None:
    trainer = tiny_trainer()
    examples = labelled_examples(groups(), trainer.pair, trainer.config.discriminator, trainer.replay, trainer.seed)
    for count in (1, 3, 9):
        parts = by_problem(examples, count)
        assert len(parts) == min(count, 4)
        assert sorted(map(id, examples)) == sorted(id(one) for part in parts for one in part)
        problems = [{one.encoded.trace.problem for one in part} for part in parts]
        assert sum(map(len, problems)) == len(set.union(*problems)) == 4


def test_demonstrations_are_shown_in_another_style_at_every_visit_and_the_same_for_the_seed() -> None:
    traces = [replace(one.trace, reference_answer=one.trace.answer) for one in expert_traces(encoder())]
    data = ExpertData(traces, seed=3, styles=True)
    texts = [trace.text for number in range(12) for trace in data.batch(number, len(traces))]
    assert texts == [t.text for number in range(12) for t in ExpertData(traces, 3, True).batch(number, len(traces))]
    assert len(set(texts)) > 3 * len(traces)
    assert all(trace.correct for trace in data.batch(5, len(traces)))
    plain = ExpertData(traces, seed=3)
    assert {trace.text for trace in plain.batch(0, len(traces))} == {trace.text for trace in traces}


def test_a_style_keeps_what_is_known_of_a_trace() -> None:
    trace = replace(bo().trace, trace_id="one", problem_id="two", extra={"family": "change"})
    styled = next(s for n in range(20) if (s := in_a_style(trace, str(n))).text != trace.text)
    assert (styled.trace_id, styled.problem_id, styled.source) == ("one", "two", Source.EXPERT)
    assert styled.extra == trace.extra


def test_at_each_step_both_classes_weigh_the_same_where_that_is_asked_for() -> None:
    examples = [Example(bo()), Example(sample_of(bo()), 0), Example(sample_of(bo()), 12)]
    batch = weigh(examples, settings(balance="steps"), World())
    sums: dict[tuple[int, bool], float] = {}
    for example, weights in zip(examples, batch.weights.tolist(), strict=True):
        expert = example.encoded.trace.source is Source.EXPERT
        for token, step in enumerate(step_numbers(example.encoded)):
            key = step, expert or token < example.departure
            sums[key] = sums.get(key, 0.0) + weights[token]
    steps = {step for step, _ in sums}
    assert sum(sums.values()) == pytest.approx(1.0) and len(steps) > 2
    for step in steps:
        assert sums.get((step, True), 0.0) == pytest.approx(sums.get((step, False), 0.0))


def test_a_token_belongs_to_the_step_it_ends_in_or_follows() -> None:
    sample = sample_of(bo())
    steps, text = step_numbers(sample), sample.trace.text
    assert steps == sorted(steps) and set(steps) == set(range(len(sample.trace.steps)))
    for (_, end), step in zip(sample.spans, steps, strict=True):
        assert step == max(0, sum(one.start < end for one in sample.trace.steps) - 1), text[:end]
