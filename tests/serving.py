"""A served lens in a test: the application with a client beside it, in the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi.testclient import TestClient

from train.serving.api import build_app
from train.serving.guard import Tokens
from train.serving.metrics import Metrics
from train.serving.queue import ScoringQueue


@contextmanager
def served(lens: Any, *, limit: int = 64, batch_tokens: int = 4096, tokens: Tokens | None = None) -> Iterator[Any]:
    """A client of a served lens; ``client.queue`` is its queue."""
    metrics = Metrics()
    queue = ScoringQueue(lens, batch_tokens=batch_tokens, limit=limit, metrics=metrics)
    model = threading.Thread(target=queue.work)
    model.start()
    client: Any = TestClient(build_app(lens, queue, metrics, tokens or Tokens()), raise_server_exceptions=False)
    client.queue = queue
    try:
        yield client
    finally:
        queue.close()
        model.join()
