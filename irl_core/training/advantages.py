"""Advantages of the policy from the rewards of a round (arXiv 2510.01857, eq. 5, and variants).

A group is the samples of one problem, and its expert trace where ``expert_in_group``. Tensors are ``(B, T)`` over
completion tokens, ``group_ids`` is ``(B,)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from irl_core.config import PolicyConfig
from irl_core.distributed import World
from irl_core.reward import rewards
from irl_core.reward.rewards import masked
from irl_core.types import EncodedTrace, Source, Trace


def token_advantages(
    raw: Tensor, mask: Tensor, group_ids: Tensor, prompt_reward: Tensor, settings: PolicyConfig, world: World
) -> Tensor:
    """Token advantages ``(B, T)`` from raw rewards, by the configured rule (see ``PolicyConfig``).

    Args:
        raw: ``(B, T)`` raw rewards.
        mask: ``(B, T)`` bool, True at completion tokens.
        group_ids: ``(B,)``, equal within a group.
        prompt_reward: ``(B,)``, r_0 of the credit.
        settings: of the policy.
        world: the data-parallel processes, all of which must call it where ``standardise_over`` is ``batch``.
    """
    values = rewards.token_rewards(raw)
    if settings.advantage == "trace":
        scores = rewards.trace_score(
            values, mask, settings.trace_score, prompt_reward=prompt_reward, gamma=settings.gamma
        )
        return trace_advantages(scores, group_ids, mask, over=world if settings.standardise_over == "batch" else None)
    if settings.advantage == "credit":
        values = rewards.credit(values, mask, prompt_reward)
    if settings.standardise_over in ("last", "all"):
        mean, std = rewards.group_statistics(values, mask, group_ids, settings.standardise_over)
        if settings.baseline == "leave_one_out":
            mean = leave_one_out_baseline(rewards.masked_mean(values, mask), group_ids)
        values = rewards.standardise(values, mask, mean, std)
    if settings.advantage == "minimum":
        return rewards.discount(minimum_form(values, mask), mask, 1.0)
    return rewards.discount(values, mask, settings.gamma)


def outcome_advantages(
    traces: Sequence[EncodedTrace], group_ids: Tensor, mask: Tensor, unknown_answer: str = "left_out"
) -> Tensor:
    """GRPO's outcome supervision: correctness standardised within the group, on every token; ``(B, T)``.

    An expert's trace counts as correct unless it is known not to be. A sample whose answer is missing or cannot be
    compared is neither right nor wrong: its advantage is 0, and it is left out of its group's mean and spread, unless
    ``unknown_answer`` is ``wrong``.
    """
    scores, known = outcomes_of(traces, unknown_answer)
    return trace_advantages(scores, group_ids, mask, known=known)


def outcomes_of(traces: Sequence[EncodedTrace], unknown_answer: str = "left_out") -> tuple[Tensor, Tensor]:
    """Correctness of each trace ``(B,)`` as 1 or 0, and whether it counts, ``(B,)`` bool."""
    outcomes = [_outcome(one.trace) for one in traces]
    scores = torch.tensor([float(outcome or False) for outcome in outcomes])
    known = torch.tensor([outcome is not None or unknown_answer == "wrong" for outcome in outcomes], dtype=torch.bool)
    return scores, known


def _outcome(trace: Trace) -> bool | None:
    """Whether a trace's answer is right; None where that is not known."""
    return True if trace.correct is None and trace.source is Source.EXPERT else trace.correct


def trace_advantages(
    scores: Tensor, group_ids: Tensor, mask: Tensor, *, over: World | None = None, known: Tensor | None = None
) -> Tensor:
    """Scores ``(B,)`` standardised within their groups, on every token of the trace; ``(B, T)``.

    Args:
        scores: ``(B,)``, one a trace.
        group_ids: ``(B,)``.
        mask: ``(B, T)``, the completions' tokens.
        over: where given, the spread is that of all traces of these processes, the mean still the group's: the noise of
            a group whose samples hardly differ is then not magnified.
        known: ``(B,)``, which scores count; the advantage of the others is 0. None: all.
    """
    column = scores.unsqueeze(1)
    counted = torch.ones_like(column, dtype=torch.bool) if known is None else known.unsqueeze(1)
    mean, std = rewards.group_statistics(column, counted, group_ids, "all")
    if over is not None:
        deviations = torch.tensor(over.gather((scores - mean)[counted.squeeze(1)].tolist()))
        std = deviations.square().mean().sqrt().expand_as(std)
    return rewards.masked(rewards.standardise(column, counted, mean, std).expand(mask.shape), mask)


def negatives_weighted(advantages: Tensor, weight: float) -> Tensor:
    """``advantages`` with those below 0 multiplied by ``weight``."""
    return torch.where(advantages < 0, weight * advantages, advantages)


def zero_spread_groups(advantages: Tensor, group_ids: Tensor) -> int:
    """Number of groups whose advantages are exactly 0 throughout, which teach nothing."""
    has_signal = torch.zeros(int(group_ids.max()) + 1, dtype=torch.bool)
    has_signal[group_ids[(advantages != 0).any(dim=1)]] = True
    return int((~has_signal[torch.unique(group_ids)]).sum())


def leave_one_out_baseline(values: Tensor, group_ids: Tensor) -> Tensor:
    """Mean of the values ``(B,)`` of the *other* members of each trace's group (PRIME); 0 for a group of one."""
    _, index = torch.unique(group_ids, return_inverse=True)
    zeros = torch.zeros(int(index.max()) + 1, device=values.device)
    total = zeros.index_add(0, index, values)[index]
    count = zeros.index_add(0, index, torch.ones_like(values))[index]
    return torch.where(count > 1, (total - values) / (count - 1).clamp(min=1), torch.zeros_like(values))


def minimum_form(rewards: Tensor, response_mask: Tensor, temperature: float = 1.0) -> Tensor:
    """PURE's soft minimum: rewards weighted by ``softmax(-r / temperature)``, whose sum tends to it; ``(B, T)``.

    Source: Cheng et al. 2025, 'Stop Summation: Min-Form Credit Assignment'. Raises ValueError for temperature <= 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive")
    scores = torch.where(response_mask, -rewards.float() / temperature, torch.full_like(rewards, -torch.inf).float())
    has_token = response_mask.any(dim=1, keepdim=True)
    weights = torch.softmax(torch.where(has_token, scores, torch.zeros_like(scores)), dim=1)
    return masked(weights * masked(rewards.float(), response_mask), response_mask)
