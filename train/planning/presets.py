"""The presets: what can be trained, with estimates of memory and time. No network, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from irl_core.config import TrainConfig, load_config, preset_names
from train.planning.architectures import KNOWN
from train.planning.describe import hours, lines
from train.planning.duration import A100, CPU, estimate_durations
from train.planning.memory import GB, Pair, estimate_memory
from train.planning.plan import PRESETS, Device, make_plan, tiny_shape

GROUPS = {
    "demo": f"Embedded default ({CPU.name})",
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
        return (CPU if self.config.model.backend == "tiny" else A100).name

    def to_json(self) -> dict[str, Any]:
        """Plain data: the fields, with ``configuration`` (all settings, nested) in place of ``config``."""
        fields = {key: getattr(self, key) for key in ("name", "group", "about", "memory_bytes", "seconds")}
        return {**fields, "configuration": self.config.to_dict()}


def group_of(name: str) -> str:
    """The group that a preset is listed in, by its name."""
    first = name.partition("-")[0]
    return {"demo": "demo", "ablation": "ablations", "sft": "baselines", "grpo": "baselines"}.get(first, "pairs")


def all_presets() -> list[Preset]:
    """Every preset, group by group."""
    order = list(GROUPS)
    names = sorted(preset_names(PRESETS), key=lambda name: (order.index(group_of(name)), name))
    presets = []
    for name in names:
        config = load_config(name, presets_dir=PRESETS)
        pair, tiny = pair_of(config), config.model.backend == "tiny"
        memory = estimate_memory(config, pair, gpu=not tiny).total
        seconds = estimate_durations(config, pair, machine=CPU if tiny else A100).total
        words = " ".join(about(config.run.preset))
        presets.append(Preset(name, GROUPS[group_of(name)], words, round(memory), round(seconds), config))
    return presets


def listed() -> Iterator[str]:
    """All presets by group, a line each; memory and time are estimates."""
    for group, members in groupby(all_presets(), key=lambda preset: preset.group):
        yield group
        for preset in members:
            model, run = preset.config.model, preset.config.run
            named = [model.policy, model.discriminator if preset.config.method.needs_discriminator else None]
            models = " + ".join(name.rpartition("/")[2].removesuffix("-Instruct") for name in named if name in KNOWN)
            figures = f"{preset.memory_bytes / GB:5.1f} GB  {hours(preset.seconds):>6}"
            yield f"  {preset.name:<26} {run.method:<4} {run.steps:>5} steps  {figures}  {models}".rstrip()
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
        KNOWN[name].shape if name in KNOWN else tiny_shape(config)
        for name in (model.policy, model.discriminator or model.policy)
    )
    return Pair(policy, discriminator if config.method.needs_discriminator else None)


def described(name: str) -> Iterator[str]:
    """One preset: what it is, what it takes, its settings. Raises ConfigError."""
    config = load_config(name, presets_dir=PRESETS)
    machine = CPU if config.model.backend == "tiny" else A100
    memory = machine.memory_gb * GB
    device = Device(machine.name, "cpu" if machine is CPU else "planned", memory, memory)
    yield from about(config.run.preset)
    yield ""
    yield from lines(make_plan(config, device))
