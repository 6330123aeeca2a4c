"""The checkpoints that come with the project, and which of them opens where nothing else is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from irl_core.checkpoints.manifest import MANIFEST
from irl_core.models.bases import BASES
from irl_core.models.pretrained import BASE, read_base

BUNDLED = ("gsm8k", "demo")  # the first that can be loaded is the default; the last needs no pretrained model


@dataclass(frozen=True, slots=True)
class DefaultCheckpoint:
    """The name of the checkpoint that opens, and why it is not the first of ``BUNDLED`` (empty where it is)."""

    name: str
    note: str = ""


def default_checkpoint(assets: Path) -> DefaultCheckpoint:
    """The first bundled checkpoint that is in ``assets`` and whose pretrained model is here."""
    note = ""
    for name in BUNDLED[:-1]:
        if not (assets / name / MANIFEST).is_file():
            continue
        missing = missing_base(assets / name)
        if missing is None:
            return DefaultCheckpoint(name, note)
        megabytes = BASES[missing].bytes / 1e6
        note = note or (
            f"The checkpoint {name} needs the pretrained model {missing}, which is not here: get it with 'irl-lens "
            f"models fetch {missing}' ({megabytes:.0f} MB). Until then the tiny {BUNDLED[-1]} opens, which knows "
            "only the problems of its own generator."
        )
    return DefaultCheckpoint(BUNDLED[-1], note)


def missing_base(checkpoint: Path) -> str | None:
    """The known pretrained model that a checkpoint's adapters belong to and that was not fetched; None where none is.

    Raises:
        CheckpointError: a part's ``base.json`` is not one.
    """
    for part in ("policy", "discriminator"):
        if (checkpoint / part / BASE).is_file():
            name = read_base(checkpoint / part).name
            if name in BASES and not BASES[name].path.is_file():
                return name
    return None
