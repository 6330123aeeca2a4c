"""Trackers of metrics: TensorBoard always, Weights & Biases and trackio where ``run.trackers`` names them.

They are accelerate's. A resumed training run continues the same run there, and no step is sent twice.
"""

from __future__ import annotations

import importlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker, WandBTracker

from irl_core.checkpoints.load import load_json
from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.files import write_whole

PROJECT = "irl-lens"
STATE = "trackers.json"
FOLDER = "tensorboard"


def check_trackers(config: TrainConfig) -> None:
    """Raise ConfigError where a tracker that ``run.trackers`` names is not installed."""
    for name in config.run.trackers:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"run.trackers names {name!r}, which cannot be imported ({error}); pip install {name}, or take it out "
                "of run.trackers (TensorBoard is always written)"
            ) from error


@dataclass(slots=True)
class Trackers:
    """All trackers of a training run. ``sent``: the last step that the remote ones got, from whatever process.

    A remote tracker that fails is named by ``say`` and left out from then on: training continues, and ``metrics.jsonl``
    and TensorBoard hold everything. TensorBoard's own errors are raised, since its files lie beside the others.
    """

    board: TensorBoardTracker
    remote: dict[str, GeneralTracker]
    sent: int
    say: Callable[[str], None]

    @classmethod
    def open(
        cls, run_dir: Path, config: TrainConfig, *, step: int, reached: int, resumed: bool, say: Callable[[str], None]
    ) -> Trackers:
        """Start the trackers, or continue them after ``step``; ``reached`` is the last step that was ever logged.

        Raises:
            ConfigError: a tracker is missing, or refuses to start.
            CheckpointError: the ids of the trackers' runs cannot be read or written.
        """
        check_trackers(config)
        PartialState()  # which accelerate's trackers log with
        path = run_dir / STATE
        state: dict[str, Any] = load_json(path) if resumed and path.exists() else {}
        sent = max(reached, int(state.get("sent", 0)), step) if resumed else 0
        ids: dict[str, str] = {name: str(state.get(name) or uuid.uuid4().hex[:8]) for name in config.run.trackers}
        if ids:
            write_whole(path, json.dumps({**ids, "sent": sent}) + "\n")
        remote = {name: _started(name, run_dir, config, run_id) for name, run_id in ids.items()}
        # What an earlier process wrote after this step is hidden in TensorBoard by purge_step.
        board = TensorBoardTracker(FOLDER, run_dir, purge_step=step + 1 if resumed else None)
        board.start()
        return cls(board, remote, sent, say)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send a step's metrics: to TensorBoard's files at once, to a remote tracker unless it has them."""
        self.board.log(metrics, step=step)
        for name in list(self.remote) if step > self.sent else ():
            self._try(name, lambda tracker: tracker.log(metrics, step=step))

    def close(self, ok: bool) -> None:
        """Close all of them; ``ok``: the training run did not fail."""

        def finish(tracker: GeneralTracker) -> None:
            if isinstance(tracker, WandBTracker):
                tracker.tracker.finish(exit_code=0 if ok else 1)  # its own finish() knows no failure
            else:
                tracker.finish()

        for name in list(self.remote):
            self._try(name, finish)
        self.board.finish()

    def _try(self, name: str, action: Callable[[GeneralTracker], None]) -> None:
        try:
            action(self.remote[name])
        except Exception as error:
            del self.remote[name]
            self.say(f"{name} failed ({type(error).__name__}: {error}) and gets nothing more; the run goes on without")


def _started(name: str, run_dir: Path, config: TrainConfig, run_id: str) -> GeneralTracker:
    """A remote tracker; ``run_id`` is the same for every process that continues the training run."""
    settings = {"config": config.to_dict(), "resume": "allow"}
    tracker: GeneralTracker
    if name == "wandb":
        tracker = WandBTracker(PROJECT, name=run_dir.name, id=run_id, dir=str(run_dir), **settings)
    else:
        tracker = TrackioTracker(PROJECT, name=f"{run_dir.name}-{run_id}", **settings)  # it knows runs by their names
    try:
        tracker.start()
    except Exception as error:
        offline = "; WANDB_MODE=offline needs neither network nor login" if name == "wandb" else ""
        raise ConfigError(
            f"{name} did not start ({type(error).__name__}: {error}){offline}; or take it out of run.trackers"
        ) from error
    return tracker
