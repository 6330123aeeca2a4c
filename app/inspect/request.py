"""A request to inspect a problem, and the inspection that answers it. Knows no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from irl_core.policy.familiarity import Familiarity
from irl_core.types import Localisation, ScoredTrace, Span

if TYPE_CHECKING:
    from irl_core.policy.branches import Branch


@dataclass(frozen=True, slots=True)
class Request:
    """A problem to inspect, perhaps with a solution; without one the policy samples ``n``.

    Attributes:
        steps: spans of the solution's steps, where they were set by hand.
        at: the token of the solution that others are compared with; None for the one that its verdict hangs on.
        begun: what every sample begins with.
    """

    problem: str
    solution: str = ""
    answer: str = ""
    n: int = 8
    seed: int = 0
    temperature: float = 1.0
    steps: tuple[Span, ...] = ()
    at: int | None = None
    begun: str = ""


@dataclass(frozen=True, slots=True)
class Inspection:
    """A served request, or a stored trace: everything that sliders and exports need, so that none of them runs a model.

    Attributes:
        familiarity: of each trace, None where it was not measured.
        run: the scored run that a stored trace comes from.
        at: the token of a pasted solution that ``branches`` are of: what may stand there, and its reward.
        listed: the checkpoint's name in the list of the sidebar; empty for a stored trace.
    """

    request: Request
    checkpoint: str
    device: str
    score_kind: str
    scored: tuple[ScoredTrace, ...]
    localisations: tuple[Localisation, ...]
    familiarity: tuple[Familiarity | None, ...]
    run: str = ""
    at: int | None = None
    branches: tuple[Branch, ...] = ()
    listed: str = ""
