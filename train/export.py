"""A finished checkpoint in another form: as a small bundle to hand on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.checkpoints.manifest import CONFIG, MANIFEST, verify
from irl_core.checkpoints.save import save_checkpoint
from irl_core.models.pretrained import ADAPTER_WEIGHTS


def bundle(checkpoint: Path, out: Path, data: str | None = None) -> int:
    """Write a checkpoint whose adapters are in bfloat16, half as large; returns its size in bytes.

    A bfloat16 base computes with adapters in bfloat16 anyway (``irl_core.models.precision``), so that what the
    checkpoint says stays the same there. It can be trained further, from the rounded adapters.

    Args:
        checkpoint: a finished one, which is verified.
        out: where to.
        data: what to call the training data, in place of the folder on the machine that it was trained on.

    Raises:
        CheckpointError: it is not whole, or cannot be written.
    """
    manifest = verify(checkpoint)
    files: dict[str, Any] = {name: checkpoint / name for name in manifest.files if name != MANIFEST}
    for name in files:
        if Path(name).name == ADAPTER_WEIGHTS:
            files[name] = halved(load_tensors(checkpoint / name))
    config = load_json(checkpoint / CONFIG)
    files[CONFIG] = config if data is None else renamed(config, data)
    save_checkpoint(out, files)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in bfloat16."""
    return {name: value.to(torch.bfloat16) for name, value in tensors.items()}


def renamed(config: dict[str, Any], data: str) -> dict[str, Any]:
    """A checkpoint's ``config.json`` with another name for its training data."""
    trained = config.get("train_config", {})
    return config | {
        "provenance": config.get("provenance", {}) | {"data": data},
        "train_config": trained | {"data": trained.get("data", {}) | {"source": data}},
    }
