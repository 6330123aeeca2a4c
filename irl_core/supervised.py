"""Likelihood training on expert traces: the start of the policy, and the baseline (SFT) beside what the reward does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from irl_core import losses
from irl_core.adversarial import Learner, Metrics, timed
from irl_core.config import TrainConfig
from irl_core.encoding import Batch, TraceEncoder, collate, token_budget_batches
from irl_core.policy import completion_logprobs, hidden_states, logprobs_of_hidden
from irl_core.types import EncodedTrace


@dataclass(slots=True)
class SupervisedTrainer:
    """Maximum likelihood of the completion, and with ``prompt_loss_weight`` of the prompt (it makes the prompt's
    likelihood a measure of how familiar a problem is)."""

    policy: Learner
    encoder: TraceEncoder
    config: TrainConfig
    round_number: int = 0
    on_progress: Callable[[str], None] = lambda phase: None

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One optimiser step on a batch of expert traces."""
        metrics: Metrics = {}
        with timed(metrics, "time/policy_s"):
            self.policy.model.train()
            torch.manual_seed(self.config.run.seed + self.round_number)
            completion = sum(len(trace.completion_ids) for trace in experts)
            prompt = sum(len(trace.prompt_ids) - 1 for trace in experts)
            total = 0.0
            lengths = [len(trace.prompt_ids) + len(trace.completion_ids) for trace in experts]
            for indices in token_budget_batches(lengths, self.config.run.batch_tokens):
                batch = collate([experts[i] for i in indices], self.encoder.pad_id)
                batch = batch.to(next(self.policy.model.parameters()).device)
                loss, likelihood = self._loss(batch, completion, prompt)
                loss.backward()
                total += likelihood
            norm = self.policy.step(self.config.policy.max_grad_norm)
        self.round_number += 1
        return metrics | {"policy/loss": total, "policy/grad_norm": norm, "rollout/length": completion / len(experts)}

    def _loss(self, batch: Batch, completion_tokens: int, prompt_tokens: int) -> tuple[Tensor, float]:
        hidden = hidden_states(self.policy.model, batch)
        logprobs = completion_logprobs(self.policy.model, batch, hidden)
        loss = losses.negative_log_likelihood(logprobs, batch.response_mask, num_tokens=completion_tokens)
        weight = self.config.policy.prompt_loss_weight
        if weight:
            values = prompt_logprobs(self.policy.model, batch, hidden)
            return loss - weight * values.sum() / prompt_tokens, loss.item()
        return loss, loss.item()


def prompt_logprobs(model: object, batch: Batch, hidden: Tensor) -> Tensor:
    """``log p`` of the prompt tokens after the first, as one flat ``(N,)`` vector, row after row."""
    positions = torch.arange(batch.input_ids.shape[1] - 1, device=hidden.device).unsqueeze(0)
    inside = positions < (batch.starts - 1).unsqueeze(1)
    targets = batch.input_ids[:, 1:][inside]
    return logprobs_of_hidden(hidden[:, :-1][inside], model.get_output_embeddings(), targets)  # type: ignore[attr-defined]
