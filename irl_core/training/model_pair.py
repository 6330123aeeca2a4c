"""A policy and its discriminator with their encoders: rewards of traces, for training, calibration and inspection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irl_core.distributed import World
from irl_core.models.batching import Batch, Batching, BatchLayout
from irl_core.models.logprobs import completion_logprobs, hidden_states, mean_prompt_logprobs
from irl_core.models.token_alignment import carry_levels
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator
from irl_core.types import EncodedTrace, Floats


@dataclass(frozen=True, slots=True)
class TraceRewards:
    """What a model pair says of the ``T`` completion tokens of one trace.

    Attributes:
        raw: ``(T,)`` float32, the discriminator's logit at each token, which is its reward (eq. 4).
        logprobs: ``(T,)`` float32, the policy's log-probability of each token, in nats.
        prompt_reward: the logit at the last prompt token, r_0 of the credit.
        prompt_logprob: the policy's mean log-probability of the prompt's tokens, in nats; None where it was not asked
            for, or the policy did not run.
    """

    raw: Floats
    logprobs: Floats
    prompt_reward: float
    prompt_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class ModelPair:
    """A policy and a discriminator that score traces together.

    Attributes:
        policy: a transformers causal LM.
        discriminator: the reward model.
        encoder: the policy's encoder. Traces are given, and rewards returned, in its tokens.
        discriminator_encoder: ``encoder`` itself, or the discriminator's own where it has another vocabulary.
        batch_tokens: most tokens of a batch, padding included.
        batch_layout: how traces stand in a batch, see ``irl_core.models.batching``.
        reads_prompts: whether ``score`` also tells how likely the prompts are.
        world: the data-parallel processes. Where weights are sharded, all of them must call ``score`` together.
    """

    policy: Any
    discriminator: Discriminator
    encoder: TraceEncoder
    discriminator_encoder: TraceEncoder
    batch_tokens: int = 8192
    batch_layout: BatchLayout = "padded"
    reads_prompts: bool = False
    world: World = field(default_factory=World)

    @property
    def shares_tokens(self) -> bool:
        """Whether the discriminator reads the policy's tokens."""
        return self.discriminator_encoder is self.encoder

    @property
    def discriminator_batching(self) -> Batching:
        """How traces in the discriminator's tokens become batches."""
        return Batching(self.discriminator_encoder.pad_id, self.batch_tokens, self.batch_layout)

    def in_discriminator_tokens(self, encoded: EncodedTrace) -> EncodedTrace:
        """The trace in the discriminator's tokens; the same object where both models share them."""
        if self.shares_tokens:
            return encoded
        return self.discriminator_encoder.encode(replace(encoded.trace, token_ids=None, logprobs=None))

    @torch.no_grad()
    def score(self, traces: Sequence[EncodedTrace]) -> list[TraceRewards]:
        """Rewards of every trace, in order; one transfer to the host for each batch.

        The log-probabilities are those recorded in sampling where a trace has them, else from a forward pass of the
        policy. A discriminator with a vocabulary of its own reads its own tokens; its rewards are then carried over
        to the policy's by characters.
        """
        self.discriminator.eval()
        device = next(self.discriminator.parameters()).device
        batching = Batching(self.encoder.pad_id, self.batch_tokens, self.batch_layout)
        results: dict[int, TraceRewards] = {}
        for indices, counts in self.world.even(batching.split(traces)):
            chosen = [traces[i] for i in indices]
            batch = batching.collate(chosen).to(device)
            read = policy_reading(self.policy, chosen, batch, self.world, prompts=self.reads_prompts)
            logprobs, prompts = read.logprobs, None if read.prompts is None else read.prompts.tolist()
            own = chosen if self.shares_tokens else [self.in_discriminator_tokens(trace) for trace in chosen]
            own_batch = batch if self.shares_tokens else self.discriminator_batching.collate(own).to(device)
            output = self.discriminator(own_batch, logprobs if self.shares_tokens else None)
            levels, starts = output.logits.float().cpu().numpy(), output.prompt_logit.float().cpu().tolist()
            values = logprobs.cpu().numpy()
            for row, index in enumerate(indices if counts else ()):
                raw, length = levels[row], len(chosen[row].completion_ids)
                if not self.shares_tokens:
                    raw = carry_levels(raw[: len(own[row].spans)], own[row].spans, chosen[row].spans, starts[row])
                kept, logprob = (np.ascontiguousarray(part[:length]) for part in (raw, values[row]))
                results[index] = TraceRewards(kept, logprob, starts[row], None if prompts is None else prompts[row])
        return [results[index] for index in range(len(traces))]


class PolicyReading(NamedTuple):
    """What the policy makes of a batch.

    Attributes:
        logprobs: ``(B, T)``, of the completion tokens.
        prompts: ``(B,)``, mean log-probability of the prompt tokens after the first; None where it was not asked for,
            or the policy did not run.
    """

    logprobs: Tensor
    prompts: Tensor | None


def trace_logprobs(model: Any, encoded: Sequence[EncodedTrace], batch: Batch, world: World) -> Tensor:
    """The log-probabilities of `policy_reading` alone."""
    return policy_reading(model, encoded, batch, world).logprobs


@torch.no_grad()
def policy_reading(
    model: Any, encoded: Sequence[EncodedTrace], batch: Batch, world: World, *, prompts: bool = False
) -> PolicyReading:
    """Log-probabilities of completion tokens: those recorded in sampling, or ``model``'s of other traces.

    ``model`` is not run where every trace (with sharded weights: of every process) has recorded ones.
    ``prompts``: where it runs, how likely the prompts are too.
    """
    rows = [trace.trace.logprobs for trace in encoded]
    width, device = batch.response_mask.shape[1], batch.input_ids.device
    recorded = torch.tensor([list(row or ()) + [0.0] * (width - len(row or ())) for row in rows], device=device)
    missing = [row is None for row in rows]
    if not world.must_pass(any(missing)):
        return PolicyReading(recorded, None)
    was_training = model.training
    model.eval()
    hidden = hidden_states(model, batch)
    values = completion_logprobs(model, batch, hidden)
    likely = mean_prompt_logprobs(model, batch, hidden) if prompts else None
    model.train(was_training)
    return PolicyReading(torch.where(torch.tensor(missing, device=device).unsqueeze(1), values, recorded), likely)
