"""Signals and scores of a scored trace, computed without a model: the four views, trace scores, ranking.

They are cheap enough for sliders and tables. Torch is imported at the first call, not before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from irl_core.errors import InputError
from irl_core.text.answers import answers_agree
from irl_core.types import Floats, ScoredTrace, Standardisation, Trace

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_GAMMA = 0.9


@dataclass(frozen=True, slots=True)
class Signals:
    """The four views of one trace's tokens, each ``(T,)`` float32."""

    raw: Floats
    standardised: Floats
    discounted: Floats
    credit: Floats


def group_standardisation(rewards: Sequence[Floats]) -> Standardisation:
    """Mean and standard deviation (n - 1) over all tokens of a group of traces.

    Rewards that are not finite are left out; fewer than two values give a standard deviation of 0, 'no signal'.
    """
    values = np.concatenate([np.asarray(raw, dtype=np.float64) for raw in rewards])
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if values.size else 0.0
    std = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return Standardisation(mean, std, f"group of {len(rewards)} samples")


def _row(values: Floats) -> Tensor:
    import torch

    return torch.from_numpy(np.array(values, dtype=np.float32)).unsqueeze(0)


def _standardised(scored: ScoredTrace, raw: Tensor) -> Tensor:
    import torch

    from irl_core.reward.rewards import standardise

    unit = scored.standardisation
    return standardise(raw, torch.ones_like(raw, dtype=torch.bool), torch.tensor([unit.mean]), torch.tensor([unit.std]))


def signals(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> Signals:
    """The four views of a trace: raw, standardised, discounted (of the standardised, eq. 5) and credit. Runs no model.

    Raises:
        InputError: gamma outside [0, 1].
    """
    import torch

    from irl_core.reward.rewards import credit, discount

    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")
    if scored.raw.size == 0:
        return Signals(scored.raw, scored.raw, scored.raw, scored.raw)
    raw = _row(scored.raw)
    keep = torch.ones_like(raw, dtype=torch.bool)
    standardised = _standardised(scored, raw)
    credits = credit(raw, keep, torch.tensor([scored.prompt_reward]))
    views = (raw, standardised, discount(standardised, keep, gamma), credits)
    return Signals(*(view[0].numpy() for view in views))


def named_signals(scored: ScoredTrace, gamma: float = DEFAULT_GAMMA) -> dict[str, Floats]:
    """The signals by name, with the policy's log-probability, from which a localisation rule takes one."""
    views = signals(scored, gamma)
    return {
        "raw": views.raw,
        "standardised": views.standardised,
        "discounted": views.discounted,
        "credit": views.credit,
        "logprob": scored.logprobs,
    }


def trace_score(scored: ScoredTrace, kind: str, gamma: float = DEFAULT_GAMMA) -> float:
    """One number for ranking; higher is more expert-like. ``kind``: one of ``irl_core.reward.rewards.TRACE_SCORES``.

    ``mean_discounted`` is taken of the standardised rewards (eq. 5), the others of the raw ones. NaN for no token.

    Raises:
        InputError: an unknown kind, or gamma outside [0, 1].
    """
    import torch

    from irl_core.reward.rewards import TRACE_SCORES
    from irl_core.reward.rewards import trace_score as score_rows

    if kind not in TRACE_SCORES:
        raise InputError(f"Unknown trace score {kind!r}; choose one of {', '.join(TRACE_SCORES)}.")
    if not 0.0 <= gamma <= 1.0:
        raise InputError(f"gamma is {gamma}; choose a value between 0 and 1.")
    if scored.raw.size == 0:
        return math.nan
    raw = _row(scored.raw)
    values = _standardised(scored, raw) if kind == "mean_discounted" else raw
    keep = torch.ones_like(raw, dtype=torch.bool)
    prompt = torch.tensor([scored.prompt_reward])
    return float(score_rows(values, keep, kind, prompt_reward=prompt, gamma=gamma)[0])  # type: ignore[arg-type]


def rank(
    scored: Sequence[ScoredTrace], kind: str, gamma: float = DEFAULT_GAMMA, judged: Sequence[bool] | None = None
) -> list[int]:
    """Indices of the traces, best first; equal scores keep their order, undefined ones come last. ``judged``: of each
    trace, whether the model can judge it; behind all others come those that it cannot, in the order given."""
    values = [trace_score(one, kind, gamma) for one in scored]
    if judged is not None:
        values = [value if can else math.nan for value, can in zip(values, judged, strict=True)]
    return sorted(range(len(values)), key=lambda index: -values[index] if math.isfinite(values[index]) else math.inf)


def majority_answer(traces: Sequence[Trace]) -> tuple[str, int] | None:
    """The answer most traces agree on and their number; the first written wins a tie. None where none has an answer.

    Answers agree as numbers: 1,000 = 1000.0.
    """
    votes: list[tuple[str, int]] = []
    for answer in (trace.answer for trace in traces if trace.answer is not None):
        for index, (known, count) in enumerate(votes):
            if answers_agree(answer, known):
                votes[index] = (known, count + 1)
                break
        else:
            votes.append((answer, 1))
    return max(votes, key=lambda vote: vote[1]) if votes else None


def restandardise(scored: Sequence[ScoredTrace], unit: Standardisation) -> list[ScoredTrace]:
    """The same traces with rewards measured in another unit; no model runs."""
    return [replace(one, standardisation=unit) for one in scored]
