"""What a step is measured by, beside what the trainer logs: pace, tokens a second, memory, learning rates, the best."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from irl_core.config import TrainConfig

Metrics = dict[str, float]
PASS = "eval/pass@1"
PACE_STEPS = 50
GIGABYTE = 1e9


@dataclass(slots=True)
class Clock:
    """Seconds left, from the pace of this process's last steps."""

    steps: int
    ticks: deque[float] = field(default_factory=lambda: deque(maxlen=PACE_STEPS + 1))

    def seconds_left(self, step: int) -> float:
        """Call it once before the first step, and after every one."""
        self.ticks.append(time.perf_counter())
        pace = (self.ticks[-1] - self.ticks[0]) / max(1, len(self.ticks) - 1)
        return pace * (self.steps - step)


def speed(metrics: Metrics, seconds: float) -> Metrics:
    """Seconds of the round, and the tokens sampled and trained on in a second of it, where the round counts them."""
    counted = [metrics[key] for key in ("rollout/tokens", "train/tokens") if key in metrics]
    return {"time/step_s": seconds} | ({"tokens/s": sum(counted) / seconds} if counted and seconds > 0 else {})


def reset_peak(device: torch.device) -> None:
    """Let the peak of ``memory`` be that of what follows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory(device: torch.device) -> Metrics:
    """Of this process, in GB (1e9 bytes): resident in main memory, and on a GPU allocated now and at the peak."""
    found = {"memory/rss_gb": psutil.Process().memory_info().rss / GIGABYTE}
    if device.type == "cuda":
        found["memory/allocated_gb"] = torch.cuda.memory_allocated(device) / GIGABYTE
        found["memory/peak_gb"] = torch.cuda.max_memory_allocated(device) / GIGABYTE
    return found


def learning_rates(trainer: Any, config: TrainConfig) -> Metrics:
    """The rates that the next step is made with (the discriminator's: that of its backbone)."""
    found = {"policy/learning_rate": float(trainer.policy.optimizer.param_groups[0]["lr"])}
    if config.method.needs_discriminator:
        found["disc/learning_rate"] = float(trainer.discriminator.optimizer.param_groups[0]["lr"])
    return found


def best_of(rows: Iterable[Metrics]) -> dict[str, float] | None:
    """The first of the highest pass@1 in the lines of a ``metrics.jsonl``, as ``best.json`` holds it."""
    evaluated = [row for row in rows if PASS in row]
    if not evaluated:
        return None
    row = max(evaluated, key=lambda row: row[PASS])
    return {"step": row["step"], "value": row[PASS], **{key: row[f"eval/{key}"] for key in ("low", "high", "n")}}
