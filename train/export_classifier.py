"""A checkpoint's discriminator as a token classifier that plain transformers loads: one folder, adapters merged.

Such a classifier is one linear layer on the last hidden states. The head ``linear`` is just that; ``anchored`` and
``cumulative`` read the likelihood of the text too, which no token classifier has, and are refused.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import CONFIG, verify
from irl_core.errors import CheckpointError
from irl_core.files import escaped
from irl_core.models.batching import collate
from irl_core.models.hub import ADAPTER_CONFIG
from irl_core.models.pretrained import (
    OWN_TOKENIZER,
    load_adapter_weights,
    load_base,
    load_encoder,
    load_whole,
    read_adapter_config,
    read_base,
    with_adapters,
)
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import load_discriminator, read_head
from irl_core.text.segmentation import make_trace
from irl_core.types import EncodedTrace

ABOUT = "irl_lens.json"
TOLERANCE = 1e-4  # of a logit, in float32
CHECKED = (
    ("Ada has 3 boxes with 4 pens each. She gives away 2 pens. How many are left?", "3 * 4 = 12 pens.\n#### 10"),
    ("Bo runs 2 km a day. How far does he run in a week?", "He runs 2 * 7 = 15 km.\nSo the answer is 15.\n#### 15"),
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: the architecture, its size in bytes, and by how much a logit differed from ours at most."""

    architecture: str
    size: int
    difference: float

    def sentence(self) -> str:
        """The same in words."""
        return (
            f"{self.architecture}, {self.size / 1e6:.1f} MB in float32; read again by plain transformers its logits "
            f"are ours within {self.difference:.1g}"
        )


def to_classifier(checkpoint: Path, out: Path) -> Exported:
    """Write the discriminator as a ``...ForTokenClassification`` folder with its tokenizer; then load it with plain
    transformers and compare.

    Its one label is the reward of a token given all before it: the logit, no probability. ``irl_lens.json`` holds what
    else a reader needs: the instruction before each problem, the mean and spread of rewards, the rule and threshold.

    Args:
        checkpoint: a finished one, which is verified.
        out: the folder to write; one that holds anything is refused.

    Raises:
        CheckpointError: the checkpoint is not whole, its head or base cannot be told as a token classifier, what was
            written does not score as it does, or it cannot be written.
    """
    verify(checkpoint)
    directory, config = checkpoint / "discriminator", load_json(checkpoint / CONFIG)
    name, instruction = str(config["name"]), str(config.get("instruction", ""))
    check_tellable(directory, name)
    discriminator = load_discriminator(directory, backbone=whole_backbone(directory))
    own = directory / OWN_TOKENIZER
    encoder = load_encoder(own if own.is_dir() else checkpoint, discriminator.backbone, instruction)
    encoded = [encoder.encode(make_trace(problem, solution)) for problem, solution in CHECKED]
    with torch.no_grad():
        output = discriminator(collate(encoded, encoder.pad_id))
    expected = [row[: len(one.completion_ids)] for row, one in zip(output.logits, encoded, strict=True)]
    classifier = classifier_of(discriminator.backbone, discriminator.head.linear, name)
    with new_folder(out) as folder:
        classifier.save_pretrained(folder)
        encoder.tokenizer.save_pretrained(folder)
        (folder / ABOUT).write_text(json.dumps(about(config, encoder), indent=1) + "\n", encoding="utf-8")
        del discriminator, classifier
        difference = largest_difference(folder, encoded, expected)
        size = sum(path.stat().st_size for path in folder.iterdir())
        architecture = str(load_json(folder / "config.json")["architectures"][0])
    return Exported(architecture, size, difference)


def check_tellable(directory: Path, name: str) -> None:
    """Raise CheckpointError where the head or the base in a ``discriminator`` folder cannot be a token classifier."""
    kind, _ = read_head(directory)
    if kind != "linear":
        raise CheckpointError(
            f"{name} has the head {kind!r}, which adds the likelihood of each token to a linear layer; a token "
            "classifier has that layer alone. Serve it with 'irl-lens serve', or train with discriminator.head=linear "
            "discriminator.likelihood_weight=0 discriminator.final_anchor=0"
        )
    if (directory / ADAPTER_CONFIG).exists() and (held := read_base(directory).quantisation) != "none":
        raise CheckpointError(
            f"{name} was trained on a base held in {held}, and adapters merged into its plain weights would score "
            "otherwise; serve it with 'irl-lens serve', or train with model.quantisation=none"
        )


def whole_backbone(directory: Path) -> Any:
    """The backbone in float32, its adapters merged: what it says there on any machine. Raises CheckpointError."""
    if not (directory / ADAPTER_CONFIG).exists():
        return load_whole(directory, dtype="float32")
    from irl_core.models import precision

    base = replace(read_base(directory), dtype="float32")
    model = with_adapters(load_base(base), read_adapter_config(directory))
    load_adapter_weights(model, directory)
    return precision.merged(model)


def classifier_of(backbone: Any, linear: torch.nn.Linear, name: str) -> Any:
    """A token classifier with these layers. Raises CheckpointError where transformers has none for the backbone."""
    from transformers import AutoModelForTokenClassification

    config = type(backbone.config).from_dict(backbone.config.to_dict())
    config.id2label, config.label2id, config.num_labels = {0: "reward"}, {"reward": 0}, 1
    config.classifier_dropout, config.dtype, config.name_or_path = 0.0, torch.float32, name
    try:
        with torch.device("meta"):
            classifier = AutoModelForTokenClassification.from_config(config)
    except ValueError:
        raise CheckpointError(f"transformers has no token classifier for {type(backbone).__name__}") from None
    weights = {f"model.{key}": value for key, value in backbone.get_decoder().state_dict().items()}
    weights |= {f"score.{key}": value.detach() for key, value in linear.state_dict().items()}
    classifier.load_state_dict(weights, assign=True)
    return classifier.eval()


def about(config: dict[str, Any], encoder: TraceEncoder) -> dict[str, Any]:
    """What a reader of the classifier needs to know of the checkpoint besides its weights."""
    return {
        "name": config["name"],
        "instruction": config.get("instruction", ""),
        "end_of_turn": encoder.tokenizer.convert_ids_to_tokens(encoder.end_ids[0]),
        "reading": "chat template of the user's message (instruction, blank line, problem), then the solution's own "
        "tokens without special ones, then end_of_turn; the reward of a token is the logit at that token",
        "default_trace_score": config.get("default_trace_score", "minimum"),
        "reference": config.get("reference"),
        "localisation": config.get("localisation"),
    }


def largest_difference(folder: Path, encoded: list[EncodedTrace], expected: list[torch.Tensor]) -> float:
    """How far the logits of the written folder, loaded by plain transformers, are from ours.

    Raises:
        CheckpointError: by more than ``TOLERANCE``.
    """
    from transformers import AutoModelForTokenClassification

    classifier = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    difference = 0.0
    for one, ours in zip(encoded, expected, strict=True):
        with torch.no_grad():
            logits = classifier.eval()(torch.tensor([[*one.prompt_ids, *one.completion_ids]])).logits
        theirs = logits[0, len(one.prompt_ids) :, 0]
        difference = max(difference, float((theirs - ours).abs().max()))
    if not difference <= TOLERANCE:
        raise CheckpointError(
            f"the token classifier's logits are {difference:.2g} from the checkpoint's, more than {TOLERANCE}; nothing "
            "was written. This model is not one that can be told so"
        )
    return difference


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` where the block ends well, and is removed where not.

    Raises:
        CheckpointError: ``out`` holds something, or cannot be written.
    """
    shown, out = escaped(str(out)), out.absolute()
    fresh = out.with_name(f"{out.name}.new")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{shown} is there already; name a new folder")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        os.replace(fresh, out)
    except OSError as error:
        raise CheckpointError(
            f"{shown} cannot be written ({error.strerror or error}); name a folder with room that you may write to"
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
