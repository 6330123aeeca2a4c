"""A request to inspect a problem, and the inspection that answers it. Knows no streamlit."""

from __future__ import annotations

from dataclasses import dataclass

from irl_core.policy.familiarity import Familiarity
from irl_core.types import Localisation, ScoredTrace, Span


@dataclass(frozen=True, slots=True)
class Request:
    """A problem to inspect, perhaps with a solution; without one the policy samples ``n``.

    Attributes:
        steps: spans of the solution's steps, where they were set by hand.
    """

    problem: str
    solution: str = ""
    answer: str = ""
    n: int = 8
    seed: int = 0
    temperature: float = 1.0
    steps: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """A served request, or a stored trace: everything that sliders and exports need, so that none of them runs a model.

    Attributes:
        familiarity: of each trace, None where it was not measured.
        run: the scored run that a stored trace comes from.
    """

    request: Request
    checkpoint: str
    device: str
    score_kind: str
    scored: tuple[ScoredTrace, ...]
    localisations: tuple[Localisation, ...]
    familiarity: tuple[Familiarity | None, ...]
    run: str = ""
