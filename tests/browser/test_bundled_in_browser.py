"""The analyst's way on the bundled checkpoint: an example, its heatmap, samples, an export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.inspect import examples

pytestmark = pytest.mark.browser

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
MODELS_ARE_LOADED = 90_000  # milliseconds


def open_inspect(page: Page, address: str) -> None:
    """Wait for the form and for the end of the run that drew it: that run would overwrite what is typed before."""
    page.goto(address)
    page.get_by_role("textbox", name="Problem").wait_for(timeout=MODELS_ARE_LOADED)
    page.wait_for_selector(READY)


def fill(page: Page, name: str, text: str) -> None:
    box = page.get_by_role("textbox", name=name)
    box.fill(text)
    box.press("Tab")
    page.wait_for_selector(READY)
    expect(box).to_have_value(text)


def choose_example(page: Page, name: str, kind: str) -> None:
    page.get_by_role("combobox", name="Example").click()
    page.get_by_role("option", name=name).click()
    page.wait_for_selector(READY)
    page.get_by_role("radiogroup", name="Its solution").get_by_text(kind, exact=True).click()
    page.wait_for_selector(READY)


def shown_text(page: Page) -> str:
    return "".join(page.locator(".hm .tok").all_text_contents())


def test_an_example_is_shown_as_it_was_written(watched: Any, real_address: str) -> None:
    page, example = watched.page, examples.load()[0][0]
    open_inspect(page, real_address)
    choose_example(page, example.name, "with a mistake")
    page.get_by_role("button", name=re.compile(r"^Inspect\b")).click()
    page.wait_for_selector(".hm .tok", timeout=MODELS_ARE_LOADED)
    page.wait_for_selector(READY)
    assert shown_text(page).split() == example.wrong_solution.split()


def test_samples_are_ranked_and_exported(watched: Any, real_address: str, tmp_path: Path) -> None:
    page, example = watched.page, examples.load()[0][1]
    open_inspect(page, real_address)
    fill(page, "Problem", example.problem)
    fill(page, "Solution", "")
    page.get_by_role("button", name=re.compile(r"^Inspect\b")).click()
    page.wait_for_selector(".hm .tok", timeout=MODELS_ARE_LOADED)
    page.wait_for_selector(READY)
    expect(page.get_by_text("Majority", exact=False).first).to_be_visible()
    page.wait_for_selector(READY)  # until then the button may still hold the file of the result before
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    result = json.loads(Path(download.value.path()).read_text())
    assert result["problem"] == example.problem
    assert len(result["traces"]) >= 2
    for trace in result["traces"]:
        assert "".join(token["text"] for token in trace["tokens"]) == trace["text"]
