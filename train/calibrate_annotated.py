"""The localisation rule and its limits from annotations, into a new checkpoint folder (``irl-lens calibrate``).

Runs no model: the rewards are those of the scored run. The figures are cross-fitted: the annotated problems fall into
``FOLDS`` folds, and the first errors of a fold's traces are located by a calibration that saw none of its problems. The
calibration that is written saw all of them, so its figures are estimated, not measured on the same traces.
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

import pyarrow as pa
import pyarrow.compute as pc

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import CONFIG, MANIFEST, verify
from irl_core.checkpoints.save import save_checkpoint
from irl_core.data.annotations import ADJUDICATED, Annotation, Annotations, from_jsonl, latest, text_hash
from irl_core.errors import AnnotationError, InputError
from irl_core.reward.calibration import HeldOut, calibrate, candidate_rules
from irl_core.reward.localisation import Calibration, Signal, locate
from irl_core.reward.token_scores import DEFAULT_GAMMA, named_signals
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED, FirstError, first_error
from irl_core.storage.rows import scored_of
from irl_core.storage.schema import ScoredRow
from irl_core.storage.scored_run import read_batches, read_provenance

FOLDS: Final = 5
SIGNALS: Final[tuple[Signal, ...]] = ("raw", "credit", "discounted")
MIN_PROBLEMS: Final = 20
MIN_WRONG: Final = 20
MIN_CORRECT: Final = 30  # 9 correct traces carry a limit of 10 %; a fold's half of the problems holds about 12 of 30
WEIGHTS_OF: Final = "weights_of"  # in a checkpoint's provenance: the sha256 of the one that it is a copy of


@dataclass(frozen=True, slots=True)
class CalibrationRequest:
    """What the command line asks for. ``checkpoint``: its folder. ``seen``: annotations that were given after the
    model's answer was shown count as well."""

    annotations: Path
    run: Path
    checkpoint: Path
    out: Path
    seen: bool = False
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Labels:
    """The first wrong step that annotators agree on, by text_sha256 (None = none is wrong).

    ``left_out`` counts the texts and annotations without a label, by the reason; ``annotators`` counts people.
    """

    steps: dict[str, int | None]
    left_out: dict[str, int]
    annotators: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """The calibration on all labelled traces, its cross-fitted figures, and those of the checkpoint's calibration
    before on the same traces."""

    calibration: Calibration
    figures: FirstError
    before: FirstError
    traces: int
    problems: int


def calibrate_annotated(request: CalibrationRequest) -> Iterator[str]:
    """Write the new checkpoint; yields what was done and how good it is, a line each.

    Raises:
        InputError: annotations that cannot be read, are too few, or belong to another scored run or checkpoint.
        CheckpointError, StoreError: the checkpoint or the scored run cannot be read, or the new one not be written.
    """
    if request.out.exists():
        raise InputError(f"{request.out} is there already; name a new folder, since no checkpoint is changed.")
    manifest = verify(request.checkpoint)
    config = load_json(request.checkpoint / CONFIG)
    check_same_checkpoint(request, config)
    labels = agreed_labels(read_annotations(request.annotations), seen=request.seen)
    traces, lost = labelled_traces(request.run, labels)
    check_enough(traces)
    fitted = fit(traces, Calibration.from_json(config["localisation"]), seed=request.seed)

    yield f"{fitted.traces:,} labelled solutions of {fitted.problems:,} problems, by {labels.annotators} annotators."
    for reason, n in {**labels.left_out, **lost}.items():
        yield f"Left out, {reason}: {n:,}"
    chosen = fitted.calibration
    share = f"at most {chosen.alpha:.0%} of correct solutions flagged"
    yield f"Rule {chosen.rule.name}, threshold {chosen.threshold:.4g} ({share})"
    if chosen.note:
        yield chosen.note
    yield f"Held out, {FOLDS}-fold by problem: {figures_in_words(fitted.figures)}"
    yield f"The checkpoint's calibration before, same solutions: {figures_in_words(fitted.before)}"

    files: dict[str, Any] = {name: request.checkpoint / name for name in manifest.files}
    save_checkpoint(request.out, {**files, CONFIG: recalibrated_config(request, config, labels, fitted)})
    yield f"Wrote {request.out}; {request.checkpoint.name} is as it was."


def fingerprint(checkpoint: Path) -> str:
    """sha256 of a checkpoint's manifest."""
    return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()


def check_same_checkpoint(request: CalibrationRequest, config: Mapping[str, Any]) -> None:
    """Raise InputError unless the rewards of the scored run are those that the checkpoint gives."""
    scored_by = read_provenance(request.run).get("checkpoint_sha256")
    if scored_by not in (fingerprint(request.checkpoint), config.get("provenance", {}).get(WEIGHTS_OF)):
        raise InputError(
            f"{request.run.name} was not scored by the checkpoint {request.checkpoint.name}, so its rewards say "
            "nothing of that one's limits; score its solutions with it, or name the checkpoint that the run names."
        )
    if "localisation" not in config:
        raise InputError(f"{request.checkpoint.name} has no discriminator that is calibrated; name a trained pair.")


# -------------------------------------------------------------------------------------------------------- labels


def read_annotations(path: Path) -> list[Annotation]:
    """The annotations of a JSONL export or an ``annotations.sqlite``. Raises InputError."""
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
    """One label a text: of each annotator the newest annotation, of several annotators the step that most of those who
    were sure named; where their disagreement was settled, the step that was settled on. Ties are left out, and so are
    annotations that were not blind, unless ``seen``."""
    newest = list(latest(annotations).values())
    counted = [one for one in newest if one.blind or seen]
    left_out: Counter[str] = Counter()
    left_out["not blind"] = len(newest) - len(counted)
    by_text: dict[str, list[Annotation]] = {}
    for one in counted:
        by_text.setdefault(one.text_sha256, []).append(one)
    steps: dict[str, int | None] = {}
    for key, of_text in by_text.items():
        settled = [one for one in of_text if one.annotator == ADJUDICATED and one.verdict != "unsure"]
        votes = Counter(one.step for one in settled or of_text if one.verdict != "unsure").most_common(2)
        if not votes:
            left_out["unsure"] += 1
        elif len(votes) == 2 and votes[0][1] == votes[1][1]:
            left_out["annotators disagree"] += 1
        else:
            steps[key] = votes[0][0]
    annotators = len({one.annotator for one in counted} - {ADJUDICATED})
    return Labels(steps, {reason: n for reason, n in left_out.items() if n}, annotators)


def labelled_traces(run: Path, labels: Labels) -> tuple[list[HeldOut], dict[str, int]]:
    """The traces of a scored run that have a label, each text once, and the number of labels without a trace, by the
    reason."""
    traces: dict[str, HeldOut | None] = {}
    for row in labelled_rows(run, labels):
        key = text_hash(row["problem"], row["text"])
        step = labels.steps[key]
        traces[key] = None
        if row["prompt_reward"] is not None and (step is None or step < len(row["steps"])):
            scored, problem = scored_of(row), row["problem_id"] or row["trace_id"]
            signals = named_signals(scored, DEFAULT_GAMMA)
            traces[key] = HeldOut(signals, scored.encoded.spans, scored.trace.steps, step, problem)
    lost = {
        "not in this run": len(labels.steps.keys() - traces.keys()),
        "without rewards, or a step that the solution does not have": sum(one is None for one in traces.values()),
    }
    usable = [one for one in traces.values() if one is not None]
    return usable, {reason: n for reason, n in lost.items() if n}


def labelled_rows(run: Path, labels: Labels) -> Iterator[ScoredRow]:
    """The first row of each labelled text. Tokens are read of these alone."""
    first: dict[str, str] = {}
    for table in read_batches(run, ["trace_id", "problem", "text"]):
        for row in table.to_pylist():
            key = text_hash(row["problem"], row["text"])
            if key in labels.steps:
                first.setdefault(key, row["trace_id"])
    chosen = pc.field("trace_id").isin(pa.array(sorted(first.values()), pa.string()))
    for table in read_batches(run, None, chosen):
        yield from table.to_pylist()


def check_enough(traces: Sequence[HeldOut]) -> None:
    """Raise InputError where there are too few problems or traces to choose a rule and a limit on."""
    wrong = sum(one.first_error_step is not None for one in traces)
    counts = (
        ("problems", len({one.problem_id for one in traces}), MIN_PROBLEMS),
        ("wrong solutions", wrong, MIN_WRONG),
        ("solutions without an error", len(traces) - wrong, MIN_CORRECT),
    )
    short = [f"{needed} {what}, there are {there}" for what, there, needed in counts if there < needed]
    if short:
        raise InputError(f"Too few annotations to choose a rule and a limit: needed are {'; '.join(short)}.")


# ----------------------------------------------------------------------------------------------------------- fit


def fit(traces: Sequence[HeldOut], before: Calibration, *, seed: int = 0) -> Fitted:
    """Calibrate on all traces; measure each fold by a calibration on the others, and ``before`` on the same traces."""
    rules = candidate_rules(SIGNALS)
    problems = sorted({one.problem_id for one in traces})
    random.Random(seed).shuffle(problems)
    fold_of = {problem: number % FOLDS for number, problem in enumerate(problems)}
    predicted = [UNDECIDED] * len(traces)
    for fold in range(FOLDS):
        others = [one for one in traces if fold_of[one.problem_id] != fold]
        calibration = calibrate(others, rules, gamma=DEFAULT_GAMMA, seed=seed)
        for place, one in enumerate(traces):
            if fold_of[one.problem_id] == fold:
                predicted[place] = predicted_step(one, calibration)
    whole = calibrate(list(traces), rules, gamma=DEFAULT_GAMMA, seed=seed)
    earlier = [predicted_step(one, before) for one in traces]
    true = [NO_ERROR if one.first_error_step is None else one.first_error_step for one in traces]
    ids = [one.problem_id for one in traces]
    return Fitted(
        whole,
        figures=first_error(true, predicted, ids, seed=seed),
        before=first_error(true, earlier, ids, seed=seed),
        traces=len(traces),
        problems=len(problems),
    )


def predicted_step(trace: HeldOut, calibration: Calibration) -> int:
    """The first wrong step by a calibration; ``NO_ERROR`` or ``UNDECIDED`` where it names none."""
    where = locate(trace.signals, trace.spans, trace.steps, calibration)
    if where.decision == "error" and where.first_error_step is not None:
        return where.first_error_step
    return NO_ERROR if where.decision == "no_error" else UNDECIDED


# -------------------------------------------------------------------------------------------------------- result


def recalibrated_config(
    request: CalibrationRequest, config: Mapping[str, Any], labels: Labels, fitted: Fitted
) -> dict[str, Any]:
    """The checkpoint's ``config.json`` with the new calibration, and where it comes from."""
    origin = f"{fitted.traces:,} annotated solutions of {fitted.problems:,} problems, by {labels.annotators} annotators"
    note = "; ".join(part for part in (fitted.calibration.note, f"rule and limits from {origin}") if part)
    provenance = dict(config.get("provenance", {}))
    provenance |= {
        WEIGHTS_OF: provenance.get(WEIGHTS_OF, fingerprint(request.checkpoint)),
        "calibrated_on": origin,
        "calibrated": datetime.now(UTC).date().isoformat(),
        "annotations_sha256": hashlib.sha256(request.annotations.read_bytes()).hexdigest(),
        "calibration_f1": fitted.figures.f1.to_json(),
    }
    localisation = replace(fitted.calibration, note=note).to_json()
    return {**config, "name": request.out.name, "provenance": provenance, "localisation": localisation}


def figures_in_words(figures: FirstError) -> str:
    """F1 and both accuracies, each with its interval."""
    return f"F1 {figures.f1}, error_acc {figures.error_acc}, correct_acc {figures.correct_acc}"
