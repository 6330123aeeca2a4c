"""The app with a real model and something wrong: many at once, gone readers, no memory, hostile checkpoints."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.inspect import examples, scoring_queue
from app.inspect.request import Inspection, Request
from app.inspect.scoring_queue import Desk, GivenUp, Refused, Ticket
from irl_core.checkpoints.find import default_roots, list_checkpoints
from irl_core.checkpoints.save import save_checkpoint
from irl_core.errors import InputError
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from irl_core.training.model_pair import ModelPair
from tests.tiny import PROBLEM, SOLUTION
from train import optimizers

HERE = Path(__file__).resolve().parent
MAIN = HERE.parents[1] / "app" / "main.py"
SESSIONS = 20


@pytest.fixture
def desk(lens: Lens) -> Desk:
    return Desk(Path("tiny"), "cpu", lambda path, device: lens)


def served(desk: Desk, solution: str = SOLUTION) -> Inspection:
    return desk.submit(Request(PROBLEM, solution)).result()


# ------------------------------------------------------------------------------------------------------ many at once


def test_twenty_sessions_at_once_get_the_scores_that_each_gets_alone(lens: Lens) -> None:
    """Two desks share the tokenizer, as two tabs with 'auto' and 'cpu' do: nothing is 'Already borrowed'."""
    texts = [f"She has {number} + 1 = {number + 1} pens.\n#### {number + 1}" for number in range(SESSIONS)]
    alone = [lens.score([make_trace(PROBLEM, text)])[0].raw for text in texts]
    desks = [Desk(Path("tiny"), "cpu", lambda path, device: lens) for _ in range(2)]
    barrier = threading.Barrier(SESSIONS)

    def session(number: int) -> Inspection:
        barrier.wait(30)
        return served(desks[number % 2], texts[number])

    with ThreadPoolExecutor(SESSIONS) as pool:
        together = list(pool.map(session, range(SESSIONS)))
    for text, raw, found in zip(texts, alone, together, strict=True):
        assert found.scored[0].trace.text == text
        assert np.array_equal(found.scored[0].raw, raw)


def test_the_same_seed_twice_is_the_same(desk: Desk) -> None:
    one, other = (desk.submit(Request(PROBLEM, n=3, seed=5)).result() for _ in range(2))
    for first, second in zip(one.scored, other.scored, strict=True):
        assert first.encoded.completion_ids == second.encoded.completion_ids
        assert np.array_equal(first.raw, second.raw)


# --------------------------------------------------------------------------------------- what goes wrong in a request


def lock_is_free(lens: Lens) -> bool:
    """Asked in another thread: the lock may be taken again by the thread that holds it."""
    with ThreadPoolExecutor(1) as pool:
        taken: bool = pool.submit(lens.lock.acquire, True, 10).result()
        if taken:
            pool.submit(lens.lock.release).result()
    return taken


def test_a_reader_who_leaves_in_the_middle_releases_the_lock(
    desk: Desk, lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, sampling = Ticket.report, threading.Event()

    def watched(self: Ticket, stage: str, done: int = 0, total: int = 0) -> None:
        report(self, stage, done, total)
        if done == 2:
            sampling.set()
            self._given_up.wait(10)  # the tab is closed while the models are at work

    monkeypatch.setattr(Ticket, "report", watched)
    ticket = desk.submit(Request(PROBLEM, n=2))
    assert sampling.wait(30)
    ticket.give_up()
    with pytest.raises(GivenUp):
        ticket.result()
    assert lock_is_free(lens)
    monkeypatch.undo()
    assert served(desk).scored[0].trace.text == SOLUTION


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=["gpu", "cpu"])
def test_out_of_memory_is_said_plainly_and_the_next_request_is_served(
    desk: Desk, lens: Lens, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ModelPair, "score", exhausted)
        with pytest.raises((InputError, Refused), match=r"Out of memory with|Not enough memory for this request"):
            served(desk)
    assert lock_is_free(lens)
    assert served(desk).scored[0].trace.text == SOLUTION


@pytest.mark.parametrize(
    ("solution", "said"),
    [
        ("x" * 1_000_000, r"The solution has 1,000,000 characters; the limit is 20,000"),
        ("7 + 4 = 11. " * 200, r"tokens; checkpoint tiny reads at most 160"),
    ],
    ids=["1 MB", "longer than the context"],
)
def test_what_is_too_long_is_refused_with_the_limit(desk: Desk, solution: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        served(desk, solution)
    assert served(desk).scored[0].trace.text == SOLUTION


# ------------------------------------------------------------------------------------------------ hostile checkpoints


PAYLOAD = b"cos\nsystem\n(S'touch " + b"%s" + b"'\ntR."


@pytest.fixture
def checkpoints(lens: Lens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a whole checkpoint, and copies of it with something wrong, and the app that looks there."""
    root = tmp_path / "checkpoints"
    files = optimizers.model_files("policy", lens.policy) | optimizers.discriminator_files(lens.discriminator)
    files |= optimizers.tokenizer_files(lens.encoder.tokenizer, tmp_path / "scratch")
    save_checkpoint(root / "whole", {**files, "config.json": lens.config | {"name": "whole"}})
    for name in ("pickled", "changed", "cut"):
        shutil.copytree(root / "whole", root / name)
    (root / "pickled" / "policy" / "pytorch_model.bin").write_bytes(PAYLOAD % str(tmp_path / "run").encode())
    head = root / "changed" / "discriminator" / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x7f")
    cut = root / "cut" / "discriminator" / "head.safetensors"
    cut.write_bytes(cut.read_bytes()[:-8])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IRL_LENS_CHECKPOINTS", str(root))
    own = scoring_queue.Sources(catalogue=lambda: list_checkpoints(default_roots()[2:], hashes=False))
    monkeypatch.setattr(scoring_queue, "sources", own)
    monkeypatch.setattr(examples, "PROBLEMS", HERE / "problems.jsonl")
    scoring_queue.open_desk.clear()
    return root


def test_a_damaged_checkpoint_is_said_and_another_is_offered(checkpoints: Path, tmp_path: Path) -> None:
    page = AppTest.from_file(str(MAIN), default_timeout=60).run()
    offered = page.sidebar.selectbox(key="checkpoint")
    assert sorted(offered.options) == ["changed", "whole"]
    said = "\n".join(caption.value for caption in page.sidebar.caption).replace("\\", "")
    assert "Not offered: pickled." in said and "pytorch_model.bin" in said
    assert "Not offered: cut." in said
    offered.set_value("changed").run()
    page.text_area(key="problem").set_value(PROBLEM)
    page.text_area(key="solution").set_value(SOLUTION)
    inspect = next(button for button in page.button if button.label == "Inspect")
    inspect.click().run()
    assert not page.exception
    (error,) = page.error
    assert "head.safetensors" in error.value.replace("\\", "") and str(tmp_path) not in error.value
    page.sidebar.selectbox(key="checkpoint").set_value("whole").run()
    next(button for button in page.button if button.label == "Inspect").click().run()
    assert not page.exception and not page.error and page.get("bidi_component")
    assert not (tmp_path / "run").exists()
