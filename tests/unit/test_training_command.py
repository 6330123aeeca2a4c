"""``irl-lens train``: what it refuses, what it trains first, how it ends, and who speaks under a launcher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.errors import ConfigError, UnknownShape
from irl_core.presets import load_config
from train import distributed, run
from train.cli import training
from train.cli.main import cli
from train.cli.training import BesideBar, TrainRequest, check_memory
from train.interruption import Interrupted, Stopped
from train.planning import plan
from train.planning.plan import Device

SMALL = Device("a small device", "cuda", 1e9, 1e9)
Trained = list[tuple[str, Path, bool]]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The runs that were asked for; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    found: Trained = []

    def pretend(config: TrainConfig, directory: Path, resume: bool, *_: Any, **__: Any) -> Path:
        found.append((config.run.preset, directory, resume))
        return directory / "final"

    monkeypatch.setattr(run, "train", pretend)
    return found


def ending(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def end(*_: Any, **__: Any) -> Path:
        raise error

    monkeypatch.setattr(run, "train", end)


def device(monkeypatch: pytest.MonkeyPatch, found: Device) -> None:
    monkeypatch.setattr(training, "this_device", lambda memory_gb: found)


# ------------------------------------------------------------------------------------------------------ before


def test_what_it_starts_from_is_trained_first_and_gone_on_with(trained: Trained, capsys: Any) -> None:
    (Path("runs/demo-expert")).mkdir(parents=True)
    Path("runs/demo-expert/config.yaml").write_text("")
    training.train_preset(TrainRequest("demo-irl"))
    runs = Path("runs")
    assert trained == [
        ("demo-sft", runs / "demo-sft", False),
        ("demo-sft", runs / "demo-sft", False),  # demo-expert starts from it too, and nothing was left there
        ("demo-expert", runs / "demo-expert", True),
        ("demo-irl", runs / "demo-irl", False),
    ]
    out = capsys.readouterr()
    assert out.out.splitlines()[-1] == "Finished: runs/demo-irl/final"
    assert "demo-irl starts from demo-sft, which is trained first." in out.err


def test_what_is_finished_is_not_trained_again(trained: Trained) -> None:
    for name in ("demo-sft", "demo-expert"):
        final = Path("runs") / name / "final"
        final.mkdir(parents=True)
        (final / "manifest.json").write_text("{}")
        (final / "policy").mkdir()
        shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        config = {"model_type": "llama", "vocab_size": 10} | shape
        (final / "policy" / "config.json").write_text(json.dumps(config))
    training.train_preset(TrainRequest("demo-irl", ["steps=3"], Path("elsewhere")))
    assert trained == [("demo-irl", Path("elsewhere"), False)]


def test_what_does_not_fit_is_refused_and_force_overrides(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    device(monkeypatch, SMALL)
    with pytest.raises(ConfigError, match=r"^demo-sft needs about .* a small device has 1\.0 GB free of 1\.0; .* Set "):
        training.train_preset(TrainRequest("demo-sft"))
    assert trained == []
    training.train_preset(TrainRequest("demo-sft", force=True))
    training.train_preset(TrainRequest("demo-sft", resume=True))  # it has fitted before
    assert [resume for _, _, resume in trained] == [False, True]


def test_what_is_trained_first_must_fit_too(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    device(monkeypatch, Device("a device", "cuda", 1.3e9, 1.3e9))
    small = ["run.batch_tokens=1024", "policy.sampling_tokens=1024"]
    check_memory(load_config("demo-irl", [*small, "run.after=[]", "model.policy=null",
                                                   "model.discriminator=null"], plan.PRESETS))  # fmt: skip
    with pytest.raises(ConfigError, match=r"^demo-sft needs about"):
        training.train_preset(TrainRequest("demo-irl", small))
    assert trained == []


def test_a_model_of_an_unknown_kind_is_trained_all_the_same(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def unknown(*_: Any) -> None:
        raise UnknownShape("a/b is of the kind 'new'; shapes are known of llama")

    monkeypatch.setattr(training, "make_plan", unknown)
    training.train_preset(TrainRequest("demo-sft"))
    assert len(trained) == 1
    assert capsys.readouterr().err.startswith("Memory was not estimated: a/b is of the kind 'new'")


# --------------------------------------------------------------------------------------------------------- the plan


def test_a_dry_run_trains_nothing(trained: Trained, capsys: Any) -> None:
    training.train_preset(TrainRequest("demo-sft", ["steps=7"], dry_run=True, memory_gb=3.0))
    text = capsys.readouterr().out
    assert text.startswith("demo-sft: sft, 7 steps\n") and "a device of 3 GB is planned for: it fits" in text
    assert trained == [] and not Path("runs").exists()


def test_a_dry_run_tells_of_what_does_not_fit(trained: Trained, capsys: Any) -> None:
    training.train_preset(TrainRequest("demo-sft", dry_run=True, memory_gb=1.0))
    assert "IT DOES NOT FIT. Set " in capsys.readouterr().out


def test_json_is_all_that_is_printed(trained: Trained, capsys: Any) -> None:
    training.train_preset(TrainRequest("llama-8b-1b", dry_run=True, as_json=True, memory_gb=40.0))
    found = json.loads(capsys.readouterr().out)
    assert found["preset"] == "llama-8b-1b" and found["memory"]["fits"] is True
    with pytest.raises(ConfigError, match="--json prints the plan of a training; give --dry-run too"):
        training.train_preset(TrainRequest("llama-8b-1b", as_json=True))


def test_only_the_first_process_prints_the_plan(trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("RANK", "1")
    training.train_preset(TrainRequest("demo-sft", dry_run=True, memory_gb=3.0))
    assert capsys.readouterr().out == ""


# ----------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (Interrupted("stopped at step 3 of 9"), 0, "interrupted. Go on with the same command and --resume (run: "),
        (Stopped("stopped at step 3 of 9: chance"), 1, "irl-lens: stopped at step 3 of 9: chance\n"),
        (FloatingPointError("the loss is nan; lower it"), 1, "irl-lens: the loss is nan; lower it\n"),
    ],
)
def test_how_it_ends(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: Any, error: Exception, status: int, text: str
) -> None:
    ending(monkeypatch, error)
    with pytest.raises(typer.Exit) as caught:
        training.train_preset(TrainRequest("demo-sft"))
    assert caught.value.exit_code == status
    out = capsys.readouterr()
    assert text in out.err and out.out == ""


def test_of_several_processes_the_first_one_speaks(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    class Second(World):
        def gather(self, objects: list[Any]) -> list[Any]:
            return objects

    monkeypatch.setattr(distributed, "start_world", lambda config: (Second(1, 2), None))
    training.train_preset(TrainRequest("demo-expert"))
    ending(monkeypatch, Interrupted("stopped"))
    with pytest.raises(typer.Exit) as caught:
        training.train_preset(TrainRequest("demo-sft"))
    out = capsys.readouterr()
    assert (caught.value.exit_code, out.out, out.err) == (0, "", "")


# ----------------------------------------------------------------------------------------------------- the progress bar


def test_the_view_shows_time_left_phase_and_figures() -> None:
    view = BesideBar()
    assert str(view) == ""
    view.phase = "loading"
    assert str(view) == "loading"
    view.after_step({"disc/loss": 0.51234, "rollout/correct": 0.5, "time/step_s": 3.0}, 5400.0)
    view.phase = "sampling"
    assert str(view) == "1.5 h left  sampling  disc/loss 0.512  rollout/correct 0.500"


def test_steps_and_phases_reach_the_bar(trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def one_step(
        config: TrainConfig, directory: Path, resume: bool, on_step: Callable[..., None],
        on_phase: Callable[[str], None], **_: Any,
    ) -> Path:  # fmt: skip
        on_phase("policy")
        on_step(4, 9, {"policy/loss": 0.25}, 120.0)
        on_phase("saving")
        return directory

    monkeypatch.setattr(run, "train", one_step)
    monkeypatch.setenv("COLUMNS", "140")
    training.train_preset(TrainRequest("demo-sft"))
    shown = capsys.readouterr().err
    assert "demo-sft" in shown and "4/9" in shown and "2 min left  saving  policy/loss 0.250" in shown


def test_the_data_can_be_named_by_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrainRequest] = []
    monkeypatch.setattr(training, "train_preset", asked.append)
    named = "my rows: 1 [x].jsonl"  # not what YAML would make of it
    found = CliRunner().invoke(cli, ["train", "demo-process", "--data", named, "--set", "run.steps=3"])
    assert found.exit_code == 0, found.output
    config = load_config(asked[0].preset, asked[0].overrides, plan.PRESETS)
    assert (config.data.source, config.run.steps, config.run.method) == (named, 3, "process")
