"""The data that the renderer draws: one trace of an inspection with its words, colour scale and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict, get_args

from irl_core.report.heatmap.verdict import Verdict, has_signal, verdict
from irl_core.report.inspection_json import InspectedTrace

HERE = Path(__file__).parent
View = Literal["raw", "standardised", "discounted", "credit"]
VIEWS: Final[tuple[View, ...]] = get_args(View)
# The value drawn at full colour in each view. Fixed, so that traces of different problems can be compared by eye.
FULL_COLOUR: Final[dict[str, float]] = {"raw": 6.0, "standardised": 3.0, "credit": 3.0}


class Description(TypedDict):
    """What is said of a trace beside its text; ``file`` is the name of its picture, without an ending."""

    title: str
    verdict: Verdict
    caption: str
    no_signal: bool
    file: str


class Settings(TypedDict):
    """How traces are coloured: the view, the value at full colour of each view, and the strength that divides it."""

    view: str
    gamma: float
    strength: float
    ranges: dict[str, float]


def ranges(gamma: float) -> dict[str, float]:
    """The value drawn at full colour in each view: raw and credit in logits, the others in standard deviations.

    A discounted reward sums about 1 / (1 - gamma) standardised ones; its range grows with the root of their number,
    which lies between rewards that are independent and rewards that are all alike.
    """
    return {**FULL_COLOUR, "discounted": round(FULL_COLOUR["standardised"] * math.sqrt(1 / max(1 - gamma, 0.01)), 1)}


def renderer_source() -> str:
    """The JavaScript of the renderer, shared by the component and the exported page."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("heatmap.js", "picture.js"))


def stylesheet() -> str:
    """The CSS of the renderer."""
    return (HERE / "heatmap.css").read_text(encoding="utf-8")


def describe(
    trace: InspectedTrace, *, title: str = "", caption: str = "", file: str = "trace", familiar: bool | None = None
) -> Description:
    """What is said of a trace beside its text.

    Args:
        trace: as `irl_core.report.inspection_json` has it.
        title: heading above it.
        caption: where its numbers come from.
        file: name of its picture, without an ending.
        familiar: as in `irl_core.report.heatmap.verdict.verdict`.
    """
    return {
        "title": title,
        "verdict": verdict(trace, familiar),
        "caption": caption,
        "no_signal": not has_signal(trace),
        "file": file,
    }


def settings(view: str, gamma: float, strength: float) -> Settings:
    """The settings of the renderer for a view, a discount and a strength of the colours."""
    return {"view": view, "gamma": gamma, "strength": strength, "ranges": ranges(gamma)}


def titles(traces: Sequence[InspectedTrace]) -> list[str]:
    """A heading for each trace of an exported page."""
    return [
        f"Trace {number} of {len(traces)} \u00b7 {answer_words(trace)}" for number, trace in enumerate(traces, start=1)
    ]


def answer_words(trace: InspectedTrace) -> str:
    """'answer 12, correct', 'answer 12, incorrect', 'answer 12' or 'no final answer'."""
    if trace["answer"] is None:
        return "no final answer"
    correctness = {True: ", correct", False: ", incorrect", None: ""}[trace["correct"]]
    return f"answer {trace['answer']}{correctness}"
