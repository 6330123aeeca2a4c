"""The generator of word problems: right, distinct, easy, varied and deterministic; splits that share nothing."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

import pytest

from irl_core.data.word_problems.check import first_error
from irl_core.data.word_problems.families.registry import FAMILIES
from irl_core.data.word_problems.generate import SPLITS, problem, problems, split_of
from irl_core.data.word_problems.quantities import Quantity, WordProblem, needed
from irl_core.data.word_problems.story import Rejected, Story

N = 2000


@lru_cache(maxsize=1)
def sample() -> tuple[WordProblem, ...]:
    return tuple(problem(seed) for seed in range(N))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_every_expert_solution_checks_as_right() -> None:
    wrong = [one for one in sample() if first_error(one, one.solution).first_error_step is not None]
    assert wrong == []


def test_the_answer_is_the_target_and_the_last_line() -> None:
    for one in sample():
        target = next(q for q in one.quantities if q.name == one.target)
        assert one.answer == str(target.value) and one.solution.endswith(f"\n#### {one.answer}")


def test_derived_values_follow_from_their_operands() -> None:
    sums = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}
    for one in sample():
        values = {q.name: q.value for q in one.quantities}
        for q in needed(one.quantities, one.target):
            assert q.value == sums[q.op](values[q.left], values[q.right])
            assert q.op != "/" or values[q.left] % values[q.right] == 0


def test_all_values_of_a_problem_are_distinct_and_small() -> None:
    for one in sample():
        values = [q.value for q in one.quantities]
        assert len(set(values)) == len(values) and min(values) >= 2 and max(values) <= 200
    answers = [int(one.answer) for one in sample()]
    assert sum(answer <= 100 for answer in answers) / N > 0.9


def test_every_given_and_distractor_stands_in_the_text_once() -> None:
    for one in sample():
        numbers = Counter(re.findall(r"\d+", one.text))
        stated = [q for q in one.quantities if q.role in ("given", "distractor")]
        assert all(numbers[str(q.value)] >= 1 for q in stated), one
        assert set(numbers) <= {str(q.value) for q in one.quantities}, one


def test_families_lengths_and_vocabulary() -> None:
    families = Counter(one.family for one in sample())
    assert set(families) == set(FAMILIES) and len(families) >= 18 and min(families.values()) >= N / len(families) / 3
    steps = [one.solution.count("\n") for one in sample()]
    assert min(steps) == 2 and max(steps) <= 6 and sum(steps) / N > 2.7
    lengths = [len(one.text.split()) for one in sample()]
    assert min(lengths) >= 12 and max(lengths) <= 75 and 28 <= sum(lengths) / N <= 50
    assert 400 <= len({word for one in sample() for word in words(one.text + " " + one.solution)}) <= 900


def test_distractors_in_about_two_thirds() -> None:
    share = sum(any(q.role == "distractor" for q in one.quantities) for one in sample()) / N
    assert 0.5 <= share <= 0.75


def test_one_equation_with_one_operator_a_line() -> None:
    for one in sample():
        for line in one.solution.split("\n")[:-1]:
            assert re.fullmatch(r"[^<>]*<<\d+[-+*/]\d+=(\d+)>>\1\b[^<>]*\.", line), line


def test_text_has_no_loose_ends() -> None:
    for one in sample():
        text = one.text + " " + one.solution
        assert "{" not in text and "  " not in text and one.text.endswith("?") and "None" not in text


def test_same_seed_same_problem_and_other_seed_other_problem() -> None:
    assert problem(7) == problem(7) and problem(7) != problem(8)
    assert [p.text for p in problems(3, 20)] == [p.text for p in problems(3, 20)]
    assert problem(5, "tank").family == "tank"


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_only_its_own_texts(split: str) -> None:
    found = list(problems(1, 150, split))  # type: ignore[arg-type]
    assert len({one.text for one in found}) == 150
    assert {split_of(one.text) for one in found} == {split}


def test_json_keeps_everything_the_checker_needs() -> None:
    one = problem(12)
    again = WordProblem.from_json(one.to_json())
    assert again == one and first_error(again, one.solution).first_error_step is None


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        problem(1, "nonsense")
    with pytest.raises(ValueError, match="test"):
        next(problems(1, 1, "test"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="guess"):
        Quantity("x", 3, "guess")  # type: ignore[arg-type]


def test_a_story_refuses_hard_sums_and_equal_values() -> None:
    import random

    story = Story(random.Random(0))
    seven, two = story.given(7), story.given(2)
    for hard in (seven / two, two - seven):  # 3.5 and -5
        with pytest.raises(Rejected):
            story.derive(hard, "{}")
    with pytest.raises(Rejected):
        story.given(7)
