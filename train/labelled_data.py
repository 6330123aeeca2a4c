"""Traces whose first wrong step is known: the data of process supervision, and what its reward is calibrated on.

A source is any file that ``irl_core.data.formats`` reads with labels of steps (PRM800K, Math-Shepherd, ProcessBench,
trl's stepwise rows), or the demo's generator: its solutions, and a copy of each with a mistake whose place is known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irl_core.config import TrainConfig
from irl_core.data.fields import RowError
from irl_core.data.formats import read
from irl_core.errors import ConfigError, DatasetError
from irl_core.text.perturbations import ALL_KINDS, perturb, perturbed_trace
from irl_core.types import Trace, Truth
from train.data import (
    MIN_CALIBRATION,
    NAMED_ROWS,
    ExpertData,
    Say,
    normalised,
    split_held_out,
    to_stderr,
    training_data,
)
from train.lengths import LengthLimits

if TYPE_CHECKING:
    from irl_core.models.tokenization import TraceEncoder


def data_of(config: TrainConfig, encoder: TraceEncoder | None = None, say: Say = to_stderr) -> ExpertData:
    """The training data of the configured method; see ``train.data.training_data``. Raises ConfigError."""
    return labelled_data(config, encoder, say) if config.method.reads_labels else training_data(config, encoder, say)


def labelled_data(config: TrainConfig, encoder: TraceEncoder | None, say: Say) -> ExpertData:
    """The first ``data.train_problems`` labelled traces whose problem is not held out.

    Raises:
        ConfigError: a source that cannot be read, or has too few rows, or none with a wrong step or none without one.
    """
    fits = LengthLimits.of(config, encoder)
    if config.data.source == "demo":
        traces = generated_labels(config, training_data(config, say=say).traces)
    else:
        rows, held_out = split_held_out(read_labelled(config, say), config)
        for_label_calibration(held_out, config, fits)  # too few are refused now, not after the last step
        reserved = {normalised(trace.problem) for trace in held_out}
        kept = [trace for trace in rows if normalised(trace.problem) not in reserved]
        if len(kept) < len(rows):
            say(f"left out of training: {len(rows) - len(kept):,} rows whose problem is held out too (data.held_out)")
        traces = kept[: config.data.train_problems]
    traces = fits.only(traces, say)
    wrong = sum(first_error(trace) is not None for trace in traces)
    if not 0 < wrong < len(traces):
        raise ConfigError(
            f"data.source {config.data.source!r} leaves {len(traces):,} labelled solutions to train on, {wrong:,} of "
            "them with a wrong step; the reward is learned from the difference, so that some of each kind are needed"
        )
    return ExpertData(traces, config.run.seed)


def generated_labels(config: TrainConfig, experts: Sequence[Trace]) -> list[Trace]:
    """Expert solutions, and after each a copy with a mistake, where one of the configured kinds applies."""
    kinds, traces = tuple(config.discriminator.perturbations) or ALL_KINDS, list[Trace]()
    for expert in experts:
        change = perturb(expert, random.Random(f"label-{config.run.seed}-{expert.problem}"), kinds)
        traces.append(replace(expert, truth=Truth(None)))
        if change is not None:
            traces.append(perturbed_trace(expert, change))
    return traces


def read_labelled(config: TrainConfig, say: Say) -> list[Trace]:
    """The source's rows that have labels of steps; the others are named and counted. Raises ConfigError."""
    traces: list[Trace] = []
    reasons: list[str] = []
    path = Path(config.data.source)
    file = path / "train.jsonl" if (path / "train.jsonl").is_file() else path
    try:
        for row in read(file):
            if isinstance(row, RowError):
                reasons.append(str(row))
            elif row.truth is None:
                reasons.append(f"{row.problem[:60]!r}: no label of its steps")
            else:
                traces.append(row)
    except DatasetError as error:
        raise ConfigError(f"data.source is {config.data.source!r}: {error}") from error
    for reason in reasons[:NAMED_ROWS]:
        say(f"left out: {reason}")
    if reasons:
        say(f"left out: {len(reasons):,} of {len(reasons) + len(traces):,} rows of {config.data.source}")
    return traces


def labels_to_calibrate(config: TrainConfig, encoder: TraceEncoder | None = None) -> list[Trace]:
    """The held-out labelled traces that calibration uses. Raises ConfigError where there are too few."""
    held_out = split_held_out(read_labelled(config, lambda line: None), config)[1]
    return for_label_calibration(held_out, config, LengthLimits.of(config, encoder))


def for_label_calibration(held_out: list[Trace], config: TrainConfig, fits: LengthLimits) -> list[Trace]:
    """The traces of ``labels_to_calibrate`` among those held out: all of the first problems. Raises ConfigError."""
    usable = fits.only(held_out, lambda line: None)
    problems = list(dict.fromkeys(trace.problem for trace in usable))[: config.run.calibration_problems]
    if len(problems) < MIN_CALIBRATION:
        raise ConfigError(
            f"there are {len(problems)} held-out problems with labels to calibrate on, and {MIN_CALIBRATION} are the "
            f"least: data.held_out is {config.data.held_out} rows, of which {len(usable)} are within "
            f"data.max_prompt_tokens ({config.data.max_prompt_tokens}) and data.max_completion_tokens "
            f"({config.data.max_completion_tokens}), and run.calibration_problems is "
            f"{config.run.calibration_problems}; raise data.held_out"
        )
    chosen = set(problems)
    return [with_correctness(trace) for trace in usable if trace.problem in chosen]


def first_error(trace: Trace) -> int | None:
    """The first wrong step of a labelled trace."""
    return None if trace.truth is None else trace.truth.first_error_step


def with_correctness(trace: Trace) -> Trace:
    """A labelled trace whose answer, if nobody said, counts as right where no step is wrong."""
    return trace if trace.correct is not None else replace(trace, correct=first_error(trace) is None)
