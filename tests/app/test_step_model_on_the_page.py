"""A process-reward model of others, chosen on the Inspect page: loaded, and shown as it judges."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForTokenClassification

from app.inspect import scoring_queue
from irl_core.checkpoints.find import ROOTS_VARIABLE
from irl_core.reward.step_model import load_step_model
from irl_core.training.step_pair import read_by
from tests.step_models import PROBLEM, STEPS, TRACE, config, saved

MAIN = Path(__file__).resolve().parents[2] / "app" / "main.py"


@pytest.fixture
def step_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A tiny random one in a folder that IRL_LENS_CHECKPOINTS names."""
    own = AutoModelForTokenClassification.from_config(config(num_labels=2)).eval()
    folder = saved(tmp_path / "models" / "tiny-prm", own)
    monkeypatch.setenv(ROOTS_VARIABLE, str(folder.parent))
    scoring_queue.open_desk.clear()
    yield folder
    scoring_queue.open_desk.clear()


def test_it_is_chosen_and_its_judgement_of_each_step_is_shown(step_model: Path) -> None:
    page = AppTest.from_file(str(MAIN), default_timeout=120).run()
    assert not page.exception and "tiny-prm" in page.selectbox(key="checkpoint").options
    page.selectbox(key="checkpoint").set_value("tiny-prm").run()
    page.text_area(key="problem").set_value(PROBLEM)
    page.text_area(key="solution").set_value("\n".join(STEPS))
    next(button for button in page.button if button.label == "Inspect").click().run()
    assert not page.exception and not page.error
    (data,) = (json.loads(block.proto.json) for block in page.get("bidi_component"))
    model = load_step_model(step_model, "token-classifier")
    (logits,) = model.judge([read_by(model, TRACE)])
    tokens = data["trace"]["tokens"]
    for step, logit in zip(TRACE.steps, logits, strict=True):  # all tokens of a step have its logit
        of_step = [one["raw"] for one in tokens if step.start <= one["start"] < step.end]
        assert of_step and of_step == pytest.approx([logit] * len(of_step), abs=1e-4)
