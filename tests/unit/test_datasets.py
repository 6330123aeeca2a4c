"""Outside formats to traces and back: golden rows of our own, hostile rows, and the real files where they are."""

from __future__ import annotations

import gzip
import json
import os
import sys
import tracemalloc
import types
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irl_core.data import formats
from irl_core.data.fields import RowError
from irl_core.data.formats import detect_format, read
from irl_core.data.gsm8k import gsm8k
from irl_core.data.trace_format import write_jsonl
from irl_core.data.word_problems.generate import problem
from irl_core.errors import DatasetError
from irl_core.reward.localisation import token_steps
from irl_core.text.segmentation import make_trace
from irl_core.types import Layout, Source, Trace, Truth

SHARED = Path(os.environ.get("IRL_LENS_SHARED", Path(__file__).resolve().parents[2] / ".." / "shared"))

PROBLEM = "Mira packs 3 crates of 12 pears and gives 6 pears away. How many pears are left?"
EXPERT = "She packs 3*12=<<3*12=36>>36 pears.\nThen 36-6=<<36-6=30>>30 are left.\n#### 30"
WRONG = ["Step 1: She packs 3 * 12 = 36 pears.", "Step 2: Then 36 + 6 = 42 are left.", "Step 3: The answer is 42"]


def jsonl(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def only(path: Path, format: Any = "auto") -> Trace:
    (row,) = read(path, format)
    assert isinstance(row, Trace), row
    return row


def errors(path: Path, format: Any = "auto") -> list[tuple[int, str, str]]:
    return [(row.line, row.field, row.message) for row in read(path, format) if isinstance(row, RowError)]


# ---------------------------------------------------------------------------------------------- golden rows


def test_gsm8k(tmp_path: Path) -> None:
    trace = only(jsonl(tmp_path / "a.jsonl", {"question": PROBLEM, "answer": EXPERT}))
    assert (trace.problem, trace.text, trace.source, trace.layout) == (PROBLEM, EXPERT, Source.EXPERT, Layout.GSM8K)
    assert (trace.answer, trace.reference_answer, trace.correct) == ("30", "30", True)
    assert [(step.text, step.role) for step in trace.steps] == [
        ("She packs 3*12=<<3*12=36>>36 pears.", "reasoning"),
        ("Then 36-6=<<36-6=30>>30 are left.", "reasoning"),
        ("#### 30", "answer"),
    ]
    assert len(trace.trace_id) == len(trace.problem_id) == 16


def test_processbench_is_zero_based_and_minus_one_is_no_error(tmp_path: Path) -> None:
    row = {"id": "own-1", "generator": "m", "problem": PROBLEM, "steps": ["a = 1\n", " b = 2", "So 3."]}
    row |= {"final_answer_correct": False, "label": 1}
    trace = only(jsonl(tmp_path / "a.jsonl", row))
    assert trace.text == "a = 1\n\n b = 2\nSo 3."
    assert [(step.start, step.end, step.text) for step in trace.steps] == [
        (0, 6, "a = 1\n"),  # the step as given, its own newline too; then the joining newline at 6
        (7, 13, " b = 2"),
        (14, 19, "So 3."),
    ]
    assert trace.truth == Truth(1)
    assert (trace.trace_id, trace.correct, trace.extra) == ("own-1", False, {"generator": "m"})
    whole = only(jsonl(tmp_path / "b.jsonl", row | {"label": -1, "final_answer_correct": True}))
    assert (whole.truth, whole.correct) == (Truth(None), True)


def test_mr_gsm8k_is_one_based(tmp_path: Path) -> None:
    row = {
        "uuid": "u1",
        "question": PROBLEM,
        "answer": 30,
        "steps": WRONG,
        "first_error_step": 2,
        "error_reason": "adds",
    }
    trace = only(jsonl(tmp_path / "a.jsonl", row))
    assert detect_format(tmp_path / "a.jsonl") == "mr-gsm8k"
    assert trace.truth == Truth(1, note="adds")
    assert trace.text == "\n".join(WRONG) and [step.text for step in trace.steps] == WRONG
    assert [step.role for step in trace.steps] == ["reasoning", "reasoning", "answer"]
    assert (trace.trace_id, trace.answer, trace.reference_answer, trace.correct) == ("u1", "42", "30", False)


def test_the_original_mr_gsm8k_with_its_not_applicable(tmp_path: Path) -> None:
    row = {
        "uuid": "u1",
        "question": PROBLEM,
        "ground_truth_solution": EXPERT,
        "ground_truth_answer": "30",
        "model_output_steps": WRONG,
        "model_output_answer_correctness": "incorrect",
        "model_output_solution_correctness": "incorrect",
        "model_output_solution_first_error_step": "2",
        "model_output_solution_first_error_reason": "adds",
    }
    right = row | {
        "uuid": "u2",
        "model_output_steps": ["Step 1: 36 - 6 = 30", "Step 2: #### 30"],
        "model_output_answer_correctness": "correct",
        "model_output_solution_first_error_step": "N/A",
        "model_output_solution_first_error_reason": "N/A",
    }
    path = tmp_path / "original.json"
    path.write_text(json.dumps([row, right], indent=1))  # the original is one JSON array
    first, second = read(path)
    assert isinstance(first, Trace) and isinstance(second, Trace)
    assert (first.truth, first.correct) == (Truth(1, note="adds"), False)
    assert (second.truth, second.correct) == (Truth(None), True)


def test_model_solutions_keep_the_given_verdict(tmp_path: Path) -> None:
    row = {"problem_id": 4, "question": PROBLEM, "model": "own-small", "solution": "36 + 6 = 42\nA: 42"}
    row |= {"is_correct": False, "reference": "36 - 6 = 30\nA: 30"}
    trace = only(jsonl(tmp_path / "a.jsonl", row))
    assert (trace.problem_id, trace.answer, trace.reference_answer, trace.correct) == ("4", "42", "30", False)
    assert trace.extra == {"model": "own-small", "reference_solution": "36 - 6 = 30\nA: 30"}
    assert only(jsonl(tmp_path / "b.jsonl", row | {"is_correct": True})).correct is True


@pytest.mark.parametrize("key", ["question", "problem"])
def test_plain(tmp_path: Path, key: str) -> None:
    trace = only(jsonl(tmp_path / "a.jsonl", {key: PROBLEM, "solution": "36 - 6 = 30\nThe answer is 30", "answer": 30}))
    assert (trace.problem, trace.answer, trace.correct, trace.source) == (PROBLEM, "30", True, Source.EXTERNAL)
    row = {key: PROBLEM, "solution": "So 30.", "answer": EXPERT, "id": 12}  # a whole solution as the answer
    named = only(jsonl(tmp_path / "b.jsonl", row))
    assert (named.trace_id, named.reference_answer) == ("12", "30")
    assert only(jsonl(tmp_path / "c.jsonl", {key: PROBLEM, "solution": "So 30."})).correct is None


def test_demo_corpus(tmp_path: Path) -> None:
    row = {"problem_id": "d7", "family": "sharing", "text": PROBLEM, "solution": EXPERT, "answer": "30"}
    row |= {"target": "left", "quantities": []}
    trace = only(jsonl(tmp_path / "a.jsonl", row))
    assert (trace.problem, trace.problem_id, trace.source, trace.correct) == (PROBLEM, "d7", Source.EXPERT, True)
    assert trace.extra == {"family": "sharing"}


def test_rows_that_the_demo_generator_writes_are_read(tmp_path: Path) -> None:
    problems = [problem(seed) for seed in range(20)]
    rows = list(read(jsonl(tmp_path / "a.jsonl", *(made.to_json() for made in problems))))
    assert [(row.problem, row.text, row.correct) for row in rows if isinstance(row, Trace)] == [
        (made.text, made.solution, True) for made in problems
    ]


# ------------------------------------------------------------------------------------------------------ ids


def test_ids_are_stable_and_repeated_ones_get_their_line(tmp_path: Path) -> None:
    row = {"question": PROBLEM, "solution": "So 30."}
    first, second, third = read(jsonl(tmp_path / "a.jsonl", row, row, row | {"solution": "So 31."}))
    (alone,) = read(jsonl(tmp_path / "b.jsonl", row))
    assert isinstance(first, Trace) and isinstance(second, Trace)
    assert isinstance(third, Trace) and isinstance(alone, Trace)
    assert first.trace_id == alone.trace_id  # of problem and text, not of the place
    assert second.trace_id == f"{first.trace_id}-L2"
    assert third.trace_id not in (first.trace_id, second.trace_id)
    assert first.problem_id == second.problem_id == third.problem_id == alone.problem_id
    given_twice = list(read(jsonl(tmp_path / "c.jsonl", row | {"id": "x"}, row | {"id": "x"})))
    assert [trace.trace_id for trace in given_twice if isinstance(trace, Trace)] == ["x", "x-L2"]


# ------------------------------------------------------------------------------------------------- bad rows


def test_a_bad_row_names_file_line_and_field_and_the_rest_is_read(tmp_path: Path) -> None:
    good = {"question": PROBLEM, "solution": "So 30."}
    path = jsonl(
        tmp_path / "mixed.jsonl",
        good,
        b'{"question": "cut o',
        {"question": PROBLEM},
        {"question": PROBLEM, "solution": 5},
        b"",
        {"question": " ", "solution": "So 30."},
        b"[1, 2]",
        b'{"question": "\xff", "solution": "x"}',
        {"question": PROBLEM, "solution": "x" * 100_001},
        {"question": PROBLEM, "solution": "So 30.", "answer": [30]},
        {"question": PROBLEM, "solution": "So 30.", "id": True},
        b'{"question": "a", "solution": ' + b"[" * 50_000,
        b'{"question": "a", "solution": "b", "answer": ' + b"9" * 5_000 + b"}",
        good | {"question": "Another?"},
    )
    rows = list(read(path))
    assert [str(row) for row in rows if isinstance(row, RowError)] == [
        "mixed.jsonl, line 2, row: not JSON (Unterminated string starting at, column 14)",
        "mixed.jsonl, line 3, solution: missing; solution is expected",
        "mixed.jsonl, line 4, solution: a number where text is expected",
        "mixed.jsonl, line 6, question: empty",
        "mixed.jsonl, line 7, row: a list instead of a JSON object",
        "mixed.jsonl, line 8, row: not UTF-8 (byte 15); save the file as UTF-8",
        "mixed.jsonl, line 9, solution: 100,001 characters; the limit is 100,000",
        "mixed.jsonl, line 10, answer: a list where text or a number is expected",
        "mixed.jsonl, line 11, id: true/false where text or a whole number is expected",
        "mixed.jsonl, line 12, row: not JSON that can be read (RecursionError)",
        "mixed.jsonl, line 13, row: not JSON that can be read (ValueError)",
    ]
    assert [row.problem for row in rows if isinstance(row, Trace)] == [PROBLEM, "Another?"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": 3}, ("label", "3; -1 (no error) to 2 is expected, there are 3 steps")),
        ({"label": -2}, ("label", "-2; -1 (no error) to 2 is expected, there are 3 steps")),
        ({"label": True}, ("label", "true/false where a whole number is expected")),
        ({"steps": []}, ("steps", "0 steps; 1 to 2,000 are expected")),
        ({"steps": ["a", 1]}, ("steps", "step 2 is a number where text is expected")),
        ({"steps": ["", " "]}, ("steps", "empty")),
        ({"steps": ["a" * 60_000] * 2}, ("steps", "120,001 characters; the limit is 100,000")),
        ({"final_answer_correct": "yes"}, ("final_answer_correct", "text where true or false is expected")),
    ],
)
def test_processbench_fields(tmp_path: Path, change: dict[str, Any], expected: tuple[str, str]) -> None:
    row = {"id": "1", "problem": PROBLEM, "steps": WRONG, "final_answer_correct": False, "label": 1} | change
    assert errors(jsonl(tmp_path / "a.jsonl", row)) == [(1, *expected)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "0; 1 to 3 is expected, there are 3 steps"),
        (4, "4; 1 to 3 is expected, there are 3 steps"),
        ("two", "'two' where a step number or N/A is expected"),
        (True, "'True' where a step number or N/A is expected"),
        ("²", "'²' where a step number or N/A is expected"),
    ],
)
def test_mr_gsm8k_step_numbers(tmp_path: Path, value: Any, message: str) -> None:
    row = {"question": PROBLEM, "answer": 30, "steps": WRONG, "first_error_step": value}
    assert errors(jsonl(tmp_path / "a.jsonl", row)) == [(1, "first_error_step", message)]


def test_gsm8k_without_an_answer_is_a_bad_row(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"question": PROBLEM, "answer": "I do not know"})
    assert errors(path) == [(1, "answer", "no final answer; a last line such as '#### 12' is expected")]


def test_nul_odd_separators_and_a_byte_order_mark_are_kept_exact(tmp_path: Path) -> None:
    text = "a\x00b\u2028c\x85d \U0001f600 \u202e 30\r\nSo 30."
    row = json.dumps({"question": PROBLEM, "solution": text}, ensure_ascii=False).encode()
    trace = only(jsonl(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + row))
    assert trace.text == text


def test_an_overlong_line_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irl_core.data.jsonl.MAX_LINE_BYTES", 1_000)
    good = {"question": PROBLEM, "solution": "So 30."}
    path = jsonl(tmp_path / "a.jsonl", good, b"{" + b" " * 3_500 + b"}", good)
    rows = list(read(path))
    assert [type(row) for row in rows] == [Trace, RowError, Trace]
    assert errors(path) == [(2, "", "longer than 1,000 bytes; split it")]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}.jsonl"
        with path.open("w") as target:
            for number in range(rows):
                target.write(json.dumps({"question": f"{number}?", "solution": "word " * 400 + "."}) + "\n")
        tracemalloc.start()
        assert sum(isinstance(row, Trace) for row in read(path, "plain")) == rows
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    # 900 more rows of 2 KB are 1.8 MB of text; a reader that kept them would show it
    assert abs(peak(1_000) - peak(100)) < 500_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; a JSON object a line is expected"),
        (b'{"foo": 1, "bar": 2}\n', "its fields are bar, foo"),
        (b"[1,", "not readable as a JSON array"),
    ],
)
def test_unrecognised_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read(path)


ROW = json.dumps({"question": PROBLEM, "solution": "So 30."}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1\x15\x04", "is not a Parquet file that can be read"),
        (gzip.compress(ROW), "is compressed with gzip; unpack it first"),
        (b"PK\x03\x04rest", "is a zip archive or a spreadsheet"),
        (b"BZh91AY", "is compressed with bzip2"),
        (b"%PDF-1.7", "is a PDF"),
        (ROW.decode().encode("utf-16"), "is text in UTF-16; save the file as UTF-8"),
        (ROW.decode().encode("utf-16-le"), "is text in UTF-16; save the file as UTF-8"),
        (b"<!DOCTYPE html>\n", "is HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (ROW + b",\n", r"line 1: not JSON \(a comma after the object: remove it, column \d+\)"),
        (ROW[:-1] + b",}\n", "line 1: not JSON .a comma before the closing bracket: remove it"),
        (b'{\n"question": "a"\n}\n', "line 1: not JSON .an object over several lines"),
        (b"just some words\n", r"line 1: not JSON \(Expecting value, column 1\)"),
        (b"{'question': 'a'}\n", "line 1: not JSON .Expecting property name enclosed in double quotes"),
    ],
)
def test_why_a_file_cannot_be_read_is_said_by_its_kind(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read(path)


def test_values_stay_what_the_file_says(tmp_path: Path) -> None:
    # datasets 5 makes 7 of '007' and nothing of 'NaN' in a column of numbers and texts
    rows = [
        {"question": f"{n}?", "solution": "#### 7", "answer": answer, "id": name}
        for n, (answer, name) in enumerate([("007", "007"), (7, 7), ("NaN", "NaN"), ("1e3", "1e3"), ("inf", "true")])
    ]
    found = [row for row in read(jsonl(tmp_path / "a.jsonl", *rows)) if isinstance(row, Trace)]
    assert [row.reference_answer for row in found] == ["007", "7", "NaN", "1e3", "inf"]
    assert [row.trace_id for row in found] == ["007", "7", "NaN", "1e3", "true"]
    assert [row.correct for row in found] == [True, True, None, False, None]


@pytest.mark.parametrize(
    ("answer", "solution", "reference", "correct"),
    [
        ("5 kids get 3 each, so 5*3=15 and \\boxed{15} pens.", "#### 15", "15", True),
        ("5*3=15\n#### 15", "#### 15", "15", True),
        ("They get 15 in all.\nThe answer is 15.", "#### 15", "15", True),
        ("<think>5*3</think><answer>15</answer>", "#### 15", "15", True),
        ("Step 1: 5*3=15.\n\n**Final Answer:** 15 pens", "#### 15", "15 pens", True),
        ("A: 15", "#### 16", "15", False),
        ("Monday", "The answer is: Monday", "Monday", True),
        (1e-05, "#### 0.00001", "1e-05", True),
        (1e22, "#### 10000000000000000000000", "1e+22", True),
        (15.0, "#### 15", "15.0", True),
        (float("nan"), "#### 15", None, None),
        (None, "#### 15", None, None),
    ],
)
def test_references_in_any_layout_and_any_number(
    tmp_path: Path, answer: Any, solution: str, reference: str | None, correct: bool | None
) -> None:
    row = {"question": PROBLEM, "solution": solution, "answer": answer}
    trace = only(jsonl(tmp_path / "a.jsonl", row))
    assert (trace.reference_answer, trace.correct) == (reference, correct)


def test_an_infinite_reference_is_a_bad_row(tmp_path: Path) -> None:
    row = {"question": PROBLEM, "solution": "#### 15", "answer": float("inf")}
    assert errors(jsonl(tmp_path / "a.jsonl", row)) == [(1, "answer", "inf where a finite number is expected")]


def test_processbench_without_a_verdict_on_the_answer_is_accepted(tmp_path: Path) -> None:
    row = {"id": "1", "problem": PROBLEM, "steps": WRONG, "label": 1}
    for missing in ({}, {"final_answer_correct": None}):
        trace = only(jsonl(tmp_path / "a.jsonl", row | missing))
        assert trace.correct is None and trace.truth == Truth(1)


def test_a_blank_step_keeps_its_number_and_has_no_text_of_its_own(tmp_path: Path) -> None:
    row = {"id": "1", "problem": PROBLEM, "steps": ["3*5=15", "", " \n", "15+2=17", ""], "label": 3}
    trace = only(jsonl(tmp_path / "a.jsonl", row))
    assert [step.text for step in trace.steps] == ["3*5=15", "", "", "15+2=17", ""]
    assert trace.text[trace.steps[3].start :].startswith("15+2") and trace.truth == Truth(3)
    # one token a character: those between the steps close the first, and the blank ones own none
    owners = token_steps([(n, n + 1) for n in range(len(trace.text))], trace.steps)
    assert set(owners.tolist()) == {0, 3, -1}


@pytest.mark.parametrize(
    ("verdict", "step", "bad"),
    [
        ("wrong", "N/A", True),
        ("wrong", None, True),
        ("correct", 2, True),
        ("wrong", 2, False),
        ("correct", "N/A", False),
    ],
)
def test_mr_gsm8k_fields_that_contradict_each_other(tmp_path: Path, verdict: str, step: Any, bad: int) -> None:
    row = {
        "uuid": "1", "question": PROBLEM, "ground_truth_answer": "30", "model_output_steps": WRONG,
        "model_output_solution_correctness": verdict, "model_output_solution_first_error_step": step,
    }  # fmt: skip
    found = errors(jsonl(tmp_path / "a.jsonl", row))
    field = "model_output_solution_first_error_step"
    expected = [(1, field, f"{step!r}, but model_output_solution_correctness is {verdict!r}")]
    assert found == (expected if bad else [])


def test_missing_files_folders_and_formats_are_errors_at_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"the file 'no\.jsonl' is not there"):
        read(tmp_path / "no.jsonl")
    with pytest.raises(
        DatasetError, match=r"is a folder without solutions; give one of its files, such as train\.jsonl"
    ):
        read(tmp_path)
    with pytest.raises(DatasetError, match="format 'xml' is not known; one of auto, gsm8k, processbench"):
        read(jsonl(tmp_path / "a.jsonl", {}), "xml")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ and back


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    text = draw(st.one_of(texts, st.just(EXPERT), st.just("\n".join(WRONG))))
    trace = make_trace(
        draw(texts),
        text,
        reference_answer=draw(st.none() | texts),
        source=draw(st.sampled_from(Source)),
        problem_id=draw(texts.filter(bool)),
        finished=draw(st.booleans()),
        extra=draw(st.dictionaries(texts, texts, max_size=2)),
    )
    ids = draw(st.none() | st.lists(st.integers(0, 10**6), max_size=4).map(tuple))
    logprobs = None if ids is None else tuple(draw(st.floats(-50, 0)) for _ in ids)
    step = draw(st.none() | st.integers(0, len(trace.steps) - 1)) if trace.steps else None
    truth = draw(st.none() | st.just(Truth(step, draw(st.none() | texts), draw(texts))))
    return replace(trace, token_ids=ids, logprobs=logprobs, truth=truth)


@settings(max_examples=60, deadline=None)
@given(st.lists(traces(), min_size=1, max_size=4))
def test_written_then_read_is_equal(tmp_path_factory: pytest.TempPathFactory, written: list[Trace]) -> None:
    path = tmp_path_factory.mktemp("round") / "traces.jsonl"
    named = [replace(trace, trace_id=f"t{number}") for number, trace in enumerate(written)]
    assert write_jsonl(named, path) == len(named)
    assert detect_format(path) == "trace"
    assert list(read(path)) == named


def test_every_format_survives_the_way_back(tmp_path: Path) -> None:
    rows = [
        {"question": PROBLEM, "answer": EXPERT},
        {"uuid": "u", "question": PROBLEM, "answer": 30, "steps": [*WRONG, ""], "first_error_step": 2},
        {"id": "p", "problem": PROBLEM, "steps": ["a\n", "b"], "final_answer_correct": True, "label": -1},
    ]
    read_in = [only(jsonl(tmp_path / "a.jsonl", row)) for row in rows]
    write_jsonl(read_in, tmp_path / "out.jsonl")
    assert list(read(tmp_path / "out.jsonl")) == read_in
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert (first["question"], first["solution"], first["answer"]) == (PROBLEM, EXPERT, "30")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"step_spans": [[5, 9, "reasoning"], [0, 4, "reasoning"]]}, ""),
        ({"step_spans": [[0, 10**9, "reasoning"]]}, ""),
        ({"step_spans": [["0", 4, "reasoning"]]}, "step_spans"),
        ({"step_spans": [[0, 4, "evil"]]}, "step_spans"),
        ({"layout": "evil"}, ""),
        ({"correct": "yes"}, "correct"),
        ({"truth": {"first_error_step": 99}}, ""),
        ({"truth": {"evil": 1}}, ""),
        ({"token_ids": [1], "logprobs": [0.0, 1.0]}, ""),
        ({"extra": []}, ""),
    ],
)
def test_forged_trace_rows_are_bad_rows(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl([only(jsonl(path, {"question": PROBLEM, "answer": EXPERT}))], path)
    row = json.loads(path.read_text())
    assert [(line, name) for line, name, _ in errors(jsonl(path, row | change))] == [(1, field)]
    del row["layout"]
    assert errors(jsonl(path, row)) == [(1, "layout", "missing")]


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    trace = make_trace(PROBLEM, EXPERT, trace_id="t", problem_id="p")
    write_jsonl([trace], path)

    def breaking() -> Iterator[Trace]:
        yield trace
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_jsonl(breaking(), path)
    assert list(read(path)) == [trace]


# ------------------------------------------------------------------------------------------- GSM8K, real files


def test_gsm8k_from_a_folder(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", {"question": PROBLEM, "answer": EXPERT})
    (trace,) = gsm8k("train", tmp_path)
    assert isinstance(trace, Trace) and trace.reference_answer == "30"
    with pytest.raises(DatasetError, match=r"GSM8K: no test\.jsonl in the folder"):
        gsm8k("test", tmp_path)


def test_gsm8k_from_the_hub_asks_for_the_main_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: str, split: str) -> list[dict[str, str]]:
        asked.append((*names, split))
        return [{"question": PROBLEM, "answer": EXPERT}, {"question": PROBLEM, "answer": ""}]

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    trace, bad = gsm8k("test")
    assert asked == [("openai/gsm8k", "main", "test")]
    assert isinstance(trace, Trace) and trace.source is Source.EXPERT
    assert str(bad) == "openai/gsm8k/test, line 2, answer: empty"


def test_offline_names_the_cache_and_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: str, split: str) -> None:
        raise ConnectionError("no route")

    fake = types.SimpleNamespace(
        load_dataset=load_dataset, config=types.SimpleNamespace(HF_DATASETS_CACHE=Path("/cache/datasets"))
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    with pytest.raises(DatasetError) as caught:
        gsm8k("train")
    assert "'/cache/datasets'" in str(caught.value) and "give a folder with train.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "format", "rows", "first"),
    [
        ("traces/first_error_labels_dev.jsonl", "mr-gsm8k", 171, None),
        ("traces/model_solutions_dev.jsonl", "solutions", 2640, None),
        ("gsm8k/train.jsonl", "gsm8k", 200, 200),
    ],
)
def test_real_files_lose_no_row(name: str, format: str, rows: int, first: int | None) -> None:
    path = SHARED / "data" / name
    if not path.is_file():
        pytest.skip(f"{name} of the shared data is not here")
    assert detect_format(path) == format
    found = list(islice(read(path), first))
    assert [str(row) for row in found if isinstance(row, RowError)] == []
    assert len({row.trace_id for row in found if isinstance(row, Trace)}) == len(found) == rows
    if format == "mr-gsm8k":
        assert all(row.truth is not None and row.truth.first_error_step is not None for row in found)  # type: ignore[union-attr]


def test_the_public_formats_are_the_readers() -> None:
    assert {"auto", *formats.READERS} == set(get_args(formats.Format))
    assert formats.LABELS_BY.keys() <= formats.READERS.keys()
