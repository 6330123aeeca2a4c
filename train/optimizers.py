"""Optimisers and learning-rate schedules, and models and optimisers as checkpoint files (tensors, never pickles)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from torch import Tensor

from irl_core.checkpoints.load import load_json, load_tensors
from irl_core.config import TrainConfig
from irl_core.errors import CheckpointError, ConfigError
from irl_core.models import hub, pretrained
from irl_core.reward.discriminator import HEAD, HEAD_WEIGHTS, Discriminator, head_description
from irl_core.training.optimizer_step import Learner

# Contents of a checkpoint's files by their relative names: tensors, JSON objects, or files to copy.
CheckpointFiles = dict[str, Mapping[str, Any] | Path]


def model_files(folder: str, model: Any) -> CheckpointFiles:
    """The files of a transformers model in ``<folder>/``, as ``irl_core.models.pretrained`` reads them.

    Those of a model with adapters are the adapters and the name of their base; else configuration, special tokens and
    every weight, tied ones once.
    """
    base = pretrained.base_of(model)
    if base is not None:
        return {
            f"{folder}/{hub.ADAPTER_CONFIG}": asdict(pretrained.adapter_config(model)),
            f"{folder}/{pretrained.ADAPTER_WEIGHTS}": pretrained.adapter_weights(model),
            f"{folder}/{pretrained.BASE}": asdict(base),
        }
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    config = json.loads(model.config.to_json_string(use_diff=True))
    dtype = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    return {
        f"{folder}/config.json": config | {"dtype": dtype},  # what is loaded again is what was trained
        f"{folder}/generation_config.json": special_tokens(model),
        f"{folder}/model.safetensors": tensors,
    }


def special_tokens(model: Any) -> dict[str, int | list[int]]:
    """The ids of the tokens that begin, end and pad; settings of sampling are left out."""
    settings = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}


def discriminator_files(discriminator: Discriminator) -> CheckpointFiles:
    """The files of ``discriminator/``: those of the backbone, and the head in float32."""
    return model_files("discriminator", discriminator.backbone) | {
        f"discriminator/{HEAD}": head_description(discriminator),
        f"discriminator/{HEAD_WEIGHTS}": {k: v.float() for k, v in discriminator.head.state_dict().items()},
    }


def tokenizer_files(tokenizer: Any, scratch: Path, folder: str = "") -> CheckpointFiles:
    """The tokenizer's files, written by transformers to ``scratch``, for ``folder`` of the checkpoint."""
    written = tokenizer.save_pretrained(scratch / folder)
    return {(Path(folder) / Path(name).name).as_posix(): Path(name) for name in written if Path(name).is_file()}


# ----------------------------------------------------------------------------------------------- optimisers in files

QUANTISED = "__bnb_optimizer_quant_state__"  # where bitsandbytes puts the tensors that are not to be cast


class OptimizerNumbers(TypedDict, total=False):
    """``training/<name>.json``: every number of an optimiser's state, beside the tensors in the safetensors file.

    ``param_groups`` holds the settings of each group of parameters, ``scheduler`` those of the learning rate's
    schedule, ``state`` the numbers of each parameter by its index, ``scaler`` the float16 loss scale.
    """

    param_groups: list[dict[str, object]]
    scheduler: dict[str, object]
    state: dict[str, dict[str, float]]
    scaler: dict[str, object]


def learner_files(name: str, learner: Learner) -> CheckpointFiles:
    """Optimiser, schedule and scaler as files from which ``restore_learner`` continues exactly.

    ``training/<name>.safetensors`` holds the moments, ``training/<name>.json`` the ``OptimizerNumbers``.
    """
    state = learner.optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    counts: dict[str, dict[str, float]] = {}
    for index, entry in state["state"].items():
        flat = {key: value for key, value in entry.items() if key != QUANTISED}
        flat |= {f"{QUANTISED}.{key}": value for key, value in entry.get(QUANTISED, {}).items()}
        for key, value in flat.items():
            if isinstance(value, Tensor):
                # All parameters share one table of 8-bit values; files hold no shared tensors.
                tensors[f"{index}.{key}"] = value.clone() if "qmap" in key else value
            else:
                counts.setdefault(str(index), {})[key] = value
    schedule = {k: v for k, v in learner.scheduler.state_dict().items() if isinstance(v, int | float | list)}
    numbers: OptimizerNumbers = {
        "param_groups": [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]],
        "scheduler": {k: v for k, v in schedule.items() if k != "lr_lambdas"},
        "state": counts,
    }
    if learner.scaler is not None:
        numbers["scaler"] = learner.scaler.state_dict()
    return {f"training/{name}.safetensors": tensors, f"training/{name}.json": numbers}


def restore_learner(directory: Path, name: str, learner: Learner) -> None:
    """Load what ``learner_files`` saved into a learner built from the same configuration.

    Raises:
        CheckpointError: the saved state is of another model.
    """
    numbers = cast(OptimizerNumbers, load_json(directory / "training" / f"{name}.json"))
    tensors = load_tensors(directory / "training" / f"{name}.safetensors")
    own = learner.optimizer.state_dict()["param_groups"]
    if len(numbers["param_groups"]) != len(own):
        raise CheckpointError(f"training/{name}.json is of another configuration; start a new run")
    groups = [{**saved, "params": group["params"]} for saved, group in zip(numbers["param_groups"], own, strict=True)]
    check_moments(name, tensors, learner.optimizer)
    entries: dict[int, Any] = {int(index): dict(entry) for index, entry in numbers.get("state", {}).items()}
    for key, value in tensors.items():
        index, _, field = key.partition(".")
        entry = entries.setdefault(int(index), {})
        inner = field.removeprefix(f"{QUANTISED}.")
        (entry if inner == field else entry.setdefault(QUANTISED, {}))[inner] = value
    learner.optimizer.load_state_dict({"state": entries, "param_groups": groups})
    # The moments of a paged optimiser go where a fresh one has them: to memory that the GPU pages in and out.
    optimizer: Any = learner.optimizer
    for parameter, state in optimizer.state.items() if getattr(optimizer, "is_paged", False) else ():
        for key in ("state1", "state2"):
            buffer = optimizer.get_state_buffer(parameter, dtype=state[key].dtype)
            state[key] = buffer.copy_(state[key])
    learner.scheduler.load_state_dict({**learner.scheduler.state_dict(), **numbers["scheduler"]})
    if learner.scaler is not None and "scaler" in numbers:
        learner.scaler.load_state_dict(numbers["scaler"])


def check_moments(name: str, tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Refuse saved moments that do not fit the optimiser's parameters. Raises CheckpointError."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        index, field = int(key.partition(".")[0]), key.rpartition(".")[2]
        moment = field in ("exp_avg", "exp_avg_sq", "state1", "state2")
        if index >= len(parameters) or (moment and value.shape != parameters[index].shape):
            raise CheckpointError(f"training/{name}.safetensors is of another model; start a new run")


# ----------------------------------------------------------------------------------------------------------- learners


class ParameterGroup(TypedDict, total=False):
    """Parameters that share a learning rate, as torch's optimisers take them."""

    params: list[torch.nn.Parameter]
    lr: float


def warm_up_then(schedule: str, warmup_ratio: float, total: int) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear warm-up, then ``cosine`` or ``linear`` to 0, or ``constant``."""
    warmup = max(1, round(warmup_ratio * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        if schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 1.0 - done if schedule == "linear" else 1.0

    return factor


def make_optimizer(
    groups: list[ParameterGroup], config: TrainConfig, *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), or bitsandbytes' with moments of 8 bit (Dettmers et al. 2022), paged or not.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    kind, betas = config.model.optimiser, config.policy.betas
    parameters: Any = groups
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, betas=betas, weight_decay=weight_decay)
    try:
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"model.optimiser is {kind!r}, which needs bitsandbytes: pip install bitsandbytes, or set it to adamw"
        ) from error
    quantised = PagedAdamW8bit if kind == "paged_adamw_8bit" else AdamW8bit
    return quantised(parameters, lr=lr, betas=betas, weight_decay=weight_decay)


def make_learner(
    model: Any, optimizer: torch.optim.Optimizer, factor: Callable[[int], float], config: TrainConfig
) -> Learner:
    """A model with its optimiser, its schedule, and on a GPU in float16 a scaler of the loss."""
    learner = Learner(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))
    if config.model.dtype == "float16" and learner.device.type == "cuda":
        learner.scaler = torch.amp.GradScaler("cuda")  # small gradients are 0 in float16
    return learner


def policy_learner(model: Any, config: TrainConfig) -> Learner:
    """The configured optimiser of the policy, its schedule over the rounds in which the policy learns."""
    settings = config.policy
    waiting = config.discriminator.warmup_rounds if config.method.needs_discriminator else 0
    total = max(1, (config.run.steps - waiting) * settings.updates_per_round)
    groups: list[ParameterGroup] = [{"params": [p for p in model.parameters() if p.requires_grad]}]
    optimizer = make_optimizer(groups, config, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return make_learner(model, optimizer, warm_up_then(settings.schedule, settings.warmup_ratio, total), config)


def discriminator_learner(discriminator: Discriminator, config: TrainConfig) -> Learner:
    """The configured optimiser, with a head that learns ``head_learning_rate_factor`` times as fast.

    The rate is ``warmup_learning_rate`` (warm-up, then cosine) while the policy is frozen, ``learning_rate`` after.
    """
    settings = config.discriminator
    first = settings.warmup_learning_rate if settings.warmup_rounds else settings.learning_rate
    warmup_updates = settings.warmup_rounds * settings.updates_per_round * settings.minibatches
    first_phase = warm_up_then("cosine", 0.05, warmup_updates)
    last = settings.learning_rate / first

    def factor(step: int) -> float:
        return max(last, first_phase(step)) if step < warmup_updates else last

    heads = list(discriminator.head.parameters())
    backbone = [p for p in discriminator.backbone.parameters() if p.requires_grad]
    groups: list[ParameterGroup] = [
        {"params": backbone, "lr": first},
        {"params": heads, "lr": first * settings.head_learning_rate_factor},
    ]
    optimizer = make_optimizer(groups, config, lr=first, weight_decay=0.0)
    return make_learner(discriminator, optimizer, factor, config)
