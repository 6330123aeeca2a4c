"""Algorithm 1 on a pair of 19 k parameters: who learns when, from which traces, with which advantages."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.errors import ConfigError
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.segmentation import make_trace
from irl_core.training import negatives
from irl_core.training.advantages import outcome_advantages, token_advantages
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.groups import Group, samples_of
from irl_core.training.grpo import GRPOTrainer
from irl_core.training.metrics import class_metrics, rollout_metrics
from irl_core.training.negatives import Example
from irl_core.training.policy_step import ScoredBatch
from irl_core.types import EncodedTrace, Perturbation, Source
from tests.tiny import (
    EXPERTS,
    changed,
    examples_of,
    expert_traces,
    pair_config,
    perturbed_of,
    tiny_tokenizer,
    tiny_trainer,
    update_discriminator_of,
)

ENCODER = TraceEncoder(tiny_tokenizer())
TRACES = expert_traces(ENCODER)
# Solutions as a policy might write them: (index of the problem, text).
DRAFTS = (
    (0, "There are 3 * 4 = <<3*4=12>>12 pens.\nShe keeps 12 + 2 = <<12+2=14>>14 pens.\n#### 14"),
    (1, "The pears cost 5 * 2 = $<<5*2=10>>10.\n#### 10"),
    (2, "60 + 3 = <<60+3=63>>63\n#### 63"),
    (3, "Together they have 9 + 4 = <<9+4=13>>13.\n#### 13"),
)


def as_sample(problem: int, text: str, *, finished: bool = True, level: float = -1.0) -> EncodedTrace:
    """A text as if the policy had sampled it, every token with log-probability ``level``."""
    ids = ENCODER.encode(make_trace("p", text, finished=finished)).completion_ids
    question, _, answer = EXPERTS[problem]
    trace = ENCODER.sampled_trace(question, ids, [level] * len(ids), reference_answer=answer, problem_id=str(problem))
    return ENCODER.encode(trace)


def drafts() -> list[Group]:
    return [Group(TRACES[problem], (as_sample(problem, text),)) for problem, text in DRAFTS]


def config(**sections: dict[str, Any]) -> TrainConfig:
    result = pair_config()
    for section, values in sections.items():
        result = changed(result, section, **values)
    return result


def weights(model: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def moved(before: dict[str, Tensor], model: Any) -> bool:
    """Whether any weight differs from ``before``, in any bit."""
    return any(not torch.equal(before[name], value) for name, value in model.state_dict().items())


# --------------------------------------------------------------------------------------- who learns when


@pytest.mark.parametrize("loss", ["bce", "wasserstein", "sequence"])
def test_updates_lower_the_discriminators_loss_on_fixed_data(loss: str) -> None:
    trainer = tiny_trainer(config(discriminator={"loss": loss, "weight_clip": 1.0}))
    examples = examples_of(trainer, drafts())
    values = [update_discriminator_of(trainer, examples)["disc/loss"] for _ in range(12)]
    assert all(math.isfinite(value) for value in values)
    assert values[-1] < values[0] - 0.05


def test_rounds_lower_the_discriminators_loss_on_held_fixed_data() -> None:
    trainer = tiny_trainer(config(discriminator={"warmup_rounds": 99}))
    fixed = examples_of(trainer, trainer.sample_groups(TRACES))

    def loss_on_fixed() -> float:
        probe = tiny_trainer(trainer.config)
        probe.discriminator.model.load_state_dict(trainer.discriminator.model.state_dict())
        return update_discriminator_of(probe, fixed)["disc/loss"]

    before = loss_on_fixed()
    for _ in range(6):
        trainer.round(TRACES)
    assert loss_on_fixed() < before - 0.05


def test_the_reward_comes_to_prefer_the_expert() -> None:
    trainer = tiny_trainer()
    examples = examples_of(trainer, drafts())
    for _ in range(20):
        metrics = update_discriminator_of(trainer, examples)
    assert metrics["disc/reward_expert"] > metrics["disc/reward_policy"]


@pytest.mark.parametrize("likelihood", ["own", "policy"])
def test_a_discriminator_update_leaves_the_policy_alone(likelihood: str) -> None:
    trainer = tiny_trainer(config(discriminator={"likelihood": likelihood}))
    policy, discriminator = weights(trainer.policy.model), weights(trainer.discriminator.model)
    update_discriminator_of(trainer, examples_of(trainer, drafts()))
    assert not moved(policy, trainer.policy.model)
    assert all(parameter.grad is None for parameter in trainer.policy.model.parameters())
    assert moved(discriminator, trainer.discriminator.model)


@pytest.mark.parametrize("likelihood", ["own", "policy"])
def test_a_policy_update_leaves_the_discriminator_alone(likelihood: str) -> None:
    trainer = tiny_trainer(config(discriminator={"likelihood": likelihood}))
    policy, discriminator = weights(trainer.policy.model), weights(trainer.discriminator.model)
    trainer.update_policy(trainer.score(drafts()))
    assert not moved(discriminator, trainer.discriminator.model)
    assert all(parameter.grad is None for parameter in trainer.discriminator.model.parameters())
    assert moved(policy, trainer.policy.model)


def test_the_policy_is_frozen_while_the_discriminator_warms_up() -> None:
    trainer = tiny_trainer(config(discriminator={"warmup_rounds": 2}))
    for number in range(3):
        policy, discriminator = weights(trainer.policy.model), weights(trainer.discriminator.model)
        metrics = trainer.round(TRACES)
        assert moved(discriminator, trainer.discriminator.model)
        assert moved(policy, trainer.policy.model) == (number == 2)
        assert ("policy/loss" in metrics) == (number == 2)
    assert trainer.round_number == 3


def test_frozen_weights_stay() -> None:
    trainer = tiny_trainer()
    for model in (trainer.policy.model, trainer.discriminator.model.backbone):
        model.get_input_embeddings().requires_grad_(False)
    before = [
        model.get_input_embeddings().weight.clone()
        for model in (trainer.policy.model, trainer.discriminator.model.backbone)
    ]
    trainer.round(TRACES)
    after = [trainer.policy.model, trainer.discriminator.model.backbone]
    assert all(torch.equal(a, b.get_input_embeddings().weight) for a, b in zip(before, after, strict=True))


def test_outcome_rewards_need_no_discriminator() -> None:
    trainer = tiny_trainer(config(run={"method": "grpo"}))
    assert isinstance(trainer, GRPOTrainer) and not hasattr(trainer, "discriminator")
    metrics = trainer.round(TRACES)
    assert not any(key.startswith("disc/") for key in metrics)
    assert "policy/loss" in metrics


def test_a_trainer_has_a_discriminator_where_a_reward_is_learned_and_not_else() -> None:
    trainer = tiny_trainer()
    parts = {name: getattr(trainer, name) for name in ("policy", "encoder", "config", "sampler")}
    with pytest.raises(TypeError, match="'discriminator'"):
        AdversarialTrainer(**parts, discriminator_encoder=trainer.encoder)
    with pytest.raises(TypeError, match="unexpected keyword argument 'discriminator'"):
        GRPOTrainer(**parts, discriminator=trainer.discriminator)


def test_the_rewards_of_a_round_are_kept_and_those_of_its_samples() -> None:
    trainer = tiny_trainer(config(discriminator={"warmup_rounds": 1}))
    trainer.round(TRACES)
    assert trainer.rewards is None  # the policy was frozen, and nothing needed them
    trainer.round(TRACES)
    kept = trainer.rewards
    assert len(kept) == 12  # four problems, three samples, no expert
    pair, seen = trainer.pair, trainer.sample_rewards()
    for sample, one, mean in zip(samples_of(trainer.groups), kept, seen, strict=True):
        (again,) = pair.score([sample])
        torch.testing.assert_close(torch.from_numpy(one.raw), torch.from_numpy(again.raw), atol=1e-4, rtol=1e-4)
        assert one.prompt_reward == pytest.approx(again.prompt_reward, abs=1e-5) and mean == float(one.raw.mean())
    assert trainer.rewards is kept  # not computed a second time


def test_without_a_learned_reward_samples_have_none() -> None:
    trainer = tiny_trainer(config(run={"method": "grpo"}))
    trainer.round(TRACES)
    assert trainer.sample_rewards() == [None] * 12


def test_outcome_rewards_wait_for_no_discriminator() -> None:
    trainer = tiny_trainer(config(run={"method": "grpo"}, discriminator={"warmup_rounds": 5}))
    assert "policy/loss" in trainer.round(TRACES)


def test_a_round_depends_on_seed_and_number_alone() -> None:
    def metrics(trainer: AdversarialTrainer) -> dict[str, float]:
        return {key: value for key, value in trainer.round(TRACES).items() if not key.startswith("time/")}

    torch.manual_seed(1)
    first = metrics(tiny_trainer())
    torch.manual_seed(2)
    random.seed(3)
    assert metrics(tiny_trainer()) == first
    assert metrics(tiny_trainer(config(run={"seed": 8}))) != first
    later = tiny_trainer()
    later.round_number = 1
    assert metrics(later) != first


# ------------------------------------------------------------------------------------------------ samples


def test_samples_belong_to_their_experts_problem() -> None:
    groups = tiny_trainer().sample_groups(TRACES)
    assert [group.expert for group in groups] == TRACES
    for number, group in enumerate(groups):
        assert len(group.samples) == 3
        for sample in group.samples:
            assert sample.prompt_ids == group.expert.prompt_ids
            assert sample.trace.problem == EXPERTS[number][0]
            assert sample.trace.problem_id == group.expert.trace.problem_id
            assert sample.trace.reference_answer == EXPERTS[number][2]
            assert sample.trace.source is Source.POLICY
            assert sample.trace.token_ids == sample.completion_ids
            assert len(sample.trace.logprobs or ()) == len(sample.completion_ids) <= 12


def test_sampled_logprobs_are_the_policys() -> None:
    trainer = tiny_trainer()
    samples = [sample for group in trainer.sample_groups(TRACES) for sample in group.samples]
    values = completion_logprobs(trainer.policy.model, collate(samples, ENCODER.pad_id))
    for row, sample in enumerate(samples):
        recorded = torch.tensor(sample.trace.logprobs)
        torch.testing.assert_close(values[row, : len(recorded)].detach(), recorded, atol=1e-4, rtol=1e-4)


def test_progress_is_told_while_sampling() -> None:
    trainer = tiny_trainer()
    phases: list[str] = []
    trainer.on_progress = phases.append
    trainer.sample_groups(TRACES)
    assert phases == ["sampling"] * 12


# ---------------------------------------------------------------------------------------------- negatives


def classes(examples: list[Example]) -> list[str]:
    return [example.encoded.trace.source.value for example in examples]


def test_a_round_has_expert_policy_and_perturbed_traces() -> None:
    examples = examples_of(tiny_trainer(), drafts())
    assert classes(examples)[:8] == ["expert"] * 4 + ["policy"] * 4
    # every expert and every draft has a sum that can be corrupted
    assert classes(examples)[8:] == ["perturbed"] * 8


def test_without_perturbations_there_are_none() -> None:
    examples = examples_of(tiny_trainer(config(discriminator={"perturbations": ()})), drafts())
    assert classes(examples) == ["expert"] * 4 + ["policy"] * 4


def test_a_perturbed_expert_is_the_experts_until_the_corrupted_token() -> None:
    trainer = tiny_trainer()
    checked = 0
    for seed in range(5):
        for group in drafts():
            for example in perturbed_of(trainer, group, random.Random(seed)):
                ids, expert = example.encoded.completion_ids, group.expert.completion_ids
                if example.departure:
                    assert ids[: example.departure] == expert[: example.departure]
                    assert ids[example.departure] != expert[example.departure]
                    checked += 1
    assert checked > 10


def test_a_perturbed_sample_is_never_the_experts() -> None:
    trainer = tiny_trainer()
    for group in drafts():
        *_, last = perturbed_of(trainer, group, random.Random(1))
        assert last.departure == 0


def test_whole_trace_labels_are_available() -> None:
    trainer = tiny_trainer(config(discriminator={"perturbation_labels": "whole_trace"}))
    assert all(example.departure == 0 for example in examples_of(trainer, drafts()))


def test_samples_from_their_departure() -> None:
    trainer = tiny_trainer(config(discriminator={"policy_labels": "from_departure", "perturbations": ()}))
    examples = examples_of(trainer, drafts())[4:]
    # draft 0 follows the expert until '12 + 2', draft 2 leaves at its first token
    text = DRAFTS[0][1]
    start, end = examples[0].encoded.spans[examples[0].departure]
    assert text[:start].endswith("She keeps 12 ")
    assert text[start:end] == "+"
    assert examples[2].departure == 0


def test_replay_keeps_earlier_samples_as_negatives() -> None:
    settings = {"replay": 0.5, "replay_capacity": 6, "perturbations": ()}
    trainer = tiny_trainer(config(discriminator=settings))
    first = examples_of(trainer, drafts())
    assert classes(first) == ["expert"] * 4 + ["policy"] * 4
    samples = [group.samples[0] for group in drafts()]
    assert [example.encoded for example in trainer.replay] == samples
    trainer.round_number = 1
    second = examples_of(trainer, drafts())
    # half of the round's own four
    assert classes(second) == ["expert"] * 4 + ["policy"] * 6
    assert all(example.encoded in samples for example in second[8:])
    # eight seen, the six newest kept
    assert [example.encoded for example in trainer.replay] == samples[2:] + samples


def test_without_replay_nothing_is_kept() -> None:
    trainer = tiny_trainer()
    trainer.round(TRACES)
    assert not trainer.replay


def test_a_replayed_sample_keeps_its_departure() -> None:
    settings = {"policy_labels": "from_departure", "replay": 1.0, "perturbations": ()}
    trainer = tiny_trainer(config(discriminator=settings))
    first = examples_of(trainer, drafts())[4:]
    departures = {example.encoded.completion_ids: example.departure for example in first}
    assert any(departures.values())
    trainer.round_number = 1
    for example in examples_of(trainer, drafts())[8:]:
        assert example.departure == departures[example.encoded.completion_ids]


# -------------------------------------------------------------------------------- advantages by hand


def advantages(trainer: AdversarialTrainer, raw: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    return token_advantages(raw, *others, trainer.config.policy, World())


RAW = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
FULL = torch.ones(2, 2, dtype=torch.bool)
START = torch.tensor([0.0, 0.0])
GROUP = torch.tensor([0, 0])
SPREAD = math.sqrt(14 / 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # last tokens 2, 6: mean 4, std sqrt 8. (-3, -2), (-1, 2) / sqrt 8; A_1 = -3 - 1 = -4 and -1 + 1 = 0
        (
            {"standardise_over": "last"},
            [[-4 / math.sqrt(8), -2 / math.sqrt(8)], [0.0, 2 / math.sqrt(8)]],
        ),
        # 1, 2, 3, 6: mean 3, squares 14, over 3. (-2, -1), (0, 3); A_1 = -2.5 and 1.5
        (
            {"standardise_over": "all"},
            [[-2.5 / SPREAD, -1 / SPREAD], [1.5 / SPREAD, 3 / SPREAD]],
        ),
        # as they are: A_1 = 1 + 1 and 3 + 3
        ({"standardise_over": "none"}, [[2.0, 2.0], [6.0, 6.0]]),
        # increments (1, 1), (3, 3): A_1 = 1.5 and 4.5
        ({"standardise_over": "none", "advantage": "credit"}, [[1.5, 1.0], [4.5, 3.0]]),
        # baseline: the other trace's mean, 4.5 and 1.5. (-3.5, -2.5), (1.5, 4.5); A_1 = -4.75 and 3.75
        (
            {"standardise_over": "all", "baseline": "leave_one_out"},
            [[-4.75 / SPREAD, -2.5 / SPREAD], [3.75 / SPREAD, 4.5 / SPREAD]],
        ),
    ],
)
def test_advantages_by_hand(settings: dict[str, Any], expected: list[list[float]]) -> None:
    trainer = tiny_trainer(config(policy={"gamma": 0.5} | settings))
    torch.testing.assert_close(advantages(trainer, RAW, FULL, GROUP, START), torch.tensor(expected))


def test_minimum_advantages_sum_to_the_soft_minimum() -> None:
    trainer = tiny_trainer(config(policy={"standardise_over": "none", "advantage": "minimum", "gamma": 0.5}))
    result = advantages(trainer, torch.tensor([[0.0, math.log(3.0)]]), FULL[:1], GROUP[:1], START[:1])
    # weights 3/4 and 1/4, rewards 0 and log 3, undiscounted
    torch.testing.assert_close(result, torch.full((1, 2), math.log(3.0) / 4))


def test_a_group_whose_rewards_are_all_the_same_teaches_nothing() -> None:
    trainer = tiny_trainer()
    scored = trainer.score(drafts())
    equal = advantages(trainer, torch.full(scored.mask.shape, 3.3), scored.mask, torch.arange(8) // 2, torch.zeros(8))
    assert equal.eq(0.0).all()
    before = weights(trainer.policy.model)
    trainer.update_policy(ScoredBatch(scored.traces, scored.mask, equal))
    assert not moved(before, trainer.policy.model)


def test_the_group_is_the_samples_and_where_wanted_the_expert() -> None:
    groups = drafts()
    together = tiny_trainer().score(groups).traces
    assert together == [trace for group in groups for trace in (*group.samples, group.expert)]
    alone = tiny_trainer(config(policy={"expert_in_group": False})).score(groups).traces
    assert alone == [group.samples[0] for group in groups]


def test_outcome_advantages_by_hand() -> None:
    right, wrong = as_sample(0, "#### 10"), as_sample(0, "#### 11")
    traces = [right, wrong, wrong, TRACES[0], as_sample(2, "#### 180"), as_sample(2, "180\n#### 180")]
    mask = collate(traces, ENCODER.pad_id).response_mask
    result = outcome_advantages(traces, torch.tensor([0, 0, 0, 0, 1, 1]), mask)
    # 1, 0, 0, 1: mean 1/2, squares 4 * 1/4 = 1, over 3: std sqrt(1/3); +-(1/2) sqrt 3 on every token
    level = torch.tensor([0.5, -0.5, -0.5, 0.5, 0.0, 0.0]) * math.sqrt(3)
    torch.testing.assert_close(result, torch.where(mask, level.unsqueeze(1), torch.zeros(mask.shape)))


def test_a_sample_without_an_answer_to_compare_is_neither_right_nor_wrong() -> None:
    right, wrong, unknown = as_sample(0, "#### 10"), as_sample(0, "#### 11"), as_sample(0, "many.")
    assert unknown.trace.correct is None
    traces = [right, wrong, unknown]
    mask = collate(traces, ENCODER.pad_id).response_mask
    result = outcome_advantages(traces, torch.tensor([0, 0, 0]), mask)
    # of 1 and 0 alone: mean 1/2, squares 2 * 1/4, over 1: std sqrt(1/2); +-(1/2) sqrt 2, and 0 for the third
    level = torch.tensor([0.5, -0.5, 0.0]) * math.sqrt(2)
    torch.testing.assert_close(result, torch.where(mask, level.unsqueeze(1), torch.zeros(mask.shape)))
    counted = outcome_advantages(traces, torch.tensor([0, 0, 0]), mask, "wrong")
    # 1, 0, 0: mean 1/3, squares 4/9 + 2 * 1/9 = 2/3, over 2: std sqrt(1/3); 2/3 sqrt 3 and twice -1/3 sqrt 3
    level = torch.tensor([2 / 3, -1 / 3, -1 / 3]) * math.sqrt(3)
    torch.testing.assert_close(counted, torch.where(mask, level.unsqueeze(1), torch.zeros(mask.shape)))
    assert rollout_metrics(traces, World())["rollout/unknown"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("method", ["irl", "grpo"])
def test_what_is_worse_than_its_group_weighs_less_where_that_is_asked_for(method: str) -> None:
    groups = [Group(TRACES[0], (as_sample(0, "#### 10"), as_sample(0, "9 + 1 = 11\n#### 11")))]
    policy = {"expert_in_group": False, "advantage": "trace"}
    whole = tiny_trainer(config(run={"method": method}, policy=policy)).score(groups)
    part = tiny_trainer(config(run={"method": method}, policy=policy | {"negative_weight": 0.25})).score(groups)
    below = whole.advantages < 0
    assert below.any() and (whole.advantages > 0).any()
    expected = torch.where(below, whole.advantages / 4, whole.advantages)
    torch.testing.assert_close(part.advantages, expected)


def test_the_setting_of_unknown_answers_reaches_grpo() -> None:
    groups = [Group(TRACES[0], (as_sample(0, "#### 10"), as_sample(0, "many.")))]
    policy = {"expert_in_group": False}
    left_out = tiny_trainer(config(run={"method": "grpo"}, policy=policy)).score(groups).advantages
    policy |= {"unknown_answer": "wrong"}
    wrong = tiny_trainer(config(run={"method": "grpo"}, policy=policy)).score(groups).advantages
    assert not left_out.any() and wrong[1].min() < 0 < wrong[0].max()


# --------------------------------------------------------------------------------------- the policy's update


def mean_logprob(trainer: AdversarialTrainer, trace: EncodedTrace) -> float:
    return completion_logprobs(trainer.policy.model, collate([trace], ENCODER.pad_id)).mean().item()


def test_the_update_raises_what_has_an_advantage() -> None:
    trainer = tiny_trainer()
    good, bad = TRACES[2], as_sample(2, DRAFTS[2][1])
    mask = collate([good, bad], ENCODER.pad_id).response_mask
    scored = ScoredBatch([good, bad], mask, torch.tensor([[1.0], [-1.0]]).expand(mask.shape) * mask)
    before = mean_logprob(trainer, good), mean_logprob(trainer, bad)
    metrics = trainer.update_policy(scored)
    assert mean_logprob(trainer, good) > before[0]
    assert mean_logprob(trainer, bad) < before[1]
    # ratio 1: minus the mean of 1 and -1
    assert metrics["policy/loss"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["policy/advantage_abs"] == 1.0


def test_one_update_clips_nothing_and_a_second_large_one_does() -> None:
    once = tiny_trainer(learning_rate=1.0)
    assert once.update_policy(once.score(drafts()))["policy/clip_fraction"] == 0.0
    twice = tiny_trainer(config(policy={"updates_per_round": 2}), learning_rate=1.0)
    assert twice.update_policy(twice.score(drafts()))["policy/clip_fraction"] > 0.0


def test_kl_to_itself_costs_nothing_and_holds_back_later() -> None:
    trainer = tiny_trainer(config(policy={"kl_coefficient": 5.0}))
    trainer.reference = copy.deepcopy(trainer.policy.model).requires_grad_(False)
    free = tiny_trainer()
    scored = trainer.score(drafts())
    assert trainer.update_policy(scored)["policy/loss"] == pytest.approx(free.update_policy(scored)["policy/loss"])
    assert trainer.update_policy(scored)["policy/loss"] > free.update_policy(scored)["policy/loss"]


def test_kl_to_itself_costs_nothing_at_another_temperature() -> None:
    trainer = tiny_trainer(config(policy={"kl_coefficient": 1.0, "temperature": 0.5}))
    free = tiny_trainer(config(policy={"temperature": 0.5}))
    trainer.reference = copy.deepcopy(trainer.policy.model).requires_grad_(False)
    scored = trainer.score(drafts())
    assert trainer.update_policy(scored)["policy/loss"] == pytest.approx(free.update_policy(scored)["policy/loss"])


@pytest.mark.parametrize("section", ["policy", "discriminator"])
def test_a_gradient_norm_of_zero_which_would_freeze_the_model_is_refused(section: str) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\.max_grad_norm is 0.0; it must lie in \(0"):
        TrainConfig.from_dict({section: {"max_grad_norm": 0.0}})


# --------------------------------------------------------------------------------------------------- metrics


def test_rollout_metrics_by_hand() -> None:
    groups = [
        Group(TRACES[0], (as_sample(0, "#### 10"), as_sample(0, "#### 11"))),
        Group(TRACES[2], (as_sample(2, "60 * 3", finished=False), as_sample(2, "#### 180", finished=False))),
    ]
    lengths = [len(sample.completion_ids) for group in groups for sample in group.samples]
    metrics = rollout_metrics(samples_of(groups), World())
    # one right; the cut-off 180 is not counted as right
    assert metrics == {
        "rollout/samples": 4, "rollout/correct": 0.25, "rollout/unknown": 0.0, "rollout/truncated": 0.5,
        "rollout/length": sum(lengths) / 4,
        "rollout/tokens": sum(lengths),
    }  # fmt: skip


def test_class_metrics_by_hand() -> None:
    metrics = class_metrics([(0, 2.0), (0, -1.0), (1, -3.0)], World())
    assert metrics == {
        "disc/reward_expert": 0.5,
        "disc/accuracy_expert": 0.5,
        "disc/reward_policy": -3.0,
        "disc/accuracy_policy": 1.0,
    }


def test_a_perturbation_is_made_of_the_same_problems_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def refuse(trace: Any, rng: random.Random, kinds: tuple[str, ...]) -> Perturbation | None:
        seen.append(trace.text)
        assert kinds == ("swap_answer",)
        return None

    monkeypatch.setattr(negatives, "perturb", refuse)
    trainer = tiny_trainer(config(discriminator={"perturbations": ("swap_answer",)}))
    assert classes(examples_of(trainer, drafts())) == ["expert"] * 4 + ["policy"] * 4
    assert seen == [text for (problem, draft) in DRAFTS for text in (EXPERTS[problem][1], draft)]
