"""Samples of Inspect AI's logs, ``.eval`` and JSON, read by the library's own reader (extra ``inspect``)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irl_core.errors import DatasetError

MOST_BYTES = 2_000_000_000  # of a log, unpacked
FIELDS = {"id", "epoch", "input", "target", "output", "scores", "error"}
PASSED_OVER = {"events", "store", "attachments", "messages", "timelines"}


def is_log(path: Path) -> bool:
    """Whether a zip archive holds an Inspect AI log."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return any(name in ("header.json", "_journal/start.json") for name in names)


def inspect_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The samples of a log, numbered from 1, each with the fields that a trace needs.

    Raises:
        DatasetError: inspect-ai is not installed, or its reader refuses the log, or it unpacks to too much.
    """
    try:
        from inspect_ai.log import read_eval_log, read_eval_log_samples
    except ImportError as error:
        raise DatasetError(
            f"{path.name} is a log of Inspect AI, which its own reader reads: pip install inspect-ai (the extra "
            "'inspect'), or write its samples out as JSONL"
        ) from error
    zipped = zipfile.is_zipfile(path)
    kind, place = ("eval" if zipped else "json"), str(path.resolve())
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        else:
            size = path.stat().st_size
        if size > MOST_BYTES:
            raise DatasetError(f"{path.name} unpacks to {size:,} bytes; the limit is {MOST_BYTES:,}: split the log")
        if zipped:  # a sample at a time
            samples: Iterator[Any] = read_eval_log_samples(
                place, all_samples_required=False, format="eval", exclude_fields=PASSED_OVER
            )
        else:
            samples = iter(read_eval_log(place, format="json").samples or [])
        for number, sample in enumerate(samples, 1):
            yield number, sample.model_dump(mode="json", include=FIELDS)
    except DatasetError:
        raise
    except Exception as error:  # whatever another library's reader raises at a damaged log
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DatasetError(f"{path.name} cannot be read as a log of Inspect AI ({kind}: {reason})") from error
