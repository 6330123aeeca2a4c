"""Expert traces for training, in an order that depends on the seed and the round alone."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from irl_core.config import ConfigError, TrainConfig
from irl_core.segmentation import make_trace
from irl_core.types import Source, Trace
from irl_core.word_problems import Split, WordProblem, drills, problems


def demo_problems(config: TrainConfig, split: Split, count: int) -> list[WordProblem]:
    """``count`` problems of our generator; the seed fixes them, and no text is in two splits."""
    return list(problems(config.run.seed, count, split))


def expert_trace(problem: WordProblem) -> Trace:
    """A generated problem with its expert solution."""
    return make_trace(
        problem.text, problem.solution, reference_answer=problem.answer, source=Source.EXPERT,
        trace_id=f"{problem.problem_id}/expert", problem_id=problem.problem_id,
    )  # fmt: skip


class ExpertData:
    """Training traces, visited in a new seeded order every epoch.

    Args:
        traces: at least one. seed: fixes the order.
    """

    def __init__(self, traces: Sequence[Trace], seed: int) -> None:
        self.traces = traces
        self.seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def batch(self, round_number: int, size: int) -> list[Trace]:
        """The traces of a round: the same for the same round number, whatever ran before."""
        return [self._at(position) for position in range(round_number * size, (round_number + 1) * size)]

    def _at(self, position: int) -> Trace:
        epoch, offset = divmod(position, len(self.traces))
        if epoch != self._epoch:
            self._order = list(range(len(self.traces)))
            random.Random(f"order-{self.seed}-{epoch}").shuffle(self._order)
            self._epoch = epoch
        return self.traces[self._order[offset]]


def training_data(config: TrainConfig) -> ExpertData:
    """The expert traces that the configuration names.

    Raises:
        ConfigError: a file without a readable row.
    """
    settings = config.data
    if settings.source == "demo":
        traces = [expert_trace(problem) for problem in demo_problems(config, "train", settings.train_problems)]
        sums = drills(config.run.seed, settings.drills)
        traces += [make_trace(task, solution, source=Source.EXPERT) for task, solution in sums]
    else:
        traces = list(itertools.islice(_read(settings.source), settings.train_problems))
    if not traces:
        raise ConfigError(f"data.source {settings.source!r} has no readable row; each needs a question and a solution")
    return ExpertData(traces, config.run.seed)


def _read(source: str) -> Iterator[Trace]:
    """The readable rows of a source; each that is not is named on stderr."""
    from irl_core.datasets import RowError, gsm8k, read

    for row in gsm8k("train") if source == "gsm8k" else read(Path(source)):
        if isinstance(row, RowError):
            print(f"left out: {row}", file=sys.stderr)
        else:
            yield row
