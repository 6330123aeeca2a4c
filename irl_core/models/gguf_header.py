"""The header of a GGUF file: shape, tokenizer, end tokens and licence of the model, read without torch.

End token and pre-tokenizer are those of the header, where common loaders guess; Llama 3's rotary scaling is recovered
from its tensor of factors. An unknown architecture, tokenizer or tensor is refused by name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irl_core.errors import CheckpointError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
READABLE_TYPES = (
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL",
    "IQ4_XS",
)  # fmt: skip
PRE_TOKENIZERS = {
    "smollm": "smollm", "gpt-2": "gpt2", "qwen2": "qwen2", "llama-bpe": "llama3", "llama3": "llama3",
    "llama-v3": "llama3",
}  # fmt: skip
# Control tokens that end a turn or a text in these families, whatever the one end token of the header.
FAMILY_ENDS = {"qwen2": ("<|endoftext|>",), "llama": ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")}
LAYER_TENSORS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ROPE_FACTORS = "rope_freqs.weight"
LLAMA3_CONTEXT = 8192  # that Llama 3's rotary embedding was trained for before it was scaled
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens


@dataclass(frozen=True)
class Header:
    """A GGUF file, opened: its keys, and its tensors, which are read where they are used."""

    path: Path
    keys: dict[str, Any]
    tensors: dict[str, Any]

    @property
    def family(self) -> str:
        """The architecture, of which transformers' ``model_type`` is the same word."""
        return str(self.keys.get("general.architecture"))

    @property
    def licence(self) -> str:
        """The licence that the header names; empty where it names none."""
        return str(self.keys.get("general.license", ""))

    @property
    def blocks(self) -> int:
        """Number of decoder layers."""
        return self._number("block_count")

    @property
    def tokens(self) -> list[str]:
        """The vocabulary by id."""
        return list(self.keys["tokenizer.ggml.tokens"])

    @property
    def token_types(self) -> list[int]:
        """The kind of each token."""
        return list(self.keys.get("tokenizer.ggml.token_type") or [NORMAL] * len(self.tokens))

    @property
    def chat_template(self) -> str | None:
        """The template (Jinja) of a conversation."""
        return self.keys.get("tokenizer.chat_template")

    def special(self, role: str) -> int | None:
        """The id of the token with a role: ``bos``, ``eos``, ``eot``, ``padding`` or ``unknown``."""
        return self.keys.get(f"tokenizer.ggml.{role}_token_id")

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids that end a completion: the header's end token first, then its end of turn and those of the family."""
        tokens, kinds = self.tokens, self.token_types
        known = {token: number for number, token in enumerate(tokens) if kinds[number] == CONTROL}
        family = [known[token] for token in FAMILY_ENDS[self.family] if token in known]
        return tuple(
            dict.fromkeys(end for end in (self.special("eos"), self.special("eot"), *family) if end is not None)
        )

    def config(self, *, tied: bool) -> dict[str, Any]:
        """The model's ``config.json``.

        Raises:
            CheckpointError: a key is missing, or asks for what is not read.
        """
        prefix = self.family
        hidden, heads = self._number("embedding_length"), self._number("attention.head_count")
        config: dict[str, Any] = {
            "model_type": prefix,
            "architectures": [ARCHITECTURES[prefix]],
            "hidden_size": hidden,
            "intermediate_size": self._number("feed_forward_length"),
            "num_hidden_layers": self.blocks,
            "num_attention_heads": heads,
            "num_key_value_heads": self.keys.get(f"{prefix}.attention.head_count_kv", heads),
            "head_dim": self.keys.get(f"{prefix}.attention.key_length", hidden // heads),
            "rms_norm_eps": float(f"{self.keys.get(f'{prefix}.attention.layer_norm_rms_epsilon', 1e-5):.6g}"),
            "max_position_embeddings": self._number("context_length"),
            "rope_parameters": self._rope(),
            "vocab_size": int(self.tensors["token_embd.weight"].shape[1]),
            "tie_word_embeddings": tied,
            "hidden_act": "silu",
            "dtype": "bfloat16",
            "bos_token_id": self.special("bos"),
            "eos_token_id": self.special("eos"),
            "pad_token_id": self.special("padding"),
        }
        if prefix == "llama":
            config["attention_bias"] = "blk.0.attn_q.bias" in self.tensors
            config["mlp_bias"] = "blk.0.ffn_gate.bias" in self.tensors
        return config

    def _number(self, key: str) -> int:
        value = self.keys.get(f"{self.family}.{key}")
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(f"{self.path}: {self.family}.{key} is {value!r}; a whole number above 0 is expected")
        return value

    def _rope(self) -> dict[str, Any]:
        """The parameters of the rotary embedding."""
        base = float(self.keys.get(f"{self.family}.rope.freq_base", 10000.0))
        kind = self.keys.get(f"{self.family}.rope.scaling.type", "none")
        if kind == "linear":
            factor = float(self.keys[f"{self.family}.rope.scaling.factor"])
            return {"rope_type": "linear", "rope_theta": base, "factor": factor}
        if kind != "none":
            raise CheckpointError(f"{self.path}: rope.scaling.type is {kind!r}; none and linear are read")
        if ROPE_FACTORS not in self.tensors:
            return {"rope_type": "default", "rope_theta": base}
        import numpy

        factors = numpy.asarray(self.tensors[ROPE_FACTORS].data, dtype=numpy.float64).flatten()
        factor = float(factors.max())
        settings = {
            "rope_type": "llama3", "rope_theta": base, "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": LLAMA3_CONTEXT,
        }  # fmt: skip
        if not numpy.allclose(factors, llama3_factors(base, len(factors), factor), rtol=1e-3):
            raise CheckpointError(f"{self.path}: {ROPE_FACTORS} scales the rotary embedding otherwise than Llama 3's")
        return settings

    def name_in_transformers(self, tensor: str) -> str:
        """A tensor's name in transformers. Raises CheckpointError for one that the architecture does not have."""
        body, _, kind = tensor.rpartition(".")
        block = re.fullmatch(r"blk\.(\d+)\.(\w+)", body)
        if block and block[2] in LAYER_TENSORS:
            return f"model.layers.{block[1]}.{LAYER_TENSORS[block[2]]}.{kind}"
        if body in TENSORS:
            return f"{TENSORS[body]}.{kind}"
        raise CheckpointError(
            f"{self.path}: the tensor {tensor!r} is in no {self.family} that is read here; its parts are "
            f"{', '.join((*TENSORS, *LAYER_TENSORS))}"
        )

    def values(self, tensor: str, rows: slice = slice(None)) -> NDArray[numpy.float32]:
        """A tensor as float32, outputs first."""
        import gguf
        import numpy

        stored = self.tensors[tensor]
        return numpy.asarray(gguf.dequantize(stored.data[rows], stored.tensor_type), dtype=numpy.float32)

    def is_tied(self) -> bool:
        """Whether output and embedding are one table: the file has no output, or one that is the embedding but for the
        rounding of the two quantisations (a correlation above 0.9 over some 4,096 rows)."""
        if "output.weight" not in self.tensors:
            return True
        rows = slice(None, None, max(1, int(self.tensors["token_embd.weight"].shape[1]) // 4096))
        one, other = self.values("token_embd.weight", rows).ravel(), self.values("output.weight", rows).ravel()
        lengths = math.sqrt(float(one @ one)) * math.sqrt(float(other @ other))
        return one.shape == other.shape and float(one @ other) > 0.9 * lengths


def llama3_factors(base: float, count: int, factor: float) -> NDArray[numpy.float64]:
    """The divisors of Llama 3's scaling for each of ``count`` frequencies of a rotary embedding."""
    import numpy

    wavelengths = 2 * math.pi * base ** (numpy.arange(count) / count)
    share = (LLAMA3_CONTEXT / wavelengths - 1.0) / (4.0 - 1.0)
    smooth = 1 / ((1 - share) / factor + share)
    return numpy.where(share <= 0, factor, numpy.where(share >= 1, 1.0, smooth))


def plain_reader(path: Path) -> Any:
    """gguf's reader over a plain view of the file: it cuts a piece of each token of the vocabulary, and a piece of
    numpy's own memory map takes three times as long to make."""
    import gguf
    import numpy

    class PlainReader(gguf.GGUFReader):
        @property
        def data(self) -> Any:
            return self._view

        @data.setter
        def data(self, mapped: Any) -> None:
            self._view = numpy.asarray(mapped)

    return PlainReader(path)


def read_header(path: Path) -> Header:
    """Open a GGUF file.

    Raises:
        CheckpointError: it is no whole GGUF, or of an architecture, with a tokenizer or tensors that are not read here;
            the error names which, and what is.
    """
    try:
        reader = plain_reader(path)
        keys = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError, TypeError, MemoryError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path}: not a GGUF that can be read ({reason[0][:160]})") from error
    header = Header(path, keys, {tensor.name: tensor for tensor in reader.tensors})
    if header.family not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: the architecture is {header.family[:40]!r}; {' and '.join(ARCHITECTURES)} can be read. Name the "
            "model's safetensors (a folder or a hub name) in its place"
        )
    if keys.get(f"{header.family}.expert_count") or keys.get(f"{header.family}.attention.sliding_window"):
        raise CheckpointError(f"{path}: a {header.family} with experts or an attention window; neither is read here")
    for tensor in header.tensors.values():
        if tensor.tensor_type.name not in READABLE_TYPES:
            raise CheckpointError(
                f"{path}: the tensor {tensor.name} is of type {tensor.tensor_type.name}; can be read: "
                f"{', '.join(READABLE_TYPES)}"
            )
        if tensor.name != ROPE_FACTORS:
            header.name_in_transformers(tensor.name)
    blocks = [f"blk.{block}.{part}" for block in range(header.blocks) for part in LAYER_TENSORS]
    for part in ("token_embd", "output_norm", *blocks):
        if f"{part}.weight" not in header.tensors:
            raise CheckpointError(f"{path}: the tensor {part}.weight is missing; the file is not whole")
    missing = [key for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id")
               if key not in keys]  # fmt: skip
    if keys.get("tokenizer.ggml.model") != "gpt2" or missing:
        raise CheckpointError(
            f"{path}: the tokenizer is of the kind {keys.get('tokenizer.ggml.model')!r}"
            f"{' without ' + ', '.join(missing) if missing else ''}; byte-level BPE ('gpt2') with an end token is read"
        )
    if keys.get("tokenizer.ggml.pre") not in PRE_TOKENIZERS:
        raise CheckpointError(
            f"{path}: the pre-tokenizer is {str(keys.get('tokenizer.ggml.pre'))[:40]!r}; can be read: "
            f"{', '.join(PRE_TOKENIZERS)}"
        )
    return header
