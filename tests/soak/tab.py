"""A tab of the app without a browser: Streamlit's own messages over its websocket, and what they draw."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from google.protobuf.message import Message
from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

MOST_SECONDS = 1800.0  # for what is asked for to be drawn
MOST_OPENING = 120.0
Result = TypeVar("Result")
ONE_LOOP = threading.Lock()  # the first tabs are opened by many threads at once


class TabError(Exception):
    """The server did not draw what was asked for; the message says what came instead."""


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop of all tabs, in a thread of its own: it answers the server's pings, as a browser does."""
    found = asyncio.new_event_loop()
    threading.Thread(target=found.run_forever, daemon=True).start()
    return found


def done(call: Coroutine[Any, Any, Result]) -> Result:
    """What a call of the loop gives, when it is done."""
    with ONE_LOOP:
        running = loop()
    return asyncio.run_coroutine_threadsafe(call, running).result()


@dataclass(slots=True)
class Drawn:
    """What a run of the page drew.

    Attributes:
        elements: by their place: the kind of each, such as ``button``, and itself.
        said: every text of a progress bar, in the order they were shown.
    """

    elements: dict[tuple[int, ...], tuple[str, Message]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Message]:
        """The elements of a kind, from top to bottom."""
        return [element for _, (known, element) in sorted(self.elements.items()) if known == kind]

    @property
    def texts(self) -> list[str]:
        """The words of captions, texts, headings and messages, without the signs that keep them from being markup."""
        kinds = ("markdown", "text", "heading", "alert")
        return [element.body.replace("\\", "") for kind in kinds for element in self.of(kind)]  # type: ignore[attr-defined]

    @property
    def faults(self) -> list[str]:
        """The errors that the page shows."""
        errors = [one.body for one in self.of("alert") if one.format == Alert.ERROR]  # type: ignore[attr-defined]
        return errors + [f"exception {one.type}: {one.message}" for one in self.of("exception")]  # type: ignore[attr-defined]

    def named(self, label: str) -> Message:
        """The widget of that label. Raises TabError where there is none."""
        for _, element in self.elements.values():
            if getattr(element, "label", None) == label:
                return element
        raise TabError(f"no widget is called {label}; the page says {self.texts[:12]}")


class Tab:
    """An open tab: a session of the server.

    Args:
        address: of the server, such as ``http://127.0.0.1:8501``.
        cookies: the header of that name, as a browser that is logged in sends it.
        xsrf: the token that has to come with such cookies.
        host: where another name than that of the address is asked for.
        source: the address of this machine that it comes from.
        trust: whose certificates are believed.
    """

    def __init__(
        self, address: str, *, cookies: str = "", xsrf: str = "", origin: str = "", host: str = "", source: str = "",
        trust: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.address, self.session, self.page = address, "", ""
        self.pages: dict[str, str] = {}
        self.drawn = Drawn()
        place = urlsplit(address)
        secure = place.scheme == "https"
        kept = {"Cookie": cookies} if cookies else {}
        port = place.port or (443 if secure else 80)
        known = socket.create_connection((place.hostname, port), 60, (source, 0) if source else None)
        known.setblocking(False)
        self.connecting = connect(
            f"{'wss' if secure else 'ws'}://{host or place.netloc}/_stcore/stream",
            sock=known,
            server_hostname=place.hostname if secure else None,
            origin=Origin(origin or address),
            subprotocols=[Subprotocol(name) for name in ("streamlit", xsrf) if name],
            additional_headers=kept,
            ssl=trust if secure else None,
            open_timeout=MOST_OPENING,
            max_size=None,
            compression=None,
        )

    def __enter__(self) -> Tab:
        self.socket: ClientConnection = done(self.connecting.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        done(self.connecting.__aexit__(kind, error, at))

    def open(self, query: str = "", page: str = "") -> Drawn:
        """Look at a page, by its title; nothing for the first one."""
        return self.run(query=query, page=page)

    def press(self, button: str, **filled: str | float) -> Drawn:
        """Press a button, by its label, after widgets were filled in: their labels with what is put there."""
        return self.run(button=button, filled=filled)

    def run(
        self, *, query: str = "", page: str = "", button: str = "", filled: dict[str, str | float] | None = None
    ) -> Drawn:
        """Have the page run, and wait for what it draws. Raises TabError where it does not."""
        self.ask(query=query, page=page, button=button, filled=filled)
        return self.wait()

    def ask(
        self, *, query: str = "", page: str = "", button: str = "", filled: dict[str, str | float] | None = None
    ) -> None:
        """Send what is to be run, and wait for nothing."""
        message = BackMsg()
        state = message.rerun_script
        state.query_string = query
        state.context_info.url = self.address
        state.page_script_hash = self.page = self.pages[page] if page else self.page
        for label, value in (filled or {}).items():
            widget = state.widget_states.widgets.add(id=self.drawn.named(label).id)  # type: ignore[attr-defined]
            if isinstance(value, str):
                widget.string_value = value
            else:
                widget.double_array_value.data.append(value)
        if button:
            state.widget_states.widgets.add(id=self.drawn.named(button).id, trigger_value=True)  # type: ignore[attr-defined]
        done(self.socket.send(message.SerializeToString()))

    def wait(self) -> Drawn:
        """What the run draws, to its end."""
        until, drawn = time.monotonic() + MOST_SECONDS, Drawn()
        while (left := until - time.monotonic()) > 0:
            try:
                data = done(asyncio.wait_for(self.socket.recv(), left))
            except TimeoutError:
                break
            message = ForwardMsg()
            message.ParseFromString(data)  # type: ignore[arg-type]
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.session = message.new_session.initialize.session_id or self.session
                drawn = Drawn()
            elif kind == "navigation":
                self.pages = {one.page_name: one.page_script_hash for one in message.navigation.app_pages}
            elif kind == "delta":
                draw(drawn, message)
            elif kind == "script_finished" and message.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                self.drawn = drawn
                if message.script_finished != ForwardMsg.FINISHED_SUCCESSFULLY:
                    raise TabError(f"the page ended with {message.script_finished}: {drawn.faults}")
                return drawn
        raise TabError(f"nothing came in {MOST_SECONDS:.0f} s; last seen: {drawn.said[-1:]}")


def draw(drawn: Drawn, message: ForwardMsg) -> None:
    """Put the element of a message into its place."""
    place = tuple(message.metadata.delta_path)
    if message.delta.WhichOneof("type") != "new_element":
        return
    kind = message.delta.new_element.WhichOneof("type") or "empty"
    element = getattr(message.delta.new_element, kind)
    drawn.elements[place] = (kind, element)
    if kind == "progress":
        drawn.said.append(element.text)
