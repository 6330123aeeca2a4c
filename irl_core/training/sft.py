"""Supervised fine-tuning (SFT) on expert traces: the policy's start, and the baseline beside what the reward does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.models.batching import Batching
from irl_core.models.logprobs import completion_logprobs, hidden_states, prompt_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.training import losses
from irl_core.training.metrics import Metrics, timed
from irl_core.training.optimizer_step import Learner
from irl_core.types import EncodedTrace


@dataclass(slots=True, kw_only=True)
class SFTTrainer:
    """Maximum likelihood of the completions, and with ``prompt_loss_weight`` of the prompts.

    The prompt's part makes its likelihood a measure of how familiar a problem is. The attributes are those of
    ``irl_core.training.policy_step.PolicyTrainer``.
    """

    policy: Learner
    encoder: TraceEncoder
    config: TrainConfig
    world: World = field(default_factory=World)
    round_number: int = 0
    on_progress: Callable[[str], None] = lambda phase: None

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One optimiser step on a batch of expert traces, of which this process takes its share.

        Returns:
            What is logged, the same on every process.
        """
        settings = self.config.run
        completion_tokens = sum(len(trace.completion_ids) for trace in experts)
        prompt_tokens = sum(len(trace.prompt_ids) - 1 for trace in experts)
        own = self.world.share(experts)
        batching = Batching(self.encoder.pad_id, settings.batch_tokens, self.config.model.batch_layout)

        def loss_of(indices: list[int]) -> tuple[Tensor, Metrics]:
            self.on_progress("policy")
            batch = batching.collate([own[i] for i in indices]).to(self.policy.device)
            hidden = hidden_states(self.policy.model, batch)
            logprobs = completion_logprobs(self.policy.model, batch, hidden)
            loss = losses.negative_log_likelihood(logprobs, batch.response_mask, num_tokens=completion_tokens)
            logged = {"policy/loss": loss.item()}
            weight = self.config.policy.prompt_loss_weight
            if weight:
                prompts = prompt_logprobs(self.policy.model, batch, hidden)
                loss = loss - weight * prompts.sum() / prompt_tokens
            return loss, logged

        metrics: Metrics = {}
        with timed(metrics, "time/policy_s"):
            self.policy.model.train()
            dropout = random.Random(f"dropout-{settings.seed}-{self.round_number}-{self.world.rank}")
            torch.manual_seed(dropout.getrandbits(62))
            step = self.policy.update(own, batching, loss_of, self.config.policy.max_grad_norm, self.world)
        self.round_number += 1
        sizes = {"rollout/length": completion_tokens / len(experts), "train/tokens": float(completion_tokens)}
        return metrics | step.sums | sizes | {"policy/grad_norm": step.grad_norm}
