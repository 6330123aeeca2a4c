"""Policy updates by the order of a problem's samples: likelihood of the best of them, and preference pairs.

Each is a sum of log-probabilities whose weights follow from the ranking, so that the two traces of a pair need not be
in one micro-batch. Tensors are ``(B,)`` over the traces of a step; ``group_ids`` is equal within a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TIE = 1e-4  # scores no further apart count as equal: those of one text differ by rounding from batch to batch


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best and the worst traces of each group.

    Attributes:
        best: ``(B,)``, of each group's best trace 1, of ``k`` tied ones 1/k each, 0 of all others; 0 throughout a group
            whose traces are all equal, which teaches nothing.
        worst: ``(B,)``, the same of its worst.
        group_ids: ``(B,)``.
    """

    best: Tensor
    worst: Tensor
    group_ids: Tensor

    @property
    def groups(self) -> float:
        """Number of groups that teach."""
        return float(self.best.sum())

    @property
    def used(self) -> Tensor:
        """``(B,)`` bool, whether a trace is among the best or the worst of its group."""
        return (self.best + self.worst) > 0

    def only(self, rows: Tensor) -> Ranking:
        """The ranking of the traces at ``rows`` alone."""
        return Ranking(self.best[rows], self.worst[rows], self.group_ids[rows])


def ranked(scores: Tensor, group_ids: Tensor, known: Tensor | None = None) -> Ranking:
    """The best and the worst of each group by ``scores`` ``(B,)``; traces not ``known`` ``(B,)`` are no members."""
    known = torch.ones_like(group_ids, dtype=torch.bool) if known is None else known
    best, worst = torch.zeros(len(scores)), torch.zeros(len(scores))
    for group in torch.unique(group_ids).tolist():
        members = (group_ids == group) & known
        high, low = (limit(scores[members]) if members.any() else None for limit in (torch.max, torch.min))
        if high is None or low is None or high - low <= TIE:
            continue
        for shares, tied in ((best, members & (scores >= high - TIE)), (worst, members & (scores <= low + TIE))):
            shares[tied] = 1.0 / int(tied.sum())
    return Ranking(best, worst, group_ids)


@dataclass(frozen=True, slots=True)
class Preferences:
    """What preference pairs say of a step, as sums over groups.

    Attributes:
        weights: ``(B,)``, less the gradient of ``loss`` with respect to each trace's log-probability.
        loss: sum over groups of ``-log sigmoid(beta (margin of the best - margin of the worst))``.
        agreed: sum over groups of the share of pairs in which the policy prefers the best already.
    """

    weights: Tensor
    loss: float
    agreed: float


def preferences(margins: Tensor, ranking: Ranking, beta: float) -> Preferences:
    """Direct preference optimisation (Rafailov et al. 2023) of each group's best traces over its worst.

    ``margins`` ``(B,)`` are log-probabilities of whole traces less those of the reference. Tied traces make several
    pairs, which share the group's weight of 1.
    """
    same = ranking.group_ids.unsqueeze(1) == ranking.group_ids.unsqueeze(0)
    pairs = ranking.best.unsqueeze(1) * ranking.worst.unsqueeze(0) * same
    logits = beta * (margins.unsqueeze(1) - margins.unsqueeze(0))
    slopes = pairs * beta * torch.sigmoid(-logits)
    loss, agreed = float((pairs * F.softplus(-logits)).sum()), float((pairs * (logits > 0)).sum())
    return Preferences(slopes.sum(1) - slopes.sum(0), loss, agreed)
