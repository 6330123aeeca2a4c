"""A small server with OpenAI's completions interface: it answers as a test tells it, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Answer = tuple[int, Any]  # a status and a body: JSON, or bytes as they are


class FakeEngine:
    """What the server was asked, and how it answers: ``answer`` takes the body of a completion's request."""

    def __init__(self, answer: Callable[[Body], Answer], models: list[str]) -> None:
        self.answer, self.models = answer, models
        self.asked: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        self.url = ""
        self.gone = False
        self.stop: Callable[[], None] = lambda: None
        self.others: dict[str, Callable[[Body], Answer]] = {}  # answers to what is posted to other paths

    def handle(self, path: str, body: Body | None, headers: dict[str, str]) -> Answer:
        if path == "/v1/models":
            return 200, {"data": [{"id": name} for name in self.models]}
        if path in self.others and body is not None:
            return self.others[path](body)
        if path != "/v1/completions" or body is None:
            return 404, {"error": {"message": f"no {path}"}}
        with self.lock:
            self.asked.append(body)
            self.headers.append(headers)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            return self.answer(body)
        finally:
            with self.lock:
                self.running -= 1


def completion(text: str, finish: str = "stop", *, read: int | None = None, **choice: Any) -> Answer:
    """The answer with one text."""
    usage = {} if read is None else {"usage": {"prompt_tokens": read}}
    return 200, {"choices": [{"index": 0, "text": text, "finish_reason": finish, **choice}], **usage}


@contextmanager
def engine_server(answer: Callable[[Body], Answer], *models: str) -> Iterator[FakeEngine]:
    """A running server of one model, or of those that are named."""
    fake = FakeEngine(answer, list(models) or ["tiny"])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, body: Body | None) -> None:
            if fake.gone:  # a connection that was kept open
                self.close_connection = True
                return
            status, said = fake.handle(self.path, body, {key.lower(): value for key, value in self.headers.items()})
            content = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"

    def stop() -> None:
        fake.gone = True
        server.shutdown()
        server.server_close()
        thread.join()

    fake.stop = stop
    try:
        yield fake
    finally:
        stop()
