"""``irl-lens calibrate``: the localisation rule and its limits from what people said, into a new checkpoint folder.

Runs no model: the rewards are those of the scored run. The figures are cross-fitted: the annotated problems fall into
``FOLDS`` parts, and each trace is judged by a calibration that saw no trace of its part. The calibration that is
written saw all of them, so its figures are estimated, not measured on the same traces.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from irl_core.checkpoints.manifest import CONFIG, MANIFEST, verify
from irl_core.checkpoints.save import load_json, save_checkpoint
from irl_core.data.annotations import Annotation, Annotations, from_jsonl, latest, text_hash
from irl_core.errors import AnnotationError, InputError
from irl_core.reward.calibration import HeldOut, calibrate, candidate_rules
from irl_core.reward.localisation import Calibration, locate
from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals
from irl_core.statistics.bootstrap import Figure
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED, FirstError, first_error
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_batches, read_provenance

FOLDS: Final = 5
SIGNALS: Final = ("raw", "credit", "discounted")
MIN_PROBLEMS: Final = 20
MIN_WRONG: Final = 20
MIN_CORRECT: Final = 30  # 9 correct traces carry a limit of 10 %; a fold's half of the problems holds about 12 of 30
WEIGHTS_OF: Final = "weights_of"  # in a checkpoint's provenance: the sha256 of the one that it is a copy of


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked for. ``checkpoint``: its folder. ``seen``: annotations that were given after the
    model's answer was shown count as well."""

    annotations: Path
    run: Path
    checkpoint: Path
    out: Path
    seen: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """What people agree on: the first wrong step by text_sha256 (None = none is wrong), and what was left out, by why.
    ``people`` counts the annotators."""

    steps: dict[str, int | None]
    left_out: dict[str, int]
    people: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """The calibration on all labelled traces, and the cross-fitted figures: its own, and those of the calibration that
    the checkpoint had before, on the same traces."""

    calibration: Calibration
    figures: FirstError
    before: FirstError
    traces: int
    problems: int


def calibrate_from(wish: Wish) -> Iterator[str]:
    """Write the checkpoint; yields what was done and how good it is, a line each.

    Raises:
        InputError: annotations that cannot be read, are too few, or belong to another run or checkpoint.
        CheckpointError, StoreError: the checkpoint or the run cannot be read, or the new one not be written.
    """
    _check_place(wish)
    manifest = verify(wish.checkpoint)
    config = load_json(wish.checkpoint / CONFIG)
    _check_same_checkpoint(wish, config)
    labels = agreed_labels(_read(wish.annotations), seen=wish.seen)
    traces, lost = labelled_traces(wish.run, labels)
    _check_enough(traces)
    fitted = fit(traces, Calibration.from_json(config["localisation"]), seed=wish.seed)
    yield from _words(labels, lost, fitted)
    files: dict[str, Any] = {name: wish.checkpoint / name for name in manifest.files}
    save_checkpoint(wish.out, {**files, CONFIG: _new_config(wish, config, labels, fitted)})
    yield f"Wrote {wish.out}; {wish.checkpoint.name} is as it was."


def _check_place(wish: Wish) -> None:
    if wish.out.exists():
        raise InputError(f"{wish.out} is there already; name a new folder, since no checkpoint is changed.")


def _fingerprint(checkpoint: Path) -> str:
    return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()


def _check_same_checkpoint(wish: Wish, config: Mapping[str, Any]) -> None:
    """The rewards of the run must be those that the checkpoint gives."""
    scored_by = read_provenance(wish.run).get("checkpoint_sha256")
    if scored_by not in (_fingerprint(wish.checkpoint), config.get("provenance", {}).get(WEIGHTS_OF)):
        raise InputError(
            f"{wish.run.name} was not scored by the checkpoint {wish.checkpoint.name}, so its rewards say nothing of "
            "that one's limits; score its traces with it, or name the checkpoint that the run names."
        )
    if "localisation" not in config:
        raise InputError(f"{wish.checkpoint.name} has no discriminator that is calibrated; name a trained pair.")


# -------------------------------------------------------------------------------------------------------- labels


def _read(path: Path) -> list[Annotation]:
    if not path.is_file():
        raise InputError(f"{path} is not there; export the annotations from the Failures page.")
    try:
        if path.suffix == ".sqlite":
            return Annotations(path).all()
        return from_jsonl(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text; give a JSONL export or an annotations.sqlite.") from None
    except (AnnotationError, OSError) as error:
        raise InputError(f"{path.name}: {error}") from error


def agreed_labels(annotations: Sequence[Annotation], *, seen: bool = False) -> Labels:
    """One label a text: of each annotator the newest word, of several annotators the one that most of those who were
    sure gave. Ties are left out, and so are words that were not blind, unless ``seen``."""
    newest = list(latest(annotations).values())
    counted = [one for one in newest if one.blind or seen]
    left_out: Counter[str] = Counter()
    left_out["not blind"] = len(newest) - len(counted)
    by_text: dict[str, list[Annotation]] = {}
    for one in counted:
        by_text.setdefault(one.text_sha256, []).append(one)
    steps: dict[str, int | None] = {}
    for key, words in by_text.items():
        votes = Counter(one.step for one in words if one.verdict != "unsure").most_common(2)
        if not votes:
            left_out["unsure"] += 1
        elif len(votes) == 2 and votes[0][1] == votes[1][1]:
            left_out["annotators disagree"] += 1
        else:
            steps[key] = votes[0][0]
    return Labels(steps, {why: n for why, n in left_out.items() if n}, len({one.annotator for one in counted}))


def labelled_traces(run: Path, labels: Labels) -> tuple[list[HeldOut], dict[str, int]]:
    """The traces of a run that have a label, a text once, and how many labels found none, by why."""
    found: dict[str, HeldOut | None] = {}
    for row in _wanted_rows(run, labels):
        key = text_hash(row["problem"], row["text"])
        step = labels.steps[key]
        usable = row["prompt_reward"] is not None and (step is None or step < len(row["steps"]))
        found[key] = _held_out(row, step) if usable else None
    lost = {
        "not in this run": len(labels.steps.keys() - found.keys()),
        "without rewards, or a step that the trace does not have": sum(one is None for one in found.values()),
    }
    return [one for one in found.values() if one is not None], {why: n for why, n in lost.items() if n}


def _wanted_rows(run: Path, labels: Labels) -> Iterator[ScoredRow]:
    """The first row of each labelled text. Tokens are read of these alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first: dict[str, str] = {}
    for table in read_batches(run, ["trace_id", "problem", "text"]):
        for row in table.to_pylist():
            key = text_hash(row["problem"], row["text"])
            if key in labels.steps:
                first.setdefault(key, row["trace_id"])
    chosen = pc.field("trace_id").isin(pa.array(sorted(first.values()), pa.string()))
    for table in read_batches(run, None, chosen):
        yield from table.to_pylist()


def _held_out(row: ScoredRow, step: int | None) -> HeldOut:
    scored = scored_of(row)
    problem = row["problem_id"] or row["trace_id"]
    return HeldOut(named_signals(scored, DEFAULT_GAMMA), scored.encoded.spans, scored.trace.steps, step, problem)


def _check_enough(traces: Sequence[HeldOut]) -> None:
    wrong = sum(one.first_error_step is not None for one in traces)
    counts = (
        ("problems", len({one.problem_id for one in traces}), MIN_PROBLEMS),
        ("wrong traces", wrong, MIN_WRONG),
        ("traces without an error", len(traces) - wrong, MIN_CORRECT),
    )
    short = [f"{needed} {what}, there are {there}" for what, there, needed in counts if there < needed]
    if short:
        raise InputError(f"Too few annotations to choose a rule and a limit: needed are {'; '.join(short)}.")


# ----------------------------------------------------------------------------------------------------------- fit


def fit(traces: Sequence[HeldOut], before: Calibration, *, seed: int = 0) -> Fitted:
    """Calibrate on all traces; judge each by a calibration of the other parts of the problems. The judgement of
    ``before`` is on the same traces."""
    rules = candidate_rules(SIGNALS)
    ordered = list(traces)
    problems = sorted({one.problem_id for one in ordered})
    random.Random(seed).shuffle(problems)
    part = {problem: number % FOLDS for number, problem in enumerate(problems)}
    predicted: list[int] = [UNDECIDED] * len(ordered)
    for fold in range(FOLDS):
        others = [one for one in ordered if part[one.problem_id] != fold]
        found = calibrate(others, rules, gamma=DEFAULT_GAMMA, seed=seed)
        for place, one in enumerate(ordered):
            if part[one.problem_id] == fold:
                predicted[place] = _predicted(one, found)
    whole = calibrate(ordered, rules, gamma=DEFAULT_GAMMA, seed=seed)
    old = [_predicted(one, before) for one in ordered]
    return Fitted(whole, _judged(ordered, predicted, seed), _judged(ordered, old, seed), len(ordered), len(problems))


def _predicted(one: HeldOut, found: Calibration) -> int:
    where = locate(one.signals, one.spans, one.steps, found)
    if where.decision == "error" and where.first_error_step is not None:
        return where.first_error_step
    return NO_ERROR if where.decision == "no_error" else UNDECIDED


def _judged(traces: Sequence[HeldOut], predicted: Sequence[int], seed: int) -> FirstError:
    true = [NO_ERROR if one.first_error_step is None else one.first_error_step for one in traces]
    return first_error(true, predicted, [one.problem_id for one in traces], seed=seed)


# -------------------------------------------------------------------------------------------------------- result


def _new_config(wish: Wish, config: Mapping[str, Any], labels: Labels, fitted: Fitted) -> dict[str, Any]:
    origin = f"{fitted.traces:,} annotated traces of {fitted.problems:,} problems, by {labels.people} annotators"
    note = "; ".join(part for part in (fitted.calibration.note, f"rule and limits from {origin}") if part)
    known = dict(config.get("provenance", {}))
    made = {
        WEIGHTS_OF: known.get(WEIGHTS_OF, _fingerprint(wish.checkpoint)),
        "calibrated_on": origin,
        "calibrated": datetime.now(UTC).date().isoformat(),
        "annotations_sha256": hashlib.sha256(wish.annotations.read_bytes()).hexdigest(),
        "calibration_f1": fitted.figures.f1.to_json(),
    }
    localisation = replace(fitted.calibration, note=note).to_json()
    return {**config, "name": wish.out.name, "provenance": {**known, **made}, "localisation": localisation}


def _words(labels: Labels, lost: Mapping[str, int], fitted: Fitted) -> Iterator[str]:
    yield f"{fitted.traces:,} labelled traces of {fitted.problems:,} problems, by {labels.people} annotators."
    for why, n in {**labels.left_out, **lost}.items():
        yield f"Left out, {why}: {n:,}"
    found = fitted.calibration
    share = f"at most {found.alpha:.0%} of correct traces flagged"
    yield f"Rule {found.rule.name}, threshold {found.threshold:.4g} ({share})"
    if found.note:
        yield found.note
    yield f"Held out, {FOLDS}-fold by problem: {_figures(fitted.figures)}"
    yield f"The checkpoint's calibration before, same traces: {_figures(fitted.before)}"


def _figures(judged: FirstError) -> str:
    rows: tuple[tuple[str, Figure], ...] = (
        ("F1", judged.f1), ("error_acc", judged.error_acc), ("correct_acc", judged.correct_acc)
    )  # fmt: skip
    return ", ".join(f"{name} {figure}" for name, figure in rows)
