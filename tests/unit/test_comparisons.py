"""Rewards learned by comparing traces of one problem, and from outcomes: by hand, over micro-batches, with ties."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core.config import DiscriminatorConfig
from irl_core.distributed import World
from irl_core.errors import CheckpointError, ConfigError
from irl_core.models.batching import collate
from irl_core.models.token_alignment import check_same_tokens
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import IMPLICIT_SCALE, Discriminator, RewardHead, read_head
from irl_core.text.segmentation import make_trace
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.comparisons import Comparison, maximum_entropy, relativistic, trace_level
from irl_core.training.discriminator_step import comparisons_of, weigh
from irl_core.training.groups import Group
from irl_core.training.negatives import Example
from irl_core.types import EncodedTrace
from tests.tiny import (
    EXPERTS,
    changed,
    examples_of,
    expert_traces,
    pair_config,
    scores_by,
    tiny_model,
    tiny_tokenizer,
    tiny_trainer,
    update_discriminator_of,
)  # fmt: skip

ENCODER = TraceEncoder(tiny_tokenizer())
TRACES = expert_traces(ENCODER)
PAIR = [Comparison(0, (1, 2), (False, True), (True, True))]


def as_sample(problem: int, text: str, level: float = -1.0) -> EncodedTrace:
    """A text as if the policy had sampled it, every token with log-probability ``level``."""
    ids = ENCODER.encode(make_trace("p", text)).completion_ids
    question, _, answer = EXPERTS[problem]
    return ENCODER.encode(ENCODER.sampled_trace(question, ids, [level] * len(ids), reference_answer=answer))


GROUPS = [
    Group(TRACES[0], (as_sample(0, "There are 3 + 4 = 7 pens.\n#### 7"), as_sample(0, EXPERTS[0][1], -0.5)), 0),
    Group(TRACES[2], (as_sample(2, "60 * 3 = 180\n#### 180", -2.0), as_sample(2, "60 + 3 = 63\n#### 63")), 1),
]


def trainer(batch_tokens: int = 100_000, **discriminator: Any) -> AdversarialTrainer:
    config = changed(pair_config(), "discriminator", **{"perturbations": ()} | discriminator)
    return tiny_trainer(changed(config, "run", batch_tokens=batch_tokens))


# ------------------------------------------------------------------------------------------------- relativistic


def test_the_relativistic_loss_by_hand() -> None:
    # differences 2 and 1, margin 0.5: softplus(-1.5) = 0.201413; tie: softplus(-1.5) + softplus(0.5) = 1.175490
    loss = relativistic(torch.tensor([3.0, 1.0, 2.0]), PAIR, 0.5)
    assert loss.item() == pytest.approx((0.201413 + 1.175490) / 2, abs=1e-5)
    two = relativistic(torch.tensor([3.0, 1.0, 2.0, 0.0, 0.0]), [*PAIR, Comparison(3, (4,), (False,), (True,))], 0.0)
    # margin 0: softplus(-2), and the tie softplus(-1) + softplus(1); a pair of equals log 2
    first = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log1p(math.exp(1))) / 2
    assert two.item() == pytest.approx(first + math.log(2), abs=1e-5)


@pytest.mark.parametrize("margin", [0.2, 1.0])
def test_a_tie_is_what_is_left_of_both_wins(margin: float) -> None:
    # Rao and Kupper: P(win) = s(d - v), P(lose) = s(-d - v), P(tie) the rest; its slope is the loss's
    d = torch.tensor(0.7, requires_grad=True, dtype=torch.float64)
    rest = 1 - torch.sigmoid(d - margin) - torch.sigmoid(-d - margin)
    (wanted,) = torch.autograd.grad(-rest.log(), d)
    scores = torch.tensor([0.7, 0.0], requires_grad=True, dtype=torch.float64)
    relativistic(scores, [Comparison(0, (1,), (True,), (True,))], margin).backward()
    assert scores.grad is not None and scores.grad[0].item() == pytest.approx(wanted.item(), abs=1e-9)
    assert scores.grad.sum().item() == pytest.approx(0.0, abs=1e-12)


def test_a_tie_pulls_two_scores_together_and_a_win_apart() -> None:
    for tied, sign in ((True, 1.0), (False, -1.0)):
        scores = torch.tensor([2.0, 0.0], requires_grad=True)
        relativistic(scores, [Comparison(0, (1,), (tied,), (True,))], 0.5).backward()
        assert scores.grad is not None and sign * scores.grad[0] > 0


def test_demonstrations_are_compared_with_what_is_of_their_problem() -> None:
    examples = examples_of(trainer(policy_labels="from_departed_equation"), GROUPS)
    found = comparisons_of(examples)
    assert [(one.expert, one.others) for one in found] == [(0, (2, 3)), (1, (4, 5))]
    # the second sample of the first problem is the demonstration's text, the first of the second has its equation
    assert [one.tied for one in found] == [(False, True), (True, False)]
    assert comparisons_of(examples[:2]) == [] and comparisons_of(examples[2:]) == []
    perturbed = examples_of(trainer(perturbations=("offset_number",)), GROUPS)
    assert any(not all(one.sampled) for one in comparisons_of(perturbed))


# ------------------------------------------------------------------------------------------------------ maxent


def test_the_partition_function_by_hand() -> None:
    # a token: energies 1, 0, 0.5; log-probabilities -1, -1, -2: weighted 2, 1, 2.5
    scores, logprobs, lengths = (
        torch.tensor([2.0, 0.0, 2.0]),
        torch.tensor([-2.0, -4.0, -8.0]),
        torch.tensor([2.0, 4.0, 4.0]),
    )
    wanted = math.log(math.exp(2) + math.exp(1) + math.exp(2.5)) - 1
    assert maximum_entropy(scores, logprobs, lengths, PAIR, "cumulative").item() == pytest.approx(wanted, abs=1e-5)
    means = torch.tensor([1.0, 0.0, 0.5])  # a head that does not sum has them already
    assert maximum_entropy(means, logprobs, lengths, PAIR, "linear").item() == pytest.approx(wanted, abs=1e-5)


def test_an_unlikely_sample_stands_for_more_and_perturbed_copies_for_nothing() -> None:
    scores = torch.zeros(3, requires_grad=True)
    logprobs, lengths = torch.tensor([-1.0, -1.0, -3.0]), torch.ones(3)
    maximum_entropy(scores, logprobs, lengths, PAIR, "linear").backward()
    assert scores.grad is not None
    total = 2 * math.exp(1) + math.exp(3)
    expected = [math.exp(1) / total - 1, math.exp(1) / total, math.exp(3) / total]
    assert scores.grad.tolist() == pytest.approx(expected, abs=1e-6)
    without = torch.zeros(3, requires_grad=True)
    copies = [Comparison(0, (1, 2), (False, False), (True, False))]
    maximum_entropy(without, logprobs, lengths, copies, "linear").backward()
    assert without.grad is not None and without.grad[2] == 0.0


def test_maxent_needs_the_policys_tokens() -> None:
    with pytest.raises(ConfigError, match=r"discriminator\.loss is 'maxent', which weights samples by the policy's"):
        check_same_tokens("a", "b", "own", "maxent")
    check_same_tokens("a", "a", "own", "maxent")


# ---------------------------------------------------------------------------------------------- micro-batches


def gradient(loss: str, head: str, batch_tokens: int) -> tuple[Tensor, float]:
    made = trainer(batch_tokens, loss=loss, head=head, max_grad_norm=1e9, policy_labels="from_departed_equation")
    before = {name: value.detach().clone() for name, value in made.discriminator.model.named_parameters()}
    metrics = update_discriminator_of(made, examples_of(made, GROUPS))
    moved = [(before[name] - value).flatten() for name, value in made.discriminator.model.named_parameters()]
    return torch.cat(moved).detach() / 0.05, metrics["disc/loss"]


@pytest.mark.parametrize("head", ["linear", "cumulative"])
@pytest.mark.parametrize("loss", ["relativistic", "maxent"])
def test_a_step_is_the_gradient_of_the_whole_loss_however_it_is_divided(loss: str, head: str) -> None:
    whole, value = gradient(loss, head, 100_000)
    parts, same = gradient(loss, head, 60)
    torch.testing.assert_close(parts, whole, atol=2e-4, rtol=2e-3)
    assert same == pytest.approx(value, rel=1e-4)

    made = trainer(loss=loss, head=head, policy_labels="from_departed_equation")
    model, pair = made.discriminator.model, made.pair
    examples = examples_of(made, GROUPS)
    rows = pair.discriminator_batching.collate([one.encoded for one in examples])
    scores = trace_level(model(rows).logits, rows.response_mask, head)
    if loss == "relativistic":
        direct = relativistic(scores, comparisons_of(examples), 0.5) / 2
    else:
        logprobs = torch.tensor([float(one.logprobs.sum()) for one in pair.score([one.encoded for one in examples])])
        direct = maximum_entropy(scores, logprobs, rows.response_mask.sum(1), comparisons_of(examples), head) / 2
    assert direct.item() == pytest.approx(value, rel=1e-4)
    wanted = torch.autograd.grad(direct, list(model.parameters()), allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), wanted, strict=True)]
    torch.testing.assert_close(whole, torch.cat([one.flatten() for one in flat]), atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("loss", ["relativistic", "maxent"])
def test_updates_raise_the_demonstration_above_the_samples(loss: str) -> None:
    made = trainer(loss=loss, updates_per_round=12)
    examples = examples_of(made, [replace(GROUPS[0], samples=GROUPS[0].samples[:1]), GROUPS[1]])
    metrics = update_discriminator_of(made, examples)
    assert metrics["disc/reward_expert"] > metrics["disc/reward_policy"]


@pytest.mark.parametrize("loss", ["relativistic", "maxent"])
def test_without_anything_to_compare_the_reward_stays(loss: str) -> None:
    made = trainer(loss=loss)
    before = {name: value.clone() for name, value in made.discriminator.model.state_dict().items()}
    metrics = update_discriminator_of(made, [Example(TRACES[0]), Example(TRACES[1])])
    assert metrics["disc/loss"] == 0.0
    assert all(torch.equal(before[name], value) for name, value in made.discriminator.model.state_dict().items())


# ------------------------------------------------------------------------------------- outcomes, implicit reward


def test_outcomes_are_labels_of_right_and_wrong_samples_alone() -> None:
    settings = DiscriminatorConfig(loss="outcome", perturbations=())
    unknown = as_sample(0, "I do not know")
    examples = [Example(TRACES[0]), *(Example(one) for group in GROUPS for one in group.samples), Example(unknown)]
    batch = weigh(examples, settings, World())
    assert batch.classes.tolist() == [0, 1, 0, 0, 1, 2]  # right: the expert, and the samples that end in its answer
    assert batch.weights[:, 0].tolist() == pytest.approx([1 / 6, 1 / 4, 1 / 6, 1 / 6, 1 / 4, 0])
    assert batch.experts == 1


def test_the_implicit_reward_is_the_summed_log_ratio() -> None:
    head = RewardHead(4, "implicit")
    ratios, mask = torch.tensor([[1.0, -2.0, 5.0], [0.5, 0.5, 9.0]]), torch.tensor([[True] * 3, [True, True, False]])
    levels, start = head(torch.ones(2, 3, 4), torch.ones(2, 4), ratios, mask)
    expected = IMPLICIT_SCALE * torch.tensor([[1.0, -1.0, 4.0], [0.5, 1.0, 1.0]])
    torch.testing.assert_close(levels, expected)
    assert start.tolist() == [0.0, 0.0] and not any(p.requires_grad for p in head.parameters())


def test_a_model_against_itself_has_no_implicit_reward_and_another_has_its_log_ratio() -> None:
    policy = tiny_model(7)
    (alone,) = scores_by(Discriminator(tiny_model(7), "implicit", "policy"), TRACES[:1], policy)
    assert abs(alone.raw).max() < 1e-4
    (one,) = scores_by(Discriminator(tiny_model(8), "implicit", "policy"), TRACES[:1], policy)
    (own,) = scores_by(Discriminator(tiny_model(8), "linear"), TRACES[:1], tiny_model(8))
    wanted = IMPLICIT_SCALE * (own.logprobs - one.logprobs).cumsum()
    assert one.raw == pytest.approx(wanted, abs=1e-3)


def test_outcomes_teach_the_implicit_reward() -> None:
    made = trainer(loss="outcome", head="implicit", likelihood="policy", updates_per_round=30)
    examples = examples_of(made, GROUPS)
    update_discriminator_of(made, examples)
    rewards = {
        one.trace.text: float(reward.raw[-1])
        for one, reward in zip(
            (e.encoded for e in examples), made.pair.score([e.encoded for e in examples]), strict=True
        )
    }
    assert rewards["60 * 3 = 180\n#### 180"] > rewards["60 + 3 = 63\n#### 63"]


def test_an_implicit_head_needs_the_policys_likelihood() -> None:
    with pytest.raises(ValueError, match="an implicit head is the log-ratio to the policy, and likelihood is 'own'"):
        Discriminator(tiny_model(8), "implicit")
    with pytest.raises(ValueError, match="pass policy_logprobs"):
        Discriminator(tiny_model(8), "implicit", "policy")(collate(TRACES[:1], ENCODER.pad_id))


def test_a_checkpoint_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text('{"kind": "implicit", "likelihood": "own"}')
    with pytest.raises(CheckpointError, match="an implicit head is the log-ratio to the policy, not to own"):
        read_head(tmp_path)
    (tmp_path / "head.json").write_text('{"kind": "implicit", "likelihood": "policy"}')
    assert read_head(tmp_path) == ("implicit", "policy")


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"head": "implicit"},
            "discriminator.head is 'implicit', the log-ratio to the policy, and discriminator.likelihood",
        ),
        ({"loss": "relativistic", "replay": 0.5}, "discriminator.replay is 0.5, but the loss relativistic compares"),
        ({"loss": "maxent", "replay": 1.0}, "discriminator.replay is 1.0, but the loss maxent compares"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        DiscriminatorConfig(**settings)
    assert str(error.value).startswith(said)
