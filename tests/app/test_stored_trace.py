"""A trace of a scored run on the Inspect page: shown as it was scored, without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fakes
import pytest
from streamlit.testing.v1 import AppTest

from app.analysis import catalogue
from app.analysis.upload_records import ABOUT
from app.inspect import links, results
from irl_core.reward.localisation import Calibration
from irl_core.storage.rows import localisation_of
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"
ASSETS = MAIN.parents[1] / "assets"
BUNDLED = ASSETS / "scored_run" / "run.parquet"
pytestmark = pytest.mark.usefixtures("fake_lens")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Two rows of the bundled run as the only scored run; no discriminator has read the second."""
    found = read_run(BUNDLED).slice(0, 2).to_pylist()
    found[1] |= {"prompt_reward": None, "trace_id": "unread", "text": "<b>no</b> $5 and $10"}
    write_run(tmp_path / "mine" / "run.parquet", found, {"checkpoint": "demo"})
    monkeypatch.setattr(catalogue, "default_roots", lambda: (tmp_path,))
    return found


def open_page(**parameters: str) -> AppTest:
    page = AppTest.from_file(str(MAIN), default_timeout=20)
    for name, value in parameters.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def drawn(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(block.proto.json) for block in page.get("bidi_component")]


def test_it_is_shown_as_it_was_scored_and_no_model_runs(rows: list[dict[str, Any]]) -> None:
    (data,) = drawn(open_page(run="mine", trace=rows[0]["trace_id"]))
    assert data["trace"]["text"] == rows[0]["text"]
    assert [token["raw"] for token in data["trace"]["tokens"]] == pytest.approx(
        [token["raw"] for token in rows[0]["tokens"]]
    )
    assert data["trace"]["first_error_step"] == rows[0]["predicted_step"]
    assert data["title"].startswith(rows[0]["trace_id"]) and "of the scored run mine" in data["caption"]
    assert not fakes.calls


def test_the_run_of_an_upload_has_its_title(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    about = {"title": "My solutions", "created": "2026-01-02T03:04:05+00:00"}
    (tmp_path / "mine" / ABOUT).write_text(json.dumps(about))
    (data,) = drawn(open_page(run="mine", trace=rows[0]["trace_id"]))
    assert "of the scored run My solutions (uploaded 2026-01-02 03:04 UTC)." in data["caption"]


def test_a_bundled_run_says_what_a_fresh_inspection_says() -> None:
    """The checkpoint by the one name that it goes by, and all that its calibration says of the decision."""
    for folder, name, own in (("scored_run", "demo", "demo-irl"), ("scored_run_gsm8k", "gsm8k", "gsm8k-irl")):
        info = catalogue.run_info(folder, ASSETS / folder / "run.parquet")
        first = catalogue.numbered_row(info, 0)
        calibration = Calibration.from_json(json.loads((ASSETS / name / "config.json").read_text())["localisation"])
        where = localisation_of(first)
        assert where.uncertain_threshold == calibration.uncertain_threshold
        assert where.score_tells is calibration.score_tells
        assert catalogue.row(info, first["trace_id"]) == first
        inspection = results.stored_inspection(first, folder)
        assert inspection is not None and inspection.name == name
        said = results.caption(inspection.scored[0], inspection)
        assert f"Checkpoint {name} of the scored run {folder}." in said and own not in said


def test_a_run_of_an_older_version_says_that_it_does_not_know(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    info = catalogue.run_info("mine", tmp_path / "mine" / "run.parquet")  # its provenance names no calibration
    where = localisation_of(catalogue.numbered_row(info, 0))
    assert where.uncertain_threshold is None and where.score_tells is None


def test_a_trace_without_rewards_is_said(rows: list[dict[str, Any]]) -> None:
    page = open_page(run="mine", trace="unread")
    assert not drawn(page)
    assert page.info[0].value.startswith("No reward model has read this solution")
    assert rows[1]["text"] in [one.value for one in page.text]


def test_it_is_scored_again_with_the_chosen_checkpoint(rows: list[dict[str, Any]]) -> None:
    page = open_page(run="mine", trace="unread")
    next(one for one in page.button if one.label.startswith("Score it again")).click().run()
    assert not page.exception
    assert page.text_area(key="solution").value == rows[1]["text"]
    (data,) = drawn(page)
    assert data["trace"]["text"] == rows[1]["text"] and fakes.calls["score"] == 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"run": "mine", "trace": "missing"}, "Not found: the run has no solution of that id."),
        ({"run": "../../etc", "trace": "x"}, "Not found: there is no scored run of that name here"),
        ({"trace": "missing"}, "Not found: this link names a run without a solution"),
        ({"run": "mine", "trace": "x" * 7000}, "This link is not readable: it is longer than 6,000 characters."),
    ],
)
def test_what_is_not_there_is_said_and_one_can_go_on(
    rows: list[dict[str, Any]], parameters: dict[str, str], said: str
) -> None:
    page = open_page(**parameters)
    assert page.error[0].value.replace("\\", "").startswith(said)
    assert "etc" not in page.error[0].value
    page.button[0].click().run()
    assert not page.exception and not page.error
    assert page.text_area(key="problem").value


def test_the_address_of_a_trace_is_read_back() -> None:
    from urllib.parse import parse_qsl, urlsplit

    address = links.to_trace("a/b", "t&1 = $5?\u202e")
    assert links.read_stored(dict(parse_qsl(urlsplit(address).query))) == links.Stored("a/b", "t&1 = $5?\u202e")
    assert links.read_stored({"problem": "x"}) is None
    with pytest.raises(links.LinkError, match="too long for a link"):
        links.to_trace("a", "x" * 7000)
