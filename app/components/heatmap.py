"""The heatmap as a Streamlit component: the data travels as JSON, the markup is built by the shared renderer."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from irl_core.report.heatmap.payload import Description, Settings, renderer_source, stylesheet
from irl_core.report.inspection_json import InspectedTrace

MOUNT = """
export default function (component) {
  const { parentElement, data, setTriggerValue } = component;
  renderHeatmap(parentElement, data, data.pickable ? (token) => setTriggerValue("token", token) : null);
}
"""


def heatmap(
    trace: InspectedTrace,
    description: Description,
    settings: Settings,
    *,
    key: str,
    picked: int | None = None,
    pick: Callable[[int], None] | None = None,
) -> None:
    """Draw one trace with what is said of it.

    ``pick``: called with the number of a token that is chosen by click or by Enter; ``picked``: the one that is.
    """
    draw = st.components.v2.component("irl_lens_heatmap", css=stylesheet(), js=renderer_source() + MOUNT)
    data = {**settings, **description, "trace": trace, "picked": picked, "pickable": pick is not None}
    if pick is None:
        draw(data=data, key=key)
        return

    def take() -> None:
        token = st.session_state[key].get("token")
        if isinstance(token, int) and 0 <= token < len(trace["tokens"]):  # a browser may send what it likes
            pick(token)

    draw(data=data, key=key, on_token_change=take)
