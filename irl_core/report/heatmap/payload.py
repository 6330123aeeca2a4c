"""The data that the renderer draws: one trace of an inspection with its words, colour scale and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict, get_args

from irl_core.report.inspection_json import InspectedTrace
from irl_core.reward.verdict import UNCLAIMED, VerdictRecord
from irl_core.reward.wording import signed

HERE = Path(__file__).parent
View = Literal["raw", "standardised", "discounted", "credit"]
Tone = Literal["error", "good", "neutral"]
VIEWS: Final[tuple[View, ...]] = get_args(View)
# what pages call each view
VIEW_NAMES: Final[dict[str, str]] = {
    "raw": "reward", "standardised": "standardised", "discounted": "with what follows", "credit": "rise and fall",
}  # fmt: skip
# The value drawn at half colour in each view. Fixed, so that traces of different problems can be compared by eye.
HALF_COLOUR: Final[dict[str, float]] = {"raw": 6.0, "standardised": 3.0, "credit": 3.0}


SCORES: Final = {
    "mean_discounted": "mean discounted reward", "mean": "mean reward", "last": "last reward",
    "minimum": "lowest reward", "product": "product over the tokens",
    "credit_sum": "sum of credit", "credit_minimum": "lowest credit",
}  # fmt: skip


class Description(TypedDict):
    """What is said of a trace beside its text.

    ``tone``: what the verdict comes to. ``problem``: its text, in which the quantities are marked that the solution
    never uses; empty where it uses all, or where the page has it already. ``muted``: the model cannot judge it, so that
    its rewards are grey and folded away. ``file`` is the name of its picture, without an ending.
    """

    title: str
    verdict: VerdictRecord
    tone: Tone
    problem: str
    caption: str
    no_signal: bool
    muted: bool
    file: str


class Settings(TypedDict):
    """How traces are coloured: the view, the mark of the scale of each view, and the strength that divides it.

    ``scale``: ``fixed``, the same for all traces, half colour at the mark; or ``trace``, full colour at the largest
    value of each. ``compact``: the trace stands first, and what explains it and its colours below it, folded away.
    """

    view: str
    gamma: float
    strength: float
    ranges: dict[str, float]
    scale: str
    compact: bool


def ranges(gamma: float) -> dict[str, float]:
    """The value drawn at half colour in each view: raw and credit in logits, the others in standard deviations.

    A discounted reward sums about 1 / (1 - gamma) standardised ones; its range grows with the root of their number,
    which lies between rewards that are independent and rewards that are all alike.
    """
    return {**HALF_COLOUR, "discounted": round(HALF_COLOUR["standardised"] * math.sqrt(1 / max(1 - gamma, 0.01)), 1)}


def share(value: float, mark: float) -> float:
    """How far a value is on its way to full colour on the fixed scale, from -1 to 1: half at the mark, three quarters
    at three times it. It has no end, so that however large values are, larger ones stay apart."""
    return value / (mark + abs(value))


def renderer_source() -> str:
    """The JavaScript of the renderer, shared by the component and the exported page."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("heatmap.js", "picture.js"))


def stylesheet() -> str:
    """The CSS of the renderer."""
    return (HERE / "heatmap.css").read_text(encoding="utf-8")


def score_name(kind: str) -> str:
    """A trace score in words: one of ``irl_core.reward.rewards.TRACE_SCORES``."""
    return f"score ({SCORES.get(kind, kind)})"


def has_signal(trace: InspectedTrace) -> bool:
    """Whether all raw rewards of a trace are numbers, and not all the same."""
    raw = [value for token in trace["tokens"] if (value := token["raw"]) is not None]
    return len(raw) == len(trace["tokens"]) > 1 and min(raw) < max(raw)


def tone_of(verdict: VerdictRecord) -> Tone:
    """The tone of a verdict: a solution in which merely no step is flagged is not called good."""
    if verdict["kind"] == "error":
        return "error"
    return "good" if verdict["kind"] == "no_error" and not verdict["headline"].startswith(UNCLAIMED) else "neutral"


def describe(
    trace: InspectedTrace, *, title: str = "", caption: str = "", file: str = "solution", problem: str = ""
) -> Description:
    """What is said of a trace beside its text.

    Args:
        trace: as `irl_core.report.inspection_json` has it.
        title: heading above it.
        caption: where its numbers come from.
        file: name of its picture, without an ending.
        problem: the problem's text, where the quantities that are never used are to be marked in it.
    """
    return {
        "title": title,
        "verdict": trace["verdict"],
        "tone": tone_of(trace["verdict"]),
        "problem": problem if any(not one["uses"] for one in trace["quantities"]) else "",
        "caption": caption,
        "no_signal": not has_signal(trace),
        "muted": trace["cannot_judge"] is True,
        "file": file,
    }


def settings(view: str, gamma: float, strength: float, *, compact: bool = False) -> Settings:
    """The settings of the renderer for a view, a discount and a strength of the colours."""
    return {
        "view": view, "gamma": gamma, "strength": strength, "ranges": ranges(gamma), "scale": "fixed",
        "compact": compact,
    }  # fmt: skip


def titles(traces: Sequence[InspectedTrace]) -> list[str]:
    """A heading for each trace of an exported page."""
    return [
        f"Solution {number} of {len(traces)} \u00b7 {answer_words(trace)}"
        for number, trace in enumerate(traces, start=1)
    ]


def answer_words(trace: InspectedTrace) -> str:
    """'answer 12, correct', 'answer 12, incorrect', 'answer 12' or 'no final answer'."""
    if trace["answer"] is None:
        return "no final answer"
    correctness = {True: ", correct", False: ", incorrect", None: ""}[trace["correct"]]
    return f"answer {trace['answer']}{correctness}"


def ranked_words(trace: InspectedTrace, score_name: str) -> str:
    """What a trace is ranked by among samples, which is not what the verdict is made by: it counts every token, the
    closing one too, where the verdict reads steps."""
    return f"Ranked by its {score_name}, {signed(trace['trace_score'])}, over all tokens."
