"""Algorithm 1 of arXiv 2510.01857: the adversarial loop, one round of it on a screen (``AdversarialTrainer.round``).

The trainer is given a policy, a discriminator, their encoders and a sampler; it knows no device, no quantisation and
no file. All randomness of round ``n`` is derived from ``(seed, n, number of the group)``: a resumed run repeats an
unbroken one, and two processes take the step that one would.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from irl_core.config import DiscriminatorConfig, TrainConfig
from irl_core.distributed import World
from irl_core.models.batching import Batch, Batching, starts_and_mask
from irl_core.models.logprobs import completion_logprobs
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.protocol import Sampler
from irl_core.reward import rewards
from irl_core.reward.discriminator import Discriminator, DiscriminatorOutput, score_traces, trace_logprobs
from irl_core.text.divergence import departed_token, departure, first_difference
from irl_core.text.perturbations import corrupt
from irl_core.text.segmentation import make_trace
from irl_core.training import losses
from irl_core.training.advantages import outcome_advantages, token_advantages, zero_spread_groups
from irl_core.training.metrics import Metrics, class_metrics, rollout_metrics, timed, totals
from irl_core.training.optimizer_step import Learner
from irl_core.types import EncodedTrace, Source, Trace

CLASS_OF = {Source.EXPERT: 0, Source.POLICY: 1, Source.PERTURBED: 2}


@dataclass(frozen=True, slots=True)
class Group:
    """One problem of a round, by its ``number`` there: its expert trace and the policy's samples."""

    expert: EncodedTrace
    samples: tuple[EncodedTrace, ...]
    number: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """A trace as the discriminator learns from it; ``departure``: first token that is not the expert's (see losses)."""

    encoded: EncodedTrace
    departure: int = 0


@dataclass(frozen=True, slots=True)
class ScoredBatch:
    """The traces of a policy update with ``mask`` and ``advantages`` ``(B, T)``, and how many groups teach nothing."""

    traces: list[EncodedTrace]
    mask: Tensor
    advantages: Tensor
    zero_spread_groups: int = 0


@dataclass(slots=True)
class AdversarialTrainer:
    """Alternates discriminator and policy updates.

    The method ``grpo`` rewards correctness in place of the learned reward, and has no ``discriminator``.
    ``discriminator_encoder``: where the discriminator has a tokenizer of its own. ``replay`` keeps earlier rounds'
    samples, which stay negatives for the discriminator. ``on_progress(phase)`` is called as the round goes on.
    ``groups``: those of the last round on this process, to be looked at.
    """

    policy: Learner
    discriminator: Learner | None
    encoder: TraceEncoder
    config: TrainConfig
    sampler: Sampler
    discriminator_encoder: TraceEncoder | None = None
    reference: Any | None = None
    world: World = field(default_factory=World)
    round_number: int = 0
    replay: deque[Example] = field(default_factory=deque)
    on_progress: Callable[[str], None] = lambda phase: None
    groups: list[Group] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.learns_reward is not (self.discriminator is not None):
            wanted = "needs a" if self.learns_reward else "takes no"
            raise ValueError(f"the method {self.config.run.method} {wanted} discriminator")

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One round on a batch of expert traces (their problems are the prompts), of which this process takes its
        share; returns what is logged."""
        torch.manual_seed(self._seed("dropout", self.world.rank))
        metrics: Metrics = {}
        with timed(metrics, "time/generate_s"):
            groups = self.groups = self.sample_groups(experts)
        metrics |= rollout_metrics([sample.trace for group in groups for sample in group.samples], self.world)
        with timed(metrics, "time/discriminator_s"):
            if self.learns_reward:
                metrics |= self.update_discriminator(self.examples(groups))
        if not self.learns_reward or self.round_number >= self.config.discriminator.warmup_rounds:
            with timed(metrics, "time/score_s"):
                scored = self.score(groups)
            with timed(metrics, "time/policy_s"):
                metrics |= self.update_policy(scored)
        self.round_number += 1
        return metrics

    @property
    def learns_reward(self) -> bool:
        return self.config.method.needs_discriminator

    @property
    def judge(self) -> Learner:
        """The discriminator, where there is one. Raises ValueError."""
        if self.discriminator is None:
            raise ValueError(f"the method {self.config.run.method} has no discriminator")
        return self.discriminator

    @property
    def _reader(self) -> TraceEncoder | None:
        """The discriminator's encoder, where it has other tokens than the policy."""
        return None if self.discriminator_encoder is self.encoder else self.discriminator_encoder

    def _seed(self, purpose: str, number: int) -> int:
        return random.Random(f"{purpose}-{self.config.run.seed}-{self.round_number}-{number}").getrandbits(62)

    # -- samples and negatives ---------------------------------------------------------------------------------

    def sample_groups(self, experts: Sequence[EncodedTrace]) -> list[Group]:
        """``num_generations`` samples of each expert's problem; ids and log-probabilities are kept from sampling."""
        settings = self.config.policy
        numbers = self.world.share(range(len(experts)))
        rollouts = self.sampler(
            self.policy.model,
            [experts[number].prompt_ids for number in numbers],
            num_samples=settings.num_generations,
            max_new_tokens=self.config.data.max_completion_tokens,
            seeds=[self._seed("sample", number) for number in numbers],
            temperature=settings.temperature,
            top_p=settings.top_p,
            on_step=lambda done, total: self.on_progress("sampling"),
        )
        return [
            Group(experts[n], tuple(self._encode_rollout(experts[n].trace, r.token_ids, r.logprobs) for r in rows), n)
            for n, rows in zip(numbers, rollouts, strict=True)
        ]

    def _encode_rollout(self, expert: Trace, ids: Sequence[int], logprobs: Sequence[float]) -> EncodedTrace:
        trace = self.encoder.sampled_trace(
            expert.problem, ids, logprobs, problem_id=expert.problem_id, reference_answer=expert.reference_answer
        )
        return self.encoder.encode(trace)

    def examples(self, groups: Sequence[Group]) -> list[Example]:
        """Expert, policy (this round's and replayed) and perturbed traces with their points of departure, in the
        discriminator's tokens."""
        settings = self.config.discriminator
        groups = [replace(g, expert=self._read(g.expert), samples=tuple(map(self._read, g.samples))) for g in groups]
        current = [Example(s, self._policy_departure(g.expert, s)) for g in groups for s in g.samples]
        old = self._replayed(current) if settings.replay else []
        perturbed = [e for g in groups for e in self.perturbed(g, random.Random(self._seed("perturb", g.number)))]
        return [Example(g.expert) for g in groups] + current + old + perturbed

    def _replayed(self, current: Sequence[Example]) -> list[Example]:
        """This process's share of the earlier samples drawn for this round; ``current`` is kept for later ones. Every
        process keeps the whole world's: what is drawn does not depend on how many there are."""
        settings, everyone = self.config.discriminator, self.world.gather(current)
        rng = random.Random(self._seed("replay", 0))
        old = rng.sample(list(self.replay), min(len(self.replay), int(settings.replay * len(everyone))))
        self.replay.extend(everyone)
        while len(self.replay) > settings.replay_capacity:
            self.replay.popleft()
        return self.world.share(old)

    def _read(self, encoded: EncodedTrace) -> EncodedTrace:
        """The trace in the discriminator's tokens."""
        if self._reader is None:
            return encoded
        return self._reader.encode(replace(encoded.trace, token_ids=None, logprobs=None))

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
        encoder = self._reader or self.encoder
        for original in (group.expert, rng.choice(group.samples)) if kinds else ():
            change = corrupt(original.trace, rng, kinds)
            if change is None or change.text == group.expert.trace.text:
                continue
            changed = make_trace(
                original.trace.problem, change.text, source=Source.PERTURBED, finished=original.trace.finished
            )
            encoded = encoder.encode(changed)
            from_start = original is not group.expert or self.config.discriminator.perturbation_labels == "whole_trace"
            departure = 0 if from_start else first_difference(encoded.completion_ids, original.completion_ids)
            yield Example(encoded, departure)

    # -- discriminator -----------------------------------------------------------------------------------------

    def update_discriminator(self, examples: Sequence[Example]) -> Metrics:
        """``updates_per_round`` steps on the round's traces, micro-batched by a token budget."""
        model, settings = self.judge.model, self.config.discriminator
        weights, classes, total = self._example_weights(examples)
        encoded = [example.encoded for example in examples]
        model.train()
        metrics: Metrics = {}
        for _ in range(settings.updates_per_round):
            logits: list[tuple[int, float]] = []
            sums = {"disc/loss": 0.0, "train/tokens": float(sum(len(e.completion_ids) for e in encoded))}
            for indices, counts in self.world.even(self._batching(self._reader).split(encoded)):
                self.on_progress("discriminator")
                with differentiable_twice(settings.gradient_penalty > 0):
                    loss, means = self._discriminator_loss([examples[i] for i in indices], weights[indices], total)
                    self.judge.backward(loss if counts else 0.0 * loss)
                if counts:
                    sums["disc/loss"] += loss.item()
                    logits += zip(classes[indices].tolist(), means.tolist(), strict=True)
            norm = self.judge.step(settings.max_grad_norm, self.world)
            metrics = totals(sums, self.world) | {"disc/grad_norm": norm}
            if settings.loss == "wasserstein" and settings.weight_clip:
                losses.clip_weights(list(model.head.parameters()), settings.weight_clip)
        return metrics | class_metrics(logits, self.world)

    def _example_weights(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor, int]:
        """Weights ``(B, 2)`` and classes ``(B,)`` of this process's examples, and how many the world has."""
        settings = self.config.discriminator
        own = [(CLASS_OF[e.encoded.trace.source], len(e.encoded.completion_ids), e.departure) for e in examples]
        classes, lengths, departures = torch.tensor(self.world.gather(own)).unbind(1)
        shares = dict(enumerate(settings.class_weights.as_tuple()))
        weights = losses.segment_weights(classes, lengths, departures, shares)
        if settings.loss == "sequence":
            weights = losses.balanced_weights(classes, shares).unsqueeze(1)
        first = self.world.offset(len(own))
        mine = slice(first, first + len(own))
        return weights[mine], classes[mine], len(classes)

    def _discriminator_loss(self, examples: Sequence[Example], weights: Tensor, total: int) -> tuple[Tensor, Tensor]:
        """The micro-batch's part of the loss of ``total`` examples, and each trace's mean logit."""
        settings, device = self.config.discriminator, self.judge.device
        encoded = [e.encoded for e in examples]
        batch = self._batching(self._reader).collate(encoded).to(device)
        embeddings = self._embeddings(batch) if settings.gradient_penalty else None
        output = self._discriminate(encoded, batch, embeddings)
        expert = torch.tensor([e.encoded.trace.source is Source.EXPERT for e in examples], device=device)
        departure = torch.tensor([e.departure for e in examples], device=device)
        loss = classification_loss(output.logits, batch.response_mask, expert, departure, weights.to(device), settings)
        if settings.likelihood_weight and expert.any():
            own = rewards.masked_mean(output.logprobs, batch.response_mask)[expert].sum()
            loss = loss - settings.likelihood_weight * own / self.config.policy.prompts_per_round
        if embeddings is not None:
            lengths = None if batch.cu_seqlens is None else batch.cu_seqlens.diff().tolist()
            penalty = losses.gradient_penalty(output.logits, embeddings, batch.response_mask, lengths)
            loss = loss + settings.gradient_penalty * penalty * len(examples) / total
        return loss, rewards.masked_mean(output.logits.detach(), batch.response_mask)

    def _embeddings(self, batch: Batch) -> Tensor:
        embed = self.judge.model.backbone.get_input_embeddings()
        return embed(batch.input_ids).detach().requires_grad_()

    def _discriminate(
        self, encoded: Sequence[EncodedTrace], batch: Batch, embeddings: Tensor | None
    ) -> DiscriminatorOutput:
        model: Discriminator = self.judge.model
        recorded = None
        if model.likelihood == "policy":
            recorded = trace_logprobs(self.policy.model, encoded, batch, self.world)
        output: DiscriminatorOutput = model(batch, recorded, embeddings)
        return output

    # -- rewards and policy ------------------------------------------------------------------------------------

    def score(self, groups: Sequence[Group]) -> ScoredBatch:
        """Every sample (and expert trace, where it joins the group) with the advantages that its rewards give."""
        self.on_progress("scoring")
        settings = self.config.policy
        traces: list[EncodedTrace] = []
        group_ids: list[int] = []
        for number, group in enumerate(groups):
            members = (*group.samples, group.expert) if settings.expert_in_group else group.samples
            traces += members
            group_ids += [number] * len(members)
        ids, mask = torch.tensor(group_ids), starts_and_mask(traces)[1]
        if self.learns_reward:
            raw, prompt_reward = self._rewards(traces, mask)
            gains = token_advantages(raw, mask, ids, prompt_reward, settings, self.world)
        else:
            gains = outcome_advantages(traces, ids, mask)
        equal = zero_spread_groups(gains, ids)
        if self.learns_reward:
            gains = torch.where(gains < 0, settings.negative_weight * gains, gains)
        return ScoredBatch(traces, mask, gains, equal)

    def _rewards(self, traces: Sequence[EncodedTrace], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Raw rewards ``(B, T)`` and the reward of the prompt ``(B,)``."""
        scores = score_traces(
            self.judge.model, self.policy.model, traces, pad_id=self.encoder.pad_id,
            batch_tokens=self.config.run.batch_tokens, packing=self.config.model.packing,
            discriminator_encoder=self._reader, world=self.world,
        )  # fmt: skip
        raw = torch.zeros(mask.shape)
        for row, (values, _, _) in enumerate(scores):
            raw[row, : len(values)] = torch.from_numpy(values)
        return raw, torch.tensor([start for _, _, start in scores])

    def update_policy(self, scored: ScoredBatch) -> Metrics:
        """``updates_per_round`` clipped-surrogate steps (eq. 6) on samples and expert traces."""
        settings, world = self.config.policy, self.world
        self.policy.model.train()
        old: dict[int, Tensor] = {}
        total = sum(world.gather([len(scored.traces)]))
        sizes = {"abs": float(scored.advantages.abs().sum()), "tokens": float(scored.mask.sum())}
        sizes = totals(sizes | {"equal": float(scored.zero_spread_groups)}, world)
        metrics: Metrics = {
            "policy/advantage_abs": sizes["abs"] / sizes["tokens"],
            "rollout/zero_spread_groups": sizes["equal"],
        }
        for update in range(settings.updates_per_round):
            sums: Metrics = {"policy/loss": 0.0, "clipped": 0.0}
            for indices, counts in world.even(self._batching(self.encoder).split(scored.traces)):
                self.on_progress("policy")
                loss, logged = self._policy_loss(scored, indices, old, total)
                self.policy.backward(loss if counts else 0.0 * loss)
                for key, value in logged.items() if counts else ():
                    sums[key] = sums.get(key, 0.0) + value
            norm = self.policy.step(settings.max_grad_norm, world)
            sums = totals(sums, world)
            difference, sampled = sums.pop("mismatch", 0.0), sums.pop("sampled", 0.0)
            if update == 0 and sampled:
                metrics["rollout/logprob_mismatch"] = difference / sampled
            metrics |= {"policy/loss": sums["policy/loss"], "policy/clip_fraction": sums["clipped"] / sizes["tokens"]}
            metrics["policy/grad_norm"] = norm
        return metrics

    def _policy_loss(
        self, scored: ScoredBatch, indices: Sequence[int], old: dict[int, Tensor], total: int
    ) -> tuple[Tensor, Metrics]:
        """The micro-batch's part of the loss of ``total`` traces, and what it adds to the sums that are logged."""
        settings = self.config.policy
        chosen = [scored.traces[i] for i in indices]
        batch = self._batching(self.encoder).collate(chosen).to(self.policy.device)
        mask, width = batch.response_mask, batch.response_mask.shape[1]
        logprobs = completion_logprobs(self.policy.model, batch, temperature=settings.temperature)
        # The first pass is the sampling policy itself: its ratio is exactly 1, free of recomputation error.
        previous = old.setdefault(indices[0], logprobs.detach())
        loss, share = losses.clipped_surrogate(
            logprobs, previous, scored.advantages[indices, :width].to(logprobs.device), mask,
            clip_eps=settings.clip_eps, num_traces=total,
        )  # fmt: skip
        if settings.kl_coefficient and self.reference is not None:
            with torch.no_grad():
                reference = completion_logprobs(self.reference, batch, temperature=settings.temperature)
            penalty = losses.kl_to_reference(logprobs, reference, mask, num_traces=total)
            loss = loss + settings.kl_coefficient * penalty
        logged = {"policy/loss": loss.item(), "clipped": float(share * mask.sum())}
        return loss, logged | (sampler_mismatch(chosen, logprobs) if settings.temperature == 1.0 else {})

    def _batching(self, encoder: TraceEncoder | None) -> Batching:
        pad_id = (encoder or self.encoder).pad_id
        return Batching(pad_id, self.config.run.batch_tokens, self.config.model.packing)


@contextmanager
def differentiable_twice(wanted: bool) -> Iterator[None]:
    """Inside the block attention has a second derivative where that is ``wanted``: the fast kernels have none. A
    checkpointed layer is computed again on the way back, so the backward pass belongs inside."""
    if not wanted:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def sampler_mismatch(encoded: Sequence[EncodedTrace], logprobs: Tensor) -> Metrics:
    """By how much the trainer's log-probabilities ``(B, T)`` differ from those recorded in sampling: the sum of the
    absolute differences, and over how many tokens. Both are of temperature 1."""
    difference, tokens = 0.0, 0
    for found, trace in zip(logprobs.detach().cpu(), encoded, strict=True):
        recorded = trace.trace.logprobs
        if recorded:
            difference += float((found[: len(recorded)] - torch.tensor(recorded)).abs().sum())
            tokens += len(recorded)
    return {"mismatch": difference, "sampled": float(tokens)}


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
