"""Rewards: the paper's equations by hand, the vectorised forms against plain loops, masks that really mask."""

from __future__ import annotations

import math
import os
import statistics
import threading
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from irl_core.reward import rewards
from irl_core.training import advantages

Rows = list[list[float]]


def mask_of(rows: list[list[int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.bool)


@st.composite
def masked_batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rewards ``(B, T)`` and any mask at all: holes, empty rows, padding on either side."""
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    number = st.floats(-20, 20, width=32)
    values = draw(st.lists(st.lists(number, min_size=width, max_size=width), min_size=height, max_size=height))
    kept = draw(st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=height, max_size=height))
    return torch.tensor(values), torch.tensor(kept)


# ------------------------------------------------------------------------------------------------ eq. 4


@pytest.mark.parametrize("logit", [-6.0, -1.5, 0.0, 0.3, 4.0])
def test_the_reward_is_the_logit(logit: float) -> None:
    # D = 1 / (1 + e^-x); log D - log(1 - D) = log(D / (1 - D)) = log(e^x) = x
    d = 1 / (1 + math.exp(-logit))
    reward = rewards.token_rewards(torch.tensor([[logit]], dtype=torch.float64))
    assert reward.dtype == torch.float32
    assert reward.item() == pytest.approx(math.log(d) - math.log(1 - d), abs=1e-5)


def test_an_extreme_logit_stays_finite() -> None:
    # sigmoid(200) is 1.0 in float32 and log(1 - 1) would be -inf: no round trip through the sigmoid
    assert rewards.token_rewards(torch.tensor([[200.0, -200.0]])).tolist() == [[200.0, -200.0]]


# ------------------------------------------------------------------------------------- group statistics


def test_statistics_over_the_last_token() -> None:
    raw = torch.tensor([[9.0, 1.0, 7.0], [3.0, 8.0, 5.0], [2.0, 4.0, 6.0]])
    mask = mask_of([[1, 1, 0], [1, 1, 1], [1, 1, 1]])
    mean, std = rewards.group_statistics(raw, mask, torch.tensor([4, 4, 4]), "last")
    # last valid tokens 1, 5, 6: mean 4, squared deviations 9 + 1 + 4 = 14, over n - 1 = 2: 7
    assert mean.tolist() == [4.0, 4.0, 4.0]
    torch.testing.assert_close(std, torch.full((3,), math.sqrt(7)))


def test_statistics_over_all_tokens() -> None:
    raw = torch.tensor([[1.0, 3.0, 99.0], [2.0, 6.0, 8.0]])
    mean, std = rewards.group_statistics(raw, mask_of([[1, 1, 0], [1, 1, 1]]), torch.tensor([0, 0]), "all")
    # 1, 3, 2, 6, 8: mean 20 / 5 = 4, squares 9 + 1 + 4 + 4 + 16 = 34, over 4: 8.5
    assert mean.tolist() == [4.0, 4.0]
    torch.testing.assert_close(std, torch.full((2,), math.sqrt(8.5)))


def test_groups_do_not_mix_whatever_their_order_and_ids() -> None:
    raw = torch.tensor([[1.0], [10.0], [3.0], [30.0]])
    mean, std = rewards.group_statistics(raw, mask_of([[1]] * 4), torch.tensor([7, -2, 7, -2]), "last")
    # group 7: 1, 3 -> mean 2, std sqrt(2); group -2: 10, 30 -> mean 20, std sqrt(200)
    assert mean.tolist() == [2.0, 20.0, 2.0, 20.0]
    torch.testing.assert_close(std, torch.tensor([2.0, 200.0, 2.0, 200.0]).sqrt())


def test_a_group_of_one_value_has_no_spread() -> None:
    mean, std = rewards.group_statistics(torch.tensor([[5.0]]), mask_of([[1]]), torch.tensor([0]), "last")
    assert (mean.item(), std.item()) == (5.0, 0.0)


@given(masked_batches(), st.data())
def test_statistics_equal_a_plain_loop(batch: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    raw, mask = batch
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(raw), max_size=len(raw)))
    for scope in ("last", "all"):
        mean, std = rewards.group_statistics(raw, mask, torch.tensor(groups), scope)
        for row, group in enumerate(groups):
            values: list[float] = []
            for other in range(len(raw)):
                kept = raw[other][mask[other]].tolist()
                if groups[other] == group:
                    values += kept[-1:] if scope == "last" else kept
            assert mean[row].item() == pytest.approx(statistics.fmean(values) if values else 0.0, abs=1e-4)
            expected = statistics.stdev(values) if len(values) > 1 else 0.0
            assert std[row].item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


# ------------------------------------------------------------------------------------------ standardise


def test_standardised_by_hand() -> None:
    raw = torch.tensor([[1.0, 5.0, 42.0]])
    result = rewards.standardise(raw, mask_of([[1, 1, 0]]), torch.tensor([3.0]), torch.tensor([0.5]))
    # (1 - 3) / 0.5 = -4; (5 - 3) / 0.5 = 4; masked: exactly 0
    assert result.tolist() == [[-4.0, 4.0, 0.0]]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -7.3, 12345.678])
def test_a_group_without_spread_is_exactly_zero(value: float) -> None:
    raw = torch.full((3, 4), value)
    mask = torch.ones(3, 4, dtype=torch.bool)
    for scope in ("last", "all"):
        mean, std = rewards.group_statistics(raw, mask, torch.zeros(3, dtype=torch.long), scope)
        assert rewards.standardise(raw, mask, mean, std).eq(0.0).all()


def test_one_group_without_spread_leaves_the_others_alone() -> None:
    raw = torch.tensor([[2.0], [2.0], [1.0], [3.0]])
    mask = mask_of([[1]] * 4)
    mean, std = rewards.group_statistics(raw, mask, torch.tensor([0, 0, 1, 1]))
    # group 1: mean 2, std sqrt(2): -1 / sqrt(2) and 1 / sqrt(2)
    expected = torch.tensor([[0.0], [0.0], [-math.sqrt(0.5)], [math.sqrt(0.5)]])
    torch.testing.assert_close(rewards.standardise(raw, mask, mean, std), expected)


# --------------------------------------------------------------------------------------------- discount


def test_discount_by_hand() -> None:
    raw = torch.tensor([[1.0, 2.0, 4.0, 77.0]])
    # A_3 = 4; A_2 = 2 + 0.5 * 4 = 4; A_1 = 1 + 0.5 * 4 = 3
    assert rewards.discount(raw, mask_of([[1, 1, 1, 0]]), 0.5).tolist() == [[3.0, 4.0, 4.0, 0.0]]


def test_discount_at_its_limits() -> None:
    raw, mask = torch.tensor([[1.0, 2.0, 4.0]]), mask_of([[1, 1, 1]])
    assert rewards.discount(raw, mask, 0.0).tolist() == [[1.0, 2.0, 4.0]]
    assert rewards.discount(raw, mask, 1.0).tolist() == [[7.0, 6.0, 4.0]]


@pytest.mark.parametrize("gamma", [-0.1, 1.1, math.nan])
def test_discount_refuses_gamma_outside_its_range(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma is .* \[0, 1\]"):
        rewards.discount(torch.ones(1, 2), mask_of([[1, 1]]), gamma)


def test_two_thousand_tokens_at_gamma_0_9_equal_the_plain_loop() -> None:
    # gamma^2000 is 3e-92, far below float32: a form that divides by it gives NaN or infinity
    raw = torch.randn(2, 2000, generator=torch.Generator().manual_seed(0))
    result = rewards.discount(raw, torch.ones(2, 2000, dtype=torch.bool), 0.9)
    assert result.isfinite().all()
    for row in range(2):
        running, expected = 0.0, []
        for value in reversed(raw[row].tolist()):
            running = value + 0.9 * running
            expected.append(running)
        torch.testing.assert_close(result[row], torch.tensor(expected[::-1]), atol=1e-4, rtol=1e-4)


@given(masked_batches(), st.floats(0, 1))
def test_discount_equals_a_plain_loop(batch: tuple[Tensor, Tensor], gamma: float) -> None:
    raw, mask = batch
    result = rewards.discount(raw, mask, gamma)
    for row in range(len(raw)):
        running = 0.0
        for t in reversed(range(raw.shape[1])):
            if mask[row, t]:
                running = raw[row, t].item() + gamma * running
            expected = running if mask[row, t] else 0.0
            assert result[row, t].item() == pytest.approx(expected, rel=1e-4, abs=1e-3)


# ----------------------------------------------------------------------------------------------- credit


def test_credit_by_hand() -> None:
    raw = torch.tensor([[1.0, 3.0, -2.0, 50.0]])
    # r_0 = 0.5: 1 - 0.5 = 0.5; 3 - 1 = 2; -2 - 3 = -5; masked 0
    result = rewards.credit(raw, mask_of([[1, 1, 1, 0]]), torch.tensor([0.5]))
    assert result.tolist() == [[0.5, 2.0, -5.0, 0.0]]


def test_credit_steps_over_a_hole() -> None:
    # the token after the hole is compared with the one before it: 4 - 1 = 3, not 4 - 99
    result = rewards.credit(torch.tensor([[1.0, 99.0, 4.0]]), mask_of([[1, 0, 1]]), torch.tensor([0.0]))
    assert result.tolist() == [[1.0, 0.0, 3.0]]


@given(masked_batches(), st.floats(-5, 5, width=32))
def test_credit_telescopes_to_the_last_level(batch: tuple[Tensor, Tensor], start: float) -> None:
    raw, mask = batch
    total = rewards.credit(raw, mask, torch.full((len(raw),), start)).sum(1)
    for row in range(len(raw)):
        kept = raw[row][mask[row]].tolist()
        assert total[row].item() == pytest.approx(kept[-1] - start if kept else 0.0, abs=1e-3)


# ----------------------------------------------------------------------------------------- trace scores


def test_trace_scores_by_hand() -> None:
    raw, mask, start = torch.tensor([[2.0, -1.0, 1.0, -50.0]]), mask_of([[1, 1, 1, 0]]), torch.tensor([0.5])

    def score(kind: rewards.TraceScore) -> float:
        return rewards.trace_score(raw, mask, kind, prompt_reward=start, gamma=0.5).item()

    # discounted: A_3 = 1; A_2 = -1 + 0.5 = -0.5; A_1 = 2 - 0.25 = 1.75; mean 2.25 / 3
    assert score("mean_discounted") == pytest.approx(0.75)
    assert score("mean") == pytest.approx(2 / 3)
    assert score("last") == 1.0
    assert score("minimum") == -1.0
    # log of 1 / ((1 + e^-2) (1 + e) (1 + e^-1))
    assert score("product") == pytest.approx(-math.log((1 + math.exp(-2)) * (1 + math.e) * (1 + math.exp(-1))))
    # credit: 1.5, -3, 2
    assert score("credit_sum") == pytest.approx(0.5)
    assert score("credit_minimum") == -3.0


def test_the_answer_scope_is_the_mask_of_the_answer() -> None:
    raw, answer = torch.tensor([[2.0, -1.0, 1.0]]), mask_of([[0, 0, 1]])
    assert rewards.trace_score(raw, answer, "mean").item() == 1.0


@pytest.mark.parametrize("kind", rewards.TRACE_SCORES)
def test_a_row_without_tokens_scores_zero(kind: rewards.TraceScore) -> None:
    raw = torch.tensor([[math.nan, math.inf]])
    assert rewards.trace_score(raw, mask_of([[0, 0]]), kind, prompt_reward=torch.tensor([3.0])).item() == 0.0


def test_trace_score_refuses_what_it_cannot_compute() -> None:
    raw, mask = torch.ones(1, 2), mask_of([[1, 1]])
    with pytest.raises(ValueError, match="unknown trace score 'median'; choose one of mean_discounted"):
        rewards.trace_score(raw, mask, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'credit_sum' needs prompt_reward"):
        rewards.trace_score(raw, mask, "credit_sum")


# -------------------------------------------------------------------- leave-one-out, soft minimum


def test_leave_one_out_by_hand() -> None:
    values, groups = torch.tensor([1.0, 2.0, 6.0, 10.0]), torch.tensor([0, 0, 0, 5])
    # (2 + 6) / 2 = 4; (1 + 6) / 2 = 3.5; (1 + 2) / 2 = 1.5; alone: 0
    assert advantages.leave_one_out_baseline(values, groups).tolist() == [4.0, 3.5, 1.5, 0.0]


def test_soft_minimum_by_hand() -> None:
    raw = torch.tensor([[0.0, math.log(3.0), 5.0]])
    # weights of e^0 = 1 and e^-log 3 = 1/3: 3/4 and 1/4; rewards 0 and log 3
    result = advantages.minimum_form(raw, mask_of([[1, 1, 0]]))
    torch.testing.assert_close(result, torch.tensor([[0.0, math.log(3.0) / 4, 0.0]]))


def test_soft_minimum_tends_to_the_minimum() -> None:
    raw, mask = torch.tensor([[3.0, -2.0, 1.0]]), mask_of([[1, 1, 1]])
    torch.testing.assert_close(advantages.minimum_form(raw, mask, 0.01).sum(1), torch.tensor([-2.0]))
    assert advantages.minimum_form(raw, mask_of([[0, 0, 0]])).eq(0).all()
    with pytest.raises(ValueError, match="temperature is 0; it must be positive"):
        advantages.minimum_form(raw, mask, 0)


@given(masked_batches(), st.floats(0.1, 5))
def test_soft_minimum_equals_a_plain_loop(batch: tuple[Tensor, Tensor], temperature: float) -> None:
    raw, mask = batch
    result = advantages.minimum_form(raw, mask, temperature)
    for row in range(len(raw)):
        kept = raw[row][mask[row]].tolist()
        weights = [math.exp(-(value - min(kept)) / temperature) for value in kept]
        expected = [weight / sum(weights) * value for weight, value in zip(weights, kept, strict=True)]
        assert result[row][mask[row]].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert result[row][~mask[row]].eq(0).all()


# -------------------------------------------------------------------------------------- masks in general

Signal = Callable[[Tensor, Tensor], Tensor]
START = torch.tensor([0.25, -0.5])
SIGNALS: dict[str, Signal] = {
    "discount": lambda raw, mask: rewards.discount(raw, mask, 0.9),
    "credit": lambda raw, mask: rewards.credit(raw, mask, START),
    "minimum_form": advantages.minimum_form,
    "last": lambda raw, mask: rewards.standardise(
        raw, mask, *rewards.group_statistics(raw, mask, torch.zeros(2, dtype=torch.long), "last")
    ),
    "all": lambda raw, mask: rewards.standardise(
        raw, mask, *rewards.group_statistics(raw, mask, torch.zeros(2, dtype=torch.long), "all")
    ),
} | {
    kind: lambda raw, mask, kind=kind: rewards.trace_score(raw, mask, kind, prompt_reward=START).unsqueeze(1)
    for kind in rewards.TRACE_SCORES
}


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e30])
def test_a_masked_value_never_matters(name: str, poison: float) -> None:
    raw = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.0, 1.5, -1.0, 2.0]])
    mask = mask_of([[1, 1, 0, 1], [0, 1, 1, 0]])
    clean, dirty = raw.masked_fill(~mask, 0.0), raw.masked_fill(~mask, poison)
    result = SIGNALS[name](dirty, mask)
    assert result.isfinite().all()
    torch.testing.assert_close(result, SIGNALS[name](clean, mask), rtol=0, atol=0)


@pytest.mark.parametrize("name", SIGNALS)
@settings(deadline=None, max_examples=20)
@given(st.data())
def test_padding_left_or_right_is_the_same(name: str, data: st.DataObject) -> None:
    rows = [data.draw(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=6)) for _ in range(2)]
    width = max(map(len, rows)) + data.draw(st.integers(0, 2))
    pads = [[123.0] * (width - len(row)) for row in rows]
    keep = [[1] * len(row) for row in rows]
    drop = [[0] * (width - len(row)) for row in rows]
    right = SIGNALS[name](
        torch.tensor([r + p for r, p in zip(rows, pads, strict=True)]),
        mask_of([k + d for k, d in zip(keep, drop, strict=True)]),
    )
    left = SIGNALS[name](
        torch.tensor([p + r for r, p in zip(rows, pads, strict=True)]),
        mask_of([d + k for k, d in zip(keep, drop, strict=True)]),
    )
    for number, row in enumerate(rows):
        if right.shape[1] == 1:
            torch.testing.assert_close(left[number], right[number])
        else:
            torch.testing.assert_close(left[number, width - len(row) :], right[number, : len(row)])


def test_an_advantage_of_exactly_zero_counts_as_a_token() -> None:
    # fault 4: the middle reward is 0.0. Mean 3 / 3 = 1, not 3 / 2; the discounting goes through it.
    raw, mask = torch.tensor([[1.0, 0.0, 2.0]]), mask_of([[1, 1, 1]])
    assert rewards.masked_mean(raw, mask).item() == 1.0
    # A_2 = 0 + 0.5 * 2 = 1, A_1 = 1 + 0.5 * 1 = 1.5; were the zero padding, A_1 were 1 + 0.5 * 2 = 2
    assert rewards.discount(raw, mask, 0.5).tolist() == [[1.5, 1.0, 2.0]]
    assert rewards.last_valid(torch.tensor([[1.0, 0.0]]), mask_of([[1, 1]])).item() == 0.0
    assert rewards.credit(torch.tensor([[1.0, 0.0, 2.0]]), mask, torch.tensor([0.0])).tolist() == [[1.0, -1.0, 2.0]]


# ------------------------------------------------------------------------------------------------ threads


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts the threads that Linux tells of")
def test_a_thread_that_takes_every_score_starts_no_helper() -> None:
    """Pages and servers take them beside the model: helpers of more threads than there are processors slow it down."""
    values, kept, prompt = torch.randn(1, 200), torch.ones(1, 200, dtype=torch.bool), torch.zeros(1)
    before, after = [], []

    def take() -> None:
        torch.set_num_threads(2)  # of this thread alone
        before.append(len(os.listdir("/proc/self/task")))
        for kind in rewards.TRACE_SCORES:
            rewards.trace_score(values, kept, kind, prompt_reward=prompt)
        rewards.standardise(values, kept, prompt, prompt + 1)
        after.append(len(os.listdir("/proc/self/task")))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert after == before
