"""Metrics of a round: keys with slashes, plain floats, the same on every data-parallel process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from irl_core.distributed import World
from irl_core.types import EncodedTrace

Metrics = dict[str, float]
CLASS_NAMES = ("expert", "policy", "perturbed")


def rollout_metrics(samples: Sequence[EncodedTrace], world: World) -> Metrics:
    """Number, tokens, and shares of correct, of truncated and of not comparable samples of a round.

    A sample is not comparable where no answer is found in it, or one that the reference cannot be compared with. A
    share of nothing is 0.
    """
    traces = [sample.trace for sample in samples]
    own = [(trace.correct, trace.finished, len(trace.token_ids or ())) for trace in traces]
    rows = world.gather(own)
    count = max(1, len(rows))
    tokens = sum(length for _, _, length in rows)
    return {
        "rollout/samples": len(rows),
        "rollout/correct": sum(bool(correct) for correct, _, _ in rows) / count,
        "rollout/unknown": sum(correct is None for correct, _, _ in rows) / count,
        "rollout/truncated": sum(not finished for _, finished, _ in rows) / count,
        "rollout/length": tokens / count,
        "rollout/tokens": tokens,
    }


def class_metrics(logits: Sequence[tuple[int, float]], world: World) -> Metrics:
    """Mean reward and accuracy (sign of the mean logit) of each class of traces, from pairs ``(class, mean logit)``."""
    rows = world.gather(logits)
    metrics: Metrics = {}
    for number, name in enumerate(CLASS_NAMES):
        values = [value for cls, value in rows if cls == number]
        if values:
            right = sum((value > 0) == (number == 0) for value in values)
            metrics |= {f"disc/reward_{name}": sum(values) / len(values), f"disc/accuracy_{name}": right / len(values)}
    return metrics


def totals(values: Metrics, world: World) -> Metrics:
    """Each value summed over the data-parallel processes."""
    rows = world.gather([values])
    return {key: sum(row[key] for row in rows) for key in values}


@contextmanager
def timed(metrics: Metrics, key: str) -> Iterator[None]:
    """Add the seconds that the block takes to ``metrics[key]``."""
    started = time.perf_counter()
    yield
    metrics[key] = metrics.get(key, 0.0) + time.perf_counter() - started
