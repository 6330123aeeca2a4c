"""In what precision a model computes on a CPU, and how its layers are made faster there.

On processors with bfloat16 products (AMX, avx512_bf16) these are 2 to 8 times as fast as float32's, on others slower:
it is measured once, at the start. A frozen base computes in what is faster; its adapters then do so too, without peft's
casts of every layer's input, which doubled a forward pass.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from irl_core.errors import ConfigError, InputError

PRECISION_VARIABLE = "IRL_LENS_CPU_PRECISION"
SHAPE = (1024, 576, 1536)  # tokens, inputs, outputs of a small model's widest layer
REPEATS = 20


@cache
def measured_seconds() -> dict[torch.dtype, float]:
    """The shortest of ``REPEATS`` times of one product in bfloat16 and in float32 on this processor, in seconds.

    They take turns, and the shortest counts, so that other work on a busy machine does not decide.
    """
    tokens, inputs, outputs = SHAPE
    operands = {
        dtype: (torch.ones(tokens, inputs, dtype=dtype), torch.ones(outputs, inputs, dtype=dtype))
        for dtype in (torch.bfloat16, torch.float32)
    }
    shortest = dict.fromkeys(operands, float("inf"))
    for turn in range(REPEATS + 1):
        for dtype, pair in operands.items():
            started = time.perf_counter()
            torch.nn.functional.linear(*pair)
            seconds = time.perf_counter() - started
            if turn:  # the first one prepares the kernel
                shortest[dtype] = min(shortest[dtype], seconds)
    return shortest


def cpu_precision() -> Literal["bfloat16", "float32"]:
    """What a bfloat16 model computes in on this CPU: the faster of the two, or what IRL_LENS_CPU_PRECISION says.

    Raises:
        InputError: the variable holds another word.
    """
    asked = os.environ.get(PRECISION_VARIABLE, "auto")
    if asked not in ("auto", "bfloat16", "float32"):
        raise InputError(f"{PRECISION_VARIABLE} is {asked[:40]!r}; set it to auto, bfloat16 or float32.")
    if asked == "auto":
        seconds = measured_seconds()
        asked = "bfloat16" if seconds[torch.bfloat16] < seconds[torch.float32] else "float32"
    return "bfloat16" if asked == "bfloat16" else "float32"


def cpu_precision_in_words() -> str:
    """What was measured and chosen, for people."""
    ratio = measured_seconds()[torch.float32] / measured_seconds()[torch.bfloat16]
    return f"in {cpu_precision()}: bfloat16 products run at {ratio:.1f} times the speed of float32's here"


def compute_in(model: Any, dtype: torch.dtype, device_type: str) -> None:
    """Make ``model`` compute in ``dtype`` with its float32 weights, through whichever of its parts is called.

    A copy made afterwards would call the original: copy first.
    """
    model.computes_in = dtype
    for part in (model, model.get_decoder(), model.get_output_embeddings()):
        part.forward = torch.autocast(device_type, dtype)(part.forward)


def compute_adapters_in(model: PeftModel, dtype: torch.dtype) -> None:
    """Make float32 adapters multiply in ``dtype``, that of their base, on the CPU."""
    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.cast_input_dtype_enabled = False
    compute_in(model.get_base_model(), dtype, "cpu")


def computing_as_base(model: PeftModel) -> PeftModel:
    """The model; its adapters on a bfloat16 base on the CPU, which is not quantised, now compute in bfloat16 too."""
    base: Any = model.get_base_model()
    weight = base.get_input_embeddings().weight
    if weight.dtype is torch.bfloat16 and weight.device.type == "cpu" and base.pretrained_base.quantisation == "none":
        compute_adapters_in(model, torch.bfloat16)
    return model


def frozen(model: PeftModel, merge: Literal["never", "exact", "always"] = "never") -> Any:
    """The model without gradients, as it is used. Adapters on weights that are not quantised are added to them where
    that is asked for: ``always``, or ``exact``, where the weights are float32 and nothing is lost by it."""
    model.requires_grad_(False)
    base: Any = model.get_base_model()
    whole = base.get_input_embeddings().weight.dtype is torch.float32
    if base.pretrained_base.quantisation == "none" and (merge == "always" or (merge == "exact" and whole)):
        return merged(model)
    return computing_as_base(model)


def compile_layers(model: Any) -> None:
    """Compile each decoder layer's pass over whole sequences; a pass that fills a cache stays as it is.

    All layers share one compilation, for any number and length of rows.

    Raises:
        ConfigError: there is no C++ compiler.
    """
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError(
            "model.compile is true, and there is no C++ compiler (g++, clang++); install one, or set it to false"
        )
    for layer in model.get_decoder().layers:
        layer.forward = compiled_without_cache(layer.forward)


def compiled_without_cache(plain: Callable[..., Any]) -> Callable[..., Any]:
    """``plain`` compiled, for calls without a cache of keys and values."""
    compiled = torch.compile(plain, dynamic=True)

    def forward(*inputs: Any, past_key_values: Any = None, **named: Any) -> Any:
        if past_key_values is None:
            return compiled(*inputs, **named)
        return plain(*inputs, past_key_values=past_key_values, **named)

    return forward


def merged(model: PeftModel) -> Any:
    """The base with the adapters added to its weights: a third fewer passes over memory.

    Added in float32 and rounded to the weights' type once. Not for training; nor, in a narrower type, for sampling,
    where an update below a weight's rounding must count.
    """
    base: Any = model.get_base_model()
    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        weight = layer.get_base_layer().weight
        total = weight.float()
        for name in layer.active_adapters:
            total = total + layer.get_delta_weight(name).float()
        weight.data.copy_(total)
        layer.merged_adapters.extend(layer.active_adapters)
    whole: Any = model.unload()
    whole.pretrained_base = base.pretrained_base
    return whole
