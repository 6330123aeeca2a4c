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


OPACITY = "() => Number(getComputedStyle(document.querySelector('.st-key-result')).opacity)"


def test_the_first_letter_dims_the_result_and_taking_it_back_does_not(watched: Any, address: str) -> None:
    page = watched.page
    page.set_default_timeout(PATIENCE)
    open_page(page, address)
    assert page.evaluate(OPACITY) == 1
    page.get_by_role("textbox", name="Solution").focus()
    page.keyboard.press("Control+End")
    page.keyboard.type("x")  # the page has not heard of it: the field is not left
    page.wait_for_function(f"({OPACITY})() < 1")
    page.keyboard.press("Backspace")
    page.wait_for_function(f"({OPACITY})() === 1")
    page.keyboard.type("x")
    page.keyboard.press("Tab")
    expect(page.get_by_text("The result of what was asked", exact=False)).to_be_visible(timeout=PATIENCE)
    assert page.evaluate(OPACITY) < 1


def test_on_a_narrow_screen_inspect_leads_to_the_result(watched: Any, address: str) -> None:
    page = watched.page
    page.set_default_timeout(PATIENCE)
    page.set_viewport_size({"width": 400, "height": 800})
    open_page(page, address)
    page.get_by_role("textbox", name="Solution").fill("7 + 4 = 11\n#### 11")
    page.get_by_role("button", name="Inspect").click()
    page.wait_for_function(f"() => ({READ_TEXT})().startsWith('7 + 4 = 11')", timeout=PATIENCE)
    top = page.evaluate("document.querySelector('.st-key-found').getBoundingClientRect().top")
    assert 0 <= top < 200
