"""Tables that a narrow screen has as cards: the same rows, and a list to choose from."""

from __future__ import annotations

import pandas as pd
from streamlit.testing.v1 import AppTest

from app.components import cards


def script() -> None:
    import streamlit as st

    from app.components import cards

    rows = [{"name": f"run {n}", "score": n / 4, "note": "<img src=x>" if n == 1 else ""} for n in range(14)]
    column = st.column_config.NumberColumn("the score")
    cards.table(
        rows, "runs", title="Runs", choose=lambda row: st.session_state.update(got=row), columns={"score": column}
    )
    cards.table(rows[:2], "short", title="Two")


def test_every_row_can_be_chosen_from_the_list_below_the_cards() -> None:
    page = AppTest.from_function(script, default_timeout=60).run()
    assert not page.exception and len(page.dataframe) == 2
    (chooser,) = page.selectbox
    assert len(chooser.options) == 14 and chooser.options[1] == "run 1 \u00b7 0.25 \u00b7 <img src=x>"
    chooser.set_value(13).run()
    assert page.session_state["got"] == 13


def test_cards_have_the_labels_of_the_columns_and_no_markup_of_a_cell() -> None:
    frame = pd.DataFrame(
        {"a": ["<b>x</b>"] * 13, "b": [float("nan"), *[0.5] * 12], "c": [pd.Timestamp("2026-12-01")] * 13}
    )
    drawn = cards.html(frame, "Runs", {"b": {"label": "the score"}})
    assert 'data-head="the score"' in drawn and "<b>" not in drawn and "&lt;b&gt;x" in drawn
    assert "2026-12-01 00:00" in drawn and "nan" not in drawn.lower().partition("</style>")[2]
    assert "and 1 more, in a wider window" in drawn
