"""The app: its pages and its sidebar. ``streamlit run app/main.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import streamlit as st

from app import sidebar, upload_limits
from app.inspect import session

HERE = Path(__file__).resolve().parent
PAGES: Final = {
    "inspect": ("Inspect", ":material/search:"),
    "failures": ("Failures", ":material/fact_check:"),
    "distributions": ("Distributions", ":material/bar_chart:"),
    "correlations": ("Correlations", ":material/scatter_plot:"),
    "reranking": ("Reranking", ":material/sort:"),
    "training": ("Training curves", ":material/show_chart:"),
    "runs": ("Runs", ":material/table_rows:"),
    "upload": ("Upload", ":material/upload_file:"),
}

upload_limits.limit_uploads()
st.set_page_config(page_title="irl-lens", page_icon=str(HERE / "icon.svg"), layout="wide")
ROOM = """<style>
[data-testid=stMainBlockContainer] { padding: 3.5rem 1.5rem 4rem; }
[data-testid=stMain] h2 { font-size: 1.5rem; padding: 0 0 0.5rem; }
@media (min-width: 768px) { [data-testid=stMainBlockContainer] { padding: 1.25rem 2.5rem 3rem; } }
</style>"""  # less air, more text
page = st.navigation(
    [
        st.Page(HERE / "views" / f"{name}.py", title=title, icon=icon, default=name == "inspect")
        for name, (title, icon) in PAGES.items()
    ]
)
st.html(ROOM)
session.prepare()
with st.sidebar:
    sidebar.show()
session.settle_example()
page.run()
