"""`irl-lens evaluate`: sample a policy, score with the discriminator, corrupt, probe and compare, into a folder.

Every file is written in parts (`train.evaluate.resumable`), always cut alike, so that a killed evaluation goes on and
ends as an unbroken one. What a problem's samples are depends on the seed and its text alone. Rules (the vote, the
steps of the baselines) are chosen on calibration problems, never on the reported ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.data.formats import read
from irl_core.errors import ConfigError, StoreError
from irl_core.evaluation.evaluated_run import COMPARE, PERTURBED, PROBES, RUN
from irl_core.evaluation.reranking import choose_vote
from irl_core.files import now, one_line, write_whole
from irl_core.models.pretrained import load_causal_lm
from irl_core.reward.calibration import HeldOut, calibrate, candidate_rules
from irl_core.scorer import Lens
from irl_core.storage.provenance import code_state, this_machine, versions
from irl_core.storage.rows import scored_of, unscored_row
from irl_core.storage.schema import COLUMNS, SUMMARY_COLUMNS, RefusedRow, ScoredRow
from irl_core.storage.scored_run import read_batches, read_run
from irl_core.storage.training_run import METRICS, living_process, read_status
from irl_core.types import ScoredTrace, Source
from train.calibrate import SAMPLES as CALIBRATION_SAMPLES
from train.calibrate import corrupted
from train.evaluate import rollouts
from train.evaluate.problem_sets import Exam
from train.evaluate.progress import Progress, progress_of
from train.evaluate.resumable import Made, OnStep, Part, Stage, differing, json_of, remove, rows_in, write
from train.interruption import Interrupted, StopRequests
from train.score_file import score_window
from train.score_file import windows as file_windows

MARKER = "evaluation.json"
CALIBRATION = "calibration.parquet"
ANCHOR = "anchor.parquet"
MAX_NAME = 60


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked of a checkpoint. ``compare``: the folders of further checkpoints, whose policies are sampled on the
    same problems. ``training``: the folder of the run that made the checkpoint, whose metrics are reported with it."""

    exam: Exam
    samples: int = 16
    seed: int = 0
    compare: Mapping[str, Path] = field(default_factory=dict)
    training: Path | None = None

    def __post_init__(self) -> None:
        if self.compare and self.exam.solutions is not None:
            raise ConfigError(
                f"--compare: {self.exam.name} holds solutions, and none are sampled; leave it out, or sample solutions "
                "of its problems with --holds problems"
            )
        for name in self.compare:
            if not name.replace("-", "").replace("_", "").replace(" ", "").isalnum() or len(name) > MAX_NAME:
                raise ConfigError(f"--compare {name!r}: letters, digits, - and _ are expected, at most {MAX_NAME}")


def evaluate(
    lens: Lens,
    out: Path,
    order: Order,
    *,
    console: Console | None = None,
    resume: bool = True,
    stopped: StopRequests | None = None,
    report: Callable[[], None] = lambda: None,
) -> None:
    """Make every file of an evaluation in ``out``; those that are there already, by the same order, are kept.

    ``stopped``: asked at every token that is sampled and after every part, whether to stop. ``report`` is called when
    all files are there, before the evaluation counts as finished.

    Raises:
        Interrupted: it was asked to stop; what was finished is kept.
        StoreError: the folder holds an evaluation by another order, or cannot be written.
        ConfigError: another process is evaluating into it.
        CheckpointError: a checkpoint to compare with cannot be loaded.
    """
    _claim(out)
    marker = _begin(out, _arguments(lens, order), resume)
    task = _Evaluation(lens, out, order, marker)
    with progress_of(out, task.total, console, stopped) as progress:
        try:
            task.go(progress)
            progress.stage("reporting")
            report()
        except BaseException as error:
            asked = isinstance(error, Interrupted | KeyboardInterrupt)
            progress.end("interrupted" if asked else "failed", "" if asked else one_line(f"{error}")[:500])
            raise
        finally:
            _add_seconds(out, marker, progress.seconds)
        progress.end("finished")


def files_in(out: Path) -> list[Path]:
    """The files that an evaluation writes before its report."""
    return [out / name for name in (CALIBRATION, RUN, ANCHOR, PERTURBED, PROBES)] + sorted(
        {path.with_suffix("") if path.suffix == ".parts" else path for path in (out / COMPARE).glob("*.parquet*")}
    )


def _claim(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{out} cannot be made ({error.strerror}); name another --out") from error
    if process := living_process(read_status(out)):
        raise ConfigError(f"{out.name} is being written by {process}; wait for it, or end it with SIGTERM")


def _arguments(lens: Lens, order: Order) -> dict[str, Any]:
    exam = order.exam
    sampled = {} if exam.solutions else {"problems": len(exam.asked), "samples": order.samples}
    return {
        "checkpoint": lens.name,
        "checkpoint_sha256": lens.fingerprint,
        "input": exam.name,
        "input_sha256": exam.sha256,
        **sampled,
        "seed": order.seed,
        "compare": {name: checkpoint_hash(path) for name, path in order.compare.items()},
    }


def checkpoint_hash(path: Path) -> str:
    """sha256 of a verified checkpoint's manifest, which names that of every file. Raises CheckpointError."""
    verify(path)
    return hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()


def _begin(out: Path, arguments: dict[str, Any], resume: bool) -> dict[str, Any]:
    """What ``evaluation.json`` holds, written where there is none yet. Raises StoreError for other arguments."""
    path = out / MARKER
    if not resume:
        remove(files_in(out))
        for name in (MARKER, METRICS):
            (out / name).unlink(missing_ok=True)
    if not path.exists():
        if (out / RUN).exists():
            raise StoreError(f"{out.name}: holds a {RUN} of another kind; name another --out, or add --no-resume")
        made_by = {"machine": this_machine(), "versions": versions(), "code": code_state()}
        marker = {"arguments": arguments, "created": now(), **made_by, "seconds": 0.0}
        write_whole(path, json.dumps(marker, indent=1) + "\n")
        return marker
    found = load_json(path)
    begun = found.get("arguments", {})
    keys = sorted(begun.keys() | arguments.keys())
    changed = [key for key in keys if begun.get(key) != json_of(arguments.get(key))]
    if changed:
        raise StoreError(
            f"{out.name}: holds an evaluation with another {differing(changed, begun, arguments)}; name another --out, "
            "or start again with --no-resume"
        )
    return found


def _add_seconds(out: Path, marker: dict[str, Any], seconds: float) -> None:
    """The time that the evaluation took, of all processes that worked on it."""
    document = {**marker, "seconds": round(marker.get("seconds", 0.0) + seconds, 1)}
    write_whole(out / MARKER, json.dumps(document, indent=1) + "\n")


# -------------------------------------------------------------------------------------------------- the stages


@dataclass(slots=True)
class _Evaluation:
    """The stages in order; each file's provenance says what the rules in it were chosen on."""

    lens: Lens
    out: Path
    order: Order
    marker: dict[str, Any]
    perturbed: list[Any] = field(init=False)
    probes: list[Any] = field(init=False)
    anchor: Any = field(init=False)

    def __post_init__(self) -> None:
        exam, seed = self.order.exam, self.order.seed
        self.perturbed = rollouts.corrupted_traces(self.lens.encoder, exam.experts, seed)
        self.probes = rollouts.probes_with_honest(exam.experts, seed)
        self.anchor = anchor_of(self.lens)

    @property
    def asked(self) -> int:
        """The traces of the run."""
        exam = self.order.exam
        return exam.lines if exam.solutions else len(exam.asked) * self.order.samples

    @property
    def total(self) -> int:
        exam = self.order.exam
        calibration = len(exam.calibration) * CALIBRATION_SAMPLES
        runs = self.asked * (1 + len(self.order.compare)) + (self.asked if self.anchor else 0)
        return max(1, calibration + runs + len(self.perturbed) + len(self.probes))

    def go(self, progress: Progress) -> None:
        self._training()
        progress.stage("calibrating")
        tuning = self._calibrated(progress)
        chosen = _chosen(self.lens, tuning)
        provenance = self.marker["arguments"] | self._common() | chosen
        count = write(Stage(self.out / RUN, "sampling", provenance, self.asked, self._run()), progress)
        if not count:
            raise StoreError(
                f"{self.order.exam.name}: no trace could be scored; run.errors.jsonl in {self.out.name} says why"
            )
        if self.anchor is not None:
            write(self._anchored(tuning), progress)
        for name, title, traces in ((PERTURBED, "perturbed", self.perturbed), (PROBES, "probes", self.probes)):
            parts = rollouts.scored_traces(self.lens, traces)
            write(Stage(self.out / name, title, provenance, len(traces), parts), progress)
        for name, path in self.order.compare.items():
            write(self._compared(name, path), progress)

    def _common(self) -> dict[str, Any]:
        """What every file's provenance says beside the arguments."""
        return {
            "command": "irl-lens evaluate",
            "checkpoint_provenance": self.lens.provenance,
            "standardised_over": self.lens.reference.origin,
            "temperature": rollouts.TEMPERATURE,
            "top_p": rollouts.TOP_P,
            **{key: self.marker[key] for key in ("created", "machine", "versions", "code")},
        }

    def _training(self) -> None:
        """The metrics of the run that made the checkpoint, copied beside what is measured of it."""
        source = self.order.training
        if source is not None:
            write_whole(self.out / METRICS, (source / METRICS).read_text(encoding="utf-8", errors="replace"))

    def _calibrated(self, progress: Progress) -> list[ScoredRow]:
        """The scored rows of the calibration problems; of problems whose truth is not known, corrupted experts too."""
        exam, seed, lens = self.order.exam, self.order.seed + 1, self.lens
        questions = exam.calibration
        if not questions:
            return []
        wrong = [] if questions[0].generated else corrupted([one.expert for one in questions], seed)

        def parts() -> Iterator[Part]:
            yield from rollouts.scored_samples(rollouts.Voice.of(lens), lens, questions, CALIBRATION_SAMPLES, seed)
            yield from (replace(part, count=0) for part in rollouts.scored_traces(lens, wrong))

        path, count = self.out / CALIBRATION, len(questions) * CALIBRATION_SAMPLES
        write(Stage(path, "calibrating", self.marker["arguments"] | self._common(), count, parts()), progress)
        return read_run(path).to_pylist() if path.exists() else []

    def _run(self) -> Iterator[Part]:
        exam, lens = self.order.exam, self.lens
        if exam.solutions is not None:
            return self._solutions(exam.solutions)
        parts = rollouts.scored_samples(rollouts.Voice.of(lens), lens, exam.asked, self.order.samples, self.order.seed)
        return _with_errors(parts, exam.left_out)

    def _solutions(self, path: Path) -> Iterator[Part]:
        for traces, errors in file_windows(read(path, self.order.exam.format), rollouts.TRACES_AT_ONCE):

            def make(on_step: OnStep, traces: Any = traces, errors: Any = errors) -> Made:
                rows, refused = score_window(
                    self.lens, traces, run_id=self.lens.name, batch_tokens=rollouts.BATCH_TOKENS
                )
                return rows, [*errors, *refused]

            yield Part(len(traces) + len(errors), make)

    def _anchored(self, tuning: Sequence[ScoredRow]) -> Stage:
        """The run's traces as the discriminator's start read them, with a rule of their own."""
        name, model = self.anchor
        pad_id = self.lens.encoder.pad_id

        def read_again(rows: Sequence[ScoredRow]) -> list[ScoredRow]:
            encoded = [scored_of(row).encoded for row in rows]
            values = rollouts.logprobs_under(model, encoded, pad_id)
            return [
                unscored_row(one, value, run_id=self.lens.name, checkpoint=name)
                for one, value in zip(encoded, values, strict=True)
            ]

        def parts() -> Iterator[Part]:
            for table in read_batches(self.out / RUN, COLUMNS.names):

                def make(on_step: OnStep, table: Any = table) -> Made:
                    return read_again(table.to_pylist()), []

                yield Part(table.num_rows, make)

        known = likelihood_rule(self.lens, tuning, read_again(tuning))
        provenance = self.marker["arguments"] | self._common() | {"read_by": name, **known}
        return Stage(self.out / ANCHOR, "baselines", provenance, rows_in(self.out / RUN), parts())

    def _compared(self, name: str, path: Path) -> Stage:
        exam, order = self.order.exam, self.order

        def voice() -> rollouts.Voice:
            return rollouts.Voice.load(path, self.lens.device)

        parts = rollouts.read_samples(voice, exam.asked, order.samples, order.seed, name)
        asked_of = {"checkpoint": name, "checkpoint_sha256": self.marker["arguments"]["compare"][name]}
        provenance = self.marker["arguments"] | self._common() | asked_of
        provenance["checkpoint_provenance"] = load_json(path / "config.json").get("provenance", {})
        return Stage(self.out / COMPARE / f"{name}.parquet", f"sampling {name}", provenance, self.asked, parts)


def _with_errors(parts: Iterator[Part], lines: Sequence[str]) -> Iterator[Part]:
    """The parts, the first with the rows of the input that could not be read."""
    for number, part in enumerate(parts):
        if number or not lines:
            yield part
            continue

        def make(on_step: OnStep, first: Callable[[OnStep], Made] = part.make) -> Made:
            rows, errors = first(on_step)
            unread: list[RefusedRow] = [{"message": line} for line in lines]
            return rows, [*unread, *errors]

        yield replace(part, make=make)


# ---------------------------------------------------------------------------------- rules from calibration problems


def _chosen(lens: Lens, tuning: Sequence[ScoredRow]) -> dict[str, Any]:
    """What the run's provenance says of the reward's rule, and of those chosen on the calibration problems: the vote,
    and the rule by which the policy's log-probabilities alone name a step."""
    found: dict[str, Any] = {"calibration": lens.calibration.to_json()}
    samples = [row for row in tuning if row["source"] == Source.POLICY.value]
    if samples:
        frame = pd.DataFrame(samples)[SUMMARY_COLUMNS]
        found |= {"vote": choose_vote(frame)._asdict(), "calibration_problems": int(frame["problem_id"].nunique())}
    return found | likelihood_rule(lens, tuning, tuning)


def likelihood_rule(lens: Lens, tuning: Sequence[ScoredRow], read: Sequence[ScoredRow]) -> dict[str, Any]:
    """The calibrated rule over the log-probabilities of ``read``, the rows of ``tuning`` as some model read them, under
    the key by which a provenance holds it; nothing where there is too little to choose it on."""
    known = [one for row, other in zip(tuning, read, strict=True) if (one := _held_out(row, other)) is not None]
    if len({one.problem_id for one in known}) < 2:
        return {}
    rules = candidate_rules(("logprob",), include_answer=(lens.calibration.rule.include_answer,))
    return {"likelihood_calibration": calibrate(known, rules).to_json()}


def _held_out(row: ScoredRow, read: ScoredRow) -> HeldOut | None:
    """A calibration trace whose first error is known; one with the right answer counts as having none."""
    truth = row["true_first_error_step"]
    if truth is None and not row["correct"]:
        return None
    first = None if truth is None or truth < 0 else truth
    scored: ScoredTrace = scored_of(row)
    values = [token["logprob"] for token in read["tokens"]]
    signals = {"logprob": pd.Series(values, dtype="float32").to_numpy()}
    return HeldOut(signals, scored.encoded.spans, scored.trace.steps, first, row["problem_id"])


def anchor_of(lens: Lens) -> tuple[str, Any] | None:
    """The model that the discriminator started from, where it is a checkpoint of ours and still there, with its name:
    what the reward knows without any adversarial training. None where it reads other tokens."""
    named = lens.config["train_config"]["model"].get("discriminator")
    if named is None or lens.discriminator_encoder is not None:
        return None
    path = Path(named)
    if not (path / "policy").is_dir() or not (path / "manifest.json").is_file():
        return None
    verify(path)
    return str(load_json(path / "config.json")["name"]), load_causal_lm(path / "policy", lens.device)
