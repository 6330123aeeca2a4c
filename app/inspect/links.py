"""The permanent link: what the Inspect page shows, as query parameters, and back again.

Anyone can write a link: everything in it is checked, and a text never grows beyond its limit while it is unpacked.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from app.inspect.steps import fits
from irl_core.errors import UserError
from irl_core.report.heatmap.payload import VIEWS
from irl_core.scorer import MAX_SAMPLES
from irl_core.strategies import STRATEGIES
from irl_core.types import Span

MAX_LINK: Final = 6000
MAX_TEXT: Final = 20_000


class LinkError(UserError, ValueError):
    """A link that is not readable, or a page too large for one; the message is shown as it is."""


@dataclass(frozen=True, slots=True)
class Link:
    """The state of the page. ``chosen`` and ``versus`` are 0-based traces; ``versus`` -1 is none."""

    problem: str
    solution: str = ""
    answer: str = ""
    checkpoint: str = ""
    n: int = 8
    seed: int = 0
    temperature: float = 1.0
    view: str = "credit"
    gamma: float = 0.9
    chosen: int = 0
    versus: int = -1
    steps: tuple[Span, ...] = ()
    way: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """The link to a trace of a scored run, which is shown as it was scored."""

    run: str
    trace_id: str


def to_trace(run: str, trace_id: str) -> str:
    """The address of a stored trace on the Inspect page. Raises LinkError where it would be too long to be read."""
    address = f"/?{urlencode({'run': run, 'trace': trace_id})}"
    if len(run) + len(trace_id) + len("runtrace") > MAX_LINK:
        raise LinkError(f"The solution's id is too long for a link: the limit is {MAX_LINK:,} characters.")
    return address


def read_stored(parameters: Mapping[str, str]) -> Stored | None:
    """The stored trace in the query parameters, or None. Raises LinkError for a link that is not readable."""
    if "run" not in parameters and "trace" not in parameters:
        return None
    check_length(parameters)
    if not parameters.get("run") or not parameters.get("trace"):
        raise LinkError("Not found: this link names a run without a solution, or a solution without its run.")
    return Stored(parameters["run"], parameters["trace"])


def write(link: Link) -> dict[str, str]:
    """The query parameters of ``link``. Raises LinkError when they are longer than MAX_LINK characters."""
    parameters = {name: pack(getattr(link, name)) for name in ("problem", "solution", "answer", "checkpoint")}
    parameters |= {name: str(getattr(link, name)) for name in ("n", "seed", "view", "chosen")}
    parameters |= {"temperature": f"{link.temperature:g}", "gamma": f"{link.gamma:g}"}
    if link.versus >= 0:
        parameters["versus"] = str(link.versus)
    parameters["steps"] = ".".join(str(end) for span in link.steps for end in span)
    parameters["way"] = link.way
    parameters = {name: value for name, value in parameters.items() if value}
    size = sum(len(name) + len(value) + 2 for name, value in parameters.items())
    if size > MAX_LINK:
        raise LinkError(f"Too long for a link: {size:,} characters, the limit is {MAX_LINK:,}. Send the HTML export.")
    return parameters


def read(parameters: Mapping[str, str]) -> Link | None:
    """The link in the query parameters, or None where there is none. Raises LinkError for one that is not readable."""
    if not parameters:
        return None
    check_length(parameters)
    try:
        texts = {name: unpack(parameters.get(name, "")) for name in ("solution", "answer", "checkpoint")}
        link = Link(
            problem=unpack(parameters["problem"]),
            **texts,
            n=int(number(parameters, "n", 8, 1, MAX_SAMPLES, int)),
            seed=int(number(parameters, "seed", 0, 0, 2**31 - 1, int)),
            temperature=number(parameters, "temperature", 1.0, 0.1, 2.0),
            view=parameters.get("view", "credit"),
            gamma=number(parameters, "gamma", 0.9, 0.0, 1.0),
            chosen=int(number(parameters, "chosen", 0, 0, MAX_SAMPLES - 1, int)),
            versus=int(number(parameters, "versus", -1, -1, MAX_SAMPLES - 1, int)),
            steps=spans_of(parameters.get("steps", "")),
            way=parameters.get("way", ""),
        )
        if link.steps and not fits(link.solution, link.steps):
            raise ValueError("steps")
        if link.way and link.way not in STRATEGIES:
            raise ValueError("way")
        if link.view not in VIEWS or not link.problem.strip():
            raise ValueError("view or problem")
    except (KeyError, ValueError, zlib.error, binascii.Error) as error:
        raise LinkError("This link is not readable: it is damaged, or not one of this page.") from error
    return link


def check_length(parameters: Mapping[str, str]) -> None:
    """Raise LinkError where the query parameters are longer than any link of this page."""
    if sum(len(name) + len(value) for name, value in parameters.items()) > MAX_LINK:
        raise LinkError(f"This link is not readable: it is longer than {MAX_LINK:,} characters.")


def number(
    parameters: Mapping[str, str],
    name: str,
    default: float,
    low: float,
    high: float,
    kind: Callable[[str], float] = float,
) -> float:
    """The number of that name, read by ``kind``. Raises ValueError outside ``low`` to ``high``, and for NaN."""
    value = kind(parameters[name]) if name in parameters else default
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, outside {low} to {high}")
    return value


def spans_of(said: str) -> tuple[Span, ...]:
    """The spans in '0.12.13.40'. Raises ValueError for anything else."""
    ends = [int(part) for part in said.split(".")] if said else []
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def pack(text: str) -> str:
    """``text`` compressed, in letters that need no escaping in an address; empty for an empty text."""
    if not text:
        return ""
    return base64.urlsafe_b64encode(zlib.compress(text.encode("utf-8"), 9)).decode("ascii").rstrip("=")


def unpack(packed: str) -> str:
    """The text that ``pack`` was given. Raises ValueError or zlib.error for anything else, or beyond MAX_TEXT."""
    if not packed:
        return ""
    data = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    stream = zlib.decompressobj()
    raw = stream.decompress(data, 4 * MAX_TEXT + 1)
    text = raw.decode("utf-8")
    if not stream.eof or stream.unused_data or len(text) > MAX_TEXT:
        raise ValueError(f"more than {MAX_TEXT} characters, or not the whole text")
    return text
