"""Expert traces of a training, in an order fixed by the seed and the round, and the held-out traces.

A source is the demo's generator, GSM8K from the hub, a JSONL file, or a folder with a ``train.jsonl``. Its last
``data.held_out`` rows are never trained on. No row is lost silently: rows left out are counted, and the first named.
"""

from __future__ import annotations

import math
import random
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irl_core.config import TrainConfig
from irl_core.data.fields import RowError
from irl_core.data.formats import read
from irl_core.data.gsm8k import gsm8k
from irl_core.data.word_problems.drills import drills
from irl_core.data.word_problems.generate import Split, problems
from irl_core.data.word_problems.quantities import WordProblem
from irl_core.errors import ConfigError, DatasetError
from irl_core.text.perturbations import perturb
from irl_core.text.restyle import restyled
from irl_core.text.segmentation import make_trace
from irl_core.text.think_answer import as_think_answer
from irl_core.text.visible import visible
from irl_core.types import Source, Trace
from train.lengths import LengthLimits

if TYPE_CHECKING:
    from irl_core.models.tokenization import TraceEncoder

MIN_CALIBRATION = 20
NAMED_ROWS = 20
PLAIN_QUOTES = str.maketrans("‘’“”", "''\"\"")

Say = Callable[[str], None]


def to_stderr(line: str) -> None:
    """Say a line to the user."""
    print(visible(line), file=sys.stderr)


# ------------------------------------------------------------------------------------------------------ training


class ExpertData:
    """Training traces (at least one), visited in a new order every epoch, which ``seed`` fixes; with ``styles`` each is
    written in a new style at every visit. ``bare``: problems without a solution, in an order of their own."""

    def __init__(self, traces: Sequence[Trace], seed: int, styles: bool = False, bare: Sequence[Trace] = ()) -> None:
        self.traces = traces
        self.bare = bare
        self.seed = seed
        self.styles = styles
        self._orders: dict[str, tuple[int, list[int]]] = {}

    def batch(self, round_number: int, size: int, bare: int = 0) -> list[Trace]:
        """The traces of a round on all processes: the same for the same round number, whatever was asked before.

        They are ``size`` traces, of which the last so many are ``bare`` problems.
        """
        chosen = []
        for epoch, index in self._visits("order", len(self.traces), round_number, size - bare):
            trace = self.traces[index]
            chosen.append(in_a_style(trace, f"{self.seed}-{epoch}") if self.styles else trace)
        return chosen + [self.bare[index] for _, index in self._visits("bare", len(self.bare), round_number, bare)]

    def _visits(self, name: str, count: int, round_number: int, size: int) -> Iterator[tuple[int, int]]:
        """The epoch and the index of each of a round's ``size`` items among ``count``."""
        for position in range(round_number * size, (round_number + 1) * size):
            epoch, offset = divmod(position, count)
            known, order = self._orders.get(name, (-1, []))
            if epoch != known:
                order = list(range(count))
                random.Random(f"{name}-{self.seed}-{epoch}").shuffle(order)
                self._orders[name] = (epoch, order)
            yield epoch, order[offset]


def in_a_style(trace: Trace, seed: str) -> Trace:
    """An expert trace in the style that the seed draws for its problem."""
    text = restyled(trace.problem, trace.text, random.Random(f"style-{seed}-{trace.problem}"))
    if text == trace.text:
        return trace
    return make_trace(
        trace.problem, text, reference_answer=trace.reference_answer, source=trace.source, trace_id=trace.trace_id,
        problem_id=trace.problem_id, finished=trace.finished, extra=trace.extra,
    )  # fmt: skip


def training_data(config: TrainConfig, encoder: TraceEncoder | None = None, say: Say = to_stderr) -> ExpertData:
    """The expert traces that the configuration names.

    Args:
        config: the training's settings.
        encoder: measures ``data.max_prompt_tokens`` and ``data.max_completion_tokens``; without one no trace is too
            long.
        say: called with a line about the traces that are left out.

    Raises:
        ConfigError: a source that cannot be read or is too small for what is asked of it, or nothing left to train on.
    """
    fits = LengthLimits.of(config, encoder)
    traces = generated_experts(config) if config.data.source == "demo" else training_rows(config, fits, say)
    traces = fits.only(traces, say)
    if not traces:
        raise ConfigError(f"data.source {config.data.source!r} has no solution to train on; look at what was left out")
    traces, bare = demonstrated(traces, config)
    experts = with_errors(traces, config.data.expert_errors, config.run.seed, fits)
    return ExpertData(experts, config.run.seed, config.data.styles, bare)


def demonstrated(traces: list[Trace], config: TrainConfig) -> tuple[list[Trace], list[Trace]]:
    """The traces that keep their solution, and the problems of the others without one (``data.demonstrations``).

    Raises:
        ConfigError: fewer traces than are to be demonstrated, or no problem left to go without.
    """
    settings = config.data
    if not settings.demonstrations:
        return traces, []
    among = [n for n, trace in enumerate(traces) if may_be_demonstrated(trace, settings.demonstrated_families)]
    chosen = set(among[: settings.demonstrations])
    if len(chosen) < settings.demonstrations:
        raise ConfigError(
            f"data.demonstrations is {settings.demonstrations:,}, but {len(among):,} of {len(traces):,} training "
            "problems can have one; lower it, or raise data.train_problems"
        )
    shown = {normalised(traces[n].problem) for n in chosen}
    bare = [without_solution(trace) for trace in traces if normalised(trace.problem) not in shown]
    if config.policy.bare_prompts and not bare:
        raise ConfigError(
            f"data.demonstrations is {settings.demonstrations:,}, which leaves none of {len(traces):,} training "
            "problems bare for policy.bare_prompts; lower it, or raise data.train_problems"
        )
    return [trace for n, trace in enumerate(traces) if n in chosen], bare


def may_be_demonstrated(trace: Trace, families: Sequence[str]) -> bool:
    """Whether a trace is of one of these families of the generator; no family stands for all."""
    return not families or trace.extra.get("family") in families


def without_solution(trace: Trace) -> Trace:
    """The problem of a trace, with its answer, by which samples are graded, and no solution."""
    return make_trace(
        trace.problem, "", reference_answer=trace.reference_answer, problem_id=trace.problem_id, extra=trace.extra
    )


# -------------------------------------------------------------------------------------------------------- demo


def demo_problems(config: TrainConfig, split: Split, count: int) -> list[WordProblem]:
    """``count`` problems of the generator, fixed by the seed; no text is in two splits. Raises ConfigError."""
    try:
        return list(problems(config.run.seed, count, split, config.data.families))
    except ValueError as error:
        raise ConfigError(f"data.families: {error}") from error


def expert_trace(problem: WordProblem) -> Trace:
    """A generated problem with its expert solution."""
    return make_trace(
        problem.text, problem.solution, reference_answer=problem.answer, source=Source.EXPERT,
        trace_id=f"{problem.problem_id}/expert", problem_id=problem.problem_id, extra={"family": problem.family},
    )  # fmt: skip


def generated_experts(config: TrainConfig) -> list[Trace]:
    """The demo's training traces: generated problems with their solutions, and ``data.drills`` bare sums."""
    settings = config.data
    if settings.layout != "as_written":
        raise ConfigError(
            f"data.layout is {settings.layout!r}, which leaves out the annotations by which generated solutions are "
            "checked; set data.layout to as_written, or take another data.source"
        )
    traces = [expert_trace(problem) for problem in demo_problems(config, "train", settings.train_problems)]
    sums = drills(config.run.seed, settings.drills)
    return traces + [make_trace(task, solution, source=Source.EXPERT) for task, solution in sums]


# -------------------------------------------------------------------------------------------------------- rows


def training_rows(config: TrainConfig, fits: LengthLimits, say: Say) -> list[Trace]:
    """The first ``data.train_problems`` rows of the source whose problem is not held out."""
    rows, held_out = split_held_out(read_experts(config, say), config)
    if config.method.needs_discriminator:
        for_calibration(held_out, config, fits)  # too few are refused now, not after the last step
    reserved = {normalised(trace.problem) for trace in held_out}
    kept = [trace for trace in rows if normalised(trace.problem) not in reserved]
    if len(kept) < len(rows):
        say(f"left out of training: {len(rows) - len(kept):,} rows whose problem is held out too (data.held_out)")
    if len(kept) > config.data.train_problems:
        say(f"training takes the first {config.data.train_problems:,} of {len(kept):,} rows (data.train_problems)")
    return kept[: config.data.train_problems]


def split_held_out(rows: list[Trace], config: TrainConfig) -> tuple[list[Trace], list[Trace]]:
    """The rows to train on, and the last ``data.held_out`` ones. Raises ConfigError where there are no more."""
    count = config.data.held_out
    if count >= len(rows):
        raise ConfigError(
            f"data.held_out is {count}, but data.source {config.data.source!r} has {len(rows)} readable rows; "
            "set data.held_out lower, or add rows; each needs a question and a solution"
        )
    return rows[: len(rows) - count], rows[len(rows) - count :]


def read_experts(config: TrainConfig, say: Say) -> list[Trace]:
    """The source's rows as expert traces in the configured layout; rows that cannot be are named and counted."""
    traces: list[Trace] = []
    reasons: list[str] = []
    path = Path(config.data.source)
    try:
        file = path / "train.jsonl" if path.is_dir() else path
        for row in gsm8k("train") if config.data.source == "gsm8k" else read(file):
            if isinstance(row, RowError):
                reasons.append(str(row))
                continue
            try:
                traces.append(as_expert(row, config.data.layout))
            except ValueError as error:
                reasons.append(f"{row.problem[:60]!r}: {error}")
    except DatasetError as error:
        raise ConfigError(f"data.source is {config.data.source!r}: {error}") from error
    for reason in reasons[:NAMED_ROWS]:
        say(f"left out: {reason}")
    if reasons:
        more = f" ({len(reasons) - NAMED_ROWS:,} of them not named above)" if len(reasons) > NAMED_ROWS else ""
        say(f"left out: {len(reasons):,} of {len(reasons) + len(traces):,} rows of {config.data.source}{more}")
    return traces


def as_expert(trace: Trace, layout: str) -> Trace:
    """A row as an expert trace.

    Raises:
        ValueError: its solution is unfinished or marked wrong, or does not fit the layout.
    """
    (trace.problem + trace.text).encode()  # a lone surrogate is a ValueError that names it
    if not trace.finished:
        raise ValueError("its solution breaks off")
    if trace.truth is not None and trace.truth.first_error_step is not None:
        raise ValueError(f"its solution is marked wrong from step {trace.truth.first_error_step + 1} on")
    if trace.correct is False and trace.answer is not None:
        raise ValueError(
            f"its solution ends in {trace.answer[:40]!r}, and its answer is {trace.reference_answer[:40]!r}"
            if trace.reference_answer is not None
            else "its solution is marked wrong"
        )
    if trace.reference_answer is None and trace.answer is not None:  # an expert's answer is the right one
        trace = replace(trace, reference_answer=trace.answer, correct=True)
    expert = replace(trace, source=Source.EXPERT, truth=None, token_ids=None, logprobs=None)
    return as_think_answer(expert) if layout == "think_answer" else expert


def normalised(problem: str) -> str:
    """A problem's text without case, repeated blanks, kinds of quotes, Unicode forms and closing punctuation."""
    plain = unicodedata.normalize("NFKC", problem).casefold().translate(PLAIN_QUOTES)
    return " ".join(plain.split()).rstrip(" .?!")


# ----------------------------------------------------------------------------------------------------- held out


def held_out_traces(config: TrainConfig) -> list[Trace]:
    """Expert traces of problems that are never trained on, each problem once.

    They are the source's last ``data.held_out`` rows (of GSM8K's training split); for the demo, as many problems of
    the generator's split ``calibration``.

    Raises:
        ConfigError: the source cannot be read, or has no more rows than are held out.
    """
    if config.data.source == "demo":
        return [expert_trace(problem) for problem in demo_problems(config, "calibration", config.data.held_out)]
    return one_per_problem(split_held_out(read_experts(config, lambda line: None), config)[1])


def one_per_problem(traces: list[Trace]) -> list[Trace]:
    """The first trace of each problem."""
    first: dict[str, Trace] = {}
    for trace in traces:
        first.setdefault(normalised(trace.problem), trace)
    return list(first.values())


def calibration_traces(config: TrainConfig, encoder: TraceEncoder | None = None) -> list[Trace]:
    """The held-out traces that calibration uses.

    They are the first ``run.calibration_problems`` with an answer that are short enough, and none that validation uses.

    Raises:
        ConfigError: fewer than ``MIN_CALIBRATION``.
    """
    return for_calibration(held_out_traces(config), config, LengthLimits.of(config, encoder))


def for_calibration(held_out: list[Trace], config: TrainConfig, fits: LengthLimits) -> list[Trace]:
    """The traces of ``calibration_traces`` among those held out. Raises ConfigError."""
    known = [trace for trace in one_per_problem(held_out) if trace.reference_answer is not None]
    evaluated = min(config.run.eval_problems, len(known)) if config.run.eval_every else 0
    usable = fits.only(known[: len(known) - evaluated], lambda line: None)
    chosen = usable[: config.run.calibration_problems]
    if len(chosen) < MIN_CALIBRATION:
        too_long = len(known) - evaluated - len(usable)
        limits = "data.max_prompt_tokens, data.max_completion_tokens or " if too_long else ""
        raise ConfigError(
            f"there are {len(chosen)} held-out solutions to calibrate on, and {MIN_CALIBRATION} are the least: "
            f"data.held_out is {config.data.held_out}, of which {len(known)} differ and have an answer; "
            f"{evaluated} of them are for evaluation (run.eval_problems), {too_long} are longer than "
            f"data.max_prompt_tokens ({config.data.max_prompt_tokens}) or data.max_completion_tokens "
            f"({config.data.max_completion_tokens}), and run.calibration_problems is "
            f"{config.run.calibration_problems}. Raise {limits}data.held_out or run.calibration_problems"
        )
    return chosen


# ---------------------------------------------------------------------------------------------------- errors


def with_errors(traces: list[Trace], share: float, seed: int, fits: LengthLimits) -> list[Trace]:
    """The traces, a ``share`` of them replaced by perturbed copies that training takes for the expert's.

    The seed decides which ones, and how; a trace that no perturbation applies to (or fits) is passed over.

    Raises:
        ConfigError: not that many can be perturbed.
    """
    wanted, replaced = round(share * len(traces)), dict[int, Trace]()
    order = list(range(len(traces)))
    random.Random(f"expert-errors-{seed}").shuffle(order)
    for index in order:
        if len(replaced) == wanted:
            break
        trace = traces[index]
        change = perturb(trace, random.Random(f"expert-error-{seed}-{index}"))
        if change is None:
            continue
        changed = make_trace(
            trace.problem, change.text, reference_answer=trace.reference_answer, source=Source.EXPERT,
            trace_id=trace.trace_id, problem_id=trace.problem_id, extra=trace.extra | {"expert_error": change.kind},
        )  # fmt: skip
        if fits.completion(changed):
            replaced[index] = changed
    if len(replaced) < wanted:
        most = math.floor(1000 * len(replaced) / len(traces)) / 1000
        raise ConfigError(
            f"data.expert_errors is {share}, which is {wanted:,} of {len(traces):,} solutions, but only "
            f"{len(replaced):,} can be corrupted; set it to {most} at most"
        )
    return [replaced.get(index, trace) for index, trace in enumerate(traces)]
