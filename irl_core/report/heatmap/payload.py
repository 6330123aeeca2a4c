"""The data that the renderer draws: one trace of an inspection with its words, colour scale and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

from irl_core.report.heatmap.verdict import has_signal, verdict

_HERE = Path(__file__).parent
View = Literal["raw", "standardised", "discounted", "credit"]
VIEWS: Final[tuple[View, ...]] = get_args(View)
# The value drawn at full colour in each view. Fixed, so that traces of different problems can be compared by eye.
FULL_COLOUR: Final[dict[str, float]] = {"raw": 6.0, "standardised": 3.0, "credit": 3.0}


def ranges(gamma: float) -> dict[str, float]:
    """The value drawn at full colour in each view: raw and credit in logits, the others in standard deviations.

    A discounted reward sums about 1 / (1 - gamma) standardised ones; its range grows with the root of their number,
    which lies between rewards that are independent and rewards that are all alike.
    """
    return {**FULL_COLOUR, "discounted": round(FULL_COLOUR["standardised"] * math.sqrt(1 / max(1 - gamma, 0.01)), 1)}


def renderer_source() -> str:
    """The JavaScript of the renderer, shared by the component and the exported page."""
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("heatmap.js", "picture.js"))


def stylesheet() -> str:
    """The CSS of the renderer."""
    return (_HERE / "heatmap.css").read_text(encoding="utf-8")


def describe(
    trace: Mapping[str, Any], *, title: str = "", caption: str = "", file: str = "trace", familiar: bool | None = None
) -> dict[str, Any]:
    """What is said about a trace beside its text: title, verdict, caption and the name of its picture file."""
    return {
        "title": title,
        "verdict": verdict(trace, familiar),
        "caption": caption,
        "no_signal": not has_signal(trace),
        "file": file,
    }


def settings(view: str, gamma: float, strength: float) -> dict[str, Any]:
    """How traces are coloured: the view, the range of each view, and the strength that divides it."""
    return {"view": view, "gamma": gamma, "strength": strength, "ranges": ranges(gamma)}


def titles(traces: Sequence[Mapping[str, Any]]) -> list[str]:
    """A heading for each trace of an exported page."""
    return [
        f"Trace {number} of {len(traces)} \u00b7 {answer_words(trace)}" for number, trace in enumerate(traces, start=1)
    ]


def answer_words(trace: Mapping[str, Any]) -> str:
    """'answer 12, correct', 'answer 12, incorrect', 'answer 12' or 'no final answer'."""
    if trace["answer"] is None:
        return "no final answer"
    judged = {True: ", correct", False: ", incorrect", None: ""}[trace["correct"]]
    return f"answer {trace['answer']}{judged}"
