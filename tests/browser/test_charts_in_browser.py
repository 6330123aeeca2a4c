"""The pages on distributions, correlations and reranking in a real browser: values, files, clicks, keys, themes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from app.analysis import sections
from irl_core.evaluation import separation
from irl_core.evaluation.evaluated_run import load
from irl_core.storage.scored_run import read_row
from tests.browser.conftest import HERE, ROOT, Watched, served
from tests.evaluated import simulated
from tests.scored import written

pytestmark = pytest.mark.browser

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
CHART = "[data-testid=stPlotlyChart] .js-plotly-plot"
DRAWN = 60_000  # milliseconds
HOSTILE = "<img src=x onerror=alert(1)>"
LINKS = "https://evil.example/a www.evil.example a@evil.example [b](http://evil.example)"
SCORE = "score_mean_discounted"
BUNDLED = ROOT / "assets" / "scored_run" / "run.parquet"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three scored runs: plain, of few solutions, and one whose ids, texts and origin are hostile."""
    folder = tmp_path_factory.mktemp("runs")
    written(folder / "plain.parquet", simulated(30, 6), checkpoint="demo-irl", data="demo")
    written(folder / "few.parquet", simulated(12, 2), checkpoint="demo-irl", data="demo")  # of few all is points
    rows = simulated(12, 4)
    for number, row in enumerate(rows):
        row |= {"trace_id": f"=cmd() {HOSTILE} $5 and $10 {number}", "text": HOSTILE}
    written(folder / "hostile.parquet", rows, checkpoint=f"{HOSTILE} $5 and $10", data=f"=cmd() {LINKS}")
    return folder


@pytest.fixture(scope="module")
def pages(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    before = os.environ.get("IRL_LENS_CHECKPOINTS")
    os.environ["IRL_LENS_CHECKPOINTS"] = str(runs)
    try:
        with served(HERE / "fake_app.py", tmp_path_factory.mktemp("server") / "charts.log") as found:
            yield found
    finally:
        if before is None:
            del os.environ["IRL_LENS_CHECKPOINTS"]
        else:
            os.environ["IRL_LENS_CHECKPOINTS"] = before


@pytest.fixture
def shown(watched: Watched) -> Watched:
    watched.page.set_default_timeout(DRAWN)
    return watched


def ready(page: Page) -> None:
    """Wait until the page has run and its charts are drawn."""
    page.wait_for_selector(READY)
    page.wait_for_selector(f"{CHART} .plot-container")
    page.wait_for_selector(READY)


def open_page(page: Page, address: str, name: str, run: str = "plain") -> None:
    """The page with one run chosen."""
    page.goto(f"{address}/{name}")
    page.wait_for_selector(READY)
    chooser = page.get_by_role("combobox", name="Scored runs")
    chooser.click()
    page.keyboard.press("Backspace")
    page.get_by_text("Choose a scored run to see it.").wait_for()
    page.get_by_role("option", name=run, exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_text(f"{run}: checkpoint").first.wait_for()
    ready(page)


def figure(page: Page, place: int) -> dict[str, Any]:
    """The points and the colours of a chart as plotly has them."""
    found: dict[str, Any] = page.locator(CHART).nth(place).evaluate(READ)
    return found


READ = """node => ({
  data: node._fullData.filter((one) => one.customdata).map((one) => ({y: Array.from(one.y), ids: one.customdata})),
  paper: node._fullLayout.paper_bgcolor, ink: node._fullLayout.font.color,
})"""


def download(page: Page, place: int) -> list[list[str]]:
    """The rows of the CSV under a chart."""
    panel = page.get_by_test_id("stExpander").filter(has_text="The values of this chart as a table").nth(place)
    panel.locator("summary").click()
    # The button of the panel itself: the table's own toolbar has one too, which hides when the pointer leaves. It is
    # pressed when the page has run to its end, since a run that goes on replaces the file behind the button, and by
    # key: the panel is still unfolding, and a button that moves between press and release of the mouse is not clicked.
    button = panel.get_by_test_id("stDownloadButton").get_by_role("button")
    expect(button).to_be_visible()
    ready(page)
    with page.expect_download() as found:
        button.press("Enter")
    return list(csv.reader(io.StringIO(Path(found.value.path()).read_text())))


def test_points_table_and_file_hold_the_scores_of_the_run(shown: Watched, pages: str, runs: Path) -> None:
    page = shown.page
    open_page(page, pages, "distributions")
    frame = load(runs / "plain.parquet").frame
    expected = {("plain", row["trace_id"]): row[SCORE] for row in frame.to_dict("records")}
    points = figure(page, 1)["data"]
    drawn = {tuple(ids): value for one in points for ids, value in zip(one["ids"], one["y"], strict=True)}
    assert drawn == pytest.approx(expected)
    rows = download(page, 1)
    saved = {(row[0], row[1]): float(row[3]) for row in rows[1:]}
    assert rows[0] == ["run", "solution", "class", "value", "cannot_judge", "familiar"]
    assert saved == pytest.approx(expected)


def test_the_words_are_those_of_the_report(shown: Watched, pages: str, runs: Path) -> None:
    open_page(shown.page, pages, "distributions")
    said = separation.paragraph(separation.figures(load(runs / "plain.parquet")))
    shown.page.locator("summary").filter(has_text="Figures, with intervals and n").click()
    for line in sections.sentences(said):
        expect(shown.page.get_by_role("listitem").filter(has_text=line)).to_be_visible()
    expect(shown.page.get_by_text("all 180 solutions of 30 problems")).to_be_visible()


MOST_PIXELS = 2_500


@pytest.mark.parametrize("name", ["distributions", "correlations", "reranking"])
def test_a_page_begins_with_a_sentence_and_its_numbers_and_is_not_long(browser: Browser, pages: str, name: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(DRAWN)
    page.goto(f"{pages}/{name}")  # the bundled run, of 2,560 traces
    ready(page)
    height = page.get_by_test_id("stMainBlockContainer").evaluate("node => node.scrollHeight")
    assert height < MOST_PIXELS, height
    tops = [
        page.locator(place).first.evaluate("node => node.getBoundingClientRect().top")
        for place in (".sentence", ".numbers", CHART)
    ]
    assert tops == sorted(tops) and tops[1] < 800
    assert page.locator(".numbers").first.locator("dd").count() == 3
    # a term says what it means where it is pointed at or reached by key
    term = page.locator(".numbers abbr").first
    assert len(str(term.get_attribute("title"))) > 20 and term.get_attribute("tabindex") == "0"
    context.close()


@pytest.mark.parametrize("name", ["distributions", "correlations", "reranking"])
def test_a_page_of_two_runs_is_not_long_either(browser: Browser, pages: str, name: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(DRAWN)
    page.goto(f"{pages}/{name}")
    ready(page)
    page.get_by_role("combobox", name="Scored runs").click()
    page.get_by_role("option", name="plain", exact=True).click()  # beside the bundled run
    page.keyboard.press("Escape")
    page.get_by_text("plain: checkpoint").first.wait_for()
    ready(page)
    expect(page.locator(".headlines .sentence").nth(1)).to_be_visible()
    expect(page.locator(CHART).nth(1).locator(".plot-container")).to_be_attached()
    expect(page.get_by_test_id("stExpander").filter(has_text="Figures, with intervals and n")).to_be_visible()
    height = page.get_by_test_id("stMainBlockContainer").evaluate("node => node.scrollHeight")
    assert height < MOST_PIXELS, height
    first, second = (one.bounding_box() for one in page.locator(".headlines .headline").all()[:2])
    assert first is not None and second is not None
    assert first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]  # beside each other
    if name == "distributions":  # the chart behind the toggle is drawn as wide as the page
        page.locator("summary").filter(has_text="All scores beside each other").click()
        chart = page.locator(CHART).nth(2)
        expect(chart.locator(".plot-container")).to_be_visible()
        box = chart.bounding_box()
        assert box is not None and box["width"] > 800 and chart.evaluate(CUT) == []
    context.close()


def test_a_table_is_cards_on_a_narrow_screen(browser: Browser, pages: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page = context.new_page()
    page.set_default_timeout(DRAWN)
    page.goto(f"{pages}/correlations")
    ready(page)
    page.locator("summary").filter(has_text="Figures, with intervals and n").click()
    cells = page.locator(".figures:not([aria-label=Values]) tbody tr").first.locator("td")
    boxes = [cell.bounding_box() for cell in cells.all()]
    assert len(boxes) > 2 and all(box and box["x"] + box["width"] <= 400 for box in boxes)
    assert len({round(box["x"]) for box in boxes if box}) == 1  # below each other
    before = cells.nth(1).evaluate("node => getComputedStyle(node, '::before').content")
    assert "removed" in before
    context.close()


def test_a_key_of_the_page_works_after_a_choice_from_a_list(shown: Watched, pages: str) -> None:
    page = shown.page
    open_page(page, pages, "distributions")
    page.locator(".st-key-score_shown").get_by_role("combobox").click()
    page.get_by_role("option", name="lowest reward").click()
    ready(page)
    page.wait_for_function("document.activeElement === document.body")
    page.keyboard.press("Tab")  # the order of the keys goes on where it was
    assert page.evaluate("document.activeElement !== document.body")


def test_a_click_on_a_point_opens_its_trace_in_inspect(shown: Watched, pages: str) -> None:
    page = shown.page
    page.goto(f"{pages}/correlations")
    ready(page)
    chart = page.locator(CHART).nth(1)
    chart.scroll_into_view_if_needed()
    aim = chart.evaluate(AIM)
    page.mouse.click(aim["x"], aim["y"])
    page.wait_for_url("**trace=**")
    assert parse_qs(urlsplit(page.url).query) == {"run": ["scored_run"], "trace": [aim["id"]]}
    page.wait_for_selector(".hm .tok")
    written_text = read_row(BUNDLED, aim["id"])["text"]
    assert "".join(page.locator(".hm .tok").all_text_contents()).split() == written_text.split()


# the point that is farthest up: its id, and where it is on the screen
AIM = """node => {
  const layout = node._fullLayout, box = node.getBoundingClientRect();
  let best = null;
  for (const one of node._fullData) (one.customdata || []).forEach((ids, i) => {
    if (best === null || one.y[i] > best.up) best = {up: one.y[i], across: one.x[i], id: ids[1]};
  });
  return {id: best.id, x: box.x + layout.xaxis._offset + layout.xaxis.d2p(best.across),
          y: box.y + layout.yaxis._offset + layout.yaxis.d2p(best.up)};
}"""


def test_a_trace_is_opened_by_keyboard_alone(shown: Watched, pages: str) -> None:
    page = shown.page
    open_page(page, pages, "distributions")
    page.get_by_role("combobox", name="Solution").focus()
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.innerText").strip().find("Open in Inspect") < 0:
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**trace=**")
    assert "run=plain" in page.url


def test_the_buttons_of_a_chart_are_reached_by_keyboard(shown: Watched, pages: str) -> None:
    page = shown.page
    open_page(page, pages, "reranking")
    button = page.locator(CHART).first.get_by_role("button", name="Download plot as a PNG")
    button.focus()
    with page.expect_download() as found:
        page.keyboard.press("Enter")
    assert found.value.suggested_filename == "reranking.png"
    assert Path(found.value.path()).read_bytes().startswith(b"\x89PNG")


PAPER = {"light": "#ffffff", "dark": "#171614"}


def test_charts_follow_the_theme(browser: Browser, pages: str, scheme: str) -> None:
    context = browser.new_context(color_scheme="light" if scheme == "light" else "dark")
    page = context.new_page()
    page.set_default_timeout(DRAWN)
    for name in ("distributions", "correlations", "reranking"):
        page.goto(f"{pages}/{name}")
        ready(page)
        found = figure(page, 0)
        assert found["paper"] == PAPER[scheme]
        ink = [int(found["ink"][place : place + 2], 16) for place in (1, 3, 5)]
        assert (min(ink) > 200) if scheme == "dark" else (max(ink) < 60)
        behind = page.get_by_test_id("stApp").evaluate("node => getComputedStyle(node).backgroundColor")
        shade = [int(PAPER[scheme][place : place + 2], 16) for place in (1, 3, 5)]
        assert behind == f"rgb({shade[0]}, {shade[1]}, {shade[2]})"
    context.close()


@pytest.mark.parametrize("name", ["distributions", "correlations", "reranking"])
def test_hostile_names_are_literal_and_cells_inert(shown: Watched, pages: str, name: str) -> None:
    page = shown.page
    open_page(page, pages, name, "hostile")
    expect(page.get_by_text(f"hostile: checkpoint {HOSTILE} $5 and $10, data =cmd()").first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0 and page.locator(".katex").count() == 0
    assert page.locator("a[href*=evil]").count() == 0
    if name == "distributions":
        page.locator(CHART).nth(1).hover()
        assert all(row[1].startswith("'=cmd()") for row in download(page, 1)[1:])
    assert shown.faults == []


def test_a_narrow_page_is_not_scrolled_sideways(browser: Browser, pages: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(DRAWN)
    for name in ("distributions", "correlations", "reranking"):
        page.goto(f"{pages}/{name}")
        ready(page)
        assert page.get_by_test_id("stMain").evaluate("node => node.scrollWidth - node.clientWidth") == 0
    # the matrix keeps its width, and is scrolled by itself
    page.goto(f"{pages}/correlations")
    ready(page)
    matrix = page.locator("[class*=st-key-scrolled_740_]")
    assert matrix.evaluate("node => [node.scrollWidth, node.clientWidth <= 400]") == [740, True]
    context.close()


# the words of a chart that reach beyond it, and those of a title that lie over a label or a name
CUT = """node => {
  const edge = node.querySelector("svg.main-svg").getBoundingClientRect(), cut = [];
  const shown = (one) => one.textContent.trim() && one.getBoundingClientRect().width > 0;
  const words = [...node.querySelectorAll("svg text")].filter((one) => shown(one) && !one.closest(".plot"));
  for (const one of words) {
    const box = one.getBoundingClientRect();
    const across = box.left < edge.left - 1 || box.right > edge.right + 1;
    if (across || box.top < edge.top - 1 || box.bottom > edge.bottom + 1) cut.push(one.textContent);
  }
  const others = words.filter((one) => one.matches(".legendtext") || one.closest(".xtick, .ytick"));
  for (const title of node.querySelectorAll(".xtitle, .ytitle")) {
    const a = title.getBoundingClientRect();
    for (const one of others.filter(shown)) {
      const b = one.getBoundingClientRect();
      if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1) {
        cut.push(`${title.textContent} over ${one.textContent}`);
      }
    }
  }
  return cut;
}"""


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["distributions", "correlations", "reranking"])
@pytest.mark.parametrize("run", ["scored_run", "few"])
def test_no_word_of_a_chart_is_cut_or_covered(browser: Browser, pages: str, name: str, width: int, run: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_default_timeout(DRAWN)
    open_page(page, pages, name, run)
    charts = page.locator(CHART)
    for place in range(charts.count()):
        expect(charts.nth(place).locator(".plot-container")).to_be_attached()
        assert charts.nth(place).evaluate(CUT) == []
    assert charts.count() > 1
    context.close()
