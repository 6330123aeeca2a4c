from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irl_core.data.word_problems.check import first_error
from irl_core.data.word_problems.generate import problem
from irl_core.text.equations import find_equations, first_false_step
from irl_core.text.perturbations import ALL_KINDS, FALSE_EQUATION, MAX_LENGTH, perturb, perturbed_trace
from irl_core.text.segmentation import make_trace, segment
from irl_core.types import Perturbation, Source, Trace, Truth

SHARED = Path(os.environ.get("IRL_LENS_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared"))
GSM8K = SHARED / "data" / "gsm8k" / "train.jsonl"

PROBLEM = (
    "A mug costs 4 dollars. Mia buys 3 mugs, a hat for 9 dollars and has 50 dollars. How much is left after 6 days?"
)
DEMO = "Mia pays <<4*3=12>>12 dollars.\nIn total it is <<12+9=21>>21.\nShe keeps <<50-21=29>>29.\n#### 29"
REAL = "Mugs are 4*3 = $<<4*3=12>>12.\nIn total $12 + $9 = $<<12+9=21>>21.\nSo $50 - $21 = $<<50-21=29>>29.\n#### 29"
TAGGED = "<think>\n4 * 3 = 12\n12 + 9 = 21\n50 - 21 = 29\n</think>\n<answer>\n29\n</answer>"


def expert(text: str = DEMO) -> Trace:
    return make_trace(PROBLEM, text, reference_answer="29", source=Source.EXPERT, trace_id="t", problem_id="p")


def false_steps(text: str) -> list[int]:
    steps = segment(text)[1]
    false = [equation.start for equation in find_equations(text) if not equation.true]
    return [index for index, step in enumerate(steps) for start in false if step.start <= start < step.end]


def assert_kept(trace: Trace, found: Perturbation) -> None:
    """What every perturbation promises, and what its kind promises."""
    before, after = segment(trace.text), segment(found.text)
    assert found.text != trace.text
    assert after[0] is before[0]
    step = after[1][found.first_error_step]
    assert step.start <= found.span[0] < found.span[1] <= step.end
    if found.kind in FALSE_EQUATION:
        assert first_false_step(make_trace("", found.text)) == found.first_error_step
        assert set(false_steps(found.text)) == {found.first_error_step}
    else:
        assert false_steps(found.text) == false_steps(trace.text)
    if found.kind in ("flip_operator", "offset_number"):
        assert after[2] == before[2]
    else:
        assert make_trace("", found.text, reference_answer=trace.reference_answer).correct is False
    if found.kind != "drop_step":
        assert trace.text[: found.span[0]] == found.text[: found.span[0]]
        start, end = found.span
        assert trace.text[start : end + 1] != found.text[start : end + 1]


@pytest.mark.parametrize("text", [DEMO, REAL, TAGGED])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_applies_to_every_layout(text: str, kind: str) -> None:
    for seed in range(20):
        found = perturb(expert(text), random.Random(seed), (kind,))
        assert found is not None and found.kind == kind
        assert_kept(expert(text), found)


def versions(text: str, kind: str, seeds: int = 60) -> set[str]:
    found = (perturb(expert(text), random.Random(seed), (kind,)) for seed in range(seeds))
    return {one.text for one in found if one}


def test_flip_operator_leaves_the_result_and_changes_both_copies() -> None:
    changed = versions(REAL, "flip_operator")
    assert REAL.replace("$12 + $9 = $<<12+9", "$12 - $9 = $<<12-9") in changed
    assert all(text.endswith("\n#### 29") for text in changed)
    assert len(changed) == 9  # three sums, three other operators each: all false here


def test_flip_operator_never_gives_a_true_equation() -> None:
    # 2 + 2 = 2 * 2, so only '-' and '/' are wrong
    trace = make_trace("How many?", "It is <<2+2=4>>4.\n#### 4")
    found = [perturb(trace, random.Random(seed), ("flip_operator",)) for seed in range(30)]
    assert {one.text for one in found if one} == {"It is <<2-2=4>>4.\n#### 4", "It is <<2/2=4>>4.\n#### 4"}


def test_offset_number_changes_a_number_and_its_copy() -> None:
    changed = versions(REAL, "offset_number", 500)
    assert REAL.replace("= $<<4*3=12>>12", "= $<<4*3=13>>13") in changed
    assert REAL.replace("$12 + $9 = $<<12+9", "$12 + $7 = $<<12+7") in changed


def test_swap_answer_takes_a_number_calculated_before() -> None:
    assert versions(DEMO, "swap_answer") == {DEMO[:-2] + "12", DEMO[:-2] + "21"}
    assert versions(TAGGED, "swap_answer") == {
        TAGGED.replace("<answer>\n29", "<answer>\n12"),
        TAGGED.replace("<answer>\n29", "<answer>\n21"),
    }


def test_swap_answer_of_a_box() -> None:
    trace = make_trace("How many?", "First 4 * 3 = 12.\nThen she pays \\boxed{21}.")
    found = perturb(trace, random.Random(0), ("swap_answer",))
    assert found is not None
    assert found.text == "First 4 * 3 = 12.\nThen she pays \\boxed{12}."
    assert (found.span, found.first_error_step) == ((39, 41), 1)


def test_carry_wrong_value_goes_on_to_the_answer() -> None:
    # 12 + 1 = 13; 13 + 9 = 22; 50 - 22 = 28
    wrong = "Mia pays <<4*3=13>>13 dollars.\nIn total it is <<13+9=22>>22.\nShe keeps <<50-22=28>>28.\n#### 28"
    assert wrong in versions(DEMO, "carry_wrong_value", seeds=200)
    assert false_steps(wrong) == [0]


def test_wrong_operand_is_another_number_of_the_problem() -> None:
    # 6 for 3: 4 * 6 = 24; 24 + 9 = 33; 50 - 33 = 17
    wrong = "Mia pays <<4*6=24>>24 dollars.\nIn total it is <<24+9=33>>33.\nShe keeps <<50-33=17>>17.\n#### 17"
    changed = versions(DEMO, "wrong_operand", 200)
    assert wrong in changed
    assert DEMO not in changed


def test_drop_step_calculates_on_without_it() -> None:
    # without the mugs' sum, 3 + 9 = 12 would be a known number, so 4 + 9 = 13; 50 - 13 = 37
    wrong = "In total it is <<4+9=13>>13.\nShe keeps <<50-13=37>>37.\n#### 37"
    assert versions(DEMO, "drop_step") == {wrong}
    found = perturb(expert(), random.Random(0), ("drop_step",))
    assert found is not None
    assert (found.first_error_step, found.text[slice(*found.span)]) == (0, "In total it is <<4")


def test_unit_or_rate_adds_or_divides_where_it_should_multiply() -> None:
    trace = make_trace(
        "Each box holds 6 eggs. How many eggs are in 5 boxes and 8 bowls of 1 egg?",
        "<<6*5=30>>30\n<<30+8=38>>38\n#### 38",
    )
    found = perturb(trace, random.Random(0), ("unit_or_rate",))
    assert found is not None
    assert found.text == "<<6+5=11>>11\n<<11+8=19>>19\n#### 19"  # 6 / 5 is not whole


def test_unit_or_rate_confuses_conversions() -> None:
    trace = make_trace("She walks 3 hours. How many minutes and 5 more?", "<<3*60=180>>180\n<<180+5=185>>185\n#### 185")
    texts = {found.text for seed in range(20) if (found := perturb(trace, random.Random(seed), ("unit_or_rate",)))}
    # 3 * 24 = 72, + 5 = 77; 3 * 100 = 300, + 5 = 305
    assert texts == {"<<3*24=72>>72\n<<72+5=77>>77\n#### 77", "<<3*100=300>>300\n<<300+5=305>>305\n#### 305"}


@pytest.mark.parametrize(
    "text",
    ["", "No numbers here.", "She has 12 eggs.", "x = y", "<<4*3=13>>13\n#### 13", "#### 29", "3 + 4"],
)
def test_none_where_no_kind_applies(text: str) -> None:
    """Fault 2: what did not apply is None, never the unchanged text."""
    for seed in range(5):
        assert perturb(make_trace("How many?", text), random.Random(seed)) is None


def test_a_text_too_long_is_left_alone() -> None:
    assert perturb(expert(DEMO + " " * MAX_LENGTH), random.Random(0)) is None


def test_an_ambiguous_number_is_not_carried() -> None:
    # the result 3 is also a number of the problem: which 3 follows from it cannot be told
    trace = make_trace("She has 5 of 3 kinds and loses 2.", "<<5-2=3>>3\n<<3*4=12>>12\n#### 12")
    found = [perturb(trace, random.Random(seed), ("carry_wrong_value",)) for seed in range(20)]
    assert all(one is not None and one.text.startswith("<<5-2=3>>3\n<<3*4=") for one in found)  # the last sum alone


def test_swapping_a_wrong_answer_never_makes_it_right() -> None:
    trace = make_trace("How many?", "It is <<4*3=12>>12.\n#### 15", reference_answer="12", source=Source.POLICY)
    assert all(perturb(trace, random.Random(seed), ("swap_answer",)) is None for seed in range(10))


def test_only_what_comes_before_a_known_error_is_corrupted() -> None:
    text = DEMO.replace("50-21=29", "50-21=30")
    for kind in ("flip_operator", "offset_number"):
        for seed in range(20):
            found = perturb(expert(text), random.Random(seed), (kind,))
            assert found is not None and found.first_error_step < 2
    known = make_trace(PROBLEM, DEMO, truth=Truth(0, "wrong operand"))
    assert all(perturb(known, random.Random(seed)) is None for seed in range(10))


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown kind of perturbation 'flip'; use flip_operator, offset_number"):
        perturb(expert(), random.Random(0), ("flip",))


def test_the_same_seed_gives_the_same_perturbation() -> None:
    assert perturb(expert(), random.Random(5)) == perturb(expert(), random.Random(5))


def test_a_perturbed_trace_keeps_its_problem() -> None:
    """Fault 3: the corrupted copy carries the problem and the reference of the trace it was made from."""
    found = perturb(expert(), random.Random(0), ("carry_wrong_value",))
    assert found is not None
    trace = perturbed_trace(expert(), found)
    assert (trace.problem, trace.problem_id, trace.reference_answer) == (PROBLEM, "p", "29")
    assert (trace.source, trace.text, trace.correct) == (Source.PERTURBED, found.text, False)
    assert trace.truth == Truth(found.first_error_step, "carry_wrong_value")


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 5000), st.integers(0, 2**32))
def test_demo_problems_are_corrupted_as_promised(index: int, seed: int) -> None:
    """Faults 2 and 12: never the unchanged text, never a second copy of the expert."""
    given_problem = problem(index)
    trace = make_trace(given_problem.text, given_problem.solution, reference_answer=given_problem.answer)
    made = [found for kind in ALL_KINDS if (found := perturb(trace, random.Random(seed), (kind,)))]
    assert made, "some kind of mistake can be put into every problem of the generator"
    for found in made:
        assert_kept(trace, found)


def test_the_corpus_checker_finds_the_same_first_error() -> None:
    applied: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    rng = random.Random(0)
    for index in range(100):
        source = problem(index)
        trace = make_trace(source.text, source.solution, reference_answer=source.answer)
        for kind in ALL_KINDS:
            found = perturb(trace, rng, (kind,))
            if found:
                applied[kind] += 1
                agreed[kind] += first_error(source, found.text).first_error_step == found.first_error_step
    assert min(applied.values()) >= 50, applied  # of 100 problems
    for kind in ("flip_operator", "offset_number", "swap_answer", "carry_wrong_value"):
        assert agreed[kind] == applied[kind], kind
    for kind in ("wrong_operand", "drop_step", "unit_or_rate"):
        assert agreed[kind] >= 0.9 * applied[kind], kind


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.sampled_from(
            [
                *"0123456789+-*/=\n",
                "<<",
                ">>",
                "<<3*4=12>>12",
                "12",
                " dollars ",
                "#### ",
                "5 + 7 = 12",
                "The answer is ",
            ]
        ),
        max_size=30,
    ).map("".join),
    st.integers(0, 2**32),
)
def test_any_text_is_corrupted_as_promised_or_not_at_all(text: str, seed: int) -> None:
    trace = make_trace("Each of 3 boxes holds 4 eggs.", text)
    for kind in ALL_KINDS:
        found = perturb(trace, random.Random(seed), (kind,))
        if found:
            assert found.text != text
            steps = segment(found.text)[1]
            assert steps[found.first_error_step].start <= found.span[0] < steps[found.first_error_step].end


@pytest.mark.skipif(not GSM8K.exists(), reason="shared/data/gsm8k is not beside this checkout")
def test_real_solutions_are_corrupted_as_promised() -> None:
    applied: Counter[str] = Counter()
    rng = random.Random(0)
    for line in GSM8K.read_text(encoding="utf-8").splitlines()[:200]:
        row = json.loads(line)
        reference = row["answer"].rpartition("#### ")[2].strip()
        trace = make_trace(row["question"], row["answer"], reference_answer=reference)
        if first_false_step(trace) is not None:
            continue
        for kind in ALL_KINDS:
            found = perturb(trace, rng, (kind,))
            if found:
                applied[kind] += 1
                assert_kept(trace, found)
    # when written, of 200: 194, 194, 197, 145, 125, 124, 124
    assert all(applied[kind] >= 180 for kind in ("flip_operator", "offset_number", "swap_answer")), applied
    assert all(applied[kind] >= 100 for kind in ALL_KINDS), applied
