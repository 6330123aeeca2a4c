"""Pretrained models with unsloth's kernels (``FastLanguageModel``), on a GPU; imported only when chosen.

Unsloth loads base and adapters, replaces their layers by its own, and samples with a decoder and a cache of its own;
everything else is as in ``train.backends.transformers``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from irl_core.config import LoraConfig, TrainConfig
from irl_core.distributed import World
from irl_core.errors import ConfigError
from irl_core.models import hub, pretrained
from irl_core.models.precision import compute_in
from irl_core.models.pretrained import Base
from train.backends.models import Models
from train.backends.transformers import assemble

INSTEAD = "or train without it: --set model.backend=transformers"


def build_unsloth(config: TrainConfig, state: Path | None, world: World, device: torch.device) -> Models:
    """The configured models; see ``train.backends.build``.

    Raises:
        ConfigError: unsloth is not installed or finds no GPU, or does not support a setting.
    """
    model, policy = config.model, config.policy
    if not model.lora.rank:
        raise ConfigError("model.backend is 'unsloth' with model.lora.rank 0; set it to 16, say, " + INSTEAD)
    if policy.sampler != "generate" or policy.cache != "dynamic":
        raise ConfigError(
            f"policy.sampler is {policy.sampler!r} with the cache {policy.cache!r}, but unsloth decodes with its own; "
            "set policy.sampler to generate and policy.cache to dynamic"
        )
    return assemble(config, state, world, device, UnslothLoader(fast_language_model(), config))


def fast_language_model() -> Any:
    """unsloth's ``FastLanguageModel``. Raises ConfigError where the package or a GPU is missing."""
    try:
        from unsloth import FastLanguageModel
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"model.backend is 'unsloth', but {error.name} is not installed: pip install -e \".[gpu]\", {INSTEAD}"
        ) from error
    except (ImportError, NotImplementedError, RuntimeError) as error:  # what it raises without a GPU or its driver
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
        raise ConfigError(f"unsloth does not start here: {reason}. Mend that, {INSTEAD}") from error
    if not torch.cuda.is_available():
        raise ConfigError(f"model.backend is 'unsloth', which needs a GPU, and there is none; use one, {INSTEAD}")
    return FastLanguageModel


class UnslothLoader:
    """Loads models with adapters by ``FastLanguageModel`` (``fast``)."""

    def __init__(self, fast: Any, config: TrainConfig) -> None:
        self.fast = fast
        self.config = config

    def fresh(self, base: Base, lora: LoraConfig, device: torch.device) -> Any:
        return self.with_adapters(base, lora, device)

    def saved(self, directory: Path, device: torch.device) -> Any:
        base, lora = pretrained.read_base(directory), pretrained.read_adapter_config(directory)
        model = self.with_adapters(base, lora, device)
        pretrained.load_adapter_weights(model, directory)
        return model

    def with_adapters(self, base: Base, lora: LoraConfig, device: torch.device) -> Any:
        """The base model with new adapters, in unsloth's layers."""
        data, checkpointing = self.config.data, self.config.model.gradient_checkpointing
        folder = hub.locate(base.name, base.revision)
        model, _ = self.fast.from_pretrained(
            model_name=str(folder),
            # Longer inputs are cut off silently; the discriminator's own tokenizer may need more than the policy's.
            max_seq_length=2 * (data.max_prompt_tokens + data.max_completion_tokens),
            dtype=getattr(torch, base.dtype),
            load_in_4bit=base.quantisation == "nf4",
            load_in_8bit=base.quantisation == "int8",
            load_in_16bit=base.quantisation == "none",
            device_map={"": str(device)},
            trust_remote_code=False,
            use_exact_model_name=True,
            use_gradient_checkpointing="unsloth" if checkpointing else False,
        )
        model = self.fast.get_peft_model(
            model,
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets),
            bias="none",
            use_gradient_checkpointing="unsloth" if checkpointing else False,
            random_state=torch.initial_seed() % 2**32,
        )
        model.pretrained_base = base
        model.generation_config = pretrained.plain_generation(model.generation_config)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        compute_in(model, getattr(torch, base.dtype), device.type)
        train_as(self.fast, model, checkpointing)
        return model

    def prepare(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        """Do nothing: unsloth has its own attention and checkpointing."""


def train_as(fast: Any, model: Any, checkpointing: bool) -> None:
    """Make ``model.train()`` restore what unsloth's ``generate`` switches off: checkpointing, its decoder's flags."""
    plain, entered = type(model).train, False

    def train(mode: bool = True) -> Any:
        nonlocal entered
        if not mode or entered:  # for_training itself calls train()
            return plain(model, mode)
        entered = True
        try:
            fast.for_training(model, use_gradient_checkpointing="unsloth" if checkpointing else False)
        finally:
            entered = False
        return plain(model, mode)

    model.train = train
