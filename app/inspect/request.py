"""A request to inspect a problem, and the inspection that answers it. Knows no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from irl_core.policy.familiarity import Familiarity
from irl_core.types import Localisation, ScoredTrace, Span

if TYPE_CHECKING:
    from irl_core.policy.branches import Branch


SAMPLES: Final = 8  # that are written where nothing else is asked for


@dataclass(frozen=True, slots=True)
class Request:
    """A problem to inspect, perhaps with a solution; without one the policy samples ``n``, or writes one in a way.

    Attributes:
        steps: spans of the solution's steps, where they were set by hand.
        at: the token of the solution that others are compared with; None for the one that its verdict hangs on.
        begun: what every sample begins with.
        way: one of ``irl_core.strategies.STRATEGIES``, in which one solution is written with the reward's help.
    """

    problem: str
    solution: str = ""
    answer: str = ""
    n: int = SAMPLES
    seed: int = 0
    temperature: float = 1.0
    steps: tuple[Span, ...] = ()
    at: int | None = None
    begun: str = ""
    way: str = ""

    @property
    def traces(self) -> int:
        """How many solutions are sampled or scored for it, about."""
        return 1 if self.solution else self.n


@dataclass(frozen=True, slots=True)
class Inspection:
    """A served request, or a stored trace: everything that sliders and exports need, so that none of them runs a model.

    Attributes:
        familiarity: of each trace, None where it was not measured.
        run: what the scored run of a stored trace is listed as.
        at: the token of a pasted solution that ``branches`` are of: what may stand there, and its reward.
        listed: the checkpoint's name in the list of the sidebar; empty for a stored trace.
        written: of a solution that was written in a way, what it took; ``scored`` holds it, and behind a revision its
            first draft.
        when: when it was asked for, by the clock of the server; None for a stored trace.
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
    written: str = ""
    when: datetime | None = None

    @property
    def name(self) -> str:
        """The name of the checkpoint, the one by which it is listed where it is."""
        return self.listed or self.checkpoint
