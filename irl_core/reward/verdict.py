"""The verdict on a trace: where it first goes wrong and who found that; with ``checks`` the one place that words it.

Checker first, then reward, as the evaluation ranks them ('arithmetic checker, then reward'): an equation that does not
hold is exact, a reward is calibrated. Where the model cannot judge a text, the reward says nothing, and what still
holds (the equations, the answer) is said alone. Runs no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, TypedDict, cast

from irl_core.reward import checks
from irl_core.reward.checks import By, Finding
from irl_core.reward.wording import in_words, is_called_by_position, lowest_step, rule_words, signed, step_name
from irl_core.text.answers import ends_in_number_words
from irl_core.text.equations import Equation, find_equations, first_false_step, unchecked_equations
from irl_core.types import Decision, Localisation, Step, Trace, number_of

Kind = Literal["error", "no_error", "uncertain", "cannot_judge", "unread"]

KINDS: Final[dict[Kind, str]] = {
    "error": "an error", "no_error": "no error found", "uncertain": "too uncertain to say",
    "cannot_judge": "the model cannot judge", "unread": "no model has read it",
}  # fmt: skip
NOT_MEASURED: Final = "not measured"
UNCLAIMED: Final = "No step is flagged"  # what the reward decides, where that is no claim about the solution
LOWER: Final = "lower is more doubtful"
EVEN: Final = 0.5
UNSURE: Final = "step unsure"  # of a wrong answer: where it comes from
NO_STEP: Final = f"wrong answer, {UNSURE}"
FAMILIARITY: Final = {True: "familiar", False: "unfamiliar", None: NOT_MEASURED}


@dataclass(frozen=True, slots=True)
class Judge:
    """Whether the reward's word counts on a trace.

    Attributes:
        familiar: whether the text is like those that the checkpoint was made for; None = not measured.
        reason: why it is or is not, in words.
        signal: whether its rewards are numbers, and not all the same.
    """

    familiar: bool | None = None
    reason: str = ""
    signal: bool = True

    @property
    def can(self) -> bool | None:
        """Whether the model can judge the text; None where nothing speaks against it, and it was not measured."""
        return False if self.familiar is False or not self.signal else self.familiar


@dataclass(frozen=True, slots=True)
class Judged:
    """Numbers of traces: of all, of those that the model cannot judge, of those whose familiarity was not measured, and
    of those that are unlike the ones that the checkpoint was made for; the rest of those measured are like them.

    It cannot judge a trace that is unlike them, whatever its rewards are, nor one without a signal.
    """

    traces: int
    cannot: int
    not_measured: int
    unfamiliar: int

    @classmethod
    def of(cls, cannot_judge: Iterable[bool | None], familiar: Sequence[bool | None]) -> Judged:
        """The numbers from the two columns of a scored run."""
        return cls(
            traces=len(familiar),
            cannot=sum(one is True for one in cannot_judge),
            not_measured=sum(one is None for one in familiar),
            unfamiliar=sum(one is False for one in familiar),
        )

    @property
    def measured(self) -> int:
        """How many traces' familiarity was measured."""
        return self.traces - self.not_measured

    @property
    def without_signal(self) -> int:
        """How many traces the model cannot judge for want of a signal alone: nothing else speaks against them."""
        return self.cannot - self.unfamiliar

    @property
    def cell(self) -> str:
        """In a table's cell, how many the model cannot judge, and why; that it was not measured, where nothing is
        known."""
        if not self.cannot:
            return f"0 of {self.traces:,}" if self.measured else NOT_MEASURED
        return f"{self.cannot:,} of {self.traces:,} ({self._reasons('unfamiliar')})"

    @property
    def words(self) -> str:
        """The numbers as a part of a sentence."""
        if not self.cannot and self.not_measured == self.traces:
            return f"familiarity: {NOT_MEASURED}"
        unknown = f"; familiarity {NOT_MEASURED} in {self.not_measured:,}" if self.not_measured else ""
        if not self.cannot:
            whose = f"{self.measured:,} of {self.traces:,}" if self.not_measured else f"all {self.traces:,}"
            return f"{whose} solutions are like those that the checkpoint was made for{unknown}"
        why = self._reasons("unlike those that the checkpoint was made for")
        return f"the model cannot judge {self.cannot:,} of {self.traces:,} solutions ({why}){unknown}"

    def _reasons(self, unlike: str) -> str:
        """How many the model cannot judge for each reason that occurs; ``unlike``: the first of the two in words."""
        counts = {unlike: self.unfamiliar, "without a signal": self.without_signal}
        return ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a verdict comes to; ``by`` and ``step`` (0-based): who named which step, None where nobody did."""

    kind: Kind
    by: Literal["arithmetic", "reward"] | None = None
    step: int | None = None

    @property
    def cell(self) -> str:
        """The ruling in the words of a table's cell: 'step 3, arithmetic', 'no error found'."""
        if self.kind != "error":
            return KINDS[self.kind]
        return ", ".join(filter(None, ("an error" if self.step is None else f"step {self.step + 1}", self.by)))


def cell_of(ruling: Ruling, correct: bool | None, steps: Sequence[Step] = ()) -> str:
    """The ruling in a table's cell where it is known how the answer came out: a wrong one is called so. With the
    ``steps`` of the solution the one that is named is called as everywhere else, not by its position."""
    if steps and ruling.kind == "error" and ruling.step is not None:
        return ", ".join(filter(None, (step_name(steps, ruling.step, of=False), ruling.by)))
    return NO_STEP if ruling.kind == "uncertain" and correct is False else ruling.cell


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a trace: its ``claim`` on one line, and what is to be said ``beside`` it, a clause each: that the
    answer line departs from the last calculation, that something is never used; ``findings`` in order of weight:
    arithmetic, answer, answer line, quantities, reward, familiarity."""

    ruling: Ruling
    claim: str
    findings: tuple[Finding, ...]
    beside: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The claim, and what is said beside it in sentences of their own."""
        return ". ".join((self.claim, *(clause[0].upper() + clause[1:] for clause in self.beside)))

    @property
    def sentence(self) -> str:
        """Headline and findings as one paragraph."""
        return " ".join((f"{self.headline}.", *(finding.says for finding in self.findings)))


class FindingRecord(TypedDict):
    """A `Finding` as JSON data; ``step_number``: the step as it is numbered wherever one reads, from 1."""

    by: By
    says: str
    step: int | None
    step_number: int | None


class VerdictRecord(TypedDict):
    """A `Verdict` as JSON data; ``step_number``: the step as it is numbered wherever one reads, from 1."""

    kind: Kind
    by: Literal["arithmetic", "reward"] | None
    step: int | None
    step_number: int | None
    headline: str
    findings: list[FindingRecord]


def to_record(verdict: Verdict) -> VerdictRecord:
    """The verdict as JSON data."""
    parts: tuple[Ruling | Finding, ...] = (verdict.ruling, *verdict.findings)
    ruling, *findings = ({**asdict(one), "step_number": number_of(one.step)} for one in parts)
    return cast(VerdictRecord, {**ruling, "headline": verdict.headline, "findings": findings})


# ------------------------------------------------------------------------------------------------------ the ruling


def rule_on(
    false_equations: int,
    false_step: int | None,
    decision: Decision | None,
    named: int | None,
    can_judge: bool | None,
    correct: bool | None,
) -> Ruling:
    """The ruling from what was found: checker first, then reward.

    Args:
        false_equations: number of equations that do not hold.
        false_step: the first step with one; None where there is none, or it stands in no step.
        decision: the reward's; None where no discriminator has read the trace.
        named: the step that the reward names.
        can_judge: of `Judge.can`; not False = its decision counts.
        correct: whether the final answer is right: a wrong one comes from somewhere, whatever the reward finds.
    """
    if false_equations:
        return Ruling("error", "arithmetic", false_step)
    if decision is None:
        return Ruling("unread")
    if can_judge is False:
        return Ruling("cannot_judge")
    if decision == "error":
        return Ruling("error", "reward", named)
    return Ruling("uncertain" if correct is False else decision)


def verdict_on(trace: Trace, where: Localisation | None, judge: Judge) -> Verdict:
    """The verdict on a trace; ``where``: the reward's localisation, None where no discriminator has read it."""
    equations = find_equations(trace.text)
    false = [equation for equation in equations if not equation.true]
    place = first_false_step(trace) if false else None
    decision, named = (None, None) if where is None else (where.decision, where.first_error_step)
    ruling = rule_on(len(false), place, decision, named, judge.can, trace.correct)
    unchecked = unchecked_equations(trace.text)
    last, unused = checks.answer_line(trace), checks.unused(trace)
    findings = [
        checks.arithmetic(trace, equations, unchecked, place),
        _answer(trace, ruling),
        Finding("answer_line", f"Answer line: {last.removeprefix('the answer line ')}.") if last else None,
        Finding("quantities", f"Quantities: {unused}.") if unused else None,
        _reward(trace, where, judge, ruling),
        _familiarity(judge, read=where is not None),
    ]
    holds = checks.all_hold(len(equations), len(unchecked)) if equations else ""
    claim = _claim(trace, ruling, holds, _first_of(trace, false, place), where if judge.signal else None, judge)
    beside = () if false or trace.correct else tuple(filter(None, (last, unused)))
    return Verdict(ruling, claim, tuple(finding for finding in findings if finding is not None), beside)


# ------------------------------------------------------------------------------------------------------ the words


def _claim(
    trace: Trace, ruling: Ruling, equations: str, false: Equation | None, where: Localisation | None, judge: Judge
) -> str:
    """The verdict on one line. ``equations``: that they hold, in words; empty where there are none. ``where``: the
    reward's localisation, None where it has no signal."""
    if false is not None:
        return ("" if ruling.step is None else f"{_placed_step(trace.steps, ruling.step)}: ") + in_words(false)
    if ruling.kind == "error" and ruling.step is not None:
        sure = "" if where is None else _how_sure(where, judge)
        return f"First error: {step_name(trace.steps, ruling.step)}, says the reward" + (f" ({sure})" if sure else "")
    if ruling.kind in ("no_error", "uncertain"):
        doubtful = None if where is None else lowest_step(where, trace.steps)
        suspect = "" if doubtful is None else step_name(trace.steps, doubtful, of=False)
        if trace.correct is False:
            return f"{_wrong_answer(trace)}; {UNSURE}" + (f" (most doubtful: {suspect})" if suspect else "")
        if ruling.kind == "no_error":
            return UNCLAIMED if not trace.correct and _says_little(where, judge) else "No error found"
        if where is None or not suspect or math.isinf(where.threshold):  # without a limit nothing is more than usual
            return "Too uncertain to say" + (f"; most doubtful: {suspect}" if suspect else "")
        return f"Too uncertain to say: {suspect} is more doubtful than is usual in right solutions"
    holds = [] if trace.correct is None else ["The answer is right" if trace.correct else _wrong_answer(trace)]
    holds += [equations] if equations else []
    rest = "no model has read it" if ruling.kind == "unread" else "the model cannot judge"
    if not holds:
        return "No model has read this solution" if ruling.kind == "unread" else "The model cannot judge this text"
    said = ", and ".join(holds) if trace.correct else "; ".join(holds)
    said = said[0].upper() + said[1:]
    return f"{said}; {rest}" + ("" if ruling.kind == "unread" else " the rest")


def _placed_step(steps: Sequence[Step], index: int) -> str:
    """'Step 3', as it begins a headline; its position is said too where the text numbers it otherwise."""
    return step_name(steps, index, of=not is_called_by_position(steps, index)).capitalize()


def _answer(trace: Trace, ruling: Ruling) -> Finding | None:
    """How the final answer compares with the right one; None where that is not known."""
    unstated = trace.answer is None and trace.reference_answer is not None
    if trace.correct is False or unstated:
        wrong = _wrong_answer(trace)
        return Finding("answer", f"Answer: {wrong[0].lower()}{wrong[1:]}.")
    if trace.correct is None:
        return None
    if ruling.by == "arithmetic":
        return Finding("answer", f"Answer: right answer, broken reasoning{_stated(trace)}.")
    if ruling.kind == "error":
        return Finding("answer", f"Answer: right{_stated(trace)}, though the reward doubts a step.")
    return Finding("answer", f"Answer: right{_stated(trace)}.")


def _reward(trace: Trace, where: Localisation | None, judge: Judge, ruling: Ruling) -> Finding | None:
    """What the reward says, with the number that decided beside its threshold; None where nobody asks it."""
    if where is None:
        return Finding("reward", "Reward: no reward model has read this solution.")
    if judge.familiar is False:
        return None
    if not judge.signal:
        return Finding("reward", "Reward: no signal; the rewards are not numbers, or all the same.")
    limit = f"threshold {signed(where.threshold)}"
    sure = _how_sure(where, judge)
    rule = f"rule: {rule_words(where.rule)}"
    step, low = where.first_error_step, lowest_step(where, trace.steps)
    if where.decision == "error" and step is not None:
        said = f"the first error is {step_name(trace.steps, step)}"
        if ruling.by == "arithmetic":  # the first error is the checker's; this is what the reward would say without it
            named = "the same step" if ruling.step == step else step_name(trace.steps, step)
            said = f"by itself it would say {named}"
        numbers = f"step score {signed(where.step_scores[step])}, {limit}"
        if low is not None and low != step and not where.step_scores[step] < where.threshold:
            numbers = f"lowest step score {signed(where.step_scores[low])}, {limit}"
        return Finding(
            "reward",
            f"Reward: {said} ({'; '.join(filter(None, (numbers, LOWER, sure, rule)))}).",
            step,
        )
    score = "no step has a score" if low is None else (
        f"lowest step score {signed(where.step_scores[low])}, of {step_name(trace.steps, low, of=False)}"
    )  # fmt: skip
    if where.uncertain_threshold is not None and math.isfinite(where.uncertain_threshold):
        limit += f", uncertain below {signed(where.uncertain_threshold)}"
    elif where.score_tells is None:
        limit += ", that of uncertain is not stored"
    none = "by itself it flags no step" if trace.correct is False or ruling.by else "no step is flagged"
    if where.decision == "no_error" and trace.correct is not None:
        sure = ""  # the answer says it of this very solution
    said = none if where.decision == "no_error" else "too uncertain to say"
    return Finding("reward", f"Reward: {said} ({'; '.join(filter(None, (score, limit, LOWER, sure, rule)))}).")


def _says_little(where: Localisation | None, judge: Judge) -> bool:
    """Whether most of the held-out solutions that scored so were wrong although no step was flagged: then 'no error' is
    what the reward decides, and no claim about the solution."""
    return where is not None and judge.familiar is not None and where.confidence < EVEN


def _how_sure(where: Localisation, judge: Judge) -> str:
    """How often what the reward says was so of the held-out solutions that it was calibrated on; of a model that was
    compared with none, its own probability. Empty where that is not known, or it says nothing. No share is told where
    it does not rise with the score: it would call the worse of two solutions more often right; nor where a stored trace
    does not say whether it rises."""
    if where.decision == "uncertain" or not math.isfinite(where.confidence):
        return ""
    if judge.familiar is None:
        return f"its own probability of that is {where.confidence:.0%}"
    if where.decision == "no_error" and where.score_tells is None:
        return "how much the score says about the whole is not stored; score it again to see"
    if where.decision == "no_error" and not where.score_tells:
        return "the score says little about whether the whole is right"
    if where.decision == "no_error":
        return f"of the held-out solutions that scored so, {where.confidence:.0%} were right"
    return f"right in {where.confidence:.0%} of such cases"


def _familiarity(judge: Judge, *, read: bool) -> Finding | None:
    """Why the model cannot judge a text, or that this was not measured; None where it can."""
    if not read or judge.familiar:
        return None
    if judge.familiar is None:
        why = f" ({judge.reason})" if judge.reason else ""
        return Finding("familiarity", f"Familiarity: {NOT_MEASURED}{why}.")
    return Finding(
        "familiarity",
        "Familiarity: this text is unlike those that the checkpoint was made for, so its reward says nothing here: "
        f"{judge.reason}.",
    )


def _first_of(trace: Trace, false: Sequence[Equation], place: int | None) -> Equation | None:
    """The false equation that the headline names: the first in the first step that holds one."""
    within = [] if place is None else [
        one for one in false if trace.steps[place].start <= one.start < trace.steps[place].end
    ]  # fmt: skip
    return next(iter(within or false), None)


def _wrong_answer(trace: Trace) -> str:
    """'The answer is 14, not 12', as far as the two are known."""
    right = "" if trace.reference_answer is None else f", not {_one_line(trace.reference_answer)}"
    if trace.answer is None:
        figures = " in figures" if ends_in_number_words(trace.text) else ""
        return f"No final answer{figures} is stated" + (right and f"; the right one is{right.removeprefix(', not')}")
    return f"The answer is {_one_line(trace.answer)}{right}" if right else "The answer is wrong"


def _stated(trace: Trace) -> str:
    return "" if trace.answer is None else f" ({_one_line(trace.answer)})"


def _one_line(text: str) -> str:
    """An answer as it is named in a sentence: on one line, cut at 60 characters."""
    words = " ".join(text.split())
    return words if len(words) <= 60 else words[:59] + "\u2026"
