"""Parts of long work, kept as they are made: what a killed process has finished is not made again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irl_core.files import write_whole


@dataclass(frozen=True, slots=True)
class KeptParts:
    """A folder of parts, a JSON file each.

    Attributes:
        folder: where they lie; None keeps nothing.
        work: what the parts are made from, such as a hash of weights and settings. A part of other work is made anew.
    """

    folder: Path | None = None
    work: str = ""

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value with this name: the kept one, else what ``make`` returns, which is then kept.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self.folder is None:
            return make()
        path = self.folder / f"{name}.json"
        kept = self._kept(path)
        if kept is not None:
            return kept["value"]
        value = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"work": self.work, "value": value}))
        return value

    def has(self, name: str) -> bool:
        """Whether the part is kept."""
        return self.folder is not None and self._kept(self.folder / f"{name}.json") is not None

    def _kept(self, path: Path) -> dict[str, Any] | None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not there, or not ours: it is made anew
            return None
        if isinstance(document, dict) and document.get("work") == self.work and "value" in document:
            return document
        return None

    def remove(self) -> None:
        """Remove the folder with its parts."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
