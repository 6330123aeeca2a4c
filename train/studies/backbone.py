"""Untrained starts for the discriminators of a study: random weights that read the tokens of the policy's start."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.checkpoints.save import save_checkpoint
from irl_core.config import ModelConfig
from irl_core.errors import ConfigError
from irl_core.models.pretrained import load_causal_lm, load_encoder
from irl_core.presets import load_config
from train import optimizers
from train.backends.tiny import build_model
from train.planning.plan import PRESETS
from train.studies.definitions import Backbone

SEED = 0


def make_untrained(start: Path, directory: Path, backbone: Backbone) -> Path:
    """Write a checkpoint with random weights, the same on every machine; returns its folder.

    Args:
        start: the checkpoint that gives the tokenizer and the shape.
        directory: the folder to write.
        backbone: its ``smaller`` divides width and depth.

    Raises:
        CheckpointError: ``start`` cannot be read, or the disk is full.
        ConfigError: its shape cannot be divided.
    """
    verify(start)
    model = load_causal_lm(start / "policy")
    tokenizer = load_encoder(start, model).tokenizer
    sft = load_config("demo-sft", [f"run.seed={SEED}"], PRESETS)
    config = replace(sft, model=divided_shape(model.config, backbone))
    described = load_json(start / "config.json")
    files = optimizers.model_files("policy", build_model(config, tokenizer)) | {
        "config.json": described | {"name": backbone.name, "provenance": {"weights": "random", "seed": SEED}}
    }
    with tempfile.TemporaryDirectory() as scratch:
        save_checkpoint(directory, files | optimizers.tokenizer_files(tokenizer, Path(scratch)))
    return directory


def divided_shape(known: object, backbone: Backbone) -> ModelConfig:
    """The shape of a transformers configuration with width and depth divided. Raises ConfigError where a size is not a
    multiple."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes = {name: int(getattr(known, name)) for name in names}
    odd = [name for name, size in sizes.items() if size % backbone.smaller]
    if odd:
        raise ConfigError(
            f"the start's {odd[0]} is {sizes[odd[0]]}, which {backbone.smaller} does not divide; the backbone "
            f"{backbone.name} cannot be made of it"
        )
    hidden, between, layers, heads = (size // backbone.smaller for size in sizes.values())
    return ModelConfig(
        hidden_size=hidden, intermediate_size=between, layers=layers, heads=heads,
        context=int(known.max_position_embeddings),  # type: ignore[attr-defined]
    )  # fmt: skip
