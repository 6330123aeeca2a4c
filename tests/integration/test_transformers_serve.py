"""Samples from `transformers serve` itself, with a tiny model: texts alone, no tokens told, and its own way to draw."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from irl_core.policy.engine import samples_of
from irl_core.policy.engine_requests import Engine
from irl_core.scorer import Lens
from tests.small_models import save_model
from tests.tiny import PROBLEM
from train.serving.ports import free_port


@pytest.fixture
def address(lens: Lens, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The URL of a running server, and what it calls its model."""
    from transformers.cli.serve import Serve

    folder, port = save_model(tmp_path / "model", "llama", lens.encoder.tokenizer, contrast=1.0), free_port(None)
    served = Serve(str(folder), device="cpu", port=port, host="127.0.0.1", non_blocking=True)
    while not served.server.started:
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{port}", str(folder)
    served.kill_server()


@pytest.mark.filterwarnings("ignore")
def test_every_sample_comes_and_they_differ(address: tuple[str, str], lens: Lens) -> None:
    url, model = address
    engine = Engine(url, model, parallel=2, retries=1)
    traces, notes = samples_of(engine, lens.encoder, PROBLEM, 4, 3, context=160, max_new_tokens=12)
    assert [one.trace_id for one in traces] == ["sample-1", "sample-2", "sample-3", "sample-4"]
    assert len({one.text for one in traces}) == 4, "drawn, not the likeliest tokens again and again"
    assert all(one.token_ids is None for one in traces)
    assert notes == [
        "4 samples came without tokens that spell them: they are read in our own tokens, which may be others than were "
        "drawn"
    ]
    assert len(lens.score(traces)) == 4
