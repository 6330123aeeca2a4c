"""The plan of a training before it starts: models and data, memory against the device, time, downloads.

Nothing is loaded, and torch is imported only to ask a GPU for its free memory. ``train.planning.describe`` says a plan
in words, ``train.planning.fitting`` what to change where it does not fit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from irl_core.config import TrainConfig
from irl_core.home import runs_folder
from irl_core.models.devices import may_have_gpu
from irl_core.presets import load_config
from irl_core.storage.training_run import is_finished
from train.planning.architectures import Architecture
from train.planning.duration import A100, Durations, cpu_of, estimate_durations, machine_named
from train.planning.memory import (
    ALONE,
    GB,
    Memory,
    Pair,
    Processes,
    estimate_memory,
    head_parameters,
    trained_parameters,
)
from train.planning.sources import Origin, bases, find_data, find_model, part_of, shape_of

PRESETS = Path(__file__).resolve().parents[1] / "configs"
RUNS = runs_folder()


@dataclass(frozen=True, slots=True)
class Device:
    """The device of one process of the training; memory in bytes. ``kind``: cuda, cpu, or planned (another one)."""

    name: str
    kind: str
    total: float
    free: float


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """The number of a model's parameters, and of those that are trained."""

    total: int
    trained: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before a training starts. ``origins``: policy, discriminator, their bases; the data
    last."""

    config: TrainConfig
    origins: tuple[Origin, ...]
    pair: Pair
    memory: Memory
    durations: Durations
    device: Device
    processes: Processes = ALONE

    @property
    def fits(self) -> bool:
        """Whether the device has as much free memory as the training needs at its peak."""
        return self.memory.total <= self.device.free

    @property
    def parameters(self) -> dict[str, ParameterCount]:
        """The parameters of each model, by its role."""
        policy, discriminator = self.pair.policy, self.pair.discriminator
        counts = {"policy": ParameterCount(policy.parameters, trained_parameters(self.config, policy))}
        if discriminator is not None:
            head, trained = head_parameters(self.config, discriminator), trained_parameters(self.config, discriminator)
            counts["discriminator"] = ParameterCount(discriminator.parameters + head, trained + head)
        return counts

    @property
    def download_bytes(self) -> int | None:
        """Bytes that are still to be downloaded, a model named twice once; None where they are not known of one."""
        sizes = {origin.name: origin.download_bytes for origin in self.origins}
        return None if None in sizes.values() else sum(size or 0 for size in sizes.values())


def make_plan(config: TrainConfig, device: Device, processes: Processes = ALONE, *, ask_hub: bool = False) -> Plan:
    """The plan of a configuration.

    Args:
        config: the resolved configuration.
        device: the device of one process.
        processes: the processes that share the work.
        ask_hub: ask the hub whether and how large is what is not on this machine.

    Raises:
        ConfigError, CheckpointError: something that the configuration names is not there, or its shape is not known.
    """
    origins, policy = find_with_shape(config, "policy", ask_hub=ask_hub)
    pair = Pair(policy)
    if config.method.needs_discriminator:
        of_discriminator, discriminator = find_with_shape(config, "discriminator", ask_hub=ask_hub)
        origins, pair = [*origins, *of_discriminator], Pair(policy, discriminator)
    data = find_data(config.data.source, ask_hub=ask_hub)
    cpu = cpu_of(config)
    on_gpu = device.kind != "cpu" and not (cpu and device.kind == "planned")
    memory = estimate_memory(config, pair, processes, gpu=on_gpu)
    machine = (None if device.kind == "cuda" else cpu) or machine_named(device.name) or A100
    durations = estimate_durations(config, pair, processes, machine=machine)
    return Plan(config, (*origins, data), pair, memory, durations, device, processes)


def trained_first(plan: Plan) -> dict[str, float]:
    """The presets that a training starts from and that are not trained yet, in the order in which they are trained,
    with the seconds that each takes on the plan's device."""
    return {
        name: make_plan(earlier, plan.device, plan.processes).durations.total
        for name, earlier in unfinished_prerequisites(plan.config).items()
    }


def earlier_training(config: TrainConfig, name: str) -> TrainConfig:
    """The preset ``name``, which a training starts from, on the data of that training: a source that was given in place
    of the preset's counts for both."""
    earlier = load_config(name, presets_dir=PRESETS)
    return replace(earlier, data=replace(earlier.data, source=config.data.source))


def unfinished_prerequisites(config: TrainConfig) -> dict[str, TrainConfig]:
    """The presets that this one starts from and that are not trained yet, in the order in which they are trained."""
    unfinished: dict[str, TrainConfig] = {}
    for name in config.run.after:
        if not is_finished(RUNS / name):
            earlier = earlier_training(config, name)
            unfinished |= unfinished_prerequisites(earlier) | {name: earlier}
    return unfinished


# ----------------------------------------------------------------------------------------------------- what it runs on


def this_device(memory_gb: float | None = None) -> Device:
    """The device that a training on this machine would take, with the memory that is free there; or, to plan for
    another one, a device of so many GB (10^9 bytes)."""
    if memory_gb is not None:
        return Device(f"a device of {memory_gb:g} GB", "planned", memory_gb * GB, memory_gb * GB)
    if not may_have_gpu():
        return this_cpu()
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
    """The processes that the launcher started, as its environment says."""
    sharded = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    size = os.environ.get("WORLD_SIZE", "1")
    return Processes(int(size) if size.isdecimal() and int(size) else 1, sharded)


# ------------------------------------------------------------------------------------------------------------ models


def find_with_shape(config: TrainConfig, role: str, *, ask_hub: bool) -> tuple[list[Origin], Architecture]:
    """The origin of a model (with the base of its adapters), and its shape. Without a name of its own the
    discriminator starts from the policy's."""
    model = config.model
    own = role == "discriminator" and model.discriminator is not None
    name = model.discriminator if own else model.policy
    revision = model.discriminator_revision if own else model.policy_revision
    if name is None:
        return [Origin(role, f"a {model.backend} model", "made", note="from nothing")], tiny_shape(config)
    for preset in config.run.after:  # one of them may leave the checkpoint that is named and not there yet
        if Path(name) == RUNS / preset / "final" and not Path(name).exists():
            earlier = earlier_training(config, preset)
            _, shape = find_with_shape(earlier, "policy", ask_hub=False)
            return [Origin(role, name, "trained first", note=f"left by {earlier.run.preset}")], shape
    origin = find_model(role, name, revision, ask_hub=ask_hub)
    origins = [origin]
    if origin.kind == "checkpoint":
        origins += bases(role, part_of(Path(origin.where), role), ask_hub=ask_hub)
    return origins, shape_of(origin, revision)


def tiny_shape(config: TrainConfig) -> Architecture:
    """The shape that the backend ``tiny`` builds where no policy is named."""
    size = config.model
    return Architecture(
        "llama", size.layers, size.hidden_size, size.heads, size.heads, size.hidden_size // size.heads,
        size.intermediate_size, size.vocab_size, True, size.context,
    )  # fmt: skip
