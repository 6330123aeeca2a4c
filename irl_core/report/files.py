"""The files of a report, ``report.json``, ``report.md`` and ``report.html``, from an evaluation on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from irl_core.errors import StoreError
from irl_core.evaluation.evaluated_run import EvaluatedRun, load
from irl_core.evaluation.report import Report, make, to_text
from irl_core.files import write_whole
from irl_core.report.html import to_html
from irl_core.report.markdown import to_markdown

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"


@dataclass(frozen=True, slots=True)
class Drawn:
    """An evaluation with its report."""

    run: EvaluatedRun
    report: Report


def draw(
    path: Path,
    *,
    seed: int = 0,
    answer_lines: bool | None = None,
    on_section: Callable[[str], None] = lambda name: None,
) -> Drawn:
    """Make the report of an evaluation's folder, or of a scored run's file. Raises StoreError."""
    run = load(path)
    return Drawn(run, make(run, seed=seed, answer_lines=answer_lines, on_section=on_section))


def write(drawn: Drawn, out: Path) -> list[Path]:
    """Write the files into a folder, each whole or not at all; returns them. Raises CheckpointError."""
    texts = {
        JSON: to_text(drawn.report), MARKDOWN: to_markdown(drawn.report), HTML: to_html(drawn.run, drawn.report),
    }  # fmt: skip
    for name, text in texts.items():
        write_whole(out / name, text)
    return [out / name for name in texts]


def make_folder(path: Path) -> Path:
    """Make a folder where it is not there. Raises StoreError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be made ({error.strerror}); name another --out") from error
    return path
