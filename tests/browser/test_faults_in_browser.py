"""What a running server refuses, without a stack trace; and a tab that is closed while a model works."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.browser.conftest import ROOT, served

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
FOREIGN = "http://evil.example"
LEAKS = ("Traceback", 'File "', "site-packages", str(ROOT))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The app on the bundled checkpoint: its address, and its log."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with served(ROOT / "app" / "main.py", log) as address:
        yield address, log


def answer(address: str, method: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    place = urlsplit(address)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    connection.request(method, path, body=b"x" if method in ("PUT", "POST") else None, headers=headers)
    found = connection.getresponse()
    body = found.read().decode("utf-8", "replace")
    connection.close()
    return found.status, body, {name.lower(): value for name, value in found.getheaders()}


def test_a_foreign_page_gets_no_websocket(server: tuple[str, Path]) -> None:
    address = server[0].replace("http:", "ws:") + "/_stcore/stream"
    with connect(address, origin=Origin(server[0]), subprotocols=[Subprotocol("streamlit")]):
        pass
    with pytest.raises(InvalidStatus) as refused:
        connect(address, origin=Origin(FOREIGN), subprotocols=[Subprotocol("streamlit")])
    assert refused.value.response.status_code == 403
    assert not any(leak in (refused.value.response.body or b"").decode() for leak in LEAKS)


def test_a_name_that_was_pointed_at_this_machine_gets_no_websocket(server: tuple[str, Path]) -> None:
    """Such a page has the same origin as the server, and is foreign all the same."""
    port = urlsplit(server[0]).port
    with socket.create_connection(("127.0.0.1", int(port or 0))) as opened, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://evil.example:{port}/_stcore/stream", sock=opened, origin=Origin(f"{FOREIGN}:{port}"))
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_foreign_page_cannot_upload(server: tuple[str, Path], method: str) -> None:
    path = "/_stcore/upload_file/0c5d8a1e-0000-4000-8000-000000000000/0c5d8a1e-0000-4000-8000-000000000001"
    status, body, headers = answer(server[0], method, path, Origin=FOREIGN)
    assert 400 <= status < 500
    assert headers.get("access-control-allow-origin") not in ("*", FOREIGN)
    assert not any(leak in body for leak in LEAKS)


def test_a_foreign_page_reads_nothing(server: tuple[str, Path]) -> None:
    for path in ("/_stcore/health", "/_stcore/host-config", "/"):
        _, body, headers = answer(server[0], "GET", path, Origin=FOREIGN)
        assert headers.get("access-control-allow-origin") not in ("*", FOREIGN)
        assert not any(leak in body for leak in LEAKS)


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/static/..%2f..%2f..%2fetc/passwd", "/media/../x", "/%00"])
def test_a_path_that_leads_out_reads_no_file(server: tuple[str, Path], path: str) -> None:
    status, body, _ = answer(server[0], "GET", path)
    assert "root:" not in body and not any(leak in body for leak in LEAKS)
    assert status < 500


def test_an_oversized_query_is_refused_and_the_server_lives(watched: Any, server: tuple[str, Path]) -> None:
    with contextlib.suppress(ConnectionError):  # the server may hang up before all of it was sent
        status, body, _ = answer(server[0], "GET", f"/?problem={'A' * 200_000}")
        assert 400 <= status < 500 and not any(leak in body for leak in LEAKS)
    page = watched.page
    page.goto(f"{server[0]}/?problem={'A' * 20_000}")
    expect(page.get_by_text("longer than 6,000 characters", exact=False)).to_be_visible(timeout=60_000)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("trace=missing", "Not found: this link names a run without a solution"),
        ("run=missing&trace=missing", "Not found:"),
        ("run=../../etc/passwd&trace=x", "Not found:"),
    ],
)
def test_a_link_to_what_is_not_there_is_said(watched: Any, server: tuple[str, Path], query: str, said: str) -> None:
    page = watched.page
    page.goto(f"{server[0]}/?{query}")
    expect(page.get_by_text(said, exact=False)).to_be_visible(timeout=60_000)
    text = page.locator("body").inner_text()
    assert not any(leak in text for leak in LEAKS)
    page.get_by_role("button", name="To a text of your own").click()
    expect(page.get_by_role("textbox", name="Problem", exact=True)).to_be_visible(timeout=30_000)


def test_a_tab_closed_while_sampling_keeps_nobody_waiting(browser: Browser, server: tuple[str, Path]) -> None:
    first, second = browser.new_context(), browser.new_context()
    page = first.new_page()
    page.goto(server[0])
    page.wait_for_selector(READY, timeout=90_000)
    page.get_by_role("textbox", name="Solution (optional)").fill("")
    page.keyboard.press("Tab")  # what is typed counts when the field is left
    page.get_by_text("Sampling", exact=True).click()  # folded away
    slider = page.get_by_role("slider", name="Solutions to write")
    slider.focus()
    slider.press("End")
    page.get_by_role("button", name=re.compile(r"^Inspect\b")).click()
    # Looked for at every frame: a fast machine writes all of them between two looks of `expect`, a second apart.
    page.wait_for_function(
        "/Sampling, at most token \\d+ of/.test(document.body.innerText)", polling="raf", timeout=60_000
    )
    first.close()
    other = second.new_page()
    other.goto(server[0])  # the first example is scored at once
    verdict = re.compile(r"First error|No error found|No step is flagged|Too uncertain|Step \d+: .+ is .+, not")
    expect(other.get_by_text(verdict).first).to_be_visible(timeout=60_000)
    second.close()


def test_the_log_of_all_this_has_no_stack_trace(server: tuple[str, Path]) -> None:
    assert "Traceback" not in server[1].read_text()
