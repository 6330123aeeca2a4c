"""The app: its pages and its sidebar. ``streamlit run app/main.py``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Final

import streamlit as st

from app import sidebar, upload_limits
from app.components import frame
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

# what a page draws with: loading it takes seconds the first time, which is said
CHARTS: Final = ("irl_core.evaluation.report", "irl_core.report.charts.evaluation", "irl_core.report.charts.traces")
NEEDED: Final = {"Distributions": CHARTS, "Correlations": CHARTS, "Reranking": CHARTS}

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
frame.draw(page.title)
session.prepare()
with st.sidebar:
    sidebar.show()
    frame.keep_keys()
session.settle_example()
if missing := [name for name in NEEDED.get(page.title, ()) if name not in sys.modules]:
    with st.spinner(f"Loading what {page.title} is drawn with, once after a start \u2026"):
        for name in missing:
            importlib.import_module(name)
page.run()
