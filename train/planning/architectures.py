"""Shapes of causal language models and what follows from them in closed form; no network, no torch.

The shapes of the paper's eight models are known here; that of any other model comes from its ``config.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irl_core.errors import ConfigError, UnknownShape

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Architecture:
    """The shape of a decoder with gated feed-forward layers and grouped-query attention.

    ``family`` is transformers' ``model_type``, which decides where there are biases and norms of queries and keys.
    ``rope``: its ``rope_parameters``, where known.
    """

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    vocabulary: int
    tied: bool
    context: int
    attention_bias: bool = False
    rope: tuple[tuple[str, Any], ...] = ()

    @property
    def attention_width(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_width

    @property
    def kv_width(self) -> int:
        """Width of all keys (or values) together."""
        return self.kv_heads * self.head_width

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """``(in, out)`` of the linear layers of a decoder layer: what is quantised, and what adapters are put on."""
        attended, keys = self.attention_width, self.kv_width
        return {
            "q_proj": (self.hidden, attended),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (attended, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Number of weights in the matrices of all decoder layers, without biases."""
        return self.layers * sum(a * b for a, b in self.linear_shapes().values())

    @property
    def embedding_parameters(self) -> int:
        """Number of weights of the token embeddings and, where it is a matrix of its own, the LM head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def small_parameters(self) -> int:
        """Number of weights of norms and biases."""
        norms = 2 * self.hidden + (2 * self.head_width if self.family == "qwen3" else 0)
        biases = 0
        if self.family == "qwen2":
            biases = self.attention_width + 2 * self.kv_width
        elif self.attention_bias:
            biases = self.attention_width + 2 * self.kv_width + self.hidden
        return self.layers * (norms + biases) + self.hidden

    @property
    def parameters(self) -> int:
        """Number of all parameters, tied ones once."""
        return self.linear_parameters + self.embedding_parameters + self.small_parameters

    def adapter_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Number of parameters of low-rank adapters: ``rank * (in + out)`` for each named layer, or the LM head.

        Raises:
            ConfigError: a name that is no layer of this model.
        """
        shapes = self.linear_shapes()
        count = 0
        for target in dict.fromkeys(targets):
            if target == "lm_head":
                count += rank * (self.hidden + self.vocabulary)
            elif target in shapes:
                count += self.layers * rank * sum(shapes[target])
            else:
                raise ConfigError(f"model.lora.targets names {target!r}; layers are {', '.join(LINEARS)}, lm_head")
        return count

    def kv_bytes(self, dtype: str) -> int:
        """Bytes that one cached token takes: a key and a value in every layer."""
        return 2 * self.layers * self.kv_width * BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Known:
    """A model whose shape is known without looking; ``gated``: its licence must be accepted before the download."""

    shape: Architecture
    licence: str
    gated: bool = False


def _llama(layers: int, hidden: int, heads: int, width: int, intermediate: int, tied: bool, factor: float) -> Known:
    rope = {
        "rope_theta": 500000.0, "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    shape = Architecture(
        "llama", layers, hidden, heads, 8, width, intermediate, 128256, tied, 131072, rope=tuple(rope.items())
    )
    return Known(shape, "Llama Community License", gated=True)


def _qwen(
    layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, *, tied: bool = True,
    vocabulary: int = 151936, context: int = 32768, theta: float = 1000000.0, licence: str = "Apache 2.0",
) -> Known:  # fmt: skip
    shape = Architecture(
        "qwen2", layers, hidden, heads, kv_heads, hidden // heads, intermediate, vocabulary, tied, context,
        rope=(("rope_theta", theta), ("rope_type", "default")),
    )  # fmt: skip
    return Known(shape, licence)


def _small(
    family: str, layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, vocabulary: int, context: int,
    theta: float,
) -> Known:  # fmt: skip
    shape = Architecture(
        family, layers, hidden, heads, kv_heads, hidden // heads, intermediate, vocabulary, True, context,
        rope=(("rope_theta", theta), ("rope_type", "default")),
    )  # fmt: skip
    return Known(shape, "Apache 2.0")


KNOWN = {
    "meta-llama/Llama-3.1-8B-Instruct": _llama(32, 4096, 32, 128, 14336, False, 8.0),
    "meta-llama/Llama-3.2-3B-Instruct": _llama(28, 3072, 24, 128, 8192, True, 32.0),
    "meta-llama/Llama-3.2-1B-Instruct": _llama(16, 2048, 32, 64, 8192, True, 32.0),
    "Qwen/Qwen2.5-0.5B-Instruct": _qwen(24, 896, 14, 2, 4864),
    "Qwen/Qwen2.5-1.5B-Instruct": _qwen(28, 1536, 12, 2, 8960),
    "Qwen/Qwen2.5-3B-Instruct": _qwen(36, 2048, 16, 2, 11008, licence="Qwen Research"),
    "Qwen/Qwen2.5-7B-Instruct": _qwen(28, 3584, 28, 4, 18944, tied=False, vocabulary=152064),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": _qwen(28, 1536, 12, 2, 8960, context=4096, theta=10000.0),
}


# Those of irl_core.models.bases, by their short names.
SMALL = {
    "smollm2-135m": _small("llama", 30, 576, 9, 3, 1536, 49152, 8192, 100000.0),
    "qwen2.5-coder-0.5b": _small("qwen2", 24, 896, 14, 2, 4864, 151936, 32768, 1000000.0),
}


def architecture_of(config: Mapping[str, Any], name: str) -> Architecture:
    """The shape in a model's ``config.json``; ``name`` is for the error.

    Raises:
        UnknownShape: a kind of model that is not known here, or a key that is missing.
    """
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UnknownShape(f"{name} is of the kind {str(family)[:40]!r}; shapes are known of {', '.join(FAMILIES)}")
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        return Architecture(
            family=family,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_width=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            context=int(config.get("max_position_embeddings", 32768)),
            attention_bias=bool(config.get("attention_bias", False)),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UnknownShape(f"{name}: its config.json gives no shape ({type(error).__name__}: {error})") from error


def transformers_config(name: str) -> Any:
    """A transformers configuration of a known model's shape, for a model of random weights.

    Raises:
        ConfigError: a model that is not known here.
    """
    from transformers import AutoConfig

    if name not in KNOWN:
        raise ConfigError(f"the shape of {name!r} is not known here; known are {', '.join(KNOWN)}")
    shape = KNOWN[name].shape
    return AutoConfig.for_model(
        shape.family,
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=shape.context,
        rope_parameters=dict(shape.rope),
        rms_norm_eps=1e-5 if shape.family == "llama" else 1e-6,
        bos_token_id=None,
        eos_token_id=None,
    )
