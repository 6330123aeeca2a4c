"""The reviewer's way: filter, annotate ten by keyboard, export; a second annotator disagrees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from irl_core.data.annotations import Annotations
from irl_core.storage.run_writer import write_run
from irl_core.storage.scored_run import read_run
from tests.browser.conftest import ROOT, served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
HOSTILE = "<img src=x onerror=alert(1)> :red[x] $5 and $10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a server works: one scored run of its own, with a hostile text first among the wrong ones."""
    place = tmp_path_factory.mktemp("reviewed")
    rows = read_run(ROOT / "assets" / "scored_run" / "run.parquet").slice(0, 256).to_pylist()
    found = list({(row["problem"], row["text"]): row for row in rows}.values())  # one text is one answer
    wrong = next(row for row in found if row["correct"] is False)
    wrong |= {"problem": HOSTILE, "trace_id": HOSTILE, "reference_solution": HOSTILE}
    write_run(place / "runs" / "reviewed" / "run.parquet", found, {"checkpoint": "demo"})
    return place


@pytest.fixture(scope="module")
def reviewed(folder: Path) -> Iterator[str]:
    before = Path.cwd()
    with served(ROOT / "app" / "main.py", folder / "server.log") as found:
        yield found
    assert Path.cwd() == before


def open_page(page: Page, address: str, annotator: str) -> None:
    page.goto(f"{address}/failures")
    page.wait_for_selector(READY)
    page.get_by_role("combobox", name="Scored run").click()
    page.get_by_role("option", name="reviewed", exact=True).click()
    expect(page.locator(".st-key-trace").get_by_text(HOSTILE).first).to_be_visible(timeout=30_000)
    page.wait_for_selector(READY)
    page.get_by_role("button", name="Reviewer").click()
    name = page.get_by_role("textbox", name="Annotator")
    name.fill(annotator)
    name.press("Enter")
    page.wait_for_selector(READY)
    page.keyboard.press("Escape")
    expect(name).to_be_hidden()
    page.wait_for_selector(READY)


def settled(page: Page, text: str) -> None:
    expect(page.get_by_text(text, exact=False).first).to_be_visible(timeout=30_000)
    page.wait_for_selector(READY)


def answer(page: Page, key: str, said: str) -> None:
    """Choose by key, save and go on with Enter."""
    page.keyboard.press(key)
    expect(page.get_by_role("button", name="Save")).to_be_enabled(timeout=30_000)
    page.wait_for_selector(READY)
    page.keyboard.press("Enter")
    settled(page, f"You said: {said}.")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You said:", exact=False)).to_have_count(0, timeout=30_000)
    page.wait_for_selector(READY)


def test_ten_are_annotated_by_keyboard_and_exported(watched: Any, reviewed: str, folder: Path) -> None:
    page = watched.page
    open_page(page, reviewed, "first")
    expect(page.locator(".st-key-trace").get_by_text(HOSTILE).first).to_be_visible(timeout=30_000)
    expect(page.locator(".hm .tok")).to_have_count(0, timeout=30_000)  # blind: nothing is coloured before the answer
    keys = ["2", "1", "0", "u", "1", "2", "0", "1", "2", "1"]
    for key in keys:
        answer(page, key, {"0": "no step is wrong", "u": "unsure"}.get(key, f"step {key}"))
    said = Annotations(folder / "runs" / "annotations.sqlite").all()
    assert [one.label for one in said] == [{"0": "none", "u": "unsure"}.get(key, f"step {key}") for key in keys]
    wrong = [row["trace_id"] for row in read_run(folder / "runs" / "reviewed" / "run.parquet").to_pylist()
             if row["correct"] is False]  # fmt: skip
    assert [one.trace_id for one in said] == wrong[:10] and all(one.blind for one in said)
    page.get_by_text("Export and import annotations").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSONL of all 10 annotations").press("Enter")
    lines = Path(download.value.path()).read_text().splitlines()
    assert [json.loads(line)["annotator"] for line in lines] == ["first"] * 10
    assert page.locator("img[src=x]").count() == 0


def test_a_second_annotator_disagrees_and_keys_in_a_text_are_letters(watched: Any, reviewed: str, folder: Path) -> None:
    page = watched.page
    open_page(page, reviewed, "second")
    expect(page.locator(".hm .tok")).to_have_count(0, timeout=30_000)
    note = page.get_by_role("textbox", name="Note")
    note.click()
    note.press_sequentially("j1u")  # no shortcut while something is typed
    expect(note).to_have_value("j1u")
    expect(page.locator(".st-key-trace").get_by_text(HOSTILE).first).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Step 1").click()
    expect(page.get_by_role("button", name="Save")).to_be_enabled(timeout=30_000)
    page.wait_for_selector(READY)
    note.press("Enter")  # saves from within the note as well
    settled(page, "You said: step 1 (note \u201cj1u\u201d).")
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible(timeout=30_000)  # its id, once it is judged
    note.blur()
    page.keyboard.press("Enter")
    expect(page.get_by_text("You said:", exact=False)).to_have_count(0, timeout=30_000)
    page.wait_for_selector(READY)
    answer(page, "1", "step 1")
    said = Annotations(folder / "runs" / "annotations.sqlite").all()
    assert [(one.annotator, one.label) for one in said[10:]] == [("second", "step 1"), ("second", "step 1")]
    assert said[10].trace_id == said[0].trace_id and said[10].note == "j1u"
    page.get_by_text("Agreement between annotators", exact=False).click()
    page.wait_for_selector(READY)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").press("Enter")
    table = Path(download.value.path()).read_text()
    assert '"first","second","0.500' in table  # of two traces judged by both, one alike


def test_the_annotation_lands_on_the_trace_whatever_is_sorted(watched: Any, reviewed: str, folder: Path) -> None:
    page = watched.page
    open_page(page, reviewed, "third")
    page.keyboard.press("j")
    expect(page.get_by_text("\u25b6 is 2 of", exact=False)).to_be_visible(timeout=30_000)
    page.wait_for_selector(READY)
    name = page.locator("[data-testid=stMain] h3").first.inner_text()
    page.get_by_role("button", name="Filter").click()
    page.get_by_text("Highest first").click()
    page.keyboard.press("Escape")
    expect(page.get_by_text("\u25b6 is 2 of", exact=False)).to_have_count(0, timeout=30_000)
    page.wait_for_selector(READY)
    assert page.locator("[data-testid=stMain] h3").first.inner_text() == name
    page.get_by_role("heading", name="Where do solutions").click()
    page.keyboard.press("0")
    expect(page.get_by_role("button", name="Save")).to_be_enabled(timeout=30_000)
    page.wait_for_selector(READY)
    page.keyboard.press("Enter")
    settled(page, "You said: no step is wrong.")
    last = Annotations(folder / "runs" / "annotations.sqlite").all()[-1]
    ids = read_run(folder / "runs" / "reviewed" / "run.parquet").column("trace_id").to_pylist()
    assert (last.annotator, last.trace_id) == (
        "third",
        ids[int(name.removeprefix("row ").removesuffix(" of the file")) - 1],
    )


IN_SIGHT = """() => {
  const box = (node) => { const at = node.getBoundingClientRect(); return [at.top, at.bottom]; };
  const nodes = [...document.querySelectorAll(".st-key-trace *")];
  const host = nodes.find((node) => node.shadowRoot?.querySelector(".paper"));
  const scrolls = [...document.querySelectorAll(".st-key-trace, .st-key-trace *, .st-key-beside, .st-key-beside *")]
    .filter((node) => ["auto", "scroll"].includes(getComputedStyle(node).overflowY)
      && node.scrollHeight > node.clientHeight + 2);
  return {
    trace: box(host.shadowRoot.querySelector(".paper")), question: box(document.querySelector(".st-key-question")),
    scrolls: scrolls.length,
  };
}"""


def height_of_question(page: Page) -> float:
    box = page.locator(".st-key-question").bounding_box()
    assert box is not None
    return box["height"]


@pytest.mark.parametrize("width", [1280, 400])
def test_the_answered_trace_is_read_without_an_inner_box_and_the_question_stays(
    browser: Browser, reviewed: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    open_page(page, reviewed, f"of {width}")
    page.keyboard.press("j")
    expect(page.get_by_text("\u25b6 is 2 of", exact=False)).to_be_visible(timeout=60_000)
    page.wait_for_selector(READY)
    heights = [height_of_question(page)]
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Save")).to_be_enabled(timeout=60_000)
    page.wait_for_selector(READY)
    page.keyboard.press("Enter")
    settled(page, "You said: step 1.")
    page.wait_for_selector(".st-key-trace .paper")
    heights.append(height_of_question(page))
    seen = page.evaluate(IN_SIGHT)
    assert seen["scrolls"] == 0
    if width == 1280:
        assert seen["trace"][0] > 0 and seen["trace"][1] <= seen["question"][0]
    for _ in range(2):  # at the top, and scrolled down to the whole of the trace
        assert seen["question"][0] > 0 and seen["question"][1] <= 800
        page.evaluate("document.querySelector('.st-key-trace').scrollIntoView({ block: 'end' })")
        seen = page.evaluate(IN_SIGHT)
    page.keyboard.press("u")
    settled(page, "Save notes unsure beside it.")
    heights.append(height_of_question(page))
    assert max(heights) - min(heights) <= (2 if width == 1280 else 40)  # on a narrow screen Undo may need a row
    if width == 1280:  # with a further row of fields the list ends above them, and the rest of it is scrolled to
        page.get_by_text("Severity, wrong words").click()
        expect(page.get_by_role("textbox", name="Wrong words")).to_be_visible()
        page.wait_for_selector(READY)
        page.get_by_test_id("stMain").evaluate("node => node.scrollTo(0, 0)")
        listing, question = (page.locator(f".st-key-{name}").bounding_box() for name in ("listing", "question"))
        assert listing is not None and question is not None
        assert listing["y"] + listing["height"] <= question["y"]
        page.get_by_role("button", name="CSV of these rows").scroll_into_view_if_needed()
        csv = page.get_by_role("button", name="CSV of these rows").bounding_box()
        assert csv is not None and csv["y"] + csv["height"] <= question["y"]
    context.close()


SELECT = """() => {
  const words = document.querySelectorAll(".irl-lens-marking [data-start]")[0].firstChild;
  const range = document.createRange();
  range.setStart(words, 1);
  range.setEnd(words, 6);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  return [words.textContent.slice(1, 6), words.textContent.length];
}"""


WHOLE = """() => {
  const text = document.querySelectorAll(".irl-lens-marking [data-start]")[0].textContent;
  const end = text.slice(6).search(/[^A-Za-z]/) + 6;
  return [text.slice(0, end), 0];
}"""


def test_wrong_words_are_marked_in_the_text(watched: Any, reviewed: str, folder: Path) -> None:
    page = watched.page
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "marker")
    page.get_by_text("Severity, wrong words").click()
    button = page.get_by_role("button", name="Mark the selected words as wrong")
    expect(button).to_be_disabled()
    words, _ = page.evaluate(SELECT)
    whole, start = page.evaluate(WHOLE)
    expect(button).to_be_enabled()
    button.click()
    expect(page.get_by_role("textbox", name="Wrong words")).to_have_value(whole)  # whole words, though a part was taken
    expect(page.locator(".irl-lens-marking mark")).to_have_text(whole)
    assert words.strip() != whole and words.strip() in whole
    expect(page.get_by_role("button", name="Save")).to_be_enabled()  # the step that holds them is chosen
    page.wait_for_selector(READY)
    page.get_by_role("button", name="Save").click()
    settled(page, f"You said: step 1 (the words \u201c{whole}\u201d).")
    last = Annotations(folder / "runs" / "annotations.sqlite").all()[-1]
    assert (last.annotator, last.step, last.span_start, last.span_end) == ("marker", 0, start, start + len(whole))


def test_a_digit_that_is_no_step_is_said(watched: Any, reviewed: str) -> None:
    page = watched.page
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "digits")
    page.keyboard.press("9")
    expect(page.get_by_role("status").filter(has_text="Key 9 is no step of this solution.")).to_be_visible()


def test_enter_twice_saves_once(watched: Any, reviewed: str, folder: Path) -> None:
    page = watched.page
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "hasty")
    page.keyboard.press("1")
    expect(page.get_by_role("button", name="Save")).to_be_enabled(timeout=30_000)
    page.wait_for_selector(READY)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 of 70 judged by you")).to_be_visible(timeout=30_000)
    page.wait_for_timeout(3_000)  # for the second one, which the browser may send with the first
    page.wait_for_selector(READY)
    said = [one for one in Annotations(folder / "runs" / "annotations.sqlite").all() if one.annotator == "hasty"]
    assert [(one.label, one.blind) for one in said] == [("step 1", True)]


@pytest.mark.parametrize(("keys", "said"), [("1", "step 1"), ("12", "step 2")])
def test_an_enter_that_follows_a_choice_at_once_is_kept_and_saves_it_once(
    watched: Any, reviewed: str, folder: Path, keys: str, said: str
) -> None:
    """Save was disabled until the page was drawn anew: the Enter was lost, and nothing was said."""
    page = watched.page
    page.set_default_timeout(60_000)
    open_page(page, reviewed, f"quick {keys}")
    page.evaluate("document.activeElement.blur()")
    for key in (*keys, "Enter", "Enter"):  # sent without a word from the page in between
        page.keyboard.press(key)
    expect(page.get_by_text("\u25b6 is 2 of", exact=False)).to_be_visible(timeout=60_000)  # the second Enter goes on
    page.wait_for_timeout(2_000)  # for a second one, were it sent
    page.wait_for_selector(READY)
    stored = Annotations(folder / "runs" / "annotations.sqlite").all()
    assert [(one.label, one.blind) for one in stored if one.annotator == f"quick {keys}"] == [(said, True)]


def test_an_enter_without_a_choice_is_said_and_keys_are_taken_one_after_the_other(
    watched: Any, reviewed: str, folder: Path
) -> None:
    page = watched.page
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "too quick")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="Nothing is chosen yet")).to_be_visible()
    known = Annotations(folder / "runs" / "annotations.sqlite")
    for key in ("0", "Enter", "z", "u", "Enter", "j"):  # sent without a word from the page in between
        page.keyboard.press(key)
    expect(page.get_by_text("\u25b6 is 2 of", exact=False)).to_be_visible(timeout=60_000)
    assert [one.label for one in known.all() if one.annotator == "too quick"] == ["unsure"]  # 'none' was undone
    page.keyboard.press("z")
    expect(page.get_by_role("status").filter(has_text="nothing of yours to undo")).to_be_visible()


def test_the_filter_fits_on_a_screen(browser: Browser, reviewed: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "filters")
    page.get_by_role("button", name="Filter", exact=True).click()
    expect(page.get_by_role("slider").first).to_be_visible()
    page.wait_for_timeout(500)  # it grows as it opens
    body = page.locator("[data-testid=stPopoverBody]:has(.st-key-where)")
    assert body.evaluate("(node) => node.scrollHeight - node.clientHeight") <= 2
    box, labels = body.bounding_box(), body.locator("[data-testid=stWidgetLabel]:visible")
    assert box is not None and box["y"] >= 0 and box["y"] + box["height"] <= 800
    lines = {name: labels.filter(has_text=name).first.bounding_box() for name in ("Verdict", "Step that", "True first")}
    assert lines["Verdict"]["y"] == lines["Step that"]["y"] < lines["True first"]["y"]
    context.close()


def test_at_400_pixels_the_trace_is_seen_above_the_question(browser: Browser, reviewed: str) -> None:
    """The list of traces lay before it, and the question over the rest of the screen."""
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "small")
    page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop = 0")
    question = page.locator(".st-key-question").bounding_box()
    steps = page.locator(".st-key-trace [data-testid=stText]").last.bounding_box()
    listing = page.locator(".st-key-listing").bounding_box()
    assert question and steps and listing
    assert steps["y"] > 0 and steps["y"] + steps["height"] <= question["y"] < 800
    assert listing["y"] > steps["y"]
    expect(page.locator(".st-key-listing [data-testid=stDataFrame]")).to_be_hidden()
    expect(page.locator(".st-key-listing .figures tbody tr").first).to_be_visible()  # cards
    context.close()


EDGES = """() => {
  const low = (node) => node.getBoundingClientRect().bottom;
  const choices = document.querySelector(".st-key-choices");
  const fields = "[data-testid=stSelectbox], [data-testid=stTextInput], [data-testid=stFormSubmitButton] button";
  return [
    Math.max(...[...choices.querySelectorAll("button")].map(low)) - low(choices),
    [...document.querySelectorAll(".st-key-say form, .st-key-say [data-testid=stForm]")]
      .flatMap((form) => [...form.querySelectorAll(fields)]).map(low),
  ];
}"""


def test_at_400_pixels_the_question_takes_a_quarter_and_nothing_of_it_is_cut_off(
    browser: Browser, reviewed: str
) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page = context.new_page()
    page.set_default_timeout(60_000)
    open_page(page, reviewed, "narrow")
    box = page.locator(".st-key-question").bounding_box()
    assert box is not None and box["height"] <= 200
    edges = page.evaluate(
        "[...document.querySelectorAll('.st-key-question button')].map((one) => one.getBoundingClientRect())"
        ".filter((one) => one.width).map((one) => [one.left, one.right])"
    )
    assert len(edges) >= 6 and all(0 <= left < right <= 400 for left, right in edges)
    cut, fields = page.evaluate(EDGES)
    assert cut <= 0 and max(fields) - min(fields) <= 1  # no answer is cut at its lower edge; Save stands in its row
    context.close()
