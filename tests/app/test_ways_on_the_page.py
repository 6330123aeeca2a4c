"""A solution that is written with the reward, on the Inspect page: itself and its first draft beside each other."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from test_inspect_page import drawn, open_page

from irl_core import strategies
from irl_core.strategies import Answered
from irl_core.text.segmentation import make_trace
from irl_core.types import Source

pytestmark = pytest.mark.usefixtures("fake_lens")
DRAFT = "She has 9 pens.\n9 + 4 = 12\n#### 12"
REVISED = "She has 9 pens.\n9 + 4 = 13\n#### 13"


@pytest.fixture(autouse=True)
def ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways that write what they are given here, and say on the way how far they are."""

    def revised(lens: Any, problem: str, seed: int, *, on_progress: Any = None) -> Answered:
        on_progress(1, 2)
        draft, again = (make_trace(problem, text, source=Source.POLICY) for text in (DRAFT, REVISED))
        (scored,) = lens.score([draft])
        return Answered(again, 31, scored, len("She has 9 pens.\n"))

    def guided(lens: Any, problem: str, seed: int, *, on_progress: Any = None) -> Answered:
        return Answered(make_trace(problem, f"{REVISED}, by seed {seed}", source=Source.POLICY), 40)

    monkeypatch.setattr(strategies, "STRATEGIES", {"self-revision": revised, "guided decoding": guided})


def written(page: AppTest, way: str) -> AppTest:
    page.text_area(key="problem").set_value("Ann has 9 pens and gets 4 more. How many pens?")
    page.text_area(key="solution").set_value("").run()
    page.text_input(key="answer").set_value("13")
    page.selectbox(key="way").set_value(way)
    page.button(key="inspect").click().run()
    assert not page.exception
    return page


def test_a_revision_stands_beside_its_first_draft() -> None:
    page = written(open_page(), "self-revision")
    assert [one["trace"]["text"] for one in drawn(page)] == [REVISED, DRAFT]
    assert [one["title"] for one in drawn(page)] == [
        "By self-revision \u00b7 answer 13, correct", "Its first draft \u00b7 answer 12, incorrect",
    ]  # fmt: skip
    assert "Its first step is of the first draft; from step 2 it is written anew." in page.text[0].value
    assert page.query_params["way"] == "self-revision"
    assert all(one.key != "samples" for one in page.dataframe)
    assert [one.key for one in (*page.slider, *page.number_input)] == ["seed"]  # what has no effect is not shown


def test_a_way_is_in_the_link_and_in_what_was_asked_before() -> None:
    first = written(open_page(), "guided decoding")
    (shown,) = drawn(first)
    again = open_page(**dict(first.query_params))
    assert drawn(again)[0]["trace"]["text"] == shown["trace"]["text"] == f"{REVISED}, by seed 0"
    assert again.selectbox(key="way").value == "guided decoding" and not again.warning
    again.number_input(key="seed").set_value(5).run()
    assert "The result of what was asked before" in again.warning[0].value
    again.selectbox(key="way").set_value("").run()
    assert [one.key for one in (*again.slider, *again.number_input)] == ["n", "seed", "temperature"]
