"""Pretrained models with transformers, peft and bitsandbytes: from the hub, a folder, or a checkpoint of this project.

With ``model.lora.rank`` the weights are frozen in ``model.dtype`` (or quantised) and float32 adapters are trained on
them. With rank 0 every weight is trained and kept in float32, since common updates are smaller than what bfloat16 can
add to a weight; ``model.dtype`` is then that of the computation.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import PeftModel

from irl_core.checkpoints.manifest import MANIFEST, verify
from irl_core.config import LoraConfig, ModelConfig, TrainConfig
from irl_core.distributed import World
from irl_core.errors import CheckpointError, ConfigError
from irl_core.models import hub, pretrained
from irl_core.models.hub import ADAPTER_CONFIG
from irl_core.models.precision import compile_layers, compute_in, computing_as_base
from irl_core.models.pretrained import OWN_TOKENIZER, REFERENCE_ADAPTER, Base
from irl_core.models.token_alignment import check_same_tokens
from irl_core.reward.discriminator import HEAD, Discriminator, load_discriminator, read_head
from train.backends.models import Models


class Loader(Protocol):
    """Loads models with adapters; ``train.backends.unsloth`` has a loader of its own."""

    def fresh(self, base: Base, lora: LoraConfig, device: torch.device) -> Any:
        """The base model with new adapters, drawn from torch's random state."""

    def saved(self, directory: Path, device: torch.device) -> Any:
        """Adapters of a verified checkpoint on their base model, to be trained further."""

    def prepare(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        """Make the model train as the configuration says."""


class PeftLoader:
    """Loads with transformers and peft."""

    def fresh(self, base: Base, lora: LoraConfig, device: torch.device) -> Any:
        return pretrained.with_adapters(pretrained.load_base(base, device), lora)

    def saved(self, directory: Path, device: torch.device) -> Any:
        return pretrained.load_causal_lm(directory, device, trainable=True)

    def prepare(self, model: Any, config: TrainConfig, device: torch.device) -> None:
        prepare(model, config, device)


@dataclass(frozen=True, slots=True)
class Start:
    """The files that a model starts from.

    Attributes:
        key: the setting that names them, for errors.
        model: the folder of the model, or of its adapters.
        tokenizer: the folder of its tokenizer.
        name, revision: by which new adapters name their base model.
    """

    key: str
    model: Path
    tokenizer: Path
    name: str
    revision: str | None = None

    @property
    def has_adapters(self) -> bool:
        """Whether the model is saved as adapters on a base model."""
        return (self.model / ADAPTER_CONFIG).is_file()


def build_pretrained(config: TrainConfig, state: Path | None, world: World, device: torch.device) -> Models:
    """The configured models, from a saved training ``state`` where one is given; see ``train.backends.build``."""
    return assemble(config, state, world, device, PeftLoader())


def assemble(config: TrainConfig, state: Path | None, world: World, device: torch.device, loader: Loader) -> Models:
    """Build policy, discriminator, encoders and reference; ``loader`` loads the models that have adapters.

    Raises:
        ConfigError: a name leads nowhere, or the settings do not fit what is there.
        CheckpointError: ``state`` is not whole.
    """
    begin = starts(config, world) if state is None else saved_starts(state, config.method.needs_discriminator)
    policy_start = begin[0]
    origin = starts(config, world)[0] if state and config.policy.needs_reference else policy_start
    with errors_of(policy_start.key):
        policy = open_model(config, policy_start, device, loader, config.run.seed)
        encoder = pretrained.load_encoder(policy_start.tokenizer, policy, config.data.instruction)
        reference = make_reference(config, policy, origin, device)
    check_context(config, policy, policy_start.key)
    loader.prepare(policy, config, device)
    if len(begin) == 1:
        return Models(policy, None, encoder, encoder, reference)
    discriminator_start = begin[1]
    with errors_of(discriminator_start.key):
        discriminator = open_discriminator(config, discriminator_start, device, loader)
        reading = encoder
        if discriminator_start.tokenizer != policy_start.tokenizer:
            backbone = discriminator.backbone
            own = pretrained.load_encoder(discriminator_start.tokenizer, backbone, config.data.instruction)
            likelihood = "policy" if config.discriminator.final_anchor else config.discriminator.likelihood
            check_same_tokens(encoder.fingerprint(), own.fingerprint(), likelihood, config.discriminator.loss)
            reading = encoder if encoder.fingerprint() == own.fingerprint() else own
    check_context(config, discriminator.backbone, discriminator_start.key)
    loader.prepare(discriminator.backbone, config, device)
    return Models(policy, discriminator, encoder, reading, reference)


@contextmanager
def errors_of(key: str) -> Iterator[None]:
    """Name the setting in checkpoint errors inside the block, as ConfigError."""
    try:
        yield
    except CheckpointError as error:
        raise ConfigError(f"{key}: {error}") from error


# ------------------------------------------------------------------------------------------------ files to start from


def starts(config: TrainConfig, world: World) -> list[Start]:
    """The files that the policy starts from, and where a reward is learned those of the discriminator.

    The main process asks the hub first; the others find its files.
    """
    begin: list[Start] = []
    for turn in (True, False):
        if world.is_main is turn:
            begin = [start_of(*named) for named in configured_names(config)]
        world.barrier()
    return begin


def saved_starts(state: Path, needs_discriminator: bool) -> list[Start]:
    """The files of a saved training state."""
    key, own = "the training state", state / "discriminator"
    policy = Start(key, state / "policy", state, "")
    return [policy, Start(key, own, tokenizer_of(own, state), "")] if needs_discriminator else [policy]


def tokenizer_of(discriminator: Path, checkpoint: Path) -> Path:
    """The folder of the tokenizer that a saved discriminator reads."""
    own = discriminator / OWN_TOKENIZER
    return own if own.is_dir() else checkpoint


def configured_names(config: TrainConfig) -> Iterator[tuple[str, str, str | None]]:
    """Setting, name and revision of the policy, and where one is needed of the discriminator."""
    model = config.model
    policy = str(model.policy), model.policy_revision
    yield ("model.policy", *policy)
    if not config.method.needs_discriminator:
        return
    if model.discriminator is None:
        yield ("model.policy", *policy)
    else:
        yield "model.discriminator", model.discriminator, model.discriminator_revision


def start_of(key: str, name: str, revision: str | None) -> Start:
    """The files of a checkpoint of this project, or of a model from the hub or a folder. Raises ConfigError."""
    folder = Path(name)
    with errors_of(key):
        if not (folder / MANIFEST).is_file():
            name, revision = hub.pinned(name, revision)
            located = hub.locate(name, revision)
            return Start(key, located, located, name, revision)
        verify(folder)
    part = folder / "policy"
    if key == "model.discriminator" and (folder / "discriminator").is_dir():
        part = folder / "discriminator"
    return Start(key, part, tokenizer_of(part, folder), str(part.resolve()))


def open_model(config: TrainConfig, start: Start, device: torch.device, loader: Loader, seed: int) -> Any:
    """The model to train: with saved adapters, with new ones drawn from the seed, or with every weight."""
    model = config.model
    if start.has_adapters:
        check_adapters(model, start)
        return loader.saved(start.model, device)
    if not model.lora.rank:
        return pretrained.load_whole(start.model, dtype="float32", device=device)
    torch.manual_seed(seed)
    return loader.fresh(Base(start.name, start.revision, model.quantisation, model.dtype), model.lora, device)


def check_adapters(model: ModelConfig, start: Start) -> None:
    """Refuse settings that saved adapters were not trained with. Raises ConfigError."""
    lora, base = pretrained.read_adapter_config(start.model), pretrained.read_base(start.model)
    for name, wanted, trained in (
        ("lora.rank", model.lora.rank, lora.rank),
        ("lora.alpha", model.lora.alpha, lora.alpha),
        ("lora.dropout", model.lora.dropout, lora.dropout),
        ("lora.targets", sorted(model.lora.targets), sorted(lora.targets)),
        ("quantisation", model.quantisation, base.quantisation),
        ("dtype", model.dtype, base.dtype),
    ):
        if wanted != trained:
            raise ConfigError(f"model.{name} is {wanted}, but the adapters in {start.key} have {trained}; set it so")


# -------------------------------------------------------------------------------------------------------- the parts


def open_discriminator(config: TrainConfig, start: Start, device: torch.device, loader: Loader) -> Discriminator:
    """A saved discriminator with its head, or a language model with a new head. Raises ConfigError."""
    settings = config.discriminator
    backbone = open_model(config, start, device, loader, config.run.seed + 1)
    if not (start.model / HEAD).is_file():
        discriminator = Discriminator(backbone, settings.head, settings.likelihood)
        discriminator.head.to(device)
        return discriminator
    check_head(config, start.model, start.key)
    return load_discriminator(start.model, device, backbone)


def check_head(config: TrainConfig, directory: Path, key: str) -> None:
    """Refuse a saved head of another kind than the configured one. Raises ConfigError."""
    settings, saved = config.discriminator, read_head(directory)
    if saved != (settings.head, settings.likelihood):
        raise ConfigError(
            f"discriminator.head is {settings.head!r} and likelihood {settings.likelihood!r}, but {key} has "
            f"{saved[0]!r} and {saved[1]!r}; set them so"
        )


def check_context(config: TrainConfig, model: Any, key: str) -> None:
    """Refuse prompts and completions longer than the model's context. Raises ConfigError."""
    wanted = config.data.max_prompt_tokens + config.data.max_completion_tokens
    limit = getattr(model.config, "max_position_embeddings", wanted)
    if wanted > limit:
        raise ConfigError(
            f"data.max_prompt_tokens and max_completion_tokens come to {wanted:,}; {key} reads {limit:,}: lower them"
        )


def prepare(model: Any, config: TrainConfig, device: torch.device) -> None:
    """Set a model's precision, attention for packed rows and gradient checkpointing as configured."""
    settings = config.model
    dtype = getattr(torch, settings.dtype)
    if pretrained.base_of(model) is None and dtype is not torch.float32:
        compute_in(model, dtype, device.type)
    elif isinstance(model, PeftModel):
        computing_as_base(model)
    if settings.compile:
        compile_layers(model)
    if settings.shared_prompts:
        from irl_core.models.shared_prompts import use_shared_prompts

        use_shared_prompts(model)
    elif settings.packing:
        from irl_core.models.packed_attention import use_packed_attention

        use_packed_attention(model)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


# ----------------------------------------------------------------------------------------------------- the reference


def make_reference(config: TrainConfig, policy: Any, start: Start, device: torch.device) -> Any | None:
    """The policy's frozen start, for the KL penalty and preferences; with adapters it shares the weights."""
    if not config.policy.needs_reference:
        return None
    if pretrained.base_of(policy) is None:
        model = pretrained.load_whole(start.model, dtype="float32", device=device).requires_grad_(False)
        prepare(model, config, device)
        return model
    if not start.has_adapters:
        return AdapterReference(policy, None)
    lora = replace(pretrained.read_adapter_config(start.model), dropout=0.0)
    pretrained.with_adapters(policy, lora, REFERENCE_ADAPTER)
    pretrained.load_adapter_weights(policy, start.model, REFERENCE_ADAPTER)
    policy.set_requires_grad(REFERENCE_ADAPTER, False)
    return AdapterReference(policy, REFERENCE_ADAPTER)


class AdapterReference:
    """A policy as it was before training, inside the same model.

    It computes with the frozen ``adapter`` of that name in place of the trained one, or (None) with none, and has the
    methods of a model that ``irl_core.models.logprobs.completion_logprobs`` calls.
    """

    def __init__(self, model: Any, adapter: str | None) -> None:
        self.model = model
        self.adapter = adapter

    def get_decoder(self) -> Any:
        return SwitchedPart(self, self.model.get_decoder())

    def get_output_embeddings(self) -> Any:
        return SwitchedPart(self, self.model.get_output_embeddings())

    @contextmanager
    def switched(self) -> Iterator[None]:
        """Make the model the reference inside the block."""
        if self.adapter is None:
            with self.model.disable_adapter():
                yield
            return
        trained = self.model.active_adapter
        self.model.set_adapter(self.adapter, inference_mode=True)
        try:
            yield
        finally:
            self.model.set_adapter(trained)


class SwitchedPart:
    """A part of the model that computes as the reference's when called; its attributes are the part's."""

    def __init__(self, reference: AdapterReference, part: Any) -> None:
        self.reference = reference
        self.part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with self.reference.switched():
            return self.part(*arguments, **named)
