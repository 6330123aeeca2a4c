"""TensorBoard files as its own reader sees them; W&B and trackio by fakes in their places."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from irl_core.config import RunConfig, TrainConfig
from irl_core.errors import ConfigError
from train.monitoring.trackers import Trackers, check_trackers

CONFIG = TrainConfig(run=RunConfig(preset="tiny", trackers=("wandb", "trackio")))


class FakeRun:
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished: dict[str, Any] | None = None

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append((step, metrics))

    def finish(self, **how: Any) -> None:
        self.finished = how


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[FakeRun]]:
    """The runs that were begun at each fake."""
    begun: dict[str, list[FakeRun]] = {}
    for name in ("wandb", "trackio"):
        module, runs = types.ModuleType(name), begun.setdefault(name, [])
        module.init = _init(runs)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    return begun


def _init(runs: list[FakeRun]) -> Callable[..., FakeRun]:
    def init(**arguments: Any) -> FakeRun:
        runs.append(FakeRun(arguments))
        return runs[-1]

    return init


def opened(
    run_dir: Path, config: TrainConfig = CONFIG, *, step: int = 0, reached: int = 0, resumed: bool = False,
    said: list[str] | None = None,
) -> Trackers:  # fmt: skip
    say = (said if said is not None else []).append
    return Trackers.open(run_dir, config, step=step, reached=reached, resumed=resumed, say=say)


# --------------------------------------------------------------------------------------------------- TensorBoard


def scalars(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    found = EventAccumulator(str(run_dir / "tensorboard")).Reload()
    return [(event.step, round(event.value, 4)) for event in found.Scalars(tag)]


def test_every_metric_of_every_step_is_there(tmp_path: Path) -> None:
    board = opened(tmp_path, TrainConfig())
    for step in (1, 2, 3):
        board.log(step, {"disc/loss": step / 2, "eval/pass@1": step / 4})
    board.close(ok=True)
    assert scalars(tmp_path, "disc/loss") == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert scalars(tmp_path, "eval/pass@1") == [(1, 0.25), (2, 0.5), (3, 0.75)]


def test_a_step_is_there_before_the_next(tmp_path: Path) -> None:
    # a kill comes after any step: nothing may wait in a queue for it
    board = opened(tmp_path, TrainConfig())
    board.log(1, {"disc/loss": 0.5})
    assert scalars(tmp_path, "disc/loss") == [(1, 0.5)]
    board.close(ok=True)


def test_after_a_kill_no_step_stands_twice(tmp_path: Path) -> None:
    killed = opened(tmp_path, TrainConfig())
    for step in (1, 2, 3, 4):
        killed.log(step, {"disc/loss": step / 2})
    # resumed from step 2: steps 3 and 4 are made again
    resumed = opened(tmp_path, TrainConfig(), step=2, reached=4, resumed=True)
    for step in (3, 4, 5):
        resumed.log(step, {"disc/loss": step * 2.0})
    resumed.close(ok=True)
    assert scalars(tmp_path, "disc/loss") == [(1, 0.5), (2, 1.0), (3, 6.0), (4, 8.0), (5, 10.0)]
    killed.close(ok=True)


def test_a_run_resumed_from_nothing_begins_anew(tmp_path: Path) -> None:
    killed = opened(tmp_path, TrainConfig())
    killed.log(1, {"disc/loss": 9.0})
    killed.close(ok=True)
    resumed = opened(tmp_path, TrainConfig(), step=0, reached=1, resumed=True)
    resumed.log(1, {"disc/loss": 1.0})
    resumed.close(ok=True)
    assert scalars(tmp_path, "disc/loss") == [(1, 1.0)]


# ---------------------------------------------------------------------------------------------- the outside ones


def test_they_are_begun_with_the_configuration_and_get_every_step(
    tmp_path: Path, outside: dict[str, list[FakeRun]]
) -> None:
    trackers = opened(tmp_path / "my-run")
    trackers.log(1, {"disc/loss": 0.5})
    trackers.log(2, {"disc/loss": 0.25})
    trackers.close(ok=True)
    (wandb,), (trackio,) = outside["wandb"], outside["trackio"]
    for run in (wandb, trackio):
        assert run.arguments["project"] == "irl-lens"
        assert run.arguments["config"] == CONFIG.to_dict()
        assert run.arguments["resume"] == "allow"
        assert run.logged == [(1, {"disc/loss": 0.5}), (2, {"disc/loss": 0.25})]
    assert (wandb.arguments["name"], wandb.arguments["dir"]) == ("my-run", str(tmp_path / "my-run"))
    assert trackio.arguments["name"].startswith("my-run-")
    assert (wandb.finished, trackio.finished) == ({"exit_code": 0}, {})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "my-run").mkdir()


def test_a_failed_run_is_told_as_failed(tmp_path: Path, outside: dict[str, list[FakeRun]]) -> None:
    opened(tmp_path).close(ok=False)
    assert outside["wandb"][0].finished == {"exit_code": 1}


def test_resumed_it_is_the_same_run_and_no_step_is_sent_twice(
    tmp_path: Path, outside: dict[str, list[FakeRun]]
) -> None:
    first = opened(tmp_path)
    for step in (1, 2, 3, 4):
        first.log(step, {"disc/loss": 1.0})
    # killed; resumed from 2, killed at 3; resumed from 2 again: 4 was sent by the first, and stays sent
    second = opened(tmp_path, step=2, reached=4, resumed=True)
    second.log(3, {"disc/loss": 1.0})
    third = opened(tmp_path, step=2, reached=3, resumed=True)
    for step in (3, 4, 5):
        third.log(step, {"disc/loss": 1.0})
    for name in ("wandb", "trackio"):
        assert [[step for step, _ in run.logged] for run in outside[name]] == [[1, 2, 3, 4], [], [5]]
    assert len({run.arguments["id"] for run in outside["wandb"]}) == 1
    assert len({run.arguments["name"] for run in outside["trackio"]}) == 1
    state = json.loads((tmp_path / "trackers.json").read_text())
    assert (state["wandb"], state["sent"]) == (outside["wandb"][0].arguments["id"], 4)
    for trackers in (first, second, third):
        trackers.board.finish()


def test_two_runs_are_two(tmp_path: Path, outside: dict[str, list[FakeRun]]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        opened(tmp_path / name).close(ok=True)
    assert len({run.arguments["id"] for run in outside["wandb"]}) == 2


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_one_that_is_not_installed_is_named_with_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not there
    config = replace(CONFIG, run=RunConfig(trackers=(name,)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"run\.trackers names '{name}'.*pip install {name}"):
        check_trackers(config)


def test_nothing_is_asked_of_what_was_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_trackers(TrainConfig())


def test_one_that_refuses_to_start_ends_the_run_before_it_begins(
    tmp_path: Path, outside: dict[str, list[FakeRun]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: Any) -> None:
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(ConfigError, match=r"wandb did not start \(RuntimeError: no API key\); WANDB_MODE=offline"):
        opened(tmp_path)


def test_one_that_fails_later_is_left_out_and_named(tmp_path: Path, outside: dict[str, list[FakeRun]]) -> None:
    said: list[str] = []
    trackers = opened(tmp_path, said=said)

    def fail(metrics: dict[str, float], step: int) -> None:
        raise ConnectionError("gone")

    outside["wandb"][0].log = fail  # type: ignore[method-assign]
    trackers.log(1, {"disc/loss": 1.0})
    trackers.log(2, {"disc/loss": 2.0})
    trackers.close(ok=True)
    assert said == ["wandb failed (ConnectionError: gone) and gets nothing more; the run goes on without"]
    assert [step for step, _ in outside["trackio"][0].logged] == [1, 2]
    assert scalars(tmp_path, "disc/loss") == [(1, 1.0), (2, 2.0)]
