"""Engines that the benchmark starts: those that are not installed are named, and none outlives its use."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import httpx
import pytest

from benchmarks import engine_servers
from benchmarks.engine_servers import Engine, Missing, engines, started

SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()


HTTPServer(("127.0.0.1", int(sys.argv[2])), Ready).serve_forever()
"""


@pytest.fixture(autouse=True)
def _nothing_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_servers, "folder_of", lambda base: Path("/models") / base)
    monkeypatch.setattr(engine_servers, "vllm_program", lambda: "vllm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("LLAMA_PYTHON", raising=False)


def test_what_is_not_installed_is_named_with_what_is_missing() -> None:
    found = engines("smollm2-135m", 1)
    assert [one.name for one in found] == ["llama.cpp", "transformers", "vLLM"]
    reasons = [one.reason for one in found if isinstance(one, Missing)]
    assert "LLAMA_PYTHON names no Python" in reasons[0]
    assert reasons[1:] == ["fastapi, uvicorn, openai not installed", "no vllm on PATH"]


def test_an_engine_of_another_environment_is_started_with_its_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_PYTHON", "/llama/bin/python")
    engine = engines("smollm2-135m", 3)[0]
    assert isinstance(engine, Engine) and engine.command[0] == "/llama/bin/python"
    assert engine.command[-2:] == ["--threads", "3"]


def test_a_started_engine_answers_and_ends_with_its_use(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(SERVER)
    with started(Engine("own", [sys.executable, str(tmp_path / "server.py")], "/health"), 1) as url:
        assert httpx.get(url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_an_engine_that_ends_at_once_is_named() -> None:
    with pytest.raises(RuntimeError, match="own ended with 3"), started(
        Engine("own", [sys.executable, "-c", "raise SystemExit(3)"], "/health"), 1
    ):  # fmt: skip
        pytest.fail("it was not noticed")
