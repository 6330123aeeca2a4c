"""One training in memory: models, data and trainer, and how they are saved, restored and finished."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from irl_core.checkpoints.save import load_json, save_checkpoint
from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.models.pretrained import OWN_TOKENIZER
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import Discriminator
from irl_core.storage.provenance import data_hash
from irl_core.text.segmentation import make_trace
from irl_core.training.adversarial import AdversarialTrainer, Example
from irl_core.training.metrics import Metrics
from irl_core.training.sft import SupervisedTrainer
from irl_core.types import Source
from train import optimizers
from train.backends import build, models
from train.data import ExpertData, training_data
from train.distributed import check_same, gathered, sampler_for, spread, training_device


@dataclass(slots=True)
class Session:
    """A trainer with its data. ``round`` does one step of it."""

    config: TrainConfig
    trainer: AdversarialTrainer | SupervisedTrainer
    data: ExpertData

    @classmethod
    def start(
        cls, config: TrainConfig, run_dir: Path, state: Path | None = None, world: World | None = None
    ) -> Session:
        """Build the models (from ``state``, a verified training checkpoint, where one is given) and read the data.

        Raises:
            ConfigError, CheckpointError: what the configuration names is not there or not usable.
        """
        world, device = world or World(), training_device()
        if config.data.source != "demo":
            training_data(config, say=_unsaid)  # a source that cannot be read is told before gigabytes are loaded
        pair = build.build(config, state, world, device, lambda: _texts(config))
        data = training_data(config, pair.encoder, _to_stderr if world.is_main else _unsaid)
        check_same(world, data_hash(data.traces), "training data", "bring the same files to every machine")
        spread(pair, world, device)
        session = cls(config, _trainer(config, pair, world), data)
        if state is not None:
            session._restore(state)
        return session

    @property
    def step(self) -> int:
        return self.trainer.round_number

    def round(self) -> Metrics:
        """One step on the data's next batch."""
        size = getattr(self.config.policy, self.config.method.batch_setting)
        batch = self.data.batch(self.step, size)
        return self.trainer.round([self.trainer.encoder.encode(trace) for trace in batch])

    def save(self, directory: Path) -> None:
        """A training state from which ``start`` continues exactly; every process must call it, and one writes it."""
        world = self.trainer.world
        if world.is_main:
            files = self._model_files(directory.name) | optimizers.learner_files("policy", self.trainer.policy)
            files["training/progress.json"] = {"round": self.step}
            if isinstance(self.trainer, AdversarialTrainer) and self.trainer.learns_reward:
                files |= optimizers.learner_files("discriminator", self.trainer.judge)
                files["training/replay.json"] = {"examples": [_replay_row(e) for e in self.trainer.replay]}
            self._write(directory, files, keep=self.config.run.keep)
        world.barrier()

    def _write(self, directory: Path, files: dict[str, Any], keep: int | None = None) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            files = files | optimizers.tokenizer_files(self.trainer.encoder.tokenizer, Path(scratch))
            own = own_encoder(self.trainer)
            if own is not None:
                folder = f"discriminator/{OWN_TOKENIZER}"
                files |= optimizers.tokenizer_files(own.tokenizer, Path(scratch), folder)
            save_checkpoint(directory, files, keep=keep)

    def _restore(self, state: Path) -> None:
        optimizers.restore_learner(state, "policy", self.trainer.policy)
        self.trainer.round_number = int(load_json(state / "training" / "progress.json")["round"])
        if isinstance(self.trainer, AdversarialTrainer) and self.trainer.learns_reward:
            optimizers.restore_learner(state, "discriminator", self.trainer.judge)
            rows = load_json(state / "training" / "replay.json")["examples"]
            encoder = own_encoder(self.trainer) or self.trainer.encoder
            self.trainer.replay = deque(_replayed(encoder, row) for row in rows)

    def finish(self, directory: Path) -> Path:
        """Save the finished checkpoint: for adversarial training with its calibration on problems of its own."""
        world = self.trainer.world
        found: dict[str, Any] = {}
        if isinstance(self.trainer, AdversarialTrainer) and self.trainer.learns_reward:
            with gathered(self.trainer.policy.model, self.trainer.judge.model):
                if world.is_main:
                    from train.calibrate import calibrated

                    found = calibrated(self.trainer, self.config)
                world.barrier()
        if world.is_main:
            files = self._model_files(directory.parent.name)
            files["config.json"] |= found
            self._write(directory, files)
        world.barrier()
        return directory

    def _model_files(self, name: str) -> dict[str, Any]:
        files = optimizers.model_files("policy", self.trainer.policy.model)
        description: dict[str, Any] = {
            "format": 1,
            "name": name,
            "kind": "tiny" if self.config.model.backend == "tiny" else "transformers",
            "instruction": self.config.data.instruction,
            "provenance": provenance(self.config, self.step),
            "train_config": self.config.to_dict(),
        }
        if isinstance(self.trainer, AdversarialTrainer) and self.trainer.learns_reward:
            discriminator: Discriminator = self.trainer.judge.model
            files |= optimizers.discriminator_files(discriminator)
            description["head"] = discriminator.head.kind
        return files | {"config.json": description}


def _texts(config: TrainConfig) -> list[str]:
    """What a tokenizer of our own is trained on."""
    return [f"{trace.problem}\n{trace.text}" for trace in training_data(config, say=_unsaid).traces[:20_000]]


def _unsaid(line: str) -> None:
    """What is left out of the data is told once, by the main process."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _trainer(config: TrainConfig, pair: models.Models, world: World) -> AdversarialTrainer | SupervisedTrainer:
    learner = optimizers.policy_learner(pair.policy, config)
    if not config.method.samples_policy:
        return SupervisedTrainer(learner, pair.encoder, config, world)
    judge = None if pair.discriminator is None else optimizers.discriminator_learner(pair.discriminator, config)
    return AdversarialTrainer(
        learner, judge, pair.encoder, config,
        sampler_for(config, pair.encoder, world), discriminator_encoder=pair.discriminator_encoder,
        reference=pair.reference, world=world,
    )  # fmt: skip


def own_encoder(trainer: AdversarialTrainer | SupervisedTrainer) -> TraceEncoder | None:
    """The discriminator's encoder, where it reads other tokens than the policy."""
    if not isinstance(trainer, AdversarialTrainer) or trainer.discriminator_encoder is trainer.encoder:
        return None
    return trainer.discriminator_encoder


def _replay_row(example: Example) -> dict[str, Any]:
    trace = example.encoded.trace
    row = {"problem": trace.problem, "departure": example.departure}
    if trace.token_ids is None:  # read by a discriminator with tokens of its own
        return row | {"text": trace.text, "finished": trace.finished}
    return row | {"token_ids": trace.token_ids, "logprobs": trace.logprobs}


def _replayed(encoder: TraceEncoder, row: dict[str, Any]) -> Example:
    if "text" in row:
        trace = make_trace(row["problem"], row["text"], source=Source.POLICY, finished=row["finished"])
    else:
        trace = encoder.sampled_trace(row["problem"], row["token_ids"], row["logprobs"])
    return Example(encoder.encode(trace), int(row["departure"]))


def provenance(config: TrainConfig, step: int) -> dict[str, Any]:
    """Where a checkpoint comes from, shown wherever its numbers are."""
    return {
        "command": f"irl-lens train {config.run.preset}",
        "preset": config.run.preset,
        "seed": config.run.seed,
        "date": datetime.now(UTC).date().isoformat(),
        "data": config.data.source,
        "steps": step,
        "code_version": code_version(),
    }


def code_version() -> str:
    """The package's version, with the commit where the code is a git checkout."""
    from importlib.metadata import version

    folder = Path(__file__).resolve().parents[1]
    described = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    commit = described.stdout.strip()
    return f"{version('irl-lens')}+{commit}" if described.returncode == 0 and commit else version("irl-lens")
