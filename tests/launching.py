"""Processes that a launcher starts, to be watched, stopped and killed.

``python -m tests.launching FAULT@RANK ...`` is ``irl-lens ...`` in which the process of that rank (1 without one)
behaves otherwise.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from tests.conftest import REPOSITORY

CONFIGURATIONS = REPOSITORY / "train" / "accelerate"
SECONDS = 200
SMALL = 3  # traces in a part


def launch(
    *arguments: str, configuration: str = "ddp.yaml", gpus: str = "", restarts: int = 0
) -> subprocess.Popen[str]:
    """Two processes of a module, by the launcher's own command; on the CPU, or on the ``gpus``."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATIONS / configuration),
        "--num_processes", "2", "--max_restarts", str(restarts), "-m", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": gpus}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has come to a good end."""
    printed = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, printed
    return printed


def process_of(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    """The process of a rank, among those that the launcher has started."""
    for child in psutil.Process(launcher.pid).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            return child
    raise AssertionError(f"the launcher has no process of rank {rank}")


def wait_until(condition: Callable[[], bool], launcher: subprocess.Popen[str]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


# ------------------------------------------------------------------------------------------- what goes wrong on one


def fails_at_the_second_step() -> None:
    from train.training_state import TrainingState

    whole = TrainingState.round

    def round_or_fail(session: TrainingState) -> dict[str, float]:
        if session.step == 1:
            raise ValueError("a fault of one machine")
        return whole(session)

    TrainingState.round = round_or_fail  # type: ignore[method-assign]


def is_killed_in_its_fourth_step() -> None:
    """At the first start of the processes, not where the launcher starts them again."""
    from train.training_state import TrainingState

    whole = TrainingState.round

    def round_or_die(session: TrainingState) -> dict[str, float]:
        if session.step == 3 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(session)

    TrainingState.round = round_or_die  # type: ignore[method-assign]


def has_other_settings() -> None:
    sys.argv += ["--set", "policy.gamma=0.5"]


def is_killed_in_its_second_part() -> None:
    is_killed_when_it_calls("write", after=1)


def is_killed_before_it_merges() -> None:
    is_killed_when_it_calls("finish")


def is_killed_when_it_has_merged() -> None:
    is_killed_when_it_calls("clear")


def is_killed_when_it_calls(name: str, after: int = 0) -> None:
    """Killed instead of a call of the writer of a scored run, behind so many whole ones: at the first start of the
    processes, not where the launcher starts them again."""
    from irl_core.storage.run_writer import RunWriter

    whole, called = getattr(RunWriter, name), []

    def call_or_die(self: RunWriter, *arguments: Any, **named: Any) -> Any:
        if len(called) == after and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        called.append(1)
        return whole(self, *arguments, **named)

    setattr(RunWriter, name, call_or_die)


def reads_another_file() -> None:
    """As it may lie under the same name on another machine."""
    from irl_core.storage import provenance
    from train import score_file

    score_file.source_hash = lambda source: ("another", provenance.source_hash(source)[1])


FAULTS: dict[str, Callable[[], Any]] = {
    fault.__name__: fault
    for fault in (
        fails_at_the_second_step,
        is_killed_in_its_fourth_step,
        has_other_settings,
        is_killed_in_its_second_part,
        is_killed_before_it_merges,
        is_killed_when_it_has_merged,
        reads_another_file,
    )
}


def cut_parts_small() -> None:
    """Files that are short have several parts all the same, on every process."""
    from train import score_file
    from train.evaluate import rollouts

    score_file.score_file.__kwdefaults__["window"] = SMALL
    rollouts.QUESTIONS_AT_ONCE = 1


def main() -> None:
    name, _, rank = sys.argv.pop(1).partition("@")
    fault = FAULTS[name]
    if fault in (is_killed_in_its_second_part, is_killed_before_it_merges, is_killed_when_it_has_merged):
        cut_parts_small()
    if os.environ["RANK"] == (rank or "1"):
        fault()
    from train.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
