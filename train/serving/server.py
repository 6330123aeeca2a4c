"""The server's process: a checkpoint loaded, its queue, and uvicorn in front, until it is asked to stop."""

from __future__ import annotations

import logging
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import uvicorn

from irl_core.errors import InputError
from irl_core.scorer import Lens
from train.serving.api import build_app
from train.serving.guard import BODY_SECONDS, Tokens
from train.serving.metrics import Metrics
from train.serving.queue import ScoringQueue

LOCAL = ("127.0.0.1", "localhost", "::1")
OPEN_CONNECTIONS = 1000
STOP_SECONDS = 60  # for what is being answered


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Who may ask and how much is taken: ``batch_tokens`` at once, ``queue`` traces waiting."""

    tokens: Tokens
    batch_tokens: int
    queue: int


def check_place(host: str, tokens: Tokens) -> None:
    """Raise InputError where the server would answer other machines without asking who they are."""
    if host not in LOCAL and not tokens.names:
        raise InputError(
            f"--host {host}: everybody who reaches this machine could ask; name who may with --token-file FILE, a line "
            "'NAME TOKEN' each, or listen on 127.0.0.1."
        )


def serve(lens: Lens, listener: socket.socket, settings: ServerSettings) -> None:
    """Answer who comes to ``listener`` until SIGTERM or Ctrl+C; what is being answered then is finished.

    The model computes in the thread that calls, best the process's first, whose freed tensors are used again
    (``keep_freed_tensors``); a second one listens.

    Raises:
        InputError: another program listens at that port since it was bound.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("irl_lens.serve")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    metrics = Metrics()
    queue = ScoringQueue(lens, batch_tokens=settings.batch_tokens, limit=settings.queue, metrics=metrics)
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(lens, queue, metrics, settings.tokens),
            log_config=None, access_log=False, server_header=False, limit_concurrency=OPEN_CONNECTIONS,
            timeout_keep_alive=int(BODY_SECONDS), timeout_graceful_shutdown=STOP_SECONDS, lifespan="off",
        )
    )  # fmt: skip
    try:
        listener.listen(OPEN_CONNECTIONS)
    except OSError as error:
        port = listener.getsockname()[1]
        raise InputError(f"Port {port} was taken while the checkpoint was loaded; name another with --port.") from error
    with server.capture_signals(), ThreadPoolExecutor(1, thread_name_prefix="http") as second:
        listening = second.submit(server.run, [listener])
        listening.add_done_callback(lambda _: queue.close())
        try:
            queue.work()
        finally:
            server.should_exit = True
    listening.result()
