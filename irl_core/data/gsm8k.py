"""GSM8K from a folder or from the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from irl_core.data.fields import RowError
from irl_core.data.formats import read, read_gsm8k, traces_of
from irl_core.errors import DatasetError
from irl_core.types import Trace


def gsm8k(split: Literal["train", "test"], folder: Path | None = None) -> Iterator[Trace | RowError]:
    """GSM8K's expert traces: from ``folder`` (train.jsonl, test.jsonl), else from the hub (``openai/gsm8k``, main).

    Raises DatasetError that names the folder or cache looked in, and how to give a local one.
    """
    if folder is not None:
        if not (folder / f"{split}.jsonl").is_file():
            raise DatasetError(f"GSM8K: no {split}.jsonl in the folder {str(folder)!r}; put it there, or name another")
        return read(folder / f"{split}.jsonl", "gsm8k")
    rows = ((number, dict(row)) for number, row in enumerate(_from_hub(split), 1))
    return traces_of(f"openai/gsm8k/{split}", rows, read_gsm8k)


def _from_hub(split: str) -> Iterable[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise DatasetError("GSM8K from the hub needs the package datasets: pip install datasets") from error
    try:
        return cast(Iterable[Mapping[str, Any]], datasets.load_dataset("openai/gsm8k", "main", split=split))
    except Exception as error:
        cache = datasets.config.HF_DATASETS_CACHE
        raise DatasetError(
            f"GSM8K is neither to be had from the hub ({type(error).__name__}) nor in the cache {str(cache)!r}; "
            "go online once, or give a folder with train.jsonl and test.jsonl (evaluate: --data FOLDER; train: "
            "data.source=FOLDER)"
        ) from error
