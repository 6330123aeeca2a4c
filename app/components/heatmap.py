"""The heatmap as a Streamlit component: the data travels as JSON, the markup is built by the shared renderer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from irl_core.report.heatmap.payload import renderer_source, stylesheet

_MOUNT = "\nexport default function (component) { renderHeatmap(component.parentElement, component.data); }\n"


def heatmap(data: Mapping[str, Any], *, key: str) -> None:
    """Draw one trace. ``data``: ``payload.settings`` and ``payload.describe`` with the trace under ``trace``."""
    _component()(data=dict(data), key=key)


def _component() -> Any:
    return st.components.v2.component("irl_lens_heatmap", css=stylesheet(), js=renderer_source() + _MOUNT)
