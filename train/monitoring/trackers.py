"""Where metrics are also sent: TensorBoard always, Weights & Biases and trackio when ``run.trackers`` names them.

A resumed run goes on as the same run there, and no step is sent twice.
"""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from irl_core.checkpoints.load import load_json
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.files import write_whole

PROJECT = "irl-lens"
STATE = "trackers.json"
FOLDER = "tensorboard"


class Tracker(Protocol):
    """What takes the metrics of a step."""

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def close(self, ok: bool) -> None: ...


def check_trackers(config: TrainConfig) -> None:
    """Raise ConfigError where a tracker that ``run.trackers`` names is not installed."""
    for name in config.run.trackers:
        _package(name)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"run.trackers names {name!r}, which cannot be imported ({error}); pip install {name}, or take it out of "
            "run.trackers (TensorBoard is always written)"
        ) from error


class TensorBoard:
    """Event files in ``tensorboard/``. What an earlier process wrote after ``step`` is hidden by ``purge_step``."""

    def __init__(self, run_dir: Path, step: int, resumed: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run_dir / FOLDER), purge_step=step + 1 if resumed else None)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()  # what a checkpoint's step logged must be there when a kill comes

    def close(self, ok: bool) -> None:
        self._writer.close()


class WandB:
    """A run of Weights & Biases; ``run_id`` is the same for every process that goes on with it."""

    def __init__(self, run_dir: Path, config: TrainConfig, run_id: str) -> None:
        self._run = _package("wandb").init(
            project=PROJECT, name=run_dir.name, id=run_id, resume="allow", dir=str(run_dir), config=config.to_dict()
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    def close(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)


class Trackio:
    """A run of trackio, known there by its name."""

    def __init__(self, run_dir: Path, config: TrainConfig, run_id: str) -> None:
        self._run = _package("trackio").init(
            project=PROJECT, name=f"{run_dir.name}-{run_id}", resume="allow", config=config.to_dict()
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    def close(self, ok: bool) -> None:
        self._run.finish()


KINDS: dict[str, Callable[[Path, TrainConfig, str], Tracker]] = {"wandb": WandB, "trackio": Trackio}


@dataclass(slots=True)
class Trackers:
    """All trackers of a run. ``sent``: the last step that the outside ones were sent, by whatever process.

    An outside one that fails is named by ``say`` and left out from then on: the run goes on, and ``metrics.jsonl`` and
    TensorBoard hold everything. TensorBoard's own errors are raised, since its files lie beside the run's.
    """

    board: TensorBoard
    outside: dict[str, Tracker]
    sent: int
    say: Callable[[str], None] = field(default=print)

    @classmethod
    def open(
        cls, run_dir: Path, config: TrainConfig, *, step: int, reached: int, resumed: bool, say: Callable[[str], None]
    ) -> Trackers:
        """Start, or go on with the run's trackers after ``step``; ``reached`` is the last step that was ever logged.

        Raises:
            ConfigError: a tracker is missing, or refuses to start.
            CheckpointError: the ids of the run's trackers cannot be read or written.
        """
        path = run_dir / STATE
        state: dict[str, Any] = load_json(path) if resumed and path.exists() else {}
        sent = max(reached, int(state.get("sent", 0)), step) if resumed else 0
        ids: dict[str, str] = {name: str(state.get(name) or uuid.uuid4().hex[:8]) for name in config.run.trackers}
        if ids:
            write_whole(path, json.dumps({**ids, "sent": sent}) + "\n")
        outside = {name: _started(name, run_dir, config, run_id) for name, run_id in ids.items()}
        return cls(TensorBoard(run_dir, step, resumed), outside, sent, say)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.board.log(step, metrics)
        for name in list(self.outside) if step > self.sent else ():
            self._try(name, lambda tracker: tracker.log(step, metrics))

    def close(self, ok: bool) -> None:
        """Finish with all of them; ``ok``: the run did what it was asked to."""
        for name in list(self.outside):
            self._try(name, lambda tracker: tracker.close(ok))
        self.board.close(ok)

    def _try(self, name: str, action: Callable[[Tracker], None]) -> None:
        try:
            action(self.outside[name])
        except Exception as error:
            del self.outside[name]
            self.say(f"{name} failed ({type(error).__name__}: {error}) and gets nothing more; the run goes on without")


def _started(name: str, run_dir: Path, config: TrainConfig, run_id: str) -> Tracker:
    try:
        return KINDS[name](run_dir, config, run_id)
    except ConfigError:
        raise
    except Exception as error:
        offline = "; WANDB_MODE=offline needs neither network nor login" if name == "wandb" else ""
        raise ConfigError(
            f"{name} did not start ({type(error).__name__}: {error}){offline}; or take it out of run.trackers"
        ) from error
