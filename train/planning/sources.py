"""Where the models and data of a configuration come from: a folder, a checkpoint of ours, the hub's cache, the hub.

Nothing is downloaded here but a ``config.json`` where ``download`` says so. What the hub answers with is explained by
``irl_core.models.hub.explain_hub_error``: the licence page and the login, the cache that was looked in and the command
that fills it, or the nearest known name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import MANIFEST
from irl_core.errors import CheckpointError, ConfigError
from irl_core.models.hub import SNAPSHOT_FILES, explain_hub_error, is_hub_name
from train.planning.architectures import KNOWN, Architecture, architecture_of

Kind = Literal["made", "trained first", "folder", "checkpoint", "cache", "download", "missing"]
GSM8K = "openai/gsm8k"
GSM8K_BYTES = 2_725_633  # of its configuration 'main', as its page says
ADAPTERS_BASE = "base.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where something comes from.

    ``kind``: made by the run itself, left by a run that is trained first, found in ``where`` (a folder, a checkpoint,
    the cache), to be downloaded, or missing. ``download_bytes``: what is still to be downloaded; None where that is not
    known. ``note``: the licence, or why it is missing and what to do.
    """

    role: str
    name: str
    kind: Kind
    where: str = ""
    download_bytes: int | None = 0
    note: str = ""

    @property
    def obstacle(self) -> bool:
        """Whether training would stop at it."""
        return self.kind == "missing"


# ------------------------------------------------------------------------------------------------------------ models


def find_model(role: str, name: str, revision: str | None = None, *, ask_hub: bool = True) -> Origin:
    """Where a model comes from. ``role``: what it is for, such as ``policy``. ``ask_hub``: the hub is asked for what is
    not here; otherwise its size is that of known models.

    Raises:
        ConfigError: neither a folder that is there nor a name that the hub could know.
    """
    folder = Path(name)
    if (folder / MANIFEST).is_file():
        return Origin(role, name, "checkpoint", str(folder))
    if folder.is_dir():
        return Origin(role, name, "folder", str(folder))
    _check_name(role, name)
    cached = cached_folder(name, revision)
    if cached is not None and _is_whole(cached):
        return Origin(role, name, "cache", str(cached), note=_licence(name))
    size = 2 * KNOWN[name].shape.parameters if name in KNOWN else None
    found = Origin(role, name, "download", download_bytes=size, note=_licence(name))
    return _asked(found, revision) if ask_hub else found


def bases(role: str, folder: Path, *, ask_hub: bool = True) -> Iterator[Origin]:
    """The model that the adapters in a checkpoint's part belong to, where it has any. Raises CheckpointError."""
    if (folder / ADAPTERS_BASE).is_file():
        base = load_json(folder / ADAPTERS_BASE)
        yield find_model(f"base of the {role}", str(base.get("name")), base.get("revision"), ask_hub=ask_hub)


def part_of(checkpoint: Path, role: str) -> Path:
    """The folder in a checkpoint that a model starts from: a discriminator's own where there is one."""
    own = checkpoint / "discriminator"
    return own if role == "discriminator" and own.is_dir() else checkpoint / "policy"


def _check_name(role: str, name: str) -> None:
    if not is_hub_name(name):
        key = f"model.{role}" if role in ("policy", "discriminator") else role
        known = next(iter(KNOWN))
        raise ConfigError(f"{key}: {name[:80]!r} is no folder that is there, nor a hub name such as {known}")


def _licence(name: str) -> str:
    if name not in KNOWN:
        return ""
    known, page = KNOWN[name], f"https://huggingface.co/{name}"
    return f"{known.licence}, to be accepted on {page}" if known.gated else f"{known.licence}, {page}"


def _asked(expected: Origin, revision: str | None) -> Origin:
    """What the hub says: how much is to be downloaded, or why nothing can be."""
    import httpx
    from huggingface_hub import snapshot_download

    try:
        with _no_progress():
            files: Any = snapshot_download(
                expected.name, revision=revision, allow_patterns=list(SNAPSHOT_FILES), ignore_patterns=["*/*"],
                dry_run=True,
            )  # fmt: skip
    except (OSError, ValueError, httpx.HTTPError) as error:
        return replace(expected, kind="missing", note=explain_hub_error(error, expected.name))
    return replace(expected, download_bytes=sum(file.file_size or 0 for file in files if file.will_download))


@contextmanager
def _no_progress() -> Iterator[None]:
    from huggingface_hub import utils

    before = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()


def cached_folder(name: str, revision: str | None = None) -> Path | None:
    """The snapshot of a model in the hub's cache, whole or not."""
    from huggingface_hub import constants, try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision or "main")
    return Path(found).parent if isinstance(found, str) else None


def _is_whole(folder: Path) -> bool:
    """All shards that the index names, or weights in one file; and a tokenizer."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "tokenizer.json").is_file():
        return False
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = load_json(index.resolve()).get("weight_map", {})
    return bool(shards) and all((folder / str(name)).is_file() for name in shards.values())


# ------------------------------------------------------------------------------------------------------------ shapes


def shape_of(origin: Origin, revision: str | None = None, *, download: bool = True) -> Architecture:
    """The shape of a model: known by its name, or in its ``config.json``, which (``download``) may be fetched.

    Raises:
        ConfigError: it is nowhere to be found, or is of a kind that is not known.
    """
    if origin.name in KNOWN:
        return KNOWN[origin.name].shape
    folder = Path(origin.where) if origin.where else cached_folder(origin.name, revision)
    if origin.kind == "checkpoint":
        folder = part_of(Path(origin.where), origin.role)
        for base in bases(origin.role, folder, ask_hub=False):
            return shape_of(base, download=download)
    if folder is not None and (folder / "config.json").is_file():
        return architecture_of(_read(folder / "config.json"), origin.name)
    if not download or origin.obstacle:
        raise ConfigError(origin.note or f"the shape of {origin.name} is not known before it is downloaded")
    return architecture_of(_read(_fetch_config(origin.name, revision)), origin.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_json(path.resolve())
    except CheckpointError as error:
        raise ConfigError(f"{path}: {error}") from error


def _fetch_config(name: str, revision: str | None) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download

    try:
        with _no_progress():
            return Path(hf_hub_download(name, "config.json", revision=revision))
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConfigError(explain_hub_error(error, name)) from error


# -------------------------------------------------------------------------------------------------------------- data


def find_data(source: str, *, ask_hub: bool = True) -> Origin:
    """Where the training problems come from.

    Raises:
        ConfigError: a file or folder that is not there.
    """
    if source == "demo":
        return Origin("data", source, "made", note="generated word problems")
    if source != "gsm8k":
        if not Path(source).exists():
            raise ConfigError(f"data.source {source!r} is not there; demo, gsm8k, a JSONL file or a folder is expected")
        return Origin("data", source, "folder", source)
    cache = _datasets_cache() / GSM8K.replace("/", "___") / "main"
    if cache.is_dir():
        return Origin("data", GSM8K, "cache", str(cache))
    found = Origin("data", GSM8K, "download", download_bytes=GSM8K_BYTES, note="MIT licence")
    return _asked_data(found) if ask_hub else found


def _datasets_cache() -> Path:
    """Where the package ``datasets`` keeps what it has read, without importing it."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")


def _asked_data(expected: Origin) -> Origin:
    import httpx
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(expected.name, timeout=10)
    except (OSError, ValueError, httpx.HTTPError) as error:
        note = (
            f"{expected.name} is not in the cache {_datasets_cache()}, and the hub was not reached "
            f"({type(error).__name__}); go online once, or set data.source to a folder with its train.jsonl"
        )
        return replace(expected, kind="missing", note=note)
    return expected
