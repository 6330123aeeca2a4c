"""The dialog that starts a training: all its fields are of one preset, however often it is opened."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
SLOW = 60_000  # milliseconds


def opened(page: Any) -> Any:
    page.get_by_role("button", name="Train \u2026").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("spinbutton", name="Steps")).to_be_visible(timeout=SLOW)
    page.wait_for_selector(READY, timeout=SLOW)
    return dialog


def fields(dialog: Any) -> tuple[str, ...]:
    """Preset and method in words, name and steps, as they are seen."""
    words = [dialog.get_by_role("combobox", name=name).input_value() for name in ("Preset", "Method")]
    name = dialog.get_by_role("textbox", name="Name of the run").input_value()
    return (*words, name, dialog.get_by_role("spinbutton", name="Steps").input_value())


def test_a_form_that_is_opened_again_is_of_one_preset_and_keeps_what_is_typed(watched: Any, address: str) -> None:
    page = watched.page
    page.goto(f"{address}/upload")
    page.wait_for_selector(READY, timeout=SLOW)
    dialog = opened(page)
    first = fields(dialog)
    assert first[0].startswith("demo-irl  (irl") and first[1:3] == ("irl", "demo-irl")
    for _ in range(2):  # chosen, closed, and opened at once: what the server still has is not what the browser shows
        dialog.get_by_role("combobox", name="Preset").click()
        page.get_by_role("option", name="demo-sft").click()
        expect(dialog.get_by_role("spinbutton", name="Steps")).to_have_value("1500")
        for role, name, value in (("textbox", "Name of the run", "mine"), ("spinbutton", "Steps", "60")):
            field = dialog.get_by_role(role, name=name)
            field.fill(value)
            field.press("Tab")
            page.wait_for_selector(READY)
        told = fields(dialog)
        assert told[0].startswith("demo-sft  (sft") and told[1:] == ("sft", "mine", "60")
        dialog.get_by_role("button", name="Close").click()
        expect(dialog).to_have_count(0)
        dialog = opened(page)
        assert fields(dialog) == first
