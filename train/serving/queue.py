"""The bounded queue before the model: one thread takes what waits, as many tokens at once as the budget holds.

While a batch is computed the next requests gather, so that a busy server batches and an idle one answers at once. At
most half of the traces that are about, those of the batch before with them, are taken at once: while they are computed
the others' clients read their answers and ask again. Were all taken, the model would wait for the clients after each
batch. A request is never split over two batches of the queue, and requests keep their order.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from irl_core.errors import InputError, UserError
from irl_core.models.allocation import give_back_freed_tensors
from irl_core.models.batching import Batching
from irl_core.policy.familiarity import Familiarity
from irl_core.scorer import Lens
from irl_core.types import EncodedTrace, Layout, Localisation, ScoredTrace, Trace
from train.serving.metrics import Metrics

FIRST_GUESS_SECONDS = 0.2  # of a trace, before any was timed
LONGEST_RETRY_SECONDS = 60
GIVE_BACK_SECONDS = 30  # after which freed memory goes back to the system, at work or at rest
UNREAD = Trace("", "", (), Layout.PLAIN)  # of a sequence of tokens that is no trace


class QueueFull(UserError):
    """The queue has no room; ``retry_after``: seconds after which it is likely to have some."""

    def __init__(self, waiting: int, limit: int, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(
            f"{waiting} solutions wait before the model and the limit is {limit}; ask again in {retry_after} s, with "
            "fewer solutions at once, or raise --queue"
        )


class Scored(NamedTuple):
    """What is known of a trace: its rewards, its first error, and how familiar its problem is."""

    scored: ScoredTrace
    where: Localisation
    known: Familiarity


@dataclass(slots=True, eq=False)
class Job:
    """Work of one request: traces to score, or sequences of tokens to classify; exactly one of both is given."""

    traces: Sequence[Trace] = ()
    sequences: Sequence[Sequence[int]] = ()
    answer: Future[list[Scored] | list[list[float]]] = field(default_factory=Future)
    encoded: list[EncodedTrace] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """The number of traces or sequences."""
        return len(self.traces) + len(self.sequences)

    @property
    def tokens(self) -> int:
        """The number of tokens to read, once they are known."""
        return sum(len(one.prompt_ids) + len(one.completion_ids) for one in self.encoded)

    def encode(self, lens: Lens) -> None:
        """Find the tokens. Raises InputError, which names the trace, for one that cannot be read."""
        for number, trace in enumerate(self.traces):
            try:
                self.encoded.append(lens.encode(trace))
            except InputError as error:
                raise InputError(f"traces.{number}: {error}") from None
        self.encoded += [
            EncodedTrace(UNREAD, tuple(ids[:1]), tuple(ids[1:]), ((0, 0),) * (len(ids) - 1)) for ids in self.sequences
        ]


class ScoringQueue:
    """Jobs before a loaded checkpoint, which one thread works through (``work``).

    Args:
        lens: the checkpoint.
        batch_tokens: most tokens of one batch; a longer request has one of its own.
        limit: most traces that wait.
        metrics: is told of every batch.
    """

    def __init__(self, lens: Lens, *, batch_tokens: int, limit: int, metrics: Metrics) -> None:
        self.lens, self.batch_tokens, self.limit, self.metrics = lens, batch_tokens, limit, metrics
        self.jobs: deque[Job] = deque()
        self.waiting = 0  # traces
        self.answered = 0  # traces of the last batch
        self.seconds_a_trace = FIRST_GUESS_SECONDS
        self.gave_back = time.monotonic()
        self.changed = threading.Condition()
        self.closed = False

    def submit(self, job: Job) -> Future[list[Scored] | list[list[float]]]:
        """Add a job; its answer comes, or the error that it met.

        Raises:
            InputError: it has more traces than ever may wait.
            QueueFull: there is no room now.
        """
        if job.size > self.limit:
            raise InputError(
                f"{job.size} solutions asked for; the queue holds {self.limit}. Send fewer, or raise --queue."
            )
        with self.changed:
            if self.waiting + job.size > self.limit or self.closed:
                seconds = math.ceil(max(self.waiting, 1) * self.seconds_a_trace)
                raise QueueFull(self.waiting, self.limit, min(max(seconds, 1), LONGEST_RETRY_SECONDS))
            self.jobs.append(job)
            self.waiting += job.size
            self.metrics.waiting.set(self.waiting)
            self.changed.notify()
        return job.answer

    def close(self) -> None:
        """Take no more; ``work`` ends when what waits is answered."""
        with self.changed:
            self.closed = True
            self.changed.notify()

    def work(self) -> None:
        """Answer jobs until the queue is closed and empty; what goes wrong is the answer of the jobs it met.

        Best in the thread that loaded the checkpoint. Each thread that computes in parallel brings its own helpers, and
        where those of a process outnumber the processors, OpenMP lets them sleep at every barrier: a thread that runs
        what another one loaded takes 1.3 times as long for small batches on two cores.
        """
        while jobs := self.next_jobs():
            started = time.monotonic()
            for job in jobs:
                self.metrics.waited.observe(started - job.since)
            self.answer(jobs)
            size, seconds = sum(job.size for job in jobs), time.monotonic() - started
            self.seconds_a_trace += 0.2 * (seconds / max(size, 1) - self.seconds_a_trace)
            self.metrics.batch(size, sum(job.tokens for job in jobs), seconds)
            self.answered = size
            if time.monotonic() - self.gave_back > GIVE_BACK_SECONDS:
                self.give_back()

    def give_back(self) -> None:
        """Give the memory of batches that are over back to the system."""
        give_back_freed_tensors()
        self.gave_back = time.monotonic()

    def next_jobs(self) -> list[Job]:
        """The next jobs to answer together, encoded: of one kind, within the token budget and half of what is about.
        None where it is closed."""
        taken: list[Job] = []
        share = 1
        while True:
            with self.changed:
                while not self.jobs and not taken and not self.closed:
                    if not self.changed.wait(GIVE_BACK_SECONDS):
                        self.give_back()
                if not taken:
                    share = max(1, (self.waiting + self.answered) // 2)
                if not self.jobs or (taken and bool(self.jobs[0].traces) != bool(taken[0].traces)):
                    return taken
                job = self.jobs[0]
            if not job.encoded and not self.encode(job):
                self.remove(job)
                continue
            size = job.size + sum(one.size for one in taken)
            tokens = job.tokens + sum(one.tokens for one in taken)
            if taken and (size > share or tokens > self.batch_tokens):
                return taken
            self.remove(job)
            taken.append(job)

    def encode(self, job: Job) -> bool:
        """Find the tokens of a job; where that fails the error is its answer, and False is returned."""
        try:
            job.encode(self.lens)
        except Exception as error:  # a fault of ours must not end the thread
            job.answer.set_exception(error)
            return False
        return True

    def remove(self, job: Job) -> None:
        """Take the first job out of the queue."""
        with self.changed:
            self.jobs.popleft()
            self.waiting -= job.size
            self.metrics.waiting.set(self.waiting)

    def answer(self, jobs: Sequence[Job]) -> None:
        """Answer jobs of one kind; where they fail together, each alone."""
        try:
            found = self.scored(jobs) if jobs[0].traces else self.classified(jobs)
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self.answer([job])
                return
            if not isinstance(error, UserError):
                logging.getLogger(__name__).exception("a batch failed")
            jobs[0].answer.set_exception(error)
            return
        answers = iter(found)
        for job in jobs:
            job.answer.set_result([next(answers) for _ in range(job.size)])  # type: ignore[arg-type]

    def scored(self, jobs: Sequence[Job]) -> list[Scored]:
        """What ``irl-lens score`` finds of the traces of jobs."""
        encoded = [one for job in jobs for one in job.encoded]
        scored = self.lens.score_encoded(encoded, self.batch_tokens)
        known = self.lens.familiarities(scored)
        return [Scored(one, self.lens.locate(one), familiar) for one, familiar in zip(scored, known, strict=True)]

    def classified(self, jobs: Sequence[Job]) -> list[list[float]]:
        """The logit at every token of sequences, as a token classifier gives it; a linear head reads nothing else."""
        lens, encoded = self.lens, [one for job in jobs for one in job.encoded]
        batching = Batching((lens.discriminator_encoder or lens.encoder).pad_id, self.batch_tokens, "padded")
        rows: dict[int, list[float]] = {}
        with lens.lock, torch.no_grad():
            device = next(lens.discriminator.parameters()).device
            for indices in batching.split(encoded):
                output = lens.discriminator(batching.collate([encoded[index] for index in indices]).to(device))
                logits, starts = output.logits.float().cpu(), output.prompt_logit.float().cpu().tolist()
                for row, index in enumerate(indices):
                    rows[index] = [starts[row], *logits[row, : len(encoded[index].completion_ids)].tolist()]
        return [rows[index] for index in range(len(encoded))]
