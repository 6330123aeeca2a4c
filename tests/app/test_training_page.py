"""The Training curves page: runs beside each other, against steps, tokens and hours, live, with words and logs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.components import chart
from app.jobs import training_runs
from app.jobs.training_form import LOSS_WORDS, METHOD_WORDS, MISTAKES
from app.jobs.training_plan import LOSS, METHOD, PERTURBATIONS, allowed
from app.runs.labels import Label, Labels
from irl_core.evaluation import scores
from irl_core.methods import METHODS
from irl_core.report.charts import training as training_charts
from irl_core.report.terms import term_of
from irl_core.storage.training_run import machine, started

VIEW = Path(__file__).resolve().parents[2] / "app" / "views" / "training.py"
Drawn = list[tuple[dict[str, list[dict[str, float]]], tuple[str, ...], int]]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_runs, "default_roots", lambda: (tmp_path / "assets",))
    return tmp_path / "runs"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawn]:
    """What the charts were asked to draw: runs, metrics, smoothing."""
    found: Drawn = []
    real = training_charts.training

    def training(runs: Mapping[str, Any], metrics: Sequence[str], *, smooth: int = 1, **look: Any) -> Any:
        found.append(({name: list(lines) for name, lines in runs.items()}, tuple(metrics), smooth))
        return real(runs, metrics, smooth=smooth, **look)

    monkeypatch.setattr(training_charts, "training", training)
    yield found


def a_run(folder: Path, name: str, steps: int = 30, *, state: str = "finished", reason: str = "") -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(f"run: {{method: irl, preset: demo-irl, seed: 7, steps: {steps}}}")
    lines = [
        {"step": step, "disc/reward_expert": 1.0, "disc/reward_policy": step / steps, "rollout/correct": step / steps,
         "disc/accuracy_expert": 0.9, "policy/loss": 0.5, "train/tokens": 10.0, "time/step_s": 36.0}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    lines[-1] |= {"eval/pass@1": 0.5, "eval/low": 0.4, "eval/high": 0.6, "eval/n": 64}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = {"state": state, "step": steps, "steps": steps, "reason": reason, "warnings": 0}
    (path / "status.json").write_text(json.dumps(status))
    return path


def open_page() -> AppTest:
    page = AppTest.from_file(str(VIEW), default_timeout=60).run()
    assert not page.exception
    return page


def texts(page: AppTest) -> str:
    kinds = (page.info, page.caption, page.markdown, page.subheader, page.warning, page.code)
    return "\n".join(str(one.value) for kind in kinds for one in kind).replace("\\", "")


def test_without_a_training_the_page_says_how_to_start_one() -> None:
    assert "There is no training yet. *Train \u2026* in the sidebar starts one" in texts(open_page())


def test_the_last_run_is_shown_by_class_with_held_out(runs: Path, drawn: Drawn) -> None:
    a_run(runs, "a")
    page = open_page()
    assert [metrics for _, metrics, _ in drawn] == [
        ("disc/reward_expert", "disc/reward_policy"), ("rollout/correct", "eval/pass@1"), ("disc/accuracy_expert",),
        ("policy/loss",),
    ]  # fmt: skip
    assert drawn[0][0]["a"][9]["disc/reward_policy"] == pytest.approx(1 / 3)
    row = page.dataframe[0].value.iloc[0]
    assert (row["run"], row["state"], row["where"], row["progress"]) == ("a", "finished", "step 30 of 30", 1.0)
    assert "Over 30 steps, the change of held-out" in texts(page)
    assert "rank correlation of the mean reward of policy samples" in texts(page)


def test_runs_lie_over_each_other_against_tokens_and_hours_smoothed(runs: Path, drawn: Drawn) -> None:
    a_run(runs, "a")
    a_run(runs, "b", 20)
    page = open_page()
    page.multiselect(key="training_runs").set_value(["a", "b"]).run()
    assert {name: len(lines) for name, lines in drawn[-1][0].items()} == {"a": 30, "b": 20}
    page.segmented_control(key="training_axis").set_value("hours").run()
    assert [line["step"] for line in drawn[-1][0]["b"][:2]] == pytest.approx([0.01, 0.02])  # 36 s are 0.01 h
    page.segmented_control(key="training_axis").set_value("tokens").run()
    assert drawn[-1][0]["b"][-1]["step"] == 200
    page.slider(key="training_smooth").set_value(5).run()
    assert drawn[-1][2] == 5
    page.multiselect(key="training_metrics").set_value(["train/tokens"]).run()
    assert drawn[-1][1] == ("train/tokens",)
    assert not page.exception


def test_seeds_are_drawn_as_one_line_where_wanted(runs: Path, drawn: Drawn) -> None:
    for name, seed in (("a", 7), ("b", 8)):
        path = a_run(runs, name)
        (path / "config.yaml").write_text(f"run: {{method: irl, preset: demo-irl, seed: {seed}, steps: 30}}")
    page = open_page()
    page.multiselect(key="training_runs").set_value(["a"]).run()
    assert page.toggle(key="training_seeds").disabled  # there is nothing to draw together
    page.multiselect(key="training_runs").set_value(["a", "b"]).run()
    page.toggle(key="training_seeds").set_value(True).run()
    page.toggle(key="training_log").set_value(True).run()
    assert (
        list(drawn[-1][0]) == ["demo-irl, mean of seeds 7, 8"]
        and len(drawn[-1][0]["demo-irl, mean of seeds 7, 8"]) == 30
    )
    assert not page.exception


def test_what_the_curves_say_stands_before_numbers_and_charts(runs: Path) -> None:
    a_run(runs, "a")
    page = open_page()
    kinds = [one.type for one in page.main]
    assert kinds.index("markdown") < kinds.index("dataframe") < kinds.index("plotly_chart")


def test_every_chart_has_its_table(runs: Path) -> None:
    a_run(runs, "a")
    page = open_page()
    tables = [frame.value for frame in page.dataframe[1:]]
    assert len(tables) == 4 and all(len(table) for table in tables)


def test_a_run_that_goes_on_is_chosen_and_drawn_anew(runs: Path, drawn: Drawn) -> None:
    own = {"pid": os.getpid(), "process_started": started(os.getpid()), "machine": machine()}
    path = a_run(runs, "live", 10)
    status = {"state": "running", "step": 10, "steps": 100, "phase": "sampling", "seconds_left": 600.0, **own}
    (path / "status.json").write_text(json.dumps(status))
    a_run(runs, "done")
    page = open_page()
    assert page.multiselect(key="training_runs").value == ["live"]
    assert page.dataframe[0].value.iloc[0]["where"] == "step 10 of 100, sampling, 10 min left"
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 11, "disc/reward_expert": 2.0}) + "\n")
    page.run()
    assert len(drawn[-1][0]["live"]) == 11


def begin(runs: Path) -> Path:
    """A supervised training that has begun, and finished no step."""
    own = {"pid": os.getpid(), "process_started": started(os.getpid()), "machine": machine()}
    path = runs / "live"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text("run: {method: sft, preset: demo-sft, seed: 7, steps: 40}")
    (path / "status.json").write_text(json.dumps({"state": "running", "step": 0, "steps": 40, **own}))
    return path


def log_steps(path: Path, **values: float) -> None:
    (path / "metrics.jsonl").write_text("".join(json.dumps({"step": at, **values}) + "\n" for at in (1, 2)))


def test_a_run_that_is_watched_from_its_start_gets_the_usual_metrics_with_its_first_step(
    runs: Path, drawn: Drawn
) -> None:
    path = begin(runs)
    page = open_page()
    assert page.multiselect(key="training_metrics").value == [] and not drawn
    log_steps(path, **{"policy/loss": 2.0, "train/tokens": 5.0})
    page.run()
    assert page.multiselect(key="training_metrics").value == ["policy/loss"] and drawn[-1][1] == ("policy/loss",)
    page.multiselect(key="training_metrics").set_value(["train/tokens"]).run()
    log_steps(path, **{"policy/loss": 2.0, "train/tokens": 5.0, "disc/loss": 1.0})
    page.run()
    assert page.multiselect(key="training_metrics").value == ["train/tokens"]  # what a person has chosen stays
    page.multiselect(key="training_metrics").set_value([]).run()
    assert page.run().multiselect(key="training_metrics").value == []


def test_a_first_step_that_ends_between_two_looks_has_the_page_drawn_anew(
    runs: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = begin(runs)
    real, looks = training_runs.catalogue, iter(range(1000))

    def catalogue() -> list[training_runs.TrainingRun]:
        if next(looks) == 2:  # after the page and the words, whose metrics were not there yet
            log_steps(path, **{"policy/loss": 2.0})
        return real()

    monkeypatch.setattr(training_runs, "catalogue", catalogue)
    page = open_page()
    assert page.multiselect(key="training_metrics").value == ["policy/loss"] and drawn[-1][1] == ("policy/loss",)


def test_warnings_reasons_and_the_log_are_text_and_no_markup(runs: Path) -> None:
    path = a_run(runs, "a", state="failed", reason="ConfigError: ![x](http://x.invalid/)")
    (path / "log.txt").write_text("t1 started\nt2 warning: a group is :red[short]\n")
    page = open_page()
    assert page.dataframe[0].value.iloc[0]["reason"] == "ConfigError: ![x](http://x.invalid/)"
    assert page.warning[0].value == r"t2 a group is \:red\[short\]"
    assert page.code[0].value.splitlines() == ["t1 started", "t2 warning: a group is :red[short]"]


def test_an_archived_run_is_left_out_until_it_is_asked_for(runs: Path) -> None:
    a_run(runs, "a")
    page = open_page()
    assert page.multiselect(key="training_runs").value == ["a"]
    Labels().put("training/a", Label(archived=True))
    page.run()
    assert "Every training is archived" in texts(page) and not page.multiselect
    a_run(runs, "b")
    os.utime(runs / "a" / "status.json")  # the one that was written last would be shown first
    page = open_page()
    assert page.multiselect(key="training_runs").value == ["b"] == page.multiselect(key="training_runs").options
    page = AppTest.from_file(str(VIEW), default_timeout=60)
    page.session_state["training_asked"] = ["a"]  # as the button on Runs does
    page.session_state["training_kept"] = {"training_runs": ["a"]}
    assert page.run().multiselect(key="training_runs").value == ["a"]


def test_a_state_has_room_and_progress_reads_alike_in_table_and_cards(runs: Path) -> None:
    path = a_run(runs, "a", 5, state="interrupted")
    (path / "status.json").write_text(json.dumps({"state": "interrupted", "step": 5, "steps": 40}))
    page = open_page()
    columns = json.loads(page.dataframe[0].proto.columns)
    assert columns["state"]["width"] == 110 and columns["progress"]["type_config"]["format"] == "percent"
    cards = next(one.proto.body for one in page.get("html") if "interrupted" in one.proto.body)
    assert "12.5%" in cards and "0.125" not in cards


def test_a_run_that_is_gone_is_forgotten(runs: Path) -> None:
    a_run(runs, "a")
    b = a_run(runs, "b")
    page = open_page()
    page.multiselect(key="training_runs").set_value(["b"]).run()
    for file in b.iterdir():
        file.unlink()
    page.run()
    assert not page.exception and page.multiselect(key="training_runs").value == []
    assert "Choose a run to see its curves." in texts(page)


def test_what_an_analyst_would_have_to_look_up_is_explained_where_it_stands() -> None:
    """Every value that can be chosen for a training in plain words, and every score and heading of a table."""
    assert METHOD_WORDS.keys() == METHODS.keys() == set(allowed(METHOD))
    assert LOSS_WORDS.keys() == set(allowed(LOSS)) and MISTAKES.keys() == set(allowed(PERTURBATIONS))
    assert [title for title in scores.TITLES.values() if not term_of(title)] == []
    pairs = chart.meanings(["run", "score", "low", "n", "method"])
    assert pairs["low"] == "The lower end of the 95 % interval." and pairs["run"] is None
    bars = chart.meanings(["low", "share", "disc/reward_expert"])
    assert str(bars["low"]).startswith("Where the bar begins") and bars["disc/reward_expert"] == (
        "mean reward, expert solutions"
    )
