"""`irl-lens evaluate` from end to end on the bundled checkpoint: whole, killed, stopped, drawn again, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from irl_core.checkpoints.load import load_json
from irl_core.errors import ConfigError, StoreError, UserError
from irl_core.evaluation.report import KEYS, QUESTIONS, WAYS
from irl_core.scorer import Lens
from irl_core.storage.run_writer import RunWriter
from irl_core.storage.scored_run import read_provenance, read_run
from tests.runs import Killed
from train.cli import compare as compare_command
from train.cli import evaluate
from train.cli import report as report_command
from train.cli.evaluate import EvaluateRequest
from train.evaluate import rollouts

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "assets" / "demo"
FILES = [
    "calibration.parquet", "run.parquet", "anchor.parquet", "perturbed.parquet", "probes.parquet",
    "compare/twin.parquet", "ways/self-revision.parquet", "ways/guided decoding.parquet",
]  # fmt: skip
DRAWN = ["report.json", "report.md", "report.html"]
METRICS = [
    {"step": 1, "disc/reward_policy": -1.5, "rollout/correct": 0.25, "eval/pass@1": 0.5, "eval/low": 0.3,
     "eval/high": 0.7, "eval/n": 9},
    {"step": 2, "disc/reward_policy": -1.0, "rollout/correct": 0.5, "eval/pass@1": 0.6, "eval/low": 0.4,
     "eval/high": 0.8, "eval/n": 9},
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluations")


@pytest.fixture(scope="module", autouse=True)
def one_loaded_lens(folder: Path) -> Any:
    """The bundled checkpoint is loaded once; parts are small, so that a run of four problems has several. Where its
    configuration names the discriminator's start, relative to the working directory, lies the checkpoint itself."""
    patch, lens, threads = pytest.MonkeyPatch(), Lens.load(DEMO, "cpu"), torch.get_num_threads()
    patch.setattr(Lens, "load", classmethod(lambda cls, path, device="auto": lens))
    patch.setattr(rollouts, "QUESTIONS_AT_ONCE", 2)
    patch.setattr(rollouts, "TRACES_AT_ONCE", 12)
    shutil.copytree(DEMO, folder / lens.config["train_config"]["model"]["discriminator"])
    patch.chdir(folder)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    patch.undo()


@pytest.fixture(scope="module")
def asked(folder: Path) -> EvaluateRequest:
    training = folder / "trained"
    training.mkdir()
    (training / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in METRICS) + '{"step": 3, "d')
    return EvaluateRequest(
        DEMO, folder / "whole", problems=4, samples=3, compare={"twin": DEMO}, training=training,
        ways=("self-revision", "guided decoding"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(asked: EvaluateRequest) -> Path:
    evaluate.run_evaluation(asked)
    return asked.out


def strict(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert isinstance(found, dict)
    return found


def without_dates(report: dict[str, Any]) -> dict[str, Any]:
    """Without what is another's at another time: the date, and the state of the code."""
    known = {key: value for key, value in report["provenance"].items() if key not in ("created", "code")}
    return {**report, "provenance": known}


def assert_same(found: Path, expected: Path) -> None:
    for name in FILES:
        assert read_run(found / name).equals(read_run(expected / name)), name
    assert without_dates(strict(found / "report.json")) == without_dates(strict(expected / "report.json"))
    assert not list(found.rglob("*.parts")) and not list(found.rglob("*.tmp"))


# ------------------------------------------------------------------------------------------------------- whole


def test_the_report_answers_every_question(whole: Path) -> None:
    report = strict(whole / "report.json")
    assert tuple(report) == (*KEYS, WAYS)
    text = (whole / "report.md").read_text()
    assert all(f"## {question}\n" in text for question in QUESTIONS)
    assert report["pass_at_k"]["problems"] == 4 and report["pass_at_k"]["traces"] == 12
    # the twin has the same weights and seeds: the same samples, so no difference at all
    assert report["pass_at_k"]["differences"]["twin"]["1"]["value"] == 0.0
    assert report["localisation"]["perturbed"]["traces"] == len(read_run(whole / "perturbed.parquet"))
    assert set(report["probes"]["probes"]) >= {"empty_reasoning", "right_answer_wrong_steps", "format_only"}
    ids = read_run(whole / "run.parquet", ["trace_id"]).to_pydict()["trace_id"]
    shown = [one["trace_id"] for one in report["localisation"]["examples"]["traces"]]
    assert shown and set(shown) <= set(ids)


def test_ways_that_use_the_reward_stand_beside_the_majority_of_as_many_tokens(whole: Path) -> None:
    ways = strict(whole / "report.json")["ways"]["ways"]
    assert set(ways) == {"self-revision", "guided decoding"}
    sampled = read_run(whole / "run.parquet", ["problem_id"])[0].to_pylist()
    for name, way in ways.items():
        rows = read_run(whole / "ways" / f"{name}.parquet").to_pylist()
        assert len(rows) == way["accuracy"]["n"] == way["minus_majority"]["n"] == 4
        assert way["tokens"] == np.mean([int(dict(row["extra"])["tokens_written"]) for row in rows]) > 0
        assert way["accuracy"]["value"] == np.mean([row["correct"] for row in rows])
        assert {row["problem_id"] for row in rows} == set(sampled)
        assert all(row["decision"] and row["trace_id"].endswith(name.replace(" ", "-")) for row in rows)
    assert ways["self-revision"]["minus_drafts"]["n"] == 4 and ways["guided decoding"]["minus_drafts"] is None
    assert "Guided decoding is right in " in (whole / "report.md").read_text()


def test_the_rules_were_chosen_on_other_problems_and_are_known(whole: Path) -> None:
    known = strict(whole / "report.json")["provenance"]
    assert known["vote"]["temperature"] > 0 and known["calibration"]["rule"]["signal"]
    assert known["checkpoint_sha256"] and known["input_sha256"] and known["seed"] == 0
    assert set(known["machine"]) == {"processor", "cores", "threads", "gpu"}
    reported = set(read_run(whole / "run.parquet", ["problem"]).to_pydict()["problem"])
    tuned = set(read_run(whole / "calibration.parquet", ["problem"]).to_pydict()["problem"])
    assert len(reported) == 4 and len(tuned) == 4 and not reported & tuned


def test_what_the_discriminators_start_knows_stands_beside_the_reward(whole: Path) -> None:
    """Here the start is the policy itself: its log-probabilities are those that the samples were drawn with."""
    columns = ["trace_id", "log_prob_mean"]
    ours, theirs = (read_run(whole / name, columns).to_pandas() for name in ("run.parquet", "anchor.parquet"))
    assert ours["trace_id"].equals(theirs["trace_id"])
    np.testing.assert_allclose(ours["log_prob_mean"], theirs["log_prob_mean"], atol=1e-4)
    report = strict(whole / "report.json")
    scores = report["separation"]["scores"]
    for key in ("pooled", "within"):
        assert scores["start_log_prob_mean"][key]["auc"]["value"] == scores["log_prob_mean"][key]["auc"]["value"]
    within = scores["log_prob_mean"]["within"]
    assert within["minus_start"]["value"] == 0.0 and within["minus_start"]["n"] == within["pair_accuracy"]["n"] > 0
    assert "model that the discriminator started from ranks" in report["separation"]["paragraph"]
    assert "model that the discriminator started from names" in report["localisation"]["paragraph"]
    assert "less the discriminator's start" in (whole / "report.md").read_text()


def test_what_training_did_is_reported_with_it(whole: Path) -> None:
    found = strict(whole / "report.json")["training"]
    assert found["steps"] == 2 and found["series"]["rollout/correct"]["value"] == [0.25, 0.5]
    assert found["held_out"][1]["pass@1"]["interval"] == [0.4, 0.8]


def test_its_status_and_folder_tell_no_more_than_they_should(whole: Path) -> None:
    assert load_json(whole / "status.json")["state"] == "finished"
    assert load_json(whole / "evaluation.json")["seconds"] > 0
    for name in (*DRAWN, "evaluation.json"):
        assert str(whole.parent) not in (whole / name).read_text() and str(ROOT) not in (whole / name).read_text()


def test_again_it_only_reports(whole: Path, asked: EvaluateRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [(whole / name).read_bytes() for name in DRAWN]
    monkeypatch.setattr(RunWriter, "write", lambda *_, **__: pytest.fail("a part was made again"))
    evaluate.run_evaluation(asked)
    assert [(whole / name).read_bytes() for name in DRAWN] == before


# ------------------------------------------------------------------------------------------------------- killed


@pytest.mark.parametrize("parts", [1, 5, 12])
def test_killed_and_gone_on_with_it_equals_an_unbroken_one(
    whole: Path, asked: EvaluateRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    broken, made, real = replace(asked, out=tmp_path / "broken"), [], RunWriter.write

    def write(self: RunWriter, *arguments: Any, **named: Any) -> None:
        if len(made) == parts:
            raise Killed
        made.append(self.path.name)
        real(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "write", write)
        with pytest.raises(Killed):
            evaluate.run_evaluation(broken)
    assert not (broken.out / "report.json").exists()
    evaluate.run_evaluation(broken)
    assert_same(broken.out, whole)


def test_killed_while_it_reports(
    whole: Path, asked: EvaluateRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = replace(asked, out=tmp_path / "broken")
    shutil.copytree(whole, broken.out)
    (broken.out / "report.json").unlink()
    with monkeypatch.context() as patched:
        patched.setattr("irl_core.report.files.to_markdown", lambda report: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            evaluate.run_evaluation(broken)
    assert not (broken.out / "report.json").exists()
    evaluate.run_evaluation(broken)
    assert_same(broken.out, whole)


def test_stopped_by_a_signal_it_says_how_to_go_on(
    whole: Path,
    asked: EvaluateRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The request comes while a part is sampled: that part is lost, the earlier ones are kept."""
    broken, made, real = replace(asked, out=tmp_path / "broken"), [], RunWriter.write

    def write(self: RunWriter, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named)
        made.append(self.path.name)
        if len(made) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(RunWriter, "write", write)
        with pytest.raises(typer.Exit) as ended:
            evaluate.run_evaluation(broken)
    assert ended.value.exit_code == 0 and len(made) == 3
    assert "interrupted. Go on with the same command" in capsys.readouterr().err
    assert load_json(broken.out / "status.json")["state"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    evaluate.run_evaluation(broken)
    assert_same(broken.out, whole)


def command(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, "-m", "train.cli.main", *arguments], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_is_stopped_and_no_second_one_writes_beside_it(tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "--problems", "40", "--samples", "8", "--device", "cpu", "--out", str(out)]
    process, until = command(*arguments), time.monotonic() + 200
    while not (out / "status.json").exists() or load_json(out / "status.json")["phase"] == "starting":
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)
    if number == signal.SIGTERM:
        second = command(*arguments)
        assert "is being written by process" in second.communicate(timeout=200)[1] and second.returncode == 2
    process.send_signal(number)
    printed = process.communicate(timeout=200)[1]
    assert process.returncode == 0 and "interrupted. Go on with the same command" in printed
    assert "Traceback" not in printed and load_json(out / "status.json")["state"] == "interrupted"


# -------------------------------------------------------------------------------------------------- drawn again


def test_a_report_is_drawn_again_without_a_model(whole: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    before = {name: (again / name).read_bytes() for name in DRAWN}
    for name in DRAWN:
        (again / name).unlink()
    code = (
        f"import sys; sys.argv = ['irl-lens', 'report', {str(again)!r}]\n"
        "from train.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'transformers' not in sys.modules, 'a library of models was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {name: (again / name).read_bytes() for name in DRAWN} == before
    assert all(question in done.stdout for question in QUESTIONS)


def test_a_scored_run_alone_has_a_report_too(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_command.report([whole / "run.parquet"], out=None, results=None, answer_lines=None, seed=0)
    printed = capsys.readouterr().out
    assert printed.startswith("# Evaluation of demo\n") and "no corrupted solutions" in printed
    report_command.report(
        [whole / "run.parquet"], out=tmp_path / "deep" / "er", results=None, answer_lines=False, seed=1
    )
    report = strict(tmp_path / "deep" / "er" / "report.json")
    assert report["provenance"]["report"]["answer_lines"] is False and report["localisation"]["answer_lines"] is False
    assert report["provenance"]["report"]["seed"] == 1


def test_results_are_one_document(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "scored.parquet"
    shutil.copy(whole / "run.parquet", other)
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.md").write_text("# Study of x\n\nwords\n")
    report_command.report([whole, other, study], out=None, results=tmp_path / "results.md", answer_lines=None, seed=0)
    text = (tmp_path / "results.md").read_text()
    known = read_provenance(whole / "run.parquet")
    assert text.startswith("# Results\n") and "\n## whole\n" in text and "\n## scored\n" in text
    assert "\n## Study of x\n\nwords\n" in text
    for part in (known["input_sha256"], known["created"], known["machine"]["processor"], "- seed: 0;", "--samples 3"):
        assert part in text
    assert str(tmp_path) not in text
    with pytest.raises(ConfigError, match="two of the runs are called whole"):
        report_command.report([whole, whole], out=None, results=tmp_path / "r.md", answer_lines=None, seed=0)


def test_runs_are_compared(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    compare_command.compare([whole, whole / "compare" / "twin.parquet"], html=page, as_json=True, seed=0)
    found = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(name))
    assert found["shared"] == {"twin.parquet": 4}
    assert found["differences"]["twin.parquet"]["pass@1"]["value"] == 0.0
    assert page.read_text().startswith("<!doctype html>")
    compare_command.compare([whole, whole / "compare" / "twin.parquet"], html=None, as_json=False, seed=0)
    assert "Difference to whole, on the same problems" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- files of others


def solutions(path: Path) -> Path:
    question = "Ann has 3 boxes with 4 pens each and buys 2 pens more. How many pens has she now?"
    right = "The boxes hold <<3*4=12>>12 pens.\nNow she has <<12+2=14>>14 pens.\n#### 14"
    wrong = right.replace("3*4=12>>12", "3+4=7>>7").replace("12+2=14>>14", "7+2=9>>9").replace("#### 14", "#### 9")
    rows = [
        {"question": f"{number}. {question}", "solution": text, "answer": "14"}
        for number in range(3)
        for text in (right, wrong)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    return path


def test_given_solutions_are_scored_by_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = solutions(tmp_path / "<img src=x>.jsonl")
    evaluate.run_evaluation(EvaluateRequest(DEMO, tmp_path / "out", data=str(source)))
    report = strict(tmp_path / "out" / "report.json")
    assert tuple(report) == KEYS and report["pass_at_k"]["policies"]["this run"]["1"]["value"] == 0.5
    assert "These solutions were given, not sampled" in report["pass_at_k"]["paragraph"]
    assert report["reranking"]["vote"]["chosen_on_calibration"] is False
    assert report["localisation"]["perturbed"]["traces"] > 0 and report["probes"]["reason"] == ""
    assert not (tmp_path / "out" / "calibration.parquet").exists()
    (error,) = (tmp_path / "out" / "run.errors.jsonl").read_text().splitlines()
    assert json.loads(error)["line"] == 7
    text = (tmp_path / "out" / "report.md").read_text()
    assert "<img" not in text and "&lt;img src=x&gt;.jsonl" in text


@pytest.mark.parametrize(("name", "rows"), [("first_error_labels_dev", 171), ("model_solutions_dev", 60)])
def test_real_solutions_are_evaluated_by_the_same_command(shared: Path, tmp_path: Path, name: str, rows: int) -> None:
    lines = (shared / "data" / "traces" / f"{name}.jsonl").read_text().splitlines()[:rows]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    evaluate.run_evaluation(EvaluateRequest(DEMO, tmp_path / "out", data=str(tmp_path / "in.jsonl")))
    report = strict(tmp_path / "out" / "report.json")
    assert tuple(report) == KEYS and report["provenance"]["report"]["traces"]["run"] == rows
    if name == "first_error_labels_dev":
        found = report["localisation"]
        assert found["counts"]["wrong"] == 171 and found["answer_lines"] is False
        # the file's own labels, counted by a plain loop
        labels = [json.loads(line)["first_error_step"] - 1 for line in lines]
        table = read_run(tmp_path / "out" / "run.parquet", ["true_first_error_step"]).to_pydict()
        assert table["true_first_error_step"] == labels
        first = sum(label == 0 for label in labels) / len(labels)
        assert found["methods"]["first"]["exact"]["value"] == pytest.approx(first)
    else:
        right = [json.loads(line)["is_correct"] for line in lines]
        assert report["pass_at_k"]["correct"] == sum(right)


# ------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, r"whole: holds an evaluation that differs in seed \(then 0, now 5\); name another --out,"),
        ({"samples": 4}, r"differs in samples \(then \d+, now 4\);"),
        ({"compare": {}}, r"differs in compare"),
        ({"compare": {"a/b": DEMO}}, r"--compare 'a/b': letters, digits"),
        ({"training": ROOT / "docs"}, r"--training docs: holds no metrics\.jsonl"),
        ({"data": "nowhere.jsonl"}, r"nowhere\.jsonl"),
        ({"problems": 1}, r"--problems is 1; an interval over problems needs two"),
        ({"holds": "solutions"}, r"--holds solutions: demo holds problems"),
    ],
)
def test_orders_that_do_not_fit_are_refused_in_words(
    whole: Path, asked: EvaluateRequest, change: dict[str, Any], message: str
) -> None:
    before = (whole / "report.json").read_bytes()
    with pytest.raises(UserError, match=message):
        evaluate.run_evaluation(replace(asked, **change))
    assert (whole / "report.json").read_bytes() == before


def test_solutions_are_not_sampled(tmp_path: Path) -> None:
    source = solutions(tmp_path / "in.jsonl")
    for change, message in (
        ({"samples": 2}, "--samples 2: in.jsonl holds solutions"),
        ({"problems": 2}, "--problems 2: in.jsonl holds solutions"),
        ({"compare": {"twin": DEMO}}, "--compare: in.jsonl holds solutions"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate.run_evaluation(replace(EvaluateRequest(DEMO, tmp_path / "out", data=str(source)), **change))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_or_holds_something_else(tmp_path: Path, asked: EvaluateRequest) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file cannot be made"):
        evaluate.run_evaluation(replace(asked, out=tmp_path / "file"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.parquet").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"other: holds a run\.parquet of another kind"):
        evaluate.run_evaluation(replace(asked, out=tmp_path / "other"))
    assert (tmp_path / "other" / "run.parquet").read_bytes() == b"mine"


def test_the_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    for arguments, message in (
        (["evaluate", "--out", str(tmp_path / "o"), "--holds", "x"], "--holds 'x': choose one of auto, problems"),
        (["evaluate", "--out", "o", "--compare", "a=demo", "--compare", "a=demo"], "--compare: 'a' is given twice"),
        (["evaluate", "--out", "o", "--compare", "demo"], "--compare 'demo': NAME=CHECKPOINT is expected"),
        (["report", str(tmp_path)], "holds no run.parquet"),
        (["compare", str(tmp_path)], "1 run to compare; name two at least"),
        (["report", str(tmp_path), str(ROOT), "--out", str(tmp_path)], "--out is one folder, and 2 runs are named"),
    ):
        process = command(*arguments)
        printed = process.communicate(timeout=200)[1]
        assert process.returncode == 2 and message in printed and "Traceback" not in printed, printed
        assert printed.startswith("irl-lens: ") and len(printed.splitlines()) == 1


def test_a_full_memory_is_told_in_words(
    asked: EvaluateRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(rollouts.LoadedPolicy, "sample", full)
    with pytest.raises(ConfigError, match=r"memory of cpu is full \(CUDA out of memory\); free it or take --device"):
        evaluate.run_evaluation(replace(asked, out=tmp_path / "out"))
    assert load_json(tmp_path / "out" / "status.json")["state"] == "failed"


def test_a_dry_run_makes_nothing(asked: EvaluateRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.run_evaluation(replace(asked, out=tmp_path / "out", dry_run=True))
    printed = capsys.readouterr().out
    assert "4 problems x 3 samples: 12 solutions" in printed and "twin: 12 solutions" in printed
    assert not (tmp_path / "out").exists()
    source = solutions(tmp_path / "in.jsonl")
    evaluate.run_evaluation(EvaluateRequest(DEMO, tmp_path / "out", data=str(source), dry_run=True))
    assert "in.jsonl: 7 lines of solutions" in capsys.readouterr().out


def test_no_resume_starts_again(whole: Path, asked: EvaluateRequest, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(whole, again)
    evaluate.run_evaluation(replace(asked, out=again, seed=5, compare={}, training=None, resume=False))
    report = strict(again / "report.json")
    assert report["provenance"]["seed"] == 5 and report["pass_at_k"]["differences"] == {}
    assert report["training"]["reason"] and not list((again / "compare").glob("*"))
