"""What is typed is what is used, however fast it is typed: fields that are filled without a pause between them."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_inspect_in_browser import READ_TEXT, open_page

pytestmark = pytest.mark.browser

TRIES = 6
PATIENCE = 60_000


def test_fields_filled_without_a_pause_are_what_is_inspected(watched: Any, address: str) -> None:
    page = watched.page
    page.set_default_timeout(PATIENCE)
    open_page(page, address)
    for number in range(TRIES):
        problem, solution = f"How many are {number} and 4?", f"try {number}\n#### {number + 4}"
        page.get_by_role("textbox", name="Problem").fill(problem)
        page.get_by_role("textbox", name="Solution").fill(solution)
        page.get_by_role("textbox", name="Right answer").fill(str(number + 4))
        page.get_by_role("button", name="Inspect").click()
        page.wait_for_function(f"(said) => ({READ_TEXT})() === said", arg=solution, timeout=PATIENCE)
        expect(page.get_by_role("textbox", name="Problem")).to_have_value(problem)
        expect(page.get_by_role("textbox", name="Solution")).to_have_value(solution)
        expect(page.get_by_text("The result of what was asked", exact=False)).to_have_count(0, timeout=PATIENCE)


def test_a_popover_closes_with_its_action(watched: Any, address: str) -> None:
    page = watched.page
    page.set_default_timeout(PATIENCE)
    open_page(page, address)
    page.get_by_role("button", name="Steps by hand").click()
    page.get_by_role("button", name="Use these steps").click()
    expect(page.get_by_role("button", name="Use these steps")).to_be_hidden(timeout=PATIENCE)
