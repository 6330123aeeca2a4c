"""What is tried through a proxy: who gets in and what they may, and what is refused."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from websockets.exceptions import InvalidStatus

from tests.chromium import ARGUMENTS, find_chromium
from tests.soak.figures import Figures
from tests.soak.tab import Tab

NAME, SITE = "lens.example.org", "https://lens.example.org"
READY = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
VERDICT = re.compile(r"First error|No error found|No step is flagged|Too uncertain|Step \d+: .+ is .+, not")
PATIENCE = 120_000  # milliseconds for what a page shows, on a machine that has others
QUIET = 75  # seconds without a word; a proxy left to its defaults hangs up after 60
USER, XSRF = "_streamlit_user", "_streamlit_xsrf"


def seen(figures: Figures, what: str, call: Callable[[], object]) -> None:
    """Try one thing; what it raises is what did not hold."""
    fault = ""
    try:
        call()
    except Exception as error:
        fault = f"{figures.attack}: {what}: {type(error).__name__} {str(error)[:500]}"
    figures.add("not as it should be" if fault else "as it should be", fault=fault)
    print(fault or f"{figures.attack}: {what}", file=sys.stderr, flush=True)


# -------------------------------------------------------------------------------------------------------------- people


def people(proxy: str, trust: ssl.SSLContext, figures: Figures) -> None:
    """Log in as several people, with a browser; what each may, and what is refused."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            for what, tried in (
                ("nobody is logged in at first, and may nothing", strangers),
                ("Ada logs in, may train, annotate and upload, and logs out", ada),
                ("Eve logs in, may upload alone, and what she sends all the same is refused", eve),
                ("an address that is not verified is nobody's", unverified),
                ("who says no at the provider is not logged in", denied),
            ):
                with visiting(browser) as page:
                    seen(figures, what, lambda: tried(page, trust))  # noqa: B023
        finally:
            browser.close()
    seen(figures, "a cookie that is signed with another secret is nobody's", lambda: forged(trust))


@contextmanager
def visiting(browser: Browser) -> Iterator[Page]:
    """A page of a visitor of their own, on the first page of the app."""
    context = browser.new_context(ignore_https_errors=True, viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(PATIENCE)
    try:
        yield context.new_page()
    finally:
        context.close()


def shows(found: Locator) -> None:
    expect(found.first).to_be_visible(timeout=PATIENCE)


def open_page(page: Page, name: str = "") -> None:
    page.goto(f"{SITE}/{name}")
    page.wait_for_selector(READY)


def log_in(page: Page, name: str) -> None:
    """From a page of the app to the provider and back, as that person."""
    open_page(page)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name=name, exact=True).click()
    page.wait_for_url(f"{SITE}/**")
    page.wait_for_selector(READY)


def strangers(page: Page, trust: ssl.SSLContext) -> None:
    open_page(page)
    shows(page.get_by_text(VERDICT))  # the websocket gets through, and the first example is inspected
    expect(page.get_by_role("button", name=re.compile("Train"))).to_be_disabled()
    open_page(page, "upload")
    shows(page.get_by_text("Log in to upload solutions."))
    open_page(page, "failures")
    shows(page.get_by_text("Log in to annotate."))


def ada(page: Page, trust: ssl.SSLContext) -> None:
    log_in(page, "ada")
    shows(page.get_by_text("Logged in: ada@example.org"))
    page.get_by_role("button", name=re.compile("Train")).click()
    shows(page.get_by_role("dialog"))
    open_page(page, "failures")
    shows(page.get_by_text("ada@example.org"))
    shows(page.get_by_role("button", name="Save"))
    open_page(page, "upload")
    row = b'{"problem": "Ben has 7 nuts and eats 2. How many are left?", "solution": "7-2=5\\n#### 5"}\n'
    page.locator("input[type=file]").set_input_files({"name": "a.jsonl", "mimeType": "application/json", "buffer": row})
    shows(page.get_by_text("1 solution of 1 problem can be scored."))
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="End session").click()  # the provider asks
    page.wait_for_url(f"{SITE}/**")
    shows(page.get_by_role("button", name="Log in"))


def eve(page: Page, trust: ssl.SSLContext) -> None:
    log_in(page, "eve")
    shows(page.get_by_text("Logged in: eve@example.org"))
    expect(page.get_by_role("button", name=re.compile("Train"))).to_be_disabled()
    open_page(page, "failures")
    shows(page.get_by_text("may not annotate here"))
    expect(page.get_by_role("button", name="Save")).to_have_count(0)
    open_page(page, "upload")
    expect(page.locator("input[type=file]")).to_have_count(1)
    with tab_of(page.context, trust) as tab:
        assert any("Logged in: eve@example.org" in text for text in tab.open().texts)
        button = next(one.label for one in tab.drawn.of("button") if one.label.startswith("Train"))  # type: ignore[attr-defined]
        drawn = tab.press(button)
        assert not any(one.label == "Check what it takes" for one in drawn.of("button"))  # type: ignore[attr-defined]


def tab_of(context: BrowserContext, trust: ssl.SSLContext) -> Tab:
    """A tab with the cookies of a browser."""
    kept = {one["name"]: one["value"] for one in context.cookies(SITE)}
    cookies = "; ".join(f"{name}={value}" for name, value in kept.items())
    return Tab(SITE, cookies=cookies, xsrf=kept[XSRF], trust=trust)


def unverified(page: Page, trust: ssl.SSLContext) -> None:
    log_in(page, "mallory")
    shows(page.get_by_text("You are nobody here"))
    expect(page.get_by_role("button", name=re.compile("Train"))).to_be_disabled()
    open_page(page, "upload")
    expect(page.locator("input[type=file]")).to_have_count(0)


def denied(page: Page, trust: ssl.SSLContext) -> None:
    open_page(page)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url(f"{SITE}/**")
    shows(page.get_by_role("button", name="Log in"))


def forged(trust: ssl.SSLContext) -> None:
    said = json.dumps({"origin": SITE, "is_logged_in": True, "email": "ada@example.org", "provider": "default"})
    for secret in ("", "x" * 64):
        cookie = create_signed_value(secret, USER, said).decode()
        token = ask(trust, "GET", "/_stcore/health").xsrf
        with Tab(SITE, cookies=f"{XSRF}={token}; {USER}={cookie}", xsrf=token, trust=trust) as tab:
            drawn = tab.open()
            assert any(one.label == "Log in" for one in drawn.of("button")), drawn.texts  # type: ignore[attr-defined]


# -------------------------------------------------------------------------------------------------------------- limits


def limits(proxy: str, trust: ssl.SSLContext, figures: Figures) -> None:
    """What the shipped file promises: headers, names and origins that are refused, sizes, numbers, and patience."""
    with Tab(SITE, trust=trust, source="127.0.0.2") as quiet:
        quiet.open()
        since = time.monotonic()
        for what, tried in (
            ("plain HTTP is sent to HTTPS", moved),
            ("the headers are there", headed),
            ("another origin, and another name, get no websocket", foreign),
            ("a file of 4.9 MB is taken, one of 5.5 MB or of 7 MB refused", sizes),
            ("the 21st file of a session is refused, with the limit", many_files),
            *((("the 17th page of an address is refused", pages), ("uploads at once, and in a minute", slow_uploads))
              if proxy == "nginx" else ()),
            ("the 401st page is refused with the limit, and 400 are served", all_pages),
        ):  # fmt: skip
            seen(figures, what, lambda: tried(trust))  # type: ignore[operator]  # noqa: B023
        time.sleep(max(0.0, QUIET - (time.monotonic() - since)))
        seen(figures, f"a page that says nothing for {QUIET} s is still there", quiet.open)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a request."""

    status: int
    headers: http.client.HTTPMessage
    body: str

    @property
    def xsrf(self) -> str:
        """The token that the server set as a cookie."""
        found = re.search(rf"{XSRF}=([^;]+)", self.headers.get("Set-Cookie", ""))
        assert found, self.headers.items()
        return found[1]


def ask(
    trust: ssl.SSLContext | None, method: str, path: str, body: bytes = b"", source: str = "127.0.0.3", **headers: str
) -> Answer:
    """Send a request to the site, from an address of this machine."""
    kind = http.client.HTTPSConnection if trust else http.client.HTTPConnection
    more = {"context": trust} if trust else {}
    connection = kind(NAME, source_address=(source, 0), timeout=60, **more)  # type: ignore[arg-type]
    try:
        connection.request(method, path, body=body or None, headers=headers)
        found = connection.getresponse()
        return Answer(found.status, found.headers, found.read().decode("utf-8", "replace"))
    finally:
        connection.close()


def upload(tab: Tab, trust: ssl.SSLContext, number: int, size: int, source: str) -> Answer:
    """Upload a file of so many bytes into the session of a tab."""
    token = ask(trust, "GET", "/_stcore/health", source=source).xsrf
    start = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    head = {"Content-Type": "multipart/form-data; boundary=x", "Cookie": f"{XSRF}={token}", "X-Xsrftoken": token}
    body = start + b"x" * size + b"\r\n--x--\r\n"
    return ask(trust, "PUT", f"/_stcore/upload_file/{tab.session}/{number}", body, source, **head)


def refused(call: Callable[[], Tab]) -> tuple[int, str]:
    """The status and the words with which a page is refused."""
    try:
        with call():
            raise AssertionError("a page was opened that should be refused")
    except InvalidStatus as error:
        return error.response.status_code, (error.response.body or b"").decode("utf-8", "replace")


def moved(trust: ssl.SSLContext) -> None:
    answer = ask(None, "GET", "/failures?x=1")
    assert answer.status in (301, 308) and answer.headers["Location"] == f"{SITE}/failures?x=1", answer


def headed(trust: ssl.SSLContext) -> None:
    for path in ("/", "/_stcore/health", "/no-such-file.js"):
        headers = ask(trust, "GET", path).headers
        assert headers["Strict-Transport-Security"] == "max-age=31536000", path
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["Content-Security-Policy"] == "frame-ancestors 'self'", path


def foreign(trust: ssl.SSLContext) -> None:
    status, body = refused(lambda: Tab(SITE, origin="https://evil.example", trust=trust))
    assert status == 403 and "Traceback" not in body, (status, body)
    status, body = refused(lambda: Tab(SITE, origin="https://evil.example", host="evil.example", trust=trust))
    assert status != 101 and "Traceback" not in body, (status, body)


def sizes(trust: ssl.SSLContext) -> None:
    with Tab(SITE, trust=trust, source="127.0.0.4") as tab:
        tab.open()
        kept = upload(tab, trust, 0, 4_900_000, "127.0.0.4")
        assert kept.status == 204, kept
        larger = upload(tab, trust, 1, 5_500_000, "127.0.0.4")
        assert larger.status == 413 and "File too large" in larger.body, larger
        largest = upload(tab, trust, 2, 7_000_000, "127.0.0.4")
        assert largest.status == 413, largest


def many_files(trust: ssl.SSLContext) -> None:
    with Tab(SITE, trust=trust, source="127.0.0.5") as tab:
        tab.open()
        for number in range(20):
            source = f"127.0.1.{1 + number // 8}"  # so that no address has more than 10 in a minute
            answer = upload(tab, trust, number, 10, source)
            assert answer.status == 204, (number, answer)
        answer = upload(tab, trust, 20, 10, "127.0.1.9")
        assert answer.status == 413 and "this session may hold 20 MB in 20 files" in answer.body, answer


def pages(trust: ssl.SSLContext) -> None:
    with ExitStack() as opened:
        for _ in range(16):
            opened.enter_context(Tab(SITE, trust=trust, source="127.0.0.6"))
        status, body = refused(lambda: Tab(SITE, trust=trust, source="127.0.0.6"))
        assert status == 429 and "16 open pages" in body, (status, body)
        opened.enter_context(Tab(SITE, trust=trust, source="127.0.0.7"))
    with Tab(SITE, trust=trust, source="127.0.0.6") as tab:
        tab.open()


def slow_uploads(trust: ssl.SSLContext) -> None:
    """Four that never end from each of four addresses: a fifth of one, and a 17th of all, are refused at once."""
    with Tab(SITE, trust=trust, source="127.0.0.8") as tab, ExitStack() as opened:
        tab.open()
        path = f"/_stcore/upload_file/{tab.session}/0"
        for address in range(4):
            for _ in range(4):
                plain = socket.create_connection((NAME, 443), 60, (f"127.0.2.{address + 1}", 0))
                slow = opened.enter_context(trust.wrap_socket(plain, server_hostname=NAME))
                slow.sendall(f"PUT {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 1000\r\n\r\nx".encode())
            time.sleep(1)
            answer = upload(tab, trust, 0, 10, "127.0.2.1")
            assert answer.status == 429 and "4 uploads an address" in answer.body, (address, answer)
        answer = upload(tab, trust, 0, 10, "127.0.2.9")
        assert answer.status == 429 and "16 uploads in all" in answer.body, answer
    time.sleep(1)
    with Tab(SITE, trust=trust, source="127.0.0.8") as tab:
        tab.open()
        found = [upload(tab, trust, number, 10, "127.0.2.10").status for number in range(14)]
        assert found[:11] == [204] * 11 and 429 in found[11:], found


def all_pages(trust: ssl.SSLContext) -> None:
    """400 in all: the quiet page is one of them."""
    with ExitStack() as opened:
        for number in range(399):
            opened.enter_context(Tab(SITE, trust=trust, source=f"127.0.3.{1 + number // 16}"))
        status, body = refused(lambda: Tab(SITE, trust=trust, source="127.0.3.200"))
        assert status in (429, 503) and "Too many at once" in body and "400" in body, (status, body)
    with Tab(SITE, trust=trust, source="127.0.3.1") as tab:
        tab.open()
