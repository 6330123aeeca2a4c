"""Whether a problem is like those that a checkpoint was made for, measured by the policy's likelihood of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irl_core.reward.wording import signed

UNFAMILIAR_QUANTILE = 0.01  # of held-out problems; a prompt below it is unfamiliar
UNKNOWN_SHARE_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class Familiarity:
    """How much a problem is like those that the checkpoint was made for.

    Attributes:
        score: mean log-probability, in nats per prompt token, under the policy.
        percentile: share (0-100) of held-out problems with a lower score; None without stored quantiles.
        unknown_share: share (0-1) of tokens that the tokenizer does not know.
        familiar: whether the score and the unknown share are within their limits; None without stored quantiles,
            for not measured is not the same as familiar.
        reason: why, in words.
    """

    score: float
    percentile: float | None
    unknown_share: float
    familiar: bool | None
    reason: str


def prompt_logprob(policy: Any, prompt_ids: Sequence[int]) -> float:
    """Mean log-probability, in nats per token, of the prompt's tokens after the first under ``policy``.

    The quantiles stored in a checkpoint are computed with this function. A prompt of one token gives 0.0.
    """
    import torch

    from irl_core.models.logprobs import logprobs_of_hidden

    if len(prompt_ids) < 2:
        return 0.0
    with torch.inference_mode():
        ids = torch.tensor([list(prompt_ids)], device=policy.device)
        hidden = policy.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0, :-1]
        picked = logprobs_of_hidden(hidden, policy.get_output_embeddings(), ids[0, 1:])
    return float(picked.mean())


def compared_with_held_out(
    score: float, unknown_share: float, quantiles: Sequence[Sequence[float]] | None
) -> Familiarity:
    """The familiarity of a prompt.

    Args:
        score: of `prompt_logprob`.
        unknown_share: share (0-1) of its tokens that the tokenizer does not know.
        quantiles: of the scores of held-out problems: pairs ``[q, value]`` with ascending ``q`` in [0, 1].
    """
    if not quantiles:
        reason = "this checkpoint stores no held-out problems to compare with"
        return Familiarity(score, None, unknown_share, None, reason)
    levels, values = zip(*quantiles, strict=True)
    percentile = 100.0 * float(np.interp(score, values, levels, left=0.0, right=1.0))
    reasons = []
    if percentile < 100 * UNFAMILIAR_QUANTILE:
        limit = np.interp(UNFAMILIAR_QUANTILE, levels, values)
        reasons.append(
            f"{1 - UNFAMILIAR_QUANTILE:.0%} of held-out problems are worded in a way more likely to the policy "
            f"(mean log-probability of a token {signed(score)}, limit {signed(limit)})"
        )
    if unknown_share > UNKNOWN_SHARE_LIMIT:
        reasons.append(
            f"the tokenizer does not know {unknown_share:.0%} of its pieces (limit {UNKNOWN_SHARE_LIMIT:.0%})"
        )
    if reasons:
        return Familiarity(score, percentile, unknown_share, False, "; ".join(reasons))
    level = f"mean log-probability of a token {signed(score)}"
    reason = f"more likely to the policy than {percentile:.0f} % of held-out problems ({level})"
    return Familiarity(score, percentile, unknown_share, True, reason)
