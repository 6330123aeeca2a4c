"""A policy beside a process-reward model of others: rewards of traces in the policy's tokens, as of a model pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from irl_core.checkpoints.step_models import SPARSE
from irl_core.distributed import World
from irl_core.models.batching import Batching
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.localisation import token_steps
from irl_core.reward.step_model import MarkedText, StepModel
from irl_core.training.model_pair import TraceRewards, policy_reading
from irl_core.types import EncodedTrace, Floats, Trace


@dataclass(frozen=True, slots=True)
class StepPair:
    """A policy, whose tokens and log-probabilities traces have, and the process-reward model that judges the steps."""

    policy: Any
    model: StepModel
    encoder: TraceEncoder
    batch_tokens: int = 8192

    @torch.no_grad()
    def score(self, traces: Sequence[EncodedTrace]) -> list[TraceRewards]:
        """Rewards of every trace, in order: each token has the logit of its step; the reward before the first is 0."""
        logprobs: dict[int, Floats] = {}
        prompts: dict[int, float] = {}
        batching = Batching(self.encoder.pad_id, self.batch_tokens)
        for indices in batching.split(traces):
            chosen = [traces[index] for index in indices]
            batch = batching.collate(chosen).to(self.policy.device)
            read = policy_reading(self.policy, chosen, batch, World(), prompts=True)
            if read.prompts is not None:
                prompts |= zip(indices, read.prompts.tolist(), strict=True)
            values = read.logprobs.cpu().numpy()
            for row, index in enumerate(indices):
                logprobs[index] = np.ascontiguousarray(values[row][: len(traces[index].completion_ids)])
        judged = self.judged([read_by(self.model, one.trace) for one in traces])
        sparse = self.model.layout in SPARSE
        return [
            TraceRewards(levels(one, logits, sparse), logprobs[index], 0.0, prompts.get(index))
            for index, (one, logits) in enumerate(zip(traces, judged, strict=True))
        ]

    def judged(self, texts: Sequence[MarkedText]) -> list[list[float]]:
        """The logits of the texts' steps, computed in batches of texts of about the same length."""
        found: dict[int, list[float]] = {}
        batch: list[int] = []
        for index in sorted(range(len(texts)), key=lambda index: len(texts[index].ids)):
            if batch and (len(batch) + 1) * len(texts[index].ids) > self.batch_tokens:
                found |= zip(batch, self.model.judge([texts[one] for one in batch]), strict=True)
                batch = []
            batch.append(index)
        found |= zip(batch, self.model.judge([texts[one] for one in batch]), strict=True)
        return [found[index] for index in range(len(texts))]


def read_by(model: StepModel, trace: Trace) -> MarkedText:
    """A trace as a process-reward model reads it; a blank step is not read. Raises InputError."""
    return model.reader.read(trace.problem.strip(), [step.text.strip() for step in trace.steps if step.text.strip()])


def levels(encoded: EncodedTrace, logits: Sequence[float], sparse: bool) -> Floats:
    """The logits of steps as levels ``(T,)`` of the trace's tokens; a token between steps has that of the step before.

    ``sparse``: the one logit is the whole trace's, and stands on its last step alone; what is before it has 0.
    """
    steps = encoded.trace.steps
    judged = iter(logits)
    last = max((number for number, step in enumerate(steps) if step.text.strip()), default=0)
    of_step, value = [], 0.0
    for number, step in enumerate(steps):
        if step.text.strip():
            value = (logits[0] if number == last else 0.0) if sparse else next(judged)
        of_step.append(value)
    places = token_steps(encoded.spans, steps)
    places = np.maximum.accumulate(places) if len(places) else places
    return np.array([of_step[max(place, 0)] for place in places], dtype=np.float32)
