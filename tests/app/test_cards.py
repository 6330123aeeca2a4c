"""Tables that a narrow screen has as cards: the same rows, and a list to choose from."""

from __future__ import annotations

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler
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


def test_negative_numbers_have_a_true_minus_in_the_table_and_on_the_cards() -> None:
    """Streamlit's own formats write a hyphen."""
    frame = pd.DataFrame({"score": [-0.5, float("nan"), 1.25], "change": [-1e-5, 2.0, 3.0], "plain": [1.0, 2.0, 3.0]})
    number = st.column_config.NumberColumn
    columns = {
        "score": number("the score", format="%.2f"),
        "change": number(format="%+.4g"),
        "plain": number(format="%.1f"),
    }
    styled, config = cards.with_minus(frame, columns)
    assert isinstance(styled, Styler)
    assert config["score"]["label"] == "the score" and config["score"]["type_config"]["format"] is None
    drawn = styled.to_html()
    assert all(f">{words}<" in drawn for words in ("\u22120.50", "\u22121e\u221205", "1.25", "+2"))
    shown = cards.html(frame, "Scores", columns)
    assert "\u22120.50" in shown and "\u22121e\u221205" in shown and "-0.5" not in shown


def test_a_large_table_is_not_written_out() -> None:
    frame = pd.DataFrame({"score": [-0.5] * (cards.MOST_STYLED + 1)})
    drawn, _ = cards.with_minus(frame, {"score": st.column_config.NumberColumn(format="%.2f")})
    assert drawn is frame
