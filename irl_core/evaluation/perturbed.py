"""Token-level figures of perturbed traces: AUC of the first changed token, and the most suspect token of the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from irl_core.evaluation.located_traces import Locator, signals_of
from irl_core.reward.localisation import token_steps
from irl_core.statistics.bootstrap import Estimate, problem_index, share, undefined
from irl_core.statistics.ranks import ranks
from irl_core.statistics.separation import auc
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import COLUMNS, ScoredRow
from irl_core.storage.scored_run import read_batches
from irl_core.text.equations import Equation, read_equations, shown_after
from irl_core.types import ScoredTrace, Span

Array = npt.NDArray[np.float64]

ALL = "all"
PARTS = ("operand", "operator", "result", "wording")


@dataclass(frozen=True, slots=True)
class TokenAuc:
    """AUC of a low signal for a changed token.

    Attributes:
        since: the first changed token and all after it against those before it, within a trace, then averaged.
        at: the first changed token alone against those before it, likewise.
        pooled: ``since`` over the tokens of all traces.
    """

    since: Estimate = field(metadata={"key": "from"})
    at: Estimate
    pooled: Estimate


@dataclass(frozen=True, slots=True)
class WithinStep:
    """Where in the wrong step the most suspect token lies.

    Attributes:
        left_out: traces whose first changed token is not in the wrong step, or whose step has no signal.
        parts: counts by the part (``PARTS``) of the first changed token and that of the most suspect one.
        token_exact: the most suspect token is the first changed one. random_token: a random token of the step is.
        same_part: it stands in the same part of the equation. first_equation: in the first equation of the step.
        distance: from the first changed token, in tokens.
    """

    left_out: int
    parts: dict[str, dict[str, int]]
    token_exact: Estimate
    random_token: Estimate
    same_part: Estimate
    first_equation: Estimate
    distance: Estimate


@dataclass(frozen=True, slots=True)
class Tokens:
    """``token_auc`` by kind of perturbation and signal; ``signal`` is the rule's."""

    signal: str
    token_auc: dict[str, dict[str, TokenAuc]]
    within_step: WithinStep


def figures(path: Path, locator: Locator, *, seed: int = 0) -> Tokens:
    """The tokens of the perturbed traces in a file; those whose first changed token is not known are left out."""
    names = tuple(dict.fromkeys((locator.rule.signal, "raw", "credit", "logprob")))
    rows = (row for table in read_batches(path, COLUMNS.names) for row in table.to_pylist())
    known = (row for row in rows if row["prompt_reward"] is not None and row["perturbed_from_token"] is not None)
    frame = pd.DataFrame([_row(row, names, locator) for row in known])
    kinds = [ALL, *sorted(set(frame["kind"]))] if len(frame) else []
    areas: dict[str, dict[str, TokenAuc]] = {ALL: {}}
    areas |= {kind: _areas(frame, kind, names, seed) for kind in kinds}
    return Tokens(locator.rule.signal, areas, _within_step(frame, seed))


def _row(row: ScoredRow, names: tuple[str, ...], locator: Locator) -> dict[str, Any]:
    scored, start = scored_of(row), row["perturbed_from_token"]
    assert start is not None
    signals = {name: np.asarray(values, dtype=np.float64) for name, values in signals_of(scored, locator).items()}
    cells: dict[str, Any] = {"problem_id": row["problem_id"], "kind": row["perturbed_kind"] or "unknown"}
    cells["start"] = start
    for name in names:
        values = cells[name] = signals[name]
        cells[f"from:{name}"] = _area(values[start:], values[:start])
        cells[f"at:{name}"] = _area(values[start : start + 1], values[:start])
    return cells | _suspect(row, scored, signals[locator.rule.signal])


def _area(changed: Array, before: Array) -> float:
    """The chance that a changed token's signal is below that of one before it, ties half; NaN without one of each."""
    if not changed.size or not before.size:
        return float("nan")
    placed = ranks(np.concatenate([-changed, -before]))
    lead = placed[: changed.size].sum() - changed.size * (changed.size + 1) / 2
    return float(lead / (changed.size * before.size))


def _areas(frame: pd.DataFrame, kind: str, names: tuple[str, ...], seed: int) -> dict[str, TokenAuc]:
    part = frame if kind == ALL else frame[frame["kind"] == kind]
    lengths = part[names[0]].map(len).to_numpy()
    changed = np.concatenate(
        [np.arange(n) >= start for n, start in zip(lengths, part["start"], strict=True)]  # True from that token on
    )
    ids = np.repeat(problem_index(list(part["problem_id"]))[1], lengths)
    return {
        name: TokenAuc(
            _mean(part, f"from:{name}", seed),
            _mean(part, f"at:{name}", seed),
            auc(-np.concatenate(list(part[name])), changed, ids),
        )
        for name in names
    }


def _mean(frame: pd.DataFrame, column: str, seed: int, unit: str = "corrupted solutions") -> Estimate:
    known = frame[frame[column].notna()] if len(frame) else frame
    if not len(known):
        return undefined(0, unit, f"no {unit} with tokens on both sides" if ":" in column else f"no {unit}")
    return share(known[column].to_numpy(dtype=np.float64), known["problem_id"].to_numpy(), unit=unit, seed=seed)


# ------------------------------------------------------------------------------------------------ within the step


def _suspect(row: Mapping[str, Any], scored: ScoredTrace, values: Array) -> dict[str, Any]:
    """The most suspect token of the wrong step beside the first changed one: equality, distance, parts of the equation.
    NaN and None where the changed token is not in the wrong step, or the step has no signal."""
    trace, start, step = scored.trace, row["perturbed_from_token"], row["true_first_error_step"]
    inside = np.flatnonzero(token_steps(scored.encoded.spans, trace.steps) == (-2 if step is None else step))
    nothing = {"token_exact": np.nan, "random_token": np.nan, "away": np.nan, "same_part": np.nan}
    if start not in inside or not np.isfinite(values[inside]).all() or np.ptp(values[inside]) == 0:
        return {**nothing, "part": None, "suspect_part": None, "first_equation": np.nan}
    suspect = int(inside[np.argmin(values[inside])])
    equations = read_equations(trace.text)
    parts = [part_of(trace.text, scored.encoded.spans[token], equations) for token in (start, suspect)]
    return {
        "token_exact": float(suspect == start),
        "random_token": 1 / len(inside),
        "away": float(suspect - start),
        "same_part": float(parts[0] == parts[1]),
        "part": parts[0],
        "suspect_part": parts[1],
        "first_equation": _in_first(trace.steps[step], scored.encoded.spans[suspect], equations),
    }


def part_of(text: str, span: Span, equations: Sequence[Equation]) -> str:
    """Of ``PARTS``, where the first visible character of a token stands."""
    place = next((at for at in range(*span) if not text[at].isspace()), span[0])
    for equation in sorted(equations, key=lambda one: one.end - one.start):
        if _within(place, equation.right) or (equation.noted and _within(place, shown_after(text, equation))):
            return "result"
        if _within(place, equation.left):
            return "operand" if text[place].isdigit() or text[place] in ".," else "operator"
        if equation.start <= place < equation.end:
            return "operator"
    return "wording"


def _within(place: int, span: Span | None) -> bool:
    return span is not None and span[0] <= place < span[1]


def _in_first(step: Any, span: Span, equations: Sequence[Equation]) -> float:
    """Whether a token lies in the first equation of its step, written and annotated; NaN where there is none."""
    mine = [one for one in equations if step.start <= one.start < step.end]
    if not mine:
        return float("nan")
    end = mine[0].end
    for before, after in pairwise(mine):  # the annotation of the same sum goes with it
        if not (after.start < end or (before.value, before.stated) == (after.value, after.stated)):
            break
        end = max(end, after.end)
    return float(mine[0].start <= span[0] < end)


def _within_step(frame: pd.DataFrame, seed: int) -> WithinStep:
    known = frame[frame["part"].notna()] if len(frame) else frame
    counts = {
        part: {other: int(((known["part"] == part) & (known["suspect_part"] == other)).sum()) for other in PARTS}
        for part in (PARTS if len(known) else ())
    }
    shares = {name: _mean(known, name, seed) for name in ("token_exact", "random_token", "same_part", "first_equation")}
    away = known["away"].abs().to_numpy(dtype=np.float64) if len(known) else np.zeros(0)
    ids = known["problem_id"].to_numpy() if len(known) else ()
    distance = share(away, ids, unit="corrupted solutions, tokens", bounded=False, seed=seed)
    return WithinStep(left_out=len(frame) - len(known), parts=counts, **shares, distance=distance)
