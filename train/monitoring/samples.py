"""The samples that a run keeps to be read: ``samples/step-000100.jsonl``, a line each. Their text is only data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irl_core.files import not_written, write_whole
from irl_core.reward.discriminator import score_traces
from irl_core.training.adversarial import AdversarialTrainer

FOLDER = "samples"


def round_rows(trainer: Any) -> list[dict[str, Any]]:
    """The samples of the round just done, each with its mean raw reward (None where no reward is learned).

    Every process must call it, and gets the rows of all of them.
    """
    if not isinstance(trainer, AdversarialTrainer):
        return []
    samples = [sample for group in trainer.groups for sample in group.samples]
    rewards: list[float | None] = [None] * len(samples)
    if trainer.learns_reward:
        reader = trainer.discriminator_encoder
        scores = score_traces(
            trainer.judge.model, trainer.policy.model, samples, pad_id=trainer.encoder.pad_id,
            batch_tokens=trainer.config.run.batch_tokens, packing=trainer.config.model.packing,
            discriminator_encoder=None if reader is trainer.encoder else reader, world=trainer.world,
        )  # fmt: skip
        rewards = [float(raw.mean()) for raw, _, _ in scores]
    own = [
        {
            "split": "train", "problem_id": sample.trace.problem_id, "text": sample.trace.text,
            "correct": bool(sample.trace.correct), "finished": sample.trace.finished, "reward": reward,
        }
        for sample, reward in zip(samples, rewards, strict=True)
    ]  # fmt: skip
    return trainer.world.gather(own)


def write_samples(run_dir: Path, step: int, rows: Sequence[dict[str, Any]]) -> None:
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
    """Remove the samples of steps that will be made again."""
    for path in (run_dir / FOLDER).glob("step-*.jsonl"):
        if path.stem.removeprefix("step-").isdigit() and int(path.stem.removeprefix("step-")) > step:
            path.unlink()
