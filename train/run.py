"""A training run from its configuration to its finished checkpoint: it logs, evaluates, saves, stops and resumes.

``docs/runs.md`` says what every file of ``runs/<name>/`` holds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from irl_core.checkpoints.load import load_json
from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.errors import CheckpointError, ConfigError
from irl_core.files import one_line, write_whole
from irl_core.models.allocation import give_back_freed_tensors
from irl_core.storage.training_run import CHECKPOINTS, FINAL, LOG, METRICS, PROVENANCE, STATUS
from irl_core.text.visible import visible
from irl_core.training.metrics import Metrics
from train.distributed import begun_here, check_visible, from_main
from train.failures import explained
from train.interruption import Interrupted, Stopped, StopRequests, stop_requests
from train.monitoring.health import Health, finite
from train.monitoring.throughput import PASS, Clock, best_of, learning_rates, memory, reset_peak, speed
from train.monitoring.trackers import Trackers, check_trackers
from train.monitoring.watch import watched
from train.run_folder import Claim, Log, MetricsFile, Status, claimed, newest_state, rounded

if TYPE_CHECKING:
    from irl_core.types import Trace
    from train.monitoring.validation import SampleRow
    from train.training_state import TrainingState

BEST = "best"
BEST_FIGURE = "best.json"

OnStep = Callable[[int, int, Metrics, float], None]
OnPhase = Callable[[str], None]
Say = Callable[[str], None]


def train(
    config: TrainConfig,
    run_dir: Path,
    resume: bool = False,
    on_step: OnStep | None = None,
    on_phase: OnPhase | None = None,
    say: Say | None = None,
    world: World | None = None,
) -> Path:
    """Train; every data-parallel process calls it. SIGTERM and SIGINT finish the step, save, and raise ``Interrupted``.

    Args:
        config: the training's settings.
        run_dir: the training run's folder.
        resume: continue from its newest training state; so do processes that a launcher starts again.
        on_step: called with ``(step, steps, metrics, seconds_left)`` after every step, on the first process.
        on_phase: called with the phase's name when one begins, on the first process.
        say: called with every line for the user, on the first process; by default it prints on stderr.
        world: the data-parallel processes.

    Returns:
        The finished checkpoint's directory.

    Raises:
        ConfigError: the directory holds another training run, one to be resumed, or one that a living process is
            training; a tracker is not installed; the data is not that of the training run to be resumed.
        CheckpointError: nothing to resume from, or the disk is full.
        FloatingPointError: a loss or gradient is not finite; nothing new was saved.
        Interrupted: stopped on request; ``resume=True`` goes on from there.
        Stopped: stopped because going on is useless.
        ProcessLost: another data-parallel process failed or is gone.
    """
    world = world or World()
    with ExitStack() as held, stop_requests() as stopped, watched(world, clean=(Interrupted,)) as watch:
        from_main(world, lambda: check_trackers(config))
        resume = from_main(world, lambda: resume or begun_here(run_dir))
        claim = from_main(world, lambda: held.enter_context(claimed(config, run_dir, resume)))
        from_main(world, lambda: begun_here(run_dir, from_now_on=True))
        say = say or (lambda line: print(visible(line), file=sys.stderr, flush=True))
        run = TrainingRun(config, run_dir, world, on_step, on_phase, say, stopped)
        watch.on_lost = run.failed
        if claim.finished:
            run.say(f"{run_dir.name} is finished already; nothing to resume")
            return run_dir / FINAL
        try:
            return run.go(resume, claim)
        except Interrupted:
            if run.status.state == "running":  # at once, in the middle of something that may be left
                raise run.interrupted() from None
            raise
        except BaseException as error:
            told = watch.cause(explained(error, config))
            run.failed(told)
            if told is error:
                raise
            raise told from error


@dataclass(slots=True)
class TrainingRun:
    """A training run in progress. Only the first process has ``metrics`` and ``trackers``, and writes ``log`` and
    ``status``.

    Attributes:
        state: models, optimisers and data.
        problems: held-out problems of the evaluation.
        best: what ``best.json`` holds.
        saved: the step of the newest training state on disk.
        phase: of the step, what is done now.
    """

    config: TrainConfig
    run_dir: Path
    world: World
    on_step: OnStep | None
    on_phase: OnPhase | None
    tell_user: Say
    stopped: StopRequests = field(default_factory=StopRequests)
    log: Log = field(init=False)
    status: Status = field(init=False)
    metrics: MetricsFile = field(init=False)
    trackers: Trackers | None = None
    health: Health = field(init=False)
    state: TrainingState = field(init=False)
    problems: list[Trace] = field(default_factory=list)
    best: dict[str, float] | None = None
    saved: int | None = None
    phase: str = ""

    def __post_init__(self) -> None:
        self.log = Log(self.run_dir / LOG)
        self.status = Status(self.run_dir / STATUS, self.config.run.steps)
        self.health = Health(self.config)

    # -- what is said ------------------------------------------------------------------------------------------

    def say(self, text: str, *, aloud: bool = True) -> None:
        """Write a line to the log, and ``aloud`` also to the user."""
        if self.world.is_main:
            line = one_line(text)
            self.log.write(line)
            if aloud:
                self.tell_user(line)

    def progress(self, phase: str) -> None:
        """Write a heartbeat during a step; ``on_phase`` is called where the phase is a new one."""
        begun, self.phase = phase != self.phase, phase
        if begun:
            give_back_freed_tensors()
        if self.world.is_main:
            self.status.beat(phase)
            if begun and self.on_phase:
                self.on_phase(phase)

    def failed(self, error: BaseException) -> None:
        """Write down why the training run failed; what cannot be written is added to the error."""
        reason = one_line(f"{type(error).__name__}: {error}")
        try:
            self.end("failed", reason)
        except (CheckpointError, OSError) as second:
            error.add_note(f"status.json and log.txt do not say so: {second}")

    def end(self, state: str, reason: str = "") -> None:
        """Write the last status and log line, and close the trackers."""
        if not self.world.is_main:
            return
        self.status.state, self.status.reason, self.status.seconds_left = state, reason, None
        self.status.phase = ""
        self.status.write()
        why = f": {reason}" if reason else ""
        self.say(f"{state} at step {self.status.step} of {self.status.steps}{why}", aloud=False)
        if self.trackers:
            self.trackers.close(ok=state != "failed")

    # -- from start to end -------------------------------------------------------------------------------------

    def go(self, resume: bool, claim: Claim) -> Path:
        """Load, train, finish."""
        from train.monitoring.validation import held_out_problems, short_enough
        from train.training_state import TrainingState

        self.status.step, self.status.best = claim.previous.get("step", 0), claim.previous.get("best")
        self.progress("loading")
        with self.stopped.obeyed_at_once(self.world.size == 1):
            self.problems = held_out_problems(self.config)
            saved = self.state_to_resume(claim) if resume else None
            self.state = TrainingState.start(self.config, saved, self.world)
        self.state.trainer.on_progress = self.progress
        self.problems = short_enough(self.problems, self.state.trainer.encoder, self.config)
        self.saved = self.state.step if saved else None
        self.open_files(resume)
        self.take_steps()
        self.status.seconds_left = None  # of the steps there is nothing left; calibration tells its own
        self.progress("finishing")
        with self.stopped.obeyed_at_once(self.world.size == 1 and self.saved == self.config.run.steps):
            final = self.state.finish(self.run_dir / FINAL)
        self.end("finished")
        return final

    def interrupted(self) -> Interrupted:
        """Write down that the training run was asked to stop; returns the error to raise."""
        self.end("interrupted")
        return Interrupted(f"stopped at step {self.status.step} of {self.status.steps}; go on with --resume")

    def state_to_resume(self, claim: Claim) -> Path | None:
        """The newest whole training state; None where nothing was saved yet."""
        if claim.previous.get("state") == "running":
            self.say(f"the process {claim.previous.get('pid')} that trained {self.run_dir.name} is gone; taking over")
        state, passed_over = from_main(self.world, lambda: newest_state(self.run_dir))
        for line in passed_over:
            self.say(f"passed over {line}")
        check_visible(self.world, state)
        self.say(f"resuming from {state.name if state else 'the start: nothing was saved yet'}", aloud=False)
        return state

    def open_files(self, resume: bool) -> None:
        """Continue provenance, metrics, samples, trackers and status from the step that the training starts at."""
        step = self.state.step
        from_main(self.world, lambda: self.write_provenance(resume))
        rows = from_main(self.world, lambda: self.open_metrics(resume))
        self.health = Health.after(self.config, rows)
        self.best = best_of(rows)
        self.status.step, self.status.warnings, self.status.best = step, self.health.warnings, self.best
        best_file = self.run_dir / BEST_FIGURE
        on_disk = from_main(self.world, lambda: load_json(best_file) if best_file.exists() else None)
        if self.best and self.best["step"] == step and on_disk != self.best:
            self.keep_best()  # the kill came between the checkpoint and its copy
        self.say(f"{'resumed' if resume else 'started'} at step {step} of {self.config.run.steps}", aloud=False)
        if self.config.model.dtype == "bfloat16" and self.state.trainer.policy.device.type == "cpu":
            from irl_core.models.precision import cpu_precision_in_words

            self.say(f"computes {cpu_precision_in_words()}")

    def open_metrics(self, resume: bool) -> list[dict[str, float]]:
        """Open metrics and trackers, drop what lies behind the step; returns the metrics of the steps so far."""
        from train.monitoring.validation import drop_samples_after

        step = self.state.step
        self.metrics = MetricsFile(self.run_dir / METRICS, step)
        drop_samples_after(self.run_dir, step)
        self.trackers = Trackers.open(
            self.run_dir, self.config, step=step, reached=self.metrics.reached, resumed=resume, say=self.say
        )
        return self.metrics.rows

    def write_provenance(self, resume: bool) -> None:
        """Write ``provenance.json``, or add this resumption to it. Raises ConfigError where the data is another."""
        from irl_core.storage.provenance import changes, device_name, training_provenance

        path = self.run_dir / PROVENANCE
        device, data = device_name(self.state.trainer.policy.device), self.state.data
        document = training_provenance(self.config, [*data.traces, *data.bare], device, self.world)
        if resume and path.exists():
            before = load_json(path)
            if before.get("data") != document["data"]:
                raise ConfigError(
                    f"the data of {self.config.data.source!r} is not what {self.run_dir.name} was started with "
                    "(provenance.json has its sha256); restore it, or take a new --run-dir"
                )
            for line in changes(before, document):
                self.say(f"resumed with other code or machines, so results may differ from an unbroken run's: {line}")
            entry = {"time": document["started"], "step": self.state.step}
            entry |= {key: document[key] for key in ("command", "code", "versions", "device", "processes")}
            write_whole(path, json.dumps({**before, "resumed": [*before.get("resumed", []), entry]}, indent=2) + "\n")
            return
        write_whole(path, json.dumps(document, indent=2) + "\n")

    # -- steps -------------------------------------------------------------------------------------------------

    def take_steps(self) -> None:
        """Train, record and save until the last step. Raises Interrupted, or Stopped where going on is useless."""
        state, steps = self.state, self.config.run.steps
        clock = Clock(steps)
        clock.seconds_left(state.step)
        if self.world.any(bool(self.stopped)):  # asked while the models were loaded
            raise self.interrupted()
        while state.step < steps:
            metrics, rows = self.take_step()
            useless = self.record(metrics, clock.seconds_left(state.step))
            asked = self.world.any(bool(self.stopped))
            self.save(metrics, rows, leaving=asked or useless is not None)
            if useless is not None and state.step < steps:
                self.end("stopped", useless)
                raise Stopped(f"stopped at step {state.step} of {steps}: {useless}")
            if asked:
                raise self.interrupted()

    def take_step(self) -> tuple[Metrics, list[SampleRow]]:
        """One round, and the evaluation where it is due; returns what is logged, and the evaluation's samples."""
        from train.monitoring.validation import evaluate

        trainer, device = self.state.trainer, self.state.trainer.policy.device
        logged = learning_rates(self.state.learners)
        reset_peak(device)
        started = time.perf_counter()
        logged |= self.state.round()
        logged |= speed(logged, time.perf_counter() - started) | memory(device)
        step = self.state.step
        rows: list[SampleRow] = []
        if self.problems and (step % self.config.run.eval_every == 0 or step == self.config.run.steps):
            started = time.perf_counter()
            self.progress("evaluating")
            evaluation = evaluate(
                trainer.policy.model, trainer.encoder, self.config, self.problems, step=step, world=self.world,
                on_step=lambda done, total: self.progress("evaluating"),
            )  # fmt: skip
            self.say(f"step {step}: pass@1 {evaluation.figure}")
            logged |= evaluation.metrics() | {"time/evaluate_s": time.perf_counter() - started}
            rows = evaluation.rows
        good, left_out = finite(logged, self.config)
        for line in left_out:
            self.say(f"step {step}: {line}")
        return rounded(good), rows

    def record(self, metrics: Metrics, seconds_left: float) -> str | None:
        """Write a step down; returns why going on is useless, on every process alike."""
        step = self.state.step
        findings = self.health.check(step, metrics)
        if self.world.is_main:
            self.metrics.append(step, metrics)
            if self.trackers:
                self.trackers.log(step, metrics)
            for line in findings.begun:
                self.say(f"warning: {line}")
            for line in findings.over:
                self.say(line)
            self.status.step, self.status.seconds_left, self.status.warnings = step, seconds_left, self.health.warnings
            self.status.write()
            if self.on_step:
                self.on_step(step, self.config.run.steps, metrics, seconds_left)
        return self.world.gather([findings.stop])[0]

    # -- saving ------------------------------------------------------------------------------------------------

    def save(self, metrics: Metrics, rows: list[SampleRow], *, leaving: bool) -> None:
        """Save training state and samples where they are due; at an evaluation always, so that the best is there."""
        from train.monitoring.validation import round_samples, write_samples

        step, settings = self.state.step, self.config.run
        regular = settings.save_every and (step % settings.save_every == 0 or step == settings.steps)
        if not (PASS in metrics or leaving or regular):
            return
        self.progress("saving")
        drawn = [*rows, *round_samples(self.state.trainer)]
        if self.world.is_main:
            write_samples(self.run_dir, step, drawn)
        name = f"step-{step:06d}"
        self.state.save(self.run_dir / CHECKPOINTS / name)
        self.saved = step
        self.say(f"saved {name}", aloud=False)
        if PASS in metrics and (self.best is None or metrics[PASS] > self.best["value"]):
            self.best = best_of([{"step": step, **metrics}])
            self.keep_best()

    def keep_best(self) -> None:
        """Copy the state of this step to ``best/``, and then say so in ``best.json``."""
        self.state.save(self.run_dir / BEST)
        if self.world.is_main:
            write_whole(self.run_dir / BEST_FIGURE, json.dumps(self.best, indent=2) + "\n")
            self.status.best = self.best
            self.say(f"kept step {self.state.step} as the best so far", aloud=False)
