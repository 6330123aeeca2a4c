"""The queue before each loaded checkpoint; the only cache and the only lock of the app.

A ``Desk`` owns one loaded checkpoint and one worker thread. The thread is the lock, because every call of a model or
its tokenizer happens in it, one after the other. Nothing in that thread touches streamlit: the page watches a
``Ticket`` and draws. A ticket that is given up (closed tab, rerun) leaves the queue, or stops at the next token.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import streamlit as st

from app.inspect.request import Inspection, Request
from app.inspect.steps import with_steps
from app.inspect.why import flagged_token
from irl_core.checkpoints.find import CheckpointInfo, default_roots, list_checkpoints
from irl_core.errors import UserError
from irl_core.models.allocation import give_back_freed_tensors, keep_freed_tensors
from irl_core.models.bundled import default_checkpoint, missing_base

if TYPE_CHECKING:
    from irl_core.policy.branches import Branch
    from irl_core.scorer import Lens
    from irl_core.types import Trace

MAX_WAITING: Final = 32
MOST_TRACES_WAITING: Final = 256  # of all requests together: a few large ones leave room for many small ones
MOST_A_SESSION: Final = 1
LensFactory = Callable[[Path, str], "Lens"]
Catalogue = Callable[[], list[CheckpointInfo]]


class Refused(UserError, RuntimeError):
    """A request that cannot be served now; the message says why and what to do, and is shown as it is."""


class GivenUp(Exception):
    """Raised inside the worker when nobody waits for the result any more."""


@dataclass(slots=True)
class Progress:
    """The progress of a ticket: ``stage`` in words, ``done`` of ``total`` (0 = not countable)."""

    stage: str = "waiting"
    done: int = 0
    total: int = 0


class Ticket:
    """A place in the queue of a desk, and later its result; ``traces``: how many it samples or scores."""

    def __init__(self, desk: Desk, traces: int = 1, session: str = "") -> None:
        self._desk = desk
        self.traces = traces
        self.session = session
        self._given_up = threading.Event()
        self.progress = Progress()
        self.future: Future[Inspection] | None = None

    def report(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Called by the worker. Raises GivenUp when the page has gone."""
        if self._given_up.is_set():
            raise GivenUp
        self.progress = Progress(stage, done, total)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the result."""
        return not self._given_up.is_set()

    def ahead(self) -> int:
        """How many requests of others will be served before this one."""
        return self._desk.ahead(self)

    def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds``; whether the request was served or failed by then."""
        assert self.future is not None
        try:
            self.future.exception(timeout=seconds)
        except NotYet:
            return False
        return True

    def result(self) -> Inspection:
        """The inspection; raises what the worker raised."""
        assert self.future is not None
        return self.future.result()

    def give_up(self) -> None:
        """Leave the queue. Harmless when done, or done twice."""
        self._given_up.set()
        if self.future is not None and self.future.cancel():
            self._desk.forget(self)


class Desk:
    """One checkpoint on one device, loaded at the first request, with a bounded queue before it."""

    def __init__(self, path: Path, device: str, factory: LensFactory) -> None:
        self._path, self._device, self._factory = path, device, factory
        self._lens: Lens | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="desk")
        self._queue: deque[Ticket] = deque()
        self._queue_lock = threading.Lock()
        self.calls: Counter[str] = Counter()

    def submit(self, request: Request, session: str = "") -> Ticket:
        """A ticket for the request.

        ``session``: of the page that asks; empty for a caller that is none.

        Raises:
            Refused: too many requests wait, or too many traces, or one of this session; the message names the limit.
        """
        ticket = Ticket(self, request.traces, session)
        with self._queue_lock:
            self._check_room(ticket)
            self._queue.append(ticket)
        ticket.future = self._worker.submit(self._serve, request, ticket)
        return ticket

    def _check_room(self, ticket: Ticket) -> None:
        if len(self._queue) >= MAX_WAITING:
            raise Refused(f"Busy: {len(self._queue)} requests are ahead, the most allowed. Try again in a minute.")
        own = sum(other.session == ticket.session and other.wanted for other in self._queue)
        if ticket.session and own >= MOST_A_SESSION:
            raise Refused(f"Busy: {own} request of this session is ahead, the most allowed. Wait for it, or stop it.")
        waiting = sum(other.traces for other in self._queue)
        if waiting + ticket.traces > MOST_TRACES_WAITING:
            raise Refused(
                f"Busy: {waiting} solutions are ahead, and with yours more than {MOST_TRACES_WAITING}, the most "
                "allowed. Sample fewer, paste a solution, or try again in a minute."
            )

    def ahead(self, ticket: Ticket) -> int:
        """How many requests will be served before this one; those of its own session, which it gave up, apart."""
        with self._queue_lock:
            before = takewhile(lambda other: other is not ticket, self._queue if ticket in self._queue else ())
            return sum(not ticket.session or other.session != ticket.session for other in before)

    def forget(self, ticket: Ticket) -> None:
        """Take a ticket out of the queue, if it is in it."""
        with self._queue_lock:
            if ticket in self._queue:
                self._queue.remove(ticket)

    def close(self) -> None:
        """Stop taking requests; the one being served finishes."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _serve(self, request: Request, ticket: Ticket) -> Inspection:
        try:
            return inspect(self._load(ticket), request, ticket, self.calls)
        except Exception as error:
            if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
                raise Refused("Not enough memory for this request. Ask for fewer samples or a shorter text.") from error
            raise
        finally:
            self.forget(ticket)
            give_back_freed_tensors()

    def _load(self, ticket: Ticket) -> Lens:
        if self._lens is None:
            ticket.report("loading the models")
            self.calls["load"] += 1
            self._lens = self._factory(self._path, self._device)
        return self._lens


def inspect(lens: Lens, request: Request, ticket: Ticket, calls: Counter[str]) -> Inspection:
    """Serve a request with loaded models; ``calls`` counts what was done. Raises GivenUp when nobody waits any more."""
    traces, told = solutions(lens, request, ticket, calls)
    ticket.report("scoring")
    calls["score"] += 1
    scored = tuple(lens.score(traces))
    familiarity = tuple(lens.familiarities(scored))
    localisations = tuple(lens.locate(one) for one in scored)
    at: int | None = None
    branches: tuple[Branch, ...] = ()
    if request.solution:
        at = request.at
        if at is None or not 0 <= at < len(scored[0].raw):
            at = flagged_token(scored[0], localisations[0], familiarity[0])
        if at is not None:
            ticket.report("comparing with other tokens")
            branches = tuple(lens.branches(scored[0], at))
    score = lens.default_trace_score
    return Inspection(
        request, lens.name, lens.computes_on, score, scored, localisations, familiarity, at=at, branches=branches,
        written=told,
    )  # fmt: skip


def solutions(lens: Lens, request: Request, ticket: Ticket, calls: Counter[str]) -> tuple[list[Trace], str]:
    """The pasted solution, the samples, or what was written in a way with what that took in words."""
    from irl_core.strategies import STRATEGIES, in_words
    from irl_core.text.segmentation import make_trace, with_reference

    if request.solution:
        trace = make_trace(
            request.problem, request.solution, reference_answer=request.answer or None, trace_id="pasted"
        )  # fmt: skip
        return [with_steps(trace, request.steps) if request.steps else trace], ""

    def on_progress(done: int, total: int) -> None:
        ticket.report("sampling, at most token", done, total)

    calls["sample"] += 1
    told = ""
    if request.way:
        made = STRATEGIES[request.way](lens, request.problem, request.seed, on_progress=on_progress)
        traces = [made.trace] if made.draft is None else [made.trace, made.draft.trace]
        told = in_words(request.way, made)
    else:
        traces = lens.sample(
            request.problem, request.n, request.seed, temperature=request.temperature, begun=request.begun,
            on_progress=on_progress,
        )  # fmt: skip
    return [with_reference(trace, request.answer or None) for trace in traces], told


def load_lens(path: Path, device: str) -> Lens:
    """The loaded checkpoint at a path."""
    from irl_core.scorer import Lens

    keep_freed_tensors(in_all_threads=True)
    return Lens.load(path, device)


@dataclass(frozen=True, slots=True)
class Sources:
    """The functions that load a lens and list the checkpoints."""

    factory: LensFactory = load_lens
    catalogue: Catalogue = lambda: list_checkpoints(default_roots(), hashes=False)


sources = Sources()


def use(factory: LensFactory, catalogue: Catalogue) -> None:
    """Take lenses and the list of checkpoints from elsewhere (tests)."""
    global sources
    sources = Sources(factory, catalogue)


def catalogue() -> list[CheckpointInfo]:
    """Every checkpoint in the allowed folders, the unusable ones with their reason; the default first."""
    first = default_checkpoint(default_roots()[0]).name
    listed = map(unusable_without_base, sources.catalogue())
    return sorted(listed, key=lambda info: (not info.verified, info.name != first, info.name))


def unusable_without_base(info: CheckpointInfo) -> CheckpointInfo:
    """The checkpoint, or where its pretrained model was not fetched the same as one that cannot be used, and why."""
    if not info.verified:
        return info
    try:
        missing = missing_base(info.path)
    except UserError as error:
        return replace(info, verified=False, reason=str(error))
    if missing is None:
        return info
    return replace(info, verified=False, reason=f"Its pretrained model is not here: irl-lens models fetch {missing}")


def desk(info: CheckpointInfo, device: str) -> Desk:
    """The desk of a checkpoint, the same for all sessions; a checkpoint that was written anew gets a new one."""
    manifest = info.path / "manifest.json"
    written = manifest.stat().st_mtime_ns if manifest.is_file() else 0
    opened: Desk = open_desk(str(info.path), device, written)
    return opened


@st.cache_resource(max_entries=2, show_spinner=False, on_release=Desk.close)
def open_desk(path: str, device: str, written: int) -> Desk:
    """A desk, kept for all sessions; ``written``: when the checkpoint's manifest was, in nanoseconds."""
    return Desk(Path(path), device, sources.factory)
