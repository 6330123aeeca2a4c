"""The reward model: a causal backbone with one logit on every token (arXiv 2510.01857, section 3).

Heads:
    ``linear``      ``logit_t = f(h_t)``, the paper's token classifier.
    ``anchored``    ``logit_t = f(h_t) + a log p(y_t | x, y_<t)``: the discriminator is told the likelihood and learns
                    what it does not explain (the structure of AIRL). ``a`` starts at 0.5, ``log p`` is clamped at -8.
    ``cumulative``  ``logit_t = f(h_0) + sum_{s<=t} (f(h_s) + a log p_s)``: credit is the primitive, the level its sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from irl_core.checkpoints.save import load_json, load_tensors
from irl_core.distributed import World
from irl_core.errors import CheckpointError
from irl_core.models.batching import Batch, Batching
from irl_core.models.logprobs import completion_logprobs, hidden_states
from irl_core.models.pretrained import load_causal_lm
from irl_core.models.token_alignment import carry_levels
from irl_core.models.tokenization import TraceEncoder
from irl_core.types import EncodedTrace, Floats

HeadKind = Literal["linear", "anchored", "cumulative"]
Likelihood = Literal["own", "policy"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
LOGPROB_FLOOR = -8.0
INITIAL_ANCHOR = 0.5


class RewardHead(nn.Module):
    """One linear layer and the anchor ``a``, in float32 whatever the backbone's precision.

    Args:
        hidden_size: width of the backbone. kind: see the module's docstring.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, hidden_size: int, kind: HeadKind) -> None:
        super().__init__()
        if kind not in HEAD_KINDS:
            raise ValueError(f"unknown head {kind!r}; choose one of {', '.join(HEAD_KINDS)}")
        self.kind = kind
        self.linear = nn.Linear(hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if kind != "linear":
            self.anchor = nn.Parameter(torch.tensor(INITIAL_ANCHOR, dtype=torch.float32))

    def forward(self, hidden: Tensor, prompt_hidden: Tensor, logprobs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, T)`` of the completion and ``(B,)`` of the last prompt token, from hidden states
        ``(B, T, H)`` and ``(B, H)`` and log-probabilities ``(B, T)``."""
        level = self.linear(hidden.float()).squeeze(-1)
        start = self.linear(prompt_hidden.float()).squeeze(-1)
        if self.kind == "linear":
            return level, start
        level = level + self.anchor * logprobs.clamp(min=LOGPROB_FLOOR)
        if self.kind == "anchored":
            return level, start
        increments = torch.where(mask, level, torch.zeros_like(level))
        return start.unsqueeze(1) + increments.cumsum(1), start


@dataclass(frozen=True, slots=True)
class DiscriminatorOutput:
    """``logits`` ``(B, T)``, ``prompt_logit`` ``(B,)`` (r_0 of the credit), ``logprobs`` ``(B, T)`` of the anchor."""

    logits: Tensor
    prompt_logit: Tensor
    logprobs: Tensor


class Discriminator(nn.Module):
    """A causal LM kept whole (an anchored head reads its own next-token distribution) and a ``RewardHead``.

    Args:
        backbone: a transformers causal LM. kind: the head. likelihood: whose log p anchors the head, the
            discriminator's ``own`` or the ``policy``'s recorded one, which ``forward`` is then given.
    """

    def __init__(self, backbone: Any, kind: HeadKind = "anchored", likelihood: Likelihood = "own") -> None:
        super().__init__()
        self.backbone = backbone
        self.likelihood = likelihood
        self.head = RewardHead(backbone.config.hidden_size, kind)

    def forward(
        self, batch: Batch, policy_logprobs: Tensor | None = None, embeddings: Tensor | None = None
    ) -> DiscriminatorOutput:
        """Rewards of a batch of traces; of input ``embeddings`` ``(B, L, H)`` where a gradient to them is wanted.

        Raises:
            ValueError: the head is anchored to the policy's likelihood and ``policy_logprobs`` ``(B, T)`` is missing.
        """
        hidden = hidden_states(self.backbone, batch, embeddings)
        logprobs = self._anchor(batch, hidden, policy_logprobs)
        logits, prompt_logit = self.head(
            hidden[batch.completion_index], hidden[batch.prompt_index], logprobs, batch.response_mask
        )
        return DiscriminatorOutput(logits, prompt_logit, logprobs)

    def _anchor(self, batch: Batch, hidden: Tensor, policy_logprobs: Tensor | None) -> Tensor:
        if self.head.kind == "linear":
            return torch.zeros(batch.response_mask.shape, device=hidden.device)
        if self.likelihood == "own":
            return completion_logprobs(self.backbone, batch, hidden)
        if policy_logprobs is None:
            raise ValueError("the head is anchored to the policy's likelihood: pass policy_logprobs (B, T)")
        return policy_logprobs


@torch.no_grad()
def score_traces(
    discriminator: Discriminator,
    policy: Any | None,
    encoded: Sequence[EncodedTrace],
    *,
    pad_id: int,
    batch_tokens: int = 8192,
    packing: bool = False,
    discriminator_encoder: TraceEncoder | None = None,
    world: World | None = None,
) -> list[tuple[Floats, Floats, float]]:
    """``(raw rewards (T,), log-probabilities (T,), prompt reward)`` of every trace, in order; one transfer a batch.

    The log-probabilities are the policy's: those recorded in sampling where the trace has them, else from one forward
    of ``policy``; with ``policy=None`` the discriminator's own. ``encoded`` is in the policy's tokens; a discriminator
    with tokens of its own (``discriminator_encoder``) reads those, and its rewards are carried over by characters.
    """
    discriminator.eval()
    device = next(discriminator.parameters()).device
    batching = Batching(pad_id, batch_tokens, packing)
    results: list[tuple[Floats, Floats, float] | None] = [None] * len(encoded)
    for indices, counts in (world or World()).even(batching.split(encoded)):
        chosen = [encoded[i] for i in indices]
        batch = batching.collate(chosen).to(device)
        logprobs = trace_logprobs(discriminator.backbone if policy is None else policy, chosen, batch, world)
        if discriminator_encoder is None:
            output = discriminator(batch, logprobs)
            levels, starts = output.logits.float().cpu().numpy(), output.prompt_logit.float().cpu().tolist()
        else:
            levels, starts = _carried(discriminator, discriminator_encoder, chosen, batching)
        values = logprobs.cpu().numpy()
        for row, index in enumerate(indices if counts else ()):
            length = len(encoded[index].completion_ids)
            raw, logprob = (np.ascontiguousarray(part[row][:length]) for part in (levels, values))
            results[index] = (raw, logprob, starts[row])
    return [result for result in results if result is not None]


def _carried(
    discriminator: Discriminator, encoder: TraceEncoder, encoded: Sequence[EncodedTrace], batching: Batching
) -> tuple[list[Floats], list[float]]:
    """Rewards read in the discriminator's own tokens, a row for each trace in the tokens of ``encoded``."""
    own = [encoder.encode(replace(trace.trace, token_ids=None, logprobs=None)) for trace in encoded]
    device = next(discriminator.parameters()).device
    output = discriminator(replace(batching, pad_id=encoder.pad_id).collate(own).to(device))
    levels, starts = output.logits.float().cpu().numpy(), output.prompt_logit.float().cpu().tolist()
    rows = zip(encoded, own, levels, starts, strict=True)
    return [carry_levels(level[: len(o.spans)], o.spans, e.spans, start) for e, o, level, start in rows], starts


@torch.no_grad()
def trace_logprobs(model: Any, encoded: Sequence[EncodedTrace], batch: Batch, world: World | None = None) -> Tensor:
    """``(B, T)`` log-probabilities: those recorded in sampling where a trace has them, else ``model``'s, which is not
    run where every trace has them (on any process of a sharded ``world``)."""
    rows = [trace.trace.logprobs for trace in encoded]
    width, device = batch.response_mask.shape[1], batch.input_ids.device
    recorded = torch.tensor([list(row or ()) + [0.0] * (width - len(row or ())) for row in rows], device=device)
    missing = [row is None for row in rows]
    if not (world or World()).must_pass(any(missing)):
        return recorded
    was_training = model.training
    model.eval()
    values = completion_logprobs(model, batch)
    model.train(was_training)
    return torch.where(torch.tensor(missing, device=device).unsqueeze(1), values, recorded)


def head_description(discriminator: Discriminator) -> dict[str, str]:
    """What ``discriminator/head.json`` says of a head."""
    return {"kind": discriminator.head.kind, "likelihood": discriminator.likelihood}


def read_head(directory: Path) -> tuple[HeadKind, Likelihood]:
    """Kind and likelihood of the head in a checkpoint's ``discriminator`` folder. Raises CheckpointError."""
    described = load_json(directory / HEAD)
    if described.get("kind") not in HEAD_KINDS or described.get("likelihood") not in get_args(Likelihood):
        raise CheckpointError(f"{HEAD}: {str(described)[:200]} is no known head; kinds are {', '.join(HEAD_KINDS)}")
    return described["kind"], described["likelihood"]


def load_discriminator(
    directory: Path, device: str | torch.device = "cpu", backbone: Any | None = None
) -> Discriminator:
    """The discriminator in a (verified) checkpoint's ``discriminator`` folder, in evaluation mode; on the ``backbone``
    that was loaded from there already, where one is given.

    Raises:
        CheckpointError: the head is missing, incomplete, not in float32, or not one of a known kind.
    """
    kind, likelihood = read_head(directory)
    tensors = load_tensors(directory / HEAD_WEIGHTS)
    odd = {str(value.dtype) for value in tensors.values()} - {"torch.float32"}
    if odd:
        raise CheckpointError(f"{HEAD_WEIGHTS} holds {', '.join(sorted(odd))}; a head is kept in float32")
    backbone = load_causal_lm(directory, device) if backbone is None else backbone
    discriminator = Discriminator(backbone, kind, likelihood)
    try:
        discriminator.head.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{HEAD_WEIGHTS} does not fit a {kind} head: {error}") from error
    discriminator.head.to(device)
    return discriminator.eval()
