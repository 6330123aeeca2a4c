"""The app: its pages and its sidebar. ``streamlit run app/main.py``."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import sidebar, state

HERE = Path(__file__).resolve().parent

st.set_page_config(page_title="irl-lens", page_icon=str(HERE / "icon.svg"), layout="wide")
page = st.navigation([st.Page(HERE / "views" / "inspect.py", title="Inspect", default=True)])
state.prepare()
with st.sidebar:
    sidebar.show()
page.run()
