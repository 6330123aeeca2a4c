"""Drawing of tokens from logits by uniform numbers fixed in advance, so that a seed gives the same tokens everywhere.

A token is the inverse of the cumulative distribution at a uniform number of its own. The draws of a sample depend on
its logits and its seed alone, not on the device or the other rows of the batch.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**26  # of which a draw makes a handful of copies
LOGITS_IN_CACHE = 2**20  # of those, on the CPU: what its caches hold
BLOCK = 256  # ids


def uniforms(seed: int, sample: int, count: int) -> Tensor:
    """The numbers in [0, 1), float64 ``(count,)`` on the CPU, of a prompt's ``sample``: one a token, the first ones the
    same whatever the ``count``."""
    derived = random.Random(f"{seed}-{sample}").getrandbits(63)
    return torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(derived))


def exact(device: torch.device) -> torch.dtype:
    """The type of uniform numbers and cumulative sums on a device: float64 where it has that.

    In float32 each id of a vocabulary of 152k would be off by up to 6e-8, a percent of its share where all are equally
    likely.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of tokens that reaches ``top_p`` (Holtzman et al. 2020); not renormalised.

    Among equally likely tokens at the border the lower ids are in.
    """
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))


def inverse_cdf(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """The id ``(B,)`` at which the cumulative sum of each row ``(B, V)`` passes the row's number ``(B,)`` times its
    total. Rows need not sum to 1; an id of probability 0 is never given.

    Sums are made in blocks of ids, and within the one block that the number falls into.
    """
    width = probabilities.shape[1]
    whole = width - width % BLOCK
    sums = probabilities[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1, dtype=numbers.dtype)
    if whole < width:
        sums = torch.cat([sums, probabilities[:, whole:].sum(-1, dtype=numbers.dtype, keepdim=True)], 1)
    reached = sums.cumsum(-1)
    targets = numbers.unsqueeze(1) * reached[:, -1:]
    block = torch.searchsorted(reached, targets, right=True).clamp(max=reached.shape[1] - 1)
    below = reached.gather(1, block) - sums.gather(1, block)
    places = block * BLOCK + torch.arange(min(BLOCK, width), device=block.device)
    inside = probabilities.gather(1, places.clamp(max=width - 1)).masked_fill(places >= width, 0.0)
    within = below + inside.cumsum(-1, dtype=numbers.dtype)
    place = torch.searchsorted(within, targets, right=True).clamp(max=places.shape[1] - 1)
    return at_or_before(probabilities, places.gather(1, place).clamp(max=width - 1)).squeeze(1)


def at_or_before(probabilities: Tensor, ids: Tensor) -> Tensor:
    """``ids`` ``(B, 1)``, moved back to an id that has a probability where rounding went past the last such id, or
    where sums in another order put a step at an id that has none."""
    if (probabilities.gather(1, ids) != 0).all():
        return ids
    places = torch.arange(probabilities.shape[1], device=ids.device)
    possible = (places <= ids) & (probabilities > 0)
    return torch.where(possible, places, 0).amax(1, keepdim=True)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tokens are drawn: ids from ``vocab_size`` on never, the rest at ``temperature`` (0: the likeliest) from the
    ``top_p`` nucleus."""

    temperature: float = 1.0
    top_p: float = 1.0
    vocab_size: int | None = None

    def __call__(self, logits: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """One token a row of ``(B, V)`` logits by uniform ``numbers`` ``(B,)``: ids ``(B,)`` with log-probabilities
        ``(B,)``, float32, which are those of the model: at temperature 1, over all V ids."""
        limit = min(LOGITS_AT_ONCE, LOGITS_IN_CACHE) if logits.device.type == "cpu" else LOGITS_AT_ONCE
        rows = max(1, limit // logits.shape[1])
        drawn = [self._draw(*part) for part in zip(logits.split(rows), numbers.split(rows), strict=True)]
        ids, logprobs = zip(*drawn, strict=True)
        return torch.cat(ids), torch.cat(logprobs)

    def _draw(self, logits: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = logits.float().log_softmax(-1)
        allowed = logprobs[:, : self.vocab_size]
        if self.temperature == 0:
            ids = allowed.argmax(-1)
        else:
            if self.temperature == 1 and self.top_p == 1:
                probabilities = allowed.exp()  # sums to less than 1 where not all ids may be drawn
            else:
                probabilities = (allowed / self.temperature).softmax(-1)
            if self.top_p < 1.0:
                probabilities = nucleus(probabilities, self.top_p)
            ids = inverse_cdf(probabilities, numbers)
        return ids, logprobs.gather(1, ids.unsqueeze(1)).squeeze(1)


def check_finite(logprobs: Sequence[float], prompt: int, position: int = 0) -> None:
    """Refuse log-probabilities of a prompt's sample, from completion token ``position`` on, that are not numbers.

    Raises:
        FloatingPointError: the logits of one of them held NaN or infinity.
    """
    for number, value in enumerate(logprobs, start=position):
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the policy's logits are not finite at completion token {number} of prompt {prompt} ({value}); "
                "lower policy.learning_rate or set model.dtype to float32, and resume from an earlier checkpoint"
            )
