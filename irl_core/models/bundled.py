"""The checkpoints that come with the project, and which of them opens where nothing else is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from irl_core.checkpoints import find
from irl_core.checkpoints.manifest import MANIFEST
from irl_core.checkpoints.step_models import LAYOUT_FILE, found_and_known, step_layout
from irl_core.errors import CheckpointError, InputError
from irl_core.models.bases import BASES
from irl_core.models.pretrained import BASE, read_base

AUTO = "auto"
NO_CHECKPOINT = (
    "The bundled checkpoints are not beside the installed packages. They are part of the repository, in assets: "
    "install with 'pip install -e' from a clone, or name a checkpoint with --checkpoint."
)
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


def checkpoint_folder(checkpoint: str, on_note: Callable[[str], None]) -> Path:
    """The folder of a checkpoint by name, or by path: who uses the shell may load from anywhere it can read.

    Args:
        checkpoint: a name, a folder, or ``auto`` for `default_checkpoint`.
        on_note: called with why the default is not the first of ``BUNDLED``.

    Raises:
        InputError, CheckpointError: there is no checkpoint of that name or path.
    """
    roots = find.default_roots()
    if checkpoint == AUTO:
        default = default_checkpoint(roots[0])
        if not (roots[0] / default.name).is_dir():
            raise InputError(NO_CHECKPOINT)
        if default.note:
            on_note(default.note)
        checkpoint = default.name
    folder = Path(checkpoint)
    is_checkpoint = (folder / MANIFEST).is_file() or find.is_step_model(folder)
    model = (folder / "config.json").is_file()
    if not is_checkpoint and (folder.is_absolute() or model):
        what = "holds no checkpoint" if folder.is_dir() else "is not there"
        if model:
            raise no_step_model(checkpoint, folder)
        raise InputError(f"{checkpoint[:200]!r} {what}; name a run's final, or one that 'irl-lens checkpoints' lists.")
    if is_checkpoint and (folder.is_absolute() or not (roots[0] / checkpoint).is_dir()):
        roots, checkpoint = (*roots, folder.resolve().parent), str(folder.resolve())
    try:
        return find.resolve_checkpoint(checkpoint, roots)
    except CheckpointError as error:
        unread = next((root / checkpoint for root in roots if (root / checkpoint / "config.json").is_file()), None)
        if unread is not None:
            raise no_step_model(checkpoint, unread) from None
        raise CheckpointError(f"{checkpoint[:200]!r}: {error}") from None


def no_step_model(checkpoint: str, folder: Path) -> InputError:
    """Why the model in a folder, asked for as ``checkpoint``, is no process-reward model that is known.

    Raises:
        CheckpointError: one of its files cannot be read, or it names a layout that there is not.
    """
    step_layout(folder)
    return InputError(
        f"{checkpoint[:200]!r} is no process-reward model by its files: {found_and_known(folder)}. Where it is read "
        f"and judged as one of the layouts of docs/plug-in.md, name that in a file {LAYOUT_FILE} of the folder; or "
        "name another checkpoint: 'irl-lens checkpoints' lists them."
    )


def called(own: str, fingerprint: str) -> str:
    """The name by which a checkpoint is asked for and shown: of a bundled one that of its folder, whatever its
    ``config.json`` calls it.

    Args:
        own: the name in its ``config.json``.
        fingerprint: the sha256 of its manifest.
    """
    return _bundled_names().get(fingerprint, own)


@cache
def _bundled_names() -> dict[str, str]:
    """The bundled checkpoints by the sha256 of their manifests."""
    manifests = {name: find.default_roots()[0] / name / MANIFEST for name in BUNDLED}
    return {hashlib.sha256(path.read_bytes()).hexdigest(): name for name, path in manifests.items() if path.is_file()}


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
