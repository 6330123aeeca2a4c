"""GRPO with outcome supervision (Shao et al. 2024), the baseline whose reward is the correctness of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irl_core.training.advantages import negatives_weighted, outcome_advantages, outcomes_of, zero_spread_groups
from irl_core.training.groups import Group, group_members, samples_of
from irl_core.training.metrics import Metrics, timed
from irl_core.training.policy_step import PolicyTrainer, ScoredBatch, ranked_batch
from irl_core.training.ranking import ranked
from irl_core.types import EncodedTrace


@dataclass(slots=True, kw_only=True)
class GRPOTrainer(PolicyTrainer):
    """The loop of ``AdversarialTrainer`` with correctness in place of the learned reward: no discriminator."""

    def round(self, experts: Sequence[EncodedTrace]) -> Metrics:
        """One round on a batch of expert traces, whose problems are the prompts; this process takes its share.

        Returns:
            What is logged, the same on every process.
        """
        metrics = self.sample_round(experts)
        with timed(metrics, "time/score_s"):
            scored = self.score(self.groups)
        with timed(metrics, "time/policy_s"):
            metrics |= self.update_policy(scored)
        self.round_number += 1
        return metrics

    def score(self, groups: Sequence[Group]) -> ScoredBatch:
        """Samples (and expert traces, where ``expert_in_group``) with advantages (or ranks) by correctness."""
        self.on_progress("scoring")
        members = group_members(groups, with_expert=self.config.policy.expert_in_group)
        settings = self.config.policy
        if settings.update != "surrogate":
            scores, known = outcomes_of(members.traces, settings.unknown_answer)
            return ranked_batch(members, ranked(scores, members.group_ids, known))
        gains = outcome_advantages(members.traces, members.group_ids, members.mask, settings.unknown_answer)
        equal = zero_spread_groups(gains, members.group_ids)
        return ScoredBatch(members.traces, members.mask, negatives_weighted(gains, settings.negative_weight), equal)

    def sample_rewards(self) -> list[float | None]:
        """None for each sample of the last round: no reward is learned."""
        return [None for _ in samples_of(self.groups)]
