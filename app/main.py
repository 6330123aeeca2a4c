"""The app: its pages and its sidebar. ``streamlit run app/main.py``."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import sidebar, state

VIEWS = Path(__file__).resolve().parent / "views"

st.set_page_config(page_title="irl-lens", page_icon=":material/center_focus_strong:", layout="wide")
page = st.navigation([st.Page(VIEWS / "inspect.py", title="Inspect", icon=":material/search:", default=True)])
state.prepare()
with st.sidebar:
    sidebar.show()
page.run()
