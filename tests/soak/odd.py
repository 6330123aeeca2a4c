"""Malformed checkpoints (with right hashes) and malformed rows, drawn by hypothesis from a seed."""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from irl_core.checkpoints.manifest import MANIFEST
from irl_core.files import write_whole
from irl_core.models.gguf import sha256_of
from irl_core.scorer import Lens
from irl_core.storage.scored_run import errors_path, read_run
from irl_core.text.segmentation import make_trace
from tests.soak.figures import Figures
from tests.soak.forked import Ended, fork
from tests.tiny import PROBLEM, SOLUTION
from tests.unit.test_odd_checkpoints import saved
from train.score_file import score_file

MOST_SECONDS, MOST_MEGABYTES = 10, 500  # of processor time, and of memory above what Python and torch take
MOST_WAIT = 1800.0  # seconds, on a machine that has other work
Draw = st.DrawFn
Document = dict[str, Any]

HUGE = (10**5, 10**9, 2**31, 2**63, 2**64, 10**30, -1, 0, 1, 2)
TEMPLATES = (
    "", "{{", "{{ 1/0 }}", "{% for i in range(10**9) %}{% endfor %}", "{{ messages[0]['content'] }}",
    "{{ messages[0]['content'] | upper }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "x" * 10**6,
    "{{ cycler.__init__.__globals__ }}", "{{ raise_exception('no') }}",
)  # fmt: skip
values = st.one_of(
    st.none(), st.booleans(), st.sampled_from(HUGE), st.integers(-10, 10), st.floats(allow_nan=True),
    st.text(max_size=20), st.sampled_from(TEMPLATES), st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2), st.just("\ud800"),
)  # fmt: skip


def places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of a JSON document, of a long list or mapping the first few."""
    found = [at] if at else []
    if isinstance(document, dict | list) and len(at) < 5:
        keys = list(document)[:40] if isinstance(document, dict) else range(min(3, len(document)))
        for key in keys:
            found += places(document[key], (*at, key))
    return found


@st.composite
def changed_json(draw: Draw, document: Document) -> Document:
    """A document with one to three of its values changed, left out or given another name."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(places(changed) or [("new",)]))
        parent = changed
        for key in path:
            parent = parent[key]
        how = draw(st.sampled_from(("change", "change", "remove", "add")))
        if how == "change" or [*path, last] == ["new"]:
            parent[last] = draw(values)
        elif how == "remove":
            parent.pop(last)
        elif isinstance(parent, dict):
            parent[draw(st.sampled_from(("auto_map", "layers", "truncation", "", str(last) + "2")))] = draw(values)
    return changed


@st.composite
def changed_tensors(draw: Draw, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of which one is lost, added, cut, turned, filled with what is no number, or of another kind."""
    changed, name = dict(tensors), draw(st.sampled_from(sorted(tensors)))
    one, how = changed[name], draw(st.sampled_from(("lose", "add", "cut", "flat", "fill", "kind", "name")))
    if how == "lose":
        del changed[name]
    elif how == "add":
        changed[f"{name}.{draw(st.integers(0, 99))}"] = one.clone()
    elif how == "cut":
        changed[name] = one[: len(one) // 2].clone() if one.dim() else one.reshape(1)
    elif how == "flat":
        changed[name] = one.flatten().clone()
    elif how == "fill":
        changed[name] = torch.full_like(one, draw(st.sampled_from((math.nan, math.inf, -math.inf, 1e38, 0.0))))
    elif how == "kind":
        changed[name] = one.to(draw(st.sampled_from((torch.int64, torch.float64, torch.bfloat16, torch.bool))))
    else:
        changed["\x1b[31m" + name] = changed.pop(name)
    return changed


@st.composite
def damage(draw: Draw, folder: Path) -> str:
    """Damage a checkpoint in a folder in one way; returns the file's name. Its manifest is made right again."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    name = draw(st.sampled_from(names))
    path = folder / name
    how = draw(st.sampled_from(("values", "values", "values", "values", "bytes", "cut", "empty", "lose")))
    if how == "values" and name.endswith(".json"):
        write_whole(path, json.dumps(draw(changed_json(json.loads(path.read_text())))), durable=False)
    elif how == "values" and name.endswith(".safetensors"):
        save_file({key: one.contiguous() for key, one in draw(changed_tensors(load_file(path))).items()}, path)
    elif how == "values":
        path.write_text(draw(st.sampled_from(TEMPLATES)))
    elif how == "bytes":
        data = bytearray(path.read_bytes())
        for _ in range(draw(st.integers(1, 8))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        path.write_bytes(bytes(data))
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: draw(st.integers(0, path.stat().st_size - 1))])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    if name != MANIFEST:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = {one: sha256_of(folder / one) for one in manifest["files"] if (folder / one).is_file()}
        write_whole(folder / MANIFEST, json.dumps({**manifest, "files": files}), durable=False)
    return name


def judged(ended: Ended, what: str) -> str:
    """What is wrong with the end of a case; empty where nothing is."""
    if not ended.in_words:
        return f"{what}: status {ended.status}: {ended.said[-600:]}"
    if ended.seconds > MOST_SECONDS or ended.megabytes > MOST_MEGABYTES:
        return f"{what}: {ended.seconds:.1f} s, {ended.megabytes:.0f} MB: {ended.said[-200:]}"
    return ""


def drawn(count: int, number: int, case: Callable[[st.DataObject], None]) -> None:
    """Run ``count`` cases, drawn from the seed ``number``."""
    given_data = given(st.data())(case)
    settled = settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given_data)  # fmt: skip
    seed(number)(settled)()


def odd_checkpoints(count: int, number: int, world: Path) -> Figures:
    """Load malformed checkpoints and score a solution with those that load."""
    figures, whole = Figures("a malformed checkpoint"), saved(world / "checkpoint")
    copied, notes = world / "odd-checkpoint", world / "notes" / "checkpoint"

    def load() -> None:
        lens = Lens.load(copied, "cpu")
        scored = lens.score([make_trace(PROBLEM, SOLUTION)])
        lens.locate(scored[0])
        lens.familiarity(PROBLEM)

    def case(data: st.DataObject) -> None:
        if figures.n >= count:
            return
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(whole, copied)
        name = data.draw(damage(copied))
        ended = fork(load, notes, most_seconds=3 * MOST_SECONDS).wait(MOST_WAIT)
        figures.add("loaded and scored" if ended.status == 0 else "refused", ended, judged(ended, name))

    drawn(count, number, case)
    return figures


ROW: Document = {
    "id": "a", "problem": PROBLEM, "solution": SOLUTION, "answer": "10", "is_correct": True, "label": 1,
    "steps": ["There are 12 pens.", "#### 10"], "question": PROBLEM, "generator": "m",
}  # fmt: skip


@st.composite
def odd_lines(draw: Draw) -> bytes:
    """A line of JSONL with a row that is malformed, or no row at all."""
    how = draw(st.sampled_from(("values", "values", "values", "bytes", "text")))
    kept = draw(st.lists(st.sampled_from(sorted(ROW)), min_size=1, unique=True))
    row = draw(changed_json({key: ROW[key] for key in kept}))
    line = json.dumps(row).encode("utf-8", "surrogatepass")
    if how == "bytes":
        cut = bytearray(line)
        cut[draw(st.integers(0, len(cut) - 1))] = draw(st.integers(0, 255))
        line = bytes(cut)
    elif how == "text":
        line = draw(st.binary(min_size=1, max_size=40))
    return line.replace(b"\n", b" ").replace(b"\r", b" ")


def odd_rows(count: int, number: int, world: Path, lens: Lens) -> Figures:
    """Score files of a malformed row between two good ones: both are scored, the odd one too or named."""
    figures, notes = Figures("a malformed row"), world / "notes" / "row"
    source, out = world / "odd.jsonl", world / "odd.parquet"
    good = json.dumps({"problem": PROBLEM, "solution": SOLUTION}).encode()

    def score() -> None:
        score_file(source, out, lens, layout="auto")

    def case(data: st.DataObject) -> None:
        if figures.n >= count:
            return
        line = data.draw(odd_lines())
        source.write_bytes(b"\n".join((good, line, good)) + b"\n")
        for path in (out, errors_path(out)):
            path.unlink(missing_ok=True)
        ended = fork(score, notes, most_seconds=3 * MOST_SECONDS).wait(MOST_WAIT)
        fault, refused = judged(ended, repr(line[:300])), errors_path(out).exists()
        if not fault and (ended.status or read_run(out).num_rows < 2 or (line.strip() and not accounted(out))):
            fault = f"{line[:300]!r}: {ended.status} {ended.said[-300:]}"
        figures.add("refused and named" if refused else "scored", ended, fault)

    drawn(count, number, case)
    return figures


def accounted(out: Path) -> bool:
    """Whether every row of the three is scored or named."""
    told = errors_path(out)
    return read_run(out).num_rows + (len(told.read_text().splitlines()) if told.exists() else 0) >= 3
