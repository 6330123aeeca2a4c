"""From discriminator logits to token rewards, credit, advantages and trace scores (arXiv 2510.01857, eqs. 4-5).

Every tensor is ``(B, T)`` over completion tokens; ``response_mask`` is True where a token counts. Masked positions
hold exactly 0 in every result and never influence another position, whatever values they carry.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

GroupScope = Literal["last", "all"]
TraceScore = Literal["mean_discounted", "mean", "last", "minimum", "product", "credit_sum", "credit_minimum"]
TRACE_SCORES: tuple[TraceScore, ...] = get_args(TraceScore)
DEFAULT_GAMMA = 0.9


def token_rewards(logits: Tensor) -> Tensor:
    """Eq. 4: ``log D - log(1 - D)`` with ``D = sigmoid(logit)`` *is* the logit, so no sigmoid is taken.

    Returns ``(B, T)`` float32.
    """
    return logits.float()


def masked(values: Tensor, response_mask: Tensor) -> Tensor:
    """``values`` with exactly 0 at masked positions, even where they hold NaN or infinity."""
    return torch.where(response_mask, values, torch.zeros_like(values))


def last_valid(values: Tensor, response_mask: Tensor) -> Tensor:
    """The value at each row's last unmasked position, ``(B,)``; 0 for a row without one."""
    positions = torch.arange(values.shape[1], device=values.device)
    last = torch.where(response_mask, positions, torch.full_like(positions, -1)).amax(dim=1)
    picked = values.gather(1, last.clamp(min=0).unsqueeze(1)).squeeze(1)
    return torch.where(last >= 0, picked, torch.zeros_like(picked))


def group_statistics(
    rewards: Tensor, response_mask: Tensor, group_ids: Tensor, scope: GroupScope = "last"
) -> tuple[Tensor, Tensor]:
    """Mean and sample standard deviation (n - 1) of the rewards of each trace's group.

    Args:
        rewards, response_mask: ``(B, T)``. group_ids: ``(B,)`` integers, equal within a group.
        scope: ``last`` takes each trace's last valid token (the paper's, eq. 5), ``all`` takes every token.

    Returns:
        ``(mean, std)``, each ``(B,)`` float32; a group with fewer than two values has std 0.
    """
    _, index = torch.unique(group_ids, return_inverse=True)
    if scope == "last":
        has_token = response_mask.any(dim=1)
        values, index_of_value = last_valid(rewards, response_mask)[has_token].float(), index[has_token]
    else:
        values, index_of_value = rewards[response_mask].float(), index.unsqueeze(1).expand_as(rewards)[response_mask]
    zeros = torch.zeros(int(index.max()) + 1, device=rewards.device)
    count = zeros.index_add(0, index_of_value, torch.ones_like(values))
    mean = zeros.index_add(0, index_of_value, values) / count.clamp(min=1)
    squares = zeros.index_add(0, index_of_value, (values - mean[index_of_value]).square())
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    return mean[index], torch.where(count > 1, std, torch.zeros_like(std))[index]


def standardise(rewards: Tensor, response_mask: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(r - mean) / std`` a row, ``(B, T)``; rows whose ``std`` is (numerically) 0 are exactly 0: no signal."""
    spread = std > 1e-6 * mean.abs().clamp(min=1.0)
    scaled = (rewards.float() - mean.unsqueeze(1)) / torch.where(spread, std, torch.ones_like(std)).unsqueeze(1)
    return masked(scaled, response_mask & spread.unsqueeze(1))


def discount(rewards: Tensor, response_mask: Tensor, gamma: float) -> Tensor:
    """Eq. 5: ``A_t = r_t + gamma * A_{t+1}`` over unmasked positions, ``(B, T)``.

    Sums of 1, 2, 4, ... positions are joined, so that a row of T takes log2 T operations: a loop over positions takes
    a hundred times longer than all else that is done with a row, and dividing a cumulative sum by ``gamma**t`` would
    leave float32 before 900 tokens at gamma 0.9. A masked position passes the running sum on unchanged.

    Raises:
        ValueError: gamma outside [0, 1].
    """
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma is {gamma}; it must lie in [0, 1]")
    sums = masked(rewards.float(), response_mask)
    carried = torch.where(response_mask, gamma, torch.ones_like(sums))  # how much of the sum behind counts here
    reach = 1
    while reach < sums.shape[1]:
        behind, further = (F.pad(part[:, reach:], (0, reach)) for part in (sums, carried))
        sums, carried = sums + carried * behind, carried * further
        reach *= 2
    return masked(sums, response_mask)


def credit(rewards: Tensor, response_mask: Tensor, prompt_reward: Tensor) -> Tensor:
    """The increment of the logit, ``c_t = r_t - r_{t-1}`` with ``r_0 = prompt_reward`` ``(B,)``; ``(B, T)``.

    ``r_{t-1}`` is the previous *unmasked* position's reward, so padding on the left changes nothing.
    """
    kept = torch.cat([prompt_reward.float().unsqueeze(1), masked(rewards.float(), response_mask)], 1)
    places = torch.arange(1, kept.shape[1], device=kept.device) * response_mask  # 0: the prompt
    last = places.cummax(1).values
    previous = kept.gather(1, F.pad(last[:, :-1], (1, 0)))
    return masked(kept[:, 1:] - previous, response_mask)


def masked_mean(values: Tensor, response_mask: Tensor) -> Tensor:
    """Mean over unmasked positions of each row, ``(B,)``; 0 for an empty row."""
    return masked(values, response_mask).sum(1) / response_mask.sum(1).clamp(min=1)


def masked_minimum(values: Tensor, response_mask: Tensor) -> Tensor:
    """Minimum over unmasked positions of each row, ``(B,)``; 0 for an empty row."""
    infinity = torch.full_like(values, torch.inf)
    lowest = torch.where(response_mask, values, infinity).amin(dim=1)
    return torch.where(response_mask.any(1), lowest, torch.zeros_like(lowest))


def trace_score(
    rewards: Tensor,
    response_mask: Tensor,
    kind: TraceScore,
    *,
    prompt_reward: Tensor | None = None,
    gamma: float = DEFAULT_GAMMA,
) -> Tensor:
    """One number a trace for ranking, ``(B,)``; higher is more expert-like.

    ``mean_discounted`` is the paper's: the mean of the discounted rewards over the mask (give the mask of the answer
    for the answer scope). ``product`` is the logarithm of the product of ``D = sigmoid(reward)`` over the tokens, the
    usual score of a trace under a process-reward model (Lightman et al. 2023, there over steps); each token can only
    lower it. ``credit_*`` need ``prompt_reward`` ``(B,)``.

    Raises:
        ValueError: an unknown kind, or a credit score without ``prompt_reward``.
    """
    if kind == "mean_discounted":
        return masked_mean(discount(rewards, response_mask, gamma), response_mask)
    if kind == "mean":
        return masked_mean(rewards, response_mask)
    if kind == "last":
        return last_valid(masked(rewards, response_mask), response_mask)
    if kind == "minimum":
        return masked_minimum(rewards, response_mask)
    if kind == "product":
        # Not logsigmoid, which opens a parallel region even for two elements: a thread that calls it, of a page or of a
        # server, keeps a helper thread from then on, and where those outnumber the processors every model slows down.
        return masked(-F.softplus(-rewards.float()), response_mask).sum(1)
    if kind not in TRACE_SCORES:
        raise ValueError(f"unknown trace score {kind!r}; choose one of {', '.join(TRACE_SCORES)}")
    if prompt_reward is None:
        raise ValueError(f"trace score {kind!r} needs prompt_reward, the logit at the last prompt token")
    increments = credit(rewards, response_mask, prompt_reward)
    return increments.sum(1) if kind == "credit_sum" else masked_minimum(increments, response_mask)
