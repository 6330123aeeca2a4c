"""What a checkpoint's own ``config.json`` holds, each value checked for its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Strict
from pydantic.dataclasses import dataclass

from irl_core.errors import CheckpointError
from irl_core.validation import STRICT, Range, Text, Whole, validated

Kind = Literal["tiny", "transformers"]
Real = Annotated[float, Strict()]
Section = dict[str, Any]
LONGEST_NAME, LONGEST_INSTRUCTION = 200, 20_000  # characters


@dataclass(frozen=True, slots=True, config=STRICT)
class Reference:
    """Statistics of held-out solutions: mean and spread of their rewards; quantiles of the problems' likelihood, as
    pairs ``[q, value]``; what they are of, and how many."""

    mean: Real
    std: Annotated[Real, Range(0)]
    prompt_reward_mean: Real | None = None
    prompt_logprob_quantiles: tuple[tuple[Annotated[Real, Range(0, 1)], Real], ...] = ()
    n: Whole | None = None
    origin: Text = "held-out solutions"


@dataclass(frozen=True, slots=True, config=STRICT)
class CheckpointDescription:
    """``config.json``; a policy, or a state of a training, lacks what calibration adds.

    ``localisation`` is a calibration (`irl_core.reward.localisation.Calibration`), ``train_config`` the settings by
    section, some of which this version may not know any more.
    """

    format: Literal[1]
    name: Text
    kind: Kind
    head: Text | None = None
    instruction: Text = ""
    provenance: Section | None = None
    train_config: dict[str, Section] | None = None
    localisation: Section | None = None
    reference: Reference | None = None
    default_trace_score: Text | None = None

    def __post_init__(self) -> None:
        for key, text, limit in (
            ("name", self.name, LONGEST_NAME),
            ("instruction", self.instruction, LONGEST_INSTRUCTION),
        ):
            if len(text) > limit:
                raise ValueError(f"{key} has {len(text):,} characters; the limit is {limit:,}")


def check_description(name: str, document: Mapping[str, Any]) -> None:
    """Raise CheckpointError for an unknown or missing key of ``config.json``, or a value of the wrong kind."""
    if empty := [key for key, value in document.items() if value is None]:
        raise CheckpointError(f"{name}: {empty[0][:80]} is null; leave the key out, or give it a value")
    validated(CheckpointDescription, document, CheckpointError, f"{name}: ")


def trained_with(document: Mapping[str, Any], section: str) -> Section:
    """The settings of a section that a checkpoint was trained with.

    Raises:
        CheckpointError: its ``config.json`` does not hold them.
    """
    settings = document.get("train_config", {}).get(section)
    if not isinstance(settings, dict):
        raise CheckpointError(
            f"{str(document.get('name'))[:80]}: config.json holds no train_config.{section}, the settings that it was "
            "trained with; take a checkpoint that irl-lens has trained"
        )
    return settings
