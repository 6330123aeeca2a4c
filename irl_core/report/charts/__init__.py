"""Plotly charts of evaluations and training runs. Knows no streamlit.

``theme`` is ``light`` or ``dark``. Colours are those of Okabe and Ito, and never the only sign: runs differ in their
dash, classes and ways in their marker too. A point that is a trace has ``[run, trace id]`` as its customdata.
"""
