"""What a session, and all together, may put into the server's memory by the upload route."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from streamlit import config
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.uploaded_file_manager import UploadedFileRec
from streamlit.web.server.starlette.starlette_routes import create_upload_routes

from app import upload_limits
from app.upload_limits import limit_uploads

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> MemoryUploadedFileManager:
    """The store of a server after its first page, with small limits."""
    for name, value in (
        ("SESSION_BYTES", 3_000_000),
        ("SESSION_FILES", 4),
        ("TOTAL_BYTES", 8_000_000),
        ("TOTAL_FILES", 9),
    ):
        monkeypatch.setattr(upload_limits, name, value)
    store = MemoryUploadedFileManager("/_stcore/upload_file")

    class Server:
        uploaded_file_mgr: Any = store

    monkeypatch.setattr(upload_limits.runtime, "exists", lambda: True)
    monkeypatch.setattr(upload_limits.runtime, "get_instance", Server)
    limit_uploads()
    limit_uploads()
    return store


def add(store: MemoryUploadedFileManager, session: str, name: str, size: int) -> None:
    store.add_file(session, UploadedFileRec(name, "a.jsonl", "text/plain", b"x" * size))


def refused(store: MemoryUploadedFileManager, session: str, name: str, size: int) -> str:
    with pytest.raises(HTTPException) as found:
        add(store, session, name, size)
    assert found.value.status_code == 413
    return found.value.detail


def test_a_session_and_all_together_have_limits_of_bytes(files: MemoryUploadedFileManager) -> None:
    add(files, "a", "1", 2_000_000)
    assert refused(files, "a", "2", 1_000_001).startswith("Too much is uploaded: this session may hold 3 MB in 4 files")
    add(files, "a", "1", 3_000_000)  # in the place of the first
    add(files, "b", "1", 3_000_000)
    assert refused(files, "c", "1", 2_000_001).startswith("Too much is uploaded: all sessions together may hold 8 MB")
    files.remove_session_files("b")
    add(files, "c", "1", 2_000_001)
    files.remove_file("a", "1")
    add(files, "a", "2", 2_999_999)
    assert sum(len(one.data) for kept in files.file_storage.values() for one in kept.values()) == 5_000_000


def test_empty_files_are_counted_too(files: MemoryUploadedFileManager) -> None:
    for number in range(4):
        add(files, "a", str(number), 0)
        add(files, "b", str(number), 0)
    assert "this session may hold 3 MB in 4 files" in refused(files, "a", "4", 0)
    add(files, "a", "3", 0)
    add(files, "c", "0", 0)
    assert "all sessions together may hold 8 MB in 9 files" in refused(files, "c", "1", 0)


def test_the_upload_route_answers_413_with_the_limit(
    files: MemoryUploadedFileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamlit's own route, over this store: what a browser, or a script in its place, is told."""
    real = config.get_option
    monkeypatch.setattr(config, "get_option", lambda key: False if key == "server.enableXsrfProtection" else real(key))

    class Active:
        def is_active_session(self, session_id: str) -> bool:
            return session_id == "a"

    server = Starlette(routes=create_upload_routes(Active(), files, ""))  # type: ignore[arg-type]

    async def put(name: str, size: int) -> tuple[int, str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(server), base_url="http://lens") as client:
            sent = {"file": ("a.jsonl", b"x" * size)}
            answer = await client.put(f"/_stcore/upload_file/a/{name}", files=sent)
        return answer.status_code, answer.text

    with ThreadPoolExecutor(1) as pool:  # in a thread of its own: browser tests leave an event loop running in this one
        first = pool.submit(asyncio.run, put("1", 2_000_000)).result()
        status, words = pool.submit(asyncio.run, put("2", 2_000_000)).result()
    assert first == (204, "")
    assert status == 413 and words.startswith("Too much is uploaded: this session may hold 3 MB in 4 files")


def test_the_shipped_proxy_files_limit_what_the_app_cannot() -> None:
    nginx, caddy = ((DEPLOY / name).read_text() for name in ("nginx.conf", "Caddyfile"))
    zones = set(re.findall(r"limit_(?:conn|req)_zone\s+\S+\s+zone=(\w+):", nginx))
    assert set(re.findall(r"limit_conn (\w+) \d+;|limit_req zone=(\w+) ", nginx)) == {
        ("lens_pages", ""), ("lens_all_pages", ""), ("lens_uploads", ""), ("lens_all_uploads", ""),
        ("", "lens_upload_rate"),
    }  # fmt: skip
    assert zones == {"lens_pages", "lens_all_pages", "lens_uploads", "lens_all_uploads", "lens_upload_rate"}
    pages, uploads = (
        re.search(rf"location {place} {{(.*?)}}", nginx, re.DOTALL)
        for place in ("/_stcore/stream", "/_stcore/upload_file/")
    )
    assert pages and "limit_conn lens_pages 16;" in pages[1] and "limit_conn lens_all_pages 400;" in pages[1]
    assert uploads and "limit_conn lens_uploads 4;" in uploads[1] and "zone=lens_upload_rate" in uploads[1]
    assert nginx.count("{") == nginx.count("}") and caddy.count("{") == caddy.count("}")
    assert (
        "client_max_body_size 6m;" in nginx
        and "max_size 6MB" in caddy
        and re.search(r"unhealthy_request_count 400\n\s+max_fails 1\b", caddy)
    )


def test_as_many_pages_as_the_proxy_lets_in_fit_into_the_files_of_the_server_and_of_nginx() -> None:
    """A page takes four files of the server, its websocket and a loop of Streamlit's, and two connections of nginx."""
    most = int(re.search(r"limit_conn lens_all_pages (\d+);", (DEPLOY / "nginx.conf").read_text())[1])  # type: ignore[index]
    unit = re.search(r"^LimitNOFILE=(\d+)$", (DEPLOY / "irl-lens.service").read_text(), re.MULTILINE)
    told = re.search(r"worker_connections (\d+);", (DEPLOY / "nginx.conf").read_text())
    assert unit and int(unit[1]) >= 2 * 4 * most and told and int(told[1]) >= 2 * 2 * most
    assert f"worker_connections {told[1]};" in (DEPLOY.parent / "docs" / "serving.md").read_text()
