"""Downloads that are cut off go on where they stopped, and what comes is verified."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from irl_core.errors import CheckpointError
from irl_core.models import resumed_download
from irl_core.models.resumed_download import download

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Sends ``CONTENT``; it breaks off after ``cut`` bytes, once, and honours ranges where ``ranges`` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/small-1.0.whl"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        start = int(wanted[len("bytes=") : -1]) if wanted and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(body[:cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    path, told = tmp_path / "small-1.0.whl", []
    server.cut = 300_000
    with pytest.raises(
        CheckpointError, match=r"small-1\.0\.whl could not be downloaded .*; 300,000 bytes are kept, and"
    ):
        download(server.address, path, DIGEST)
    assert not path.exists()
    download(server.address, path, DIGEST, lambda *step: told.append(step))
    assert path.read_bytes() == CONTENT and [one.name for one in tmp_path.iterdir()] == ["small-1.0.whl"]
    assert server.asked == [None, "bytes=300000-"]
    assert told[0][0] == "downloading" and told[0][1] > 300_000 and told[0][2] == len(CONTENT)


def test_a_server_without_ranges_sends_all_of_it_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "small.part").write_bytes(CONTENT[:1000])
    download(server.address, tmp_path / "small", DIGEST)
    assert (tmp_path / "small").read_bytes() == CONTENT


def test_what_came_whole_before_is_only_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "small.part").write_bytes(CONTENT)
    download(server.address, tmp_path / "small", DIGEST)
    assert (tmp_path / "small").read_bytes() == CONTENT


def test_another_file_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"small that came has the sha256 [0-9a-f]{12}\.\.\., and 000000000000\.\.\."
    ):
        download(server.address, tmp_path / "small", "0" * 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/small", "no-address"])
def test_what_cannot_be_reached_is_said(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumed_download, "TIMEOUT", 2.0)
    with pytest.raises(CheckpointError, match="small could not be downloaded"):
        download(address, tmp_path / "small", DIGEST)
