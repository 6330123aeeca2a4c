"""While models run: nothing moves under the pointer, Stop is where one is, and no older result stands."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from app.inspect.links import Link
from tests.browser.test_inspect_in_browser import READY, open_page, token

pytestmark = pytest.mark.browser

SOLUTION = "Mara has 7 pens.\n7 + 4 = 12 pens.\n#### 12"
SLOW = Link("How slowly?", SOLUTION)  # the fake lens takes a second
PATIENCE = 60_000
INSPECT = re.compile(r"^Inspect\b")

# Where the token of these words stands in each frame that is drawn; null in the moment in which one result takes the
# place of another. A heatmap is a shadow tree.
EVERY_FRAME = """words => {
  window.places = [];
  const tokens = root => [...root.querySelectorAll("*")].flatMap(
    node => node.shadowRoot ? tokens(node.shadowRoot) : node.matches(".hm .tok") ? [node] : []);
  const look = () => {
    const node = tokens(document).find(one => one.textContent.trim() === words);
    const box = node && node.getBoundingClientRect();
    window.places.push(box && box.width ? {x: box.x, y: box.y, width: box.width, height: box.height} : null);
    requestAnimationFrame(look);
  };
  look();
}"""


@pytest.fixture
def page(watched: Any, address: str) -> Any:
    watched.page.set_default_timeout(PATIENCE)
    watched.page.set_viewport_size({"width": 1280, "height": 800})
    open_page(watched.page, address, SLOW)
    return watched.page


def test_a_token_that_is_chosen_stays_under_the_pointer(page: Any) -> None:
    chosen = token(page, "Mara")
    place = chosen.bounding_box()
    page.evaluate(EVERY_FRAME, "Mara")
    chosen.click()
    strip = page.locator(".st-key-strip_stop_change")
    expect(strip).to_be_visible()
    opacity = "node => getComputedStyle(node).opacity"
    stale = page.locator(".st-key-shown [data-stale=true]")
    assert set(stale.evaluate_all(f"nodes => nodes.map({opacity})")) <= {"1"}
    expect(strip).to_have_count(0, timeout=PATIENCE)
    page.locator(READY).wait_for()
    page.wait_for_function("() => window.places.at(-1) !== null")  # the result has taken the older one's place
    drawn = [one for one in page.evaluate("window.places") if one]
    assert len(drawn) > 10
    assert [one for one in drawn if one != pytest.approx(place, abs=0.01)] == []


def test_what_is_asked_down_the_page_can_be_stopped_there(page: Any) -> None:
    page.get_by_role("button", name="Try again from here").click()
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_in_viewport()
    assert page.locator("[data-testid=stMain]").evaluate("node => node.scrollTop") > 0
    stop.click()
    expect(page.get_by_text("was stopped")).to_have_count(1, timeout=PATIENCE)


def test_an_older_result_does_not_stand_beside_what_is_inspected(page: Any) -> None:
    page.get_by_role("textbox", name="Solution").fill("")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Sampling", exact=True)).to_be_visible(timeout=PATIENCE)
    page.get_by_role("textbox", name="Solution").fill("7 + 5 = 13\n#### 13")
    page.get_by_role("button", name=INSPECT).click()
    expect(page.get_by_text("Known without the model")).to_be_visible(timeout=PATIENCE)
    assert not page.locator(".headline").first.is_visible()
    assert page.get_by_role("button", name="Many at once").count() == 1
    expect(page.locator(".headline:visible")).to_have_text("Step 1: 7 + 5 is 12, not 13", timeout=PATIENCE)


def test_many_at_once_closes_however_fast_it_is_filled(page: Any) -> None:
    page.get_by_role("button", name="Many at once").click()
    page.get_by_role("textbox", name="Paste a file").fill("7 + 1 = 8\n---\n7 + 2 = 9")
    page.get_by_role("button", name="Inspect them all").click()
    expect(page.get_by_role("button", name="Inspect them all")).to_be_hidden(timeout=PATIENCE)
    expect(page.get_by_text(re.compile("^2 inspected"))).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Inspect them all")).to_be_hidden(timeout=PATIENCE)


def test_keys_are_told_where_there_is_a_keyboard_and_inspect_leads_to_the_verdict_where_it_is_narrow(page: Any) -> None:
    keys = page.locator(".st-key-inspect kbd")
    expect(keys.first).to_be_visible()
    page.set_viewport_size({"width": 400, "height": 800})
    expect(keys.first).to_be_hidden()
    page.get_by_role("textbox", name="Solution").fill("7 + 5 = 13\n#### 13")
    page.get_by_role("button", name=INSPECT).click()
    headline = page.locator(".headline:visible")
    expect(headline).to_have_text("Step 1: 7 + 5 is 12, not 13", timeout=PATIENCE)
    expect(headline).to_be_in_viewport()
