"""The heatmap as a Streamlit component: the data travels as JSON, the markup is built by the shared renderer.

Its colours are chosen in the component, which paints them at once; the page is told of the view and of the discount,
for its link and its files.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import streamlit as st

from irl_core.report.heatmap.payload import VIEWS, Description, Settings, renderer_source, stylesheet
from irl_core.report.inspection_json import InspectedTrace

MOUNT = """
export default function (component) {
  const { parentElement, data, setStateValue, setTriggerValue } = component;
  const pick = data.pickable ? (token) => setTriggerValue("token", token) : null;
  renderInteractive(parentElement, data, setStateValue, pick);
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
    """Draw one trace with what is said of it. A view that is chosen in it becomes the session's ``view``, and a
    discount its ``gamma``.

    ``pick``: called with the number of a token that is chosen by click or by Enter; ``picked``: the one that is.
    """

    def take_view() -> None:
        if (view := st.session_state[key].get("view")) in VIEWS:  # a browser may send what it likes
            st.session_state["view"] = view

    def take_gamma() -> None:
        gamma = st.session_state[key].get("gamma")
        if isinstance(gamma, int | float) and math.isfinite(gamma) and 0 <= gamma <= 1:
            st.session_state["gamma"] = round(float(gamma), 2)

    def take_token() -> None:
        token = st.session_state[key].get("token")
        if pick is not None and isinstance(token, int) and 0 <= token < len(trace["tokens"]):
            pick(token)

    draw = st.components.v2.component("irl_lens_heatmap", css=stylesheet(), js=renderer_source() + MOUNT)
    data = {**settings, **description, "trace": trace, "picked": picked, "pickable": pick is not None}
    draw(data=data, key=key, on_view_change=take_view, on_gamma_change=take_gamma, on_token_change=take_token)
