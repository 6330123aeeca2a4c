"""Batches of encoded traces under a token budget: padded, or packed into one row."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from irl_core.types import EncodedTrace


@dataclass(frozen=True, slots=True)
class Batch:
    """B encoded traces as one tensor of ids: a trace a row, padded on the right, or all of them packed in one row.

    Attributes:
        input_ids: (R, L).
        first: (B,), the *flat* index, into the R * L positions, at which each trace begins.
        starts: (B,), the length of each prompt.
        response_mask: (B, T), True at completion tokens, aligned to the completion's start.
        position_ids: of a packed row, in which positions restart with every trace.
        cu_seqlens: (B + 1,) int32, the bounds of the traces in a packed row.
    """

    input_ids: Tensor
    first: Tensor
    starts: Tensor
    response_mask: Tensor
    position_ids: Tensor | None = None
    cu_seqlens: Tensor | None = None

    @property
    def completion_index(self) -> Tensor:
        """``(B, T)`` flat index of each completion token (any valid one in padding)."""
        begin = self.first + self.starts
        index = begin.unsqueeze(1) + torch.arange(self.response_mask.shape[1], device=begin.device)
        return torch.where(self.response_mask, index, begin.unsqueeze(1) - 1)

    @property
    def prompt_index(self) -> Tensor:
        """``(B,)`` flat index of each trace's last prompt token."""
        return self.first + self.starts - 1

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            tensor = getattr(self, name)
            moved[name] = None if tensor is None else tensor.to(device)
        return Batch(**moved)


def collate(encoded: Sequence[EncodedTrace], pad_id: int) -> Batch:
    """One trace a row, padded on the right. Padding is marked by masks alone, never by the pad id's value."""
    rows = [(*trace.prompt_ids, *trace.completion_ids) for trace in encoded]
    starts, mask = starts_and_mask(encoded)
    width = max(map(len, rows))
    input_ids = torch.tensor([row + (pad_id,) * (width - len(row)) for row in rows])
    return Batch(input_ids, torch.arange(len(rows)) * width, starts, mask)


def starts_and_mask(encoded: Sequence[EncodedTrace]) -> tuple[Tensor, Tensor]:
    """Prompt lengths ``(B,)`` and the mask of the completions ``(B, T)``."""
    lengths = torch.tensor([len(trace.completion_ids) for trace in encoded])
    starts = torch.tensor([len(trace.prompt_ids) for trace in encoded])
    return starts, torch.arange(int(lengths.max())).unsqueeze(0) < lengths.unsqueeze(1)


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that rows x longest row stays within ``budget`` tokens, similar lengths together.

    A single row longer than the budget stands alone.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


@dataclass(frozen=True, slots=True)
class Batching:
    """Batching under a budget of ``tokens`` tokens: padded to the longest trace, or ``packed`` without padding."""

    pad_id: int
    tokens: int
    packed: bool = False

    def split(self, encoded: Sequence[EncodedTrace]) -> list[list[int]]:
        """Indices of the traces of each batch; a trace longer than the budget stands alone."""
        lengths = [len(trace.prompt_ids) + len(trace.completion_ids) for trace in encoded]
        if not self.packed:
            return token_budget_batches(lengths, self.tokens)
        return token_budget_rows(lengths, self.tokens)

    def collate(self, encoded: Sequence[EncodedTrace]) -> Batch:
        """These traces as one batch."""
        if not self.packed:
            return collate(encoded, self.pad_id)
        return pack(encoded)


def pack(encoded: Sequence[EncodedTrace]) -> Batch:
    """Concatenate the traces in one row ``(1, L)``, ``L`` the sum of their lengths, in the order given."""
    rows = [(*trace.prompt_ids, *trace.completion_ids) for trace in encoded]
    starts, mask = starts_and_mask(encoded)
    bounds = torch.tensor([0, *map(len, rows)]).cumsum(0)
    return Batch(
        input_ids=torch.tensor([[token for row in rows for token in row]]),
        first=bounds[:-1],
        starts=starts,
        response_mask=mask,
        position_ids=torch.cat([torch.arange(len(row)) for row in rows]).unsqueeze(0),
        cu_seqlens=bounds.to(torch.int32),
    )


def token_budget_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that the summed lengths of a group stay within ``budget`` tokens: best fit, longest first.

    A single trace longer than the budget stands alone.
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), ascending
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        tightest = bisect_left(rooms, (lengths[index], 0))
        if tightest == len(rooms):
            rows.append([])
            room, row = budget, len(rows) - 1
        else:
            room, row = rooms.pop(tightest)
        rows[row].append(index)
        insort(rooms, (room - lengths[index], row))
    return rows
