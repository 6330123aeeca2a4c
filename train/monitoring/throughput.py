"""Measurements of a step beside the trainer's: pace, tokens per second, memory, learning rates; the best evaluation."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import psutil
import torch

from irl_core.training.metrics import Metrics
from irl_core.training.optimizer_step import Learner

PASS = "eval/pass@1"
PACE_STEPS = 50
GIGABYTE = 1e9


@dataclass(slots=True)
class Clock:
    """Estimate of the time left, from the pace of this process's last ``PACE_STEPS`` steps."""

    steps: int
    ticks: deque[float] = field(default_factory=lambda: deque(maxlen=PACE_STEPS + 1))

    def seconds_left(self, step: int) -> float:
        """Seconds left after ``step``; to be called once before the first step and after every one."""
        self.ticks.append(time.perf_counter())
        pace = (self.ticks[-1] - self.ticks[0]) / max(1, len(self.ticks) - 1)
        return pace * (self.steps - step)


def speed(metrics: Metrics, seconds: float) -> Metrics:
    """Seconds of the step, and tokens sampled and trained on per second, where the step counts them."""
    counted = [metrics[key] for key in ("rollout/tokens", "train/tokens") if key in metrics]
    return {"time/step_s": seconds} | ({"tokens/s": sum(counted) / seconds} if counted and seconds > 0 else {})


def reset_peak(device: torch.device) -> None:
    """Start measuring the peak of the GPU's memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory(device: torch.device) -> Metrics:
    """Memory of this process in GB (1e9 bytes): resident, and on a GPU allocated now and at the peak."""
    gigabytes = {"memory/rss_gb": psutil.Process().memory_info().rss / GIGABYTE}
    if device.type == "cuda":
        gigabytes["memory/allocated_gb"] = torch.cuda.memory_allocated(device) / GIGABYTE
        gigabytes["memory/peak_gb"] = torch.cuda.max_memory_allocated(device) / GIGABYTE
    return gigabytes


def learning_rates(learners: Mapping[str, Learner]) -> Metrics:
    """The learning rates of the next step; the discriminator's is that of its backbone."""
    keys = {"policy": "policy/learning_rate", "discriminator": "disc/learning_rate"}
    return {keys[name]: float(learner.optimizer.param_groups[0]["lr"]) for name, learner in learners.items()}


def best_of(rows: Iterable[Metrics]) -> dict[str, float] | None:
    """The evaluation with the highest pass@1 (the first of equals) in the rows of a ``metrics.jsonl``."""
    evaluated = [row for row in rows if PASS in row]
    if not evaluated:
        return None
    row = max(evaluated, key=lambda row: row[PASS])
    return {"step": row["step"], "value": row[PASS], **{key: row[f"eval/{key}"] for key in ("low", "high", "n")}}
