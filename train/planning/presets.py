"""The presets: what can be trained, with estimates of memory and time. No network, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from irl_core.config import TrainConfig
from irl_core.presets import load_config, preset_names
from train.planning.architectures import KNOWN, SMALL
from train.planning.describe import hours, lines
from train.planning.duration import A100, AMX_CPU, CPU, CPUS, cpu_of, estimate_durations
from train.planning.memory import GB, Pair, estimate_memory
from train.planning.plan import PRESETS, Device, make_plan, tiny_shape

SHAPES = KNOWN | SMALL
GROUPS = {
    "demo": f"Embedded default ({CPU.name})",
    "gsm8k": f"Small pretrained models on GSM8K ({AMX_CPU.name})",
    "pairs": f"Pairs of policy and discriminator, with our objective and with the paper's ({A100.name})",
    "ablations": f"Ablations ({A100.name})",
    "baselines": f"Baselines ({A100.name})",
}


@dataclass(frozen=True, slots=True)
class Preset:
    """A training that can be started by its name.

    Attributes:
        group: heading that it is listed under.
        about: a sentence or more on what it is.
        memory_bytes: estimate of the peak, on the machine that the group is meant for.
        seconds: estimate of the whole training there.
        config: all settings.
    """

    name: str
    group: str
    about: str
    memory_bytes: int
    seconds: int
    config: TrainConfig

    @property
    def machine(self) -> str:
        """The machine that memory and time are estimated for."""
        return (cpu_of(self.config) or A100).name

    def to_json(self) -> dict[str, Any]:
        """Plain data: the fields, with ``configuration`` (all settings, nested) in place of ``config``."""
        fields = {key: getattr(self, key) for key in ("name", "group", "about", "memory_bytes", "seconds")}
        return {**fields, "configuration": self.config.to_dict()}


def group_of(name: str) -> str:
    """The group that a preset is listed in, by its name."""
    first = name.partition("-")[0]
    groups = {"demo": "demo", "gsm8k": "gsm8k", "ablation": "ablations", "sft": "baselines", "grpo": "baselines"}
    return groups.get(first, "pairs")


def all_presets() -> list[Preset]:
    """Every preset, group by group."""
    order = list(GROUPS)
    names = sorted(preset_names(PRESETS), key=lambda name: (order.index(group_of(name)), name))
    presets = []
    for name in names:
        config = load_config(name, presets_dir=PRESETS)
        pair, cpu = pair_of(config), cpu_of(config)
        memory = estimate_memory(config, pair, gpu=cpu is None).total
        seconds = estimate_durations(config, pair, machine=cpu or A100).total
        words = " ".join(about(config.run.preset))
        presets.append(Preset(name, GROUPS[group_of(name)], words, round(memory), round(seconds), config))
    return presets


def listed() -> Iterator[str]:
    """All presets by group, a line each; memory and time are estimates."""
    for group, members in groupby(all_presets(), key=lambda preset: preset.group):
        yield group
        for preset in members:
            model, run = preset.config.model, preset.config.run
            held = [model.policy, model.discriminator if preset.config.method.needs_discriminator else None]
            named = [base_named(preset.config, name) for name in held]
            models = " + ".join(name.rpartition("/")[2].removesuffix("-Instruct") for name in named if name in SHAPES)
            figures = f"{preset.memory_bytes / GB:5.1f} GB  {hours(preset.seconds):>6}"
            yield f"  {preset.name:<26} {run.method:<7} {run.steps:>5} steps  {figures}  {models}".rstrip()
        yield ""
    yield "Memory and time are estimates; 'irl-lens presets NAME' shows their parts and assumptions."


def about(preset: str) -> Iterator[str]:
    """The lines of comment that a preset's file opens with."""
    for line in (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        yield line.removeprefix("#").strip()


def pair_of(config: TrainConfig) -> Pair:
    """The shapes of a preset's models, from what is known by name."""
    model = config.model
    policy, discriminator = (
        SHAPES[base].shape if base in SHAPES else tiny_shape(config)
        for base in (base_named(config, name) for name in (model.policy, model.discriminator or model.policy))
    )
    return Pair(policy, discriminator if config.method.needs_discriminator else None)


def base_named(config: TrainConfig, name: str | None) -> str | None:
    """The model that a name stands for: of what an earlier preset leaves, the one that this starts from."""
    for preset in config.run.after:
        if name == f"runs/{preset}/final":
            earlier = load_config(preset, presets_dir=PRESETS)
            return base_named(earlier, earlier.model.policy)
    return name


def described(name: str) -> Iterator[str]:
    """One preset: what it is, what it takes, its settings. Raises ConfigError."""
    config = load_config(name, presets_dir=PRESETS)
    machine = cpu_of(config) or A100
    memory = machine.memory_gb * GB
    device = Device(machine.name, "cpu" if machine in CPUS else "planned", memory, memory)
    yield from about(config.run.preset)
    yield ""
    yield from lines(make_plan(config, device))
