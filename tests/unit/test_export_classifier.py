"""A discriminator exported as a token classifier: plain transformers loads it, and its logits are ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, PreTrainedTokenizerFast

from irl_core.checkpoints.save import save_checkpoint
from irl_core.config import LoraConfig
from irl_core.errors import CheckpointError, InputError
from irl_core.models.batching import collate
from irl_core.models.pretrained import Base, adapter_config, adapter_weights, load_base, load_encoder, with_adapters
from irl_core.reward.discriminator import load_discriminator
from irl_core.text.segmentation import make_trace
from tests.small_models import save_model
from tests.tiny import CALIBRATION, PROBLEM, REFERENCE, SOLUTION, tiny_tokenizer
from train import export_classifier
from train.cli.export import Form, export
from train.export_classifier import to_classifier

Maker = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    """A checkpoint with a random discriminator: a whole model, or adapters on one."""

    def made(kind: str = "llama", head: str = "linear", adapters: bool = False, **base: Any) -> Path:
        whole = save_model(tmp_path / "whole", kind, tiny_tokenizer(), dtype=base.get("dtype", "float32"))
        torch.manual_seed(5)
        weights = {"linear.weight": torch.randn(1, 64), "linear.bias": torch.tensor([0.75])}
        files: dict[str, Any] = {
            "config.json": {
                "format": 1, "name": "small", "kind": "transformers", "instruction": "Be brief.",
                "provenance": {}, "reference": REFERENCE, "localisation": CALIBRATION.to_json(),
            },
            "discriminator/head.json": {"kind": head, "likelihood": "own"},
            "discriminator/head.safetensors": weights | ({} if head == "linear" else {"anchor": torch.tensor(0.5)}),
        }  # fmt: skip
        files |= {path.name: path for path in whole.iterdir() if "token" in path.name or path.suffix == ".jinja"}
        if adapters:
            held = Base(str(whole), **base)
            adapted = with_adapters(load_base(held), LoraConfig(rank=2, targets=("q_proj", "down_proj")))
            drawn = {key: torch.randn_like(value) / 4 for key, value in adapter_weights(adapted).items()}
            files |= {
                "discriminator/base.json": asdict(held),
                "discriminator/adapter_config.json": json.loads(json.dumps(asdict(adapter_config(adapted)))),
                "discriminator/adapter_model.safetensors": drawn,
            }
        else:
            files |= {f"discriminator/{name}": whole / name for name in ("config.json", "model.safetensors")}
        save_checkpoint(tmp_path / "small", files)
        return tmp_path / "small"

    return made


@pytest.mark.parametrize(("kind", "adapters"), [("llama", False), ("qwen2", False), ("llama", True)])
def test_plain_transformers_reads_the_same_rewards(kind: str, adapters: bool, make: Maker, tmp_path: Path) -> None:
    checkpoint, out = make(kind, adapters=adapters), tmp_path / "out"
    exported = to_classifier(checkpoint, out)
    assert exported.architecture == {"llama": "Llama", "qwen2": "Qwen2"}[kind] + "ForTokenClassification"

    discriminator = load_discriminator(checkpoint / "discriminator")
    one = load_encoder(checkpoint, discriminator.backbone, "Be brief.").encode(make_trace(PROBLEM, SOLUTION))
    with torch.no_grad():
        ours = discriminator(collate([one], 0)).logits[0]

    tokenizer = AutoTokenizer.from_pretrained(out)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    chat = [{"role": "user", "content": f"Be brief.\n\n{PROBLEM}"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    known = json.loads((out / "irl_lens.json").read_text())
    end = tokenizer.convert_tokens_to_ids(known["end_of_turn"])
    ids = [*prompt, *tokenizer(SOLUTION, add_special_tokens=False).input_ids, end]
    assert ids == [*one.prompt_ids, *one.completion_ids]
    classifier = AutoModelForTokenClassification.from_pretrained(out).eval()
    with torch.no_grad():
        theirs = classifier(torch.tensor([ids])).logits[0, len(prompt) :, 0]
    assert (theirs - ours).abs().max() < 1e-4 and ours.std() > 0.1
    assert classifier.config.id2label == {0: "reward"}
    assert known["reference"] == REFERENCE and known["localisation"]["threshold"] == -3.0
    assert exported.difference < 1e-4 and exported.size == sum(path.stat().st_size for path in out.iterdir())


@pytest.mark.parametrize("head", ["anchored", "cumulative"])
def test_a_head_that_reads_the_likelihood_is_refused(head: str, make: Maker, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"small has the head '{head}', which adds the likelihood"):
        to_classifier(make(head=head), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_quantised_base_is_refused(make: Maker, tmp_path: Path) -> None:
    checkpoint = make(adapters=True)
    described = json.loads((checkpoint / "discriminator/base.json").read_text()) | {"quantisation": "nf4"}
    files = {str(path.relative_to(checkpoint)): path for path in checkpoint.rglob("*") if path.is_file()}
    config = json.loads(files.pop("config.json").read_text())
    files.pop("manifest.json")
    save_checkpoint(tmp_path / "quantised", files | {"config.json": config, "discriminator/base.json": described})
    with pytest.raises(CheckpointError, match="on a base held in nf4"):
        to_classifier(tmp_path / "quantised", tmp_path / "out")


def test_what_does_not_score_alike_is_not_written(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = export_classifier.classifier_of

    def other(backbone: Any, linear: torch.nn.Linear, name: str) -> Any:
        classifier = made(backbone, linear, name)
        classifier.score.bias.data += 0.001
        return classifier

    monkeypatch.setattr(export_classifier, "classifier_of", other)
    with pytest.raises(CheckpointError, match=r"logits are 0\.001 from the checkpoint's"):
        to_classifier(make(), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_folder_that_is_there_is_left_alone(make: Maker, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(CheckpointError, match="out is there already; name a new folder"):
        to_classifier(make(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_command_writes_one(make: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(make())
    with pytest.raises(InputError, match="a token classifier does not name its data"):
        export(checkpoint, tmp_path / "out", Form.TRANSFORMERS, "gsm8k")
    export(checkpoint, tmp_path / "out", Form.TRANSFORMERS, None)
    assert "LlamaForTokenClassification" in capsys.readouterr().out
