"""Ways to an answer that use the reward while solutions are written (the future work of arXiv 2510.01857).

Each gives the solution that is answered with, and all tokens that the policy wrote for it, so that it can be set beside
the majority of as many tokens. The reward's own passes are not counted: they read a text at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from irl_core.reward.token_scores import majority_answer, rank, trace_score
from irl_core.scorer import Lens
from irl_core.text.answers import answers_agree
from irl_core.text.step_numbers import step_numbers
from irl_core.types import ScoredTrace, Trace

MOST_STEPS: Final = 16  # of a solution that is written step by step
STEP_TOKENS: Final = 64  # most of one step
FIRST_LOOK: Final = 20  # tokens that a sample may have before most are given up
STEP_SCORE: Final = "mean"  # of beginnings, which are of different lengths


@dataclass(frozen=True, slots=True)
class Answered:
    """A solution that is answered with.

    Attributes:
        trace: the solution.
        tokens: all that the policy wrote for it.
        draft: of a revision, the solution that was revised; None where nothing was.
        kept: of a revision, the characters that both begin with.
    """

    trace: Trace
    tokens: int
    draft: ScoredTrace | None = None
    kept: int = 0


OnProgress = Callable[[int, int], None]  # what is done of what there is, of each call of the policy
Ranked = Callable[[Sequence[ScoredTrace]], list[int]]


class Strategy(Protocol):
    """A way to an answer."""

    def __call__(self, lens: Lens, problem: str, seed: int, /, *, on_progress: OnProgress | None = None) -> Answered:
        """The solution to answer ``problem`` with; ``on_progress`` is called after each token of the policy's."""


def in_words(name: str, made: Answered) -> str:
    """What was written to come to a solution, and where a revision goes on from."""
    told = f"Written by {name}: {made.tokens:,} tokens in all."
    if made.draft is None:
        stands = " Its first draft stands: no step was flagged, or what was written anew was no better."
        return told + stands if name == "self-revision" else told
    kept = sum(step.end <= made.kept for step in made.trace.steps)
    if kept == 0:
        return f"{told} Nothing of the first draft was kept."
    same = "step is" if kept == 1 else f"{kept} steps are"
    anew = step_numbers(made.trace.steps)[kept] if kept < len(made.trace.steps) else kept + 1
    return f"{told} Its first {same} of the first draft; from step {anew} it is written anew."


def written(trace: Trace) -> int:
    """The tokens of a sampled trace."""
    return len(trace.token_ids or ())


def given(lens: Lens, beginning: str) -> int:
    """The tokens of the beginning that a solution was to go on from."""
    from irl_core.policy.branches import ids_of

    return len(ids_of(lens.encoder, beginning))


def goes_on(lens: Lens, problem: str, beginning: str) -> bool:
    """Whether another token fits behind the beginning of a solution."""
    return len(lens.encoder.encode_prompt(problem)) + given(lens, beginning) < lens.context_window


def elected(traces: list[Trace]) -> Trace:
    """The first solution with the answer that most have; the first of all where none has one."""
    vote = majority_answer(traces)
    if vote is None:
        return traces[0]
    return next(one for one in traces if one.answer is not None and answers_agree(one.answer, vote[0]))


def by_reward(scored: Sequence[ScoredTrace]) -> list[int]:
    """The numbers of beginnings, the one with the highest mean reward first."""
    return rank(scored, STEP_SCORE)


def by_likelihood(scored: Sequence[ScoredTrace]) -> list[int]:
    """The numbers of beginnings, the one whose tokens are likeliest to the policy first: what needs no reward."""
    likely = [float(one.logprobs.mean()) if one.logprobs.size else -math.inf for one in scored]
    return sorted(range(len(scored)), key=lambda number: -likely[number])


def early_rejection(
    lens: Lens,
    problem: str,
    seed: int,
    /,
    *,
    samples: int = 8,
    kept: float = 0.25,
    ranked: Ranked = by_reward,
    on_progress: OnProgress | None = None,
) -> Answered:
    """The majority of the solutions that began best.

    After ``FIRST_LOOK`` tokens the first share ``kept`` of ``samples`` by ``ranked`` is written to its end, and the
    others are given up.
    """
    begun = lens.sample(problem, samples, seed, max_new_tokens=FIRST_LOOK, on_progress=on_progress)
    best = ranked(lens.score(begun))[: math.ceil(kept * samples)]
    tokens, ended = sum(map(written, begun)), []
    for number in sorted(best):
        trace = begun[number]
        if not trace.finished and goes_on(lens, problem, trace.text):
            (whole,) = lens.sample(problem, 1, seed + number, begun=trace.text, on_progress=on_progress)
            tokens, trace = tokens + written(whole) - given(lens, trace.text), whole
        ended.append(trace)
    return Answered(elected(ended), tokens)


def self_revision(
    lens: Lens, problem: str, seed: int, /, *, rounds: int = 1, on_progress: OnProgress | None = None
) -> Answered:
    """One solution, cut before its first error as long as one is found, and written anew from there.

    A new end is taken where the reward of the whole rises.
    """
    (draft,) = lens.score(lens.sample(problem, 1, seed, on_progress=on_progress))
    tokens, now, kept = written(draft.trace), draft, 0
    for turn in range(1, rounds + 1):
        step = lens.locate(now).first_error_step
        if step is None:
            break
        cut = now.trace.steps[step].start
        beginning = now.trace.text[:cut]
        if not goes_on(lens, problem, beginning):
            break
        (again,) = lens.score(lens.sample(problem, 1, seed + turn, begun=beginning, on_progress=on_progress))
        tokens += written(again.trace) - given(lens, beginning)
        kind = lens.default_trace_score
        if trace_score(again, kind) > trace_score(now, kind):
            now, kept = again, min(kept or cut, cut)
    return Answered(now.trace, tokens, None if now is draft else draft, kept)


def guided_decoding(
    lens: Lens,
    problem: str,
    seed: int,
    /,
    *,
    width: int = 4,
    ranked: Ranked = by_reward,
    on_progress: OnProgress | None = None,
) -> Answered:
    """A solution written line by line: of ``width`` next lines the one with which all so far is first by ``ranked``."""
    text, tokens = "", 0
    for number in range(MOST_STEPS):
        lines = lens.sample(
            problem, width, seed + number, begun=text, max_new_tokens=STEP_TOKENS, until_line=True,
            on_progress=on_progress,
        )  # fmt: skip
        tokens += sum(written(one) - given(lens, text) for one in lines)
        best = lines[ranked(lens.score(lines))[0]]
        if best.finished or best.text == text or not goes_on(lens, problem, best.text):
            break
        text = best.text
    return Answered(best, tokens)


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "early rejection": early_rejection,
    "self-revision": self_revision,
    "guided decoding": guided_decoding,
}
CONTROLS: Final[Mapping[str, Strategy]] = {  # the same ways without a reward
    "early rejection by likelihood": partial(early_rejection, ranked=by_likelihood),
    "guided decoding by likelihood": partial(guided_decoding, ranked=by_likelihood),
}
