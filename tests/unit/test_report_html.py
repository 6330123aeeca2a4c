"""The report page: self-contained, its texts inert, its charts strict JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.reports import HOSTILE, hostile_page


class Elements(HTMLParser):
    """The tags with their attributes, and the text of each script."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self.tags.append(("/script", {}))


@pytest.fixture(scope="module")
def page() -> Elements:
    found = Elements()
    found.feed(hostile_page())
    return found


def test_nothing_is_loaded_and_nothing_of_others_is_markup(page: Elements) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"img", "iframe", "link", "object", "embed"}
    assert len(page.scripts) == 3
    assert not [attrs for _, attrs in page.tags if {"src", "onerror", "onload", "onclick"} & attrs.keys()]
    assert all(str(attrs["href"]).startswith("#") for tag, attrs in page.tags if tag == "a")
    assert HOSTILE.replace("\0", "\ufffd") in page.text
    policy = next(attrs["content"] for tag, attrs in page.tags if "http-equiv" in attrs)
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_every_chart_has_its_place_in_both_themes_and_is_strict_json(page: Elements) -> None:
    charts = json.loads(page.scripts[0], parse_constant=lambda name: pytest.fail(name))
    places = {attrs.get("id") for _, attrs in page.tags}
    assert charts.keys() <= places and len(charts) >= 9
    for key, figure in charts.items():
        assert figure.keys() == {"light", "dark"}
        colours = {theme: figure[theme]["layout"]["font"]["color"] for theme in figure}
        assert colours["light"] != colours["dark"], key
        assert not [one for one in figure["light"]["data"] if one["type"].endswith("gl")]  # would need eval
    for attrs in (attrs for _, attrs in page.tags if attrs.get("class") == "chart"):
        assert re.match(r".+; the values are in the tables of this section$", str(attrs["aria-label"]))


def test_the_examples_are_those_of_the_rule_with_their_tokens(page: Elements) -> None:
    examples = json.loads(page.scripts[1])
    assert list(examples) == ["example-0", "example-1", "example-2", "example-3"]
    titles = [one["title"] for one in examples.values()]
    assert [title.split(" solution, ")[0] for title in titles] == ["Correct", "Correct", "Wrong", "Wrong"]
    assert all(one["trace"]["tokens"] and one["view"] == "credit" for one in examples.values())


def test_published_numbers_stand_apart_with_their_source(page: Elements) -> None:
    assert sum(attrs.get("class") == "cited" for _, attrs in page.tags) == 5
    assert page.text.count("Published, not measured here") == 5 and "arXiv 2510.01857" in page.text


def test_a_run_without_anything_has_a_page(tmp_path: Path) -> None:
    from irl_core.evaluation.evaluated_run import load
    from irl_core.evaluation.report import make
    from irl_core.report.html import to_html
    from tests.scored import written

    run = load(written(tmp_path / "run.parquet", []))
    text = to_html(run, make(run))
    assert "no solution" in text or "Undefined" in text


def test_the_page_is_the_same_whatever_else_is_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import plotly.io

    from irl_core.evaluation.evaluated_run import load
    from irl_core.evaluation.report import make
    from irl_core.report.html import to_html
    from tests.scored import written

    run = load(written(tmp_path / "run.parquet", []))
    report = make(run)
    first = to_html(run, report)
    monkeypatch.setattr(plotly.io.templates, "default", "ggplot2")
    assert to_html(run, report) == first
    assert plotly.io.templates.default == "ggplot2"
