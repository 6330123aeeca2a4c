"""The embedded default: a Llama-architecture pair of about a million parameters, trained from scratch on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from irl_core.checkpoints.manifest import verify
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.pretrained import load_causal_lm, load_encoder
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import HEAD, Discriminator, load_discriminator
from train.backends.models import Models
from train.backends.transformers import check_head, prepare

PAD, PROBLEM, SOLUTION, END = "<|pad|>", "<|problem|>", "<|solution|>", "<|end|>"
CHAT_TEMPLATE = PROBLEM + "{{ messages[0]['content'] }}" + SOLUTION
# Words with their leading space; names without it, so that a name is the same token everywhere and can be copied;
# every digit, operator and blank a token of its own.
PIECES = r" ?[a-z]+|[A-Z][a-z]*|[0-9]|<<|>>|####|[^\sA-Za-z0-9]|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, which encodes any text, with single digits as tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, PROBLEM, SOLUTION, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, bos_token=PROBLEM, chat_template=CHAT_TEMPLATE
    )


def build_model(config: TrainConfig, tokenizer: PreTrainedTokenizerFast) -> Any:
    """A randomly initialised Llama of the configured size, deterministic in the seed."""
    size = config.model
    torch.manual_seed(config.run.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden_size,
            intermediate_size=size.intermediate_size,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=size.context,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def build_tiny(
    config: TrainConfig, state: Path | None, device: torch.device, texts: Callable[[], Iterable[str]]
) -> Models:
    """The models of the configured shape, or those of a checkpoint; see ``train.backends.build``."""
    source = state or checkpoint("model.policy", config.model.policy)
    if source is None:
        tokenizer = train_tokenizer(texts(), config.model.vocab_size)
        policy, encoder = build_model(config, tokenizer), TraceEncoder(tokenizer, config.data.instruction)
    else:
        policy = load_causal_lm(source / "policy")
        encoder = load_encoder(source, policy, config.data.instruction)
    # Copies first: what prepare() does to a model would lead back to the original.
    discriminator = make_discriminator(config, policy, state) if config.method.needs_discriminator else None
    reference = make_reference(config, policy, encoder, state) if config.policy.needs_reference else None
    for model in (policy, reference, None if discriminator is None else discriminator.backbone):
        if model is not None:
            prepare(model.to(device), config, device)
    return Models(policy, discriminator and discriminator.to(device), encoder, encoder, reference)


def checkpoint(key: str, name: str | None) -> Path | None:
    """The verified checkpoint that a setting names, if any. Raises ConfigError, or CheckpointError."""
    if name is None:
        return None
    path = Path(name)
    if not path.is_dir():
        raise ConfigError(f"{key} is {name!r}, which is not there; name another folder")
    verify(path)
    return path


def make_discriminator(config: TrainConfig, policy: Any, state: Path | None) -> Discriminator:
    """The saved discriminator, that of the named checkpoint, or a copy of its or of our policy with a new head."""
    if state is not None:
        return load_discriminator(state / "discriminator")
    start = checkpoint("model.discriminator", config.model.discriminator)
    if start is not None and (start / "discriminator" / HEAD).is_file():
        check_head(config, start / "discriminator", "model.discriminator")
        return load_discriminator(start / "discriminator")
    backbone = copy.deepcopy(policy) if start is None else load_causal_lm(start / "policy")
    return Discriminator(backbone, config.discriminator.head, config.discriminator.likelihood)


def make_reference(config: TrainConfig, policy: Any, encoder: TraceEncoder, state: Path | None) -> Any:
    """The frozen policy that the training started from."""
    start = checkpoint("model.policy", config.model.policy)
    if state is None:
        reference = copy.deepcopy(policy)
    elif start is None:
        reference = build_model(config, encoder.tokenizer)
    else:
        reference = load_causal_lm(start / "policy")
    return reference.eval().requires_grad_(False)
