"""Solutions written with the reward beside plain samples, by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from irl_core.errors import ConfigError, InputError
from irl_core.evaluation.evaluated_run import DRAFT_CORRECT, TOKENS_WRITTEN
from irl_core.evaluation.ways import figures, section
from irl_core.policy.engine_requests import Engine
from irl_core.report.headlines import headline
from irl_core.statistics.best_of_n import at_size
from irl_core.statistics.bootstrap import to_json
from tests.evaluated import check_figures, evaluated, frame
from train.cli.evaluate import named_ways
from train.evaluate.problem_sets import ProblemSet
from train.evaluate.settings import EvaluationSettings


def samples(problem: str, *right: int) -> list[dict[str, Any]]:
    return [{"problem_id": problem, "correct": bool(r), "answer": "7" if r else "8", "length": 10} for r in right]


def way(tokens: int, drafts: list[bool] | None = None, **right: int) -> pd.DataFrame:
    rows = frame([{"problem_id": problem, "correct": bool(r)} for problem, r in right.items()])
    return rows.assign(**{TOKENS_WRITTEN: tokens, DRAFT_CORRECT: drafts or [None] * len(rows)})


def test_a_way_stands_beside_the_majority_of_as_many_tokens() -> None:
    # the majority of three: a is right, b is wrong, c is right; of one: 2/3, 1/3, 1
    run = evaluated(
        samples("a", 1, 1, 0) + samples("b", 0, 0, 1) + samples("c", 1, 1, 1),
        ways={
            "guided decoding": way(30, c=1, b=1, a=0),
            "self-revision": way(10, [True, False, False], a=1, b=1, c=0),
            "early rejection": way(1000, d=1),
        },
    )
    found = figures(run)
    assert (found.one.value, found.tokens) == (pytest.approx(2 / 3), 10)
    guided, revised = found.ways["guided decoding"], found.ways["self-revision"]
    assert (guided.accuracy.value, guided.samples) == (pytest.approx(2 / 3), 3)
    assert guided.minus_majority.value == pytest.approx(0)  # right, right, wrong: c, b, a of 1, 0, 1
    assert revised.minus_majority.value == pytest.approx(2 / 3 - 2 / 3) and revised.minus_drafts is not None
    assert revised.minus_drafts.value == pytest.approx(2 / 3 - 1 / 3) and guided.minus_drafts is None
    assert found.ways["early rejection"].accuracy.reason.startswith("no problem in common")
    check_figures(found)
    json.dumps(to_json(found), allow_nan=False)


def test_a_solution_without_an_answer_is_wrong_as_a_sample_is() -> None:
    silent = way(10, a=1, b=1).assign(
        source="policy", reference_answer="7", answer=["7", None], correct=pd.Series([True, None], dtype=object)
    )
    found = figures(evaluated(samples("a", 1, 1) + samples("b", 0, 0), ways={"guided decoding": silent}))
    assert (found.ways["guided decoding"].accuracy.value, found.ways["guided decoding"].accuracy.n) == (0.5, 2)


def test_its_words_say_no_more_than_its_figures() -> None:
    rows = [row for number in range(12) for row in samples(f"p{number}", number % 2, number % 2)]
    better = way(10, **{f"p{number}": 1 for number in range(12)})
    told = section(evaluated(rows, ways={"guided decoding": better}))
    assert "one sample is right in 0.500" in told.paragraph and "better" in told.paragraph
    said = headline("ways", told).sentence
    assert said == (
        "Guided decoding is right in 100 %; beside the majority of as many tokens: 50 points more, clearly better."
    )
    assert [row[0] for row in told.tables[0].rows] == ["one sample", "guided decoding"]
    nothing = section(evaluated([], ways={"guided decoding": better}))
    assert "no problem in common" in nothing.paragraph


def test_a_number_of_samples_need_not_be_whole() -> None:
    curve = np.array([[0.0, 0.5, 1.0], [1.0, 1.0, 0.0]])
    assert at_size(curve, 0.3).tolist() == [0.0, 1.0]
    assert at_size(curve, 1.5).tolist() == [0.25, 1.0]
    assert at_size(curve, 2.5).tolist() == [0.75, 0.5]
    assert at_size(curve, 9.0).tolist() == [1.0, 0.0]


def test_ways_are_named_as_on_the_command_line() -> None:
    assert named_ways(["self-revision", "guided-decoding", "self-revision"]) == ("self-revision", "guided decoding")
    assert named_ways([]) == ()
    with pytest.raises(InputError, match="Unknown way 'beam'; choose one of early-rejection, self-revision"):
        named_ways(["beam"])


def test_ways_need_a_policy_that_writes(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="--way: its solutions are written by the checkpoint's policy; leave out"):
        EvaluationSettings(ProblemSet("p", ""), engine=Engine("http://127.0.0.1:1"), ways=("self-revision",))
    with pytest.raises(ConfigError, match="--way: given holds solutions, and none are written"):
        EvaluationSettings(ProblemSet("given", "", solutions=tmp_path), ways=("self-revision",))
