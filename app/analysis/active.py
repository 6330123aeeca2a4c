"""The filters of the Failures page that are on, in words, and the controls that hold each. No streamlit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.analysis import failures
from app.analysis.catalogue import ROW
from app.analysis.columns import SORTS
from app.analysis.failures import OUTCOME_WORDS, Query
from irl_core.reward.verdict import KINDS
from irl_core.reward.wording import signed

MOST_WORDS: Final = 60  # characters of words or of an expression; the Filter has them in full
DISAGREEMENTS: Final = "annotators disagree"
REMOVES: Final = "Takes this away."


@dataclass(frozen=True, slots=True)
class Active:
    """A filter that is on: its words, and how the names of its controls begin."""

    words: str
    controls: tuple[str, ...]


def active(query: Query) -> list[Active]:
    """What a query filters by, and its order where it is not the file's."""
    found = []
    if query.outcome != "all":
        found.append(Active(f"answer {OUTCOME_WORDS.get(query.outcome, query.outcome)}", ("outcome",)))
    if query.words.strip():
        found.append(Active(f"with \u201c{_short(query.words)}\u201d", ("words",)))
    if query.where.strip():
        found.append(Active(_short(query.where), ("where",)))
    for name, title, words in (
        ("verdicts", "verdict", [KINDS[one] for one in query.verdicts if one in KINDS]),
        ("verdict_steps", "verdict names", map(failures.step_words, query.verdict_steps)),
        ("true_steps", "true first error", map(failures.step_words, query.true_steps)),
        ("kinds", "kind of error", query.kinds),
    ):
        if getattr(query, name):
            found.append(Active(f"{title}: {_either(words)}", (f"filter_{name}",)))
    if query.scores is not None:
        low, high = query.scores
        found.append(Active(f"mean discounted reward {signed(low)} to {signed(high)}", ("scores_",)))
    if query.sort != ROW or query.descending:
        order = f"by {SORTS[query.sort]}" + ", highest first" * query.descending
        found.append(Active(order, ("sort", "descending")))
    return found


def _either(words: Iterable[str]) -> str:
    return " or ".join(words)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MOST_WORDS else f"{words[: MOST_WORDS - 1]}\u2026"
