"""The embedded default: a Llama-architecture pair of about a million parameters, trained from nothing on the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if TYPE_CHECKING:
    from irl_core.config import TrainConfig

PAD, PROBLEM, SOLUTION, END = "<|pad|>", "<|problem|>", "<|solution|>", "<|end|>"
CHAT_TEMPLATE = PROBLEM + "{{ messages[0]['content'] }}" + SOLUTION
# Words with their leading space; names without it, so that a name is the same token wherever it stands and can be
# copied; every digit, operator and blank for itself.
PIECES = r" ?[a-z]+|[A-Z][a-z]*|[0-9]|<<|>>|####|[^\sA-Za-z0-9]|\s"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer (any text survives it) whose digits are single tokens."""
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
