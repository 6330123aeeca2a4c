"""What the Failures page reads of a run: filters as a plain loop has them, and only what a blind eye may see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.analysis import catalogue, failures, judgements
from app.analysis.failures import Query
from irl_core.data.annotations import Annotation, text_hash
from irl_core.errors import AnnotationError
from irl_core.evaluation.agreement import agreement
from irl_core.storage.run_writer import write_run
from irl_core.storage.schema import COLUMNS

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
            "length": i, "n_steps": 2, "answer": str(i), "prompt_reward": 0.0, "steps": [],
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
        (Query("all", verdicts=("error",)), lambda row: row["decision"] == "error"),
        (Query("all", true_steps=(-1, 2)), lambda row: row["true_first_error_step"] in (-1, 2)),
        (Query("all", verdict_steps=(0,)), lambda row: row["predicted_step"] == 0),
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
    assert failures.numbers(info, catalogue.index(info), query, in_ids=True) == expected


def test_words_are_looked_for_in_ids_where_that_is_asked_for(info: catalogue.RunInfo) -> None:
    assert failures.numbers(info, catalogue.index(info), Query("all", words="t59")) == []


def test_it_is_sorted_and_a_filter_says_what_it_tells(info: catalogue.RunInfo) -> None:
    table = catalogue.index(info)
    found = failures.numbers(info, table, Query("all", sort="score_mean_discounted", descending=True))
    assert found == sorted(range(60), key=lambda i: (-(i % 7), i))
    assert not Query(words="x", sort="length").telling and not Query(sort="confidence").telling
    for query in (
        Query(kinds=("slip",)),
        Query(scores=(0, 1)),
        Query(sort="confidence", descending=True),
        Query(true_steps=(0,)),
    ):
        assert query.telling


def test_a_listing_finds_its_trace_wherever_a_sort_has_put_it(info: catalogue.RunInfo) -> None:
    table = catalogue.index(info)
    listing = failures.Listing.at_trace(info, table, [7, 3, 59], "t3")
    assert (listing.place, listing.trace_id(listing.place)) == (1, "t3")
    assert failures.Listing.at_trace(info, table, [7, 3, 59], "t59").place == 2
    for elsewhere in ("t4", "no such trace", None):  # filtered out, or not of this run
        assert failures.Listing.at_trace(info, table, [7, 3, 59], elsewhere).place == 0


def test_choices_are_the_values_that_occur(info: catalogue.RunInfo) -> None:
    found = failures.choices(catalogue.index(info))
    assert (found.kinds, found.verdicts) == (("skip", "slip"), ("error", "no_error", "uncertain"))
    assert (found.true_steps, found.verdict_steps, found.scores) == ((-1, 0, 1, 2), (0, 1, 2, 3), (0.0, 6.0))


def test_a_blind_eye_sees_nothing_telling(info: catalogue.RunInfo) -> None:
    blind = failures.table_rows(info, [3, 1], telling=False)
    assert blind["trace_id"].tolist() == ["t3", "t1"]
    assert not set(failures.TELLING) & set(blind.columns)
    assert not [name for name in blind.columns if name.startswith("score")]
    telling = failures.table_rows(info, [3, 1], telling=True)
    assert telling["verdict"].tolist() == ["step 4, reward", "wrong answer, step unsure"]  # of t1: no error
    assert telling["familiar"].tolist() == ["not measured", "not measured"]
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
    one = judgements.annotation(row, "run", "ann", "1", category="arithmetic", note="n", blind=True)
    assert (one.trace_id, one.step, one.verdict, one.label) == ("t7", 1, "error", "step 2")
    assert one.text_sha256 == text_hash(row["problem"], row["text"])
    assert not one.detailed
    steps = [{"start": 0, "end": 9, "text": "7 + 1 = 9"}, {"start": 10, "end": 19, "text": "9 + 1 = 9"}]
    row |= {"text": "7 + 1 = 9\n9 + 1 = 9", "steps": [step | {"score": None, "role": "reasoning"} for step in steps]}
    words = "1 = 9"  # which stand in both
    told = judgements.annotation(
        row, "run", "ann", "1", category="", note="", blind=True, severity="major", words=f" {words} "
    )
    assert told.severity == "major" and row["text"][told.span_start : told.span_end] == words
    assert told.span_start == 14
    row |= {"text": "7 + 1 = 9\n9 = 9 = 9", "steps": row["steps"]}
    for marked, start in ((None, 10), ((14, 15), 14), ((4, 5), 10), ((18, 19), 18)):  # (4, 5) is in another step
        told = judgements.annotation(row, "run", "ann", "1", category="", note="", blind=True, words="9", marked=marked)
        assert (told.span_start, told.span_end) == (start, start + 1)
    row |= {"text": "7 + 1 = 9\n16 + 6 = 9", "steps": [steps[0], steps[1] | {"end": 20, "text": "16 + 6 = 9"}]}
    for words, stored in (("6", "6"), ("1", "16"), ("16 + ", "16 +")):  # whole words are found before parts of one
        told = judgements.annotation(row, "run", "ann", "1", category="", note="", blind=True, words=words)
        assert row["text"][told.span_start : told.span_end] == stored
    row |= {"text": "7 + 1 = 9\n9 = 9 = 9", "steps": row["steps"]}
    with pytest.raises(AnnotationError, match="do not stand in step 2"):
        judgements.annotation(row, "run", "ann", "1", category="", note="", blind=True, words="words of elsewhere")
    numbered = ("Step 3: 9 = 9", "Step 4: 8 = 8")  # the error names a step as the text does
    steps = [{"start": 14 * place, "end": 14 * place + 13, "text": text} for place, text in enumerate(numbered)]
    row |= {"text": "\n".join(numbered), "steps": steps}
    with pytest.raises(AnnotationError, match="do not stand in step 4"):
        judgements.annotation(row, "run", "ann", "1", category="", note="", blind=True, words="9")
    sound = judgements.annotation(row, "run", "ann", "none", category="arithmetic", note="", blind=False)
    assert (sound.verdict, sound.step, sound.category) == ("none", None, "")
    with pytest.raises(AnnotationError, match="annotator is empty"):
        judgements.annotation(row, "run", "", "unsure", category="", note="", blind=True)


def test_the_model_is_read_only_where_people_judged(info: catalogue.RunInfo) -> None:
    found = rows()
    said = [judgements.annotation(found[i], "run", "a", "none", category="", note="", blind=True) for i in (0, 1, 2)]
    labels = judgements.model_labels(info, said)
    assert [labels[one.text_sha256] for one in said] == ["step 1", "unsure", "unsure"]  # t1 has a wrong answer
    assert len(labels) == 3 and judgements.model_labels(info, []) == {}


def test_the_database_is_among_the_runs() -> None:
    assert Path("runs", "annotations.sqlite") == failures.DATABASE


def test_equal_texts_are_one_item(tmp_path: Path) -> None:
    found = rows()[:6]
    for number in (2, 3, 5):  # the same problem and text as the row before
        found[number] |= {"problem": found[number - 1]["problem"], "text": found[number - 1]["text"]}
    write_run(tmp_path / "run.parquet", found, {})
    info = catalogue.catalogue([tmp_path])[0]
    table = catalogue.index(info)
    first, copies = failures.one_a_text(table, range(6))
    assert first == [0, 1, 4] and list(copies.values()) == [1, 3, 2] and copies.total() == 6
    listing = failures.Listing.at_trace(info, table, first, "t3", 3)  # listed as t1, which has its text
    assert (listing.place, listing.trace_id(listing.place)) == (1, "t1")
    assert listing.item(1) == text_hash(found[3]["problem"], found[3]["text"])


def test_the_next_one_is_the_next_that_is_not_judged(info: catalogue.RunInfo) -> None:
    table = catalogue.index(info)
    listing = failures.Listing.at_trace(info, table, [7, 3, 59], "t3")
    items = [listing.item(place) for place in range(3)]
    assert listing.next_open(set()) == 2 and listing.next_open({items[2]}) == 0
    assert listing.next_open({items[0], items[2]}) == 1 and listing.next_open(set(items)) is None
    said = [judgements.annotation(rows()[i], "run", "ann", "none", category="", note="", blind=True) for i in (7, 59)]
    assert judgements.judged_items(said, "ann") == {items[0], items[2]} and not judgements.judged_items(said, "ben")


def test_a_verdict_of_the_reward_is_none_where_the_model_cannot_judge(tmp_path: Path) -> None:
    unlike = {"cannot_judge": True, "familiar": False, "familiarity": -5.0, "unknown_share": 0.0}
    found = [rows()[0] | unlike, rows()[3] | {"cannot_judge": False, "familiar": True}, rows()[6]]
    write_run(tmp_path / "run.parquet", found, {})
    info = catalogue.catalogue([tmp_path])[0]
    table = catalogue.index(info)
    assert table.column("verdict").to_pylist() == ["cannot_judge", "error", "error"]
    assert table.column("confidence").to_pylist() == [None, 0.5, 0.5]
    shown = failures.table_rows(info, [0, 1, 2], telling=True)
    assert shown["verdict"].tolist() == ["the model cannot judge", "step 4, reward", "step 3, reward"]
    assert shown["familiar"].tolist() == ["unfamiliar", "familiar", "not measured"]
    assert shown["cannot_judge"].tolist() == [True, False, None]
    said = [judgements.annotation(row, "run", "a", "none", category="", note="", blind=True) for row in found]
    assert list(judgements.model_labels(info, said).values()) == ["unsure", "step 4", "step 3"]


def test_what_the_model_cannot_judge_is_said_beside_an_error_of_arithmetic_and_to_no_blind_eye(tmp_path: Path) -> None:
    slip = {"arithmetic_false": 1, "arithmetic_first_false_step": 2, "cannot_judge": True, "familiar": False}
    write_run(tmp_path / "run.parquet", [rows()[0] | slip], {})
    info = catalogue.catalogue([tmp_path])[0]
    (told,) = failures.table_rows(info, [0], telling=True).to_dict("records")
    assert (told["verdict"], told["cannot_judge"]) == ("step 3, arithmetic", True)
    blind = failures.table_rows(info, [0], telling=False)
    assert not {"cannot_judge", "familiar"} & set(blind)


def test_names_that_begin_alike_are_listed_without_that_beginning() -> None:
    long = ["qwen2.5-math/test-01/sample-1", "qwen2.5-math/test-01/sample-2", "qwen2.5-math/test-02/sample-1"]
    assert failures.short_names(long) == (
        ["\u202601/sample-1", "\u202601/sample-2", "\u202602/sample-1"], "qwen2.5-math/test-"
    )  # fmt: skip
    assert failures.short_names(long[:1]) == (long[:1], "")
    assert failures.short_names(["row 1", "row 12"]) == (["row 1", "row 12"], "")
    assert failures.short_names(["abcdefghij1", "abcdefghij2"]) == (["abcdefghij1", "abcdefghij2"], "")  # not in a word


@pytest.mark.parametrize(
    ("text", "part", "whole"),
    [
        ("The tank gains <<11+3=16>>16 litres", "an", "tank"),
        ("The tank gains", "e ta", "The tank"),
        ("gains <<11+3=16>>", "6", "16"),
        ("it is 1,250.75 each", "50", "1,250.75"),
        ("it costs $5.50, or 20%.", "5", "$5.50"),
        ("it costs $5.50, or 20%.", "2", "20%"),
        ("it costs 5\u20ac.", "5", "5\u20ac"),
        ("falls to -3.5 degrees", "3", "-3.5"),
        ("10-3 = 7", "3", "3"),
        ("12kg of twenty-five", "2", "12kg"),
        ("12kg of twenty-five, isn't it", "five", "twenty-five"),
        ("12kg of twenty-five, isn't it", "is", "isn't"),
        ("The sum is 5.", "5", "5"),
        ("a = b + c", "= b", "= b"),
        ("\u4e00\u5171\u6709\u4e03\u4e2a", "\u6709", "\u6709"),  # Chinese has no blanks
    ],
)
def test_marked_words_are_rounded_to_whole_ones(text: str, part: str, whole: str) -> None:
    start = text.index(part)
    found = judgements.whole_words(text, (start, start + len(part)), (0, len(text)))
    assert text[slice(*found)] == whole


def test_words_are_not_rounded_beyond_their_step() -> None:
    assert judgements.whole_words("onetwo", (1, 2), (0, 3)) == (0, 3)


def test_what_is_noted_beside_a_blind_answer_is_the_newest_of_the_same_annotator(info: catalogue.RunInfo) -> None:
    def said(choice: str, day: int, *, blind: bool, who: str = "ann", number: int = 7) -> Annotation:
        one = judgements.annotation(rows()[number], "run", who, choice, category="", note="", blind=blind)
        return replace(one, created=f"2026-01-0{day}T00:00:00+00:00")

    own = said("none", 2, blind=True)
    others = [said("unsure", 3, blind=False, who="ben"), said("unsure", 3, blind=False, number=8)]
    assert judgements.noted_beside(own, [said("unsure", 1, blind=False), own, *others]) is None
    later = [said("0", 3, blind=False), said("1", 4, blind=False)]
    assert judgements.noted_beside(own, [own, *later, *others]) == later[1]
    assert judgements.noted_beside(later[0], [own, *later]) is None


def test_a_note_of_a_settled_disagreement_is_that_of_who_settled_it(info: catalogue.RunInfo) -> None:
    one = judgements.annotation(rows()[7], "run", "ann", "none", category="", note="cy: x: y", blind=True)
    assert judgements.note_of(one, "cy") == "cy: x: y"
    settled = replace(one, annotator="adjudicated")
    assert judgements.note_of(settled, "cy") == "x: y" and judgements.note_of(settled, "ann") == ""


def test_who_found_what_is_named() -> None:
    bundled = catalogue.catalogue([Path(__file__).parents[2] / "assets" / "scored_run"])[0]
    row = catalogue.numbered_row(bundled, 0) | {"true_first_error_step": -1, "kind": None}
    own = judgements.annotation(row, "run", "ann", "none", category="", note=" so\nit is ", blind=False)
    assert judgements.spoken(row, own, None) == [
        ("You", " said: no step is wrong (note \u201cso it is\u201d), with the answer in sight."),
        ("The model", ": No error found."),
        ("The label", ": none."),
    ]
    unread = row | {"prompt_reward": None, "decision": None, "true_first_error_step": None}
    assert [who for who, _ in judgements.spoken(unread, own, None)] == ["You", "The checks"]


def test_what_cannot_be_computed_of_annotators_is_one_sentence_with_its_reason() -> None:
    """They were nine cells of 'undefined (...)', the reasons cut off."""
    few = [agreement("ada", other, ["step 1"], ["none"], ["a"]) for other in ("ben", "model")]
    assert judgements.not_computed(few) == [
        "Nothing can be computed yet of ada and ben, ada and model: fewer than two problems."
    ]
    assert judgements.agreement_rows(few) == []
    alike = agreement("ada", "cy", ["none"] * 40, ["none"] * 40, [str(n) for n in range(40)])
    (row,) = judgements.agreement_rows([*few, alike])
    assert row["other"] == "cy" and str(row["same label"]).startswith("1.000") and row["kappa, wrong or not"] == ""
    assert judgements.not_computed([alike]) == [
        "No kappa, first wrong step and kappa, wrong or not of ada and cy: both give the same label to all."
    ]
