"""What stands before every request: its number, who may ask, how large it may be, one line of log and the metrics."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from irl_core.errors import InputError
from irl_core.files import escaped
from train.serving.messages import fault
from train.serving.metrics import Metrics

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health",)  # who may ask is not asked there
MOST_BYTES = 4_000_000  # of a request's body
BODY_SECONDS = 30.0  # for the body to come
SHORTEST_TOKEN = 16
REQUEST_ID = re.compile(r"[\w.:-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Who may ask: a name for the sha256 of each token. Without any everybody may."""

    names: Mapping[bytes, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """The tokens of a file, a line ``NAME TOKEN`` each. Raises InputError, which repeats no token."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{escaped(str(path))} cannot be read ({type(error).__name__}).") from None
        names: dict[bytes, str] = {}
        for number, line in enumerate(lines, start=1):
            parts = line.split()
            if not parts or line.startswith("#"):
                continue
            if len(parts) != 2 or len(parts[1]) < SHORTEST_TOKEN:
                raise InputError(
                    f"{escaped(path.name)}, line {number}: 'NAME TOKEN' is expected, the token with {SHORTEST_TOKEN} "
                    "characters at least; 'openssl rand -hex 32' makes one."
                )
            names[hashed(parts[1])] = parts[0]
        if not names:
            raise InputError(f"{escaped(path.name)} has no token, and nobody could ask; write a line 'NAME TOKEN'.")
        return cls(names)

    def who(self, header: str) -> str | None:
        """The name of who sends ``Authorization: Bearer TOKEN``; None where the token is not known."""
        kind, _, token = header.partition(" ")
        if kind.lower() != "bearer":
            return None
        asked = hashed(token.strip())
        return next((name for known, name in self.names.items() if hmac.compare_digest(known, asked)), None)


def hashed(token: str) -> bytes:
    """The sha256 of a token; comparing it takes as long whatever it begins with."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


@dataclass(slots=True)
class Exchange:
    """One request, and what became of it."""

    request_id: str
    path: str
    who: str | None = None
    status: int = 500
    started: bool = False  # whether the answer has begun
    fault: str | None = None  # our own, for the log alone
    seconds: float = 0.0


class Guard:
    """The application with all that stands before it.

    Args:
        app: the application.
        paths: those it knows; any other is counted as ``other``.
        tokens: who may ask.
        metrics: are told of every request.
    """

    def __init__(self, app: App, paths: tuple[str, ...], tokens: Tokens, metrics: Metrics) -> None:
        self.app, self.paths, self.tokens, self.metrics = app, paths, tokens, metrics
        self.log = logging.getLogger("irl_lens.serve")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        exchange = Exchange(given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex, scope["path"])
        scope["state"] = {"request": exchange.request_id}
        began = time.monotonic()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.started, exchange.status = True, message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", exchange.request_id.encode())]
            await send(message)

        try:
            await self.admit(scope, headers, exchange, receive, answer)
        except Exception as error:
            exchange.status, exchange.fault = 500, "".join(traceback.format_exception(error))
        finally:
            exchange.seconds = time.monotonic() - began
            self.note(exchange, scope["state"])

    async def admit(
        self, scope: Message, headers: Mapping[str, str], exchange: Exchange, receive: Receive, answer: Send
    ) -> None:
        """Hand a request on that may be asked, and is no larger than the limit; refuse any other."""
        if self.tokens.names and exchange.path not in OPEN:
            exchange.who = self.tokens.who(headers.get("authorization", ""))
            if exchange.who is None:
                await refuse(answer, 401, "Send 'Authorization: Bearer TOKEN', with a token of this server's")
                return
        read = 0
        too_large = f"The request's body is over {MOST_BYTES:,} bytes; send fewer solutions at once"
        late = f"The request's body did not come within {BODY_SECONDS:.0f} s; send it again"
        if headers.get("content-length", "").isdigit() and int(headers["content-length"][:20]) > MOST_BYTES:
            await refuse(answer, 413, too_large)
            return

        async def bounded() -> Message:
            nonlocal read
            if exchange.started or read < 0:  # what comes now is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_SECONDS)
            except TimeoutError:
                raise HTTPException(408, late) from None
            read += len(message.get("body", b""))
            if read > MOST_BYTES:
                raise HTTPException(413, too_large)
            if not message.get("more_body", False):
                read = -1
            return message

        await self.app(scope, bounded, answer)

    def note(self, exchange: Exchange, state: Mapping[str, Any]) -> None:
        """Count a request, and write its line of log: a JSON object without any text of the request."""
        path = exchange.path if exchange.path in self.paths else "other"
        self.metrics.requests.labels(path, str(exchange.status)).inc()
        self.metrics.seconds.labels(path).observe(exchange.seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": exchange.request_id,
            "who": exchange.who,
            "path": path,
            "status": exchange.status,
            "seconds": round(exchange.seconds, 4),
            **{name: state[name] for name in ("traces", "tokens", "refused") if name in state},
        }
        if exchange.fault is not None:
            self.log.error(json.dumps(line | {"fault": exchange.fault}))
        else:
            self.log.info(json.dumps(line))


async def refuse(send: Send, status: int, message: str) -> None:
    """Answer with a fault."""
    body = json.dumps(fault(message, status)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
