"""Process-reward models of others, tiny and random, saved in each layout: judged as their own library judges them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from irl_core.checkpoints.find import ROOTS_VARIABLE, list_checkpoints, resolve_checkpoint
from irl_core.checkpoints.step_models import LAYOUT_FILE, described, step_layout
from irl_core.errors import CheckpointError, InputError
from irl_core.models.bundled import checkpoint_folder
from irl_core.reward.localisation import Calibration, locate
from irl_core.reward.step_model import SYSTEM, StepReader, load_head, load_step_model
from irl_core.scorer import Lens
from irl_core.storage.scored_run import read_run
from irl_core.text.segmentation import make_trace
from irl_core.training.step_pair import StepPair, levels, read_by
from tests.conftest import REPOSITORY
from tests.step_models import PROBLEM, STEPS, TRACE, config, saved, tokenizer
from tests.tiny import tiny_lens
from train.cli.compare import compare
from train.cli.evaluate import EvaluateRequest, run_evaluation
from train.evaluate.rollouts import LoadedPolicy
from train.evaluate.stages import anchor_of


def judged(folder: Path, layout: str) -> tuple[Any, Any, list[float]]:
    assert step_layout(folder) == layout
    model = load_step_model(folder, layout)  # type: ignore[arg-type]
    text = read_by(model, TRACE)
    longer = text._replace(ids=(*text.ids, *text.ids))  # padding beside a longer text changes nothing
    together = model.judge([text, longer])
    (alone,) = model.judge([text])
    assert together[0] == pytest.approx(alone, abs=1e-5)
    return model, text, alone


def spelt(model: Any, text: Any) -> str:
    return model.reader.tokenizer.decode(text.ids)


def test_a_token_classifier_is_judged_at_the_separators(tmp_path: Path) -> None:
    own = AutoModelForTokenClassification.from_config(config(num_labels=2)).eval()
    model, text, found = judged(saved(tmp_path / "prm", own), "token-classifier")
    logits = own(torch.tensor([text.ids])).logits[0]
    assert found == pytest.approx([float(logits[place, 1] - logits[place, 0]) for place in text.marks], abs=1e-5)
    assert spelt(model, text).endswith(PROBLEM + "".join(f"{step}\n" for step in STEPS))


def test_qwens_head_is_built_from_its_shapes_and_no_remote_code_runs(tmp_path: Path) -> None:
    own = AutoModelForCausalLM.from_config(config()).eval()
    head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    heads = {f"score.{name}": value.detach() for name, value in head.state_dict().items()}
    folder = saved(tmp_path / "prm", own, "Qwen2ForProcessRewardModel", heads)
    model, text, found = judged(folder, "qwen-prm")
    hidden = own.model(torch.tensor([text.ids])).last_hidden_state[0]
    expected = head(hidden[list(text.marks)])
    assert found == pytest.approx((expected[:, 1] - expected[:, 0]).tolist(), abs=1e-5)
    assert spelt(model, text) == (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{PROBLEM}<|im_end|>\n<|im_start|>assistant\n"
        + "".join(f"{step}<extra_0>" for step in STEPS) + "<|im_end|>\n"
    )  # fmt: skip
    assert {model.reader.tokenizer.decode([text.ids[place]]) for place in text.marks} == {"<extra_0>"}


def test_skyworks_value_head_is_judged_at_line_ends(tmp_path: Path) -> None:
    own = AutoModelForCausalLM.from_config(config()).eval()
    value = nn.Linear(16, 1)
    heads = {"v_head.summary.weight": value.weight.detach(), "v_head.summary.bias": value.bias.detach()}
    _, text, found = judged(saved(tmp_path / "prm", own, "Qwen2ForPrmModel", heads), "skywork")
    hidden = own.model(torch.tensor([text.ids])).last_hidden_state[0]
    assert found == pytest.approx(value(hidden[list(text.marks)])[:, 0].tolist(), abs=1e-5)


@pytest.mark.parametrize("layout", ["math-shepherd", "rlhflow"])
def test_a_language_model_judges_by_two_tokens(tmp_path: Path, layout: str) -> None:
    own = AutoModelForCausalLM.from_config(config()).eval()
    folder = saved(tmp_path / ("math-shepherd-7b-prm" if layout == "math-shepherd" else "own"), own)
    if layout == "rlhflow":
        assert step_layout(folder) is None  # a plain language model, by all that its files say
        (folder / LAYOUT_FILE).write_text('{"layout": "rlhflow"}')
    model, text, found = judged(folder, layout)
    good, bad = model.reader.pair()
    logits = own(torch.tensor([text.ids])).logits[0]
    assert found == pytest.approx([float(logits[place, good] - logits[place, bad]) for place in text.marks], abs=1e-5)
    if layout == "rlhflow":
        assert [text.ids[place + 1] for place in text.marks] == [good] * 3
    else:
        lines = [f"Step {number}: {step} ки" for number, step in enumerate(STEPS, 1)]
        assert spelt(model, text).endswith(f"{PROBLEM} " + "\n".join(lines))


def test_a_sequence_reward_model_is_sparse(tmp_path: Path) -> None:
    own = AutoModelForSequenceClassification.from_config(config(num_labels=1, pad_token_id=0)).eval()
    _, text, found = judged(saved(tmp_path / "rm", own), "sequence")
    assert found == pytest.approx(own(torch.tensor([text.ids])).logits[0].tolist(), abs=1e-5)
    encoded = tiny_lens().encoder.encode(TRACE)
    raw = levels(encoded, [2.5], True)
    last = TRACE.steps[-1].start
    assert {float(value) for value, (start, _) in zip(raw, encoded.spans, strict=True) if start > last} == {2.5}
    assert set(raw[:5].tolist()) == {0.0}
    rule = Calibration.from_json(described(tmp_path / "rm", "sequence")["localisation"])
    assert locate({"raw": raw}, encoded.spans, TRACE.steps, rule).decision == "uncertain"


def test_tokens_have_their_steps_logit_and_the_first_under_even_odds_is_the_error() -> None:
    encoded = tiny_lens().encoder.encode(TRACE)
    raw = levels(encoded, [1.5, -0.25, -3.0], False)
    assert raw.dtype == np.float32 and [float(raw[0]), float(raw[-1])] == [1.5, -3.0]
    rule = Calibration.from_json(described(Path("any"), "qwen-prm")["localisation"])
    found = locate({"raw": raw}, encoded.spans, TRACE.steps, rule)
    assert (found.decision, found.first_error_step, found.step_scores) == ("error", 1, (1.5, -0.25, -3.0))
    right = locate({"raw": levels(encoded, [1.5, 0.25, 3.0], False)}, encoded.spans, TRACE.steps, rule)
    assert right.decision == "no_error"


def test_it_is_found_loaded_and_scored_as_a_checkpoint(tmp_path: Path) -> None:
    own = AutoModelForTokenClassification.from_config(config(num_labels=2)).eval()
    folder = saved(tmp_path / "prm", own)
    assert resolve_checkpoint("prm", [tmp_path]) == folder
    (info,) = list_checkpoints([tmp_path])
    assert (info.name, info.verified, info.config["name"]) == ("prm", True, "prm")
    beside, model = tiny_lens(), load_step_model(folder, "token-classifier")
    short = make_trace("How many?", "1 + 1 = 3\nThe answer is 3.")
    encoded = [beside.encode(short), beside.encode(make_trace("How many?", "It is 2."))]
    together = StepPair(beside.policy, model, beside.encoder, 64).score(encoded)
    alone = StepPair(beside.policy, model, beside.encoder, 64).score(encoded[:1])[0]
    assert together[0].raw == pytest.approx(alone.raw, abs=1e-5)
    assert together[0].logprobs == pytest.approx(beside.score([short])[0].logprobs, abs=1e-5)


def test_the_whole_way_from_a_folder(tmp_path: Path) -> None:
    own = AutoModelForTokenClassification.from_config(config(num_labels=2)).eval()
    lens = Lens.load(saved(tmp_path / "prm", own), "cpu")
    (scored,) = lens.score([TRACE])
    (logits,) = lens.discriminator.judge([read_by(lens.discriminator, TRACE)])
    assert lens.locate(scored).step_scores == pytest.approx(logits, abs=1e-5)
    assert lens.provenance["layout"] == "token-classifier" and len(lens.fingerprint) == 64
    sampled_by = LoadedPolicy.of_config(lens.name, lens.policy, lens.encoder, lens.config, lens.context_window)
    assert sampled_by.max_new_tokens > 0  # as the policy beside it was trained, so that it can be evaluated
    assert anchor_of(lens) is None


def test_it_is_evaluated_and_compared_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = AutoModelForTokenClassification.from_config(config(num_labels=2)).eval()
    folder, demo = saved(tmp_path / "prm", own), REPOSITORY / "assets" / "demo"
    labelled = str(REPOSITORY / "tests" / "samples" / "processbench.jsonl")
    for name, checkpoint in (("theirs", folder), ("ours", demo)):
        run_evaluation(EvaluateRequest(checkpoint, tmp_path / name, labelled, device="cpu"))
        sampled = EvaluateRequest(checkpoint, tmp_path / f"{name}-sampled", problems=2, samples=2, device="cpu")
        run_evaluation(sampled)
    theirs, ours = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("theirs", "ours"))
    assert theirs["provenance"]["checkpoint"] == "prm"
    assert theirs["localisation"]["counts"] == ours["localisation"]["counts"]  # the same labels
    assert theirs["localisation"]["threshold"] == 0.0  # even odds, not what was calibrated for ours
    texts = [read_run(tmp_path / f"{name}-sampled" / "run.parquet", ["text"]) for name in ("theirs", "ours")]
    assert texts[0].equals(texts[1])  # the default checkpoint's policy samples for both
    capsys.readouterr()
    for kind in ("", "-sampled"):
        runs = [tmp_path / f"{name}{kind}" for name in ("ours", "theirs")]
        compare(runs, html=tmp_path / f"compared{kind}.html", as_json=True)
        compared = json.loads(capsys.readouterr().out)
        assert compared["shared"] == {f"theirs{kind}": 2}
        assert compared["differences"][f"theirs{kind}"]["pass@1"]["value"] == 0.0
        assert f"theirs{kind}" in (tmp_path / f"compared{kind}.html").read_text()


def test_a_plain_language_model_is_called_so_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path / "plain", AutoModelForCausalLM.from_config(config()))
    monkeypatch.chdir(tmp_path)
    for asked in (str(folder), "plain"):
        with pytest.raises(InputError, match="is no process-reward model by its files"):
            checkpoint_folder(asked, print)


def test_an_unknown_head_is_named_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {"strange.weight": torch.zeros(1, 16), "strange.bias": torch.zeros(1)}
    model = AutoModelForCausalLM.from_config(config())
    folder = saved(tmp_path / "odd", model, "Qwen2ForOddRewardHead", heads)
    found = (
        "its architecture is Qwen2ForOddRewardHead, the weights of its head are lm_head.weight, strange.bias, "
        "strange.weight; known are the architectures Qwen2ForProcessRewardModel, ...ForTokenClassification, "
        "...ForSequenceClassification, ...ForRewardModel and the heads score, classifier, v_head.summary, "
        "pretrained_model.v_head.summary, score.0 with score.2"
    )
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    for asked in (str(folder), "odd"):  # by its place, and by its name under a folder of checkpoints
        with pytest.raises(
            InputError, match=f"is no process-reward model by its files: {re.escape(found)}.*{LAYOUT_FILE}"
        ):
            checkpoint_folder(asked, print)
    (folder / LAYOUT_FILE).write_text('{"layout": "token-classifier"}')
    with pytest.raises(CheckpointError, match=f"no head that is known: {re.escape(found)}"):
        load_step_model(folder, "token-classifier")
    without = ("lm_head.weight", "model.embed_tokens.weight")
    weights = {name: value for name, value in load_file(folder / "model.safetensors").items() if name not in without}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"no lm_head\.weight, which .* are strange\.bias, strange\.weight; known are"
    ):
        load_head(folder, "rlhflow", StepReader.of("rlhflow", tokenizer()))
    (folder / LAYOUT_FILE).unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="no weights as safetensors, and pickles are not read"):
        checkpoint_folder(str(folder), print)


def test_what_is_no_such_model_is_refused_in_words(tmp_path: Path) -> None:
    own = AutoModelForTokenClassification.from_config(config(num_labels=3))
    folder = saved(tmp_path / "three", own)
    with pytest.raises(CheckpointError, match="its head has 3 outputs; one"):
        load_step_model(folder, "token-classifier")
    (folder / LAYOUT_FILE).write_text('{"layout": "pickle"}')
    with pytest.raises(CheckpointError, match="the layout is 'pickle'; it is one of qwen-prm"):
        step_layout(folder)
    (folder / LAYOUT_FILE).unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert step_layout(folder) is None  # pickles are no weights
    with pytest.raises(CheckpointError):
        resolve_checkpoint("three", [tmp_path])
    shepherd = saved(tmp_path / "math-shepherd", AutoModelForCausalLM.from_config(config()))
    model = load_step_model(shepherd, "math-shepherd")
    with pytest.raises(InputError, match="spells the mark 'ки' itself"):
        model.reader.read("Is ки a word?", STEPS)
