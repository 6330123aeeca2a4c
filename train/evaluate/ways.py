"""Solutions that are written with the reward, in the ways of ``irl_core.strategies``, as parts of a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from irl_core.evaluation.evaluated_run import DRAFT_CORRECT, TOKENS_WRITTEN
from irl_core.scorer import Lens
from irl_core.strategies import STRATEGIES, Answered
from irl_core.text.segmentation import with_reference
from irl_core.types import Trace
from train.calibrate import problem_seed
from train.evaluate.problem_sets import Question
from train.evaluate.resumable import OnStep, Part
from train.evaluate.rollouts import QUESTIONS_AT_ONCE, chunks, scored_rows
from train.score_file import ScoredRows


def answered(lens: Lens, questions: Sequence[Question], way: str, seed: int) -> Iterator[Part]:
    """One solution of each question, written in a way."""
    for some in chunks(questions, QUESTIONS_AT_ONCE):

        def make(on_step: OnStep, some: Sequence[Question] = some) -> ScoredRows:
            traces = []
            for number, question in enumerate(some):

                def within(done: int, total: int, number: int = number, of: int = len(some)) -> None:
                    on_step(number, of)  # so that a stop is obeyed at the next token

                made = STRATEGIES[way](lens, question.text, problem_seed(seed, question.text), on_progress=within)
                traces.append(trace_of(question, made, way))
            return ScoredRows(scored_rows(lens, [lens.encoder.encode(trace) for trace in traces]), [])

        yield Part(len(some), make)


def trace_of(question: Question, made: Answered, way: str) -> Trace:
    """What a question is answered with, judged, with the tokens that it took."""
    expert = question.expert
    extra = {**question.extra, TOKENS_WRITTEN: str(made.tokens)}
    if way == "self-revision":
        draft = made.trace if made.draft is None else made.draft.trace
        extra[DRAFT_CORRECT] = str(bool(with_reference(draft, expert.reference_answer).correct))
    trace = with_reference(made.trace, expert.reference_answer)
    return replace(
        trace, problem_id=expert.problem_id, trace_id=f"{expert.problem_id}/{way.replace(' ', '-')}",
        truth=question.truth(trace.text), extra=extra,
    )  # fmt: skip
