"""Models as checkpoint files and back; optimisers and schedules as tensors, never as pickles."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from irl_core.adversarial import Learner
from irl_core.checkpoints import CheckpointError, load_json, load_tensors
from irl_core.config import TrainConfig
from irl_core.discriminator import Discriminator, head_description


def model_files(folder: str, model: Any) -> dict[str, Any]:
    """``<folder>/config.json`` and ``<folder>/model.safetensors`` of a transformers model, tied weights once."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    return {
        f"{folder}/config.json": json.loads(model.config.to_json_string(use_diff=True)),
        f"{folder}/model.safetensors": tensors,
    }


def discriminator_files(discriminator: Discriminator) -> dict[str, Any]:
    """The files of ``discriminator/``: the backbone, and the head in float32 beside it."""
    return model_files("discriminator", discriminator.backbone) | {
        "discriminator/head.json": head_description(discriminator),
        "discriminator/head.safetensors": {k: v.float() for k, v in discriminator.head.state_dict().items()},
    }


def tokenizer_files(tokenizer: Any, scratch: Path) -> dict[str, Any]:
    """The tokenizer's own files, as transformers writes them."""
    return {Path(name).name: Path(name) for name in tokenizer.save_pretrained(scratch) if Path(name).is_file()}


def learner_files(name: str, learner: Learner) -> dict[str, Any]:
    """``training/<name>.safetensors`` (optimiser moments) and ``training/<name>.json`` (all numbers of optimiser and
    schedule), from which ``restore_learner`` continues exactly."""
    state = learner.optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value
        for index, entry in state["state"].items()
        for key, value in entry.items()
        if isinstance(value, Tensor)
    }
    schedule = {k: v for k, v in learner.scheduler.state_dict().items() if isinstance(v, int | float | list)}
    numbers = {
        "param_groups": [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]],
        "scheduler": {k: v for k, v in schedule.items() if k != "lr_lambdas"},
    }
    return {f"training/{name}.safetensors": tensors, f"training/{name}.json": numbers}


def restore_learner(directory: Path, name: str, learner: Learner) -> None:
    """Load what ``learner_files`` saved into a learner built from the same configuration.

    Raises:
        CheckpointError: the saved state is of another model.
    """
    numbers = load_json(directory / "training" / f"{name}.json")
    tensors = load_tensors(directory / "training" / f"{name}.safetensors")
    state = learner.optimizer.state_dict()
    if len(numbers["param_groups"]) != len(state["param_groups"]):
        raise CheckpointError(f"training/{name}.json is of another configuration; start a new run")
    groups = [
        {**saved, "params": group["params"]}
        for saved, group in zip(numbers["param_groups"], state["param_groups"], strict=True)
    ]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, field = key.partition(".")
        entries.setdefault(int(index), {})[field] = value
    learner.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    learner.scheduler.load_state_dict({**learner.scheduler.state_dict(), **numbers["scheduler"]})


def warm_up_then(schedule: str, warmup_ratio: float, total: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step: linear warm-up, then ``cosine``, ``linear`` or ``constant``."""
    warmup = max(1, round(warmup_ratio * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        if schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 - done if schedule == "linear" else 1.0

    return factor


def policy_learner(model: Any, config: TrainConfig) -> Learner:
    """AdamW and the configured schedule over the rounds in which the policy learns."""
    settings = config.policy
    waiting = config.discriminator.warmup_rounds if config.run.method == "irl" else 0
    total = max(1, (config.run.steps - waiting) * settings.updates_per_round)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    factor = warm_up_then(settings.schedule, settings.warmup_ratio, total)
    return Learner(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))


def discriminator_learner(discriminator: Discriminator, config: TrainConfig) -> Learner:
    """AdamW with a faster head; ``warmup_learning_rate`` while the policy is frozen, ``learning_rate`` after."""
    settings = config.discriminator
    first = settings.warmup_learning_rate if settings.warmup_rounds else settings.learning_rate
    warmup_updates = settings.warmup_rounds * settings.updates_per_round
    first_phase = warm_up_then("cosine", 0.05, warmup_updates)
    last = settings.learning_rate / first

    def factor(step: int) -> float:
        return max(last, first_phase(step)) if step < warmup_updates else last

    heads = list(discriminator.head.parameters())
    backbone = [p for p in discriminator.backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": backbone, "lr": first},
            {"params": heads, "lr": first * settings.head_learning_rate_factor},
        ],
        betas=config.policy.betas,
        weight_decay=0.0,
    )
    return Learner(discriminator, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))
