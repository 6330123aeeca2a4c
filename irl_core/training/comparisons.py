"""Losses of a reward that compare whole traces of one problem: the relativistic one, and maximum entropy.

Each is a function of the traces' scores alone, so that its gradient is taken in two passes: the scores of all traces
and the slope of the loss with respect to each, and then, micro-batch by micro-batch, the traces' gradients times these
slopes. The traces of a comparison need not be in one micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from irl_core.reward.discriminator import SUMMED, HeadKind
from irl_core.reward.rewards import last_valid, masked, masked_mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """The traces of one problem, by their numbers: its demonstration, and what is set against it.

    Attributes:
        expert: number of the expert trace.
        others: numbers of the samples and perturbed copies.
        tied: for each of the others, whether it is as good as the demonstration.
        sampled: for each of the others, whether it is a sample of the policy.
    """

    expert: int
    others: tuple[int, ...]
    tied: tuple[bool, ...]
    sampled: tuple[bool, ...]


def trace_level(logits: Tensor, response_mask: Tensor, head: HeadKind) -> Tensor:
    """The score of each trace ``(B,)``: the last level of a head that sums over the tokens, else the mean level."""
    logits = masked(logits.float(), response_mask)
    return last_valid(logits, response_mask) if head in SUMMED else masked_mean(logits, response_mask)


def relativistic(scores: Tensor, comparisons: Sequence[Comparison], tie_margin: float) -> Tensor:
    """Which of two traces of one problem is the demonstration, or a tie; the sum over problems of the mean over pairs.

    The model of Rao and Kupper (1967): with ``d`` the demonstration's score less the other's and ``v`` the margin, the
    demonstration wins with probability ``sigmoid(d - v)``, and neither does with a probability proportional to
    ``sigmoid(v + d) sigmoid(v - d)``. The pairwise loss of a relativistic critic (RARO, arXiv 2511.21667), whose
    critic may also answer that two solutions are equally good.
    """
    total = scores.new_zeros(())
    for one in comparisons:
        difference = scores[one.expert] - scores[list(one.others)]
        wins = F.softplus(tie_margin - difference)
        ties = F.softplus(-tie_margin - difference) + F.softplus(-tie_margin + difference)
        total = total + torch.where(torch.tensor(one.tied, device=scores.device), ties, wins).mean()
    return total


def maximum_entropy(
    scores: Tensor, logprobs: Tensor, lengths: Tensor, comparisons: Sequence[Comparison], head: HeadKind
) -> Tensor:
    """Less the log-likelihood of the demonstrations under ``p(trace) ~ exp(score)``; the sum over problems.

    The partition function is estimated from the policy's samples and the demonstration, weighted by the inverse of the
    policy's probability (guided cost learning, Finn et al. 2016; rePIRL, arXiv 2602.07832). Scores and
    log-probabilities are taken a token, ``(B,)`` over ``lengths``: weights of whole sequences would leave one sample.
    """
    energies = scores / lengths if head in SUMMED else scores
    weighted = energies - (logprobs / lengths).detach()
    total = scores.new_zeros(())
    for one in comparisons:
        drawn = [other for other, sampled in zip(one.others, one.sampled, strict=True) if sampled]
        background = torch.tensor([one.expert, *drawn], device=scores.device)
        total = total + torch.logsumexp(weighted[background], 0) - energies[one.expert]
    return total


def slopes_of(loss: Tensor, scores: Tensor) -> Tensor:
    """The gradient of a loss with respect to the traces' scores, ``(B,)``."""
    (slopes,) = torch.autograd.grad(loss, scores)
    return slopes
