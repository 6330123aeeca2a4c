"""Why a step is flagged and what would stand there instead: texts and tables, from an inspection. No streamlit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

from app.inspect.request import Inspection, Request
from app.inspect.results import verdict_of
from irl_core.policy.familiarity import Familiarity
from irl_core.reward.localisation import token_steps
from irl_core.reward.token_scores import signals
from irl_core.reward.verdict import cell_of
from irl_core.reward.wording import amount, step_name
from irl_core.storage.rows import judge_of
from irl_core.text.answers import answers_agree
from irl_core.text.equations import Equation, find_equations
from irl_core.types import Localisation, ScoredTrace

ENDS = "(the end)"
LEAST = 0.0001  # of a probability that is told in hundredths of a percent
MOST_ANSWERS = 6  # of tries that are listed in a sentence


def flagged_token(scored: ScoredTrace, where: Localisation, familiarity: Familiarity | None) -> int | None:
    """The token that a verdict hangs on: where the first false equation departs from its value, else the one with the
    lowest credit in the step that the reward names. None where neither does, or the model cannot judge the text."""
    if judge_of(scored, familiarity).can is False:
        return None
    false = next((one for one in find_equations(scored.trace.text) if not one.true), None)
    if false is not None:
        return token_at(scored, departure(scored.trace.text, false))
    if where.first_error_step is None:
        return None
    owners, credit = token_steps(scored.encoded.spans, scored.trace.steps), signals(scored).credit
    own = [place for place, step in enumerate(owners) if step == where.first_error_step]
    return min(own, key=lambda place: credit[place], default=None)


def departure(text: str, false: Equation) -> int:
    """The character from which on a false equation states another number than its left side comes to: the 8 of
    '36 - 9 = 28'. Where the right number goes on behind it, that is its last digit."""
    start, end = false.right
    written = [place for place in range(start, end) if text[place].isdigit() or text[place] == "."]
    right = amount(abs(false.value)).removeprefix("about ")
    if not written or (false.value < 0) != (false.stated < 0):
        return start
    differing = (place for place, digit in zip_longest(written, right) if place is not None and text[place] != digit)
    return next(differing, written[-1])


def token_at(scored: ScoredTrace, character: int) -> int | None:
    """The token that holds a character of the text."""
    return next((n for n, (start, end) in enumerate(scored.encoded.spans) if start <= character < end), None)


def step_of(inspection: Inspection, token: int | None) -> int:
    """The step that a token belongs to; the one that the verdict names, else the first, where it belongs to none."""
    scored = inspection.scored[0]
    step = -1 if token is None else int(token_steps(scored.encoded.spans, scored.trace.steps)[token])
    return step if step >= 0 else verdict_of(inspection).ruling.step or 0


def branch_rows(inspection: Inspection) -> list[dict[str, str | float]]:
    """A row for each token that may stand at the chosen place."""
    return [
        {
            "token": f"\u201c{shown(one.text)}\u201d" + ("  (as written)" if one.written else ""),
            "probability": percent(math.exp(one.logprob)),
            "reward": one.reward,
            "credit": one.credit,
        }
        for one in inspection.branches
    ]


def percent(share: float) -> str:
    """A probability in hundredths; one that would be rounded to none is called less than the least that is told."""
    return f"<{LEAST:.2%}" if share < LEAST else f"{share:.2%}"


def shown(text: str) -> str:
    """A token as it is named in a table: its blanks and line ends can be seen."""
    if not text:
        return ENDS
    return text.replace(" ", "\u2423").replace("\n", "\u21b5")


def with_branch(inspection: Inspection, number: int) -> Request:
    """The request with another token in the place of the one that is looked at; what follows stays."""
    return with_characters(inspection, inspection.branches[number].text)


def with_typed(inspection: Inspection, typed: str) -> Request:
    """The request with what was typed in the place of the token that is looked at, behind the blanks that it begins
    with; where blanks are typed, they stand instead."""
    start, end = inspection.scored[0].encoded.spans[inspection.at or 0]
    written = inspection.request.solution[start:end]
    blanks = written[: len(written) - len(written.lstrip())] if written.strip() and not typed[:1].isspace() else ""
    return with_characters(inspection, blanks + typed)


def with_characters(inspection: Inspection, characters: str) -> Request:
    """The request with other characters in the place of the token that is looked at; what follows stays."""
    asked = inspection.request
    start, end = inspection.scored[0].encoded.spans[inspection.at or 0]
    text = asked.solution[:start] + characters + asked.solution[end:]
    return replace(asked, solution=text, steps=(), at=None)


def with_step(inspection: Inspection, step: int, words: str) -> Request:
    """The request with other words in the place of a step."""
    chosen, asked = inspection.scored[0].trace.steps[step], inspection.request
    text = asked.solution[: chosen.start] + words + asked.solution[chosen.end :]
    return replace(asked, solution=text, steps=(), at=None)


def again(inspection: Inspection, step: int, n: int, seed: int, temperature: float) -> Request:
    """The request for samples that begin as the solution does, up to a step."""
    asked = inspection.request
    begun = asked.solution[: inspection.scored[0].trace.steps[step].start]
    return Request(asked.problem, "", asked.answer, n, seed, temperature, begun=begun)


def change_words(before: Inspection, after: Inspection) -> str:
    """What a change of the solution did to the verdict, in words."""
    one, other = verdict_of(before).headline, verdict_of(after).headline
    return f"Still: {other}" if one == other else f"Before: {one}. Now: {other}"


def change_rows(before: Inspection, after: Inspection) -> list[dict[str, str | float | None]]:
    """The score of every step, before and after a change; before where it is the same step."""
    steps, scores = before.scored[0].trace.steps, before.localisations[0].step_scores
    others = after.localisations[0].step_scores
    rows: list[dict[str, str | float | None]] = []
    for number, step in enumerate(after.scored[0].trace.steps):
        known = len(steps) == len(others) or (number < len(steps) and steps[number].text == step.text)
        rows.append(
            {
                "step": step_name(after.scored[0].trace.steps, number, of=False),
                "before": scores[number] if known else None,
                "now": others[number],
                "text": " ".join(step.text.split()),
            }
        )
    return rows


def tries_words(tries: Inspection, step_words: str) -> str:
    """What samples that go on from a step come to."""
    traces = [one.trace for one in tries.scored]
    right = [one.correct for one in traces if one.correct is not None]
    answers: list[str] = []
    for one in traces:
        if one.answer is not None and not any(answers_agree(one.answer, other) for other in answers):
            answers.append(one.answer)
    tried = f"Tried {len(traces)} times from {step_words} on" if len(traces) > 1 else f"Tried once from {step_words} on"
    if right:
        said = f": {sum(right)} of {len(traces)} right"
    else:
        said = "; how many are right is not known without the right answer, which the form asks for"
    more = f" and {len(answers) - MOST_ANSWERS} more" if len(answers) > MOST_ANSWERS else ""
    return f"{tried}{said}. Answers: {', '.join(answers[:MOST_ANSWERS]) or 'none'}{more}."


def tries_rows(tries: Inspection, order: Sequence[int]) -> list[dict[str, str]]:
    """A row for each try, the best first: its answer, its verdict, and how it goes on."""
    begun = len(tries.request.begun)
    return [
        {
            "answer": tries.scored[index].trace.answer or "none",
            "right": {True: "yes", False: "no", None: ""}[tries.scored[index].trace.correct],
            "verdict": cell_of(
                verdict_of(tries, index).ruling, tries.scored[index].trace.correct, tries.scored[index].trace.steps
            ),
            "goes on": " ".join(tries.scored[index].trace.text[begun:].split()),
        }
        for index in order
    ]
