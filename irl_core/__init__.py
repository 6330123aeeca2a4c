"""irl-lens core: dense reasoning rewards by adversarial inverse reinforcement learning."""
