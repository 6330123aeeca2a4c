"""The verdict on a trace in words."""

from __future__ import annotations

from typing import Final, Literal, TypedDict

from irl_core.evaluation.wording import rule as rule_words
from irl_core.report.inspection_json import InspectedTrace

SCORES: Final = {
    "mean_discounted": "mean discounted reward", "mean": "mean reward", "last": "last reward",
    "minimum": "lowest reward", "credit_sum": "sum of credit", "credit_minimum": "lowest credit",
}  # fmt: skip
ELSEWHERE: Final = "its confidence is not known, for it was calibrated on texts unlike this one"


class Verdict(TypedDict):
    """The answer to where a trace first goes wrong: a headline and a sentence."""

    kind: Literal["error", "no_error", "uncertain", "no_signal"]
    headline: str
    detail: str


def signed(value: float | None, digits: int = 2) -> str:
    """``value`` with its sign (a true minus), or 'no signal' where it is not a number."""
    if value is None:
        return "no signal"
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("\u2212" if value < 0 else "+") + text


def has_signal(trace: InspectedTrace) -> bool:
    """Whether all raw rewards of a trace are numbers, and not all the same."""
    raw = [value for token in trace["tokens"] if (value := token["raw"]) is not None]
    return len(raw) == len(trace["tokens"]) > 1 and min(raw) < max(raw)


def step_name(trace: InspectedTrace, index: int) -> str:
    """'step 3 of 5', or 'the answer line': what the margin calls the step."""
    steps = trace["steps"]
    if steps[index]["role"] == "answer":
        return "the answer line"
    return f"step {index + 1} of {sum(step['role'] != 'answer' for step in steps)}"


def score_name(kind: str) -> str:
    """A trace score in words: one of ``irl_core.reward.rewards.TRACE_SCORES``."""
    return f"trace score ({SCORES.get(kind, kind)})"


def verdict(trace: InspectedTrace, familiar: bool | None = None) -> Verdict:
    """The verdict on a trace, with rule, threshold and confidence.

    ``familiar``: whether the text is like those of the calibration. Where it is not, no confidence is claimed.
    """
    if not has_signal(trace):
        detail = "The rewards of this trace are not numbers, or all the same: nothing can be said about it."
        return Verdict(kind="no_signal", headline="No signal", detail=detail)
    rule = f"Rule: {rule_words(trace['rule'])}; threshold {signed(trace['threshold'])}"
    confidence = f"confidence {trace['confidence']:.0%}" if trace["confidence"] is not None else "confidence unknown"
    if familiar is False:
        confidence = ELSEWHERE
    index = trace["first_error_step"]
    if trace["decision"] == "error" and index is not None:
        score = signed(trace["steps"][index]["score"])
        headline = f"First error: {step_name(trace, index)}"
        return Verdict(kind="error", headline=headline, detail=f"Step score {score}. {rule}; {confidence}.")
    if trace["decision"] == "no_error":
        return Verdict(kind="no_error", headline="No error found", detail=f"{rule}; {confidence}.")
    return Verdict(kind="uncertain", headline="Too uncertain to say", detail=f"{rule}; {confidence}.")
