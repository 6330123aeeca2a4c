"""pass@1 on problems that training never sees: the measure by which the best checkpoint is kept.

The problems are neither those that calibration uses nor those that ``irl-lens evaluate`` reports on. What is sampled
depends on the run's seed, the step and the problem's number alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.errors import ConfigError
from irl_core.models.tokenization import TraceEncoder
from irl_core.statistics.best_of_n import pass_at_k
from irl_core.statistics.bootstrap import Figure
from irl_core.types import Trace
from train.data import held_out_traces
from train.distributed import sampler_for
from train.monitoring.throughput import PASS

TEMPERATURE = 1.0
TOP_P = 0.95


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``figure``: pass@1 with its interval over problems. ``rows``: the samples, as they are written."""

    figure: Figure
    rows: list[dict[str, Any]]

    def metrics(self) -> dict[str, float]:
        figure = self.figure
        truncated = sum(not row["finished"] for row in self.rows) / len(self.rows)
        values = {PASS: figure.value, "eval/low": figure.low, "eval/high": figure.high, "eval/n": float(figure.n)}
        return values | {"eval/truncated": truncated}


def held_out_problems(config: TrainConfig) -> list[Trace]:
    """The ``run.eval_problems`` problems (their expert traces) that are evaluated on; empty where nothing is.

    Raises:
        ConfigError: there are fewer than two with a known answer.
    """
    settings = config.run
    if not settings.eval_every:
        return []
    known = [trace for trace in held_out_traces(config) if trace.reference_answer is not None]
    return _enough(known[-settings.eval_problems :], config)  # calibration takes the first ones


def short_enough(problems: Sequence[Trace], encoder: TraceEncoder, config: TrainConfig) -> list[Trace]:
    """The problems whose prompts are within ``data.max_prompt_tokens``. Raises ConfigError as above."""
    limit = config.data.max_prompt_tokens
    fitting = [trace for trace in problems if len(encoder.encode_prompt(trace.problem)) <= limit]
    return _enough(fitting, config) if problems else []


def _enough(problems: list[Trace], config: TrainConfig) -> list[Trace]:
    if len(problems) < 2:
        raise ConfigError(
            f"run.eval_every is {config.run.eval_every}, and held-out problems to judge by there are {len(problems)} "
            f"(with an answer, and within data.max_prompt_tokens = {config.data.max_prompt_tokens}); an interval needs "
            "two: raise data.held_out and run.eval_problems, or set run.eval_every to 0"
        )
    return problems


def evaluate(
    policy: Any,
    encoder: TraceEncoder,
    config: TrainConfig,
    problems: Sequence[Trace],
    *,
    step: int,
    world: World,
    on_step: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Sample ``run.eval_samples`` solutions of each problem, divided among the processes, and judge them."""
    numbers = world.share(range(len(problems)))
    rollouts = sampler_for(config, encoder, world)(
        policy,
        [encoder.encode_prompt(problems[number].problem) for number in numbers],
        num_samples=config.run.eval_samples,
        max_new_tokens=config.data.max_completion_tokens,
        seeds=[evaluation_seed(config.run.seed, step, number) for number in numbers],
        temperature=TEMPERATURE,
        top_p=TOP_P,
        on_step=on_step,
    )
    own = [
        _row(encoder, problems[number], number, rollout)
        for number, drawn in zip(numbers, rollouts, strict=True)
        for rollout in drawn
    ]
    rows = world.gather(own)
    figure = pass_at_k([row["correct"] for row in rows], [row["number"] for row in rows], 1, seed=config.run.seed)
    return Evaluation(figure, rows)


def evaluation_seed(seed: int, step: int, number: int) -> int:
    """The seed of a problem's samples at a step."""
    return random.Random(f"evaluate-{seed}-{step}-{number}").getrandbits(62)


def _row(encoder: TraceEncoder, problem: Trace, number: int, rollout: Any) -> dict[str, Any]:
    trace = encoder.sampled_trace(
        problem.problem, rollout.token_ids, rollout.logprobs,
        problem_id=problem.problem_id, reference_answer=problem.reference_answer,
    )  # fmt: skip
    return {
        "split": "held_out", "number": number, "problem_id": problem.problem_id, "text": trace.text,
        "correct": bool(trace.correct), "finished": trace.finished,
    }  # fmt: skip
