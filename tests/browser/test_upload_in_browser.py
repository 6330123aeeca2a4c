"""Traces are uploaded, scored in the background with progress, and found on the other pages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from app.analysis.uploads import SAMPLE
from irl_core.storage.scored_run import read_run
from tests.browser.conftest import ROOT, served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploading")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with served(ROOT / "app" / "main.py", folder / "server.log") as found:
        yield found


def test_uploaded_traces_become_a_run(watched: Any, server: str, folder: Path) -> None:
    page = watched.page
    page.goto(f"{server}/upload")
    page.wait_for_selector(READY, timeout=60_000)
    field = page.locator("input[type=file]")
    field.set_input_files({"name": "bad.jsonl", "mimeType": "application/json", "buffer": b"\x80\x04\0pickle"})
    expect(page.get_by_text("Not taken: the file is no text", exact=False)).to_be_visible(timeout=30_000)
    name = "<img src=x onerror=alert(1)>.jsonl"
    field.set_input_files({"name": name, "mimeType": "application/json", "buffer": (SAMPLE + "nonsense\n").encode()})
    expect(page.get_by_text("2 solutions of 2 problems can be scored; 1 row cannot.")).to_be_visible(timeout=30_000)
    page.wait_for_selector(READY)
    page.get_by_role("button", name="Score", exact=True).click()
    card = page.locator("[data-testid=stMain]").get_by_text("<img src=x onerror=alert(1)>: job 1 ", exact=False)
    expect(card).to_be_in_viewport(timeout=30_000)
    (kept,) = (folder / "runs" / "uploads").iterdir()
    assert kept.name.startswith("img-src-x-onerror-alert-1-")
    run = kept / "run.parquet"
    until = time.monotonic() + 150
    while not run.exists() and time.monotonic() < until:
        page.wait_for_timeout(500)
    assert read_run(run, ["answer"]).column("answer").to_pylist() == ["14", "5"]
    page.goto(f"{server}/failures")
    page.wait_for_selector(READY, timeout=60_000)
    page.get_by_role("combobox", name="Scored run").click()
    page.get_by_role("option", name="<img src=x onerror=alert(1)> (uploaded ").click()
    expect(page.get_by_text("input <img src=x onerror=alert(1)>.jsonl", exact=False)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("1 text of 1 solution after the filters, of 2 in all", exact=False)).to_be_visible(
        timeout=30_000
    )
    assert page.locator("img[src=x]").count() == 0


def test_who_may_not_upload_is_told_so(watched: Any, folder: Path) -> None:
    (folder / "access.toml").write_text('upload = ["ada@example.org"]\n')
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("IRL_LENS_ACCESS", str(folder / "access.toml"))
        with served(ROOT / "app" / "main.py", folder / "closed.log") as server:
            page = watched.page
            page.goto(f"{server}/upload")
            expect(page.get_by_text("Log in to upload solutions.")).to_be_visible(timeout=60_000)
            expect(page.locator("input[type=file]")).to_have_count(0)
            page.goto(f"{server}/failures")
            expect(page.get_by_text("Log in to annotate.").first).to_be_visible(timeout=60_000)
            expect(page.get_by_role("button", name="Save")).to_have_count(0)
