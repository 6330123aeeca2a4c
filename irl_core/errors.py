"""Errors that a user can fix. The message names the value, the limit and the fix, and is shown as it is."""

from __future__ import annotations


class UserError(Exception):
    """The parent of every error that a user can fix: command line and pages show its message, never a traceback."""


class InputError(UserError, ValueError):
    """A text or a number that a user typed and that cannot be used."""


class ConfigError(UserError):
    """A configuration that cannot be used; the message names the key, the value and the fix."""


class UnknownShape(ConfigError):
    """A model of a kind whose layer shapes are not known here."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be saved, found or trusted; the message names the file and the fix."""


class StoreError(UserError, ValueError):
    """A scored run that cannot be read or written as asked; the message names the file and the fix."""


class DatasetError(UserError, ValueError):
    """A file or data set that cannot be read at all; the message says what was looked for and the fix."""


class UnknownFormatError(DatasetError):
    """A data set of no known format.

    Args:
        name: its name.
        seen: what its first rows hold.
    """

    def __init__(self, name: str, seen: str) -> None:
        super().__init__(
            f"{name}: the format is not recognised ({seen}); question and solution are expected, or --map "
            "question=COLUMN and --map solution=COLUMN"
        )
        self.seen = seen


class AnnotationError(UserError, ValueError):
    """An annotation, or a file of them, that cannot be read or written."""


class EncodingError(UserError, ValueError):
    """A text or a tokenizer that cannot be encoded; the message says why and what to do."""


class EngineError(UserError, RuntimeError):
    """A serving engine that is not there, is gone, or refuses; the message names its address and the fix."""


class ProcessLost(UserError, RuntimeError):
    """Another process of a data-parallel training failed or is gone; the message says which, and why where known."""
