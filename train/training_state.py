"""The state of a training in memory (models, optimisers, data), and how it is saved, restored and finished."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.save import save_checkpoint
from irl_core.config import TrainConfig
from irl_core.distributed import World
from irl_core.models.pretrained import OWN_TOKENIZER
from irl_core.models.tokenization import TraceEncoder
from irl_core.reward.discriminator import anchored
from irl_core.storage.provenance import code_state, data_hash
from irl_core.storage.training_run import CALIBRATING
from irl_core.text.segmentation import make_trace
from irl_core.training.adversarial import AdversarialTrainer
from irl_core.training.grpo import GRPOTrainer
from irl_core.training.metrics import Metrics
from irl_core.training.negatives import Example
from irl_core.training.optimizer_step import Learner
from irl_core.training.process import ProcessTrainer
from irl_core.training.reward_trainer import RewardTrainer
from irl_core.training.sft import SFTTrainer
from irl_core.types import Source
from train import optimizers
from train.backends.build import build
from train.backends.models import Models
from train.data import ExpertData, to_stderr
from train.distributed import check_same, gathered, sampler_for, spread, training_device
from train.kept_parts import KeptParts
from train.labelled_data import data_of
from train.optimizers import CheckpointFiles

Trainer = AdversarialTrainer | ProcessTrainer | GRPOTrainer | SFTTrainer
TOKENIZER_TEXTS = 20_000  # training traces that a tokenizer of our own is trained on
ALIGNMENT = 64  # bytes, that of torch's own allocator on the CPU


def make_trainer(config: TrainConfig, models: Models, world: World) -> Trainer:
    """The trainer of the configured method: the one place that chooses it."""
    policy = optimizers.policy_learner(models.policy, config)
    if not (config.method.samples_policy or config.method.needs_discriminator):
        return SFTTrainer(policy=policy, encoder=models.encoder, config=config, world=world)
    sampler = sampler_for(config, models.encoder, world)
    if models.discriminator is None:
        return GRPOTrainer(
            policy=policy, encoder=models.encoder, config=config, sampler=sampler, reference=models.reference,
            world=world,
        )  # fmt: skip
    trainer = ProcessTrainer if config.method.reads_labels else AdversarialTrainer
    return trainer(
        policy=policy, discriminator=optimizers.discriminator_learner(models.discriminator, config),
        encoder=models.encoder, discriminator_encoder=models.discriminator_encoder, config=config, sampler=sampler,
        reference=models.reference, world=world,
    )  # fmt: skip


def learners_of(trainer: Trainer) -> dict[str, Learner]:
    """The models that a trainer updates, by name."""
    if isinstance(trainer, RewardTrainer):
        return {"policy": trainer.policy, "discriminator": trainer.discriminator}
    return {"policy": trainer.policy}


@dataclass(slots=True)
class TrainingState:
    """A trainer with its data; ``round`` does one step of the training."""

    config: TrainConfig
    trainer: Trainer
    data: ExpertData

    @classmethod
    def start(cls, config: TrainConfig, saved: Path | None = None, world: World | None = None) -> TrainingState:
        """Build the models and read the data.

        Args:
            config: the training's settings.
            saved: a verified training state to continue from.
            world: the data-parallel processes, all of which must call this.

        Raises:
            ConfigError: what the configuration names is missing or not usable.
            CheckpointError: a checkpoint is not whole, or of another model.
        """
        world, device = world or World(), training_device()

        def ignored(line: str) -> None:
            """What is left out of the data is said once, by the main process."""

        if config.data.source != "demo":
            data_of(config, say=ignored)  # an unreadable source is refused before gigabytes are loaded

        def texts() -> list[str]:
            traces = data_of(config, say=ignored).traces[:TOKENIZER_TEXTS]
            return [f"{trace.problem}\n{trace.text}" for trace in traces]

        models = build(config, saved, world, device, texts)
        data = data_of(config, models.encoder, to_stderr if world.is_main else ignored)
        check_same(
            world, data_hash([*data.traces, *data.bare]), "training data", "bring the same files to every machine"
        )
        spread(models, world, device)
        state = cls(config, make_trainer(config, models, world), data)
        if saved is not None:
            state.restore(saved)
        align(state.learners.values(), models.reference)
        return state

    @property
    def learners(self) -> dict[str, Learner]:
        """The models that are trained, by the names that their optimisers have in a saved state."""
        return learners_of(self.trainer)

    @property
    def step(self) -> int:
        """Number of steps (rounds) done."""
        return self.trainer.round_number

    def round(self) -> Metrics:
        """One step on the data's next batch."""
        config = self.config
        waiting = config.discriminator.warmup_rounds if config.method.needs_discriminator else 0
        learns = config.method.samples_policy and self.step >= waiting
        size = getattr(config.policy, config.method.batch_setting)
        batch = self.data.batch(self.step, size, config.policy.bare_prompts if learns else 0)
        return self.trainer.round([self.trainer.encoder.encode(trace) for trace in batch])

    def save(self, directory: Path) -> None:
        """Write a training state from which ``start`` continues exactly; every process must call it, and one writes."""
        world = self.trainer.world
        if world.is_main:
            files = self.model_files(directory.name)
            for name, learner in self.learners.items():
                files |= optimizers.learner_files(name, learner)
            files["training/progress.json"] = {"round": self.step}
            if isinstance(self.trainer, AdversarialTrainer):
                files["training/replay.json"] = {"examples": [replay_row(e) for e in self.trainer.replay]}
            self.write(directory, files, keep=self.config.run.keep)
        world.barrier()

    def restore(self, saved: Path) -> None:
        """Continue from a verified training state. Raises CheckpointError where it is of another model."""
        for name, learner in self.learners.items():
            optimizers.restore_learner(saved, name, learner)
        self.trainer.round_number = int(load_json(saved / "training" / "progress.json")["round"])
        if isinstance(self.trainer, AdversarialTrainer):
            rows = load_json(saved / "training" / "replay.json")["examples"]
            encoder = self.trainer.discriminator_encoder
            self.trainer.replay = deque(replayed_example(encoder, row) for row in rows)

    def finish(self, directory: Path) -> Path:
        """Write the finished checkpoint, calibrated on held-out problems where it has a discriminator.

        With ``discriminator.final_anchor`` the discriminator that is calibrated and written has that anchor; it is not
        trained any more.
        """
        world = self.trainer.world
        if isinstance(self.trainer, RewardTrainer) and (weight := self.config.discriminator.final_anchor):
            learner = self.trainer.discriminator
            learner.model = anchored(learner.model, weight)
        calibration: Mapping[str, object] = {}
        kept = KeptParts()
        if isinstance(self.trainer, RewardTrainer):
            with gathered(self.trainer.policy.model, self.trainer.discriminator.model):
                if world.is_main:
                    from train.calibrate import calibrated, work_of

                    kept = KeptParts(directory.with_name(CALIBRATING), work_of(self.trainer, self.config))
                    calibration = calibrated(self.trainer, self.config, kept)
                world.barrier()
        if world.is_main:
            self.write(directory, self.model_files(directory.parent.name, calibration))
            kept.remove()
        world.barrier()
        return directory

    def model_files(self, name: str, calibration: Mapping[str, object] | None = None) -> CheckpointFiles:
        """The files of the models, and ``config.json`` with where they come from and their ``calibration``."""
        files = optimizers.model_files("policy", self.trainer.policy.model)
        description: dict[str, object] = {
            "format": 1,
            "name": name,
            "kind": "tiny" if self.config.model.backend == "tiny" else "transformers",
            "instruction": self.config.data.instruction,
            "provenance": provenance(self.config, self.step),
            "train_config": self.config.to_dict(),
        }
        if isinstance(self.trainer, RewardTrainer):
            discriminator = self.trainer.pair.discriminator
            files |= optimizers.discriminator_files(discriminator)
            description["head"] = discriminator.head.kind
        return files | {"config.json": description | dict(calibration or {})}

    def write(self, directory: Path, files: CheckpointFiles, keep: int | None = None) -> None:
        """Save a checkpoint of these files and of the tokenizers."""
        with tempfile.TemporaryDirectory() as scratch:
            files = files | optimizers.tokenizer_files(self.trainer.encoder.tokenizer, Path(scratch))
            if isinstance(self.trainer, RewardTrainer) and not self.trainer.pair.shares_tokens:
                own = self.trainer.discriminator_encoder.tokenizer
                files |= optimizers.tokenizer_files(own, Path(scratch), f"discriminator/{OWN_TOKENIZER}")
            save_checkpoint(directory, files, keep=keep)


# --------------------------------------------------------------------------------------------------- replayed samples


class ReplayRow(TypedDict):
    """A replayed sample in ``training/replay.json``: its tokens, or its text where the discriminator has its own."""

    problem: str
    departure: int
    reference_answer: NotRequired[str | None]  # by which an outcome is told
    token_ids: NotRequired[tuple[int, ...]]
    logprobs: NotRequired[tuple[float, ...] | None]
    text: NotRequired[str]
    finished: NotRequired[bool]


def replay_row(example: Example) -> ReplayRow:
    """A replayed sample as it is saved."""
    trace = example.encoded.trace
    row: ReplayRow = {
        "problem": trace.problem, "departure": example.departure, "reference_answer": trace.reference_answer,
    }  # fmt: skip
    if trace.token_ids is None:
        row |= {"text": trace.text, "finished": trace.finished}
    else:
        row |= {"token_ids": trace.token_ids, "logprobs": trace.logprobs}
    return row


def replayed_example(encoder: TraceEncoder, row: ReplayRow) -> Example:
    """The inverse of ``replay_row``, with the discriminator's encoder."""
    problem, answer = row["problem"], row.get("reference_answer")
    if "text" in row:
        trace = make_trace(
            problem, row["text"], source=Source.POLICY, finished=row["finished"], reference_answer=answer
        )
    else:
        trace = encoder.sampled_trace(problem, row["token_ids"], row["logprobs"] or (), reference_answer=answer)
    return Example(encoder.encode(trace), int(row["departure"]))


# --------------------------------------------------------------------------------------------------- where it is from


def provenance(config: TrainConfig, step: int) -> dict[str, str | int]:
    """Where a checkpoint that is saved now comes from; shown wherever its figures are."""
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
    commit = code_state()["commit"]
    return f"{version('irl-lens')}+{commit[:7]}" if commit else version("irl-lens")


# ----------------------------------------------------------------------------------------------- alignment in memory


def align(learners: Iterable[Learner], reference: object | None = None) -> None:
    """Copy weights and optimiser moments that are not aligned in the CPU's memory; no value changes.

    Tensors read from a safetensors file are views of the mapped file at any offset; those that torch allocates begin
    at a multiple of 64 bytes. Vectorised sums group their terms by alignment and so round differently: without this, a
    training resumed from a file would differ from an unbroken one in the last bits. Other kinds of tensors (quantised,
    sharded, on a GPU) are allocated anew wherever they are loaded.
    """
    learners = list(learners)
    models = [learner.model for learner in learners]
    if isinstance(reference, torch.nn.Module):  # the other kind of reference is inside the policy
        models.append(reference)
    copies: dict[tuple[object, ...], Tensor] = {}
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            if is_misaligned(tensor.data):
                place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
                tensor.data = copies.setdefault(place, tensor.data.clone())  # tied weights stay tied
    for learner in learners:
        for moments in learner.optimizer.state.values():
            for key, value in list(moments.items()):
                if isinstance(value, Tensor) and is_misaligned(value):
                    moments[key] = value.clone()


def is_misaligned(tensor: Tensor) -> bool:
    """Whether a plain floating-point tensor on the CPU begins where torch would not have it begin."""
    plain = type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_floating_point()
    return plain and not getattr(tensor, "is_paged", False) and tensor.data_ptr() % ALIGNMENT != 0
