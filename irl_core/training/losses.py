"""Objectives of the discriminator and the policy (arXiv 2510.01857, algorithm 1 and eq. 6).

Every loss is a sum of per-trace terms divided by a *stated* number of traces or weights, never by what a micro-batch
happens to hold: summing the losses of micro-batches gives exactly the full batch's loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from irl_core.reward.rewards import last_valid, masked, masked_mean


def expert_tokens(is_expert: Tensor, departure: Tensor, width: int) -> Tensor:
    """Tokens that count as the expert's, ``(B, width)`` bool: all of an expert trace, others' before their departure.

    ``departure`` ``(B,)`` is the index of the first token that is no longer the expert's: a perturbed trace is
    non-expert only from there on. 0 makes the whole trace non-expert (the paper's); ignored for expert traces.
    """
    positions = torch.arange(width, device=departure.device).unsqueeze(0)
    return is_expert.unsqueeze(1) | (positions < departure.unsqueeze(1))


def token_targets(
    is_expert: Tensor, response_mask: Tensor, departure: Tensor, *, expert: float = 0.95, other: float = 0.05
) -> Tensor:
    """Smoothed token labels ``(B, T)`` float32: ``expert`` where a token is the expert's, else ``other``."""
    return torch.where(expert_tokens(is_expert, departure, response_mask.shape[1]), expert, other).float()


def discriminator_bce(logits: Tensor, targets: Tensor, token_weights: Tensor) -> Tensor:
    """Binary cross-entropy, the weighted sum over tokens; scalar.

    ``token_weights`` ``(B, T)`` are the tokens' final weights (see ``token_weights``), 0 at masked positions; with
    weights that sum to 1 over the full batch this is the batch's loss, and the sum over micro-batches equals it.
    """
    kept = masked(logits.float(), token_weights > 0)
    return (F.binary_cross_entropy_with_logits(kept, targets, reduction="none") * token_weights).sum()


def balanced_weights(classes: Tensor, class_weights: dict[int, float]) -> Tensor:
    """Weights ``(B,)`` that sum to 1 and give each class present its share of ``class_weights``.

    Raises:
        ValueError: a class without a weight, or no class with a positive one.
    """
    present = [int(value) for value in torch.unique(classes)]
    missing = [value for value in present if value not in class_weights]
    if missing:
        raise ValueError(f"no weight for trace class {missing[0]}; class_weights has {sorted(class_weights)}")
    total = sum(class_weights[value] for value in present)
    if total <= 0:
        raise ValueError(f"class weights of the classes present ({present}) sum to {total}; one must be positive")
    weights = torch.zeros(classes.shape, dtype=torch.float32, device=classes.device)
    for value in present:
        members = classes == value
        weights[members] = class_weights[value] / total / int(members.sum())
    return weights


def segment_weights(classes: Tensor, lengths: Tensor, departures: Tensor, class_weights: dict[int, float]) -> Tensor:
    """Weights ``(B, 2)`` of each trace's expert part (before its departure; class 0) and of the rest (its own class).

    The two parts count as traces of their own in ``balanced_weights``: a rare mistake late in a long solution is not
    drowned by the tokens before it. Without departures these are the weights of whole traces.
    """
    expert_part = torch.where(classes == 0, lengths, torch.minimum(departures, lengths))
    present = torch.stack([expert_part, lengths - expert_part], dim=1) > 0
    segments = torch.stack([torch.zeros_like(classes), classes], dim=1)
    weights = torch.zeros(present.shape)
    weights[present] = balanced_weights(segments[present], class_weights)
    return weights


def token_weights(weights: Tensor, response_mask: Tensor, is_expert_token: Tensor) -> Tensor:
    """Weights ``(B, T)`` of tokens from those of each trace's expert part and of the rest ``(B, 2)``.

    A part's weight is spread evenly over its tokens: a short trace counts as much as a long one.
    """
    parts = torch.stack([response_mask & is_expert_token, response_mask & ~is_expert_token])
    return (parts * (weights.t() / parts.sum(2).clamp(min=1)).unsqueeze(2)).sum(0)


def balance_places(weights: Tensor, is_expert_token: Tensor, places: Tensor) -> Tensor:
    """``weights`` ``(B, T)`` changed so that both classes weigh the same at each place of a solution.

    Where nearly every sample goes wrong sooner or later, a late token is seldom the expert's: a reward can be right by
    falling from step to step, whatever the steps say. The weight of a token is multiplied by the other class's share
    of the weight at its place (overlap weights, Li, Morgan & Zaslavsky 2018): no weight grows, and a place at which
    one class alone occurs, which teaches nothing but the place, gets none. The sum stays what it was, or becomes 0
    where no place has both classes.

    Args:
        weights: ``(B, T)``, 0 at masked positions. is_expert_token: ``(B, T)`` bool. places: ``(B, T)`` integers.
    """
    shares = torch.zeros(2, int(places.max()) + 1, dtype=weights.dtype)
    for row, member in zip(shares, (is_expert_token, ~is_expert_token), strict=True):
        row.index_add_(0, places.flatten(), (weights * member).flatten())
    other = torch.where(is_expert_token, shares[1][places], shares[0][places])
    balanced = weights * other / shares.sum(0)[places].clamp(min=torch.finfo(weights.dtype).tiny)
    return balanced * (weights.sum() / balanced.sum()) if balanced.any() else balanced


def wasserstein(logits: Tensor, is_expert_token: Tensor, token_weights: Tensor) -> Tensor:
    """Wasserstein critic loss (appendix C.4): mean score of non-expert tokens minus that of expert tokens; scalar.

    ``token_weights`` as in ``discriminator_bce``. Needs a Lipschitz bound beside it: ``clip_weights`` or
    ``gradient_penalty``.
    """
    sign = torch.where(is_expert_token, -1.0, 1.0)
    return (sign * masked(logits.float(), token_weights > 0) * token_weights).sum()


def gradient_penalty(
    scores: Tensor, inputs: Tensor, response_mask: Tensor, lengths: Sequence[int] | None = None
) -> Tensor:
    """``mean (|d score / d input| - 1)^2`` over traces (Gulrajani et al. 2017); scalar.

    ``scores`` ``(B, T)`` must have been computed from ``inputs``, embeddings that require a gradient: ``(B, L, H)``, or
    those of traces of these ``lengths`` end to end in one row ``(1, L, H)``.
    """
    (gradient,) = torch.autograd.grad(masked(scores, response_mask).sum(), inputs, create_graph=True)
    traces = gradient if lengths is None else torch.split(gradient.squeeze(0), list(lengths))
    norm = torch.stack([trace.float().norm() for trace in traces])
    return (norm - 1.0).square().mean()


@torch.no_grad()
def clip_weights(parameters: list[Tensor], limit: float) -> None:
    """Clamp every parameter to ``[-limit, limit]`` in place (Arjovsky et al. 2017)."""
    for parameter in parameters:
        parameter.clamp_(-limit, limit)


def sequence_bce(logits: Tensor, response_mask: Tensor, targets: Tensor, trace_weights: Tensor) -> Tensor:
    """Sparse variant: binary cross-entropy of one label a trace ``(B,)`` at its last valid token; scalar."""
    final = last_valid(masked(logits.float(), response_mask), response_mask)
    loss = F.binary_cross_entropy_with_logits(final, targets.float(), reduction="none")
    return (loss * trace_weights).sum()


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_eps: float,
    num_traces: int,
) -> tuple[Tensor, Tensor]:
    """Eq. 6: ``-min(ratio A, clip(ratio, 1 - eps, 1 + eps) A)``: each trace's mean, summed, over ``num_traces``.

    Returns:
        ``(loss, clipped_share)``: scalars; the second is the share of kept tokens whose ratio left the interval.

    An advantage of exactly 0 is a value like any other: only ``response_mask`` says what counts.
    """
    ratio = masked(logprobs - old_logprobs, response_mask).exp()
    limited = ratio.clamp(1.0 - clip_eps, 1.0 + clip_eps)
    objective = torch.minimum(ratio * advantages, limited * advantages)
    loss = -masked_mean(objective, response_mask).sum() / num_traces
    outside = masked((ratio != limited).float(), response_mask)
    return loss, outside.sum().detach() / response_mask.sum().clamp(min=1)


def weighted_likelihood(logprobs: Tensor, token_weights: Tensor, response_mask: Tensor) -> Tensor:
    """Less the sum of the kept tokens' log-probabilities ``(B, T)``, times their final weights ``(B, T)``; scalar."""
    return -masked(logprobs * token_weights, response_mask).sum()


def kl_to_reference(logprobs: Tensor, reference_logprobs: Tensor, response_mask: Tensor, *, num_traces: int) -> Tensor:
    """The non-negative, unbiased estimate ``exp(d) - d - 1`` with ``d = log p_ref - log p`` (Schulman 2020); scalar."""
    difference = masked(reference_logprobs - logprobs, response_mask)
    return masked_mean(difference.exp() - difference - 1.0, response_mask).sum() / num_traces


def negative_log_likelihood(logprobs: Tensor, response_mask: Tensor, *, num_tokens: int) -> Tensor:
    """SFT: the negative log-likelihood of the kept tokens, over ``num_tokens``; scalar."""
    return -masked(logprobs, response_mask).sum() / num_tokens
