"""Errors that a user can fix. The message names the value, the limit and the fix, and is shown as it is."""

from __future__ import annotations


class InputError(ValueError):
    """An input that a user can mend: the message names the value, the limit and the mend, and is shown as it is."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be saved, found or trusted. The message names the file and the mend."""


class StoreError(ValueError):
    """A run that cannot be read or written as asked; the message names the file and the mend."""


class DatasetError(ValueError):
    """A file or data set that cannot be read at all. The message says what was looked for and the mend."""
