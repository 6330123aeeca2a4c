"""Every page as axe-core sees it, in light and dark and on a narrow screen: nothing serious, nothing critical.

As it opens, and with what is behind a button, a toggle or an answer in sight."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.conftest import HERE, ROOT, served
from tests.reports import hostile_page

pytestmark = pytest.mark.browser

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
SLOW = 30_000  # milliseconds
AT_REST = """() => !document.querySelector('[data-testid=stSkeleton]')
    && !document.getAnimations().some((one) => one instanceof CSSTransition && one.playState === 'running')"""
PAGES = sorted(path.stem for path in (ROOT / "app" / "views").glob("[a-z]*.py"))
DRAWN = {  # what stands on a page when it is whole; a heading where nothing is said
    "inspect": ".hm .tok",
    "failures": ".st-key-question",
    "distributions": ".js-plotly-plot .plot-container",
    "correlations": ".js-plotly-plot .plot-container",
    "reranking": ".js-plotly-plot .plot-container",
    "upload": "[data-testid=stFileUploader]",
}
STATISTICS = ("distributions", "correlations", "reranking")
FIGURES = "Figures, with intervals and n"
MODES = {"light": 1280, "dark": 1280, "light, narrow": 400, "dark, narrow": 400}  # the width of each
BOTH = ("light", "dark, narrow")  # each colour and each width once, for what stands on a page that is read in all four


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(HERE / "fake_app.py", tmp_path_factory.mktemp("axe") / "app.log") as found:
        yield found


def serious(page: Page) -> list[str]:
    """The rules that are broken badly, each with where, once all has come and what a run made pale has its colour."""
    page.wait_for_function(AT_REST)
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(browser: Browser, mode: str) -> Iterator[Page]:
    context = browser.new_context(
        color_scheme="dark" if mode.startswith("dark") else "light", viewport={"width": MODES[mode], "height": 800}
    )
    found = context.new_page()
    found.set_default_timeout(SLOW)
    yield found
    context.close()


def go(page: Page, address: str, name: str) -> None:
    page.goto(f"{address}/{'' if name == 'inspect' else name}")
    page.wait_for_selector(READY)
    page.wait_for_selector(DRAWN.get(name, "h2"))
    page.wait_for_selector(READY)


def test_no_page_breaks_a_serious_rule(page: Page, pages: str) -> None:
    broken = []
    assert "inspect" in PAGES and len(PAGES) > 6
    for name in PAGES:
        go(page, pages, name)
        broken += [f"{name}: {one}" for one in serious(page)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("mode", BOTH)
def test_the_form_of_a_training_breaks_none(page: Page, pages: str, mode: str) -> None:
    go(page, pages, "upload")
    if "narrow" in mode:  # where the sidebar is away until it is asked for
        page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("button", name="Train \u2026").click()
    page.get_by_role("dialog").get_by_role("spinbutton", name="Steps").wait_for()
    page.wait_for_selector(READY)
    broken = serious(page)
    assert not broken, "\n".join(broken)


def test_failures_breaks_none_with_its_popovers_open_and_after_an_answer(page: Page, pages: str, mode: str) -> None:
    go(page, pages, "failures")
    broken = []
    for button, field in (
        ("Filter", page.get_by_role("textbox", name="Expression")),
        ("Reviewer", page.get_by_role("textbox", name="Annotator")),
    ):
        page.get_by_role("button", name=button, exact=True).click()
        field.wait_for()
        page.wait_for_selector(READY)
        broken += [f"{button}: {one}" for one in serious(page)]
        if button == "Reviewer":  # a new one in each mode, who has judged nothing yet
            field.fill(mode)
            field.press("Enter")
            page.wait_for_selector(READY)
        page.keyboard.press("Escape")
        field.wait_for(state="hidden")
        page.wait_for_selector(READY)
    page.wait_for_selector(".hm .tok", state="detached")
    page.get_by_role("button", name="Step 1").click()
    page.wait_for_selector(READY)
    page.get_by_role("button", name="Save").click()  # waits until it can be
    page.wait_for_selector(".hm .tok")
    page.wait_for_selector(READY)
    broken += [f"after an answer: {one}" for one in serious(page)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize("name", STATISTICS)
def test_the_figures_of_a_page_break_none(page: Page, pages: str, name: str) -> None:
    go(page, pages, name)
    page.get_by_text(FIGURES, exact=True).click()
    page.get_by_text("In full words", exact=True).first.wait_for()
    page.wait_for_selector(READY)
    broken = serious(page)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_report_breaks_none(browser: Browser, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "report.html"
    path.write_text(hostile_page(), encoding="utf-8")
    context = browser.new_context(color_scheme="dark" if mode == "dark" else "light", bypass_csp=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector(".plot-container")
    broken = serious(page)
    context.close()
    assert not broken, "\n".join(broken)
