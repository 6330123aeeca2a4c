"""Whole runs of every objective beside the paper's: killed and gone on with they end as an unbroken one, and open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irl_core.config import TrainConfig
from irl_core.scorer import Lens
from irl_core.text.segmentation import make_trace
from tests.runs import SFT, Killed, adversarial, assert_same_run, judge_by_hash, kill_at, metrics_of
from tests.tiny import PROBLEM, SOLUTION, changed
from train.monitoring import validation
from train.run import train

# Settings of each section that differ from the adversarial training, and what is logged beside the loss.
OBJECTIVES: dict[str, tuple[dict[str, dict[str, Any]], set[str]]] = {
    "best of n": ({"policy": {"update": "best_of_n"}}, {"policy/loss"}),
    "process": (
        {"run": {"method": "process", "eval_every": 0}, "discriminator": {"tail": 0.0}},
        {"disc/loss", "disc/accuracy_policy"},
    ),
    "relativistic": ({"discriminator": {"loss": "relativistic", "replay": 0.0}}, {"disc/loss"}),
    "maxent": ({"discriminator": {"loss": "maxent", "replay": 0.0}}, {"disc/loss"}),
    "implicit": (
        {
            "discriminator": {"head": "implicit", "likelihood": "policy", "loss": "outcome"},
            "policy": {"advantage": "credit", "baseline": "leave_one_out"},
        },
        {"disc/loss"},
    ),
    "preferences": ({"policy": {"update": "preferences"}}, {"policy/preference_loss", "policy/preference_agreed"}),
}


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SFT, tmp_path_factory.mktemp("objectives") / "sft")


def config_of(name: str, sft: Path) -> TrainConfig:
    config = adversarial(sft)
    for section, values in OBJECTIVES[name][0].items():
        config = changed(config, section, **values)
    return config


@pytest.mark.parametrize("name", OBJECTIVES)
def test_killed_and_resumed_is_unbroken_and_opens(name: str, sft: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "held_out_row", validation.held_out_row)  # put back afterwards
        judge_by_hash()
        config = config_of(name, sft)
        final = train(config, tmp_path / "unbroken")
        with pytest.raises(Killed):
            train(config, tmp_path / "killed", on_step=kill_at(3))
        train(config, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "killed", tmp_path / "unbroken")
    last = metrics_of(final.parent)[-1]
    assert OBJECTIVES[name][1] <= last.keys()

    lens = Lens.load(final)
    (scored,) = lens.score([make_trace(PROBLEM, SOLUTION)])
    assert len(scored.raw) and np.isfinite(scored.raw).all()
    assert lens.locate(scored).decision in ("error", "no_error", "uncertain")
