"""Agreement of annotators, and the exchange of annotations as a file, for the Failures page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from app import access
from app.analysis import failures, judgements
from app.analysis.catalogue import RunInfo
from app.components import chart
from app.components.markdown import plain
from irl_core.data.annotations import Annotation, Annotations, from_jsonl, to_jsonl
from irl_core.errors import AnnotationError


def show_agreement(info: RunInfo, annotations: Sequence[Annotation]) -> None:
    """How far annotators agree with each other, and with the model."""
    import pandas as pd

    with st.expander("Agreement between annotators, and with the model", icon=":material/handshake:"):
        pairs = judgements.agreements(info, annotations)
        if not pairs:
            st.caption("No solution was judged twice, and none of this run blindly.")
            return
        st.markdown("  \n".join(map(plain, judgements.not_computed(pairs))))
        rows = judgements.agreement_rows(pairs)
        if not rows:
            return
        chart.show_table(pd.DataFrame(rows), "agreement")
        st.caption(
            "Cohen's kappa: 1 is full agreement, 0 what chance gives. Brackets: 95 % intervals by a bootstrap over "
            "problems. Only blind annotations are compared with the model; of an annotator's answers on a text the "
            "newest blind one counts, and where none is blind the newest."
        )


def exchange(annotations: Sequence[Annotation]) -> None:
    """Export and import of annotations."""
    with st.expander("Export and import annotations", icon=":material/swap_vert:"):
        st.download_button(
            f"JSONL of all {len(annotations):,} annotations", partial(to_jsonl, annotations), "annotations.jsonl",
            "application/x-ndjson", on_click="ignore", icon=":material/download:",
        )  # fmt: skip
        if why := access.reason("annotate"):
            st.caption(plain(why))
            return
        given = st.file_uploader("Import JSONL; what is there already is passed over", type=["jsonl"], key="import")
        if given is None or not st.button("Import"):
            return
        try:
            rows = from_jsonl(given.getvalue().decode("utf-8"))
            who = access.writer("annotate", st.session_state["annotator"])
            new = Annotations(failures.DATABASE).add_all(rows, importer=who)
        except UnicodeDecodeError:
            st.error("Nothing was imported: the file is not UTF-8 text.")
        except (AnnotationError, access.NotAllowedError) as error:
            st.error(plain(f"Nothing was imported: {error}"))
        else:
            st.success(f"{new:,} of {len(rows):,} annotations were new.")
