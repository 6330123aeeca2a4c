"""Published figures, each with its source, from ``published.yaml``.

They are shown apart from measured figures and marked as cited: other models, other problems, another budget. What could
not be seen is named in ``NOT_FOUND`` and not given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from irl_core.evaluation.section import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Cited(Table):
    """A published table; its cells are as published, an interval is the source's own.

    Attributes:
        beside: the section of the report that it may stand beside.
        source: who published it. address: where. place: which table or figure.
        seen: the address of what was read.
    """

    beside: str
    source: str
    address: str
    place: str
    seen: str


_FIGURES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
PAPER: str = _FIGURES["paper"]
NOT_FOUND: tuple[str, ...] = tuple(_FIGURES["not_found"])
TABLES = tuple(Cited(**table | {"rows": tuple(map(tuple, table["rows"]))}) for table in _FIGURES["tables"])


def beside(section: str) -> list[Cited]:
    """The published tables that may stand beside a section of the report."""
    return [table for table in TABLES if table.beside == section]
