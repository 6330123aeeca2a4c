"""Which bundled checkpoint opens, and checkpoints made smaller to hand on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.checkpoints.manifest import verify
from irl_core.checkpoints.save import save_checkpoint
from irl_core.errors import CheckpointError
from irl_core.models import bundled
from irl_core.models.bases import BASES
from irl_core.models.bundled import default_checkpoint, missing_base
from train.export import bundle

BASE = {"name": "smollm2-135m", "revision": None, "quantisation": "none", "dtype": "bfloat16"}
ADAPTERS = {"base_model.layers.0.q_proj.lora_A.weight": torch.arange(6.0).view(2, 3) / 7}


def checkpoint(folder: Path) -> Path:
    """Files of a checkpoint with adapters; nothing here loads them."""
    files = {
        "config.json": {"format": 1, "name": "gsm8k", "kind": "transformers", "provenance": {"data": "/some/where"},
                        "train_config": {"data": {"source": "/some/where", "styles": True}}},
        "policy/base.json": BASE, "policy/adapter_model.safetensors": ADAPTERS,
        "discriminator/base.json": BASE, "discriminator/adapter_model.safetensors": ADAPTERS,
        "discriminator/head.safetensors": {"linear.weight": torch.ones(1, 3) / 3},
    }  # fmt: skip
    save_checkpoint(folder, files)
    return folder


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the checkpoint gsm8k, and a cache in which no model is."""
    monkeypatch.setenv("IRL_LENS_CACHE", str(tmp_path / "cache"))
    checkpoint(tmp_path / "assets" / "gsm8k")
    return tmp_path / "assets"


def test_the_real_checkpoint_opens_where_its_model_is_here(assets: Path) -> None:
    path = BASES["smollm2-135m"].path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert default_checkpoint(assets) == bundled.DefaultCheckpoint("gsm8k")
    assert missing_base(assets / "gsm8k") is None


def test_without_its_model_the_tiny_one_opens_and_says_how_to_get_it(assets: Path) -> None:
    found = default_checkpoint(assets)
    assert found.name == "demo"
    assert "irl-lens models fetch smollm2-135m' (98 MB)" in found.note
    assert missing_base(assets / "gsm8k") == "smollm2-135m"


def test_without_the_real_checkpoint_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert default_checkpoint(tmp_path) == bundled.DefaultCheckpoint("demo")


def test_a_bundle_has_adapters_in_bfloat16_and_no_folder_of_this_machine(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert bundle(assets / "gsm8k", out, data="gsm8k") == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    verify(out)
    for part in ("policy", "discriminator"):
        ((name, value),) = load_tensors(out / part / "adapter_model.safetensors").items()
        assert value.dtype is torch.bfloat16 and torch.equal(value, ADAPTERS[name].bfloat16())
    assert load_tensors(out / "discriminator" / "head.safetensors")["linear.weight"].dtype is torch.float32
    config = load_json(out / "config.json")
    assert config["provenance"]["data"] == "gsm8k"
    assert config["train_config"]["data"] == {"source": "gsm8k", "styles": True}
    assert "/some/where" not in json.dumps(config)


def test_a_bundle_keeps_the_name_of_its_data_unless_another_is_given(assets: Path, tmp_path: Path) -> None:
    bundle(assets / "gsm8k", tmp_path / "out")
    verify(tmp_path / "out")
    assert load_json(tmp_path / "out" / "config.json") == load_json(assets / "gsm8k" / "config.json")


def test_a_damaged_checkpoint_is_not_bundled(assets: Path, tmp_path: Path) -> None:
    (assets / "gsm8k" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError):
        bundle(assets / "gsm8k", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page_does_not_offer_what_lacks_its_model(assets: Path) -> None:
    from app.inspect.scoring_queue import unusable_without_base
    from irl_core.checkpoints.find import CheckpointInfo

    info = CheckpointInfo("gsm8k", assets / "gsm8k", True)
    assert unusable_without_base(info) == replace(
        info, verified=False, reason="Its pretrained model is not here: irl-lens models fetch smollm2-135m"
    )
    (assets / "gsm8k" / "policy" / "base.json").write_text("{}")
    assert "base.json" in unusable_without_base(info).reason
