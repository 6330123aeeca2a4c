"""``docs/results.md``: evaluations and studies in one document, written by a command and never by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irl_core.checkpoints.load import load_json
from irl_core.errors import ConfigError
from irl_core.files import write_whole
from irl_core.report.files import draw
from irl_core.report.markdown import origin, summary
from irl_core.report.tables import escaped
from train.evaluate.settings import RECORD

STUDY = "study.md"
HEAD = """# Results

Written by `irl-lens report DIR ... --results FILE` from the folders of evaluations and studies, not by hand: the
commands, data, seed, date and machine of each stand above its figures. Brackets hold 95 % intervals, over problems
where nothing else is said, and n counts what a figure is of. `docs/evaluation.md` says how to read them, and
`docs/studies.md` what every study found.
"""


def write_results(paths: Sequence[Path], out: Path, *, seed: int = 0) -> Path:
    """Write one document of evaluations and studies, each under the name of its folder; returns its path.

    Raises:
        ConfigError: two folders of the same name. StoreError: a folder that holds neither run nor study.
    """
    names = [path.resolve().stem for path in paths]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise ConfigError(f"two of the runs are called {twice}; a result stands under its folder's name")
    parts = [HEAD]
    for path in paths:
        if (path / STUDY).is_file():  # its headings one level further down
            text = (path / STUDY).read_text(encoding="utf-8")
            parts.append("\n".join(f"#{line}" if line.startswith("#") else line for line in text.splitlines()) + "\n")
        else:
            parts.append(_evaluation(path, seed))
    write_whole(out, "\n".join(parts))
    return out


def _evaluation(path: Path, seed: int) -> str:
    report = draw(path, seed=seed).report
    lines = list(origin(report.provenance))
    record = path / RECORD
    if record.is_file() and (seconds := load_json(record).get("seconds")):
        lines.append(f"took {seconds / 60:.1f} minutes, as busy as the machine was")
    head = [f"## {escaped(path.resolve().stem)}\n", f"    {command(report.provenance)}\n"]
    return "\n".join([*head, *(f"- {escaped(line)}" for line in lines), "", summary(report, 3)])


def command(provenance: Mapping[str, Any]) -> str:
    """The command that makes such an evaluation; data and checkpoints by their names."""
    known = dict(provenance)
    if known.get("command") != "irl-lens evaluate":
        return f"{known.get('command', 'irl-lens score')} {known.get('input', '')}".strip()
    parts = ["irl-lens evaluate", f"--checkpoint {known['checkpoint']}", f"--data {known['input']}"]
    if "samples" in known:
        parts += [f"--problems {known['problems']}", f"--samples {known['samples']}"]
    parts += [f"--compare {name}=CHECKPOINT" for name in known.get("compare", {})]
    line = " ".join([*parts, f"--seed {known['seed']}", "--out DIR"])
    return "".join(c if c.isprintable() else "?" for c in line)
