"""Location of a pretrained model's files: a folder, the hub's cache or the hub; and which files are refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import PICKLE_SUFFIXES, check_config
from irl_core.errors import CheckpointError
from irl_core.models import gguf
from irl_core.models.bases import BASES, folder_of
from irl_core.models.sizes import check_sizes
from irl_core.validation import nearest

ADAPTER_CONFIG = "adapter_config.json"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
SNAPSHOT_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt")
# Keys of a model's config.json that would fetch kernels, or quantise otherwise than asked.
REFUSED_KEYS = (
    "quantization_config", "attn_implementation", "_attn_implementation", "experts_implementation", "kernel_config",
    "transformers_weights",
)  # fmt: skip
KNOWN_MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-1B-Instruct",
    "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct", "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-Math-1.5B-Instruct",
)  # fmt: skip


def is_hub_name(name: str) -> bool:
    """Whether a text has the form ``organisation/model``."""
    return bool(HUB_NAME.fullmatch(name)) and ".." not in name and "--" not in name


def shown(value: Any) -> str:
    """An outside value as text, short enough for an error message."""
    return repr(value)[:80]


def locate(name: str, revision: str | None = None) -> Path:
    """The folder of a model's files: ``name`` itself, what a GGUF file was converted to, or the snapshot of a model on
    the hub.

    A GGUF is a local file, or ``organisation/model:file.gguf`` of the hub. Of any other model on the hub only
    safetensors, JSON and text are downloaded.

    Raises:
        CheckpointError: no such folder or model, the hub cannot be reached, or the files are not safe to load.
    """
    if Path(name).is_dir():
        check_weights(Path(name), local=True)
        return Path(name)
    if name in BASES:
        return folder_of(name)
    if gguf.is_file_name(name) or gguf.split_name(name):
        path = gguf_file(name, revision)
        with gguf.shown_progress(path.name) as on_progress:
            return gguf.converted(path, on_progress)
    if not is_hub_name(name):
        raise CheckpointError(
            f"{shown(name)} is no folder that is there, nor a name on the hub such as {KNOWN_MODELS[-2]}"
        )
    folder = _snapshot(name, revision)
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{name} has no weights in safetensors in {folder}; run 'hf download {name}'")
    check_weights(folder, local=False)
    return folder


def gguf_file(name: str, revision: str | None = None) -> Path:
    """The GGUF file of a name: a local one, or one of the hub, downloaded where it is not in the cache.

    Raises:
        CheckpointError: there is no such file, or the hub was not reached.
    """
    import httpx
    from huggingface_hub import hf_hub_download

    named = gguf.split_name(name)
    if named is None:
        if not Path(name).is_file():
            raise CheckpointError(f"{shown(name)} is no file that is there")
        return Path(name)
    for cached in (False, True):
        try:
            return Path(hf_hub_download(*named, revision=revision, local_files_only=cached))
        except (OSError, ValueError, httpx.HTTPError) as error:
            if cached or not _unreached(error):
                raise CheckpointError(explain_hub_error(error, named[0])) from error
    raise AssertionError("the second pass returns or raises")


def _snapshot(name: str, revision: str | None) -> Path:
    """The snapshot from the hub, or from the cache alone where the hub is not reached. Raises CheckpointError."""
    import httpx
    from huggingface_hub import snapshot_download

    for cached in (False, True):
        try:
            return Path(
                snapshot_download(
                    name, revision=revision, local_files_only=cached, allow_patterns=list(SNAPSHOT_FILES),
                    ignore_patterns=["*/*"],
                )
            )  # fmt: skip
        except (OSError, ValueError, httpx.HTTPError) as error:
            if cached or not _unreached(error):
                raise CheckpointError(explain_hub_error(error, name)) from error
    raise AssertionError("the second pass returns or raises")


def _unreached(error: BaseException) -> bool:
    """Whether the error means that there was no connection, rather than a refusal by the hub."""
    import httpx
    from huggingface_hub import errors

    kinds = (errors.LocalEntryNotFoundError, ConnectionError, httpx.TransportError, TimeoutError)
    return any(isinstance(cause, kinds) for cause in _causes(error))


def pinned(name: str, revision: str | None) -> tuple[str, str | None]:
    """Name and revision that find the same files later: an absolute path, or a snapshot's commit."""
    if name in BASES:
        return name, None
    if Path(name).is_dir() or gguf.is_file_name(name):
        return str(Path(name).resolve()), None
    if gguf.split_name(name):
        commit = gguf_file(name, revision).parent.name
        return name, commit if COMMIT.fullmatch(commit) else revision
    commit = locate(name, revision).name
    return name, commit if COMMIT.fullmatch(commit) else revision


def check_weights(folder: Path, *, local: bool) -> None:
    """Refuse a folder that is not a whole model in safetensors, or whose configuration names code.

    ``local`` folders must not hold pickles either; in the hub's cache other tools may have left some, never read here.

    Raises:
        CheckpointError: with the file and the fix.
    """
    names = sorted(path.name for path in folder.iterdir())
    if ADAPTER_CONFIG in names:
        raise CheckpointError(f"{folder}: holds adapters ({ADAPTER_CONFIG}), not a whole model; name their base")
    pickles = [name for name in names if Path(name).suffix in PICKLE_SUFFIXES]
    if local and pickles:
        raise CheckpointError(f"{folder}: {pickles[0]} is a pickle, which can run code; keep safetensors only")
    if not any(name.endswith(".safetensors") for name in names):
        raise CheckpointError(f"{folder}: no weights in safetensors there; convert or download them")
    if "config.json" not in names:
        raise CheckpointError(f"{folder}: config.json is missing; this is not a whole model")
    for name in names:
        if name.endswith("config.json"):
            check_model_config(name, load_json((folder / name).resolve()))


def check_model_config(name: str, document: Mapping[str, Any]) -> None:
    """Refuse a model's configuration that names code, kernels, a quantiser, or sizes out of bounds. Raises
    CheckpointError."""
    check_config(f"model/{name}", document)  # without "model/" it would be a checkpoint's own config.json
    for key in REFUSED_KEYS:
        if document.get(key) is not None:
            raise CheckpointError(
                f"{name}: the key {key!r} is not loaded; name the plain model, and set model.quantisation"
            )
    check_sizes(name, document)


def explain_hub_error(error: BaseException, name: str) -> str:
    """One line with the reason why a model on the hub was not found, and the fix."""
    from huggingface_hub import constants, errors

    chain = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in chain)

    if caused_by(errors.GatedRepoError):
        return (
            f"{name} is gated: accept its licence on https://huggingface.co/{name}, then log in with 'hf auth login' "
            "(or set HF_TOKEN)"
        )
    if caused_by(errors.RepositoryNotFoundError):
        cached = [path.name[len("models--") :] for path in Path(constants.HF_HUB_CACHE).glob("models--*--*")]
        near = nearest(name, [*KNOWN_MODELS, *(folder.replace("--", "/") for folder in cached)])
        return f"the hub has no model {name!r}{near}. If it is a private one, log in with 'hf auth login' (or HF_TOKEN)"
    if caused_by(errors.RevisionNotFoundError):
        return f"{name} has no such revision; https://huggingface.co/{name}/commits/main lists them"
    if _unreached(error):
        return (
            f"{name} is not (or not whole) in the cache {constants.HF_HUB_CACHE}, and the hub was not reached; where "
            f"there is a connection run 'hf download {name}', or name a local folder"
        )
    reason = str(error).strip().splitlines()
    return f"{name} could not be downloaded ({type(error).__name__}: {reason[0] if reason else 'no reason given'})"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
