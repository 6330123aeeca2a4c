"""The README's pictures, taken of the app as it is.

    python -m tests.browser.screenshots --run runs/published.parquet     # the scored run of Distributions and Reranking

Inspect and Failures show the bundled checkpoint `gsm8k` and its scored run. On Failures a step is judged first, so that
the reward is seen; the annotation goes into a folder of its own. Look at each picture before it is committed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.conftest import ROOT, served
from tests.chromium import ARGUMENTS, find_chromium

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
FOLDER = ROOT / "assets" / "screenshots"
SLOW = 90_000  # milliseconds, for a model that is loaded


def settled(page: Page) -> None:
    """Wait until the page has been ready for a while: charts are drawn after it is."""
    page.wait_for_timeout(2_000)
    page.wait_for_selector(READY)
    page.wait_for_timeout(2_000)


def inspect(page: Page, address: str) -> None:
    """The first example, whose error the page outlines."""
    page.goto(address)
    expect(page.get_by_text(re.compile(r"Step \d+: .+ is .+, not|First error")).first).to_be_visible()
    settled(page)


def failures(page: Page, address: str) -> None:
    """The second wrong solution, judged blind: step 2."""
    page.goto(f"{address}/failures")
    expect(page.get_by_role("button", name="Next unjudged")).to_be_visible()
    settled(page)
    page.keyboard.press("j")
    settled(page)
    page.keyboard.press("2")
    settled(page)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Undo"))).to_be_visible()
    settled(page)
    page.wait_for_timeout(6_000)  # until what was saved is no longer told


def statistics(page: Page, address: str, name: str, run: str) -> None:
    """A page of charts on the run of that name alone."""
    page.goto(f"{address}/{name}")
    page.wait_for_selector(".js-plotly-plot")
    page.get_by_role("button", name="Clear all").click()
    settled(page)
    page.get_by_role("combobox", name="Scored runs").click()
    page.get_by_role("option", name=run).click()
    page.keyboard.press("Escape")
    page.wait_for_selector(".js-plotly-plot")
    settled(page)
    page.locator("[data-testid=stMain] h2").first.click()  # the chooser lets go of the focus


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="the scored run of Distributions and Reranking")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        log = Path(folder) / "app.log"
        (Path(folder) / "runs").mkdir()
        with served(ROOT / "app" / "main.py", log) as address:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
            page.set_default_timeout(SLOW)
            expect.set_options(timeout=SLOW)
            for name, draw in (("inspect", inspect), ("failures", failures)):
                draw(page, address)
                page.screenshot(path=FOLDER / f"{name}.png")
            shutil.copy(chosen.run, Path(folder) / "runs" / chosen.run.name)
            for name in ("distributions", "reranking"):
                statistics(page, address, name, chosen.run.stem)
                page.screenshot(path=FOLDER / f"{name}.png")
            browser.close()


if __name__ == "__main__":
    main()
