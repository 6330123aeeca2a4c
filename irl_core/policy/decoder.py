"""Token-by-token decoding of Llama- and Qwen2-shaped models on the CPU, with fewer and larger operations.

Queries, keys and values come of one matrix product, and so do gate and up projection; keys and values are written into
one tensor that is laid out once; queries are grouped by the key head that they share, so that no key is repeated;
rotation and mask are made once a token. Adapters (LoRA) are kept as low-rank products beside the weights: adding them
to weights in bfloat16 would lose every update below the rounding of a weight.

The prompts are read by the model's own forward pass. What is decoded here equals it within the rounding of the type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, Qwen2ForCausalLM

from irl_core.policy.protocol import base_of, device_of

DECODED = (LlamaForCausalLM, Qwen2ForCausalLM)
ROPE_TYPES = ("default", "linear", "llama3")  # whose frequencies do not depend on the length
ROOM = 32  # tokens
LARGEST = 2**31  # weights; in larger models the products are all of the time, and a second copy of them is large
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def reason_not_to_decode(model: Any) -> str:
    """Why ``model`` has to be decoded by its own forward pass; empty where ``FusedWeights`` takes it."""
    base = base_of(model)
    if type(base) not in DECODED:
        return f"{type(base).__name__} is neither Llama nor Qwen2"
    wrapped = [part for part in (model, base, base.model) if "forward" in vars(part)]
    if device_of(model).type != "cpu":
        return "it is not on the CPU"
    if wrapped and getattr(base, "computes_in", None) is None:
        return "its forward pass is wrapped"
    config = base.config
    rope = config.rope_parameters["rope_type"]
    if rope not in ROPE_TYPES:
        return f"its rotary embedding is {rope!r}"
    if config.hidden_act != "silu" or set(getattr(config, "layer_types", None) or ()) - {"full_attention"}:
        return "its activation is not silu, or its attention not full"
    if sum(parameter.numel() for parameter in base.parameters()) > LARGEST:
        return f"it has more than {LARGEST:,} weights"
    if type(base.lm_head) is not nn.Linear or type(base.model.embed_tokens) is not nn.Embedding:
        return "its embeddings or its head are adapted"
    for layer in base.model.layers:
        for name in PROJECTIONS:
            part = getattr(layer.self_attn, name, None) or getattr(layer.mlp, name)
            if not _is_plain(part):
                return f"its {name} is {type(part).__name__}, neither linear nor with plain adapters"
    return ""


def _is_plain(part: Any) -> bool:
    """Whether a projection is a linear layer, alone or under LoRA adapters without biases or variants (DoRA, ...)."""
    if type(part) is not LoraLinear:
        return type(part) is nn.Linear
    biased = any(up.bias is not None for up in part.lora_B.values())
    return type(part.base_layer) is nn.Linear and not part.lora_variant and not part.fan_in_fan_out and not biased


# --------------------------------------------------------------------------------------------------------- weights


@dataclass(frozen=True, slots=True)
class Projection:
    """``x W^T + b + x D U`` of ``x`` ``(B, I)``: ``weight`` ``(O, I)``, ``bias`` ``(O,)``, and of the adapters ``down``
    ``(I, R)`` and ``up`` ``(R, O)``."""

    weight: Tensor
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None

    @classmethod
    def of(cls, parts: Sequence[Any], dtype: torch.dtype) -> Projection:
        """Linear layers of one input, with the adapters that are in force, as one: their outputs side by side."""
        linear: list[Any] = [getattr(part, "base_layer", part) for part in parts]
        weight: Tensor = torch.cat([one.weight for one in linear]) if len(linear) > 1 else linear[0].weight
        bias = None
        if any(one.bias is not None for one in linear):
            biases: list[Tensor] = [
                one.weight.new_zeros(one.out_features) if one.bias is None else one.bias for one in linear
            ]
            bias = torch.cat(biases).to(dtype)
        downs: list[Tensor] = []
        ups: list[Tensor] = []
        begin = 0
        for part, one in zip(parts, linear, strict=True):
            if type(part) is LoraLinear and not part.disable_adapters and not part.merged:
                for name in (name for name in part.active_adapters if name in part.lora_A):
                    into: Any = part.lora_A[name]
                    out: Any = part.lora_B[name]
                    downs.append(into.weight.T)
                    scaled = out.weight.T * part.scaling[name]
                    ups.append(functional.pad(scaled, (begin, weight.shape[0] - begin - one.out_features)))
            begin += one.out_features
        if not downs:
            return cls(weight.to(dtype), bias, None, None)
        return cls(weight.to(dtype), bias, torch.cat(downs, 1).to(dtype), torch.cat(ups).to(dtype))

    def __call__(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self.weight, self.bias)
        return y if self.down is None or self.up is None else torch.addmm(y, x @ self.down, self.up)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer: the weights of its two norms, and its four products."""

    attention_norm: Tensor
    query_key_value: Projection
    output: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection


class FusedWeights:
    """A causal LM's weights as they are now, with its adapters in force, ready for ``Decoding``.

    Args:
        model: one for which ``reason_not_to_decode`` gives none.
    """

    def __init__(self, model: Any) -> None:
        base = base_of(model)
        self.embedding: Tensor = base.model.embed_tokens.weight
        self.dtype: torch.dtype = getattr(base, "computes_in", None) or self.embedding.dtype
        self.rotary = base.model.rotary_emb
        self.heads: int = base.config.num_attention_heads
        self.key_heads: int = base.config.num_key_value_heads
        self.width: int = base.model.layers[0].self_attn.head_dim
        self.epsilon: float = base.config.rms_norm_eps
        self.layers = [
            Layer(
                attention_norm=layer.input_layernorm.weight,
                query_key_value=self._projection(layer.self_attn, "q_proj", "k_proj", "v_proj"),
                output=self._projection(layer.self_attn, "o_proj"),
                mlp_norm=layer.post_attention_layernorm.weight,
                gate_up=self._projection(layer.mlp, "gate_proj", "up_proj"),
                down=self._projection(layer.mlp, "down_proj"),
            )
            for layer in base.model.layers
        ]
        self.norm: Tensor = base.model.norm.weight
        self.head = self._projection(base, "lm_head")

    def _projection(self, module: Any, *names: str) -> Projection:
        return Projection.of([getattr(module, name) for name in names], self.dtype)

    def normed(self, states: Tensor, weight: Tensor) -> Tensor:
        """The root-mean-square norm of ``(B, H)`` states, in the type of the products."""
        return functional.rms_norm(states, weight.shape, weight, self.epsilon).to(self.dtype)


# -------------------------------------------------------------------------------------------------------- decoding


class Decoding:
    """The state of rows that are decoded together: their keys and values, ``(layers, 2, B, key heads, room, width)``.

    There is room for up to ``ROOM`` tokens more than were read, so that a layer's keys are one piece of memory: of a
    part of them the matrix product would make a copy for every token.

    Args:
        weights: of the model that read the prompts.
        cache: the model's cache of the prompts, padded on the left.
        attention: ``(prompts, time)``, 0 at padding.
        owners: ``(B,)``, the number of each row's prompt in the cache.
    """

    def __init__(self, weights: FusedWeights, cache: Any, attention: Tensor, owners: Tensor) -> None:
        self.weights = weights
        self.rows, self.time = len(owners), attention.shape[1]
        room = self.time - self.time % -ROOM
        self.cached = torch.zeros(
            len(weights.layers), 2, self.rows, weights.key_heads, room, weights.width, dtype=weights.dtype
        )
        for number, layer in enumerate(cache.layers):
            self.cached[number, 0, :, :, : self.time] = layer.keys.to(weights.dtype)[owners]
            self.cached[number, 1, :, :, : self.time] = layer.values.to(weights.dtype)[owners]
        self.positions = attention.sum(1)[owners]
        # (B, 1, 1, room) of what is added to scores: minus infinity at padding and where nothing was read yet
        self.mask = torch.full((self.rows, 1, 1, room), -torch.inf, dtype=weights.dtype)
        self.mask[..., : self.time].masked_fill_(attention[owners].bool()[:, None, None], 0.0)

    def keep(self, places: Sequence[int]) -> None:
        """Keep these rows, in this order. A row that keeps its place is not copied."""
        self.rows = len(places)
        for row, place in enumerate(places):
            if row != place:
                self.cached[:, :, row, :, : self.time] = self.cached[:, :, place, :, : self.time]
        kept = torch.tensor(places)
        self.positions, self.mask = self.positions[kept], self.mask[kept]

    def step(self, ids: Tensor) -> Tensor:
        """Read one token ``(B,)`` of each row; the logits ``(B, V)`` of the next."""
        weights = self.weights
        if self.time == self.cached.shape[4]:
            self.cached = functional.pad(self.cached[:, :, : self.rows], (0, 0, 0, ROOM))
            self.mask = functional.pad(self.mask, (0, ROOM), value=-torch.inf)
        self.mask[..., self.time] = 0.0
        states = weights.embedding[ids]
        cosine, sine = weights.rotary(states.to(weights.dtype), self.positions.unsqueeze(1))
        rotation = (cosine, sine)
        for number, layer in enumerate(weights.layers):
            normed = weights.normed(states, layer.attention_norm)
            mixed = self._attention(self.cached[number], layer.query_key_value(normed), rotation)
            states = states + layer.output(mixed)
            gate, up = layer.gate_up(weights.normed(states, layer.mlp_norm)).chunk(2, -1)
            states = states + layer.down(functional.silu(gate) * up)
        self.time += 1
        self.positions = self.positions + 1
        return weights.head(weights.normed(states, weights.norm))

    def _attention(self, cached: Tensor, fused: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Attention of one token a row over all that the row has read, ``(B, heads * width)``.

        Args:
            cached: the layer's keys and values, ``(2, rows, key heads, room, width)``; the token's own are added.
            fused: queries, keys and values ``(B, (heads + 2 key heads) * width)``.
            rotation: cosine and sine ``(B, 1, width)``.
        """
        weights = self.weights
        fused = fused.view(self.rows, -1, weights.width)
        rotated, value = fused.split((weights.heads + weights.key_heads, weights.key_heads), 1)
        low, high = rotated.chunk(2, -1)
        rotated = rotated * rotation[0] + torch.cat((-high, low), -1) * rotation[1]
        query, key = rotated.split((weights.heads, weights.key_heads), 1)
        keys, values = cached[:, : self.rows]
        keys[:, :, self.time], values[:, :, self.time] = key, value
        grouped = query.reshape(self.rows, weights.key_heads, -1, weights.width) * weights.width**-0.5
        scores = grouped @ keys.transpose(2, 3) + self.mask
        mixed: Tensor = scores.softmax(-1, dtype=torch.float32).to(weights.dtype) @ values
        return mixed.flatten(1)
