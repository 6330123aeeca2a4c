"""Process-reward models of others as transformers saves them: which folder holds one, and how it is read.

The layout is told by ``config.json``, the names of the weights and, where a plain causal language model judges by two
of its tokens, by the folder's name or a file ``reward_layout.json`` in it: ``{"layout": "math-shepherd"}``. Nothing of
the folder is executed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal, get_args

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import CODE_KEYS, check_safetensors
from irl_core.errors import CheckpointError
from irl_core.files import escaped

StepLayout = Literal["qwen-prm", "skywork", "token-classifier", "sequence", "math-shepherd", "rlhflow"]
LAYOUT_FILE: Final = "reward_layout.json"
SPARSE: Final = ("sequence",)
NAMED: Final[dict[str, StepLayout]] = {  # in a folder's name
    "math-shepherd": "math-shepherd",
    "math_shepherd": "math-shepherd",
    "rlhflow": "rlhflow",
    "prm-deepseek-data": "rlhflow",
    "prm-mistral-data": "rlhflow",
}
HEADS: Final = ("score", "classifier", "v_head.summary", "pretrained_model.v_head.summary")  # of one linear layer
KNOWN_HEADS: Final = f"{', '.join(HEADS)}, score.0 with score.2"
KNOWN_ARCHITECTURES: Final = (
    "Qwen2ForProcessRewardModel, ...ForTokenClassification, ...ForSequenceClassification, ...ForRewardModel"
)
MOST_NAMED: Final = 5  # weights in a message
THRESHOLD: Final = 0.0  # a logit: even odds that the step is right


def step_layout(folder: Path) -> StepLayout | None:
    """How the process-reward model in a folder is read; None where the folder holds none. Reads headers alone.

    Raises:
        CheckpointError: its layout file names an unknown layout, or one of its files cannot be read.
    """
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        return None
    if (folder / LAYOUT_FILE).is_file():
        named = load_json(folder / LAYOUT_FILE).get("layout")
        layouts: tuple[StepLayout, ...] = get_args(StepLayout)
        if named not in layouts:
            raise CheckpointError(
                f"{LAYOUT_FILE}: the layout is {str(named)[:40]!r}; it is one of {', '.join(layouts)}"
            )
        return next(layout for layout in layouts if layout == named)
    kind = architecture_of(folder)
    if kind == "Qwen2ForProcessRewardModel":
        return "qwen-prm"
    if kind.endswith("ForTokenClassification"):
        return "token-classifier"
    if kind.endswith(("ForSequenceClassification", "ForRewardModel")):
        return "sequence"
    if any(name.endswith("v_head.summary.weight") for name in weight_files(folder)):
        return "skywork"
    if kind.endswith("ForCausalLM"):
        folder_name = folder.resolve().name.lower()
        return next((layout for part, layout in NAMED.items() if part in folder_name), None)
    return None


def architecture_of(folder: Path) -> str:
    """The architecture that a model's ``config.json`` names; empty where it names none."""
    architectures = load_json(folder / "config.json").get("architectures")
    return str(architectures[0]) if isinstance(architectures, list) and architectures else ""


def head_weights(folder: Path) -> list[str]:
    """The names of a model's weights outside its body, which is what most of them are of: those of its head.

    Raises:
        CheckpointError: one of its files cannot be read.
    """
    names = sorted(weight_files(folder))
    body = Counter(name.partition(".")[0] for name in names).most_common(1)
    return [name for name in names if name.partition(".")[0] != body[0][0]]


def found_and_known(folder: Path) -> str:
    """The architecture and the head that a model has, in words, and those that are known.

    Raises:
        CheckpointError: one of its files cannot be read.
    """
    if not any(folder.glob("*.safetensors")):
        return "it has no weights as safetensors, and pickles are not read; save it as safetensors"
    heads = head_weights(folder)
    named = ", ".join(heads[:MOST_NAMED]) + (f" and {len(heads) - MOST_NAMED} more" if heads[MOST_NAMED:] else "")
    architecture = escaped(architecture_of(folder))[:80] or "not named"
    return (
        f"its architecture is {architecture}, the weights of its head are {escaped(named)[:300] or 'none'}; known are "
        f"the architectures {KNOWN_ARCHITECTURES} and the heads {KNOWN_HEADS}"
    )


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of every weight in a folder, from the headers of its safetensors files. Raises CheckpointError."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        check_safetensors(path.name, path.resolve())
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            found |= {name: path for name in json.loads(file.read(length)) if name != "__metadata__"}
    return found


def plain_config(folder: Path) -> dict[str, Any]:
    """A model's configuration without what names code of its own, which is never loaded."""
    return {key: value for key, value in load_json(folder / "config.json").items() if key not in CODE_KEYS}


def described(folder: Path, layout: StepLayout) -> dict[str, Any]:
    """What a checkpoint's ``config.json`` says, said of a process-reward model: its rule and where it comes from.

    The rewards are logits that a step is right, and the first step under even odds is the first error. A sequence
    reward model says nothing of steps, so that every decision is 'uncertain'.
    """
    sparse = layout in SPARSE
    limits = ["-inf", "inf"] if sparse else [THRESHOLD, THRESHOLD]
    return {
        "name": folder.resolve().name,
        "reference": {"mean": 0.0, "std": 1.0, "origin": "logits as the model gives them, of no held-out solutions,"},
        "default_trace_score": "mean" if sparse else "minimum",
        "localisation": {
            "rule": {"signal": "raw", "reduction": "last", "choice": "first_below", "include_answer": True},
            "threshold": limits[0], "uncertain_threshold": limits[1], "alpha": 0.0, "uncertain_alpha": 1.0, "n": 0,
            "null_scores": [], "error_logit": [-1.0, 0.0], "correct_logit": [1.0, 0.0], "exact": None, "n_wrong": 0,
            "gamma": None, "note": "a process-reward model of others, at even odds; nothing was calibrated here",
        },
        "provenance": {"kind": "process-reward model of others", "layout": layout},
    }  # fmt: skip


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of a model's files that are read."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.jinja")]):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
