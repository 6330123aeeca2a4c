"""The researcher's way: start a training, close the tab, lose the server, find it again, cancel, resume, compare."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from app.jobs import supervisor
from tests.browser.conftest import ROOT, Watched, free_port, wait_until_healthy

pytestmark = pytest.mark.browser

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
NAMES = "[...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data.map(line => line.name ?? ''))"
BOTH = ["earlier: policy/loss", "mine: policy/loss"]
LOSSES = "[...document.querySelectorAll('.js-plotly-plot')].at(-1).data"
LAST_STEP = f"{LOSSES}.filter(line => line.name?.startsWith('mine'))[0].x.at(-1)"
SLOW = 60_000  # milliseconds, for what starts a process
TINY = {  # a training of some milliseconds a step
    "model.hidden_size": 24, "model.layers": 2, "model.heads": 2, "model.intermediate_size": 48,
    "model.vocab_size": 320, "model.context": 512, "data.train_problems": 40, "data.held_out": 12, "data.drills": 0,
    "data.max_completion_tokens": 64, "policy.batch_size": 4, "run.save_every": 500,
}  # fmt: skip
EVALUATED = {"eval/pass@1": 0.4, "eval/low": 0.3, "eval/high": 0.5, "eval/n": 64}
EARLIER = [
    {
        "step": step, "disc/reward_expert": 1.0 - step / 40, "disc/reward_policy": step / 40 - 1.0,
        "disc/accuracy_expert": 0.9, "disc/accuracy_policy": 0.6, "rollout/correct": step / 50, "policy/loss": 3.0,
        **(EVALUATED if step % 10 == 0 else {}),
    }
    for step in range(1, 31)
]  # fmt: skip


class Server:
    """The app in a folder of its own, to be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.process = folder, free_port(), None
        self.log = folder / "server.log"
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / "app" / "main.py"), "--server.headless=true"]
        command += [f"--server.port={self.port}", "--server.address=127.0.0.1"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]]),
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
        wait_until_healthy(self.address, self.process, self.log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose working directory holds one earlier training; no job outlives the test."""
    earlier = tmp_path / "runs" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in EARLIER))
    (earlier / "config.yaml").write_text("run: {method: irl, preset: demo-irl, seed: 7, steps: 30}")
    (earlier / "status.json").write_text(json.dumps({"state": "finished", "step": 30, "steps": 30, "reason": ""}))
    shutil.copytree(ROOT / "app" / ".streamlit", tmp_path / ".streamlit")
    monkeypatch.chdir(tmp_path)
    found = Server(tmp_path)
    found.start()
    yield found
    found.kill()
    for job in supervisor.list_jobs():
        for process in supervisor.processes_of(job):
            for one in reversed(supervisor.with_descendants(process)):
                one.kill()


@pytest.fixture
def tab(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """Opens a tab on an address; whatever a page must never do is a failure."""
    opened: list[Watched] = []

    def open_tab(address: str, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 1400}, **options)
        opened.append(Watched(context.new_page()))
        page = opened[-1].page
        page.goto(f"{address}/training")
        page.wait_for_selector(READY)
        return page

    yield open_tab
    for one in opened:
        one.page.context.close()
        assert one.faults == []


def ask_for_a_training(page: Page, steps: int) -> None:
    """Fill the form, have it checked, and start."""
    page.get_by_role("button", name="Train \u2026").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox", name="Preset").click(timeout=SLOW)
    page.get_by_role("option", name="demo-sft").click()
    steps_field = dialog.get_by_role("spinbutton", name="Steps")
    expect(steps_field).to_have_value("1500")
    steps_field.fill(str(steps))
    steps_field.press("Tab")
    dialog.get_by_text("Any other setting").click()
    settings = dialog.get_by_role("textbox", name="Settings")
    settings.fill("\n".join(f"{key}={value}" for key, value in TINY.items()))
    settings.press("Control+Enter")
    name = dialog.get_by_role("textbox", name="Name of the run")
    name.fill("mine")
    name.press("Tab")
    start = dialog.get_by_role("button", name="Start training")
    expect(start).to_be_disabled()
    dialog.get_by_role("button", name="Check what it takes").click()
    expect(dialog.get_by_text(f"sft, {steps} steps: about")).to_be_visible(timeout=SLOW)
    expect(start).to_be_enabled()
    start.click()
    expect(dialog).to_have_count(0)


def sidebar(page: Page) -> Any:
    return page.get_by_test_id("stSidebar")


def step_after(page: Page, step: int) -> int:
    """The step that the live panel shows, once it is past ``step``."""
    panel = "document.querySelector('[data-testid=stSidebar]').innerText"
    read = f"past => {{ const found = Number({panel}.match(/step (\\d+) of/)?.[1]); return found > past && found; }}"
    return int(page.wait_for_function(read, arg=step, timeout=SLOW).json_value())


def test_the_researchers_way(server: Server, tab: Callable[[str], Page]) -> None:
    page = tab(server.address)
    ask_for_a_training(page, steps=6000)
    expect(sidebar(page).get_by_text("mine", exact=True)).to_be_visible(timeout=SLOW)
    first = step_after(page, 0)
    (job,) = supervisor.list_jobs()
    page.close()

    server.kill()
    assert supervisor.get(job.id).active
    server.start()
    page = tab(server.address)
    expect(sidebar(page).get_by_text("mine", exact=True)).to_be_visible(timeout=SLOW)
    step_after(page, first)

    sidebar(page).get_by_role("button", name="Cancel").click()
    expect(sidebar(page).get_by_text("cancelled")).to_be_visible(timeout=SLOW)
    expect(sidebar(page).get_by_text("and saved", exact=False)).to_be_visible()
    stopped = json.loads((server.folder / "runs" / "mine" / "status.json").read_text())
    assert stopped["state"] == "interrupted"

    sidebar(page).get_by_role("button", name="Resume").click()
    expect(sidebar(page).get_by_role("button", name="Cancel")).to_be_visible(timeout=SLOW)
    step_after(page, stopped["step"])
    assert supervisor.get(job.id).attempt == 2

    page.get_by_role("combobox", name="Runs").click()
    page.get_by_role("option", name="earlier").click()
    page.keyboard.press("Escape")
    page.wait_for_function(f"() => {{ const names = {NAMES}; return {BOTH}.every(name => names.includes(name)); }}")
    before = page.evaluate(f"() => {LAST_STEP}")
    page.wait_for_function(f"before => {LAST_STEP} > before", arg=before, timeout=SLOW)  # it goes on, live
    names = page.evaluate(NAMES)
    assert {"pass@1 on held-out problems", "mean reward, expert solutions", "discriminator right, policy samples"} < {
        name.replace("<br>", " ").removeprefix("earlier: ")
        for name in names  # long ones have several lines
    }
