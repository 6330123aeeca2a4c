"""Samples of an engine in a file, a line each as they come, so that a killed evaluation does not ask for them again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from irl_core.errors import StoreError
from irl_core.files import escaped

Kept = tuple[str, bool, tuple[int, ...] | None]  # text, whether it finished, its tokens


class KeptSamples:
    """Samples by key, in a file of JSON lines; a last line that was cut off is left out.

    Raises:
        StoreError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.known: dict[str, Kept] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{escaped(path.name)} cannot be read ({type(error).__name__}); remove it") from None
        for line in lines:
            try:
                key, text, finished, ids = json.loads(line)
            except (ValueError, TypeError):
                continue
            self.known[key] = (text, finished, None if ids is None else tuple(ids))

    def get(self, key: str) -> Kept | None:
        """The sample of a key, None where there is none."""
        return self.known.get(key)

    def add(self, key: str, sample: Kept) -> None:
        """Keep a sample. Raises StoreError where it cannot be written."""
        with self.lock:
            self.known[key] = sample
            try:
                whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(("" if whole else "\n") + json.dumps([key, *sample]) + "\n")
            except OSError as error:
                raise StoreError(
                    f"{escaped(self.path.name)} cannot be written ({error.strerror}); free space, and run it again"
                ) from None
