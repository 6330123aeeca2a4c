"""Trainings as the app shows them: what is in ``runs/``, how it goes, and metrics against steps, tokens and hours."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.jobs import supervisor, training_runs
from app.jobs.supervisor import Wanted
from app.jobs.training_runs import TrainingRun
from irl_core.storage.training_run import machine, started


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_runs, "default_roots", lambda: (tmp_path / "assets",))
    return tmp_path / "runs"


def a_run(folder: Path, name: str = "a", *, config: str = "run: {method: irl, preset: demo-irl, seed: 7, steps: 9}",
          lines: Any = (), **status: Any) -> Path:  # fmt: skip
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(config)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status:
        (path / "status.json").write_text(json.dumps(status))
    return path


def here(**more: Any) -> dict[str, Any]:
    """A status that this process writes now."""
    own = {"pid": os.getpid(), "process_started": started(os.getpid()), "machine": machine()}
    return {"state": "running", "phase": "sampling", "step": 3, "steps": 9, "seconds_left": 12.0, **own, **more}


# ---------------------------------------------------------------------------------------------------------- catalogue


def test_a_run_that_was_cancelled_is_called_so_as_its_job_is(runs: Path) -> None:
    """Its process, told to stop, says 'interrupted': it cannot know by whom."""
    a_run(runs, "a", state="interrupted", step=3, steps=9)
    a_run(runs, "b", state="interrupted", step=3, steps=9)
    jobs = supervisor.jobs_table()
    for name, state in (("a", "cancelled"), ("b", "cancelled"), ("b", "interrupted")):  # the last job of b was not
        job = supervisor.start(Wanted("train", name, [sys.executable, "-c", ""], runs / name, "cpu"))
        while supervisor.get(job.id).active:
            time.sleep(0.05)
        jobs.change(supervisor.get(job.id), state=state)
    assert {run.name: run.state for run in training_runs.catalogue()} == {"a": "cancelled", "b": "interrupted"}


@pytest.mark.parametrize(
    ("state", "every", "words"),
    [
        ("finished", "0", "run.eval_every is 0; run.eval_every=20 measures every 20 steps"),
        ("finished", "", "its settings do not say how often to measure; run.eval_every=20 measures every 20 steps"),
        ("running", "50", "it is measured every 50 steps, and has not been yet"),
        ("cancelled", "50", "it was to be measured every 50 steps, and the run ended before"),
    ],
)
def test_why_there_is_no_line_on_held_out_problems(runs: Path, state: str, every: str, words: str) -> None:
    run = replace(training_runs.read(a_run(runs)), state=state)
    assert training_runs.no_held_out_words(run, every) == words


def test_a_run_is_read_with_its_settings_and_status(runs: Path) -> None:
    found = training_runs.read(a_run(runs, **here(warnings=2, reason="")))
    assert found == TrainingRun(
        name="a", path=runs / "a", state="running", phase="sampling", step=3, steps=9, seconds_left=12.0, reason="",
        warnings=2, method="irl", preset="demo-irl", seed=7,
    )  # fmt: skip
    assert found.active and found.share == pytest.approx(1 / 3)
    assert training_runs.progress_words(found) == "step 3 of 9, sampling, 12 s left"


WITHOUT = "loading the programs, the problems and the policy"
WITH_REWARD = "loading the programs, the problems, the policy and the reward model"


@pytest.mark.parametrize(
    ("changes", "seconds", "words"),
    [
        ({"phase": "loading"}, 75.0, f"step 0 of 9: {WITH_REWARD}, 75 s so far"),
        ({"phase": "starting"}, None, f"step 0 of 9: {WITH_REWARD}"),
        ({"phase": "loading", "method": "sft"}, 200.0, f"step 0 of 9: {WITHOUT}, 3 min so far"),
        ({"state": "unknown", "phase": "", "steps": 0, "method": ""}, 4.0, f"starting: {WITHOUT}, 4 s so far"),
        ({"state": "interrupted", "phase": "", "method": "sft"}, 4.0, f"step 0 of 9: {WITHOUT}, 4 s so far"),
        ({"state": "interrupted", "phase": ""}, None, "step 0 of 9"),
        ({"state": "finished", "phase": "", "step": 9}, 4.0, "step 9 of 9"),
    ],
)
def test_while_it_loads_it_says_what_and_for_how_long(
    runs: Path, changes: dict[str, Any], seconds: float | None, words: str
) -> None:
    found = replace(training_runs.read(a_run(runs, **here())), step=0, seconds_left=None)
    assert training_runs.progress_words(replace(found, **changes), seconds) == words


def test_a_run_whose_process_is_gone_was_killed(runs: Path) -> None:
    assert training_runs.read(a_run(runs, **here(process_started=1.0))).state == "killed"


@pytest.mark.parametrize("state", ["finished", "failed", "stopped", "interrupted"])
def test_what_has_ended_is_as_it_says(runs: Path, state: str) -> None:
    found = training_runs.read(a_run(runs, state=state, step=9, steps=9, seconds_left=None))
    assert found.state == state and not found.active
    assert training_runs.progress_words(found) == "step 9 of 9"


def test_a_run_without_a_status_is_unknown_and_broken_files_are_empty(runs: Path) -> None:
    assert training_runs.read(a_run(runs)).state == "unknown"
    broken = a_run(runs, "b", config="{a: [", state="x")
    (broken / "status.json").write_text("{half")
    found = training_runs.read(broken)
    assert (found.state, found.method, found.seed) == ("unknown", "", None) and "status.json" in found.reason
    assert training_runs.read(a_run(runs, "c", config="just text")).preset == ""
    assert training_runs.read(a_run(runs, "d", config="x: " + "y" * 1_000_001)).preset == ""


def test_the_catalogue_has_the_last_written_first_and_nothing_else(runs: Path, tmp_path: Path) -> None:
    assert training_runs.catalogue() == []
    for age, name in enumerate(["new", "older", "oldest"]):
        for file in a_run(runs, name).iterdir():
            os.utime(file, (time.time() - age * 100,) * 2)
    (runs / "uploads").mkdir()
    (runs / "jobs.sqlite").write_text("")
    a_run(tmp_path / "elsewhere", "secret")
    (runs / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    assert [run.name for run in training_runs.catalogue()] == ["new", "older", "oldest"]


def test_the_bundled_training_comes_last(runs: Path, tmp_path: Path) -> None:
    a_run(runs)
    a_run(tmp_path / "assets", "scored_run", lines=[{"step": 1}])
    assert [(run.name, run.state) for run in training_runs.catalogue()] == [
        ("a", "unknown"), ("demo (bundled)", "bundled")
    ]  # fmt: skip


def test_a_job_is_at_its_own_run_or_at_one_that_is_trained_first(runs: Path) -> None:
    code = "import time; time.sleep(30)"
    job = supervisor.start(Wanted("train", "t", [sys.executable, "-c", code], runs / "later", "cpu"))
    try:
        while not (known := (job := supervisor.get(job.id)).child):
            time.sleep(0.05)
        assert training_runs.run_of(job).name == "later"
        a_run(runs, "other", **here())
        a_run(runs, "first", **here(pid=known))
        assert training_runs.run_of(job).name == "first"
    finally:
        supervisor.cancel(job.id)
        while supervisor.get(job.id).active:
            time.sleep(0.05)
    assert training_runs.run_of(supervisor.get(job.id)).name == "later"


# ------------------------------------------------------------------------------------------------------------ metrics


def test_metrics_are_read_without_a_line_that_was_cut_off(runs: Path) -> None:
    path = a_run(runs, lines=[{"step": 1, "a": 2.0}, {"step": 2, "b": 3.0}])
    before = training_runs.version(path)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "a"')
    assert training_runs.metrics(path) == [{"step": 1, "a": 2.0}, {"step": 2, "b": 3.0}]
    assert training_runs.names([training_runs.metrics(path)]) == ["a", "b"]
    assert training_runs.version(path) != before
    assert training_runs.version(runs / "none") == (str(runs / "none"), 0, 0)


def test_metrics_against_tokens_and_hours() -> None:
    lines = [
        {"step": 1, "a": 5.0, "train/tokens": 100.0, "time/step_s": 1800.0},
        {"step": 2, "a": 6.0, "train/tokens": 50.0, "time/step_s": 1800.0, "time/evaluate_s": 3600.0},
        {"step": 3, "a": 7.0, "rollout/tokens": 10.0, "time/generate_s": 900.0, "time/policy_s": 900.0},
    ]
    assert training_runs.against(lines, "step") == lines
    assert [line["step"] for line in training_runs.against(lines, "tokens")] == [100, 150, 160]
    assert [line["step"] for line in training_runs.against(lines, "hours")] == [0.5, 2.0, 2.5]
    assert [line["a"] for line in training_runs.against(lines, "hours")] == [5.0, 6.0, 7.0]
    assert lines[0]["step"] == 1


def test_what_training_did_is_that_of_the_report() -> None:
    from irl_core.evaluation.training import paragraph

    lines = [{"step": step, "disc/reward_policy": float(step), "rollout/correct": step / 40} for step in range(1, 41)]
    found = training_runs.behaviour(lines)
    assert found.figures.rank_correlation["rollout/correct"]["levels"].value == pytest.approx(1.0)
    assert found.paragraph == paragraph(found.figures) and found.paragraph.startswith("Over 40 steps")
    assert "undefined" in training_runs.behaviour([]).paragraph
    assert training_runs.outcome(lines) == found.paragraph


def test_of_a_training_without_a_reward_what_there_is_is_told_and_nothing_called_undefined() -> None:
    """Supervised training has a loss, and held-out problems where they were evaluated; the rest is not its business."""
    lines = [{"step": float(step), "policy/loss": 8.0 - step} for step in range(1, 6)]
    assert training_runs.outcome(lines) == (
        "5 steps are finished. Latest values: loss of the policy 3.000 (first 7.000). "
        "It was not evaluated on held-out problems."
    )
    for place, value in ((0, 0.25), (-1, 0.75)):
        lines[place] |= {"eval/pass@1": value, "eval/low": value - 0.1, "eval/high": value + 0.1, "eval/n": 64.0}
    told = training_runs.outcome(lines)
    assert "pass@1 on held-out problems 0.750 (first 0.250)" in told and "better than at the start" in told
    assert "undefined" not in told and "not evaluated" not in told
    assert training_runs.outcome(lines[:1]).startswith("1 step is finished.")


def test_a_training_too_short_for_its_reward_to_be_set_beside_correctness_tells_its_values() -> None:
    lines = [{"step": 1.0, "disc/reward_policy": 0.5, "rollout/correct": 0.25, "disc/loss": 0.7}]
    told = training_runs.outcome(lines)
    assert "right 0.250, loss of the reward model 0.700" in told and "undefined" not in told


# ------------------------------------------------------------------------------------------------------- log and words


def test_the_log_is_shown_as_text_and_its_warnings_apart(runs: Path) -> None:
    path = a_run(runs)
    assert training_runs.log_lines(path) == [] == training_runs.warnings(path)
    (path / "log.txt").write_bytes(b"t1 started\nt2 warning: a \x1b[31mgroup is short\nt3 " + b"x" * 1000 + b"\xff\n")
    assert training_runs.log_lines(path, 2) == ["t2 warning: a  [31mgroup is short", "t3 " + "x" * 397]
    assert training_runs.warnings(path) == ["t2 a  [31mgroup is short"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (30.0, ", 30 s left"), (600.0, ", 10 min left"), (7200.0, ", 2.0 h left")],
)
def test_the_time_left_in_words(runs: Path, seconds: float | None, words: str) -> None:
    run = replace(training_runs.read(a_run(runs)), step=3, steps=9, seconds_left=seconds)
    assert training_runs.progress_words(run) == f"step 3 of 9{words}"


def test_a_running_training_is_never_called_undefined(runs: Path) -> None:
    run = training_runs.read(a_run(runs, **here()))
    assert training_runs.so_far(run, []) == "It runs, and no step is finished yet."
    lines = [{"step": 1.0, "rollout/correct": 0.25}, {"step": 2.0, "rollout/correct": 0.5, "policy/loss": 1.5}]
    assert training_runs.so_far(run, lines) == (
        f"It runs: 2 of {run.steps} steps are finished. Latest values: share of training samples that are right 0.500 "
        "(first 0.250), loss of the policy 1.500."
    )
