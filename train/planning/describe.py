"""A plan for a reader, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from train.planning.duration import assumptions
from train.planning.fitting import memory_of, settings_that_fit
from train.planning.memory import GB, PHASES
from train.planning.plan import Plan


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data, which ``irl-lens train --dry-run --json`` prints. Keys:

    ``preset``, ``method``, ``steps``, ``processes``; ``configuration``: all settings, nested;
    ``models`` and ``data``: ``role``, ``name``, ``kind`` (made, trained first, folder, checkpoint, cache, download,
    missing), ``where`` (a folder), ``download_bytes`` (null: not known), ``note``;
    ``parameters``: of ``policy`` and ``discriminator`` ``total`` and ``trained``;
    ``memory``: ``parts`` (``name``, ``phase``: always or one of the phases, ``bytes``, ``setting`` that makes it
    smaller or null), ``largest_phase``, ``total_bytes``, ``device``, ``device_kind`` (cuda, cpu or planned),
    ``device_bytes``, ``free_bytes``, ``fits``, ``fix`` (a sentence, null where it fits);
    ``time``: ``machine``, ``step_seconds`` by phase, ``start_seconds``, ``evaluation_seconds`` of all together,
    ``total_seconds``, ``assumptions``; ``download_bytes``: of everything (null: not known).
    """
    config, memory, durations = plan.config, plan.memory, plan.durations
    *models, data = map(asdict, plan.origins)
    return {
        "preset": config.run.preset,
        "method": config.run.method,
        "steps": config.run.steps,
        "processes": plan.processes.size,
        "configuration": config.to_dict(),
        "models": models,
        "data": data,
        "parameters": {name: asdict(count) for name, count in plan.parameters.items()},
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
            "fix": None if plan.fits else settings_that_fit(plan),
        },
        "time": {
            "machine": durations.machine.name,
            "step_seconds": {phase: round(durations.step[phase], 3) for phase in PHASES},
            "start_seconds": round(durations.start, 1),
            "evaluation_seconds": round(durations.evaluations, 1),
            "calibration_seconds": round(durations.calibration, 1),
            "total_seconds": round(durations.total),
            "assumptions": list(assumptions(durations, config)),
        },
        "download_bytes": plan.download_bytes,
    }


def lines(plan: Plan) -> Iterator[str]:
    """The plan as text, a line each; the resolved configuration last."""
    config = plan.config
    shared = f", {plan.processes.size} processes" if plan.processes.size > 1 else ""
    yield f"{config.run.preset}: {config.run.method}, {config.run.steps} steps{shared}"
    for section in (origin_lines(plan), memory_lines(plan), time_lines(plan)):
        yield ""
        yield from section
    yield ""
    yield "Configuration"
    yield from (f"  {line}" for line in config.to_yaml().splitlines())


def origin_lines(plan: Plan) -> Iterator[str]:
    """Models and data: what they are, where they come from, and what is to be downloaded."""
    yield "Models and data"
    for origin in plan.origins:
        size = ""
        if origin.role in plan.parameters:
            parameters = plan.parameters[origin.role]
            size = f": {count(parameters.total)} parameters, {count(parameters.trained)} trained"
        where = f"{origin.kind} {origin.where}".rstrip()
        download = size_of(origin.download_bytes) if origin.kind in ("download", "missing") else ""
        yield f"  {origin.role:<14} {origin.name}{size}"
        yield f"  {'':<14} {', '.join(filter(None, (where, download, origin.note)))}"
    yield f"  to download    {size_of(plan.download_bytes)}"


def memory_lines(plan: Plan) -> Iterator[str]:
    """Memory by phase and part, and whether it fits."""
    memory = plan.memory
    yield f"Memory, estimated (GB); the largest phase is {memory.largest_phase}"
    for phase in ("always", *PHASES):
        for part in (part for part in memory.parts if part.phase == phase):
            setting = f"   ({part.setting})" if part.setting else ""
            yield f"  {phase:<14} {part.name:<36} {part.bytes / GB:7.2f}{setting}"
    verdict = "it fits" if plan.fits else f"IT DOES NOT FIT. {settings_that_fit(plan)}"
    yield f"  {'at the peak':<51} {memory.total / GB:7.2f}"
    yield f"  {memory_of(plan.device)}: {verdict}"


def time_lines(plan: Plan) -> Iterator[str]:
    """Time by phase, and what the estimate assumes."""
    durations = plan.durations
    yield f"Time, estimated for {durations.machine.name}: {hours(durations.total)}"
    phases = ", ".join(f"{phase} {durations.step[phase]:.1f}" for phase in PHASES if durations.step[phase])
    yield (
        f"  {durations.step_seconds:.1f} s a step ({phases}); evaluations {hours(durations.evaluations)} in all; "
        f"calibration {hours(durations.calibration)}; {durations.start:.0f} s to start"
    )
    yield from (f"  assumed: {line}" for line in assumptions(durations, plan.config))


def hours(seconds: float) -> str:
    """Seconds below 90, minutes below an hour, hours above."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def size_of(size: int | None) -> str:
    """Bytes as MB or GB; None is not known."""
    if size is None:
        return "size not known"
    return f"{size / GB:.2f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"


def count(parameters: int) -> str:
    """A number of parameters in thousands, millions or billions."""
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if parameters >= limit:
            return f"{parameters / limit:.2f} {unit}"
    return str(parameters)
