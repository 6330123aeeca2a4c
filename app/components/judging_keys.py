"""Keys that follow each other at once are kept until the page has taken those before: else they would be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

SOURCE: Final = Path(__file__).with_name("judging_keys.js")


def take_keys_in_turn() -> None:
    """Keep early keys for the buttons that they press. The script is ours, and holds nothing of others."""
    st.html(f"<script>{SOURCE.read_text(encoding='utf-8')}</script>", unsafe_allow_javascript=True)
