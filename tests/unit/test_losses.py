"""Losses by hand, and the promise that the losses of micro-batches add up to the full batch's (fault 7)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from irl_core.training import losses

LOG2 = math.log(2.0)


def mask_of(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def random_batch(seed: int = 0, rows: int = 6, width: int = 7) -> tuple[Tensor, Tensor]:
    """Values and a right-padded mask with at least one token a row."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, width, generator=generator)
    lengths = torch.randint(1, width + 1, (rows, 1), generator=generator)
    return values, torch.arange(width).unsqueeze(0) < lengths


# --------------------------------------------------------------------------------------------- targets


def test_targets_of_expert_policy_and_perturbed_traces() -> None:
    mask = torch.ones(3, 3, dtype=torch.bool)
    targets = losses.token_targets(torch.tensor([True, False, False]), mask, torch.tensor([0, 0, 2]))
    # expert everywhere; policy nowhere; perturbed: the expert's until token 2
    torch.testing.assert_close(targets, torch.tensor([[0.95] * 3, [0.05] * 3, [0.95, 0.95, 0.05]]))


def test_targets_take_the_smoothing_they_are_given() -> None:
    arguments = torch.tensor([False]), mask_of([[1, 1]]), torch.tensor([1])
    assert losses.token_targets(*arguments, expert=1.0, other=0.0).tolist() == [[1.0, 0.0]]


def test_the_departure_of_an_expert_trace_is_ignored() -> None:
    targets = losses.token_targets(torch.tensor([True]), mask_of([[1, 1]]), torch.tensor([1]), expert=1.0)
    assert targets.tolist() == [[1.0, 1.0]]


# -------------------------------------------------------------------------------- discriminator: golden


def test_token_weights_spread_each_part_of_a_trace_over_its_tokens() -> None:
    segments = torch.tensor([[0.2, 0.4], [0.0, 0.4]])
    expert = mask_of([[1, 1, 0, 0], [0, 0, 0, 0]])
    weights = losses.token_weights(segments, mask_of([[1, 1, 1, 0], [1, 1, 1, 1]]), expert)
    torch.testing.assert_close(weights, torch.tensor([[0.1, 0.1, 0.4, 0.0], [0.1, 0.1, 0.1, 0.1]]))


def test_bce_is_the_weighted_sum_over_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0], [math.log(3.0), 9.0, 9.0]])
    targets = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    loss = losses.discriminator_bce(logits, targets, torch.tensor([[0.125, 0.125, 0.0], [0.75, 0.0, 0.0]]))
    # trace 1: log 2 at both tokens; trace 2: D = 3/4, -log(1 - 3/4) = log 4. 0.25 log 2 + 0.75 * 2 log 2
    assert loss.item() == pytest.approx(1.75 * LOG2)


def test_bce_against_a_smoothed_target() -> None:
    # D = 1/2 costs log 2 whatever the target; at logit 1 and target 0.95: log(1 + e) - 0.95
    weights, target = torch.tensor([[1.0]]), torch.tensor([[0.95]])
    assert losses.discriminator_bce(torch.zeros(1, 1), target, weights).item() == pytest.approx(LOG2)
    expected = math.log(1 + math.e) - 0.95
    assert losses.discriminator_bce(torch.ones(1, 1), target, weights).item() == pytest.approx(expected)


def test_sequence_bce_reads_the_last_valid_token() -> None:
    logits = torch.tensor([[5.0, 0.0, 7.0], [0.0, 0.0, math.log(3.0)]])
    loss = losses.sequence_bce(
        logits, mask_of([[1, 1, 0], [1, 1, 1]]), torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])
    )
    # logit 0: log 2; logit log 3: D = 3/4, -log 3/4 = log 4/3
    assert loss.item() == pytest.approx(0.5 * LOG2 + 0.5 * math.log(4 / 3))


def test_wasserstein_falls_as_expert_tokens_rise() -> None:
    logits = torch.tensor([[2.0, 4.0], [1.0, 50.0]], requires_grad=True)
    expert = torch.tensor([[True, True], [False, False]])
    loss = losses.wasserstein(logits, expert, torch.tensor([[0.25, 0.25], [0.5, 0.0]]))
    # 0.5 * -(2 + 4) / 2 + 0.5 * 1 = -1
    assert loss.item() == -1.0
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-0.25, -0.25], [0.5, 0.0]]


def test_gradient_penalty_of_a_linear_critic() -> None:
    # score_t = w . x_t with w = (3, 4): the gradient is w at every kept token and 0 elsewhere, so its norm over a
    # trace of n tokens is 5 sqrt(n): (5 - 1)^2 = 16 for one, (5 sqrt 2 - 1)^2 = 51 - 10 sqrt 2 for two
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    inputs = torch.randn(2, 2, 2, requires_grad=True)
    penalty = losses.gradient_penalty(inputs @ weight, inputs, mask_of([[1, 0], [1, 1]]))
    assert penalty.item() == pytest.approx((16 + 51 - 10 * math.sqrt(2)) / 2, rel=1e-5)
    # it trains the critic: one token a trace, d/dw (|w| - 1)^2 = 2 (5 - 1) w / 5
    losses.gradient_penalty(inputs @ weight, inputs, mask_of([[1, 0], [1, 0]])).backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([4.8, 6.4]))


def test_clipping_weights_is_in_place() -> None:
    parameter = torch.nn.Parameter(torch.tensor([-3.0, 0.005, 2.0]))
    losses.clip_weights([parameter], 0.01)
    torch.testing.assert_close(parameter.detach(), torch.tensor([-0.01, 0.005, 0.01]))


# ---------------------------------------------------------------------------------------------- weights


def test_balanced_weights_by_hand() -> None:
    weights = losses.balanced_weights(torch.tensor([0, 1, 1, 1, 2]), {0: 2.0, 1: 1.0, 2: 1.0})
    # shares 2/4, 1/4, 1/4; the policy's over three traces
    torch.testing.assert_close(weights, torch.tensor([0.5, 1 / 12, 1 / 12, 1 / 12, 0.25]))


def test_a_class_that_is_absent_gives_its_share_to_the_others() -> None:
    weights = losses.balanced_weights(torch.tensor([0, 1, 1]), {0: 1.0, 1: 1.0, 2: 8.0})
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25, 0.25]))


def test_a_class_of_weight_zero_is_left_out() -> None:
    assert losses.balanced_weights(torch.tensor([0, 2]), {0: 1.0, 2: 0.0}).tolist() == [1.0, 0.0]


def test_weights_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match=r"no weight for trace class 3; class_weights has \[0, 1\]"):
        losses.balanced_weights(torch.tensor([0, 3]), {0: 1.0, 1: 1.0})
    with pytest.raises(ValueError, match=r"\(\[1\]\) sum to 0.0; one must be positive"):
        losses.balanced_weights(torch.tensor([1, 1]), {0: 1.0, 1: 0.0})


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.tuples(*[st.floats(0.1, 9)] * 3))
def test_weights_sum_to_one_whatever_the_batch_holds(classes: list[int], shares: tuple[float, float, float]) -> None:
    weights = losses.balanced_weights(torch.tensor(classes), dict(enumerate(shares)))
    assert weights.sum().item() == pytest.approx(1.0, abs=1e-5)
    total = sum(shares[one] for one in set(classes))
    for one in set(classes):
        assert weights[torch.tensor(classes) == one].sum().item() == pytest.approx(shares[one] / total, abs=1e-5)


def test_segment_weights_by_hand() -> None:
    classes, lengths, departures = torch.tensor([0, 1, 1, 2]), torch.tensor([5, 4, 4, 6]), torch.tensor([0, 0, 1, 3])
    weights = losses.segment_weights(classes, lengths, departures, {0: 2.0, 1: 1.0, 2: 1.0})
    # expert parts (trace 0, the starts of 2 and 3): 2/4 over three; policy parts: 1/4 over two; perturbed: 1/4
    torch.testing.assert_close(weights, torch.tensor([[1 / 6, 0.0], [0.0, 0.125], [1 / 6, 0.125], [1 / 6, 0.25]]))


def test_without_departures_segment_weights_are_those_of_whole_traces() -> None:
    classes, shares = torch.tensor([0, 1, 1, 2]), {0: 2.0, 1: 1.0, 2: 1.0}
    weights = losses.segment_weights(classes, torch.full((4,), 3), torch.zeros(4, dtype=torch.long), shares)
    torch.testing.assert_close(weights.sum(1), losses.balanced_weights(classes, shares))
    assert weights[0, 1] == 0 and weights[1:, 0].eq(0).all()


def test_a_trace_that_never_departs_is_the_experts() -> None:
    # a departure at or behind the end: no part of its own class
    weights = losses.segment_weights(
        torch.tensor([0, 1, 1]), torch.tensor([3, 2, 4]), torch.tensor([0, 9, 0]), {0: 1.0, 1: 1.0}
    )
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.0], [0.25, 0.0], [0.0, 0.5]]))


def test_balanced_places_by_hand() -> None:
    weights = torch.tensor([[0.3, 0.1, 0.1], [0.1, 0.4, 0.0]])
    expert, places = mask_of([[1, 1, 0], [0, 0, 0]]), torch.tensor([[0, 1, 1], [0, 1, 1]])
    balanced = losses.balance_places(weights, expert, places)
    # place 0: 0.3 against 0.1, each times the other's share: 0.3 / 4 = 0.1 * 3 / 4; place 1: 0.1 against 0.1 + 0.4,
    # 0.1 * 5 / 6 = 0.5 / 6, of which the second row has four fifths. All over 2 (0.075 + 1 / 12) = 19 / 60
    expected = torch.tensor([[0.075, 1 / 12, 1 / 60], [0.075, 4 / 60, 0.0]]) * 60 / 19
    torch.testing.assert_close(balanced, expected)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.floats(0.01, 1)), min_size=1, max_size=30))
def test_after_balancing_both_classes_weigh_the_same_at_each_place(tokens: list[tuple[bool, int, float]]) -> None:
    expert, places = torch.tensor([[t[0] for t in tokens]]), torch.tensor([[t[1] for t in tokens]])
    weights = torch.tensor([[t[2] for t in tokens]])
    balanced = losses.balance_places(weights, expert, places)
    both = [p for p in range(4) if {True, False} <= {e for e, place, _ in tokens if place == p}]
    assert balanced.sum().item() == pytest.approx(weights.sum().item() if both else 0.0, rel=1e-4)
    for place in range(4):
        sums = [balanced[(places == place) & (expert == kind)].sum().item() for kind in (True, False)]
        assert sums[0] == pytest.approx(sums[1], rel=1e-3, abs=1e-6)
        assert (sums[0] > 0) == (place in both)


# ----------------------------------------------------------------------------------------------- policy


def test_the_surrogate_at_ratio_one_has_the_policy_gradient() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -9.0], [-0.5, -0.1, -3.0]], requires_grad=True)
    advantages = torch.tensor([[2.0, -4.0, 100.0], [3.0, 0.0, 6.0]])
    loss, share = losses.clipped_surrogate(
        logprobs, logprobs.detach(), advantages, mask_of([[1, 1, 0], [1, 1, 1]]), clip_eps=0.2, num_traces=4
    )
    # values: -((2 - 4) / 2 + (3 + 0 + 6) / 3) / 4 = -(-1 + 3) / 4
    assert loss.item() == pytest.approx(-0.5)
    assert share.item() == 0.0
    loss.backward()
    # d/dlogp = ratio = 1: -advantage / length / 4
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-0.25, 0.5, 0.0], [-0.25, 0.0, -0.5]]))


def test_an_advantage_of_zero_is_a_token_of_the_mean() -> None:
    # fault 4: the mean is over three tokens, (3 + 0 + 0) / 3 = 1, not over the one that is not zero
    arguments = torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([[3.0, 0.0, 0.0]]), mask_of([[1, 1, 1]])
    loss, _ = losses.clipped_surrogate(*arguments, clip_eps=0.2, num_traces=1)
    assert loss.item() == -1.0


def test_clipping_is_pessimistic_on_both_sides() -> None:
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]])
    logprobs = ratio.log().requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    loss, share = losses.clipped_surrogate(
        logprobs, torch.zeros(1, 4), advantages, mask_of([[1, 1, 1, 1]]), clip_eps=0.2, num_traces=1
    )
    # min(1.5, 1.2) + min(-1.5, -1.2) + min(0.5, 0.8) + min(-0.5, -0.8) = 1.2 - 1.5 + 0.5 - 0.8 = -0.6; / -4
    assert loss.item() == pytest.approx(0.15)
    assert share.item() == 1.0
    loss.backward()
    # a clipped side has no gradient; the others -ratio * A / 4
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, 0.375, -0.125, 0.0]]))


def test_the_clipped_share_is_of_kept_tokens() -> None:
    logprobs = torch.tensor([[0.0, 1.0, 5.0, 5.0]])
    _, share = losses.clipped_surrogate(
        logprobs, torch.zeros(1, 4), torch.ones(1, 4), mask_of([[1, 1, 0, 0]]), clip_eps=0.2, num_traces=1
    )
    assert share.item() == 0.5


def test_kl_by_hand() -> None:
    # d = log 2 - 0 = log 2: 2 - log 2 - 1; d = 0: 0. Mean over two tokens, over two traces
    result = losses.kl_to_reference(
        torch.zeros(1, 3), torch.tensor([[LOG2, 0.0, 40.0]]), mask_of([[1, 1, 0]]), num_traces=2
    )
    assert result.item() == pytest.approx((1 - LOG2) / 4)


@given(st.lists(st.tuples(st.floats(-20, 0), st.floats(-20, 0)), min_size=1, max_size=8))
def test_kl_is_never_negative(pairs: list[tuple[float, float]]) -> None:
    own, other = torch.tensor(pairs, dtype=torch.float64).T.unsqueeze(1)
    mask = torch.ones(1, len(pairs), dtype=torch.bool)
    assert losses.kl_to_reference(own, other, mask, num_traces=1).item() >= -1e-12
    assert losses.kl_to_reference(own, own, mask, num_traces=1).item() == 0.0


def test_negative_log_likelihood_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -70.0], [-3.0, -70.0, -70.0]])
    assert losses.negative_log_likelihood(logprobs, mask_of([[1, 1, 0], [1, 0, 0]]), num_tokens=3).item() == 2.0


# --------------------------------------------------------------------- micro-batches and masked positions

TARGETS = losses.token_targets(
    torch.tensor([True, False, False, True, False, False]), random_batch()[1], torch.tensor([0, 0, 2, 0, 1, 0])
)
WEIGHTS = losses.balanced_weights(torch.tensor([0, 1, 2, 0, 2, 1]), {0: 2.0, 1: 1.0, 2: 1.0})
TOKEN_WEIGHTS = losses.token_weights(torch.stack([WEIGHTS, WEIGHTS], 1), random_batch()[1], TARGETS > 0.5)
SECOND = torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
Loss = Callable[[Tensor, Tensor, list[int]], Tensor]
LOSSES: dict[str, Loss] = {
    "bce": lambda x, mask, rows: losses.discriminator_bce(x, TARGETS[rows], TOKEN_WEIGHTS[rows]),
    "wasserstein": lambda x, mask, rows: losses.wasserstein(x, TARGETS[rows] > 0.5, TOKEN_WEIGHTS[rows]),
    "sequence": lambda x, mask, rows: losses.sequence_bce(x, mask, TARGETS[rows, 0], WEIGHTS[rows]),
    "surrogate": lambda x, mask, rows: losses.clipped_surrogate(
        x, x.detach() + 0.1, SECOND[rows], mask, clip_eps=0.2, num_traces=6
    )[0],
    "kl": lambda x, mask, rows: losses.kl_to_reference(x, SECOND[rows], mask, num_traces=6),
    "nll": lambda x, mask, rows: losses.negative_log_likelihood(x, mask, num_tokens=int(random_batch()[1].sum())),
}


def loss_and_gradient(name: str, values: Tensor, mask: Tensor, parts: list[list[int]]) -> tuple[float, Tensor]:
    leaf = values.clone().requires_grad_()
    total = 0.0
    for rows in parts:
        loss = LOSSES[name](leaf[rows], mask[rows], rows)
        loss.backward()
        total += loss.item()
    assert leaf.grad is not None
    return total, leaf.grad


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=15)
@given(st.permutations(range(6)), st.lists(st.integers(1, 5), max_size=3, unique=True))
def test_micro_batches_add_up_to_the_full_batch(name: str, order: list[int], cuts: list[int]) -> None:
    values, mask = random_batch()
    edges = [0, *sorted(cuts), 6]
    parts = [order[a:b] for a, b in itertools.pairwise(edges)]
    whole, whole_gradient = loss_and_gradient(name, values, mask, [list(range(6))])
    total, gradient = loss_and_gradient(name, values, mask, parts)
    assert total == pytest.approx(whole, abs=1e-6)
    torch.testing.assert_close(gradient, whole_gradient, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_masked_positions_move_neither_the_loss_nor_a_gradient(name: str, poison: float) -> None:
    values, mask = random_batch()
    everything = [list(range(6))]
    clean = loss_and_gradient(name, values.masked_fill(~mask, 0.0), mask, everything)
    dirty = loss_and_gradient(name, values.masked_fill(~mask, poison), mask, everything)
    assert dirty[0] == clean[0]
    torch.testing.assert_close(dirty[1], clean[1], rtol=0, atol=0)
    assert dirty[1][~mask].eq(0.0).all()


def test_a_masked_advantage_does_not_matter() -> None:
    logprobs = torch.zeros(1, 2, requires_grad=True)
    advantages = torch.tensor([[1.0, math.nan]])
    loss, _ = losses.clipped_surrogate(
        logprobs, torch.zeros(1, 2), advantages, mask_of([[1, 0]]), clip_eps=0.2, num_traces=1
    )
    loss.backward()
    assert loss.item() == -1.0
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.0, 0.0]]


@pytest.mark.parametrize("name", ["bce", "wasserstein", "sequence"])
def test_logits_in_bfloat16_give_a_loss_in_float32(name: str) -> None:
    values, mask = random_batch()
    result = LOSSES[name](values.bfloat16(), mask, list(range(6)))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, LOSSES[name](values.bfloat16().float(), mask, list(range(6))))
