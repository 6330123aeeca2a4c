"""The numbers that a text gives its own steps are those that they are called by; positions stay what is stored."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from irl_core.report import terminal
from irl_core.report.inspection_json import to_json
from irl_core.reward.verdict import Judge, cell_of, to_record, verdict_on
from irl_core.reward.wording import step_name
from irl_core.text.segmentation import make_trace
from irl_core.text.step_numbers import count_steps, shows_number, step_numbers
from irl_core.types import Localisation
from tests.unit.test_inspection import hand_scored

PARTS = ("Buy 2 boxes of 6 pens.", "That is 2*6=14 pens.", "Give 2 away: 14-2=12.")


def numbered(*marks: str) -> str:
    lines = [f"{mark}{part}" for mark, part in zip(marks, PARTS, strict=True)]
    return "\n".join((*lines, "The answer is 12."))


@pytest.mark.parametrize(
    ("marks", "numbers"),
    [
        (("Step 0: ", "Step 1: ", "Step 2: "), (0, 1, 2)),
        (("Step 1: ", "Step 3: ", "Step 4: "), (1, 3, 4)),
        (("**Step Two:** ", "**Step Three:** ", "**Step Four:** "), (2, 3, 4)),
        (("2. ", "3. ", "4. "), (2, 3, 4)),
        (("(2) ", "(4) ", "(6) "), (2, 4, 6)),
        (("② ", "③ ", "④ "), (2, 3, 4)),
        (("Here is how:\nStep 0: ", "Step 1: ", "Step 2: "), (0, 1, 2)),  # what announces the first step
        (("", "", ""), (1, 2, 3)),
        (("Step 1: ", "Step 2: ", "Step 3: "), (1, 2, 3)),
        (("3.5 is not asked. ", "4. ", "5. "), (1, 2, 3)),  # the first has no number of its own
        (("Step 1: ", "Step 1: ", "Step 2: "), (1, 2, 3)),  # they do not rise
        (("Step 3: ", "Step 2: ", "Step 1: "), (1, 2, 3)),
    ],
)
def test_a_step_has_the_number_that_the_text_gives_it(marks: tuple[str, ...], numbers: tuple[int, ...]) -> None:
    trace = make_trace("How many?", numbered(*marks))
    assert step_numbers(trace.steps) == (*numbers, 4)  # the closing line keeps its place
    assert [step_name(trace.steps, at, of=False) for at in range(3)] == [f"step {number}" for number in numbers]


@pytest.mark.parametrize(
    ("marks", "shown"),
    [
        (("Step 0: ", "Step 1: ", "Step 2: "), True),
        (("Here is how:\n1. ", "2. ", "3. "), True),
        (("", "", ""), False),
        (("Step 3: ", "Step 2: ", "Step 1: "), False),  # called by position, which the text does not show
    ],
)
def test_a_number_is_added_only_where_the_text_shows_none(marks: tuple[str, ...], shown: bool) -> None:
    steps = make_trace("How many?", numbered(*marks)).steps
    assert [shows_number(steps, at) for at in (0, 2, 3)] == [shown, shown, False]
    assert count_steps(step.role for step in steps) == 3


def test_a_single_step_keeps_its_position() -> None:
    assert step_numbers(make_trace("p", "2. That is 2*6=12 pens.\nThe answer is 12.").steps) == (1, 2)


def test_a_verdict_calls_a_step_as_the_text_does_and_says_its_position_once() -> None:
    trace = make_trace("How many?", numbered("Step 1: ", "Step 3: ", "Step 4: "))
    found = verdict_on(trace, None, Judge())
    assert found.headline == "Step 3, no. 2 of 3: 2*6 is 12, not 14"
    assert found.findings[0].says.endswith("2*6 is 12, not 14 (step 3).")
    assert cell_of(found.ruling, None, trace.steps) == "step 3, arithmetic"
    record = to_record(found)
    assert (record["step"], record["step_number"]) == (1, 2)  # what is stored counts by position
    where = Localisation("error", 2, 0.9, "raw/min/argmin", -1.0, (0.0, 0.0, -2.0, 0.0))
    holds = make_trace("How many?", trace.text.replace("=14", "=12").replace("14-2=12", "12-2=10"))
    said = verdict_on(holds, where, Judge(familiar=True))
    assert said.claim == "First error: step 4, no. 3 of 3, says the reward (right in 90% of such cases)"
    assert cell_of(said.ruling, None, holds.steps) == "step 4, reward"


def test_the_command_line_and_the_json_call_steps_as_the_text_does() -> None:
    text = numbered("Step 0: ", "Step 1: ", "Step 2: ")
    scored = hand_scored([float(at) for at in range(9)], text)
    where = Localisation("uncertain", None, 0.5, "raw/min/argmin", -1.0, (0.0, 1.0, 2.0, 3.0))
    result = to_json([scored], [where], problem="p", checkpoint="demo", familiarity=[None])
    steps = result["traces"][0]["steps"]
    assert [step["name"] for step in steps] == ["step 0", "step 1", "step 2", "the answer line"]
    assert [step["number"] for step in steps] == [1, 2, 3, 4]
    console = Console(file=io.StringIO(), width=200, highlight=False, no_color=True)
    terminal.print_result(console, result, view="raw", gamma=0.9, score_name="minimum")
    lines = console.file.getvalue().splitlines()[-4:]  # type: ignore[attr-defined]
    assert [line.split()[0] for line in lines] == ["0", "→", "2", "answer"] and lines[1].split()[1] == "1"
