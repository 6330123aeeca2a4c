"""Groups: the samples of one problem beside its expert trace, whose rewards are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from irl_core.models.batching import starts_and_mask
from irl_core.types import EncodedTrace


@dataclass(frozen=True, slots=True)
class Group:
    """One problem of a round: its expert trace, the policy's samples, and its ``number`` among the round's problems.

    The expert trace of a bare problem has no text.
    """

    expert: EncodedTrace
    samples: tuple[EncodedTrace, ...]
    number: int = 0

    @property
    def demonstrated(self) -> bool:
        """Whether the problem has a demonstration."""
        return bool(self.expert.trace.text)


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """The traces of several groups in one list of ``B``.

    Attributes:
        traces: group by group, the samples first and then, where it belongs to the group, the expert trace.
        sampled: for each trace, whether it is a sample.
        group_ids: ``(B,)`` int64, equal within a group.
        mask: ``(B, T)`` bool, True at completion tokens.
    """

    traces: list[EncodedTrace]
    sampled: list[bool]
    group_ids: Tensor
    mask: Tensor


def group_members(groups: Sequence[Group], *, with_expert: bool) -> GroupMembers:
    """All traces of ``groups``; ``with_expert`` makes the expert trace, if any, a member of its group (eq. 5)."""
    members = [
        (*group.samples, group.expert) if with_expert and group.demonstrated else group.samples for group in groups
    ]
    traces = [trace for group in members for trace in group]
    group_ids = torch.tensor([number for number, group in enumerate(members) for _ in group])
    sampled = [trace is not group.expert for group, traces in zip(groups, members, strict=True) for trace in traces]
    return GroupMembers(traces, sampled, group_ids, starts_and_mask(traces)[1])


def samples_of(groups: Sequence[Group]) -> list[EncodedTrace]:
    """All samples of ``groups``, in their order."""
    return [sample for group in groups for sample in group.samples]
