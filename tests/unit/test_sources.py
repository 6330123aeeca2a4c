"""Traces as people have them: samples written by the libraries whose formats they are, told apart, and counted."""

from __future__ import annotations

import json
import shutil
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irl_core.data import tables
from irl_core.data.fields import RowError
from irl_core.data.formats import detect_format, read, read_counted
from irl_core.data.inspect_logs import inspect_rows
from irl_core.data.sources import column_map, open_source
from irl_core.data.tables import csv_rows
from irl_core.errors import DatasetError
from irl_core.types import Trace

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
PEARS = "Mira packs 3 crates of 12 pears and gives 6 pears away. How many pears are left?"
TILES = "A floor of 5 rows holds 8 tiles in each row. Nine tiles are cracked. How many are whole?"
NAMED = {"question": "ask", "solution": "reply", "answer": "gold"}


def traces_of(path: Path, columns: dict[str, str] | None = None) -> list[Trace]:
    rows = list(read(path, columns=columns))
    assert [str(row) for row in rows if isinstance(row, RowError)] == []
    return [row for row in rows if isinstance(row, Trace)]


def first_errors(traces: list[Trace]) -> list[int | str | None]:
    return [trace.truth.first_error_step if trace.truth else "no label" for trace in traces]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---------------------------------------------------------------------------------------------- each format


@pytest.mark.parametrize(
    ("name", "format", "errors", "correct"),
    [
        ("math_shepherd.jsonl", "math-shepherd", [None, 1, 1], [True, False, False]),
        ("stepwise", "stepwise", [None, 1, 1], [None, None, None]),
        ("stepwise_splits", "stepwise", [None, 1, 1], [None, None, None]),
        ("messages.parquet", "messages", ["no label"] * 3, [True, False, False]),
    ],
)
def test_samples(name: str, format: str, errors: list[Any], correct: list[bool | None]) -> None:
    path = SAMPLES / name
    assert detect_format(path) == format
    traces = traces_of(path)
    assert first_errors(traces) == errors
    assert [trace.correct for trace in traces] == correct
    assert [trace.problem for trace in traces] == [PEARS, PEARS, TILES]
    assert all(len(trace.steps) == 3 and trace.steps[-1].role == "answer" for trace in traces)


def test_prm800k_follows_the_labeler_and_leaves_out_what_has_no_label() -> None:
    intake, rows = read_counted(SAMPLES / "prm800k.jsonl")
    right, late, own, gave_up, unfinished = rows
    assert isinstance(right, Trace) and isinstance(late, Trace) and isinstance(own, Trace)
    assert first_errors([right, late, own]) == [None, 1, None]
    assert late.text.endswith("The answer is 32.")  # the whole solution, though its labels end at the wrong step
    assert own.steps[1].text == "After the gift 36 - 6 = 30 are left."  # the labeler's own, not the one rated -1
    assert (right.correct, late.correct, right.extra) == (True, False, {"labeler": "labeler-2"})
    assert isinstance(gave_up, RowError) and gave_up.message.startswith("the labeler gave up")
    assert isinstance(unfinished, RowError) and unfinished.message.startswith("1 of 3 steps are rated")
    assert list(intake.lines()) == [
        "Read as prm800k: 5 rows, 3 solutions, 3 known to end right or wrong.",
        "Labels of steps, by people: 3, 1 with a first wrong step and 2 without one.",
        "Left out: 1 row, label: the labeler gave up (finish_reason give_up): no label (first: prm800k.jsonl, line 4).",
        "Left out: 1 row, label: ... of ... steps are rated, and none of them is wrong (first: prm800k.jsonl, line 5).",
    ]
    assert intake.record()["left_out"] == {reason: 1 for reason in intake.first} and intake.lost == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "Q Step 1: a -\nStep 2: other +"}, "its text is not that of the input from step 2 on"),
        ({"label": "Q Step 1: a +\nStep 2: b"}, "step 2 ends in neither + nor -"),
        ({"input": "Q a ки\nb ки"}, "no 'Step 1:'"),
        ({"input": "Step 1: a ки"}, "no problem before 'Step 1:'"),
        ({"input": "Q Step 1: a ки\nStep 2: b"}, "text after the last mark"),
    ],
)
def test_math_shepherd_refuses_what_does_not_fit(tmp_path: Path, change: dict[str, str], message: str) -> None:
    row = {"input": "Q Step 1: a ки\nStep 2: b ки", "label": "Q Step 1: a -\nStep 2: b +", "task": "GSM8K"}
    (good,) = traces_of(jsonl(tmp_path / "a.jsonl", row))
    assert (first_errors([good]), good.correct, good.text) == ([0], True, "Step 1: a\nStep 2: b")
    older = {"input": "Q Step 1: a ки ? \nStep 2: b ки ?", "label": "Q Step 1: a ки - \nStep 2: b ки +"}
    assert traces_of(jsonl(tmp_path / "b.jsonl", older))[0].text == good.text
    (bad,) = read(jsonl(tmp_path / "c.jsonl", row | change))
    assert isinstance(bad, RowError)
    assert message in bad.message


def test_lm_eval_takes_each_response_once_and_judges_it() -> None:
    intake, rows = read_counted(SAMPLES / "samples_own_words.jsonl")
    found = list(rows)
    traces = [row for row in found if isinstance(row, Trace)]
    assert intake.format == "lm-eval" and (intake.rows, len(traces), intake.lost) == (4, 4, 2)
    assert [(trace.trace_id, trace.problem, trace.correct) for trace in traces] == [
        ("0/0", PEARS, True), ("0/1", PEARS, False), ("1/0", TILES, False), ("1/1", TILES, False)
    ]  # fmt: skip
    assert {row.message for row in found if isinstance(row, RowError)} == {
        "the samples of filter 'strict-match' again, under 'flexible-extract'"
    }


def test_completions_that_trl_logged() -> None:
    traces = traces_of(SAMPLES / "completions_00001.parquet")
    assert [trace.problem for trace in traces] == [PEARS, PEARS, TILES, TILES]
    assert [trace.extra["short_reward"] for trace in traces] == ["-121", "-117", "-129", "-112"]


def test_completions_of_a_rendered_prompt(tmp_path: Path) -> None:
    columns = {"step": [1, 1], "prompt": [f"user\n{PEARS}\nassistant\n"] * 2, "completion": ["So 30.", "So 42."]}
    rewards = {"short_reward": [-6.0, -6.5], "advantage": [0.5, -0.5]}
    pq.write_table(pa.table(columns | rewards), tmp_path / "completions_00001.parquet")
    first, second = traces_of(tmp_path)
    assert (first.problem, first.text, second.text) == (PEARS, "So 30.", "So 42.")
    assert [trace.extra for trace in (first, second)] == [
        {"short_reward": "-6", "training_step": "1"}, {"short_reward": "-6.5", "training_step": "1"}
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["inspect.eval", "inspect.json"])
def test_logs_of_inspect(name: str) -> None:
    pytest.importorskip("inspect_ai", reason="the extra inspect is not installed")
    traces = traces_of(SAMPLES / name)
    assert [(trace.trace_id, trace.correct, trace.finished) for trace in traces] == [
        ("own-0/1/0", True, True), ("own-1/1/0", False, True), ("own-2/1/0", False, False)
    ]  # fmt: skip


def test_a_log_of_inspect_is_named_where_its_reader_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    for name in ("inspect.eval", "inspect.json"):
        assert open_source(SAMPLES / name).kind == "Inspect AI log"
        with pytest.raises(DatasetError, match=r"is a log of Inspect AI.*pip install inspect-ai"):
            list(inspect_rows(SAMPLES / name))


def test_a_zip_of_anything_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.eval", "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(DatasetError, match="is a zip archive or a spreadsheet"):
        read(tmp_path / "a.eval")


# ------------------------------------------------------------------------------------------- chats, in detail


def test_a_chat_is_one_question_and_its_solution(tmp_path: Path) -> None:
    ask, reply = {"role": "user", "content": PEARS}, {"role": "assistant", "content": "36 - 6 = 30\nThe answer is 30."}
    parts = [{"type": "text", "text": "36 - 6 = 30"}]
    path = jsonl(
        tmp_path / "a.jsonl",
        {"messages": [ask, reply], "answer": 30},
        {"messages": [ask, {"role": "assistant", "content": parts, "reasoning_content": "Six go."}]},
        {"messages": [ask, reply, {"role": "user", "content": "And with 5?"}, reply]},
        {"messages": [ask]},
        {"messages": [ask, {"role": "assistant", "content": [{"type": "image", "image": "x"}]}]},
        {"messages": "no chat"},
        {"prompt": [ask], "completion": [reply]},
    )
    first, thought, *bad, pair = read(path)
    assert isinstance(first, Trace) and isinstance(thought, Trace) and isinstance(pair, RowError)
    assert (first.problem, first.correct) == (PEARS, True)
    assert thought.text == "<think>\nSix go.\n</think>\n36 - 6 = 30"
    assert [row.message for row in bad if isinstance(row, RowError)] == [
        "2 messages of the user; a chat of one question and its solution is read",
        "the last message is of 'user'; the assistant's is expected",
        "message 2 holds 'image', which is no text",
        "text where a list of messages is expected",
    ]
    (alone,) = traces_of(jsonl(tmp_path / "b.jsonl", {"prompt": [ask], "completion": [reply]}))
    assert (alone.problem, alone.text) == (first.problem, first.text)


@pytest.mark.parametrize(
    "prompt",
    [
        f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{PEARS}<|im_end|>\n<|im_start|>assistant\n",
        f"system\nBe brief.\nuser\n{PEARS}\nassistant\n",
        f"user\n{PEARS}\nassistant\n<think>\n\n</think>\n\n",
        PEARS,
    ],
)
def test_a_rendered_prompt_is_the_question_in_it(tmp_path: Path, prompt: str) -> None:
    (trace,) = traces_of(jsonl(tmp_path / "a.jsonl", {"prompt": prompt, "completion": "So 30."}))
    assert trace.problem == PEARS


# ------------------------------------------------------------------------------------------- tables, columns


def test_columns_of_other_names_are_named(tmp_path: Path) -> None:
    path = SAMPLES / "named.csv"
    with pytest.raises(DatasetError, match=r"its fields are ask, gold, reply.*--map question=COLUMN"):
        read(path)
    with pytest.raises(DatasetError, match=r"has no column prompt; it has ask, gold, reply"):
        read(path, columns={"question": "prompt", "solution": "reply"})
    assert [trace.correct for trace in traces_of(path, NAMED)] == [True, False, False]
    assert (open_source(path).count(10), open_source(SAMPLES / "stepwise").count(10)) == (3, 3)
    pq.write_table(pa.table({"doc": [{"q": PEARS}], "reply": ["So 30."]}), tmp_path / "a.parquet")
    (trace,) = traces_of(tmp_path / "a.parquet", {"question": "doc.q", "solution": "reply"})
    assert trace.problem == PEARS
    for wrong in (["question"], ["colour=a"], ["question=a", "question=b"]):
        with pytest.raises(DatasetError, match=r"FIELD=COLUMN is expected|is given twice"):
            column_map(wrong)
    assert column_map(["question = doc.q", "solution=reply"]) == {"question": "doc.q", "solution": "reply"}


def test_cells_of_a_csv_have_the_types_that_a_format_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('problem;steps;label\n"Q; 1?";"[""a = 1"", ""So 1.""]";-1\nQ 2?;"a\nb";1\nQ;a;x\nQ\n')
    first, second, third, short = read(path)
    assert isinstance(first, Trace) and isinstance(second, Trace)
    assert (first.problem, first_errors([first, second]), second.text) == ("Q; 1?", [None, 1], "a\nb")
    assert isinstance(third, RowError) and third.message == "text where a whole number is expected"
    assert (
        isinstance(short, RowError)
        and short.message == "too few cells (1 of 3); give every column one, which may be empty"
    )
    assert (third.line, short.line) == (5, 6)  # the second row is lines 3 and 4


def test_a_row_of_a_csv_has_the_number_of_the_line_where_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\nquestion,solution\n"How\nmany?",""\n\nWhy?,So,1\n')
    empty, long = read(path)
    assert isinstance(empty, RowError) and (empty.line, empty.message) == (3, "empty")
    assert isinstance(long, RowError) and long.line == 6
    assert long.message == "too many cells (3 under 2 names); quote those that hold separators"


def test_solutions_not_known_to_be_right_or_wrong_are_counted_by_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,solution,answer\nQ,#### 60,sixty\nQ,#### 7,7\nQ,#### 8,eight\nQ,So.,9\nQ,#### 5,\n")
    intake, rows = read_counted(path)
    assert [getattr(row, "correct", "") for row in rows] == [None, True, None, None, None]
    assert list(intake.lines()) == [
        "Read as plain: 5 rows, 5 solutions, 1 known to end right or wrong.",
        "Not known to be right or wrong: 1 solution in which no final answer was read.",
        "Not known to be right or wrong: 1 solution of which no right answer is given.",
        "Not known to be right or wrong: 2 solutions with a right answer that cannot be compared with the solution's, "
        "such as 'sixty' with '60'; write both as numbers.",
    ]


@pytest.mark.parametrize("content", [b"a,b\n\xff\xfe,1\n", b'a,b\n"' + b"x" * 200 + b"\n", b"a,b\n\0,1\n"])
def test_a_damaged_table_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    try:
        assert all(isinstance(row, str | dict) for _, row in csv_rows(path))
    except DatasetError as error:
        assert "is not UTF-8" in str(error)


@pytest.mark.parametrize("name", ["messages.parquet", "stepwise/data-00000-of-00001.arrow"])
def test_a_file_that_was_cut_off_is_refused_in_words(tmp_path: Path, name: str) -> None:
    whole = (SAMPLES / name).read_bytes()
    for length in (len(whole) // 4, len(whole) // 2, len(whole) - 8):
        path = tmp_path / Path(name).name
        path.write_bytes(whole[:length])
        try:
            rows = list(read(path))
        except DatasetError as error:
            assert path.name in str(error)
        else:
            assert path.suffix == ".arrow" and len(rows) <= len(list(read(SAMPLES / name)))  # a stream's whole batches


def test_an_arrow_batch_is_validated_whole_before_its_rows_are_read() -> None:
    class Damaged:
        def validate(self, *, full: bool) -> None:
            raise pa.ArrowInvalid(f"offsets, looked at in full: {full}")

    with pytest.raises(pa.ArrowInvalid, match="in full: True"):
        next(tables._numbered(iter([Damaged()])))


# -------------------------------------------------------------------------------------- folders and the hub


def test_a_folder_of_one_kind_is_read_and_of_several_refused(tmp_path: Path) -> None:
    row = {"question": PEARS, "solution": "So 30."}
    jsonl(tmp_path / "a.jsonl", row)
    jsonl(tmp_path / "b.jsonl", row, row | {"solution": "So 31."})
    first, again, other = traces_of(tmp_path)
    assert again.trace_id == f"{first.trace_id}-F2L1" and other.trace_id != first.trace_id
    (tmp_path / "c.csv").write_text("question,solution\nq,s\n")
    with pytest.raises(DatasetError, match=r"files of several kinds, such as a.jsonl, c.csv"):
        read(tmp_path)
    jsonl(tmp_path / "splits" / "train.jsonl" if (tmp_path / "splits").mkdir() is None else tmp_path, row)
    jsonl(tmp_path / "splits" / "test.jsonl", row)
    with pytest.raises(DatasetError, match=r"with test, train; give one of its files, such as test.jsonl"):
        read(tmp_path / "splits")
    shutil.copytree(SAMPLES / "stepwise_splits", tmp_path / "two")
    shutil.copytree(tmp_path / "two" / "test", tmp_path / "two" / "train")
    with pytest.raises(DatasetError, match=r"two has the splits test, train; name one: two/test"):
        read(tmp_path / "two")


def test_a_data_set_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, configuration: str | None, split: str | None) -> Any:
        asked.append((name, configuration, split))
        if name == "own/none":
            raise FileNotFoundError("no such data set")
        files = [{"filename": str(SAMPLES / "stepwise" / "data-00000-of-00001.arrow")}]
        one = types.SimpleNamespace(cache_files=files)
        return one if split else {"test": one, "train": one}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert first_errors(traces_of(Path("hf:own/steps:main@test"))) == [None, 1, 1]
    assert asked == [("own/steps", "main", "test")]
    with pytest.raises(DatasetError, match=r"hf:own/steps has the splits test, train; name one: hf:own/steps@test"):
        read(Path("hf:own/steps"))
    with pytest.raises(DatasetError, match=r"neither to be had from the hub nor in the cache \(no such data set\)"):
        read(Path("hf:own/none"))
    with pytest.raises(DatasetError, match="hf:OWNER/NAME"):
        read(Path("hf:nothing"))
