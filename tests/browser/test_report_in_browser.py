"""The report page opened from a file: charts drawn in both themes, no request, no dialog, no error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reports import HOSTILE, hostile_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(hostile_page(), encoding="utf-8")
    return path


def test_charts_and_examples_are_drawn_and_nothing_leaves(watched: Any, file: Path, scheme: str) -> None:
    page = watched.page
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())
    page.wait_for_selector("#example-3 .tok", timeout=60_000)
    drawn = page.locator(".chart.js-plotly-plot")
    assert drawn.count() == page.locator(".chart").count() >= 9
    colour = page.evaluate("getComputedStyle(document.querySelector('.chart .xtitle')).fill")
    assert colour == {"light": "rgb(34, 38, 43)", "dark": "rgb(232, 230, 227)"}[scheme]
    assert HOSTILE.split("\u2028")[0] in page.locator("h1").inner_text()
    assert page.locator("img").count() == 0
    assert said == []


def test_the_charts_follow_the_theme(watched: Any, file: Path) -> None:
    from playwright.sync_api import expect

    page = watched.page
    page.emulate_media(color_scheme="light")
    page.goto(file.as_uri())
    page.wait_for_selector("#example-3 .tok", timeout=60_000)
    page.emulate_media(color_scheme="dark")
    title = page.locator(".chart .xtitle").first  # waited for by the driver: the page's policy lets nobody evaluate
    expect(title).to_have_css("fill", "rgb(232, 230, 227)")
