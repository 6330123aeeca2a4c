"""A scored run as a source of traces: labels, steps and right answers travel on to the next checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from irl_core.data.fields import FieldError
from irl_core.data.formats import detect_format, read
from irl_core.data.scored_rows import read_scored
from irl_core.storage.rows import trace_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "scored_run.parquet"


def test_the_traces_of_a_scored_run_are_read_again_with_all_that_is_known_of_them() -> None:
    assert detect_format(GOLDEN) == "scored-run"
    rows = pq.read_table(GOLDEN).to_pylist()
    found = list(read(GOLDEN))
    # the tokens are those of the checkpoint that scored it: another one has its own
    assert found == [replace(trace_of(row), token_ids=None, logprobs=None) for row in rows]
    assert any(trace.truth is not None and trace.truth.first_error_step is not None for trace in found)
    assert any(trace.reference_answer is not None for trace in found)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"true_first_error_step": "1"}, "true_first_error_step"),
        ({"true_first_error_step": -2}, "true_first_error_step"),
        ({"steps": [{"start": 0, "end": 10**6, "role": "reasoning"}]}, "steps"),
        ({"correct": "yes"}, "correct"),
        ({"text": None}, "text"),
    ],
)
def test_a_row_that_is_none_names_its_field(changes: dict[str, object], field: str) -> None:
    row = pq.read_table(GOLDEN).to_pylist()[0] | changes
    with pytest.raises(FieldError) as caught:
        read_scored(row)
    assert caught.value.field == field
