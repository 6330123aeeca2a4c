"""What trains and what never does: sources, layouts, rows left out, held-out rows, expert errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from irl_core.config import DataConfig, RunConfig, TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.tokenization import TraceEncoder
from irl_core.text.equations import first_false_step
from irl_core.text.segmentation import make_trace
from irl_core.types import Layout, Source, Trace
from tests.tiny import tiny_tokenizer
from train.data import (
    ExpertData,
    calibration_traces,
    held_out_traces,
    normalised,
    training_data,
    with_errors,
)
from train.lengths import LengthLimits


def row(number: int, **changes: Any) -> dict[str, Any]:
    left, right = 10 + number, 7 + 3 * number
    both = left + right
    steps = [
        f"They have {left}+{right}=<<{left}+{right}={both}>>{both} pears.",
        f"After two {both}-2=<<{both}-2={both - 2}>>{both - 2} are left.",
    ]
    question = f"Ann has {left} pears and Bo {right}. They eat 2. How many pears are left?"
    return {"question": question, "answer": "\n".join([*steps, f"#### {both - 2}"])} | changes


def source(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows))
    return str(path)


def config(source: str, method: Any = "sft", run: dict[str, Any] | None = None, **data: Any) -> TrainConfig:
    return TrainConfig(
        run=RunConfig(method=method, seed=3, **(run or {})), data=DataConfig(source=source, **{"held_out": 2} | data)
    )


def loaded(config: TrainConfig, encoder: TraceEncoder | None = None) -> tuple[Sequence[Trace], list[str]]:
    said: list[str] = []
    return training_data(config, encoder, said.append).traces, said


@pytest.fixture
def encoder() -> TraceEncoder:
    return TraceEncoder(tiny_tokenizer())


# ---------------------------------------------------------------------------------------------------- sources


def test_rows_of_gsm8ks_form(tmp_path: Path) -> None:
    traces, said = loaded(config(source(tmp_path / "a.jsonl", [row(n) for n in range(6)])))
    assert [trace.problem for trace in traces] == [row(n)["question"] for n in range(4)] and said == []
    first = traces[0]
    assert (first.text, first.answer, first.reference_answer) == (row(0)["answer"], "15", "15")
    assert (first.correct, first.source, first.layout) == (True, Source.EXPERT, Layout.GSM8K)


def test_a_folder_has_its_training_rows_in_train_jsonl(tmp_path: Path) -> None:
    source(tmp_path / "train.jsonl", [row(n) for n in range(6)])
    source(tmp_path / "test.jsonl", [row(n) for n in range(6, 12)])
    traces, _ = loaded(config(str(tmp_path)))
    assert [trace.problem for trace in traces] == [row(n)["question"] for n in range(4)]
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"^data\.source is .*train\.jsonl' is not there"):
        loaded(config(str(tmp_path)))


def test_question_solution_answer_rows_are_experts_whatever_their_file_says(tmp_path: Path) -> None:
    rows = [
        {"question": "1 + 1 is?", "solution": "It is 1 + 1 = 2.", "answer": 2},
        {"question": "2 + 1 is?", "solution": "It is 2 + 1 = 3.\nThe answer is 3."},
        {"question": "3 + 1 is?", "solution": "It is 3 + 1 = 4.", "answer": "4"},
        {"question": "4 + 1 is?", "solution": "It is 4 + 1 = 5.", "answer": "5"},
    ]
    traces, said = loaded(config(source(tmp_path / "a.jsonl", rows), layout="think_answer"))
    assert said == [] and [trace.source for trace in traces] == [Source.EXPERT] * 2
    assert traces[0].text == "<think>\nIt is 1 + 1 = 2.\n</think>\n<answer>\n2\n</answer>"
    # without an answer of its own the expert's stated one is the reference
    assert (traces[1].reference_answer, traces[1].correct) == ("3", True)


def test_the_hub_is_asked_for_the_training_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fake(split: str) -> Any:
        asked.append(split)
        return iter([make_trace(f"p{n}", f"1+1=2\n#### {n}", source=Source.EXPERT) for n in range(5)])

    monkeypatch.setattr("train.data.gsm8k", fake)
    wanted = config("gsm8k")
    assert [trace.problem for trace in loaded(wanted)[0]] == ["p0", "p1", "p2"]
    assert [trace.problem for trace in held_out_traces(wanted)] == ["p3", "p4"]
    assert asked == ["train", "train"]


def test_the_demo_is_as_it_was() -> None:
    wanted = replace(config("demo"), data=DataConfig(train_problems=3, drills=2, held_out=4))
    traces, said = loaded(wanted)
    assert len(traces) == 5 and said == [] and traces[0].correct and traces[4].answer is None
    held = held_out_traces(wanted)
    assert len(held) == 4 and not {t.problem for t in held} & {t.problem for t in traces}
    with pytest.raises(ConfigError, match=r"data\.layout is 'think_answer'.*set data\.layout to as_written"):
        loaded(replace(wanted, data=replace(wanted.data, layout="think_answer")))


def test_a_source_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.source is '.*nowhere\.jsonl': the file 'nowhere\.jsonl' is not"):
        loaded(config(str(tmp_path / "nowhere.jsonl")))


# ----------------------------------------------------------------------------------------------- rows left out


def test_unreadable_rows_are_named_and_counted(tmp_path: Path) -> None:
    rows = [row(0), "{not json", row(1), row(2, answer="no idea"), row(3, question=7), row(4), row(5)]
    traces, said = loaded(config(source(tmp_path / "a.jsonl", rows)))
    assert len(traces) == 2
    assert [line.partition(": ")[2][:27] for line in said[:3]] == [
        "a.jsonl, line 2, row: not J", "a.jsonl, line 4, answer: no", "a.jsonl, line 5, question: ",
    ]  # fmt: skip
    assert said[3].startswith("left out: 3 of 7 rows of ") and len(said) == 4


def test_many_unreadable_rows_are_named_up_to_twenty_and_all_are_counted(tmp_path: Path) -> None:
    rows = [row(n) for n in range(4)] + ["x"] * 50
    _, said = loaded(config(source(tmp_path / "a.jsonl", rows)))
    assert len(said) == 21 and "line 5," in said[0] and "line 24," in said[19]
    assert said[20].startswith("left out: 50 of 54 rows") and said[20].endswith("(30 of them not named above)")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"question": "q?", "solution": "It is 1 + 1 = 2.\nThe answer is 2.", "answer": 3}, "ends in '2'.*is '3'"),
        ({"question": "q?", "solution": "The answer is 2.", "is_correct": False}, "marked wrong"),
        ({"problem": "q?", "steps": ["a", "b"], "label": 1, "final_answer_correct": True}, "wrong from step 2 on"),
    ],
)
def test_a_row_that_is_no_expert_by_its_own_account(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    right = {"solution": "It is 2.", "answer": 2, "is_correct": True, "label": -1}
    good = [bad | {key: right[key] for key in right if key in bad} | {"question": q, "problem": q} for q in "rst"]
    traces, said = loaded(config(source(tmp_path / "a.jsonl", [bad, *good])))
    assert [trace.problem for trace in traces] == ["r"] and len(said) == 2
    assert re.match(f"left out: 'q\\?': .*{reason}", said[0]) and said[1].startswith("left out: 1 of 4 rows")


def test_a_row_with_half_a_character_is_named_with_its_field(tmp_path: Path) -> None:
    good = [{"question": q, "solution": "It is 2.", "answer": 2} for q in "rst"]
    bad = {"question": "q?", "solution": "half \ud800 of a pair", "answer": 1}
    traces, said = loaded(config(source(tmp_path / "a.jsonl", [bad, *good])))
    assert [trace.problem for trace in traces] == ["r"] and len(said) == 2
    assert "line 1, solution: character 5 is half of a surrogate pair; remove it" in said[0]
    assert said[1].startswith("left out: 1 of 4 rows")


def test_a_row_that_does_not_fit_the_layout_is_named(tmp_path: Path) -> None:
    rows = [row(0), row(1, answer="#### 5"), row(2), row(3)]
    wanted = config(source(tmp_path / "a.jsonl", rows), layout="think_answer")
    traces, said = loaded(wanted)
    assert [trace.layout for trace in traces] == [Layout.THINK_ANSWER]
    assert said[0] == f"left out: {row(1)['question'][:60]!r}: there is no reasoning to put between <think> tags"
    assert len(loaded(replace(wanted, data=replace(wanted.data, layout="as_written")))[0]) == 2


def test_too_long_ones_are_left_out_with_one_count(tmp_path: Path, encoder: TraceEncoder) -> None:
    rows = [row(n) for n in range(8)]
    rows[1]["question"] = "Long ago. " * 60 + rows[1]["question"]
    rows[2]["answer"] = "Let me think. " * 60 + rows[2]["answer"]
    rows[3]["question"], rows[3]["answer"] = rows[1]["question"] + "?", rows[2]["answer"]
    path = source(tmp_path / "a.jsonl", rows)
    wanted = config(path, max_prompt_tokens=100, max_completion_tokens=120)
    assert len(loaded(wanted)[0]) == 6  # nothing to count with
    traces, said = loaded(wanted, encoder)
    assert [trace.problem for trace in traces] == [rows[n]["question"] for n in (0, 4, 5)]
    assert said == [
        "left out of training: 3 of 6 solutions; 2 prompts are over data.max_prompt_tokens = 100, 2 solutions over "
        "data.max_completion_tokens = 120"
    ]


def test_lengths_are_exact_at_the_limit_with_the_end_token(encoder: TraceEncoder) -> None:
    trace = make_trace("¿How many pears? " + "é" * 30, "5 + 1 = 6 pears. ¡Yes!")
    encoded = encoder.encode(trace)
    prompt, completion = len(encoded.prompt_ids), len(encoded.completion_ids)
    exact = LengthLimits(encoder, prompt, completion)
    assert exact.prompt(trace) and exact.completion(trace)
    assert not LengthLimits(encoder, prompt - 1, completion).prompt(trace)
    assert not LengthLimits(encoder, prompt, completion - 1).completion(trace)


def test_no_trace_short_enough_is_an_error(tmp_path: Path, encoder: TraceEncoder) -> None:
    wanted = config(source(tmp_path / "a.jsonl", [row(n) for n in range(4)]), max_prompt_tokens=5)
    with pytest.raises(ConfigError, match="has no solution to train on"):
        loaded(wanted, encoder)


def test_the_first_rows_are_taken_and_that_is_said(tmp_path: Path) -> None:
    traces, said = loaded(config(source(tmp_path / "a.jsonl", [row(n) for n in range(8)]), train_problems=4))
    assert [trace.problem for trace in traces] == [row(n)["question"] for n in range(4)]
    assert said == ["training takes the first 4 of 6 rows (data.train_problems)"]


# ---------------------------------------------------------------------------------------------------- held out


def test_the_last_rows_never_train_nor_does_a_copy_of_their_problem(tmp_path: Path) -> None:
    rows = [row(n) for n in range(8)]
    copy = rows[7]["question"].upper().replace(" ", "  ").rstrip("?") + " ?"
    rows[2] = row(2, question=copy)
    wanted = config(source(tmp_path / "a.jsonl", rows))
    traces, said = loaded(wanted)
    assert [trace.problem for trace in traces] == [rows[n]["question"] for n in (0, 1, 3, 4, 5)]
    assert said == ["left out of training: 1 rows whose problem is held out too (data.held_out)"]
    assert [trace.problem for trace in held_out_traces(wanted)] == [rows[6]["question"], rows[7]["question"]]


def test_copies_differ_in_form_and_problems_in_content() -> None:
    assert normalised(" What’s  ½ of “Ten”?\n") == normalised('what\'s 1⁄2 of "ten"')
    assert normalised("What is 3 + 4?") != normalised("What is 3 - 4?")
    assert normalised("3.5 pears") != normalised("35 pears")


def test_a_problem_is_held_out_once(tmp_path: Path) -> None:
    rows = [row(0), row(1), row(2), row(1, answer="1+1=2\n#### 26"), row(3)]
    held = held_out_traces(config(source(tmp_path / "a.jsonl", rows), held_out=4))
    assert [trace.text for trace in held] == [rows[n]["answer"] for n in (1, 2, 4)]


@pytest.mark.parametrize("held_out", [4, 5])
def test_more_held_out_than_there_is(tmp_path: Path, held_out: int) -> None:
    wanted = config(source(tmp_path / "a.jsonl", [row(n) for n in range(4)]), held_out=held_out)
    for function in (training_data, held_out_traces):
        with pytest.raises(ConfigError, match=rf"data\.held_out is {held_out}, but .* has 4 readable rows; set data"):
            function(wanted)


def test_none_held_out(tmp_path: Path) -> None:
    wanted = config(source(tmp_path / "a.jsonl", [row(n) for n in range(4)]), held_out=0)
    assert len(loaded(wanted)[0]) == 4 and held_out_traces(wanted) == []


def test_calibration_takes_what_evaluation_does_not(tmp_path: Path, encoder: TraceEncoder) -> None:
    path = source(tmp_path / "a.jsonl", [row(n) for n in range(60)])
    wanted = config(path, "irl", {"eval_every": 1, "eval_problems": 9, "calibration_problems": 100}, held_out=40)
    assert [t.problem for t in calibration_traces(wanted)] == [row(n)["question"] for n in range(20, 51)]
    wanted = config(path, "irl", {"calibration_problems": 25}, held_out=40)
    assert [t.problem for t in calibration_traces(wanted)] == [row(n)["question"] for n in range(20, 45)]
    wanted = config(path, "irl", held_out=40, max_prompt_tokens=3)
    with pytest.raises(ConfigError, match=r"40 are longer than data.max_prompt_tokens \(3\) .* Raise data.max_prompt"):
        calibration_traces(wanted, encoder)


@pytest.mark.parametrize(("run", "held_out"), [({}, 19), ({"calibration_problems": 19}, 40),
                                               ({"eval_every": 1, "eval_problems": 21}, 40)])  # fmt: skip
def test_too_few_to_calibrate_on_is_told_before_the_first_step(tmp_path: Path, run: Any, held_out: int) -> None:
    path = source(tmp_path / "a.jsonl", [row(n) for n in range(60)])
    with pytest.raises(ConfigError) as caught:
        loaded(config(path, "irl", run, held_out=held_out))
    assert str(caught.value).startswith("there are 19 held-out solutions to calibrate on, and 20 are the least")
    assert f"data.held_out is {held_out}" in str(caught.value) and "run.calibration_problems is" in str(caught.value)
    assert loaded(config(path, "sft", run, held_out=held_out))[0], "nothing else calibrates"


# ------------------------------------------------------------------------------------------------ order


def test_the_order_depends_on_the_seed_and_the_round_alone() -> None:
    traces = [make_trace(f"p{n}", "x") for n in range(7)]
    one, other = ExpertData(traces, 1), ExpertData(traces, 1)
    seen = [trace.problem for number in range(7) for trace in one.batch(number, 3)]
    assert [t.problem for t in other.batch(5, 3)] == seen[15:18]
    assert [t.problem for t in other.batch(1, 3)] == seen[3:6]
    assert all(sorted(seen[start : start + 7]) == [f"p{n}" for n in range(7)] for start in (0, 7, 14))
    assert seen[:7] != seen[7:14] != [t.problem for t in ExpertData(traces, 2).batch(0, 7)]


# ------------------------------------------------------------------------------------------------- expert errors

EVERYTHING = LengthLimits(None, 0, 0)


def test_a_share_of_the_experts_errs_and_is_believed(tmp_path: Path) -> None:
    path = source(tmp_path / "a.jsonl", [row(n) for n in range(52)])
    right, _ = loaded(config(path))
    traces, _ = loaded(config(path, expert_errors=0.3))
    changed = [i for i in range(50) if traces[i] != right[i]]
    assert len(traces) == 50 and len(changed) == 15
    for i in changed:
        assert traces[i].text != right[i].text and traces[i].truth is None
        assert (traces[i].source, traces[i].problem_id) == (Source.EXPERT, right[i].problem_id)
        assert traces[i].reference_answer == right[i].reference_answer
        assert not traces[i].correct or first_false_step(traces[i]) is not None
        assert traces[i].extra["expert_error"]
    again, _ = loaded(config(path, expert_errors=0.3))
    assert again == traces
    other, _ = loaded(replace(wanted := config(path, expert_errors=0.3), run=replace(wanted.run, seed=4)))
    assert [i for i in range(50) if other[i] != right[i]] != changed


def test_the_same_rows_err_in_every_epoch(tmp_path: Path) -> None:
    path = source(tmp_path / "a.jsonl", [row(n) for n in range(12)])
    data = training_data(config(path, expert_errors=0.5))
    epochs = [sorted(trace.text for trace in data.batch(number, 10)) for number in range(3)]
    assert epochs[0] == epochs[1] == epochs[2]
    assert sum("expert_error" in trace.extra for trace in data.batch(2, 10)) == 5


def test_what_cannot_err_is_passed_over_and_the_share_met() -> None:
    plain = [make_trace(f"p{n}", "No sum at all.") for n in range(8)]
    sums = [make_trace(row(n)["question"], row(n)["answer"], reference_answer=None) for n in range(8)]
    mixed = [trace for both in zip(plain, sums, strict=True) for trace in both]
    found = with_errors(mixed, 0.5, 1, EVERYTHING)
    assert all(found[i] is mixed[i] for i in range(0, 16, 2))
    assert all("expert_error" in found[i].extra for i in range(1, 16, 2))
    with pytest.raises(
        ConfigError, match=r"expert_errors is 0\.6, which is 10 of 16 solutions, but only 8 can.*to 0\.5 "
    ):
        with_errors(mixed, 0.6, 1, EVERYTHING)


def test_a_copy_that_grew_too_long_is_not_taken(encoder: TraceEncoder) -> None:
    traces = [make_trace(row(n)["question"], row(n)["answer"]) for n in range(6)]
    longest = max(len(encoder.encode(trace).completion_ids) for trace in traces)
    found = with_errors(traces, 0.5, 0, LengthLimits(encoder, 999, longest))
    assert all(len(encoder.encode(trace).completion_ids) <= longest for trace in found)
    with pytest.raises(ConfigError, match=r"only 0 can be corrupted; set it to 0\.0 at most"):
        with_errors(traces, 0.5, 0, LengthLimits(encoder, 999, 5))


def test_errors_in_think_answer_keep_the_layout(tmp_path: Path) -> None:
    path = source(tmp_path / "a.jsonl", [row(n) for n in range(22)])
    traces, _ = loaded(config(path, expert_errors=1.0, layout="think_answer"))
    assert {trace.layout for trace in traces} == {Layout.THINK_ANSWER}
    assert all("expert_error" in trace.extra for trace in traces)


# ---------------------------------------------------------------------------------------------- GSM8K, real files


def test_gsm8k_trains_on_all_but_its_last_rows(shared: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    llama, qwen = (
        TraceEncoder(AutoTokenizer.from_pretrained(shared / "tokenizers" / name, local_files_only=True))
        for name in ("llama3", "qwen2")
    )
    shutil.copy(shared / "data" / "gsm8k" / "train.jsonl", tmp_path / "train.jsonl")
    wanted = config(str(tmp_path), "irl", held_out=300, layout="think_answer", expert_errors=0.1)
    traces, said = loaded(wanted, llama)
    assert len(traces) == 7173 and said == []
    assert sum("expert_error" in trace.extra for trace in traces) == 717
    assert LengthLimits.of(wanted, qwen).only(list(traces), said.append) == traces and said == []
    held = held_out_traces(wanted)
    assert len(held) == 300 and not {normalised(t.problem) for t in held} & {normalised(t.problem) for t in traces}
