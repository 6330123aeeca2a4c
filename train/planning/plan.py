"""What a training would take, said before it starts: models and data, memory against the device, time, downloads.

``to_json`` is what the app reads. Nothing is loaded, and torch only to ask a GPU for its free memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from irl_core.config import TrainConfig, load_config
from irl_core.errors import ConfigError
from train.planning.architectures import Architecture
from train.planning.duration import A100, CPU, Durations, Machine, assumptions, estimate_durations, machine_named
from train.planning.memory import (
    ALONE,
    GB,
    PHASES,
    Memory,
    Pair,
    Processes,
    estimate_memory,
    head_parameters,
    longest_trace,
    trained_parameters,
)
from train.planning.sources import Origin, bases, find_data, find_model, part_of, shape_of

PRESETS = Path(__file__).resolve().parents[1] / "configs"
RUNS = Path("runs")
LEAST_RANK = 16  # that is proposed
SMALLER: dict[tuple[str, Any], Any] = {
    ("model.gradient_checkpointing", False): True,
    ("model.quantisation", "none"): "nf4",
    ("model.quantisation", "int8"): "nf4",
    ("model.optimiser", "adamw"): "paged_adamw_8bit",
}


@dataclass(frozen=True, slots=True)
class Device:
    """What a process of the training would run on; memory in bytes. ``kind``: cuda, cpu, or planned (another one)."""

    name: str
    kind: str
    total: float
    free: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before a training starts. ``origins``: policy, discriminator, their bases, the data."""

    config: TrainConfig
    origins: tuple[Origin, ...]
    pair: Pair
    memory: Memory
    durations: Durations
    device: Device
    processes: Processes = ALONE

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.device.free

    @property
    def parameters(self) -> dict[str, tuple[int, int]]:
        """Of each model: all of them, and those that are trained."""
        found = {"policy": (self.pair.policy.parameters, trained_parameters(self.config, self.pair.policy))}
        shape = self.pair.discriminator
        if shape is not None:
            head = head_parameters(self.config, shape)
            found["discriminator"] = (shape.parameters + head, trained_parameters(self.config, shape) + head)
        return found

    @property
    def download_bytes(self) -> int | None:
        """What is still to be downloaded, a model named twice once; None where that is not known of something."""
        sizes = {origin.name: origin.download_bytes for origin in self.origins}
        return None if None in sizes.values() else sum(size or 0 for size in sizes.values())


def make_plan(config: TrainConfig, device: Device, processes: Processes = ALONE, *, ask_hub: bool = False) -> Plan:
    """The plan of a configuration. ``ask_hub``: what is not on this machine is asked for, and how large it is.

    Raises:
        ConfigError, CheckpointError: something that the configuration names is not there, or its shape is not known.
    """
    origins, pair = _models(config, ask_hub=ask_hub)
    data = find_data(config.data.source, ask_hub=ask_hub)
    tiny = config.model.backend == "tiny"
    on_gpu = device.kind != "cpu" and not (tiny and device.kind == "planned")
    memory = estimate_memory(config, pair, processes, gpu=on_gpu)
    durations = estimate_durations(config, pair, processes, machine=_machine(device, tiny))
    return Plan(config, (*origins, data), pair, memory, durations, device, processes)


def _machine(device: Device, tiny: bool) -> Machine:
    if tiny and device.kind != "cuda":
        return CPU
    return machine_named(device.name) or A100


# ----------------------------------------------------------------------------------------------------- what it runs on


def this_device(memory_gb: float | None = None) -> Device:
    """The device that a training on this machine would take, with the memory that is free there; or, to plan for
    another one, a device of so many GB (10^9 bytes)."""
    if memory_gb is not None:
        return Device(f"a device of {memory_gb:g} GB", "planned", memory_gb * GB, memory_gb * GB)
    import torch

    if torch.cuda.is_available():
        index = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        free, total = torch.cuda.mem_get_info(index)
        return Device(torch.cuda.get_device_name(index), "cuda", total, free)
    return this_cpu()


def this_cpu() -> Device:
    """The CPU of this machine, with the memory that is free now."""
    import psutil

    memory = psutil.virtual_memory()
    return Device("the CPU of this machine", "cpu", memory.total, memory.available)


def launched_processes() -> Processes:
    """How many processes the launcher started, as its environment says."""
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    size = os.environ.get("WORLD_SIZE", "1")
    return Processes(int(size) if size.isdecimal() and int(size) else 1, sharded)


# ------------------------------------------------------------------------------------------------------------ models


def _models(config: TrainConfig, *, ask_hub: bool) -> tuple[list[Origin], Pair]:
    policy, shape = _model(config, "policy", ask_hub=ask_hub)
    if not config.method.needs_discriminator:
        return policy, Pair(shape)
    discriminator, own = _model(config, "discriminator", ask_hub=ask_hub)
    return [*policy, *discriminator], Pair(shape, own)


def _model(config: TrainConfig, role: str, *, ask_hub: bool) -> tuple[list[Origin], Architecture]:
    """Where a model comes from (with the base of its adapters), and its shape. Without a name of its own the
    discriminator starts from the policy's."""
    model = config.model
    own = role == "discriminator" and model.discriminator is not None
    name = model.discriminator if own else model.policy
    revision = model.discriminator_revision if own else model.policy_revision
    if name is None:
        return [Origin(role, f"a {model.backend} model", "made", note="from nothing")], tiny_shape(config)
    earlier = _trained_first(config, name)
    if earlier is not None:
        shape = _model(earlier, "policy", ask_hub=False)[1]
        return [Origin(role, name, "trained first", note=f"left by {earlier.run.preset}")], shape
    origin = find_model(role, name, revision, ask_hub=ask_hub)
    found = [origin]
    if origin.kind == "checkpoint":
        found += bases(role, part_of(Path(origin.where), role), ask_hub=ask_hub)
    return found, shape_of(origin, revision)


def _trained_first(config: TrainConfig, name: str) -> TrainConfig | None:
    """The preset that leaves a checkpoint which is not there yet."""
    for preset in config.run.after:
        if Path(name) == RUNS / preset / "final" and not Path(name).exists():
            return load_config(preset, presets_dir=PRESETS)
    return None


def tiny_shape(config: TrainConfig) -> Architecture:
    """What the backend ``tiny`` builds where no policy is named."""
    size = config.model
    return Architecture(
        "llama", size.layers, size.hidden_size, size.heads, size.heads, size.hidden_size // size.heads,
        size.intermediate_size, size.vocab_size, True, size.context,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ where it does not fit


def refuse(plan: Plan) -> None:
    """Raise where the training would not fit, naming the settings to change. Raises ConfigError."""
    if not plan.fits:
        raise ConfigError(f"{shortage(plan)}. {mend(plan)}; --force trains all the same")


def shortage(plan: Plan) -> str:
    """By how much it does not fit, and what takes the most."""
    largest = plan.memory.at_peak()[0]
    return (
        f"{plan.config.run.preset} needs about {plan.memory.total / GB:.1f} GB, and {_memory_of(plan.device)}; "
        f"the largest part is {largest.name}, {largest.bytes / GB:.1f} GB"
    )


def mend(plan: Plan) -> str:
    """The settings with which it would fit: the largest part that a setting makes smaller first, a step at a time."""
    config, changed = plan.config, {}
    memory = plan.memory
    while memory.total > plan.device.free:
        step = next(_smaller(config, memory), None)
        if step is None:
            return f"No setting makes it fit (the least is about {memory.total / GB:.1f} GB); take smaller models"
        key, config = step
        changed[key] = value_of(config, key)
        memory = estimate_memory(config, plan.pair, plan.processes, gpu=plan.device.kind != "cpu")
    settings = " and ".join(f"{key}={_shown(value)}" for key, value in changed.items())
    return f"Set {settings} (then about {memory.total / GB:.1f} GB)"


def _smaller(config: TrainConfig, memory: Memory) -> Iterator[tuple[str, TrainConfig]]:
    """Settings a step smaller, that of the largest part at the peak first; what adapters can learn is cut last."""
    keys = list(dict.fromkeys(part.setting for part in memory.at_peak() if part.setting))
    for key in sorted(keys, key=lambda key: key == "model.lora.rank" and config.model.lora.rank > 0):
        for value in _steps(config, key):
            try:
                yield key, _with(config, key, value)
            except ConfigError:
                continue


def _steps(config: TrainConfig, key: str) -> Sequence[Any]:
    """The next smaller value of a setting, where there is one."""
    value, longest = value_of(config, key), longest_trace(config)
    if key in ("policy.sampling_tokens", "run.batch_tokens"):
        return [max(longest, value // 2)] if value > longest else []
    if key == "model.lora.rank":
        return [value // 2] if value > LEAST_RANK else [LEAST_RANK] if value == 0 else []
    following = SMALLER.get((key, value))
    return [] if following is None else [following]


def value_of(config: TrainConfig, key: str) -> Any:
    """The value of a setting, such as ``run.steps``."""
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return found


def _with(config: TrainConfig, key: str, value: Any) -> TrainConfig:
    """The configuration with another value. Raises ConfigError where it then contradicts itself."""
    section, _, name = key.partition(".")
    if name == "lora.rank":
        lora = replace(config.model.lora, rank=value)
        return replace(config, model=replace(config.model, lora=lora))
    changed: Any = replace(getattr(config, section), **{name: value})
    return replace(config, **{section: changed})


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _memory_of(device: Device) -> str:
    if device.kind == "planned":
        return f"{device.name} is planned for"
    return f"{device.name} has {device.free / GB:.1f} GB free of {device.total / GB:.1f}"


# ----------------------------------------------------------------------------------------------------------- as data


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data. Keys, which stay as they are:

    ``preset``, ``method``, ``steps``, ``processes``; ``configuration``: all settings, nested;
    ``models`` and ``data``: ``role``, ``name``, ``kind`` (made, trained first, folder, checkpoint, cache, download,
    missing), ``where`` (a folder), ``download_bytes`` (null: not known), ``note``;
    ``parameters``: of ``policy`` and ``discriminator`` ``total`` and ``trained``;
    ``memory``: ``parts`` (``name``, ``phase``: always or one of the phases, ``bytes``, ``setting`` that makes it
    smaller or null), ``largest_phase``, ``total_bytes``, ``device``, ``device_kind`` (cuda, cpu or planned),
    ``device_bytes``, ``free_bytes``, ``fits``, ``mend`` (a sentence, null where it fits);
    ``time``: ``machine``, ``step_seconds`` by phase, ``start_seconds``, ``evaluation_seconds`` of all together,
    ``total_seconds``, ``assumptions``; ``download_bytes``: of everything (null: not known).
    """
    config, memory, durations = plan.config, plan.memory, plan.durations
    return {
        "preset": config.run.preset,
        "method": config.run.method,
        "steps": config.run.steps,
        "processes": plan.processes.size,
        "configuration": config.to_dict(),
        "models": [_origin(origin) for origin in plan.origins if origin.role != "data"],
        "data": next(_origin(origin) for origin in plan.origins if origin.role == "data"),
        "parameters": {name: {"total": all_, "trained": some} for name, (all_, some) in plan.parameters.items()},
        "memory": {
            "parts": [
                {"name": part.name, "phase": part.phase, "bytes": round(part.bytes), "setting": part.setting}
                for part in memory.parts
            ],
            "largest_phase": memory.largest_phase,
            "total_bytes": round(memory.total),
            "device": plan.device.name,
            "device_kind": plan.device.kind,
            "device_bytes": round(plan.device.total),
            "free_bytes": round(plan.device.free),
            "fits": plan.fits,
            "mend": None if plan.fits else mend(plan),
        },
        "time": {
            "machine": durations.machine.name,
            "step_seconds": {phase: round(durations.step[phase], 3) for phase in PHASES},
            "start_seconds": round(durations.start, 1),
            "evaluation_seconds": round(durations.evaluations, 1),
            "total_seconds": round(durations.total),
            "assumptions": list(assumptions(durations, config)),
        },
        "download_bytes": plan.download_bytes,
    }


def _origin(origin: Origin) -> dict[str, Any]:
    keys = ("role", "name", "kind", "where", "download_bytes", "note")
    return {key: getattr(origin, key) for key in keys}


# ------------------------------------------------------------------------------------------------------------ as text


def lines(plan: Plan) -> Iterator[str]:
    """The plan for a reader; the resolved configuration last."""
    config = plan.config
    shared = f", {plan.processes.size} processes" if plan.processes.size > 1 else ""
    yield f"{config.run.preset}: {config.run.method}, {config.run.steps} steps{shared}"
    yield ""
    yield from _origin_lines(plan)
    yield ""
    yield from _memory_lines(plan)
    yield ""
    yield from _time_lines(plan)
    yield ""
    yield "Configuration"
    yield from (f"  {line}" for line in config.to_yaml().splitlines())


def _origin_lines(plan: Plan) -> Iterator[str]:
    yield "Models and data"
    for origin in plan.origins:
        size = ""
        if origin.role in plan.parameters:
            total, trained = plan.parameters[origin.role]
            size = f"{count(total)} parameters, {count(trained)} trained"
        where = [origin.kind + (f" {origin.where}" if origin.where else ""), _download(origin), origin.note]
        yield f"  {origin.role:<14} {origin.name}{': ' * bool(size)}{size}"
        yield f"  {'':<14} {', '.join(filter(None, where))}"
    total_bytes = plan.download_bytes
    yield f"  to download    {size_of(total_bytes)}"


def _download(origin: Origin) -> str:
    if origin.kind not in ("download", "missing"):
        return ""
    return size_of(origin.download_bytes)


def _memory_lines(plan: Plan) -> Iterator[str]:
    memory = plan.memory
    yield f"Memory, estimated (GB); the largest phase is {memory.largest_phase}"
    for phase in ("always", *PHASES):
        for part in (part for part in memory.parts if part.phase == phase):
            smaller = f"   ({part.setting})" if part.setting else ""
            yield f"  {phase:<14} {part.name:<36} {part.bytes / GB:7.2f}{smaller}"
    verdict = "it fits" if plan.fits else f"IT DOES NOT FIT. {mend(plan)}"
    yield f"  {'at the peak':<51} {memory.total / GB:7.2f}"
    yield f"  {_memory_of(plan.device)}: {verdict}"


def _time_lines(plan: Plan) -> Iterator[str]:
    durations = plan.durations
    yield f"Time, estimated for {durations.machine.name}: {hours(durations.total)}"
    phases = ", ".join(f"{phase} {durations.step[phase]:.1f}" for phase in PHASES if durations.step[phase])
    yield (
        f"  {durations.step_seconds:.1f} s a step ({phases}); evaluations {hours(durations.evaluations)} in all; "
        f"{durations.start:.0f} s to start"
    )
    yield from (f"  assumed: {line}" for line in assumptions(durations, plan.config))


def hours(seconds: float) -> str:
    """Seconds below 90, minutes below an hour, hours above."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def size_of(found: int | None) -> str:
    """Bytes as MB or GB; None is not known."""
    if found is None:
        return "size not known"
    return f"{found / GB:.2f} GB" if found >= GB / 10 else f"{found / 1e6:.1f} MB"


def count(parameters: int) -> str:
    """A number of parameters in thousands, millions or billions."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= limit:
            return f"{parameters / limit:.2f} {unit}"
    return str(parameters)
