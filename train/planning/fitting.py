"""What to change where a training does not fit into the memory of its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from train.planning.memory import GB, Memory, estimate_memory, longest_trace
from train.planning.plan import Device, Plan

LEAST_RANK = 16  # the smallest rank of adapters that is proposed
SMALLER: dict[tuple[str, Any], Any] = {
    ("model.gradient_checkpointing", False): True,
    ("model.quantisation", "none"): "nf4",
    ("model.quantisation", "int8"): "nf4",
    ("model.optimiser", "adamw"): "paged_adamw_8bit",
}


def refuse(plan: Plan) -> None:
    """Raise where the training would not fit, naming the settings to change. Raises ConfigError."""
    if not plan.fits:
        raise ConfigError(f"{shortage(plan)}. {settings_that_fit(plan)}; --force trains all the same")


def shortage(plan: Plan) -> str:
    """By how much it does not fit, and the part that takes the most."""
    largest = plan.memory.at_peak()[0]
    return (
        f"{plan.config.run.preset} needs about {plan.memory.total / GB:.1f} GB, and {memory_of(plan.device)}; "
        f"the largest part is {largest.name}, {largest.bytes / GB:.1f} GB"
    )


def memory_of(device: Device) -> str:
    """'a GPU has 12.3 GB free of 16.0'."""
    if device.kind == "planned":
        return f"{device.name} is planned for"
    return f"{device.name} has {device.free / GB:.1f} GB free of {device.total / GB:.1f}"


def settings_that_fit(plan: Plan) -> str:
    """A sentence with the settings that it would fit with: those of the largest part first, a step at a time."""
    config, changed = plan.config, dict[str, Any]()
    memory = plan.memory
    while memory.total > plan.device.free:
        step = next(smaller(config, memory), None)
        if step is None:
            return f"No setting makes it fit (the least is about {memory.total / GB:.1f} GB); take smaller models"
        key, config = step
        changed[key] = value_of(config, key)
        memory = estimate_memory(config, plan.pair, plan.processes, gpu=plan.device.kind != "cpu")
    settings = (f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changed.items())
    return f"Set {' and '.join(settings)} (then about {memory.total / GB:.1f} GB)"


def smaller(config: TrainConfig, memory: Memory) -> Iterator[tuple[str, TrainConfig]]:
    """Keys of settings, each with the configuration in which it is a step smaller: that of the largest part at the peak
    first; what adapters can learn is reduced last."""
    keys = list(dict.fromkeys(part.setting for part in memory.at_peak() if part.setting))
    for key in sorted(keys, key=lambda key: key == "model.lora.rank" and config.model.lora.rank > 0):
        for value in next_smaller(config, key):
            try:
                yield key, with_value(config, key, value)
            except ConfigError:  # a contradiction to another setting
                continue


def next_smaller(config: TrainConfig, key: str) -> Sequence[Any]:
    """The next smaller value of a setting; empty where there is none."""
    value, longest = value_of(config, key), longest_trace(config)
    if key in ("policy.sampling_tokens", "run.batch_tokens"):
        return [max(longest, value // 2)] if value > longest else []
    if key == "model.lora.rank":
        return [value // 2] if value > LEAST_RANK else [LEAST_RANK] if value == 0 else []
    following = SMALLER.get((key, value))
    return [] if following is None else [following]


def value_of(config: TrainConfig, key: str) -> Any:
    """The value of a setting, such as ``run.steps``."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def with_value(config: TrainConfig, key: str, value: Any) -> TrainConfig:
    """The configuration with another value. Raises ConfigError where it then contradicts itself."""
    section, _, name = key.partition(".")
    if name == "lora.rank":
        section, name, value = "model", "lora", replace(config.model.lora, rank=value)
    changed: Any = replace(getattr(config, section), **{name: value})
    return replace(config, **{section: changed})
