"""Plotly figures of evaluated runs and trainings, each with a table of the same values. Knows no streamlit.

``theme`` is ``light`` or ``dark``. Colours are those of Okabe and Ito, and never the only sign: runs differ in their
dash, classes and ways in their marker too. A point that is a trace has ``[run, trace id]`` as its customdata.
"""

from app.charts.figures import (
    correlation_matrix,
    correlation_matrix_table,
    distance,
    distance_table,
    kinds,
    kinds_table,
    localisation,
    localisation_table,
    pass_at_k,
    pass_at_k_table,
    probes,
    probes_table,
    reliability,
    reliability_table,
    reranking,
    reranking_table,
    training,
    training_table,
)
from app.charts.traces import (
    MOST_POINTS,
    histogram,
    histogram_table,
    scatter,
    scatter_table,
    strip,
    strip_table,
    title_of,
)

__all__ = [
    "MOST_POINTS",
    "correlation_matrix",
    "correlation_matrix_table",
    "distance",
    "distance_table",
    "histogram",
    "histogram_table",
    "kinds",
    "kinds_table",
    "localisation",
    "localisation_table",
    "pass_at_k",
    "pass_at_k_table",
    "probes",
    "probes_table",
    "reliability",
    "reliability_table",
    "reranking",
    "reranking_table",
    "scatter",
    "scatter_table",
    "strip",
    "strip_table",
    "title_of",
    "training",
    "training_table",
]
