"""What people make lies where they are, or in the one place that is set, for every command and the page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from irl_core.checkpoints.find import default_roots
from irl_core.home import VARIABLE, models_at_home, place_words, runs_folder
from irl_core.presets import load_config

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = """
from app.analysis import failures, uploads
from app.jobs import supervisor
from irl_core.checkpoints.find import default_roots
from train.cli import options
from train.planning import plan
places = {failures.DATABASE.parent, uploads.FOLDER.parent, supervisor.root(), default_roots()[1]}
places |= {options.RUNS, plan.RUNS}
print(*{place.resolve() for place in places}, sep="\\n")
"""


@pytest.mark.parametrize("named", ["", "elsewhere"])
def test_every_command_and_the_page_agree(tmp_path: Path, named: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    home = tmp_path / named if named else here
    environment = {**os.environ, "PYTHONPATH": str(ROOT), VARIABLE: str(home) if named else ""}
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE], cwd=here, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n") == [str(home / "runs"), ""]


def test_the_place_is_the_working_directory_or_the_one_that_is_set() -> None:
    assert runs_folder({}) == Path("runs") and runs_folder({VARIABLE: "/data"}) == Path("/data/runs")
    assert default_roots({VARIABLE: "/data"})[1] == Path("/data/runs")
    assert "lie in /data/runs (the folder where" in place_words({VARIABLE: "/data"})


def test_models_of_earlier_trainings_are_looked_for_there(monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"model": {"policy": "runs/demo-sft/final", "discriminator": "org/name"}}
    assert models_at_home(document, {}) == document
    assert models_at_home(document, {VARIABLE: "/data"})["model"] == {
        "policy": "/data/runs/demo-sft/final", "discriminator": "org/name",
    }  # fmt: skip
    assert models_at_home({"model": 3}, {VARIABLE: "/data"}) == {"model": 3}  # refused later, by its name
    monkeypatch.setenv(VARIABLE, "/data")
    config = load_config("demo-irl", presets_dir=ROOT / "train" / "configs")
    assert (config.model.policy, config.model.discriminator) == (
        "/data/runs/demo-sft/final", "/data/runs/demo-expert/final"
    )  # fmt: skip


def test_the_place_is_told_by_help(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "train.cli.main", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "IRL_LENS_HOME=FOLDER sets another place" in " ".join(done.stdout.split())
