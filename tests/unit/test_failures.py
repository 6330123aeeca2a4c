"""What the Failures page reads of a run: filters as a plain loop has them, and only what a blind eye may see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.analysis import catalogue, failures
from app.analysis.failures import Query
from irl_core.data.annotations import text_hash
from irl_core.errors import AnnotationError
from irl_core.storage.schema import COLUMNS
from irl_core.storage.scored_run import write_run

KINDS = ("slip", "skip", None)


def rows() -> list[dict[str, Any]]:
    """60 traces of 12 problems: every third is correct, every fifth not judged."""
    return [
        dict.fromkeys(COLUMNS.names) | {
            "trace_id": f"t{i}", "problem_id": f"p{i % 12}", "problem": f"Problem {i % 12}?",
            "text": f"So {i}.\nDone {i}",
            "correct": None if i % 5 == 0 else i % 3 == 0, "kind": KINDS[i % 3],
            "decision": ("error", "no_error", "uncertain")[i % 3], "predicted_step": i % 4 if i % 3 == 0 else None,
            "true_first_error_step": i % 4 - 1, "confidence": 0.5, "score_mean_discounted": float(i % 7),
            "length": i, "n_steps": 2, "answer": str(i), "prompt_reward": 0.0,
        }
        for i in range(60)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> catalogue.RunInfo:
    path = tmp_path_factory.mktemp("failures") / "run.parquet"
    write_run(path, rows(), {})
    return catalogue.catalogue([path.parent])[0]


@pytest.mark.parametrize(
    ("query", "keep"),
    [
        (Query(), lambda row: row["correct"] is False),
        (Query("correct"), lambda row: row["correct"] is True),
        (Query("not judged"), lambda row: row["correct"] is None),
        (Query("all", kinds=("slip",)), lambda row: row["kind"] == "slip"),
        (Query("all", decisions=("error", "uncertain")), lambda row: row["decision"] != "no_error"),
        (Query("all", true_steps=(-1, 2)), lambda row: row["true_first_error_step"] in (-1, 2)),
        (Query("all", predicted_steps=(0,)), lambda row: row["predicted_step"] == 0),
        (Query("all", scores=(2.0, 3.0)), lambda row: 2 <= row["score_mean_discounted"] <= 3),
        (Query("all", words=" dONE 1 "), lambda row: "Done 1" in row["text"]),
        (Query("all", words="t59"), lambda row: row["trace_id"] == "t59"),
        (Query("all", words="Problem 3?"), lambda row: row["problem_id"] == "p3"),
        (Query(kinds=("slip", "skip"), words="5"), lambda row: row["correct"] is False and row["kind"] is not None
         and any("5" in row[name] for name in ("problem", "text", "trace_id"))),
    ],
)  # fmt: skip
def test_filters_are_those_of_a_plain_loop(info: catalogue.RunInfo, query: Query, keep: Any) -> None:
    expected = [number for number, row in enumerate(rows()) if keep(row)]
    assert failures.numbers(info, catalogue.index(info), query) == expected


def test_it_is_sorted_and_a_filter_says_what_it_tells(info: catalogue.RunInfo) -> None:
    table = catalogue.index(info)
    found = failures.numbers(info, table, Query("all", sort="score_mean_discounted", descending=True))
    assert found == sorted(range(60), key=lambda i: (-(i % 7), i))
    assert not Query(words="x", sort="length").telling
    for query in (Query(kinds=("slip",)), Query(scores=(0, 1)), Query(sort="confidence"), Query(true_steps=(0,))):
        assert query.telling


def test_a_listing_finds_its_trace_wherever_a_sort_has_put_it(info: catalogue.RunInfo) -> None:
    table = catalogue.index(info)
    listing = failures.Listing.at_trace(info, table, [7, 3, 59], "t3")
    assert (listing.place, listing.trace_id(listing.place), listing.is_last) == (1, "t3", False)
    assert failures.Listing.at_trace(info, table, [7, 3, 59], "t59").is_last
    for elsewhere in ("t4", "no such trace", None):  # filtered out, or not of this run
        assert failures.Listing.at_trace(info, table, [7, 3, 59], elsewhere).place == 0


def test_choices_are_the_values_that_occur(info: catalogue.RunInfo) -> None:
    found = failures.choices(catalogue.index(info))
    assert (found.kinds, found.decisions) == (("skip", "slip"), ("error", "no_error", "uncertain"))
    assert (found.true_steps, found.predicted_steps, found.scores) == ((-1, 0, 1, 2), (0, 1, 2, 3), (0.0, 6.0))


def test_a_blind_eye_sees_nothing_telling(info: catalogue.RunInfo) -> None:
    blind = failures.table_rows(info, [3, 1], telling=False)
    assert blind["trace_id"].tolist() == ["t3", "t1"]
    assert not {"kind", "decision", "predicted_step", "true_first_error_step", "confidence"} & set(blind.columns)
    assert not [name for name in blind.columns if name.startswith("score")]
    telling = failures.table_rows(info, [3, 1], telling=True)
    assert telling["predicted_step"].tolist() == ["step 4", ""]
    assert telling["true_first_error_step"].tolist() == ["step 3", "step 1"]
    assert failures.step_words(-1) == "none" and failures.step_words(None) == ""


def test_the_best_correct_sample_is_of_the_same_problem(info: catalogue.RunInfo) -> None:
    table = catalogue.index(info)
    # of problem p3 (t3, t15, t27, t39, t51) all but t15 (not judged) are correct; scores 3, 6, 4, 2
    best = failures.best_correct(info, table, "p3", but="t3")
    assert best is not None and (best.trace_id, best.score) == ("t27", 6.0)
    other = failures.best_correct(info, table, "p3", but="t27")
    assert other is not None and other.trace_id == "t39"
    assert failures.best_correct(info, table, "p1", but="x") is None


def test_an_annotation_names_the_very_text(info: catalogue.RunInfo) -> None:
    row = rows()[7]
    one = failures.annotation(row, "run", "ann", "1", category="arithmetic", note="n", blind=True)
    assert (one.trace_id, one.step, one.verdict, one.label) == ("t7", 1, "error", "step 2")
    assert one.text_sha256 == text_hash(row["problem"], row["text"])
    sound = failures.annotation(row, "run", "ann", "none", category="arithmetic", note="", blind=False)
    assert (sound.verdict, sound.step, sound.category) == ("none", None, "")
    with pytest.raises(AnnotationError, match="annotator is empty"):
        failures.annotation(row, "run", "", "unsure", category="", note="", blind=True)


def test_the_model_is_read_only_where_people_judged(info: catalogue.RunInfo) -> None:
    found = rows()
    said = [failures.annotation(found[i], "run", "a", "none", category="", note="", blind=True) for i in (0, 1, 2)]
    labels = failures.model_labels(info, said)
    assert [labels[one.text_sha256] for one in said] == ["step 1", "none", "unsure"]
    assert len(labels) == 3 and failures.model_labels(info, []) == {}
    assert failures.model_words(found[3]) == "The model: first error in step 4, confidence 50%."
    assert failures.model_words(dict(found[3], decision=None)) == "No discriminator has read this trace."


def test_the_database_is_among_the_runs() -> None:
    assert Path("runs", "annotations.sqlite") == failures.DATABASE
