"""``irl-lens app`` in an empty folder: it tells the place, and offers what is put there without a restart."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from irl_core.home import VARIABLE
from tests.browser.conftest import ROOT, free_port, wait_until_healthy

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"


def test_a_checkpoint_of_ones_own_folder_is_offered(watched: Any, tmp_path: Path) -> None:
    page, log, port = watched.page, tmp_path.parent / "app.log", free_port()
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "train.cli.main", "app", "--port", str(port)]
    (tmp_path / "app.py").write_text("raise SystemExit('not ours')")  # a name that a folder may well have
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
    try:
        wait_until_healthy(f"http://localhost:{port}", process, log)
        assert f"annotations lie in {tmp_path / 'runs'}" in log.read_text().replace("\n", " ")
        page.goto(f"http://127.0.0.1:{port}")
        page.wait_for_selector(READY, timeout=60_000)
        chooser = page.get_by_test_id("stSidebar").get_by_role("combobox").first
        chooser.click()
        expect(page.get_by_role("option")).to_have_text(["demo"])
        page.keyboard.press("Escape")
        shutil.copytree(ROOT / "assets" / "demo", tmp_path / "runs" / "mine" / "final")
        page.reload()
        page.wait_for_selector(READY, timeout=60_000)
        chooser.click()
        expect(page.get_by_role("option")).to_have_text(["demo", "mine/final"])
    finally:
        process.terminate()
        process.wait(30)
