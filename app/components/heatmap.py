"""The heatmap as a Streamlit component: the data travels as JSON, the markup is built by the shared renderer."""

from __future__ import annotations

import streamlit as st

from irl_core.report.heatmap.payload import Description, Settings, renderer_source, stylesheet
from irl_core.report.inspection_json import InspectedTrace

MOUNT = "\nexport default function (component) { renderHeatmap(component.parentElement, component.data); }\n"


def heatmap(trace: InspectedTrace, description: Description, settings: Settings, *, key: str) -> None:
    """Draw one trace with what is said of it."""
    draw = st.components.v2.component("irl_lens_heatmap", css=stylesheet(), js=renderer_source() + MOUNT)
    draw(data={**settings, **description, "trace": trace}, key=key)
