"""Requests to a serving engine over HTTP: where it is, what it is sent, what is tried again.

Engines differ in what they take: prompts as tokens or as text alone, fields that tell tokens or none. What one refuses
is left out from then on.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx

from irl_core.errors import EngineError, InputError
from irl_core.files import escaped, one_line
from irl_core.models.tokenization import TraceEncoder

KEY_VARIABLE = "IRL_LENS_ENGINE_KEY"
MOST_BYTES = 16_000_000  # of one answer
LONGEST_PAUSE = 30.0  # seconds between two tries
AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # statuses after which another try may help
BUSY = (429, 503)  # of these one whose engine has too much to do, or is not ready yet
SAMPLING = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}  # else engines take their or the model's own defaults
TELLING = {"logprobs": 1, "return_token_ids": True, "add_special_tokens": False}


class Way(NamedTuple):
    """A way to ask: whether the prompt is a text, and which fields are sent that OpenAI's interface does not know."""

    as_text: bool
    fields: Literal["vllm", "transformers", "none"]


# From the fullest to the plainest: vLLM and llama.cpp take the first one, transformers serve the fourth.
WAYS = (Way(False, "vllm"), Way(False, "none"), Way(True, "vllm"), Way(True, "transformers"), Way(True, "none"))


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine is and how it is asked.

    Args:
        url: of its root, ``http://host:port``, with or without ``/v1``.
        model: what it calls the model; None: the only one it has.
        key: sent as a bearer token, where there is one.
        parallel: requests at once.
        timeout: seconds that one request may take. One that takes longer is not made again: it would take as long.
        retries: how often a request is tried again.

    Raises:
        InputError: a URL that is none, or a number out of bounds.
    """

    url: str
    model: str | None = None
    key: str = field(default="", repr=False)
    parallel: int = 8
    timeout: float = 600.0
    retries: int = 4

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
        except ValueError:
            fits = False
        if not fits or "@" in self.url:
            raise InputError(f"The engine's URL is {one_line(self.url)[:80]!r}; http://HOST:PORT is expected.")
        for name, value, least in (
            ("parallel", self.parallel, 1),
            ("timeout", self.timeout, 1),
            ("retries", self.retries, 0),
        ):
            if not least <= value <= 100_000:
                raise InputError(f"The engine's {name} is {value}; choose {least} or more.")

    @property
    def root(self) -> str:
        """The URL under which ``/completions`` is."""
        return f"{self.url.rstrip('/').removesuffix('/v1')}/v1"


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a sample is drawn. ``context``: the longest prompt with its completion, in tokens. ``ends``: the tokens that
    end it, where they are told to an engine that has ends of its own."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    context: int = 2**20
    ends: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """One sample to draw: the prompt's tokens, the number of the sample among those of its problem, and its seed."""

    problem: str
    prompt_ids: tuple[int, ...]
    number: int
    seed: int


class Refused(Exception):
    """The engine refuses a request as it is; ``status``: its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Requests:
    """Requests to one engine for prompts in the tokens of ``encoder``, from several threads.

    Args:
        engine: where it is.
        encoder: the policy's, whose prompts are sent.
        pause: waits so many seconds; for tests.

    Raises:
        EngineError: it does not answer, or has several models and none was named.
    """

    def __init__(self, engine: Engine, encoder: TraceEncoder, pause: Callable[[float], Any] = time.sleep) -> None:
        self.engine, self.encoder, self.pause = engine, encoder, pause
        headers = {"authorization": f"Bearer {engine.key}"} if engine.key else {}
        limits = httpx.Limits(max_connections=engine.parallel + 1)
        self.http = httpx.Client(timeout=engine.timeout, headers=headers, limits=limits, trust_env=False)
        self.stopped = threading.Event()
        self.way = 0  # of WAYS
        self.works = False  # whether a request was answered in this way: then it is not changed
        self.model = self.find_model()

    def find_model(self) -> str:
        """The model that was asked for, or the only one. Raises EngineError."""
        try:
            listed = self.request("GET", "/models", None).get("data")
        except (Refused, httpx.HTTPError, ValueError) as error:
            if isinstance(error, Refused) and self.engine.model is not None:
                return self.engine.model  # it answers, and lists nothing
            raise EngineError(
                f"No engine answers at {self.engine.root}/models ({reason_of(error)}); start one that has OpenAI's "
                "completions, or name its address with --engine"
            ) from None
        listed = listed if isinstance(listed, list) else []
        names: list[str] = [one["id"] for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str)]
        if self.engine.model is not None:  # not every engine lists what it serves
            return self.engine.model
        if len(names) == 1:
            return names[0]
        shown = ", ".join(escaped(name)[:80] for name in names[:8]) or "none are listed"
        raise EngineError(
            f"The engine at {self.engine.url} has {len(names)} models; name one of its own with --engine-model: {shown}"
        )

    def request(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """One request's answer.

        Raises:
            Refused: the engine answers with an error.
            httpx.HTTPError: it does not answer.
            ValueError: its answer is no JSON object, or longer than the limit.
        """
        content = self.content_of(method, path, body)
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise ValueError("an answer that is no JSON") from None
        if not isinstance(document, dict):
            raise ValueError("an answer that is no JSON object")
        return document

    def content_of(self, method: str, path: str, body: Mapping[str, Any] | None) -> bytes:
        """One request's answer as it is; raises as `request`."""
        with self.http.stream(method, f"{self.engine.root}{path}", json=body) as answer:
            content = bytearray()
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise ValueError(f"an answer of more than {MOST_BYTES:,} bytes")
        if answer.status_code != 200:
            raise Refused(answer.status_code, f"status {answer.status_code}: {said_in(bytes(content))}")
        return bytes(content)

    def tell(self, path: str, body: Mapping[str, Any]) -> None:
        """Tell the engine something whose answer says no more than that it was done; raises as `request`."""
        self.content_of("POST", path, body)

    def body_of(self, ask: Ask, drawing: Drawing, way: int) -> dict[str, Any]:
        """The request for one sample, in one of ``WAYS``."""
        as_text, fields = WAYS[way]
        prompt: Any = list(ask.prompt_ids)
        if as_text:
            prompt = self.encoder.tokenizer.decode(prompt, skip_special_tokens=False)
        body = {
            "model": self.model, "prompt": prompt, "max_tokens": drawing.max_new_tokens, "seed": ask.seed,
            "temperature": drawing.temperature, "top_p": drawing.top_p, "stream": False,
        }  # fmt: skip
        if fields == "vllm":
            ends = {"stop_token_ids": list(drawing.ends)} if drawing.ends else {}
            return body | SAMPLING | TELLING | ends
        if fields == "transformers":
            return body | {"generation_config": self.generation_config(drawing)}
        return body

    def generation_config(self, drawing: Drawing) -> str:
        """How transformers draws, in its own words: else it takes the likeliest token, or the model's own settings."""
        ends, pad = list(self.encoder.end_ids), self.encoder.pad_id
        drawn = {"do_sample": True, "top_k": 0, "max_new_tokens": drawing.max_new_tokens}
        return json.dumps(drawn | {"eos_token_id": ends, "pad_token_id": pad})

    @property
    def own_defaults(self) -> bool:
        """Whether the engine may draw by defaults of its own, since it refuses to be told others."""
        return WAYS[self.way].fields == "none"

    def completion(self, ask: Ask, drawing: Drawing) -> dict[str, Any]:
        """The answer to the request for one sample, which is tried again where that can help. An engine that is busy,
        or still loads its model, is waited for as long as a request may take.

        Raises:
            Refused, httpx.HTTPError, ValueError: of the last try.
        """
        number, waited = 0, 0.0
        while True:
            way = self.way
            try:
                answer = self.request("POST", "/completions", self.body_of(ask, drawing, way))
                self.works = True
                return answer
            except (Refused, httpx.HTTPError, ValueError) as error:
                if isinstance(error, Refused) and error.status in (400, 422):
                    if self.works or way == len(WAYS) - 1:
                        raise
                    self.way = max(self.way, way + 1)
                    continue
                helps = (
                    error.status in AGAIN if isinstance(error, Refused) else not isinstance(error, httpx.ReadTimeout)
                )
                busy = isinstance(error, Refused) and error.status in BUSY and waited < self.engine.timeout
                if not helps or (number >= self.engine.retries and not busy) or self.stopped.is_set():
                    raise
            seconds = min(LONGEST_PAUSE, 0.5 * 2 ** min(number, 8) * (1 + random.random() / 4))
            self.pause(seconds)
            number, waited = number + 1, waited + seconds


def said_in(content: bytes) -> str:
    """The message of an error's body, in one short line."""
    text = content[:2000].decode("utf-8", "replace")
    try:
        document = json.loads(text)
        error = document.get("error", document.get("detail", document))
        text = error.get("message", text) if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    return escaped(one_line(str(text)))[:200]


def reason_of(error: Exception) -> str:
    """Why a request failed, in words."""
    if isinstance(error, httpx.TimeoutException):
        return "it took longer than the timeout"
    if isinstance(error, Refused | ValueError):
        return str(error)
    return f"{type(error).__name__}: {one_line(str(error))[:120]}".rstrip(": ")
