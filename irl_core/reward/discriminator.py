"""The reward model: a causal backbone with one logit on every token (arXiv 2510.01857, section 3).

Heads:
    ``linear``      ``logit_t = f(h_t)``, the paper's token classifier.
    ``anchored``    ``logit_t = f(h_t) + a log p(y_t | x, y_<t)``: the discriminator is told the likelihood and learns
                    what it does not explain (the structure of AIRL). ``a`` starts at 0.5, ``log p`` is clamped at -8.
    ``cumulative``  ``logit_t = f(h_0) + sum_{s<=t} (f(h_s) + a log p_s)``: credit is the primitive, the level its sum.
    ``implicit``    ``logit_t = b sum_{s<=t} (log p_s - log q_s)`` with the policy's probability q: the reward is the
                    model's own log-ratio to a reference (PRIME, arXiv 2502.01456); ``b`` is 0.05 and not learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.errors import CheckpointError
from irl_core.models.batching import Batch
from irl_core.models.logprobs import completion_logprobs, hidden_states
from irl_core.models.pretrained import BASE, load_causal_lm, read_base

HeadKind = Literal["linear", "anchored", "cumulative", "implicit"]
Likelihood = Literal["own", "policy"]
HEAD_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
HEAD, HEAD_WEIGHTS = "head.json", "head.safetensors"
SUMMED: tuple[HeadKind, ...] = ("cumulative", "implicit")  # a token's logit is a sum over those up to it
LOGPROB_FLOOR = -8.0
IMPLICIT_SCALE = 0.05
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
        if kind == "implicit":
            self.requires_grad_(False)
            self.anchor = nn.Parameter(torch.tensor(IMPLICIT_SCALE, dtype=torch.float32), requires_grad=False)
        elif kind != "linear":
            self.anchor = nn.Parameter(torch.tensor(INITIAL_ANCHOR, dtype=torch.float32))

    def forward(self, hidden: Tensor, prompt_hidden: Tensor, logprobs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(B, T)`` of the completion and ``(B,)`` of the last prompt token, from hidden states
        ``(B, T, H)`` and ``(B, H)`` and log-probabilities ``(B, T)`` (of ``implicit``: log-ratios)."""
        if self.kind == "implicit":
            ratios = torch.where(mask, logprobs, torch.zeros_like(logprobs))
            return self.anchor * ratios.cumsum(1), torch.zeros(len(mask), device=mask.device)
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
    """Logits ``(B, T)``, the prompt's logit ``(B,)`` (r_0 of the credit), the anchor's log-probabilities ``(B, T)``."""

    logits: Tensor
    prompt_logit: Tensor
    logprobs: Tensor


class Discriminator(nn.Module):
    """A causal LM kept whole (an anchored head reads its own next-token distribution) and a ``RewardHead``.

    Args:
        backbone: a transformers causal LM. kind: the head. likelihood: whose log p anchors the head, the
            discriminator's ``own`` or the ``policy``'s recorded one, which ``forward`` is then given, and which an
            ``implicit`` head sets its own against.

    Raises:
        ValueError: an unknown kind, or an implicit head without the policy's likelihood.
    """

    def __init__(self, backbone: Any, kind: HeadKind = "anchored", likelihood: Likelihood = "own") -> None:
        super().__init__()
        if kind == "implicit" and likelihood != "policy":
            raise ValueError(f"an implicit head is the log-ratio to the policy, and likelihood is {likelihood!r}")
        self.backbone = backbone
        self.likelihood = likelihood
        self.head = RewardHead(backbone.config.hidden_size, kind)

    def forward(
        self, batch: Batch, policy_logprobs: Tensor | None = None, embeddings: Tensor | None = None
    ) -> DiscriminatorOutput:
        """Rewards of a batch of traces.

        Args:
            batch: ``B`` traces in the discriminator's tokens.
            policy_logprobs: ``(B, T)``, which a head that reads the policy's likelihood needs.
            embeddings: ``(R, L, H)`` of the batch's input, where a gradient with respect to them is wanted.

        Raises:
            ValueError: the head is anchored to the policy's likelihood and ``policy_logprobs`` ``(B, T)`` is missing.
        """
        hidden = hidden_states(self.backbone, batch, embeddings)
        if self.head.kind == "linear":
            logprobs = torch.zeros(batch.response_mask.shape, device=hidden.device)
        elif self.likelihood == "own":
            logprobs = completion_logprobs(self.backbone, batch, hidden, once=embeddings is None)
        elif policy_logprobs is None:
            raise ValueError("the head is anchored to the policy's likelihood: pass policy_logprobs (B, T)")
        elif self.head.kind == "implicit":
            own = completion_logprobs(self.backbone, batch, hidden, once=embeddings is None)
            logprobs = own - policy_logprobs
        else:
            logprobs = policy_logprobs
        logits, prompt_logit = self.head(
            hidden[batch.completion_index], hidden[batch.prompt_index], logprobs, batch.response_mask
        )
        return DiscriminatorOutput(logits, prompt_logit, logprobs)


def anchored(discriminator: Discriminator, weight: float) -> Discriminator:
    """The same discriminator whose reward of a token is its logit plus ``weight`` times the policy's log-probability.

    A linear head learns ``logit = f - log p`` where the samples are the policy's (AIRL, Fu et al. 2018, section 4):
    what an expert's token has beyond the policy's. The policy is trained with that difference, but a text by anybody
    is judged by ``f``, which explains the expert alone. A weight below 1 trusts the likelihood less than the logit.

    Raises:
        ValueError: a head that is not linear.
    """
    old = discriminator.head
    if old.kind != "linear":
        raise ValueError(f"the head is {old.kind}; only a linear one can be given an anchor")
    head = RewardHead(old.linear.in_features, "anchored").to(old.linear.weight.device)
    head.linear.load_state_dict(old.linear.state_dict())
    head.anchor.data.fill_(weight)
    judge = Discriminator(discriminator.backbone, "anchored", "policy")
    judge.head = head
    return judge.train(discriminator.training)


def head_description(discriminator: Discriminator) -> dict[str, str]:
    """The contents of ``discriminator/head.json``."""
    return {"kind": discriminator.head.kind, "likelihood": discriminator.likelihood}


def read_head(directory: Path) -> tuple[HeadKind, Likelihood]:
    """Kind and likelihood of the head in a checkpoint's ``discriminator`` folder. Raises CheckpointError."""
    described = load_json(directory / HEAD)
    if described.get("kind") not in HEAD_KINDS or described.get("likelihood") not in get_args(Likelihood):
        raise CheckpointError(f"{HEAD}: {str(described)[:200]} is no known head; kinds are {', '.join(HEAD_KINDS)}")
    if described["kind"] == "implicit" and described["likelihood"] != "policy":
        raise CheckpointError(
            f"{HEAD}: an implicit head is the log-ratio to the policy, not to {described['likelihood']}"
        )
    return described["kind"], described["likelihood"]


def load_discriminator(
    directory: Path, device: str | torch.device = "cpu", backbone: Any | None = None
) -> Discriminator:
    """The discriminator in a (verified) checkpoint's ``discriminator`` folder, in evaluation mode; on the ``backbone``
    that was loaded from there already, where one is given.

    Raises:
        CheckpointError: the head is missing, incomplete, not in float32, or not one of a known kind; or the backbone is
            held in int8, where a trace's rewards would depend on the traces beside it: outlier columns are looked for
            over the whole batch.
    """
    kind, likelihood = read_head(directory)
    if (directory / BASE).is_file() and read_base(directory).quantisation == "int8":
        raise CheckpointError(
            "the discriminator's base is held in int8, in which a solution's rewards depend on the solutions beside "
            "it; train it with model.quantisation none or nf4"
        )
    tensors = load_tensors(directory / HEAD_WEIGHTS)
    odd = {str(value.dtype) for value in tensors.values()} - {"torch.float32"}
    if odd:
        raise CheckpointError(f"{HEAD_WEIGHTS} holds {', '.join(sorted(odd))}; a head is kept in float32")
    backbone = load_causal_lm(directory, device, merge="always") if backbone is None else backbone
    discriminator = Discriminator(backbone, kind, likelihood)
    try:
        discriminator.head.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{HEAD_WEIGHTS} does not fit a {kind} head: {error}") from error
    discriminator.head.to(device)
    return discriminator.eval()
