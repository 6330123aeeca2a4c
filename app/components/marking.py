"""A solution's steps as plain text in which the wrong words are marked by selecting them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import streamlit as st

from irl_core.storage.schema import ScoredRow
from irl_core.types import Span

SOURCE: Final = Path(__file__).with_name("marking.js")


def marking(
    row: ScoredRow, names: Sequence[str], marked: Span | None, mark: Callable[[Span], None], *, key: str
) -> None:
    """Draw the steps of a row; nothing of a model is sent along.

    Args:
        row: of the trace.
        names: what its steps are called.
        marked: the characters that are marked now; None for none.
        mark: called with the characters that are chosen, which lie in one step.
        key: of the component.
    """
    text = row["text"]

    def take() -> None:
        span = span_of(st.session_state[key].get("marked"), text)
        if span is not None:
            mark(span)

    # its words are selected as any text of the page: within a shadow tree browsers do not agree on what is selected
    draw = st.components.v2.component("irl_lens_marking", js=SOURCE.read_text(encoding="utf-8"), isolate_styles=False)
    steps = [
        {"start": step["start"], "end": step["end"], "name": name}
        for step, name in zip(row["steps"], names, strict=True)
    ]
    draw(data={"text": text, "steps": steps, "marked": marked}, key=key, on_marked_change=take)


def span_of(sent: object, text: str) -> Span | None:
    """What a browser sent as characters of a text; None where it is none: a browser may send what it likes."""
    if not isinstance(sent, list) or len(sent) != 2:
        return None
    start, end = sent
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        return None
    return start, end
