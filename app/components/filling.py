"""Values that a callback writes into fields, kept until the fields were drawn with them.

A run of a page that is ended before it has drawn a field (another click, while models run) leaves the browser with the
field's old value, which the browser sends with the next run: what the callback wrote would be undone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import streamlit as st

STATE: Final = "fills"


def fill(**values: Any) -> None:
    """Write values into fields, by their keys; called in a callback, or before the fields are drawn."""
    st.session_state.setdefault(STATE, {}).update(values)
    st.session_state.update(values)


def refill(names: Collection[str]) -> None:
    """Before these fields are drawn: what was written into them, and not drawn since, is written again."""
    waiting: dict[str, Any] = st.session_state.get(STATE, {})
    st.session_state.update({name: value for name, value in waiting.items() if name in names})


def filled(names: Collection[str]) -> None:
    """After these fields were drawn: what was written into them has reached the browser."""
    waiting: dict[str, Any] = st.session_state.get(STATE, {})
    for name in names:
        waiting.pop(name, None)
