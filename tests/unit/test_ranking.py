"""Policy updates by ranking: the best of N by likelihood, and preference pairs; gradients too."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from irl_core.config import TrainConfig
from irl_core.models.batching import collate
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.training.grpo import GRPOTrainer
from irl_core.training.policy_step import PolicyTrainer, ScoredBatch
from irl_core.training.ranking import preferences, ranked
from tests.tiny import changed, expert_traces, pair_config, plain_learner, tiny_model, tiny_tokenizer, tiny_trainer

ENCODER = TraceEncoder(tiny_tokenizer())
TRACES = expert_traces(ENCODER)  # four, of about the same length
MASK = collate(TRACES, ENCODER.pad_id).response_mask


def config(update: str, **policy: Any) -> TrainConfig:
    return changed(pair_config(), "policy", update=update, **policy)


def trainer(update: str, **policy: Any) -> GRPOTrainer:
    """A policy with a start of other weights beside it."""
    made = tiny_trainer(changed(config(update, max_grad_norm=1e9, **policy), "run", method="grpo"))
    made.reference = tiny_model(9)
    return made


def batch(scores: list[float], groups: list[int]) -> ScoredBatch:
    ranking = ranked(torch.tensor(scores), torch.tensor(groups))
    return ScoredBatch(TRACES, MASK, torch.zeros(MASK.shape), 0, ranking)


def gradient(made: PolicyTrainer) -> dict[str, Tensor]:
    """What a step of size 1 by plain descent moved, less its sign: the gradient."""
    return {name: value.detach().clone() for name, value in made.policy.model.named_parameters()}


def step_of(made: PolicyTrainer, scored: ScoredBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient by which a step moves each weight, and what it logs."""
    made.policy = plain_learner(made.policy.model, 1.0)
    before = gradient(made)
    metrics = made.update_policy(scored)
    return {name: before[name] - after for name, after in gradient(made).items()}, metrics


def sums(model: Any) -> Tensor:
    """log p of each of the four traces."""
    values = completion_logprobs(model, collate(TRACES, ENCODER.pad_id))
    return (values * MASK).sum(1)


def assert_gradient(found: dict[str, Tensor], model: Any, loss: Tensor) -> None:
    wanted = torch.autograd.grad(loss, list(model.parameters()))
    for (name, value), want in zip(found.items(), wanted, strict=True):
        torch.testing.assert_close(value, want, atol=2e-5, rtol=2e-3, msg=lambda text, name=name: f"{name}: {text}")


# ------------------------------------------------------------------------------------------------- the ranking


def test_the_best_and_the_worst_of_each_group() -> None:
    found = ranked(torch.tensor([1.0, 3.0, 2.0, -1.0, -4.0]), torch.tensor([0, 0, 0, 1, 1]))
    assert found.best.tolist() == [0, 1, 0, 1, 0]
    assert found.worst.tolist() == [1, 0, 0, 0, 1]
    assert found.groups == 2 and found.used.tolist() == [True, True, False, True, True]


def test_ties_share_their_groups_weight() -> None:
    found = ranked(torch.tensor([5.0, 5.0, 1.0, 1.0, 1.0]), torch.tensor([4, 4, 4, 4, 4]))
    assert found.best.tolist() == [0.5, 0.5, 0, 0, 0]
    assert found.worst.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert found.groups == 1


@pytest.mark.parametrize("scores", [[2.0, 2.0, 2.0], [2.0, 2.00005, 2.0], [7.0]])
def test_equal_samples_and_a_single_one_teach_nothing(scores: list[float]) -> None:
    found = ranked(torch.tensor(scores), torch.zeros(len(scores), dtype=torch.long))
    assert found.groups == 0 and not found.used.any()


def test_a_trace_whose_score_is_unknown_is_neither_best_nor_worst() -> None:
    known = torch.tensor([True, True, False, False])
    found = ranked(torch.tensor([1.0, 0.0, 9.0, -9.0]), torch.zeros(4, dtype=torch.long), known)
    assert (found.best.tolist(), found.worst.tolist()) == ([1, 0, 0, 0], [0, 1, 0, 0])
    nobody = ranked(torch.tensor([1.0, 0.0]), torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool))
    assert nobody.groups == 0


# ------------------------------------------------------------------------------------------------- preferences


def test_preferences_by_hand() -> None:
    # one pair, beta 0.1, margins 3 and 1: -log sigmoid(0.2) = 0.598139; slope 0.1 * sigmoid(-0.2) = 0.0450166
    found = preferences(torch.tensor([3.0, 1.0]), ranked(torch.tensor([1.0, 0.0]), torch.tensor([0, 0])), 0.1)
    assert found.loss == pytest.approx(0.598139, abs=1e-6) and found.agreed == 1.0
    assert found.weights.tolist() == pytest.approx([0.0450166, -0.0450166], abs=1e-6)
    turned = preferences(torch.tensor([1.0, 3.0]), ranked(torch.tensor([1.0, 0.0]), torch.tensor([0, 0])), 0.1)
    assert turned.loss == pytest.approx(0.798139, abs=1e-6) and turned.agreed == 0.0  # softplus(0.2)


def test_pairs_stay_within_their_problem_and_ties_share_one_pairs_weight() -> None:
    ranking = ranked(torch.tensor([2.0, 2.0, 1.0, 9.0, 9.0]), torch.tensor([0, 0, 0, 1, 1]))
    found = preferences(torch.zeros(5), ranking, 1.0)
    # two pairs of weight a half each, at margin 0: slope 1/2 * 1/2; the group of equals has none
    assert found.weights.tolist() == pytest.approx([0.25, 0.25, -0.5, 0, 0])
    assert found.loss == pytest.approx(math.log(2))


def test_the_weights_are_less_the_gradient_of_the_loss() -> None:
    margins = torch.tensor([0.3, -1.0, 2.0, 0.5, 0.1, -0.7], dtype=torch.float64)
    ranking = ranked(torch.tensor([1.0, 0.0, 0.0, 5.0, 5.0, 2.0]), torch.tensor([0, 0, 0, 1, 1, 1]))
    found, step = preferences(margins, ranking, 0.7), 1e-5
    for index in range(6):
        moved = [margins.clone(), margins.clone()]
        moved[0][index] += step
        moved[1][index] -= step
        up, down = (preferences(one, ranking, 0.7).loss for one in moved)
        assert found.weights[index].item() == pytest.approx(-(up - down) / (2 * step), abs=1e-5)


# ----------------------------------------------------------------------------------------------------- updates


@pytest.mark.parametrize("batch_tokens", [100_000, 60])  # all in one micro-batch, and each alone
def test_best_of_n_is_the_likelihood_of_the_best(batch_tokens: int) -> None:
    made = trainer("best_of_n")
    made.config = changed(made.config, "run", batch_tokens=batch_tokens)
    model = copy.deepcopy(made.policy.model)
    found, metrics = step_of(made, batch([1.0, 0.0, 3.0, 3.0], [0, 0, 1, 1]))  # the second group teaches nothing
    loss = -sums(model)[0] / MASK[0].sum()
    assert_gradient(found, model, loss)
    assert metrics["policy/loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["rollout/chosen_correct"] == 1.0 and "policy/clip_fraction" not in metrics


def test_best_of_n_is_the_mean_over_problems_that_teach() -> None:
    made = trainer("best_of_n")
    model = copy.deepcopy(made.policy.model)
    found, _ = step_of(made, batch([1.0, 0.0, 2.0, 3.0], [0, 0, 1, 1]))
    each = sums(model) / MASK.sum(1)
    assert_gradient(found, model, -(each[0] + each[3]) / 2)


@pytest.mark.parametrize("batch_tokens", [100_000, 60])
@pytest.mark.parametrize("likelihood", [0.0, 0.7])
def test_preferences_are_dpo_with_the_best_ones_likelihood(batch_tokens: int, likelihood: float) -> None:
    made = trainer("preferences", preference_beta=0.05, preference_likelihood=likelihood)
    made.config = changed(made.config, "run", batch_tokens=batch_tokens)
    model = copy.deepcopy(made.policy.model)
    found, metrics = step_of(made, batch([1.0, 0.0, 2.0, 3.0], [0, 0, 1, 1]))
    with torch.no_grad():
        start = sums(made.reference)
    margins, each = sums(model) - start, sums(model) / MASK.sum(1)
    losses = [-torch.nn.functional.logsigmoid(0.05 * (margins[w] - margins[v])) for w, v in ((0, 1), (3, 2))]
    preference = torch.stack(losses).mean()
    assert_gradient(found, model, preference - likelihood * (each[0] + each[3]) / 2)
    assert metrics["policy/preference_loss"] == pytest.approx(preference.item(), rel=1e-4)
    prefers = [float(margins[w] > margins[v]) for w, v in ((0, 1), (3, 2))]
    assert metrics["policy/preference_agreed"] == pytest.approx(sum(prefers) / 2)


@pytest.mark.parametrize("update", ["best_of_n", "preferences"])
def test_where_no_problem_teaches_the_policy_stays(update: str) -> None:
    made = trainer(update)
    found, metrics = step_of(made, batch([2.0, 2.0, 1.0, 1.0], [0, 0, 1, 1]))
    assert all(not value.any() for value in found.values())
    assert metrics["policy/loss"] == 0.0 and "rollout/chosen_correct" not in metrics


@pytest.mark.parametrize("update", ["best_of_n", "preferences"])
def test_updates_by_ranking_raise_the_best_above_the_worst(update: str) -> None:
    made = trainer(update, updates_per_round=6, preference_beta=0.5)
    before = sums(made.policy.model).detach()
    made.policy = plain_learner(made.policy.model, 0.05)
    made.update_policy(batch([1.0, 0.0, 3.0, 2.0], [0, 0, 1, 1]))
    gain = sums(made.policy.model).detach() - before
    assert gain[0] > gain[1] and gain[2] > gain[3]


def test_preferences_start_at_log_two_where_the_reference_is_the_policy() -> None:
    made = trainer("preferences")
    made.reference = copy.deepcopy(made.policy.model)
    _, metrics = step_of(made, batch([1.0, 0.0, 2.0, 3.0], [0, 0, 1, 1]))
    assert metrics["policy/preference_loss"] == pytest.approx(math.log(2), abs=1e-6)


# ------------------------------------------------------------------------------------------------- what ranks


@pytest.mark.parametrize("update", ["best_of_n", "preferences"])
def test_the_reward_ranks_and_with_outcomes_correctness(update: str) -> None:
    learned = tiny_trainer(config(update, trace_score="minimum", expert_in_group=False))
    groups = learned.sample_groups(TRACES)
    scored = learned.score(groups)
    lowest = torch.tensor([float(one.raw.min()) for one in learned.rewards])
    for number in range(4):
        rows = slice(3 * number, 3 * number + 3)
        best = scored.ranking.best[rows]
        assert best.sum().item() in (0.0, pytest.approx(1.0))
        assert not best.any() or lowest[rows][best.argmax()] == lowest[rows].max()

    outcomes = trainer(update)
    (right, wrong, unknown), rest = groups[0].samples, groups[1:]
    graded = [
        replace(one, trace=replace(one.trace, correct=value))
        for one, value in ((right, True), (wrong, False), (unknown, None))
    ]
    scored = outcomes.score([replace(groups[0], samples=tuple(graded))])
    assert len(rest) == 3 and (scored.ranking.best[:3].tolist(), scored.ranking.worst[:3].tolist()) == (
        ([1, 0, 0], [0, 1, 0]) if not outcomes.config.policy.expert_in_group else ([0.5, 0, 0], [0, 1, 0])
    )


@pytest.mark.parametrize("update", ["best_of_n", "preferences"])
def test_a_round_with_a_learned_reward(update: str) -> None:
    made = tiny_trainer(config(update))
    made.reference = tiny_model(7)
    before = gradient(made)
    metrics = made.round(TRACES)
    assert any(not torch.equal(before[name], after) for name, after in gradient(made).items())
    assert {"policy/loss", "policy/grad_norm", "disc/loss", "rollout/zero_spread_groups"} <= metrics.keys()
    assert ("policy/preference_loss" in metrics) == (update == "preferences")
