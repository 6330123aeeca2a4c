"""Samples of an engine in a file, a line each as they come, so that a killed evaluation does not ask for them again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from irl_core.errors import StoreError
from irl_core.files import escaped, one_line

Kept = tuple[str, bool, tuple[int, ...] | None]  # text, whether it finished, its tokens


class KeptSamples:
    """Samples of one model by key, in a file of JSON lines whose first names the model; a last line that was cut off is
    left out.

    Raises:
        StoreError: the file cannot be read, or holds another model's samples.
    """

    def __init__(self, path: Path, model: str) -> None:
        self.path, self.model = path, model
        self.lock = threading.Lock()
        self.known: dict[str, Kept] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            lines, self.ends_whole = text.splitlines(), text.endswith("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{escaped(path.name)} cannot be read ({type(error).__name__}); remove it") from None
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                self.check(str(record.get("model")))
            elif isinstance(record, list) and len(record) == 4:
                key, text, finished, ids = record
                self.known[str(key)] = (str(text), bool(finished), None if ids is None else tuple(ids))

    def check(self, model: str) -> None:
        """Raise StoreError where the samples are of another model."""
        if model != self.model:
            raise StoreError(
                f"{escaped(self.path.name)} holds samples of the engine's model {one_line(model)[:80]!r}, and this one "
                f"has {one_line(self.model)[:80]!r}; name another --out, or start again with --no-resume"
            )

    def get(self, key: str) -> Kept | None:
        """The sample of a key, None where there is none."""
        return self.known.get(key)

    def add(self, key: str, sample: Kept) -> None:
        """Keep a sample. Raises StoreError where it cannot be written."""
        with self.lock:
            self.known[key] = sample
            try:
                fresh = not self.path.exists()
                with self.path.open("a", encoding="utf-8") as file:
                    if fresh:
                        file.write(json.dumps({"model": self.model}) + "\n")
                    elif not self.ends_whole:
                        file.write("\n")
                    self.ends_whole = True
                    file.write(json.dumps([key, *sample]) + "\n")
            except OSError as error:
                raise StoreError(
                    f"{escaped(self.path.name)} cannot be written ({error.strerror}); free space, and run it again"
                ) from None
