"""A trace of a scored run as the Inspect page shows it: nothing is computed anew, no model runs. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.inspect.request import Inspection, Request
from irl_core.storage.schema import localisation_of, scored_of

SCORE: Final = "mean_discounted"


def inspection_of(row: Mapping[str, Any], run: str) -> Inspection | None:
    """The inspection that a row of the run holds; None where no discriminator has read the trace."""
    if row["prompt_reward"] is None:
        return None
    return Inspection(
        Request(row["problem"], row["text"], row["reference_answer"] or ""),
        row["checkpoint"],
        "",
        SCORE,
        (scored_of(row),),
        (localisation_of(row),),
        run=run,
    )
