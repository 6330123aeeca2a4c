"""One training in memory: models, data and trainer, and how they are saved, restored and finished."""

from __future__ import annotations

import copy
import subprocess
import tempfile
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from irl_core.adversarial import AdversarialTrainer, Example, Metrics
from irl_core.checkpoints import CheckpointError, load_json, load_tensors, save_checkpoint, verify
from irl_core.config import ConfigError, TrainConfig
from irl_core.discriminator import Discriminator, load_discriminator
from irl_core.encoding import TraceEncoder
from irl_core.policy import load_causal_lm
from irl_core.supervised import SupervisedTrainer
from train import models
from train.backends import tiny
from train.data import ExpertData, training_data


@dataclass(slots=True)
class Session:
    """A trainer with its data. ``round`` does one step of it."""

    config: TrainConfig
    trainer: AdversarialTrainer | SupervisedTrainer
    data: ExpertData

    @classmethod
    def start(cls, config: TrainConfig, run_dir: Path, state: Path | None = None) -> Session:
        """Build the models (from ``state``, a training checkpoint, where one is given) and read the data.

        Raises:
            ConfigError, CheckpointError: what the configuration names is not there or not usable.
        """
        data = training_data(config)
        source = state or _start_of_policy(config)
        if source is None:
            texts = [f"{trace.problem}\n{trace.text}" for trace in data.traces[:20_000]]
            tokenizer: Any = tiny.train_tokenizer(texts, config.model.vocab_size)
            policy = tiny.build_model(config, tokenizer)
        else:
            verify(source)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
            policy = load_causal_lm(source / "policy")
        trainer = _trainer(config, tokenizer, policy, state)
        session = cls(config, trainer, data)
        if state is not None:
            session._restore(state)
        return session

    @property
    def step(self) -> int:
        return self.trainer.round_number

    def round(self) -> Metrics:
        """One step on the data's next batch."""
        settings = self.config.policy
        size = settings.batch_size if self.config.run.method == "sft" else settings.prompts_per_round
        batch = self.data.batch(self.step, size)
        return self.trainer.round([self.trainer.encoder.encode(trace) for trace in batch])

    def save(self, directory: Path) -> None:
        """A training state from which ``start`` continues exactly."""
        files = self._model_files(directory.name) | models.learner_files("policy", self.trainer.policy)
        files["training/progress.json"] = {"round": self.step}
        if isinstance(self.trainer, AdversarialTrainer):
            files |= models.learner_files("discriminator", self.trainer.discriminator)
            files["training/replay.json"] = {"examples": [_replay_row(example) for example in self.trainer.replay]}
        with tempfile.TemporaryDirectory() as scratch:
            files |= models.tokenizer_files(self.trainer.encoder.tokenizer, Path(scratch))
            save_checkpoint(directory, files, keep=self.config.run.keep)

    def _restore(self, state: Path) -> None:
        models.restore_learner(state, "policy", self.trainer.policy)
        self.trainer.round_number = int(load_json(state / "training" / "progress.json")["round"])
        if isinstance(self.trainer, AdversarialTrainer):
            models.restore_learner(state, "discriminator", self.trainer.discriminator)
            rows = load_json(state / "training" / "replay.json")["examples"]
            self.trainer.replay = deque(_replayed(self.trainer.encoder, row) for row in rows)

    def finish(self, directory: Path) -> Path:
        """Save the finished checkpoint: for adversarial training with its calibration on problems of its own."""
        files = self._model_files(directory.parent.name)
        if isinstance(self.trainer, AdversarialTrainer) and self.config.run.method == "irl":
            from train.calibrate import calibrated

            files["config.json"] |= calibrated(self.trainer, self.config)
        with tempfile.TemporaryDirectory() as scratch:
            files |= models.tokenizer_files(self.trainer.encoder.tokenizer, Path(scratch))
            save_checkpoint(directory, files)
        return directory

    def _model_files(self, name: str) -> dict[str, Any]:
        files = models.model_files("policy", self.trainer.policy.model)
        description: dict[str, Any] = {
            "format": 1,
            "name": name,
            "kind": self.config.model.backend,
            "provenance": provenance(self.config, self.step),
            "train_config": self.config.to_dict(),
        }
        if isinstance(self.trainer, AdversarialTrainer):
            discriminator: Discriminator = self.trainer.discriminator.model
            files |= models.discriminator_files(discriminator)
            description["head"] = discriminator.head.kind
        return files | {"config.json": description}


def _start_of_policy(config: TrainConfig) -> Path | None:
    if config.model.policy is None:
        return None
    path = Path(config.model.policy)
    if not path.is_dir():
        raise ConfigError(f"model.policy is {config.model.policy!r}, which is not there; name another folder")
    return path


def _trainer(
    config: TrainConfig, tokenizer: PreTrainedTokenizerFast, policy: Any, state: Path | None
) -> AdversarialTrainer | SupervisedTrainer:
    encoder = TraceEncoder(tokenizer)
    learner = models.policy_learner(policy, config)
    if config.run.method == "sft":
        return SupervisedTrainer(learner, encoder, config)
    reference = copy.deepcopy(policy).eval().requires_grad_(False) if config.policy.kl_coefficient else None
    if state is not None and reference is not None:
        start = _start_of_policy(config)
        if start is None:
            raise CheckpointError("policy.kl_coefficient needs model.policy, the policy that the run started from")
        reference.load_state_dict(load_tensors(start / "policy" / "model.safetensors"), strict=False)
    discriminator = _discriminator(config, policy, state)
    return AdversarialTrainer(
        learner, models.discriminator_learner(discriminator, config), encoder, config, reference=reference
    )


def _discriminator(config: TrainConfig, policy: Any, state: Path | None) -> Discriminator:
    if state is not None:
        return load_discriminator(state / "discriminator")
    backbone = copy.deepcopy(policy)
    if config.model.discriminator is not None:
        folder = Path(config.model.discriminator)
        if not folder.is_dir():
            raise ConfigError(f"model.discriminator is {config.model.discriminator!r}, which is not there")
        verify(folder)
        backbone = load_causal_lm(folder / "policy")
    return Discriminator(backbone, config.discriminator.head, config.discriminator.likelihood)


def _replay_row(example: Example) -> dict[str, Any]:
    trace = example.encoded.trace
    row = {"problem": trace.problem, "token_ids": trace.token_ids, "logprobs": trace.logprobs}
    return row | {"departure": example.departure}


def _replayed(encoder: TraceEncoder, row: dict[str, Any]) -> Example:
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


