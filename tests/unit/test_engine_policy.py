"""An evaluation's samples from an engine: every one is a trace or a row that says why it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from irl_core.config import PolicyConfig
from irl_core.errors import ConfigError, EngineError
from irl_core.policy.engine_requests import Engine
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.types import Source
from tests.engine_server import Answer, Body, completion, engine_server
from tests.tiny import EXPERTS
from train.evaluate.engine_policy import EnginePolicy
from train.evaluate.problem_sets import ProblemSet, Question
from train.evaluate.rollouts import LoadedPolicy, scored_samples
from train.evaluate.settings import EvaluationSettings, arguments_of

QUESTIONS = [
    Question(
        make_trace(problem, text, reference_answer=answer, source=Source.EXPERT, problem_id=str(number), trace_id="e")
    )
    for number, (problem, text, answer) in enumerate(EXPERTS)
]
TOO_LONG = Question(make_trace("How many? " * 60, "#### 1", reference_answer="1", problem_id="long"))
RIGHT = {problem: text for problem, text, _ in EXPERTS}


@pytest.fixture
def policy(lens: Lens) -> LoadedPolicy:
    return LoadedPolicy("tiny", lens.policy, lens.encoder, 80, lens.context_window, PolicyConfig())


def problem_in(lens: Lens, body: Body) -> str:
    """The problem that a request's prompt is of."""
    return next(problem for problem in RIGHT if list(lens.encoder.encode_prompt(problem)) == body["prompt"])


def nothing(done: int, total: int) -> None:
    """Take no note of progress."""


def test_samples_become_scored_rows_and_lost_ones_rows_of_errors(
    lens: Lens, policy: LoadedPolicy, tmp_path: Path
) -> None:
    asked: list[Body] = []

    def answer(body: Body) -> Answer:
        asked.append(body)
        problem = problem_in(lens, body)
        if problem == EXPERTS[1][0] and len([one for one in asked if one["prompt"] == body["prompt"]]) == 2:
            return completion("  ")
        return completion(RIGHT[problem] if problem != EXPERTS[2][0] else "#### 7")

    with engine_server(answer) as server:
        engine = EnginePolicy.open(policy, Engine(server.url, parallel=1), tmp_path)
        (part,) = scored_samples(engine, lens, [*QUESTIONS, TOO_LONG], 3, 0)
        rows, refused = part.make(nothing)
    assert part.count == 15 and len(rows) + len(refused) == 12 + 1
    assert [row["correct"] for row in rows] == [True] * 3 + [True] * 2 + [False] * 3 + [True] * 3
    assert {row["problem_id"] for row in rows} == {"0", "1", "2", "3"} and rows[0]["trace_id"] == "0/0"
    assert all(row["source"] == "policy" for row in rows)
    messages = {row.get("trace_id", row.get("problem_id")): row["message"] for row in refused}
    assert set(messages) == {"long", "1/1"} and messages["1/1"] == "no sample: the engine's text is blank"
    assert len({body["seed"] for body in asked}) == 12 and asked[0]["max_tokens"] == 80
    assert (asked[0]["temperature"], asked[0]["top_p"]) == (1.0, 0.95)

    with engine_server(answer) as server:  # what came is not asked for again
        again = EnginePolicy.open(policy, Engine(server.url), tmp_path)
        (part,) = scored_samples(again, lens, QUESTIONS, 3, 0)
        assert part.make(nothing).rows == rows and not server.asked
        again.sample(QUESTIONS[:1], 4, 0, nothing)
        assert len(server.asked) == 1, "a sample more is asked for alone"


def test_an_engine_that_is_not_there_ends_the_evaluation(policy: LoadedPolicy, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="No engine answers at http://127"):
        EnginePolicy.open(policy, Engine("http://127.0.0.1:9"), tmp_path)


def test_the_record_names_the_engines_model_and_not_its_address(lens: Lens) -> None:
    data = ProblemSet("some", "0" * 64, QUESTIONS)
    recorded: Any = arguments_of(lens, EvaluationSettings(data, engine=Engine("http://10.0.0.7:8000", "qwen")))
    assert recorded["engine"] == "qwen" and "10.0.0.7" not in str(recorded)
    assert "engine" not in arguments_of(lens, EvaluationSettings(data))
    solutions = ProblemSet("some", "0" * 64, solutions=Path("x.jsonl"))
    with pytest.raises(ConfigError, match="--engine: some holds solutions, and none are sampled"):
        EvaluationSettings(solutions, engine=Engine("http://x"))
