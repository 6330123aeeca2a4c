"""`irl-lens evaluate`: sample a policy, score with the discriminator, perturb, probe and compare, into a folder.

Every file is written in parts (`train.evaluate.resumable`), always cut alike, so that a killed evaluation continues and
ends as an unbroken one. A problem's samples depend on the seed and its text alone. Rules (the vote, the steps of the
baselines) are chosen on calibration problems, never on the reported ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from irl_core.errors import ConfigError
from irl_core.files import one_line, write_whole
from irl_core.scorer import Lens
from irl_core.text.visible import visible
from train.evaluate.progress import progress_of
from train.evaluate.resumable import claimed_folder
from train.evaluate.settings import RECORD, EvaluationSettings, arguments_of, begin
from train.evaluate.stages import Evaluation
from train.interruption import Interrupted, StopRequests
from train.workers import Workers


def evaluate(
    lens: Lens,
    out: Path,
    settings: EvaluationSettings,
    *,
    console: Console | None = None,
    resume: bool = True,
    stopped: StopRequests | None = None,
    report: Callable[[], None] = lambda: None,
    workers: Workers | None = None,
) -> None:
    """Make every file of an evaluation in ``out``; those that are there already, with the same settings, are kept.

    Args:
        lens: the loaded checkpoint.
        out: the folder to write into.
        settings: what is measured.
        console: shows the progress.
        resume: continue what ``out`` holds; False removes it first.
        stopped: asked at every token that is sampled and after every part, whether to stop.
        report: called when all files are there, before the evaluation counts as finished; on the first process.
        workers: the processes that make it together, each of which calls this.

    Raises:
        Interrupted: it was asked to stop; what was finished is kept.
        StoreError: the folder holds an evaluation with other settings, or cannot be written.
        ConfigError: another process is evaluating into it, or another of the ``workers`` evaluates something else.
        CheckpointError: a checkpoint to compare with cannot be loaded.
    """
    workers = workers or Workers()
    if workers.size > 1 and settings.engine is not None:
        raise ConfigError(
            f"--engine: {workers.size} processes would ask it, and one asks as much as it can do; run 'irl-lens "
            "evaluate' alone, and give the engine more machines"
        )
    with ExitStack() as held:
        workers.from_main(lambda: held.enter_context(claimed_folder(out)))
        arguments = arguments_of(lens, settings)
        workers.check_same(json.dumps(arguments), "checkpoint, data or options", "give every machine the same of them")
        record = workers.from_main(lambda: begin(out, arguments, resume))
        evaluation = Evaluation(lens, out, settings, record, workers)
        shown = console if workers.is_main else None
        with progress_of(out, evaluation.total, shown, stopped, written=workers.is_main) as progress:
            try:
                evaluation.make_files(progress)
                if shown is not None:
                    for note in evaluation.notes():
                        shown.print(visible(note), style="yellow", highlight=False)
                progress.stage("reporting")
                workers.from_main(report)
            except BaseException as error:
                asked = isinstance(error, Interrupted | KeyboardInterrupt)
                progress.end("interrupted" if asked else "failed", "" if asked else one_line(f"{error}")[:500])
                raise
            finally:
                record["seconds"] = round(record.get("seconds", 0.0) + progress.seconds, 1)
                if workers.is_main:
                    write_whole(out / RECORD, json.dumps(record, indent=1) + "\n")
            progress.end("finished")
