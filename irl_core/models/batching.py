"""Batches of encoded traces under a token budget: padded, packed into one row, or with prompts shared."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from irl_core.types import EncodedTrace

BatchLayout = Literal["padded", "packed", "shared_prompts"]


@dataclass(frozen=True, slots=True)
class Family:
    """Lengths of a prompt and of the completions that share it, in tokens."""

    prompt: int
    completions: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of all of them."""
        return self.prompt + sum(self.completions)


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
        families: of a row in which traces share prompts, in order.
        begins: (B,) of such a row, the flat index of each completion's first token; else right behind its prompt.
    """

    input_ids: Tensor
    first: Tensor
    starts: Tensor
    response_mask: Tensor
    position_ids: Tensor | None = None
    cu_seqlens: Tensor | None = None
    families: tuple[Family, ...] = ()
    begins: Tensor | None = None

    @property
    def completion_index(self) -> Tensor:
        """``(B, T)`` flat index of each completion token (any valid one in padding)."""
        begin = self.first + self.starts if self.begins is None else self.begins
        index = begin.unsqueeze(1) + torch.arange(self.response_mask.shape[1], device=begin.device)
        return torch.where(self.response_mask, index, begin.unsqueeze(1) - 1)

    @property
    def preceding_index(self) -> Tensor:
        """``(B, T)`` flat index of the token before each completion token, whose state predicts it."""
        before = (self.completion_index - 1).clamp(min=0)
        return torch.cat([self.prompt_index.unsqueeze(1), before[:, 1:]], 1)

    @property
    def prompt_index(self) -> Tensor:
        """``(B,)`` flat index of each trace's last prompt token."""
        return self.first + self.starts - 1

    def to(self, device: torch.device | str) -> Batch:
        moved: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            tensor = getattr(self, name)
            moved[name] = tensor.to(device) if isinstance(tensor, Tensor) else tensor
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
    """Batching under a budget of ``tokens`` tokens: padded to the longest trace, packed without padding, or packed with
    one prompt for all traces of a problem."""

    pad_id: int
    tokens: int
    layout: BatchLayout = "padded"

    def split(self, encoded: Sequence[EncodedTrace]) -> list[list[int]]:
        """Indices of the traces of each batch; a trace longer than the budget stands alone."""
        lengths = [len(trace.prompt_ids) + len(trace.completion_ids) for trace in encoded]
        if self.layout == "padded":
            return token_budget_batches(lengths, self.tokens)
        if self.layout == "packed":
            return token_budget_rows(lengths, self.tokens)
        parts = list(family_parts(encoded, self.tokens))
        rows = token_budget_rows([family_length(encoded, part) for part in parts], self.tokens)
        return [[index for number in row for index in parts[number]] for row in rows]

    def collate(self, encoded: Sequence[EncodedTrace]) -> Batch:
        """These traces as one batch."""
        if self.layout == "padded":
            return collate(encoded, self.pad_id)
        return pack(encoded) if self.layout == "packed" else pack_families(encoded)


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


def families(encoded: Sequence[EncodedTrace]) -> list[list[int]]:
    """Indices of the traces of each prompt, in the order in which the prompts occur."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, trace in enumerate(encoded):
        members.setdefault(trace.prompt_ids, []).append(index)
    return list(members.values())


def family_length(encoded: Sequence[EncodedTrace], members: Sequence[int]) -> int:
    """Tokens of traces that share their prompt."""
    return len(encoded[members[0]].prompt_ids) + sum(len(encoded[index].completion_ids) for index in members)


def family_parts(encoded: Sequence[EncodedTrace], budget: int) -> Iterator[list[int]]:
    """The families, each that is longer than ``budget`` tokens cut into parts that are not, where they can be."""
    for members in families(encoded):
        part: list[int] = []
        for index in members:
            if part and family_length(encoded, [*part, index]) > budget:
                yield part
                part = []
            part.append(index)
        yield part


def pack_families(encoded: Sequence[EncodedTrace]) -> Batch:
    """Traces in one row ``(1, L)``, those of one prompt behind it; results stay in the order given."""
    _, mask = starts_and_mask(encoded)
    ids: list[int] = []
    positions: list[Tensor] = []
    first, begins = torch.zeros(len(encoded), dtype=torch.long), torch.zeros(len(encoded), dtype=torch.long)
    found: list[Family] = []
    for members in families(encoded):
        prompt, completions = encoded[members[0]].prompt_ids, [encoded[index].completion_ids for index in members]
        first[members] = len(ids)
        ids += prompt
        positions.append(torch.arange(len(prompt)))
        for index, completion in zip(members, completions, strict=True):
            begins[index] = len(ids)
            ids += completion
            positions.append(torch.arange(len(prompt), len(prompt) + len(completion)))
        found.append(Family(len(prompt), tuple(map(len, completions))))
    starts = torch.tensor([len(trace.prompt_ids) for trace in encoded])
    position_ids = torch.cat(positions).unsqueeze(0)
    return Batch(torch.tensor([ids]), first, starts, mask, position_ids, families=tuple(found), begins=begins)


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
