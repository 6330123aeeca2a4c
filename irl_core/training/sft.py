"""Likelihood training on expert traces: the start of the policy, and the baseline (SFT) beside what the reward does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.models.batching import Batch, Batching
from irl_core.models.logprobs import completion_logprobs, hidden_states, prompt_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.training import losses
from irl_core.training.metrics import Metrics, timed, totals
from irl_core.training.optimizer_step import Learner
from irl_core.types import EncodedTrace


@dataclass(slots=True)
class SupervisedTrainer:
    """Maximum likelihood of the completion, and with ``prompt_loss_weight`` of the prompt (it makes the prompt's
    likelihood a measure of how familiar a problem is)."""

    policy: Learner
    encoder: TraceEncoder
    config: TrainConfig
    world: World = field(default_factory=World)
    round_number: int = 0
    on_progress: Callable[[str], None] = lambda phase: None

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One optimiser step on a batch of expert traces, of which this process takes its share."""
        metrics: Metrics = {}
        settings = self.config.run
        with timed(metrics, "time/policy_s"):
            self.policy.model.train()
            dropout = random.Random(f"dropout-{settings.seed}-{self.round_number}-{self.world.rank}")
            torch.manual_seed(dropout.getrandbits(62))
            completion = sum(len(trace.completion_ids) for trace in experts)
            prompt = sum(len(trace.prompt_ids) - 1 for trace in experts)
            own = self.world.share(experts)
            batching = Batching(self.encoder.pad_id, settings.batch_tokens, self.config.model.packing)
            sums = {"policy/loss": 0.0}
            for indices, counts in self.world.even(batching.split(own)):
                self.on_progress("policy")
                batch = batching.collate([own[i] for i in indices]).to(self.policy.device)
                loss, likelihood = self._loss(batch, completion, prompt)
                self.policy.backward(loss if counts else 0.0 * loss)
                sums["policy/loss"] += likelihood if counts else 0.0
            norm = self.policy.step(self.config.policy.max_grad_norm, self.world)
        self.round_number += 1
        sizes = {"rollout/length": completion / len(experts), "train/tokens": float(completion)}
        return metrics | totals(sums, self.world) | sizes | {"policy/grad_norm": norm}

    def _loss(self, batch: Batch, completion_tokens: int, prompt_tokens: int) -> tuple[Tensor, float]:
        hidden = hidden_states(self.policy.model, batch)
        logprobs = completion_logprobs(self.policy.model, batch, hidden)
        loss = losses.negative_log_likelihood(logprobs, batch.response_mask, num_tokens=completion_tokens)
        weight = self.config.policy.prompt_loss_weight
        if weight:
            values = prompt_logprobs(self.policy.model, batch, hidden)
            return loss - weight * values.sum() / prompt_tokens, loss.item()
        return loss, loss.item()
