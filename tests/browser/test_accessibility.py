"""Every page as axe-core sees it, in light and dark and on a narrow screen: nothing serious, nothing critical."""

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
PAGES = sorted(path.stem for path in (ROOT / "app" / "views").glob("[a-z]*.py"))
DRAWN = {  # what stands on a page when it is whole; a heading where nothing is said
    "inspect": ".hm .tok",
    "failures": ".st-key-question",
    "distributions": ".js-plotly-plot .plot-container",
    "correlations": ".js-plotly-plot .plot-container",
    "reranking": ".js-plotly-plot .plot-container",
    "upload": "[data-testid=stFileUploader]",
}
MODES = {"light": 1280, "dark": 1280, "light, narrow": 400, "dark, narrow": 400}  # the width of each


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(HERE / "fake_app.py", tmp_path_factory.mktemp("axe") / "app.log") as found:
        yield found


def serious(page: Page) -> list[str]:
    """The rules that are broken badly, each with where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("mode", list(MODES))
def test_no_page_breaks_a_serious_rule(browser: Browser, pages: str, mode: str) -> None:
    context = browser.new_context(
        color_scheme="dark" if mode.startswith("dark") else "light", viewport={"width": MODES[mode], "height": 800}
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    broken = []
    assert "inspect" in PAGES and len(PAGES) > 6
    for name in PAGES:
        page.goto(f"{pages}/{'' if name == 'inspect' else name}")
        page.wait_for_selector(READY)
        page.wait_for_selector(DRAWN.get(name, "h2"))
        page.wait_for_selector(READY)
        broken += [f"{name}: {one}" for one in serious(page)]
    context.close()
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
