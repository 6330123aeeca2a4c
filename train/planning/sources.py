"""Sources of a configuration's models and data: a folder, our checkpoint, the hub's cache, or the hub.

Nothing is downloaded here except a ``config.json`` where ``download`` is set. The hub's errors are explained by
``irl_core.models.hub.explain_hub_error``.
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
from irl_core.models import gguf
from irl_core.models.bases import BASES
from irl_core.models.hub import SNAPSHOT_FILES, explain_hub_error, is_hub_name
from train.planning.architectures import KNOWN, Architecture, architecture_of

Kind = Literal["made", "trained first", "folder", "checkpoint", "cache", "download", "missing"]
GSM8K = "openai/gsm8k"
GSM8K_BYTES = 2_725_633  # of its configuration 'main', as its page says
ADAPTERS_BASE = "base.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model or data set comes from.

    ``kind``: made by the training run itself, made by one that is trained first, found in ``where`` (a folder, a
    checkpoint, the cache), to be downloaded, or missing. ``download_bytes``: bytes still to download, None where
    unknown. ``note``: the licence, or why it is missing and the fix.
    """

    role: str
    name: str
    kind: Kind
    where: str = ""
    download_bytes: int | None = 0
    note: str = ""

    @property
    def obstacle(self) -> bool:
        """Whether training would fail for lack of it."""
        return self.kind == "missing"


# ------------------------------------------------------------------------------------------------------------ models


def find_model(role: str, name: str, revision: str | None = None, *, ask_hub: bool = True) -> Origin:
    """The source of a model.

    Args:
        role: its use, such as ``policy``.
        name: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub.
        ask_hub: ask the hub about a model that is not here; otherwise only the sizes of known models are known.

    Raises:
        ConfigError: ``name`` is neither an existing folder nor of the form of a hub name.
    """
    folder = Path(name)
    if (folder / MANIFEST).is_file():
        return Origin(role, name, "checkpoint", str(folder))
    if folder.is_dir():
        return Origin(role, name, "folder", str(folder))
    if name in BASES:
        base = BASES[name]
        if base.path.is_file():
            return Origin(role, name, "cache", str(base.path), note=base.licence)
        return Origin(role, name, "missing", note=f"{name} is not here; run 'irl-lens models fetch {name}'")
    if gguf.is_file_name(name) or gguf.split_name(name):
        return _find_gguf(role, name, revision)
    if not is_hub_name(name):
        key = f"model.{role}" if role in ("policy", "discriminator") else role
        known = next(iter(KNOWN))
        raise ConfigError(f"{key}: {name[:80]!r} is no folder that is there, nor a hub name such as {known}")
    cached = cached_folder(name, revision)
    if cached is not None and _is_whole(cached):
        return Origin(role, name, "cache", str(cached), note=_licence(name))
    size = 2 * KNOWN[name].shape.parameters if name in KNOWN else None
    origin = Origin(role, name, "download", download_bytes=size, note=_licence(name))
    return _asked(origin, revision) if ask_hub else origin


def _find_gguf(role: str, name: str, revision: str | None) -> Origin:
    """A GGUF file, here or on the hub; it is converted when training starts. Raises ConfigError."""
    from huggingface_hub import try_to_load_from_cache

    named = gguf.split_name(name)
    if named is None:
        if not Path(name).is_file():
            raise ConfigError(f"model.{role}: {name[:200]!r} is no file that is there")
        return Origin(role, name, "folder", name)
    cached = try_to_load_from_cache(*named, revision=revision or "main")
    if isinstance(cached, str):
        return Origin(role, name, "cache", cached)
    return Origin(role, name, "download", download_bytes=None)


def bases(role: str, folder: Path, *, ask_hub: bool = True) -> Iterator[Origin]:
    """The base model of the adapters in a checkpoint's part, if it has adapters. Raises CheckpointError."""
    if (folder / ADAPTERS_BASE).is_file():
        base = load_json(folder / ADAPTERS_BASE)
        yield find_model(f"base of the {role}", str(base.get("name")), base.get("revision"), ask_hub=ask_hub)


def part_of(checkpoint: Path, role: str) -> Path:
    """The folder in a checkpoint that a model starts from; a discriminator may have none of its own."""
    own = checkpoint / "discriminator"
    return own if role == "discriminator" and own.is_dir() else checkpoint / "policy"


def _licence(name: str) -> str:
    if name not in KNOWN:
        return ""
    known, page = KNOWN[name], f"https://huggingface.co/{name}"
    return f"{known.licence}, to be accepted on {page}" if known.gated else f"{known.licence}, {page}"


def _asked(expected: Origin, revision: str | None) -> Origin:
    """The expected source with the hub's answer: bytes to download, or why it is missing."""
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
    """The snapshot of a model in the hub's cache, complete or not."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE, revision=revision or "main")
    return Path(cached).parent if isinstance(cached, str) else None


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot has a tokenizer, and all shards of the index or weights in one file."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "tokenizer.json").is_file():
        return False
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    shards = load_json(index.resolve()).get("weight_map", {})
    return bool(shards) and all((folder / str(name)).is_file() for name in shards.values())


# ------------------------------------------------------------------------------------------------------------ shapes


def shape_of(origin: Origin, revision: str | None = None, *, download: bool = True) -> Architecture:
    """The layer shapes of a model, known by its name or read from its ``config.json``.

    ``download``: fetch that file from the hub if need be.

    Raises:
        ConfigError: no such file, or a model of an unknown kind.
    """
    if origin.name in KNOWN:
        return KNOWN[origin.name].shape
    if origin.where.endswith(gguf.SUFFIX):
        try:
            return architecture_of(gguf.shape_config(Path(origin.where)), origin.name)
        except CheckpointError as error:
            raise ConfigError(str(error)) from error
    folder = Path(origin.where) if origin.where else cached_folder(origin.name, revision)
    if origin.kind == "checkpoint":
        folder = part_of(Path(origin.where), origin.role)
        for base in bases(origin.role, folder, ask_hub=False):
            return shape_of(base, download=download)
    if folder is not None and (folder / "config.json").is_file():
        return architecture_of(_read(folder / "config.json"), origin.name)
    if not download or origin.obstacle:
        raise ConfigError(origin.note or f"the shape of {origin.name} is not known before it is downloaded")
    import httpx
    from huggingface_hub import hf_hub_download

    try:
        with _no_progress():
            fetched = Path(hf_hub_download(origin.name, "config.json", revision=revision))
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConfigError(explain_hub_error(error, origin.name)) from error
    return architecture_of(_read(fetched), origin.name)


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_json(path.resolve())
    except CheckpointError as error:
        raise ConfigError(f"{path}: {error}") from error


# -------------------------------------------------------------------------------------------------------------- data


def find_data(source: str, *, ask_hub: bool = True) -> Origin:
    """The source of the training problems.

    Raises:
        ConfigError: a file or folder that does not exist.
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
    expected = Origin("data", GSM8K, "download", download_bytes=GSM8K_BYTES, note="MIT licence")
    if ask_hub:
        import httpx
        from huggingface_hub import HfApi

        try:
            HfApi().dataset_info(GSM8K, timeout=10)
        except (OSError, ValueError, httpx.HTTPError) as error:
            note = (
                f"{GSM8K} is not in the cache {_datasets_cache()}, and the hub was not reached "
                f"({type(error).__name__}); go online once, or set data.source to a folder with its train.jsonl"
            )
            return replace(expected, kind="missing", note=note)
    return expected


def _datasets_cache() -> Path:
    """The cache folder of the package ``datasets``, which is not imported for it."""
    from huggingface_hub import constants

    return Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
