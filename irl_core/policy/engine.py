"""Samples from a serving engine: any server with OpenAI's completions interface (vLLM, SGLang, llama.cpp's, ...).

One request a sample, several at once. A request is tried again where it can help; a sample that does not come is named
with its reason, and the others go on; a server that is gone ends it. What an engine draws cannot be drawn again, not
even with its seed (batches round otherwise), so that samples can be kept in a file as they come.

Log-probabilities of an engine are not taken over: another kernel or quantisation gives others, and a trace's are those
of the policy that is loaded here.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import httpx

from irl_core.errors import EncodingError, EngineError, InputError
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.engine_requests import KEY_VARIABLE, Ask, Drawing, Engine, Refused, Requests, reason_of
from irl_core.policy.kept_samples import KeptSamples
from irl_core.policy.protocol import OnStep
from irl_core.text.segmentation import make_trace
from irl_core.types import Source, Trace

MOST_CHARACTERS = 64  # of a token
LARGEST_SEED = 2**31 - 1  # llama.cpp's are 32 bits wide


@dataclass(frozen=True, slots=True)
class Drawn:
    """A sample: its text, whether it ended by itself, and its tokens without the end, where the engine tells them."""

    text: str
    finished: bool
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A sample that did not come, and why."""

    reason: str


class EngineClient:
    """Samples from one engine in the tokens of ``encoder``. Close it, or use it in a ``with``.

    Args:
        engine: where it is.
        encoder: the policy's, whose prompts are sent.
        pause: waits so many seconds; for tests.

    Raises:
        EngineError: it does not answer, or has several models and none was named.
    """

    def __init__(self, engine: Engine, encoder: TraceEncoder, *, pause: Callable[[float], Any] = time.sleep) -> None:
        self.engine, self.encoder = engine, encoder
        self.requests = Requests(engine, encoder, pause)
        self.counting = threading.Lock()
        self.retokenised = 0  # samples whose tokens the engine did not tell
        self.other_prompts = 0  # samples before which the engine read another number of tokens

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.requests.http.close()

    def one(self, ask: Ask, drawing: Drawing) -> Drawn | Lost:
        """A sample, or why it did not come. Raises EngineError where the engine is gone or refuses all requests."""
        if self.requests.stopped.is_set():
            return Lost("stopped")
        try:
            return self.read(self.requests.completion(ask, drawing), ask, drawing)
        except Refused as error:
            if error.status in (401, 403, 404):
                raise EngineError(
                    f"The engine at {self.engine.url} refuses ({error}); set {KEY_VARIABLE}, or name its model with "
                    "--engine-model"
                ) from None
            return Lost(str(error))
        except httpx.ConnectError as error:
            raise EngineError(
                f"The engine at {self.engine.url} is gone after {self.engine.retries + 1} tries ({reason_of(error)})"
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            return Lost(reason_of(error))

    def read(self, answer: Mapping[str, Any], ask: Ask, drawing: Drawing) -> Drawn:
        """The sample in an answer. Raises ValueError where there is none, or one that is too long.

        A text whose tokens are not told may have more of ours than were drawn; it must fit the context all the same.
        """
        most = drawing.max_new_tokens
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict) or not isinstance(text := choice.get("text"), str):
            raise ValueError("an answer without a text")
        usage = answer.get("usage")
        read = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if not text.isprintable() and re.search("[\ud800-\udfff]", text):
            raise ValueError("an answer that holds half of a surrogate pair")
        if len(text) > MOST_CHARACTERS * most:
            raise ValueError(f"an answer of {len(text):,} characters, where {most:,} tokens were asked for")
        ids = self.fitting(told_ids(choice), text)
        length = len(self.encoder.tokenizer(text, add_special_tokens=False)["input_ids"] if ids is None else ids)
        room = most if ids is not None else drawing.context - len(ask.prompt_ids) - 1
        if length > room:
            raise ValueError(f"an answer of {length:,} tokens, where {room:,} fit")
        with self.counting:
            self.other_prompts += isinstance(read, int) and read != len(ask.prompt_ids)
            self.retokenised += ids is None
        return Drawn(text, choice.get("finish_reason") == "stop", ids)

    def fitting(self, ids: tuple[int, ...] | None, text: str) -> tuple[int, ...] | None:
        """Ids without the end token, where they spell the text in our vocabulary; else None."""
        if ids is None:
            return None
        while ids and ids[-1] in self.encoder.end_ids:
            ids = ids[:-1]
        try:
            return ids if self.encoder.spans_of_ids(ids)[0] == text else None
        except EncodingError:
            return None

    def draw(
        self, asks: Sequence[Ask], drawing: Drawing, *, kept: KeptSamples | None = None, on_step: OnStep | None = None
    ) -> list[Drawn | Lost]:
        """A sample for each that was asked for, in their order, or why it did not come.

        Args:
            asks: what to draw.
            drawing: how.
            kept: samples that came before, which are not asked for again; new ones are added as they come.
            on_step: is told how many of how many are there; what it raises ends the drawing.

        Raises:
            EngineError: the engine is gone, or refuses; what had come by then is in ``kept``.
        """
        found: dict[int, Drawn | Lost] = {}
        for number, ask in enumerate(asks):
            if kept is not None and (known := kept.get(key_of(ask))) is not None:
                found[number] = Drawn(*known)
        todo = deque(number for number in range(len(asks)) if number not in found)
        left, came = len(todo), SimpleQueue[tuple[int, Drawn | Lost | BaseException]]()

        def work() -> None:
            while todo and not self.requests.stopped.is_set():
                try:
                    number = todo.popleft()
                except IndexError:  # another thread has just taken the last one
                    return
                try:
                    came.put((number, self.one(asks[number], drawing)))
                except BaseException as error:  # is raised where the samples are waited for
                    came.put((number, error))

        # Not a pool, whose threads a program that was asked to stop would wait for: up to the timeout of a request.
        for _ in range(min(left, self.engine.parallel)):
            threading.Thread(target=work, name="engine", daemon=True).start()
        try:
            for _ in range(left):
                number, sample = came.get()
                if isinstance(sample, BaseException):
                    raise sample
                found[number] = sample
                if kept is not None and isinstance(sample, Drawn):
                    kept.add(key_of(asks[number]), (sample.text, sample.finished, sample.token_ids))
                if on_step is not None:
                    on_step(len(found), len(asks))
        except BaseException:
            self.requests.stopped.set()
            raise
        return [found[number] for number in range(len(asks))]

    def trace_of(self, ask: Ask, sample: Drawn, **fields: Any) -> Trace:
        """A sample as a segmented trace; its log-probabilities are computed where it is scored."""
        ids = sample.token_ids
        if ids is not None and sample.finished:
            ids = (*ids, self.encoder.end_ids[0])
        return make_trace(
            ask.problem, sample.text, source=Source.POLICY, token_ids=ids, finished=sample.finished, **fields
        )

    def notes(self) -> Iterator[str]:
        """What is to be said of the samples, a sentence each."""
        if self.requests.own_defaults:
            yield (
                "the engine refuses top_k, min_p and repetition_penalty: it may draw by defaults of its own or of the "
                "model's"
            )
        if self.retokenised:
            yield (
                f"{self.retokenised:,} samples came without tokens that spell them: they are read in our own tokens, "
                "which may be others than were drawn"
            )
        if self.other_prompts:
            yield (
                f"before {self.other_prompts:,} samples the engine read another number of tokens than the prompt has: "
                "it adds its own, or has another tokenizer"
            )


def asks_of(encoder: TraceEncoder, problem: str, samples: int, seed: int) -> list[Ask]:
    """The samples of a problem; their seeds depend on the seed, the problem and the number alone."""
    prompt = encoder.encode_prompt(problem)
    return [
        Ask(problem, prompt, number, random.Random(f"{seed}-{problem}-{number}").randint(0, LARGEST_SEED))
        for number in range(samples)
    ]


def samples_of(
    engine: Engine,
    encoder: TraceEncoder,
    problem: str,
    samples: int,
    seed: int,
    *,
    context: int,
    max_new_tokens: int = 256,
    on_step: OnStep | None = None,
) -> tuple[list[Trace], list[str]]:
    """Samples of one problem from an engine, and what is to be said of them: those that did not come among it.

    Args:
        engine: where it is.
        encoder: of the policy's tokens.
        problem: the problem's text.
        samples: how many.
        seed: of their seeds.
        context: the longest prompt with its completion, in tokens.
        max_new_tokens: the most of a completion.
        on_step: is told how many of how many are there.

    Raises:
        InputError: the problem is too long.
        EngineError: the engine is not there, or none of the samples came.
    """
    asks = asks_of(encoder, problem, samples, seed)
    room = context - len(asks[0].prompt_ids)
    if room < 1:
        raise InputError(f"The problem has {context - room:,} tokens; at most {context - 1:,} are read. Shorten it.")
    with EngineClient(engine, encoder) as client:
        drawn = client.draw(asks, Drawing(min(max_new_tokens, room), 1.0, 0.95, context), on_step=on_step)
        came = [
            client.trace_of(ask, one, trace_id=f"sample-{ask.number + 1}")
            for ask, one in zip(asks, drawn, strict=True)
            if isinstance(one, Drawn) and one.text.strip()
        ]
        notes = list(client.notes())
    reasons = [
        one.reason if isinstance(one, Lost) else "blank"
        for one in drawn
        if isinstance(one, Lost) or not one.text.strip()
    ]
    if not came:
        raise EngineError(f"None of {samples} samples came from the engine at {engine.url}: {reasons[0]}")
    if reasons:
        notes.append(f"{len(reasons)} of {samples} samples did not come: {'; '.join(sorted(set(reasons)))[:300]}")
    return came, notes


def key_of(ask: Ask) -> str:
    """What tells a sample from all others of a file of kept ones."""
    return f"{ask.seed}-{ask.number}-{random.Random(ask.problem).getrandbits(64):016x}"


def told_ids(choice: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The ids of a sample's tokens, where the engine tells them: vLLM beside the text, llama.cpp with each
    log-probability."""
    ids = choice.get("token_ids")
    logprobs = choice.get("logprobs")
    if ids is None and isinstance(logprobs, dict) and isinstance(content := logprobs.get("content"), list):
        ids = [one.get("id") if isinstance(one, dict) else None for one in content]
    if not isinstance(ids, list) or not all(type(one) is int and one >= 0 for one in ids):
        return None
    return tuple(ids)
