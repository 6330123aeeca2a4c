"""An Enter that follows a choice at once is kept until the choice is drawn: on a slow machine it would be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

SOURCE: Final = Path(__file__).with_name("enter.js")


def keep_enter() -> None:
    """Keep an early Enter for the button that saves. The script is ours, and holds nothing of others."""
    st.html(f"<script>{SOURCE.read_text(encoding='utf-8')}</script>", unsafe_allow_javascript=True)
