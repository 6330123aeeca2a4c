"""``irl-lens study inference``: the reward used while solutions are written, beside the majority of as many tokens.

No training: a finished checkpoint answers held-out problems in each way of ``irl_core.strategies``. Every problem is
written down when it is done, so that a study that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from irl_core import strategies
from irl_core.checkpoints.load import load_json
from irl_core.errors import ConfigError, StoreError
from irl_core.evaluation.section import Table
from irl_core.files import append_lines, now, write_whole
from irl_core.progress import progress_bar
from irl_core.report.tables import escaped, markdown, page
from irl_core.scorer import Lens
from irl_core.statistics.best_of_n import at_size, vote_curve
from irl_core.statistics.bootstrap import Array, Estimate, mean_over_problems, paired_difference
from irl_core.storage.provenance import code_state, this_machine, versions
from irl_core.text.answers import compare_answers, normalise_answer
from irl_core.types import Trace
from train.evaluate.problem_sets import Question, open_problem_set
from train.evaluate.resumable import changed_keys, claimed_folder, differing
from train.interruption import Interrupted, stop_requests

NAME: Final = "inference"
TITLE: Final = "The reward while solutions are written"
SAMPLES: Final = 16  # of each problem, of which majorities of fewer are computed
MAJORITY: Final = 8  # as many as early rejection begins
ORDER, ROWS = "order.json", "rows.jsonl"
JSON, MARKDOWN, HTML = "study.json", "study.md", "study.html"
DEFAULT_PROBLEMS: Final = 160
WAYS: Final = {**strategies.STRATEGIES, **strategies.CONTROLS}


def planned(checkpoint: str, *, data: str, problems: int, seed: int) -> str:
    """What the study would do, in words."""
    return (
        f"Up to {problems:,} problems of {data}, seed {seed}: {SAMPLES} samples of each by {checkpoint}'s policy, and "
        f"one solution in each of {len(WAYS)} ways ({', '.join(WAYS)}). Nothing is trained."
    )


def inference_study(
    checkpoint: Path,
    out: Path,
    *,
    data: str = "demo",
    problems: int = DEFAULT_PROBLEMS,
    seed: int = 1,
    resume: bool = True,
    device: str = "auto",
    console: Console | None = None,
) -> dict[str, Any]:
    """Make the study in ``out`` and return what ``study.json`` holds; ``study.md`` and ``study.html`` show the same.

    SIGTERM and SIGINT end it after the problem at hand, by ``Interrupted``; the same call goes on.

    Args:
        checkpoint: the folder of the checkpoint.
        out: the folder to write into.
        data: ``demo``, ``gsm8k``, or a file or folder of problems with answers.
        problems: at most so many.
        seed: of all that is sampled.
        resume: go on with what ``out`` holds; False starts again.
        device: where the models run.
        console: shows the progress.

    Raises:
        ConfigError: the data holds no problems, or ``out`` holds another study or is being written.
        CheckpointError, DatasetError, StoreError: a file cannot be read or written.
    """
    found = open_problem_set(data, problems, holds="problems" if Path(data).is_file() else "auto")
    if not found.questions:
        raise ConfigError(f"--data {data}: holds solutions, and a study samples its own; name a file of problems")
    lens = Lens.load(checkpoint, device)
    order = {
        "study": NAME, "checkpoint": lens.name, "checkpoint_sha256": lens.fingerprint, "data": found.name,
        "data_sha256": found.sha256, "problems": len(found.questions), "seed": seed, "samples": SAMPLES,
        "first_look": strategies.FIRST_LOOK,
    }  # fmt: skip
    with claimed_folder(out):
        done = begin(out, order, resume)
        with (
            stop_requests() as stopped,
            progress_bar("Answering", len(found.questions), console=console, shown=console is not None) as bar,
        ):
            for number, question in enumerate(found.questions):
                if number >= done:
                    append_lines(out / ROWS, json.dumps(answered(lens, question, seed + 1000 * number)) + "\n")
                bar.update(number + 1)
                if stopped and number + 1 < len(found.questions):
                    raise Interrupted("stopped")
        return write(out, order, read(out), lens)


def begin(out: Path, order: Mapping[str, Any], resume: bool) -> int:
    """The number of problems that were answered before. Raises ConfigError where ``out`` holds another study."""
    if not resume:
        for name in (ORDER, ROWS, JSON, MARKDOWN, HTML):
            (out / name).unlink(missing_ok=True)
    if (out / ORDER).is_file():
        known = load_json(out / ORDER)
        if changed := changed_keys(known, order):
            raise ConfigError(
                f"{out.name} holds a study that differs in {differing(changed, known, order)}; name another --out, or "
                "start again with --no-resume"
            )
    write_whole(out / ORDER, json.dumps(order, indent=2))
    rows = out / ROWS
    if not rows.is_file():
        return 0
    whole = rows.read_bytes()
    if not whole.endswith(b"\n"):  # the last line was not written to its end
        whole = whole[: whole.rfind(b"\n") + 1]
        rows.write_bytes(whole)
    return whole.count(b"\n")


def answered(lens: Lens, question: Question, seed: int) -> dict[str, Any]:
    """What every way makes of a problem."""
    right = question.expert.answer or ""
    samples = [outcome(one, right, strategies.written(one)) for one in lens.sample(question.text, SAMPLES, seed)]
    ways: dict[str, Any] = {}
    for name, way in WAYS.items():
        made = way(lens, question.text, seed)
        ways[name] = outcome(made.trace, right, made.tokens)
        if name == "self-revision":
            ways[name]["draft_correct"] = outcome(made.draft.trace if made.draft else made.trace, right, 0)["correct"]
            ways[name]["revised"] = made.draft is not None
    return {"problem": question.text, "samples": samples, "ways": ways}


def outcome(trace: Trace, right: str, tokens: int) -> dict[str, Any]:
    """A solution's answer, whether it is right, and the tokens that it took."""
    answer = normalise_answer(trace.answer or "") or None
    return {"answer": answer, "correct": bool(compare_answers(trace.answer or "", right)), "tokens": tokens}


def read(out: Path) -> list[dict[str, Any]]:
    """The rows of a study. Raises StoreError where one cannot be read."""
    try:
        return [json.loads(line) for line in (out / ROWS).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise StoreError(f"{out.name}/{ROWS} cannot be read ({error}); start again with --no-resume") from error


# ------------------------------------------------------------------------------------------------------ what came out


def write(out: Path, order: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], lens: Lens) -> dict[str, Any]:
    """Write the study's files and return what ``study.json`` holds."""
    table, sentences = compared(rows)
    said = [
        f"{order['problems']:,} problems of {order['data']}, checkpoint {order['checkpoint']} on {lens.computes_on}, "
        f"seed {order['seed']}. 'Less the majority' is paired by problem with the majority of as many tokens, of "
        f"{SAMPLES} samples and interpolated between numbers of them.",
        *sentences,
    ]
    document = {
        "order": dict(order), "written": now(), "code": code_state(), "versions": versions(),
        "machine": this_machine(), "sentences": list(sentences),
        "rows": [[cell.to_json() if isinstance(cell, Estimate) else cell for cell in row] for row in table.rows],
    }  # fmt: skip
    write_whole(out / JSON, json.dumps(document, indent=2, default=str))
    write_whole(out / MARKDOWN, "\n".join([f"# {TITLE}\n", *(f"{escaped(one)}\n" for one in said), markdown(table)]))
    write_whole(out / HTML, page(TITLE, said, [table]))
    return document


def compared(rows: Sequence[Mapping[str, Any]]) -> tuple[Table, list[str]]:
    """The table, and what came of each way in words."""
    curve, each = majorities(rows)
    one, eight = curve[:, 0], curve[:, MAJORITY - 1]
    lines: list[Sequence[Any]] = [
        ["one sample", mean_over_problems(one), each, None],
        [f"majority of {MAJORITY}", mean_over_problems(eight), MAJORITY * each, None],
    ]
    for name in WAYS:
        values, tokens = column(rows, name, "correct"), float(column(rows, name, "tokens").mean())
        beside = at_size(curve, tokens / each)
        lines.append([name, mean_over_problems(values), tokens, paired_difference(values, beside)])
    early, spent = column(rows, "early rejection", "correct"), column(rows, "early rejection", "tokens").mean()
    revision, draft = (column(rows, "self-revision", key) for key in ("correct", "draft_correct"))
    revised = column(rows, "self-revision", "revised").mean()
    return (
        Table("Accuracy and tokens", ("way", "accuracy", "tokens a problem", "less the majority"), lines),
        [
            f"Early rejection takes {spent / (MAJORITY * each):.0%} of the tokens of the majority of {MAJORITY}; its "
            f"accuracy less that majority's: {paired_difference(early, eight)}.",
            *(
                f"{name.capitalize()} by the reward less by likelihood: "
                f"{paired_difference(column(rows, name, 'correct'), column(rows, f'{name} by likelihood', 'correct'))}."
                for name in ("early rejection", "guided decoding")
            ),
            f"Self-revision changes {revised:.0%} of the solutions; its accuracy less that of its own first drafts: "
            f"{paired_difference(revision, draft)}.",
        ],
    )


def column(rows: Sequence[Mapping[str, Any]], name: str, key: str) -> Array:
    """A value of a way, for each problem."""
    return np.array([float(row["ways"][name][key]) for row in rows])


def majorities(rows: Sequence[Mapping[str, Any]]) -> tuple[Array, float]:
    """(P, SAMPLES): the accuracy of the majority of 1, 2, ... samples of each problem; and the mean tokens of one."""
    samples = [(number, one) for number, row in enumerate(rows) for one in row["samples"]]
    curve = vote_curve(
        [one["answer"] for _, one in samples], [one["correct"] for _, one in samples],
        [number for number, _ in samples], range(1, SAMPLES + 1),
    )  # fmt: skip
    return curve, float(np.mean([one["tokens"] for _, one in samples]))
