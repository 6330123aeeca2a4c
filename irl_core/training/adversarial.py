"""Algorithm 1 of arXiv 2510.01857, adversarial inverse reinforcement learning: one round of it on a screen."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from irl_core.reward.rewards import trace_score
from irl_core.training.advantages import negatives_weighted, token_advantages, zero_spread_groups
from irl_core.training.discriminator_step import update_discriminator
from irl_core.training.groups import Group, group_members, samples_of
from irl_core.training.metrics import Metrics, timed
from irl_core.training.model_pair import TraceRewards
from irl_core.training.negatives import Example, by_problem, labelled_examples
from irl_core.training.policy_step import ScoredBatch, ranked_batch
from irl_core.training.ranking import ranked
from irl_core.training.reward_trainer import RewardTrainer
from irl_core.types import EncodedTrace


@dataclass(slots=True, kw_only=True)
class AdversarialTrainer(RewardTrainer):
    """IRL: discriminator and policy are updated in turn (see ``RewardTrainer`` for the other attributes).

    Attributes:
        replay: samples of earlier rounds, which stay negatives for the discriminator.
        rewards: those of the last round's samples; None where the policy was frozen and none were needed.
    """

    replay: deque[Example] = field(default_factory=deque)
    rewards: list[TraceRewards] | None = None

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One round on a batch of expert traces, whose problems are the prompts; this process takes its share.

        Returns:
            What is logged, the same on every process.
        """
        metrics = self.sample_round(experts)
        with timed(metrics, "time/discriminator_s"):
            examples = labelled_examples(self.groups, self.pair, self.config.discriminator, self.replay, self.seed)
            for part in by_problem(examples, self.config.discriminator.minibatches):
                metrics |= update_discriminator(self.discriminator, self.pair, part, self.config, self.on_progress)
        self.rewards = None
        if self.round_number >= self.config.discriminator.warmup_rounds:  # the policy is frozen before
            with timed(metrics, "time/score_s"):
                scored = self.score(self.groups)
            with timed(metrics, "time/policy_s"):
                metrics |= self.update_policy(scored)
        self.round_number += 1
        return metrics

    def score(self, groups: Sequence[Group]) -> ScoredBatch:
        """Samples (and expert traces, where ``expert_in_group``) with the advantages or ranks that rewards give them.

        The samples' rewards are kept in ``rewards``.
        """
        self.on_progress("scoring")
        settings = self.config.policy
        members = group_members(groups, with_expert=settings.expert_in_group)
        rewards = self.pair.score(members.traces)
        self.rewards = [one for one, sampled in zip(rewards, members.sampled, strict=True) if sampled]
        raw = torch.zeros(members.mask.shape)
        for row, one in enumerate(rewards):
            raw[row, : len(one.raw)] = torch.from_numpy(one.raw)
        prompt = torch.tensor([one.prompt_reward for one in rewards])
        if settings.update != "surrogate":
            scores = trace_score(raw, members.mask, settings.trace_score, prompt_reward=prompt, gamma=settings.gamma)
            return ranked_batch(members, ranked(scores, members.group_ids))
        gains = token_advantages(raw, members.mask, members.group_ids, prompt, settings, self.world)
        equal = zero_spread_groups(gains, members.group_ids)
        return ScoredBatch(members.traces, members.mask, negatives_weighted(gains, settings.negative_weight), equal)

    def sample_rewards(self) -> list[float | None]:
        """Mean raw reward of each sample of the last round. Every process must call it.

        Rewards that the round needed are not computed again; after a round with a frozen policy they are computed now.
        """
        if self.rewards is None:
            self.rewards = self.pair.score(samples_of(self.groups))
        return [float(one.raw.mean()) for one in self.rewards]
