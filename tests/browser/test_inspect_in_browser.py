"""The Inspect page and its export in a real browser: colours, values, keyboard, hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.inspect.links import Link, write
from irl_core.report.heatmap.export import to_html

pytestmark = pytest.mark.browser

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
WHITE = "rgb(255, 255, 255)"
DARK = "rgb(28, 31, 36)"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    ":red[x] ![](http://x.invalid/) [a](javascript:alert(1))",
    "prices $5 and $10, {{x}} ${1}",
    "\U0001f600\U0001f468\u200d\U0001f469 e\u0301",
    "\u05e9\u05dc\u05d5\u05dd 12 \u202e abc",
    "a\x00b\u200bc\ufeffd",
    "x" * 4000,
    "two  blanks\tand a tab ",
]


def open_page(page: Page, address: str, link: Link | None = None) -> None:
    page.goto(f"{address}/?{urlencode(write(link))}" if link else address)
    page.wait_for_selector(READY, timeout=120_000)
    page.wait_for_selector(".hm .tok", timeout=20_000)
    page.wait_for_selector(READY, timeout=120_000)


def text_of(page: Page) -> str:
    return str(page.evaluate(READ_TEXT, None))


READ_TEXT = """() => {
  const all = (root) => [...root.querySelectorAll('*')].flatMap((e) => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
  return all(document).filter((e) => e.matches('.paper .text')).map((e) => e.textContent).join('');
}"""


def colours(page: Page) -> list[str]:
    style = "nodes => nodes.map(node => getComputedStyle(node).backgroundColor)"
    found: list[str] = page.locator(".hm .tok").evaluate_all(style)
    return found


def token(page: Page, text: str) -> Locator:
    return page.locator(".hm .tok").filter(has_text=re.compile(f"^{re.escape(text)}$")).first


def test_the_heatmap_of_a_text_with_maths_stays_in_sight_and_its_rendered_form_stands_below(
    browser: Browser, address: str
) -> None:
    """Rendered beside the exact text it pushed the heatmap below the form, out of sight."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    open_page(
        page, address, Link("How many?", "**So** \\(3 + 4 = 7\\) and\n\\(7 - 2 = 5\\) are left.\nThe answer is 5.")
    )
    paper = page.locator(".paper").first
    drawn = page.locator("summary").filter(has_text="As it reads with its Markdown and LaTeX drawn")
    drawn.click()
    expect(page.locator(".katex").first).to_be_visible()
    page.get_by_test_id("stMain").evaluate("node => node.scrollTo(0, 0)")
    box, below = paper.bounding_box(), drawn.bounding_box()
    assert box is not None and below is not None
    assert box["y"] + box["height"] < 800 and below["y"] > box["y"] + box["height"]
    context.close()


def test_colours_follow_the_values_in_light_and_dark(browser: Browser, address: str, scheme: str) -> None:
    context = browser.new_context(color_scheme="light" if scheme == "light" else "dark")
    page = context.new_page()
    open_page(page, address, Link("How many?", "pens = 4", view="raw"))
    # raw: pens 1.5, blank 0, = -3, blank 0, 4 0.75, end 0; half colour at 6: shares 1/5, 1/3, 1/9
    expected, ink = {
        # blue (74, 144, 217) at 1/5: 255 - 181/5 = 218.8, 232.8, 247.4; orange (240, 135, 43) at 1/3: 250, 215, 184.3
        "light": (
            ["rgb(219, 233, 247)", WHITE, "rgb(250, 215, 184)", WHITE, "rgb(235, 243, 251)", WHITE],
            "rgb(20, 23, 28)",
        ),
        # paper (28, 31, 36), shares to the power 0.6: 0.381, 0.517, 0.268; blue (38, 104, 180), orange (176, 84, 10):
        # 31.8, 58.8, 90.8; 104.6, 58.4, 22.6; 30.7, 50.5, 74.5
        "dark": (
            ["rgb(32, 59, 91)", DARK, "rgb(105, 58, 23)", DARK, "rgb(31, 51, 75)", DARK],
            "rgb(243, 245, 248)",
        ),
    }[scheme]
    assert colours(page) == expected
    assert token(page, "pens").evaluate("node => getComputedStyle(node).color") == ink
    expect(page.locator(".ticks")).to_have_text("\u221218\u221260+6+18")
    context.close()


def test_hover_shows_the_values_of_a_token(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens= 4"))
    token(page, "=").hover()
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    rows = dict(zip(tip.locator("th").all_inner_texts(), tip.locator("td").all_inner_texts(), strict=True))
    # '=' has raw -3 after 1.5: credit -4.5; standardised (-3 - 0.5) / 1; discounted with 0.9 from the back:
    # -0.5; 0.25 - 0.45 = -0.2; -0.5 - 0.18 = -0.68; -3.5 - 0.612 = -4.112
    assert rows == {
        "token id": "101", "reward": "\u22123.000", "standardised": "\u22123.500", "with what follows": "\u22124.112",
        "rise and fall": "\u22124.500", "log-probability": "\u22120.500",
    }  # fmt: skip
    expect(tip.locator(".tip-text")).to_have_text("=")


def test_arrow_keys_home_and_end_move_the_focus(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens= 4\nfour pens\n#### 4"))
    assert page.locator(".hm .tok[tabindex='0']").count() == 1
    token(page, "pens").focus()
    focused = "() => { let e = document.activeElement; while (e.shadowRoot) e = e.shadowRoot.activeElement;"
    focused += " return e.textContent; }"

    def after(key: str) -> str:
        page.keyboard.press(key)
        return str(page.evaluate(focused))

    assert [after(key) for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "End", "Home")] == [
        "=", " ", "four", "pens", "", "pens"]  # fmt: skip
    expect(page.locator(".tip")).to_contain_text("reward+1.500")
    page.keyboard.press("Escape")
    expect(page.locator(".tip")).to_be_hidden()


def test_hostile_text_is_literal_in_the_page_and_in_the_export(watched: Any, address: str, tmp_path: Path) -> None:
    page = watched.page
    text = "\n".join(HOSTILE)
    open_page(page, address, Link("Problem <b>$5</b> and $10", text))
    assert text_of(page) == text
    assert page.locator(".hm img, .hm script, .hm a").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="HTML page of what is shown").click()
    path = tmp_path / "page.html"
    download.value.save_as(path)
    page.goto(path.as_uri())
    page.wait_for_selector(".hm .tok")
    assert text_of(page) == text
    assert page.locator("main img, main script, main a").count() == 0
    expect(page.locator(".problem")).to_have_text("Problem <b>$5</b> and $10")
    data = json.loads(page.locator("#irl-lens-result").evaluate("node => node.textContent"))
    assert data["traces"][0]["text"] == text


def test_an_emoji_of_several_tokens_is_one_coloured_piece(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "\U0001f600 4"))
    assert page.locator(".hm .tok").first.inner_text() == "\U0001f600"
    page.locator(".hm .tok").first.hover()
    expect(page.locator(".tip")).to_contain_text("3 tokens share these characters")


def test_json_export_is_what_is_drawn(watched: Any, address: str, tmp_path: Path) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens= 4"))
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    download.value.save_as(tmp_path / "x.json")
    data = json.loads((tmp_path / "x.json").read_text())
    assert [one["raw"] for one in data["traces"][0]["tokens"]] == [1.5, -3.0, 0.0, 0.75, 0.0]
    assert to_html(data).count('id="irl-lens-result"') == 1


def test_the_picture_is_a_png_with_the_colours(watched: Any, address: str, tmp_path: Path) -> None:
    from PIL import Image

    page = watched.page
    open_page(page, address, Link("How many?", "pens = 4", view="raw"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as PNG").click()
    download.value.save_as(tmp_path / "trace.png")
    with Image.open(tmp_path / "trace.png") as picture:
        seen = {colour for _, colour in picture.convert("RGB").getcolors(maxcolors=1_000_000) or []}
    assert {(219, 233, 247), (250, 215, 184), (255, 255, 255)} <= seen


def move_slider(page: Page, name: str, key: str) -> None:
    page.get_by_role("slider", name=name).focus()
    page.keyboard.press(key)


def wait_for(condition: Callable[[], bool], page: Page) -> None:
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("the page did not change in 5 s")


def test_the_strength_slider_changes_the_colours(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens = 4", view="raw"))
    move_slider(page, "Colour strength", "ArrowRight")
    # half colour at 3: '=' (-3) is half orange, 'pens' (1.5) a third blue: 194.7, 218, 242.3, '4' (0.75) a fifth
    expected = ["rgb(195, 218, 242)", WHITE, "rgb(248, 195, 149)", WHITE, "rgb(219, 233, 247)", WHITE]
    wait_for(lambda: colours(page) == expected, page)
    expect(page.locator(".ticks")).to_have_text("\u22129\u221230+3+9")
    assert page.locator(".hm").count() == 1


PRESS = """(name) => {
  const all = (root) => [...root.querySelectorAll('*')].flatMap((e) => e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]);
  all(document).find((e) => e.matches('.controls button') && e.textContent === name).click();
  return all(document).filter((e) => e.matches('.hm .tok')).map((e) => getComputedStyle(e).backgroundColor);
}"""


def test_colours_are_changed_in_the_browser_at_once(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens = 4", view="raw"))
    # the trace's largest value, -3, is wholly orange; pens 1.5 is half blue: 164.5, 199.5, 236. No message to the
    # server and back could be in time: click and colours are one call.
    own = page.evaluate(PRESS, "this solution's scale")
    assert own == ["rgb(165, 200, 236)", WHITE, "rgb(240, 135, 43)", WHITE, "rgb(210, 227, 246)", WHITE]
    expect(page.locator(".ticks")).to_have_text("\u221230+3")
    expect(page.locator(".meaning")).to_contain_text("not to be compared with other solutions")
    # credit: 1.5, -1.5, -3, 3, 0.75, -0.75
    assert page.evaluate(PRESS, "rise and fall")[2] == "rgb(240, 135, 43)"
    page.wait_for_url("**view=credit**")  # the page is told, for its link
    expect(page.locator(".view-name")).to_have_text("rise and fall")
    page.wait_for_selector(READY)
    assert page.locator(".hm").count() == 1 and page.locator(".controls").count() == 1
    expect(page.locator(".ticks")).to_have_text("\u221230+3")  # the scale stays as it was chosen


def test_the_first_error_is_outlined_and_in_words(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "four pens\n7 + 4 = 12\n#### 12"))
    expect(page.locator(".headline")).to_have_text("Step 2: 7 + 4 is 11, not 12")
    expect(page.locator(".badge")).to_have_text("false equation")
    row = page.locator(".row.first-error")
    assert row.get_attribute("data-step") == "1"
    assert row.evaluate("node => getComputedStyle(node).borderTopColor") == "rgb(154, 52, 18)"
    said = page.locator(".finding")
    assert [one.get_attribute("data-by") for one in said.all()] == ["arithmetic", "reward"]
    expect(said.nth(0)).to_have_text("Arithmetic: its one equation does not hold: 7 + 4 is 11, not 12 (step 2).")
    line = page.locator(".wrong").first.evaluate("node => getComputedStyle(node).textDecorationStyle")
    assert line == "wavy"


def test_steps_are_called_as_the_text_numbers_them_beside_their_position(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "Step 0: four pens\nStep 1: 7 + 4 = 12\n#### 12"))
    expect(page.locator(".headline")).to_have_text("Step 1, no. 2 of 2: 7 + 4 is 11, not 12")
    assert page.locator(".margin .name").all_inner_texts() == ["Step 0", "Step 1", "Answer"]
    assert page.locator(".margin .place").all_inner_texts() == ["no. 1", "no. 2"]
    expect(page.get_by_role("textbox", name="Step 1 in other words")).to_have_value("Step 1: 7 + 4 = 12")


def test_what_the_model_cannot_judge_has_no_outline_no_badge_and_a_folded_grey_heatmap(
    watched: Any, address: str
) -> None:
    page = watched.page
    page.goto(f"{address}/?{urlencode(write(Link('A quantum of pens?', 'four pens = 4', view='raw')))}")
    expect(page.locator(".headline")).to_have_text("The model cannot judge this text", timeout=20_000)
    assert page.locator(".badge, .first-error").count() == 0
    expect(page.locator(".paper").first).to_have_text("Step 1four pens = 4")  # the text itself, without a score
    expect(page.locator(".tok").first).to_be_hidden()
    page.locator(".folded summary").first.click()
    expect(page.locator(".tok").first).to_be_visible()
    # raw: four 1.5, a fifth: grey (176, 180, 188): 255 - 79/5 = 239.2, 255 - 75/5 = 240, 255 - 67/5 = 241.6
    grey = token(page, "four").evaluate("node => getComputedStyle(node).backgroundColor")
    assert grey == "rgb(239, 240, 242)"


def test_an_edited_text_dims_the_old_result(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "four pens\n7 + 4 = 11\n#### 11"))
    result = page.locator(".st-key-result")
    opacity = "node => getComputedStyle(node).opacity"
    assert result.evaluate(opacity) == "1"
    assert page.get_by_role("slider", name="Solutions to write").count() == 0  # nothing is sampled with a solution
    page.get_by_role("textbox", name="Solution (optional)").fill("four pens\n7 + 4 = 12\n#### 12")
    page.keyboard.press("Tab")
    expect(page.get_by_text("The result of what was asked before")).to_be_visible(timeout=20_000)
    wait_for(lambda: result.evaluate(opacity) == "0.4", page)
    page.get_by_role("button", name=re.compile(r"^Inspect\b")).click()
    expect(page.locator(".headline")).to_have_text("Step 2: 7 + 4 is 11, not 12", timeout=20_000)
    wait_for(lambda: result.evaluate(opacity) == "1", page)


SKIP = "Skip to main content"  # Streamlit's, out of sight until the Tab key reaches it
# the words under a box that is fixed to the window
COVERED = """node => {
  const box = node.getBoundingClientRect(), found = [];
  const all = document.createTreeWalker(document.querySelector("[data-testid=stApp]"), NodeFilter.SHOW_TEXT);
  while (all.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(all.currentNode);
    const it = range.getBoundingClientRect(), style = getComputedStyle(all.currentNode.parentElement);
    const seen = it.width > 1 && it.height > 1 && style.visibility === "visible" && all.currentNode.data.trim();
    if (seen && it.left < box.right && box.left < it.right && it.top < box.bottom && box.top < it.bottom) {
      found.push(all.currentNode.data);
    }
  }
  return found;
}"""


@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_that_takes_more_than_a_second_says_so_over_no_other_words(
    watched: Any, address: str, width: int
) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    page.wait_for_function("window.irlLensKeys")
    expect(page.get_by_text("7 + 4 is 11, not 12").first).to_be_visible(timeout=60_000)
    told, app = page.locator(".irl-lens-waits"), "document.querySelector('[data-testid=stApp]')"
    page.wait_for_function(f"{app}.dataset.testScriptState === 'notRunning'")
    expect(told).to_have_count(0)
    page.evaluate(f"{app}.dataset.testScriptState = 'running'")  # as Streamlit says it while a page is made
    expect(told).to_have_text("Working on this page \u2026", timeout=5_000)
    box = told.bounding_box()
    assert box and (box["x"], box["y"], box["width"]) == (0, 0, width) and 10 < box["height"] < 20
    assert [words for words in told.evaluate(COVERED) if words != SKIP] == []
    page.evaluate(f"{app}.dataset.testScriptState = 'notRunning'")
    expect(told).to_have_count(0)


def test_many_at_once_can_be_stopped(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How slowly?", "7 + 4 = 11\n#### 11"))
    page.get_by_role("button", name="Many at once").click()
    page.get_by_role("textbox", name="Paste a file").fill("\n---\n".join(f"7 + {n} = {7 + n}" for n in range(1, 9)))
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Inspect them all").click()
    expect(page.get_by_text(re.compile("^2 of 8: "))).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile("of 8 inspected: .*; stopped before the other"))).to_be_visible(timeout=20_000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_the_page_is_usable_at_400_pixels(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 900})
    page = context.new_page()
    open_page(page, address, Link("How many?", "x" * 4000))
    wide = page.evaluate("document.scrollingElement.scrollWidth")
    paper = page.locator(".paper").bounding_box()
    assert wide <= 400 and paper and paper["x"] >= 0 and paper["x"] + paper["width"] <= 400
    context.close()


def test_the_address_of_the_page_opens_it_again_without_a_word(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address)
    page.wait_for_url("**checkpoint=**")
    shown = text_of(page)
    open_page(page, page.url)
    assert text_of(page) == shown and page.get_by_test_id("stAlert").count() == 0


def test_a_hostile_link_shows_no_trace(watched: Any, address: str) -> None:
    page = watched.page
    page.goto(f"{address}/?problem=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&view=raw")
    expect(page.get_by_text("This link is not readable")).to_be_visible(timeout=20_000)
    assert page.locator(".hm").count() == 0


def test_a_token_is_chosen_by_click_and_by_enter_to_see_what_else_may_stand_there(watched: Any, address: str) -> None:
    page = watched.page
    open_page(page, address, Link("How many?", "pens= 4"))
    expect(page.locator(".tok.picked")).to_have_text("=")  # what the verdict hangs on
    token(page, "pens").click()
    expect(page.get_by_text("At the token \u201cpens\u201d in step 1", exact=False)).to_be_visible(timeout=30_000)
    expect(page.locator(".tok.picked")).to_have_text("pens")
    page.wait_for_selector(READY)
    token(page, "4").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("At the token \u201c4\u201d in step 1", exact=False)).to_be_visible(timeout=30_000)


def test_form_verdict_and_heatmap_are_in_sight_at_once(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    open_page(page, address, Link("How many?", "four pens\n7 + 4 = 12\n#### 12", "11"))
    for place in (page.get_by_role("button", name="Inspect"), page.locator(".paper"), page.locator(".headline")):
        box = place.bounding_box()
        assert box and box["y"] + box["height"] <= 800
    context.close()
