"""pass@k of policies beside each other, by hand; what its paragraph may say."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from irl_core.evaluation.pass_at_k import THIS, figures, paragraph
from irl_core.statistics.bootstrap import to_json
from tests.evaluated import check_figures, evaluated, frame, simulated


def samples(problem: str, *right: int | None) -> list[dict[str, object]]:
    return [{"problem_id": problem, "correct": None if r is None else bool(r), "answer": str(r)} for r in right]


def test_by_hand() -> None:
    # a: 2 of 4, b: 1 of 4. pass@1 (1/2 + 1/4) / 2 = 3/8; pass@3 (1 + 1 - C(3,3)/C(4,3)) / 2 = (1 + 3/4) / 2
    # start: a 1 of 4, b 0 of 4: pass@1 1/8, pass@3 3/8; differences 1/4 and 1/2
    found = figures(
        evaluated(
            samples("a", 1, 0, 0, 1) + samples("b", 0, 0, 1, 0),
            compare={"start": frame(samples("b", 0, 0, 0, 0) + samples("a", 0, 1, 0, 0))},
        )
    )
    own, start, less = found.policies[THIS], found.policies["start"], found.differences["start"]
    assert [own[k].value for k in ("1", "3")] == pytest.approx([3 / 8, 7 / 8])
    assert [start[k].value for k in ("1", "3")] == pytest.approx([1 / 8, 3 / 8])
    assert [less[k].value for k in ("1", "3")] == pytest.approx([1 / 4, 1 / 2])
    assert own["5"].reason == less["5"].reason == "k is 5, but a problem has 4 samples"
    assert (found.problems, found.samples, found.traces, found.correct) == (2, [4, 4], 8, 3)
    check_figures(found)
    json.dumps(to_json(found), allow_nan=False)


def test_a_sample_without_an_answer_is_wrong_and_one_that_cannot_be_compared_is_left_out() -> None:
    said: list[tuple[bool | None, str | None]] = [(True, "8"), (None, None), (None, "x + 1")]
    rows = [
        {"problem_id": name, "source": "policy", "reference_answer": "8", "correct": right, "answer": answer}
        for name in ("a", "b")
        for right, answer in said
    ]
    found = figures(evaluated(rows))
    assert (found.traces, found.correct, found.left_out) == (4, 2, 2)
    assert found.policies[THIS]["1"].value == 0.5
    given = figures(evaluated([{**one, "source": "external"} for one in rows]))
    assert (given.traces, given.left_out) == (2, 4)  # of others' texts the answer may not have been found


def test_agrees_with_all_draws() -> None:
    rows = simulated(problems=5, samples=6)
    found = figures(evaluated(rows)).policies[THIS]
    for k in (1, 3, 5):
        shares = []
        for problem in {row["problem_id"] for row in rows}:
            right = [row["correct"] for row in rows if row["problem_id"] == problem]
            shares.append(np.mean([any(right[i] for i in pick) for pick in combinations(range(6), k)]))
        assert found[str(k)].value == pytest.approx(np.mean(shares))


def test_only_problems_in_common_are_compared() -> None:
    # on a alone: 1/2 against 1; b and c are one policy's only
    found = figures(
        evaluated(
            samples("a", 1, 0) + samples("b", 1, 1) + samples("d", 0, 0),
            compare={
                "other": frame(samples("a", 1, 1) + samples("c", 0, 0) + samples("d", 0, 1)),
                "elsewhere": frame(samples("z", 1, 1)),
            },
        )
    )
    assert found.differences["other"]["1"].value == pytest.approx(-0.5)  # a: 1/2 - 1, d: 0 - 1/2
    assert found.differences["other"]["1"].n == 2
    assert found.differences["elsewhere"]["1"].reason == "no problem in common"


def test_unknown_right_answers_are_left_out_and_counted() -> None:
    found = figures(evaluated(samples("a", 1, 0, None) + samples("b", None, None) + samples("c", 1, 0)))
    assert (found.problems, found.traces, found.left_out) == (2, 4, 3)
    assert found.policies[THIS]["1"].value == 0.5
    assert "(3 solutions without a known right answer are left out)" in paragraph(found)


def test_nothing_to_judge_is_undefined() -> None:
    for rows in ([], samples("a", None, None)):
        found = figures(evaluated(rows, compare={"other": frame([])}))
        assert found.policies[THIS]["1"].reason == "no solution with a known right answer"
        assert "pass@k is undefined" in paragraph(found)
        check_figures(found)
    one = figures(evaluated(samples("a", 1)))
    assert one.policies[THIS]["1"].reason == "fewer than two problems"


def test_the_interval_covers_problems_and_not_traces() -> None:
    once = figures(evaluated(simulated(problems=40, samples=1))).policies[THIS]["1"].interval
    rows = [row for row in simulated(problems=40, samples=1) for _ in range(10)]
    often = figures(evaluated(rows)).policies[THIS]["1"].interval
    assert often == pytest.approx(once)


def test_paragraph_says_which_way_and_no_more() -> None:
    good, bad = simulated(seed=1), simulated(seed=1)
    for row in bad:
        row["correct"] = row["correct"] and row["length"] % 2 == 0
    same = frame(simulated(seed=1))
    text = paragraph(figures(evaluated(good, compare={"worse": frame(bad), "same": same})))
    assert "worse 0." in text and "], higher; same 0.000 [0.000, 0.000], no difference shown" in text
    text = paragraph(figures(evaluated(bad, compare={"better": frame(good)})))
    assert "better -0." in text and text.endswith("], lower.")
    assert "pass@10, 16 cannot be given: k is 10, but a problem has 8 samples." in text
    assert "nothing is said about what training changed" in paragraph(figures(evaluated(good)))
