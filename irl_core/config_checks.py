"""Settings of several sections that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping

from irl_core.errors import ConfigError

REWRITING = ("layout", "styles", "expert_errors")  # settings of the data that rewrite solutions


def check_bare_prompts(bare: int, prompts: int, demonstrations: int, learned: bool) -> None:
    """Raise ConfigError where a round would have more bare problems than there can be.

    Args:
        bare: ``policy.bare_prompts``.
        prompts: ``policy.prompts_per_round``.
        demonstrations: ``data.demonstrations``.
        learned: whether the round trains a discriminator.
    """
    most = prompts - learned
    if bare > most:
        raise ConfigError(
            f"policy.bare_prompts is {bare}; of {prompts} problems a round (policy.prompts_per_round) {most} at most "
            f"can be bare{', since one is to teach the reward' * learned}"
        )
    if bare and not demonstrations:
        raise ConfigError(
            f"policy.bare_prompts is {bare}, but every training problem has a demonstration; set data.demonstrations "
            "to the number of those that shall"
        )


def check_labels(method: str, loss: str, rewriting: Mapping[str, tuple[object, object]]) -> None:
    """Raise ConfigError where labels of steps would be lost.

    Args:
        method: ``run.method``, which reads such labels.
        loss: ``discriminator.loss``.
        rewriting: the value and the default of each setting in ``REWRITING``.
    """
    if loss not in ("bce", "wasserstein"):
        raise ConfigError(
            f"discriminator.loss is {loss!r}, and run.method is {method!r}, whose labels of steps a loss of tokens "
            "learns; set it to bce"
        )
    for key, (value, usual) in rewriting.items():
        if value != usual:
            raise ConfigError(
                f"data.{key} is {value!r}, which rewrites solutions, and run.method is {method!r}, which reads labels "
                f"of their steps as they are; set it to {usual!r}"
            )
