"""The Runs page: search, notes, settings that differ, seeds together, an evaluation as a job."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from streamlit.testing.v1 import AppTest

from app.analysis import catalogue, chooser
from app.jobs import supervisor, training_runs
from app.jobs.logs import job_tail
from app.runs import table
from app.runs.labels import MOST_NOTE, Label, LabelError, Labels, tags_of
from irl_core.storage.training_run import CONFIG, METRICS, STATUS
from tests.evaluated import simulated
from tests.scored import written

PAGE = Path(__file__).resolve().parents[2] / "app" / "views" / "runs.py"
pytestmark = pytest.mark.usefixtures("fake_lens")


def training(folder: Path, name: str, seed: int, result: float, rate: float = 1e-4) -> None:
    place = folder / "runs" / name
    place.mkdir(parents=True)
    config = {
        "run": {"method": "irl", "preset": "demo-irl", "seed": seed, "steps": 2},
        "policy": {"learning_rate": rate},
    }
    (place / CONFIG).write_text(yaml.safe_dump(config))
    (place / STATUS).write_text(json.dumps({"state": "finished", "step": 2, "steps": 2, "pid": 1}))
    lines = [{"step": 1, "eval/pass@1": 0.1}, {"step": 2, "eval/pass@1": result}]
    (place / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three trainings, two of which differ in their seed alone."""
    monkeypatch.chdir(tmp_path)
    training(tmp_path, "one", 1, 0.5)
    training(tmp_path, "two", 2, 0.7)
    training(tmp_path, "fast", 1, 0.2, rate=1e-3)
    chooser.catalogue.clear()
    return tmp_path


def found(**labels: Label) -> list[table.Run]:
    trainings = training_runs.catalogue()
    results = {"one": 0.5, "two": 0.7, "fast": 0.2}
    return table.runs(trainings, results, [], {f"training/{name}": label for name, label in labels.items()}, str)


def test_runs_are_searched_by_all_words_and_archived_ones_only_where_wanted(home: Path) -> None:
    runs = found(two=Label(("paper",), "the good one"), fast=Label(archived=True))
    names = [run.name for run in table.search(runs, "", "training")]
    assert {"one", "two"} < set(names) and "fast" not in names
    assert [run.name for run in table.search(runs, "GOOD paper")] == ["two"]
    assert [run.name for run in table.search(runs, "fast", archived=True)] == ["fast"]
    assert table.search(runs, "", "scored run") == [] and table.search(runs, "good bad") == []


def test_a_scored_run_says_how_many_solutions_its_model_cannot_judge(home: Path, tmp_path: Path) -> None:
    unlike, like = {"cannot_judge": True, "familiar": False}, {"cannot_judge": False, "familiar": True}
    rows = simulated(1, 4)
    path = tmp_path / "run.parquet"

    def told(*flags: dict[str, bool]) -> list[Any]:
        if flags:
            written(path, [row | more for row, more in zip(rows, flags, strict=False)])
        scored = [catalogue.run_info("mine", path)]
        return [row[table.JUDGED] for row in table.rows(table.runs([], {}, scored, {}, str))]

    assert told(unlike, like, like) == ["1 of 3 (1 unfamiliar)"]
    before = catalogue.judged.cache_info().misses
    assert told() == ["1 of 3 (1 unfamiliar)"]
    assert catalogue.judged.cache_info().misses == before  # the file is not read again
    assert told(unlike, unlike) == ["2 of 2 (2 unfamiliar)"]
    assert told({}) == ["not measured"]
    path.write_bytes(b"no run")
    assert told() == [""]
    assert [row[table.JUDGED] for row in table.rows(found())][:1] == [""]  # of a training there is nothing to say


def test_settings_that_differ_and_seeds_together(home: Path) -> None:
    runs = {run.name: run for run in found()}
    assert table.differences([runs["one"], runs["two"]]) == [{"setting": "run.seed", "one": "1", "two": "2"}]
    assert [row["setting"] for row in table.differences([runs["one"], runs["fast"]])] == ["policy.learning_rate"]
    (row,) = table.seeds_together(list(runs.values()))
    assert (row["runs"], row["seeds"], row["n"]) == ("one, two", "1, 2", 2)
    assert row["mean pass@1"] == pytest.approx(0.6) and row["standard deviation"] == pytest.approx(0.1414, abs=1e-4)


def test_settings_that_all_have_come_first_and_a_run_without_any_has_no_column(home: Path) -> None:
    runs = {run.name: run for run in found()}
    (home / "runs" / "two" / CONFIG).write_text("{a: 1, run: {seed: 2, method: irl, preset: demo-irl, steps: 2}}")
    rows = table.differences([runs["one"], runs["two"]])
    assert [row["setting"] for row in rows] == ["run.seed", "a", "policy.learning_rate"]  # what both have comes first
    assert rows[1] == {"setting": "a", "one": "not set", "two": "1"}
    (home / "runs" / "two" / CONFIG).unlink()
    assert table.differences([runs["one"], runs["two"]]) == []


@pytest.mark.parametrize("config", ["[", "a: &a [*a]", "x" * 2_000_000, "- 1", "", "\0"])
def test_a_configuration_that_cannot_be_read_is_empty(tmp_path: Path, config: str) -> None:
    (tmp_path / CONFIG).write_text(config)
    assert table.settings(tmp_path) == {} or config.startswith("a:")


def test_labels_are_kept_within_their_limits(tmp_path: Path) -> None:
    store = Labels(tmp_path / "labels.sqlite")
    assert store.all() == {} and tags_of(" a, b,\na,, ") == ("a", "b")
    store.put("training/x", Label(("a", "b"), "n"))
    store.put("training/x", Label(("a",), "m", archived=True))
    assert store.all() == {"training/x": Label(("a",), "m", True)}
    for wrong in ({"tags": ("a" * 41,)}, {"tags": tuple(map(str, range(21)))}, {"note": "x" * (MOST_NOTE + 1)}):
        with pytest.raises(LabelError):
            Label(**wrong)  # type: ignore[arg-type]
    store.path.write_bytes(b"no database" * 50)
    with pytest.raises(LabelError, match="is damaged"):
        store.all()


def open_page() -> AppTest:
    page = AppTest.from_file(str(PAGE), default_timeout=90).run()
    assert not page.exception
    return page


def captions(page: AppTest) -> list[str]:
    return [one.value.replace("\\", "") for one in page.caption]


def press(page: AppTest, label: str) -> None:
    next(one for one in page.button if one.label == label).click().run()
    assert not page.exception


def test_a_run_is_noted_on_and_archived(home: Path) -> None:
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one"]).run()
    page.text_input(key="tags_training/one").set_value("paper, seed 1")
    page.text_input(key="note_training/one").set_value("[a](http://x)")
    press(page, "Save")
    assert Labels().all() == {"training/one": Label(("paper", "seed 1"), "[a](http://x)")}
    press(page, "Archive")
    assert Labels().all()["training/one"].archived and page.multiselect(key="runs_chosen").value == []
    assert "one" not in list(page.dataframe[0].value["run"])
    assert "one is archived: 'Archived too' shows it. Its files stay." in captions(page)
    press(page, "Undo")
    assert Labels().all() == {"training/one": Label(("paper", "seed 1"), "[a](http://x)")}
    assert "one" in list(page.dataframe[0].value["run"]) and "archived" not in "\n".join(captions(page))
    assert [one.value.replace("\\", "") for one in page.toast] == ["one is out of the archive."]


def test_what_is_archived_in_a_search_is_told_and_counted_apart(home: Path) -> None:
    page = open_page()
    before = next(one for one in captions(page) if " shown" in one)
    total = int(before.split()[2])
    page.text_input(key="runs_words").set_value("fast").run()
    page.multiselect(key="runs_chosen").set_value(["training/fast"]).run()
    press(page, "Archive")
    assert f"0 of {total - 1} runs shown, and 1 archived." in captions(page)
    assert any(one.startswith("fast is archived") for one in captions(page))
    assert not page.dataframe or "run" in page.dataframe[0].value  # no table without the names of its columns
    assert [one.value for one in page.info] == [
        "No run is left: clear the search, choose another kind, or show the archived ones too."
    ]
    page.toggle(key="runs_archived").set_value(True).run()
    assert any(one.startswith(f"1 of {total} runs shown. Choose one to note") for one in captions(page))


def test_tags_and_notes_have_room_and_times_their_zone(home: Path) -> None:
    page = open_page()
    assert '"width"' not in page.dataframe[0].proto.columns
    Labels().put("training/one", Label(("newcomer", "csv"), "My ten rows"))
    page.run()
    columns = json.loads(page.dataframe[0].proto.columns)
    assert (columns["tags"]["width"], columns["note"]["width"]) == (110, 200)
    assert "written (UTC)" in page.dataframe[0].value


def test_of_several_runs_it_is_said_which_was_stopped_and_what_one_can_be_chosen_for(home: Path) -> None:
    for name in ("one", "two"):
        status = {"state": "interrupted" if name == "one" else "finished", "step": 1, "steps": 2, "pid": 1}
        (home / "runs" / name / STATUS).write_text(json.dumps(status))
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one", "training/two"]).run()
    assert "one, *interrupted*: it was asked to stop from outside, finished its step and saved." in captions(page)
    assert any("Choose one to note, score or evaluate it, several to compare them." in one for one in captions(page))
    page.multiselect(key="runs_chosen").set_value([]).run()
    assert any("Of that of gsm8k no curves were kept" in one for one in captions(page))


def test_two_runs_are_compared_and_seeds_stand_together(home: Path) -> None:
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one", "training/fast"]).run()
    tables: list[Any] = [one.value for one in page.dataframe]
    assert "policy.learning_rate" in next(list(one["setting"]) for one in tables if "setting" in one)
    assert list(next(one for one in tables if "seeds" in one)["runs"]) == ["one, two"]


def test_a_run_that_does_not_tell_its_settings_is_named_and_fills_no_column(home: Path) -> None:
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one", "training/demo (bundled)"]).run()
    assert "Of demo (bundled) no settings are known here." in captions(page)
    tables: list[Any] = [one.value for one in page.dataframe]
    assert not [one for one in tables if "setting" in one]


def test_two_scored_runs_have_their_figures_beside_each_other(home: Path) -> None:
    written(home / "runs" / "first" / "run.parquet", simulated(12, 2), checkpoint="demo")
    written(home / "runs" / "second" / "run.parquet", simulated(12, 1), checkpoint="demo")
    chooser.catalogue.clear()
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["scored/first", "scored/second"]).run()
    assert not page.exception
    tables: list[Any] = [one.value for one in page.dataframe]
    rows = next(one for one in tables if "right" in one).set_index("run")
    first, second = simulated(12, 2), simulated(12, 1)
    for name, given in (("first", first), ("second", second)):
        right = sum(bool(row["correct"]) for row in given)
        assert rows["right"][name] == f"{right} of {len(given)} ({right / len(given):.0%})"
        assert rows["solutions"][name] == str(len(given)) and rows["checkpoint"][name] == "demo"
    assert rows["pass@1"]["first"] == pytest.approx(sum(bool(row["correct"]) for row in first) / 24)
    assert 0 <= rows[table.BEST]["first"] <= 1 and pd.isna(rows[table.BEST]["second"])  # nothing to choose
    columns = json.loads(page.dataframe[0].proto.columns)
    assert columns["tags"]["hidden"] and columns["note"]["hidden"] and "hidden" not in columns.get("checkpoint", {})


def offer_the_first_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the training's checkpoint one that can be chosen and loaded, though it holds no model."""
    from app.inspect import scoring_queue
    from irl_core.checkpoints.find import CheckpointInfo

    final = home / "runs" / "one" / "final"
    monkeypatch.setattr(
        scoring_queue, "sources",
        scoring_queue.Sources(scoring_queue.sources.factory, lambda: [CheckpointInfo("one/final", final, True)]),
    )  # fmt: skip
    monkeypatch.setattr(scoring_queue, "unusable_without_base", lambda info: info)


def test_an_evaluation_is_started_as_a_job(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_the_first_run(home, monkeypatch)
    started: list[Any] = []

    def start(job: supervisor.Wanted) -> Any:
        started.append((job.kind, job.title, job.command, job.run_dir))
        raise supervisor.JobError("the device is busy")

    monkeypatch.setattr(supervisor, "start", start)
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one"]).run()
    page.number_input(key="problems_training/one").set_value(12).run()
    press(page, "Evaluate it")
    kind, title, command, folder, *_ = started[0]
    assert (kind, title, folder.name) == ("evaluate", "evaluation of one", "evaluation")
    assert command[command.index("--problems") + 1] == "12" and command[command.index("--data") + 1] == "demo"
    assert any("Not started: the device is busy" in one.value.replace("\\", "") for one in page.error)


def test_a_training_without_a_reward_is_not_evaluated(home: Path) -> None:
    config = home / "runs" / "one" / CONFIG
    config.write_text(config.read_text().replace("irl", "sft", 1))
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one"]).run()
    assert "sft trains the policy alone: there is no reward that could be evaluated." in captions(page)
    assert "Evaluate it" not in [one.label for one in page.button]


def test_an_evaluation_that_runs_is_followed_where_it_was_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_the_first_run(home, monkeypatch)
    real = supervisor.start
    code = "import time; print('Sampled 3 of 12', flush=True); time.sleep(60)"
    monkeypatch.setattr(supervisor, "start", lambda job: real(replace(job, command=[sys.executable, "-c", code])))
    page = open_page()
    page.multiselect(key="runs_chosen").set_value(["training/one"]).run()
    press(page, "Evaluate it")
    (job,) = supervisor.list_jobs()
    assert [one.value.replace("\\", "") for one in page.toast] == ["Job 1 evaluates one now."]
    while "Sampled" not in job_tail(job):
        time.sleep(0.05)
    page.run()
    assert "**Job 1**: evaluation of one" in [one.value for one in page.markdown]
    assert [one.proto.text for one in page.get("progress")] == ["Sampled 3 of 12"]
    assert "Evaluate it" not in [one.label for one in page.button]
    supervisor.cancel(1)
    while supervisor.get(1).active:
        time.sleep(0.05)
    page.run()
    assert any(one.startswith("Job 1, evaluation of one, was not finished (cancelled") for one in captions(page))
    assert "Evaluate it" in [one.label for one in page.button]
    (job.run_dir / "run.parquet").write_bytes(b"")
    page.run()
    assert "It was evaluated: one/evaluation is among the scored runs." in captions(page)


def test_a_scored_run_is_scored_again_by_another_checkpoint_or_it_is_said_why_not(
    home: Path, monkeypatch: pytest.MonkeyPatch, fake_lens: None
) -> None:
    started: list[Any] = []

    def start(job: supervisor.Wanted) -> Any:
        started.append((job.kind, job.title, job.command, job.run_dir))
        raise supervisor.JobError("the disk is full")

    monkeypatch.setattr(supervisor, "start", start)
    page = open_page()
    page.session_state["checkpoint"] = "fake"  # of the sidebar
    page.multiselect(key="runs_chosen").set_value(["scored/scored_run"]).run()
    press(page, "Score it again with fake")
    kind, title, command, folder, *_ = started[0]
    assert (kind, title, folder.name) == ("score", "scoring of scored_run by fake", "scored_run-by-fake")
    assert command[3] == "score" and command[command.index("--format") + 1] == "scored-run"
    assert any("Not started: the disk is full" in one.value.replace("\\", "") for one in page.error)
    monkeypatch.setattr(chooser, "scored_by", lambda run, name: True)
    page.run()
    assert any("Scored by fake already" in one.value.replace("\\", "") for one in page.caption)
    assert not [one for one in page.button if one.label.startswith("Score it again")]
