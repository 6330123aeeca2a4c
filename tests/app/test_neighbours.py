"""The chart pages say which score they are about, and what the others find of it: the figures of the report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.analysis import chooser, neighbours, sections
from app.analysis.catalogue import run_info
from app.analysis.neighbours import Answers, answers
from tests.evaluated import frame, simulated
from tests.scored import written

VIEWS = Path(__file__).resolve().parents[2] / "app" / "views"
SCORE = "score_mean_discounted"
pytestmark = pytest.mark.usefixtures("fake_lens")


@pytest.mark.parametrize("score", [SCORE, "score_product", "shortness"])
def test_the_answers_are_those_of_the_pages(tmp_path: Path, score: str) -> None:
    path = written(tmp_path / "one.parquet", simulated(12, 4))
    sample = sections.sample(path)
    found = answers(sample.frame, score)
    held = {name: sections.section(name, path, sample).figures for name in ("separation", "correlation", "reranking")}
    if score in held["correlation"].partial:
        partial = held["correlation"].partial[score]
        assert found.pooled == pytest.approx(partial.pooled["nothing"].value)
        assert found.within == pytest.approx(partial.within["nothing"].value)
    pairs = held["separation"].scores[score].within["pair_accuracy"]
    assert (found.ranked, found.pairs) == (pytest.approx(pairs.value), pairs.n)
    assert found.best == pytest.approx(held["reranking"].by_score[score]["1"].value.value)
    assert found.chance == pytest.approx(held["reranking"].baselines["random_sample"]["1"].value)


@pytest.mark.parametrize("change", [{"correct": None}, {SCORE: None}, {SCORE: 1.0}, {"correct": True}])
def test_what_is_undefined_is_left_out(change: dict[str, Any]) -> None:
    found = answers(frame([row | change for row in simulated(4, 3)]), SCORE)
    assert math.isnan(found.pooled) and "correlations" not in found.words
    assert answers(frame([]), SCORE).words == {}


def test_why_answers_differ_is_said_only_where_they_do() -> None:
    agreed = Answers(24, 0.2, 0.1, 11, 0.64, 12, 0.67, 0.54)
    assert not agreed.disagree
    assert Answers(24, -0.06, -0.14, 11, 0.64, 12, 0.67, 0.54).disagree
    assert agreed.words["reranking"].startswith(
        "the highest is right in 67 % of 12 problems, one drawn at random in 54 %"
    )
    assert "r with correctness is \u22120.06 over" in Answers(24, -0.06, 0, 0, 0, 0, 0, 0).words["correlations"]


@pytest.mark.parametrize("name", list(neighbours.QUESTIONS))
def test_each_page_names_its_score_and_leads_to_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    path = written(tmp_path / "one.parquet", simulated(12, 4))
    monkeypatch.setattr(chooser, "choose", lambda multiple: [run_info("one", path)])
    gone: list[str] = []
    monkeypatch.setattr("streamlit.switch_page", lambda page: gone.append(Path(page).stem))
    page = AppTest.from_file(str(VIEWS / f"{name}.py"), default_timeout=60).run()
    said = "\n".join(one.value for one in page.caption).replace("\\", "")
    assert "The score is here: mean discounted reward, response; that of the published method" in said
    others = [one for one in neighbours.QUESTIONS if one != name]
    assert all(f"({one.capitalize()})" in said for one in neighbours.QUESTIONS)
    for other in others:
        page.button(key=f"to_{other}").click().run()
    assert gone == others and not page.exception
