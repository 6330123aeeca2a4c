"""``irl-lens serve``: what it refuses before a model is loaded, and a server that answers until it is asked to stop."""

from __future__ import annotations

import importlib.util
import logging
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from irl_core.errors import InputError
from irl_core.scorer import Lens
from tests.tiny import PROBLEM, SOLUTION
from train.cli import serve as command
from train.serving import server
from train.serving.guard import Tokens, hashed
from train.serving.ports import bound
from train.serving.server import ServerSettings, check_place


def test_other_machines_may_ask_only_with_a_token() -> None:
    with pytest.raises(InputError, match=r"--host 0\.0\.0\.0: everybody who reaches this machine could ask"):
        check_place("0.0.0.0", Tokens())
    check_place("0.0.0.0", Tokens({hashed("x" * 16): "ada"}))
    check_place("127.0.0.1", Tokens())


def test_without_its_packages_it_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'fastapi is not installed; pip install -e "\.\[serve\]"'):
        command.serve()


def test_nothing_is_loaded_where_nobody_could_ask(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    with pytest.raises(InputError, match="has no token"):
        command.serve(token_file=tmp_path / "tokens")


def test_it_answers_over_http_and_finishes_what_it_was_asked(lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    class Watched(uvicorn.Server):
        def __init__(self, config: uvicorn.Config) -> None:
            super().__init__(config)
            started.append(self)

    monkeypatch.setattr(uvicorn, "Server", Watched)
    listener = bound("127.0.0.1", 0)
    port, settings = listener.getsockname()[1], ServerSettings(Tokens(), 4096, 16)
    thread = threading.Thread(target=server.serve, args=(lens, listener, settings))
    thread.start()
    try:
        while thread.is_alive() and not (started and started[0].started):
            threading.Event().wait(0.01)
        body = {"traces": [{"problem": PROBLEM, "solution": SOLUTION}]}
        answer = httpx.post(f"http://127.0.0.1:{port}/score", json=body, timeout=30)
        assert answer.status_code == 200 and answer.json()["checkpoint"] == "tiny" and "server" not in answer.headers
    finally:
        for one in started:
            one.should_exit = True
        thread.join(30)
        logging.getLogger("irl_lens.serve").handlers.clear()
    assert not thread.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")


def test_a_port_that_another_program_took_meanwhile_is_said(lens: Lens) -> None:
    with bound("127.0.0.1", 0) as mine:
        port = mine.getsockname()[1]
        with bound("127.0.0.1", port) as other:  # a bound port can be bound again until somebody listens
            other.listen()
            with pytest.raises(InputError, match=f"Port {port} was taken while the checkpoint was loaded"):
                server.serve(lens, mine, ServerSettings(Tokens(), 4096, 16))
    logging.getLogger("irl_lens.serve").handlers.clear()


def test_an_address_of_another_machine_is_refused_before_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"ada {'x' * 40}\n")
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1: is no address of this machine"):
        command.serve(checkpoint=str(tmp_path / "none"), host="192.0.2.1", token_file=tmp_path / "tokens")
