"""Alignment of rewards from the discriminator's tokens to the policy's, where the two have different tokenizers.

Tokens are aligned by the characters that both tokenizers spell. Only levels (raw rewards) are aligned: credit,
discounts and scores are computed from them afterwards, in the policy's tokens, so that credit telescopes to the same
sum. Log-probabilities cannot be aligned; ``check_same_tokens`` refuses settings that would need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from irl_core.errors import ConfigError
from irl_core.types import Floats, Span

Indices = npt.NDArray[np.int64]


def carry_levels(values: Floats, from_spans: Sequence[Span], to_spans: Sequence[Span], start: float) -> Floats:
    """Levels ``(S,)`` at the tokens of ``from_spans`` as levels ``(T,)`` float32 at the tokens of ``to_spans``.

    A token gets the level of the source token that covers its last character, the level after the text up to there has
    been read. Tokens that share one character (an emoji split over tokens) are matched in order, the last with the
    last; an end-of-turn token (an empty span) gets the end-of-turn token's level.

    Args:
        values: (S,), a level for each source token.
        from_spans, to_spans: character spans of the source and the target tokens in the same text.
        start: the level before the first token, for leading text that no source token covers.

    Raises:
        ValueError: ``values`` and ``from_spans`` differ in length.
    """
    if len(values) != len(from_spans):
        raise ValueError(f"{len(values)} levels with {len(from_spans)} spans; give one a token")
    levels = np.concatenate([np.array([start]), np.asarray(values)]).astype(np.float32)
    return levels[carried_from(from_spans, to_spans) + 1]


def carried_from(from_spans: Sequence[Span], to_spans: Sequence[Span]) -> Indices:
    """Index of the source token whose level each target token gets, ``(T,)`` int64, non-decreasing; -1: none yet."""
    source, target = _bounds(from_spans), _bounds(to_spans)
    last = np.where(target[:, 1] > target[:, 0], target[:, 1] - 1, target[:, 1])
    first, end = _covering(source, last)
    own_first, own_end = _covering(target, last)
    # This is number rank + 1 of the k target tokens that share the character, which n source tokens share.
    rank, k, n = np.arange(len(target)) - own_first, own_end - own_first, end - first
    index = np.where(n > 0, first - 1 + -(-(rank + 1) * n // np.maximum(k, 1)), end - 1)
    return np.maximum.accumulate(index) if len(index) else index


def _bounds(spans: Sequence[Span]) -> Indices:
    return np.asarray(spans, dtype=np.int64).reshape(-1, 2)


def _covering(bounds: Indices, characters: Indices) -> tuple[Indices, Indices]:
    """The half-open range of tokens that cover each character; an empty span covers the position where it stands."""
    ends = np.where(bounds[:, 1] > bounds[:, 0], bounds[:, 1], bounds[:, 1] + 1)
    first = np.searchsorted(ends, characters, side="right")
    return first, np.maximum(first, np.searchsorted(bounds[:, 0], characters, side="right"))


def check_same_tokens(policy: str, discriminator: str, likelihood: str, loss: str = "bce") -> None:
    """Refuse a discriminator that learns with the policy's likelihood but has another tokenizer.

    Args:
        policy, discriminator: ``TraceEncoder.fingerprint`` of either tokenizer.
        likelihood: ``discriminator.likelihood`` of the configuration.
        loss: its ``discriminator.loss``.

    Raises:
        ConfigError: the fingerprints differ and ``likelihood`` is ``policy``, or ``loss`` is ``maxent``.
    """
    if loss == "maxent" and policy != discriminator:
        raise ConfigError(
            "discriminator.loss is 'maxent', which weights samples by the policy's likelihood, but the discriminator's "
            "tokenizer is not the policy's; set discriminator.loss to relativistic, or take two models of one family"
        )
    if likelihood == "policy" and policy != discriminator:
        raise ConfigError(
            "discriminator.likelihood is 'policy', but the discriminator's tokenizer is not the policy's, and the "
            "likelihood of one's tokens says nothing of the other's; set discriminator.likelihood to own, or take two "
            "models of one family"
        )
