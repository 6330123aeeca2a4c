"""Rewards read in one tokenizer's tokens, brought to another's by the characters that both spell.

The discriminator reads its own tokens where its tokenizer is not the policy's. Only levels (raw rewards) are carried:
credit, discounts and scores are computed from them afterwards, in the policy's tokens, so that credit telescopes to
the same sum. Log-probabilities cannot be carried; ``check_same_tokens`` refuses what would need it.
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

    Both spell the same text. A token gets the level at the other's token that covers its last character: what has been
    read by then. The pieces of one character (an emoji split over tokens) follow the other's pieces of it in order,
    the last to the last; an end-of-turn token (an empty span) gets the end-of-turn token's level. ``start`` is the
    level before the first token, for text that the other tokens leave out at the beginning.

    Raises:
        ValueError: not one value a span.
    """
    if len(values) != len(from_spans):
        raise ValueError(f"{len(values)} levels with {len(from_spans)} spans; give one a token")
    levels = np.concatenate([np.array([start]), np.asarray(values)]).astype(np.float32)
    return levels[carried_from(from_spans, to_spans) + 1]


def carried_from(from_spans: Sequence[Span], to_spans: Sequence[Span]) -> Indices:
    """For each token of ``to_spans`` the token of ``from_spans`` whose level it gets, ``(T,)`` int64, never falling;
    -1 where none has begun."""
    source, target = _bounds(from_spans), _bounds(to_spans)
    last = np.where(target[:, 1] > target[:, 0], target[:, 1] - 1, target[:, 1])
    first, end = _covering(source, last)
    own_first, own_end = _covering(target, last)
    # Of the k tokens that share the character this is the (rank + 1)-th, and the other has n pieces of it.
    rank, k, n = np.arange(len(target)) - own_first, own_end - own_first, end - first
    index = np.where(n > 0, first - 1 + -(-(rank + 1) * n // np.maximum(k, 1)), end - 1)
    return np.maximum.accumulate(index) if len(index) else index


def _bounds(spans: Sequence[Span]) -> Indices:
    return np.asarray(spans, dtype=np.int64).reshape(-1, 2)


def _covering(bounds: Indices, characters: Indices) -> tuple[Indices, Indices]:
    """The half-open range of tokens that cover each character; of tokens with empty spans, those that stand there."""
    ends = np.where(bounds[:, 1] > bounds[:, 0], bounds[:, 1], bounds[:, 1] + 1)
    first = np.searchsorted(ends, characters, side="right")
    return first, np.maximum(first, np.searchsorted(bounds[:, 0], characters, side="right"))


def check_same_tokens(policy: str, discriminator: str, likelihood: str) -> None:
    """Refuse a discriminator that is anchored to the policy's likelihood and reads other tokens than the policy.

    Args:
        policy, discriminator: ``TraceEncoder.fingerprint`` of either tokenizer.
        likelihood: ``discriminator.likelihood`` of the configuration.

    Raises:
        ConfigError: naming the setting and the mend.
    """
    if likelihood == "policy" and policy != discriminator:
        raise ConfigError(
            "discriminator.likelihood is 'policy', but the discriminator's tokenizer is not the policy's, and the "
            "likelihood of one's tokens says nothing of the other's; set discriminator.likelihood to own, or take two "
            "models of one family"
        )
