"""Algorithm 1 of arXiv 2510.01857: the adversarial loop, one round of it on a screen (``AdversarialTrainer.round``).

The trainer is given a policy, a discriminator, an encoder and two optimisers; it knows no device, no quantisation and
no file. All randomness of round ``n`` is derived from ``(seed, n)``: a resumed run repeats an unbroken one.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from irl_core import losses, rewards
from irl_core.config import DiscriminatorConfig, TrainConfig
from irl_core.departure import departed_token, departure, first_difference
from irl_core.discriminator import Discriminator, DiscriminatorOutput, score_traces, trace_logprobs
from irl_core.encoding import Batch, TraceEncoder, collate, token_budget_batches
from irl_core.perturbations import corrupt
from irl_core.policy import completion_logprobs, sample
from irl_core.segmentation import make_trace
from irl_core.types import EncodedTrace, Source, Trace

Metrics = dict[str, float]
CLASS_OF = {Source.EXPERT: 0, Source.POLICY: 1, Source.PERTURBED: 2}
CLASS_NAMES = ("expert", "policy", "perturbed")


@dataclass(frozen=True, slots=True)
class Group:
    """One problem of a round: its expert trace and the policy's samples."""

    expert: EncodedTrace
    samples: tuple[EncodedTrace, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A trace as the discriminator learns from it; ``departure``: first token that is not the expert's (see losses)."""

    encoded: EncodedTrace
    departure: int = 0


@dataclass(slots=True)
class Learner:
    """A model with its optimiser and schedule."""

    model: Any
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler

    def step(self, max_grad_norm: float) -> float:
        """Clip, update, advance the schedule; returns the gradient's norm before clipping.

        Raises:
            FloatingPointError: the gradient is not finite; the model is left as it was.
        """
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm}; lower the learning rate and resume")
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


@dataclass(slots=True)
class AdversarialTrainer:
    """Alternates discriminator and policy updates.

    The method ``grpo`` rewards correctness in place of the learned reward and leaves the discriminator alone.
    ``replay`` keeps earlier rounds' samples, which stay negatives for the discriminator.
    """

    policy: Learner
    discriminator: Learner
    encoder: TraceEncoder
    config: TrainConfig
    reference: Any | None = None
    round_number: int = 0
    replay: deque[Example] = field(default_factory=deque)
    on_progress: Callable[[str], None] = lambda phase: None

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One round on a batch of expert traces (their problems are the prompts); returns what is logged."""
        rng = random.Random(f"perturb-{self.config.run.seed}-{self.round_number}")
        torch.manual_seed(self._seed("dropout"))
        metrics: Metrics = {}
        with timed(metrics, "time/generate_s"):
            groups = self.sample_groups(experts)
        with timed(metrics, "time/discriminator_s"):
            if self.learns_reward:
                metrics |= self.update_discriminator(self.examples(groups, rng))
        if not self.learns_reward or self.round_number >= self.config.discriminator.warmup_rounds:
            with timed(metrics, "time/score_s"):
                batch_rewards = self.score(groups)
            with timed(metrics, "time/policy_s"):
                metrics |= self.update_policy(batch_rewards)
        metrics |= rollout_metrics(groups)
        self.round_number += 1
        return metrics

    @property
    def learns_reward(self) -> bool:
        return self.config.run.method == "irl"

    def _seed(self, purpose: str) -> int:
        return random.Random(f"{purpose}-{self.config.run.seed}-{self.round_number}").getrandbits(62)

    # -- samples and negatives ---------------------------------------------------------------------------------

    def sample_groups(self, experts: Sequence[EncodedTrace]) -> list[Group]:
        """``num_generations`` samples of each expert's problem; ids and log-probabilities are kept from sampling."""
        settings = self.config.policy
        rollouts = sample(
            self.policy.model,
            [expert.prompt_ids for expert in experts],
            num_samples=settings.num_generations,
            max_new_tokens=self.config.data.max_completion_tokens,
            end_ids=self.encoder.end_ids,
            pad_id=self.encoder.pad_id,
            generator=torch.Generator(next(self.policy.model.parameters()).device).manual_seed(self._seed("sample")),
            temperature=settings.temperature,
            top_p=settings.top_p,
            on_step=lambda done, total: self.on_progress("sampling"),
        )
        return [
            Group(expert, tuple(self._encode_rollout(expert.trace, r.token_ids, r.logprobs) for r in rows))
            for expert, rows in zip(experts, rollouts, strict=True)
        ]

    def _encode_rollout(self, expert: Trace, ids: Sequence[int], logprobs: Sequence[float]) -> EncodedTrace:
        trace = self.encoder.sampled_trace(
            expert.problem, ids, logprobs, problem_id=expert.problem_id, reference_answer=expert.reference_answer
        )
        return self.encoder.encode(trace)

    def examples(self, groups: Sequence[Group], rng: random.Random) -> list[Example]:
        """Expert, policy (this round's and replayed) and perturbed traces with their points of departure."""
        settings = self.config.discriminator
        current = [Example(s, self._policy_departure(g.expert, s)) for g in groups for s in g.samples]
        old = rng.sample(list(self.replay), min(len(self.replay), int(settings.replay * len(current))))
        if settings.replay:
            self.replay.extend(current)
            while len(self.replay) > settings.replay_capacity:
                self.replay.popleft()
        perturbed = [e for g in groups for e in self.perturbed(g, rng)]
        return [Example(g.expert) for g in groups] + current + old + perturbed

    def _policy_departure(self, expert: EncodedTrace, sampled: EncodedTrace) -> int:
        labels = self.config.discriminator.policy_labels
        if labels == "whole_trace":
            return 0
        if labels == "from_departed_equation":
            return departed_token(sampled.spans, departure(expert.trace.text, sampled.trace.text))
        return first_difference(sampled.completion_ids, expert.completion_ids)

    def perturbed(self, group: Group, rng: random.Random) -> Iterator[Example]:
        """Corrupted copies of the expert trace and of one sample, but not what does not apply or gives the expert."""
        kinds = tuple(self.config.discriminator.perturbations)
        for original in (group.expert, rng.choice(group.samples)) if kinds else ():
            change = corrupt(original.trace, rng, kinds)
            if change is None or change.text == group.expert.trace.text:
                continue
            changed = make_trace(
                original.trace.problem, change.text, source=Source.PERTURBED, finished=original.trace.finished
            )
            encoded = self.encoder.encode(changed)
            from_start = original is not group.expert or self.config.discriminator.perturbation_labels == "whole_trace"
            departure = 0 if from_start else first_difference(encoded.completion_ids, original.completion_ids)
            yield Example(encoded, departure)

    # -- discriminator -----------------------------------------------------------------------------------------

    def update_discriminator(self, examples: Sequence[Example]) -> Metrics:
        """``updates_per_round`` steps on the round's traces, micro-batched by a token budget."""
        model, settings = self.discriminator.model, self.config.discriminator
        classes = torch.tensor([CLASS_OF[e.encoded.trace.source] for e in examples])
        lengths = torch.tensor([len(e.encoded.completion_ids) for e in examples])
        departures = torch.tensor([e.departure for e in examples])
        shares = dict(enumerate(settings.class_weights.as_tuple()))
        weights = losses.segment_weights(classes, lengths, departures, shares)
        if settings.loss == "sequence":
            weights = losses.balanced_weights(classes, shares).unsqueeze(1)
        model.train()
        metrics: Metrics = {}
        for _ in range(settings.updates_per_round):
            logits: list[tuple[int, float]] = []
            total = 0.0
            for indices in self._micro_batches([e.encoded for e in examples]):
                chosen = [examples[i] for i in indices]
                loss, means = self._discriminator_loss(chosen, weights[indices], len(examples))
                loss.backward()
                total += loss.item()
                logits += zip(classes[indices].tolist(), means.tolist(), strict=True)
            metrics = {"disc/loss": total, "disc/grad_norm": self.discriminator.step(settings.max_grad_norm)}
            if settings.loss == "wasserstein" and settings.weight_clip:
                losses.clip_weights(list(model.head.parameters()), settings.weight_clip)
        return metrics | class_metrics(logits)

    def _discriminator_loss(self, examples: Sequence[Example], weights: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """The micro-batch's part of the loss of ``total`` examples, and each trace's mean logit."""
        settings, device = self.config.discriminator, next(self.discriminator.model.parameters()).device
        encoded = [e.encoded for e in examples]
        batch = collate(encoded, self.encoder.pad_id).to(device)
        embeddings = self._embeddings(batch) if settings.gradient_penalty else None
        output = self._discriminate(encoded, batch, embeddings)
        expert = torch.tensor([e.encoded.trace.source is Source.EXPERT for e in examples], device=device)
        departure = torch.tensor([e.departure for e in examples], device=device)
        loss = classification_loss(output.logits, batch.response_mask, expert, departure, weights.to(device), settings)
        if settings.likelihood_weight and expert.any():
            own = rewards.masked_mean(output.logprobs, batch.response_mask)[expert].sum()
            loss = loss - settings.likelihood_weight * own / self.config.policy.prompts_per_round
        if embeddings is not None:
            penalty = losses.gradient_penalty(output.logits, embeddings, batch.response_mask)
            loss = loss + settings.gradient_penalty * penalty * len(examples) / total
        return loss, rewards.masked_mean(output.logits.detach(), batch.response_mask)

    def _embeddings(self, batch: Batch) -> Tensor:
        embed = self.discriminator.model.backbone.get_input_embeddings()
        return embed(batch.input_ids).detach().requires_grad_()

    def _discriminate(
        self, encoded: Sequence[EncodedTrace], batch: Batch, embeddings: Tensor | None
    ) -> DiscriminatorOutput:
        model: Discriminator = self.discriminator.model
        recorded = trace_logprobs(self.policy.model, encoded, batch) if model.likelihood == "policy" else None
        if embeddings is None:
            return model(batch, recorded)
        with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
            return model(batch, recorded, embeddings)

    # -- rewards and policy ------------------------------------------------------------------------------------

    def score(self, groups: Sequence[Group]) -> ScoredBatch:
        """Rewards of every sample (and expert trace, where it joins the group) and the advantages they give."""
        traces: list[EncodedTrace] = []
        group_ids: list[int] = []
        for number, group in enumerate(groups):
            members = (*group.samples, group.expert) if self.config.policy.expert_in_group else group.samples
            traces += members
            group_ids += [number] * len(members)
        ids = torch.tensor(group_ids)
        mask = collate(traces, self.encoder.pad_id).response_mask
        if not self.learns_reward:
            return ScoredBatch(traces, mask, outcome_advantages(traces, ids, mask))
        scores = score_traces(
            self.discriminator.model, self.policy.model, traces,
            pad_id=self.encoder.pad_id, batch_tokens=self.config.run.batch_tokens,
        )  # fmt: skip
        raw = torch.zeros(mask.shape)
        for row, (values, _, _) in enumerate(scores):
            raw[row, : len(values)] = torch.from_numpy(values)
        prompt_reward = torch.tensor([start for _, _, start in scores])
        gains = self.advantages(raw, mask, ids, prompt_reward)
        return ScoredBatch(traces, mask, torch.where(gains < 0, self.config.policy.negative_weight * gains, gains))

    def advantages(self, raw: Tensor, mask: Tensor, group_ids: Tensor, prompt_reward: Tensor) -> Tensor:
        """Token advantages ``(B, T)`` by the configured rule (see ``PolicyConfig``)."""
        settings = self.config.policy
        values = rewards.token_rewards(raw)
        if settings.advantage == "trace":
            scores = rewards.trace_score(
                values, mask, settings.trace_score, prompt_reward=prompt_reward, gamma=settings.gamma
            )
            return trace_advantages(scores, group_ids, mask, over_batch=settings.standardise_over == "batch")
        if settings.advantage == "credit":
            values = rewards.credit(values, mask, prompt_reward)
        if settings.standardise_over in ("last", "all"):
            mean, std = rewards.group_statistics(values, mask, group_ids, settings.standardise_over)
            if settings.baseline == "leave_one_out":
                mean = rewards.leave_one_out_baseline(rewards.masked_mean(values, mask), group_ids)
            values = rewards.standardise(values, mask, mean, std)
        if settings.advantage == "minimum":
            return rewards.discount(rewards.minimum_form(values, mask), mask, 1.0)
        return rewards.discount(values, mask, settings.gamma)

    def update_policy(self, scored: ScoredBatch) -> Metrics:
        """``updates_per_round`` clipped-surrogate steps (eq. 6) on samples and expert traces."""
        settings, model = self.config.policy, self.policy.model
        model.train()
        old: dict[int, Tensor] = {}
        metrics: Metrics = {"policy/advantage_abs": float(scored.advantages[scored.mask].abs().mean())}
        for _ in range(settings.updates_per_round):
            total = clipped = 0.0
            for indices in self._micro_batches(scored.traces):
                loss, share = self._policy_loss(scored, indices, old)
                loss.backward()
                total += loss.item()
                clipped += share * len(indices) / len(scored.traces)
            norm = self.policy.step(settings.max_grad_norm)
            metrics |= {"policy/loss": total, "policy/clip_fraction": clipped, "policy/grad_norm": norm}
        return metrics

    def _policy_loss(self, scored: ScoredBatch, indices: Sequence[int], old: dict[int, Tensor]) -> tuple[Tensor, float]:
        settings = self.config.policy
        chosen = [scored.traces[i] for i in indices]
        batch = collate(chosen, self.encoder.pad_id).to(next(self.policy.model.parameters()).device)
        width = batch.response_mask.shape[1]
        logprobs = completion_logprobs(self.policy.model, batch, temperature=settings.temperature)
        # The first pass is the sampling policy itself: its ratio is exactly 1, free of recomputation error.
        previous = old.setdefault(indices[0], logprobs.detach())
        loss, share = losses.clipped_surrogate(
            logprobs, previous, scored.advantages[indices, :width].to(logprobs.device), batch.response_mask,
            clip_eps=settings.clip_eps, num_traces=len(scored.traces),
        )  # fmt: skip
        if settings.kl_coefficient and self.reference is not None:
            with torch.no_grad():
                reference = completion_logprobs(self.reference, batch, temperature=settings.temperature)
            penalty = losses.kl_to_reference(logprobs, reference, batch.response_mask, num_traces=len(scored.traces))
            loss = loss + settings.kl_coefficient * penalty
        return loss, float(share)

    def _micro_batches(self, encoded: Sequence[EncodedTrace]) -> list[list[int]]:
        lengths = [len(trace.prompt_ids) + len(trace.completion_ids) for trace in encoded]
        return token_budget_batches(lengths, self.config.run.batch_tokens)


def classification_loss(
    logits: Tensor, mask: Tensor, expert: Tensor, departure: Tensor, weights: Tensor, settings: DiscriminatorConfig
) -> Tensor:
    """The configured loss of logits ``(B, T)``; ``weights`` are those of ``losses.segment_weights`` (``sequence``: of
    whole traces, ``(B, 1)``). A trace counts as two: the expert's part and what comes after its departure."""
    if settings.loss == "sequence":
        labels = torch.where(expert, settings.target_expert, settings.target_other)
        return losses.sequence_bce(logits, mask, labels, weights[:, 0])
    is_expert = losses.expert_tokens(expert, departure, mask.shape[1])
    parts, part_weights = torch.cat([mask & is_expert, mask & ~is_expert]), weights.t().reshape(-1)
    if settings.loss == "wasserstein":
        return losses.wasserstein(logits.repeat(2, 1), parts, is_expert.repeat(2, 1), part_weights)
    targets = torch.where(is_expert, settings.target_expert, settings.target_other)
    return losses.discriminator_bce(logits.repeat(2, 1), parts, targets.repeat(2, 1), part_weights)


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The traces of a policy update with ``mask`` and ``advantages`` ``(B, T)``."""

    traces: list[EncodedTrace]
    mask: Tensor
    advantages: Tensor


def outcome_advantages(traces: Sequence[EncodedTrace], group_ids: Tensor, mask: Tensor) -> Tensor:
    """GRPO's outcome supervision: correctness standardised within the group, on every token; ``(B, T)``."""
    outcome = torch.tensor([float(trace.trace.correct is not False) for trace in traces])
    return trace_advantages(outcome, group_ids, mask)


def trace_advantages(scores: Tensor, group_ids: Tensor, mask: Tensor, *, over_batch: bool = False) -> Tensor:
    """Scores ``(B,)`` standardised within their groups, on every token of the trace; ``(B, T)``.

    ``over_batch`` takes the group's mean, but one spread for the whole batch: a group whose samples hardly differ is
    then not blown up into noise.
    """
    column = scores.unsqueeze(1)
    whole = torch.ones_like(column, dtype=torch.bool)
    mean, std = rewards.group_statistics(column, whole, group_ids, "all")
    if over_batch:
        std = (column.squeeze(1) - mean).square().mean().sqrt().expand_as(std)
    return rewards.masked(rewards.standardise(column, whole, mean, std).expand(mask.shape), mask)


def rollout_metrics(groups: Sequence[Group]) -> Metrics:
    """What the round's samples were like."""
    samples = [sample.trace for group in groups for sample in group.samples]
    tokens = sum(len(trace.token_ids or ()) for trace in samples)
    return {
        "rollout/correct": sum(bool(trace.correct) for trace in samples) / len(samples),
        "rollout/truncated": sum(not trace.finished for trace in samples) / len(samples),
        "rollout/length": tokens / len(samples),
    }


def class_metrics(logits: Sequence[tuple[int, float]]) -> Metrics:
    """Mean reward and accuracy (sign of the mean logit) of each class of traces."""
    metrics: Metrics = {}
    for number, name in enumerate(CLASS_NAMES):
        values = [value for cls, value in logits if cls == number]
        if values:
            right = sum((value > 0) == (number == 0) for value in values)
            metrics |= {f"disc/reward_{name}": sum(values) / len(values), f"disc/accuracy_{name}": right / len(values)}
    return metrics


@contextmanager
def timed(metrics: Metrics, key: str) -> Iterator[None]:
    """Add the seconds that the block takes to ``metrics[key]``."""
    started = time.perf_counter()
    yield
    metrics[key] = metrics.get(key, 0.0) + time.perf_counter() - started
