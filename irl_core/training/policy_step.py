"""The policy's side of a round, shared by IRL and GRPO: groups of samples, and updates by advantages or ranking."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.models.batching import Batching
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.protocol import Sampler
from irl_core.reward.rewards import masked
from irl_core.training import losses
from irl_core.training.groups import Group, GroupMembers, samples_of
from irl_core.training.metrics import Metrics, rollout_metrics, timed, totals
from irl_core.training.optimizer_step import Learner
from irl_core.training.ranking import Ranking, preferences
from irl_core.types import EncodedTrace, Trace


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The traces of a policy step on this process.

    Attributes:
        traces: ``B`` traces in the policy's tokens.
        mask: ``(B, T)`` bool, True at completion tokens.
        advantages: ``(B, T)`` float32.
        zero_spread_groups: number of groups whose advantages are 0 throughout, which teach nothing.
        ranking: of the traces in their groups, for an ``update`` that asks for it.
    """

    traces: list[EncodedTrace]
    mask: Tensor
    advantages: Tensor
    zero_spread_groups: int = 0
    ranking: Ranking | None = None

    def only(self, wanted: Tensor) -> ScoredBatch:
        """The ``wanted`` traces, ``(B,)`` bool; the first where there are none, for every process takes a step."""
        rows = wanted.nonzero().flatten() if wanted.any() else torch.zeros(1, dtype=torch.long)
        traces, ranking = [self.traces[row] for row in rows.tolist()], self.ranking and self.ranking.only(rows)
        return ScoredBatch(traces, self.mask[rows], self.advantages[rows], self.zero_spread_groups, ranking)


def ranked_batch(members: GroupMembers, ranking: Ranking) -> ScoredBatch:
    """The members of groups with their ranking in place of advantages, which are 0."""
    groups = len(torch.unique(members.group_ids)) - round(ranking.groups)
    return ScoredBatch(members.traces, members.mask, torch.zeros(members.mask.shape), groups, ranking)


@dataclass(slots=True, kw_only=True)
class PolicyTrainer:
    """A policy that learns from rewards of its own samples; ``AdversarialTrainer`` and ``GRPOTrainer`` say which.

    It knows no device, no quantisation and no file. All randomness of round ``n`` is derived from
    ``(run.seed, n, number of the group)``: a resumed training repeats an unbroken one, and two processes take the
    step that one would.

    Attributes:
        policy: the model that is sampled and trained.
        encoder: its encoder.
        config: the training's settings.
        sampler: draws completions from the policy.
        reference: the policy's frozen start, where the KL penalty or ``preferences`` ask for one.
        world: the data-parallel processes.
        round_number: number of rounds done.
        on_progress: called with the phase as a round goes on.
        groups: those of the last round on this process.
    """

    policy: Learner
    encoder: TraceEncoder
    config: TrainConfig
    sampler: Sampler
    reference: Any | None = None
    world: World = field(default_factory=World)
    round_number: int = 0
    on_progress: Callable[[str], None] = lambda phase: None
    groups: list[Group] = field(default_factory=list)

    @property
    def batching(self) -> Batching:
        """How traces in the policy's tokens become batches."""
        return Batching(self.encoder.pad_id, self.config.run.batch_tokens, self.config.model.batch_layout)

    def seed(self, purpose: str, number: int) -> int:
        """The seed of a purpose and a number (of a group, or a process) in this round."""
        return random.Random(f"{purpose}-{self.config.run.seed}-{self.round_number}-{number}").getrandbits(62)

    def sample_groups(self, experts: Sequence[EncodedTrace]) -> list[Group]:
        """``num_generations`` samples for the problem of each of this process's expert traces.

        Token ids and log-probabilities are kept as they were sampled.
        """
        settings = self.config.policy
        numbers = self.world.share(range(len(experts)))
        rollouts = self.sampler(
            self.policy.model,
            [experts[number].prompt_ids for number in numbers],
            num_samples=settings.num_generations,
            max_new_tokens=self.config.policy.max_new_tokens or self.config.data.max_completion_tokens,
            seeds=[self.seed("sample", number) for number in numbers],
            temperature=settings.temperature,
            top_p=settings.top_p,
            on_step=lambda done, total: self.on_progress("sampling"),
        )

        def encoded(expert: Trace, ids: Sequence[int], logprobs: Sequence[float]) -> EncodedTrace:
            trace = self.encoder.sampled_trace(
                expert.problem, ids, logprobs, problem_id=expert.problem_id, reference_answer=expert.reference_answer
            )
            return self.encoder.encode(trace)

        return [
            Group(experts[n], tuple(encoded(experts[n].trace, row.token_ids, row.logprobs) for row in rows), n)
            for n, rows in zip(numbers, rollouts, strict=True)
        ]

    def sample_round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """Begin a round: draw its ``groups``; returns what is logged of them."""
        torch.manual_seed(self.seed("dropout", self.world.rank))
        metrics: Metrics = {}
        with timed(metrics, "time/generate_s"):
            self.groups = self.sample_groups(experts)
        return metrics | rollout_metrics(samples_of(self.groups), self.world)

    def update_policy(self, scored: ScoredBatch) -> Metrics:
        """``updates_per_round`` steps of the configured ``update``; returns loss, gradient norm, and what taught."""
        settings, world = self.config.policy, self.world
        metrics: Metrics = {}
        sizes = {"abs": float(scored.advantages.abs().sum()), "tokens": float(scored.mask.sum())}
        sizes = totals(sizes | {"equal": float(scored.zero_spread_groups)}, world)
        metrics["rollout/zero_spread_groups"] = sizes["equal"]
        if scored.ranking is None:
            metrics["policy/advantage_abs"] = sizes["abs"] / sizes["tokens"]
        else:
            scored = scored.only(scored.ranking.best > 0 if settings.update == "best_of_n" else scored.ranking.used)
            metrics |= chosen_metrics(scored, world)
        old: dict[int, Tensor] = {}
        total = sum(world.gather([len(scored.traces)]))
        self.policy.model.train()

        for update in range(settings.updates_per_round):
            weights, said = self.token_weights(scored)
            metrics |= said

            def loss_of(indices: list[int], weights: Tensor | None = weights) -> tuple[Tensor, Metrics]:
                self.on_progress("policy")
                return self.policy_loss(scored, indices, old, total, weights)

            step = self.policy.update(scored.traces, self.batching, loss_of, settings.max_grad_norm, world)
            sampled = step.sums.get("sampled", 0.0)
            if update == 0 and sampled:
                metrics["rollout/logprob_mismatch"] = step.sums["mismatch"] / sampled
            metrics["policy/loss"] = step.sums["policy/loss"]
            if "clipped" in step.sums:
                metrics["policy/clip_fraction"] = step.sums["clipped"] / sizes["tokens"]
            metrics["policy/grad_norm"] = step.grad_norm
        return metrics

    def token_weights(self, scored: ScoredBatch) -> tuple[Tensor | None, Metrics]:
        """Weights ``(B, T)`` of the log-probabilities in an update by ranking, and what is logged; None without one.

        They sum to a mean over the groups of all processes that teach. Every process must call it.
        """
        settings, ranking = self.config.policy, scored.ranking
        if ranking is None:
            return None, {}
        lengths = scored.mask.sum(1).clamp(min=1)
        groups = max(1.0, sum(self.world.gather([ranking.groups])))
        likelihood = 1.0 if settings.update == "best_of_n" else settings.preference_likelihood
        of_trace, said = likelihood * ranking.best / lengths, {}
        if settings.update == "preferences":
            found = preferences(self.margins(scored.traces), ranking, settings.preference_beta)
            of_trace = of_trace + found.weights
            sums = totals({"loss": found.loss, "agreed": found.agreed}, self.world)
            said = {
                "policy/preference_loss": sums["loss"] / groups,
                "policy/preference_agreed": sums["agreed"] / groups,
            }
        return (of_trace / groups).unsqueeze(1) * scored.mask, said

    @torch.no_grad()
    def margins(self, traces: Sequence[EncodedTrace]) -> Tensor:
        """Log-probability of each whole trace ``(B,)`` less that under the policy's start."""
        found = torch.zeros(len(traces))
        self.policy.model.eval()
        for indices, _ in self.world.even(self.batching.split(traces)):
            batch = self.batching.collate([traces[i] for i in indices]).to(self.policy.device)
            own, start = (completion_logprobs(model, batch) for model in (self.policy.model, self.reference))
            found[indices] = masked(own - start, batch.response_mask).sum(1).float().cpu()
        self.policy.model.train()
        return found

    def policy_loss(
        self,
        scored: ScoredBatch,
        indices: Sequence[int],
        old: dict[int, Tensor],
        total: int,
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """The part of the step's loss that the traces at ``indices`` have, and what it adds to the logged sums.

        Args:
            scored: the traces of the step on this process.
            indices: those of one micro-batch.
            old: log-probabilities of each micro-batch before the first update, which fills them in.
            total: number of traces on all processes.
            weights: ``(B, T)`` of the log-probabilities in an update by ranking; None for the surrogate.
        """
        settings = self.config.policy
        chosen = [scored.traces[i] for i in indices]
        batch = self.batching.collate(chosen).to(self.policy.device)
        mask, width = batch.response_mask, batch.response_mask.shape[1]
        temperature = settings.temperature if weights is None else 1.0  # only the surrogate has the sampler's ratio
        logprobs = completion_logprobs(self.policy.model, batch, temperature=temperature)
        logged: Metrics = {}
        if weights is None:
            # The first pass is the sampling policy itself: its ratio is exactly 1, free of recomputation error.
            previous = old.setdefault(indices[0], logprobs.detach())
            loss, share = losses.clipped_surrogate(
                logprobs, previous, scored.advantages[indices, :width].to(logprobs.device), mask,
                clip_eps=settings.clip_eps, num_traces=total,
            )  # fmt: skip
            logged["clipped"] = float(share * mask.sum())
        else:
            loss = losses.weighted_likelihood(logprobs, weights[indices, :width].to(logprobs.device), mask)
        if settings.kl_coefficient and self.reference is not None:
            with torch.no_grad():
                reference = completion_logprobs(self.reference, batch, temperature=temperature)
            penalty = losses.kl_to_reference(logprobs, reference, mask, num_traces=total)
            loss = loss + settings.kl_coefficient * penalty
        logged["policy/loss"] = loss.item()
        return loss, logged | (sampler_mismatch(chosen, logprobs) if settings.temperature == 1.0 else {})


def chosen_metrics(scored: ScoredBatch, world: World) -> Metrics:
    """Share of the problems' best traces that are correct, of those whose correctness is known; none without one."""
    assert scored.ranking is not None
    graded = [
        (share, float(one.trace.correct) * share)
        for one, share in zip(scored.traces, scored.ranking.best.tolist(), strict=True)
        if one.trace.correct is not None
    ]
    sums = totals({"best": sum(b for b, _ in graded), "right": sum(r for _, r in graded)}, world)
    return {"rollout/chosen_correct": sums["right"] / sums["best"]} if sums["best"] else {}


def sampler_mismatch(encoded: Sequence[EncodedTrace], logprobs: Tensor) -> Metrics:
    """Difference between the trainer's log-probabilities ``(B, T)`` and those recorded in sampling, at temperature 1.

    Returns:
        ``mismatch``, the sum of absolute differences in nats, and ``sampled``, the number of tokens compared.
    """
    difference, tokens = 0.0, 0
    for row, trace in zip(logprobs.detach().cpu(), encoded, strict=True):
        recorded = trace.trace.logprobs
        if recorded:
            difference += float((row[: len(recorded)] - torch.tensor(recorded)).abs().sum())
            tokens += len(recorded)
    return {"mismatch": difference, "sampled": float(tokens)}
