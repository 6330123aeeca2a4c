"""What the trainers of a reward share: a policy with its discriminator beside it."""

from __future__ import annotations

from dataclasses import dataclass

from irl_core.models.tokenization import TraceEncoder
from irl_core.training.model_pair import ModelPair
from irl_core.training.optimizer_step import Learner
from irl_core.training.policy_step import PolicyTrainer


@dataclass(slots=True, kw_only=True)
class RewardTrainer(PolicyTrainer):
    """A trainer that learns a reward (see ``PolicyTrainer`` for the other attributes).

    Attributes:
        discriminator: the reward model that is trained.
        discriminator_encoder: ``encoder`` itself, or the discriminator's own where it has another vocabulary.
    """

    discriminator: Learner
    discriminator_encoder: TraceEncoder

    @property
    def pair(self) -> ModelPair:
        """Both models as they are now."""
        return ModelPair(
            self.policy.model, self.discriminator.model, self.encoder, self.discriminator_encoder,
            self.config.run.batch_tokens, self.config.model.batch_layout, world=self.world,
        )  # fmt: skip
