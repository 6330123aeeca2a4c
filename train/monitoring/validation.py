"""Validation during a training: pass@1 on held-out problems, by which the best checkpoint is kept; samples to read.

The held-out problems are neither those that calibration uses nor those that ``irl-lens evaluate`` reports on. What is
sampled depends on the training's seed, the step and the problem's number alone. The samples of a step are kept in
``samples/step-000100.jsonl``, one in a line; their text is only data.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.errors import ConfigError
from irl_core.files import not_written, write_whole
from irl_core.models.tokenization import TraceEncoder
from irl_core.policy.protocol import Rollout
from irl_core.statistics.best_of_n import pass_at_k
from irl_core.statistics.bootstrap import Estimate
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.groups import samples_of
from irl_core.training.grpo import GRPOTrainer
from irl_core.types import Trace
from train.data import held_out_traces
from train.distributed import sampler_for
from train.monitoring.throughput import PASS

FOLDER = "samples"
TEMPERATURE = 1.0
TOP_P = 0.95


class SampleRow(TypedDict):
    """A sample as it is kept.

    ``number`` is that of the held-out problem. ``reward`` is the mean raw reward of a sample that the policy learnt
    from, None where no reward is learned.
    """

    split: Literal["train", "held_out"]
    problem_id: str
    text: str
    correct: bool
    finished: bool
    number: NotRequired[int]
    reward: NotRequired[float | None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Pass@1 with its interval over problems, and the samples that it was measured on."""

    figure: Estimate
    rows: list[SampleRow]

    def metrics(self) -> dict[str, float]:
        """The evaluation's part of the step's metrics."""
        figure = self.figure
        truncated = sum(not row["finished"] for row in self.rows) / len(self.rows)
        values = {PASS: figure.value, "eval/low": figure.low, "eval/high": figure.high, "eval/n": float(figure.n)}
        return values | {"eval/truncated": truncated}


# --------------------------------------------------------------------------------------------------- held-out problems


def held_out_problems(config: TrainConfig) -> list[Trace]:
    """Expert traces of the ``run.eval_problems`` problems that are evaluated on; empty where ``run.eval_every`` is 0.

    Raises:
        ConfigError: fewer than two of them have a known answer.
    """
    settings = config.run
    if not settings.eval_every:
        return []
    known = [trace for trace in held_out_traces(config) if trace.reference_answer is not None]
    return check_count(known[-settings.eval_problems :], config)  # calibration takes the first ones


def short_enough(problems: Sequence[Trace], encoder: TraceEncoder, config: TrainConfig) -> list[Trace]:
    """The problems whose prompts are within ``data.max_prompt_tokens``.

    Raises:
        ConfigError: fewer than two of them are.
    """
    limit = config.data.max_prompt_tokens
    fitting = [trace for trace in problems if len(encoder.encode_prompt(trace.problem)) <= limit]
    return check_count(fitting, config) if problems else []


def check_count(problems: list[Trace], config: TrainConfig) -> list[Trace]:
    """The problems, where there are enough for an interval. Raises ConfigError."""
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
    """Sample ``run.eval_samples`` solutions of each problem, divided among the processes, and compute pass@1."""
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
        held_out_row(encoder, problems[number], number, rollout)
        for number, drawn in zip(numbers, rollouts, strict=True)
        for rollout in drawn
    ]
    rows = world.gather(own)
    figure = pass_at_k([row["correct"] for row in rows], [row["number"] for row in rows], 1, seed=config.run.seed)
    return Evaluation(figure, rows)


def held_out_row(encoder: TraceEncoder, problem: Trace, number: int, rollout: Rollout) -> SampleRow:
    """A sampled solution of the held-out problem of that number, with the verdict on its answer."""
    trace = encoder.sampled_trace(
        problem.problem, rollout.token_ids, rollout.logprobs,
        problem_id=problem.problem_id, reference_answer=problem.reference_answer,
    )  # fmt: skip
    return {
        "split": "held_out", "number": number, "problem_id": problem.problem_id, "text": trace.text,
        "correct": bool(trace.correct), "finished": trace.finished,
    }  # fmt: skip


def evaluation_seed(seed: int, step: int, number: int) -> int:
    """The seed of a held-out problem's samples at a step."""
    return random.Random(f"evaluate-{seed}-{step}-{number}").getrandbits(62)


# ------------------------------------------------------------------------------------------------------- kept samples


def round_samples(trainer: object) -> list[SampleRow]:
    """The samples of the round just done, each with its mean raw reward; none where the policy is not sampled (SFT).

    Every process must call it, and gets the rows of all of them.
    """
    if not isinstance(trainer, AdversarialTrainer | GRPOTrainer):
        return []
    pairs = zip(samples_of(trainer.groups), trainer.sample_rewards(), strict=True)
    own: list[SampleRow] = [
        {
            "split": "train", "problem_id": sample.trace.problem_id, "text": sample.trace.text,
            "correct": bool(sample.trace.correct), "finished": sample.trace.finished, "reward": reward,
        }
        for sample, reward in pairs
    ]  # fmt: skip
    return trainer.world.gather(own)


def write_samples(run_dir: Path, step: int, rows: Sequence[SampleRow]) -> None:
    """Write the samples of a step. Raises CheckpointError."""
    if not rows:
        return
    folder = run_dir / FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise not_written(FOLDER, error) from error
    write_whole(folder / f"step-{step:06d}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))


def drop_samples_after(run_dir: Path, step: int) -> None:
    """Remove the samples of later steps, which a resumed training makes again."""
    for path in (run_dir / FOLDER).glob("step-*.jsonl"):
        if path.stem.removeprefix("step-").isdigit() and int(path.stem.removeprefix("step-")) > step:
            path.unlink()
