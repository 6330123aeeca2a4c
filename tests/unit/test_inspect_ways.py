"""``irl-lens inspect --way``: a solution that is written with the reward."""

from __future__ import annotations

from typing import Any

import pytest

from irl_core.errors import InputError
from irl_core.scorer import Lens
from irl_core.strategies import Answered
from irl_core.text.segmentation import make_trace
from tests.tiny import PROBLEM, SOLUTION
from train.cli import inspect


def test_a_solution_is_written_with_the_reward_and_its_draft_shown(
    lens: Lens, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (draft,) = lens.score([make_trace(PROBLEM, SOLUTION)])
    made = Answered(make_trace(PROBLEM, SOLUTION + " "), 1234, draft, draft.trace.steps[0].end)
    monkeypatch.setattr(inspect, "ways", lambda: {"self-revision": lambda lens, problem, seed: made})
    shown = inspect.solution_by("self-revision", lens, PROBLEM, 0, "7")
    assert [one.trace.text for one in shown] == [SOLUTION + " ", SOLUTION]
    assert all(one.trace.reference_answer == "7" for one in shown)
    assert capsys.readouterr().err == (
        "Written by self-revision: 1,234 tokens in all. Its first step is of the first draft; from step 2 it is "
        "written anew. The draft stands below.\n"
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("selfish", None, None, None), "Unknown way 'selfish'; choose one of early-rejection, self-revision, guided-"),
        (("self-revision", "1", None, None), "--way self-revision writes its own solution .*; leave out --solution"),
        (("self-revision", None, 2, None), "leave out --samples"),
        (("self-revision", None, None, "http://127.0.0.1"), "leave out --engine"),
    ],
)
def test_a_way_is_asked_for_alone(given: tuple[Any, ...], told: str) -> None:
    with pytest.raises(InputError, match=told):
        inspect.check_way(*given)
    inspect.check_way(None, *given[1:])
