"""What is killed, starved of disk and run twice at once: seven pieces of work that write something.

Each goes on where it was when it is done again, and its result is compared with one that nothing happened to.
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from app.analysis import uploads
from irl_core.checkpoints.load import load_json
from irl_core.checkpoints.manifest import verify
from irl_core.data.annotations import Annotation, Annotations, to_jsonl
from irl_core.scorer import Lens
from irl_core.storage.scored_run import errors_path, read_run
from tests.integration import test_study
from tests.integration.test_evaluate import FILES, without_dates
from tests.runs import SFT, assert_same_run
from tests.unit.test_calibrate_annotated import DEMO, RUN, annotated, said
from train.calibrate_annotated import CalibrationRequest, calibrate_annotated
from train.cli.evaluate import EvaluateRequest, run_evaluation
from train.evaluate import rollouts
from train.run import train
from train.score_file import score_file
from train.studies import plan
from train.studies.definitions import STUDIES
from train.studies.runner import study

ROUNDS = 300  # of annotations and uploads
ROWS = 60  # of a scoring, in windows of five


class Work(ABC):
    """A piece of work; its name is the command's, or the page's."""

    name: str

    def __init__(self, world: Path) -> None:
        self.world = world

    def prepare(self) -> None:  # noqa: B027
        """Make what it starts from."""

    @abstractmethod
    def go(self, folder: Path) -> None:
        """Do it in a folder, or what is left of it."""

    @abstractmethod
    def check(self, found: Path, expected: Path) -> None:
        """Assert that two results are the same."""

    def check_killed(self, folder: Path) -> None:  # noqa: B027
        """Assert what holds after a kill, before it is gone on with: what was acknowledged is there."""


class Score(Work):
    name = "score"

    def __init__(self, world: Path) -> None:
        super().__init__(world)
        self.source = world / "rows.jsonl"
        rows = [
            {"question": f"Ada has {n} pens and buys {n}. How many?", "solution": f"{n}+{n}={2 * n}\n#### {2 * n}"}
            for n in range(1, ROWS + 1)
        ]
        self.source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": 5}]))
        self.lens = Lens.load(DEMO, "cpu")

    def go(self, folder: Path) -> None:
        score_file(self.source, folder / "run.parquet", self.lens, window=5)

    def check(self, found: Path, expected: Path) -> None:
        runs = [folder / "run.parquet" for folder in (found, expected)]
        assert read_run(runs[0]).equals(read_run(runs[1]))
        assert errors_path(runs[0]).read_text() == errors_path(runs[1]).read_text()
        assert not list(found.glob("*.parts"))


class Train(Work):
    name = "train"

    def go(self, folder: Path) -> None:
        run_dir = folder / "run"
        train(SFT, run_dir, resume=(run_dir / "config.yaml").exists(), say=lambda line: None)

    def check(self, found: Path, expected: Path) -> None:
        assert_same_run(found / "run", expected / "run")


class Evaluate(Work):
    name = "evaluate"

    def go(self, folder: Path) -> None:
        asked = EvaluateRequest(DEMO, folder / "out", problems=4, samples=2, device="cpu")
        with patch.object(rollouts, "QUESTIONS_AT_ONCE", 2), patch.object(rollouts, "TRACES_AT_ONCE", 12):
            run_evaluation(asked)

    def check(self, found: Path, expected: Path) -> None:
        for name in FILES:
            if (expected / "out" / name).exists():
                assert read_run(found / "out" / name).equals(read_run(expected / "out" / name)), name
        reports = [without_dates(load_json(folder / "out" / "report.json")) for folder in (found, expected)]
        assert reports[0] == reports[1]
        assert not list(found.rglob("*.parts"))


class Study(Work):
    name = "study"

    def prepare(self) -> None:
        runs = self.world / "starts" / "runs"
        train(SFT, runs / "demo-sft", say=lambda line: None)
        shutil.copytree(runs / "demo-sft", runs / "demo-expert")

    def go(self, folder: Path) -> None:
        one = STUDIES["wasserstein"]
        small = replace(one, arms=one.arms[:2], settings=(*one.settings, *test_study.TINY))
        os.chdir(self.world / "starts")
        with (
            patch.object(plan, "PROBLEMS", 100), patch.object(plan, "LEAST_CALIBRATION", 4),
            patch.object(rollouts.LoadedPolicy, "trace_of", test_study.judge_by_hash),
            patch.dict(STUDIES, {"wasserstein": small}),
        ):  # fmt: skip
            study("wasserstein", folder / "out", seeds=(1,), scale=test_study.SCALE)

    def check(self, found: Path, expected: Path) -> None:
        test_study.assert_same_study(found / "out", expected / "out")


class Annotate(Work):
    """Annotations by the hundred, each acknowledged in a file of its own when it was stored."""

    name = "annotate"

    def go(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        store = Annotations(folder / "annotations.sqlite")
        for number in range(len(acknowledged(folder)), ROUNDS):
            store.add(annotation(number))
            acknowledge(folder, str(number))

    def check_killed(self, folder: Path) -> None:
        stored = {one.trace_id for one in Annotations(folder / "annotations.sqlite").all()}
        lost = [number for number in acknowledged(folder) if f"t{number}" not in stored]
        assert not lost, f"acknowledged, and not there: {lost}"

    def check(self, found: Path, expected: Path) -> None:
        stored = [{one.trace_id for one in Annotations(f / "annotations.sqlite").all()} for f in (found, expected)]
        assert stored[0] == stored[1] and len(stored[0]) == ROUNDS


class Upload(Work):
    """Uploads by the hundred, each acknowledged when it was kept."""

    name = "upload"

    def go(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        for number in range(len(acknowledged(folder)), ROUNDS):
            data = upload(number)
            try:
                uploads.keep(data, f"upload {number}", "ann", uploads.check(data, "plain"), "plain")
            except uploads.UploadError as error:
                if "uploaded before" not in str(error):  # kept, and killed before it was acknowledged
                    raise
            acknowledge(folder, str(number))

    def check_killed(self, folder: Path) -> None:
        for number in acknowledged(folder):
            (kept,) = (folder / uploads.FOLDER).glob(f"upload-{number}-*")
            assert (kept / uploads.TRACES).read_bytes() == upload(int(number))
            load_json(kept / uploads.ABOUT)

    def check(self, found: Path, expected: Path) -> None:
        self.check_killed(found)
        names = [{path.name for path in (f / uploads.FOLDER).glob("[!.]*")} for f in (found, expected)]
        assert names[0] == names[1] and len(names[0]) == ROUNDS


class Calibrate(Work):
    name = "calibrate"

    def __init__(self, world: Path) -> None:
        super().__init__(world)
        self.annotations = world / "annotations.jsonl"
        self.annotations.write_text(to_jsonl(annotated(30)))

    def go(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "mine").exists():
            list(calibrate_annotated(CalibrationRequest(self.annotations, RUN, DEMO, folder / "mine")))

    def check(self, found: Path, expected: Path) -> None:
        for folder in (found, expected):
            verify(folder / "mine")
        configs = [load_json(folder / "mine" / "config.json") for folder in (found, expected)]
        assert configs[0] == configs[1]


WORKS: tuple[type[Work], ...] = (Score, Annotate, Upload, Calibrate, Train, Evaluate, Study)


def annotation(number: int) -> Annotation:
    """The annotation of one round; it is dated when it is stored."""
    known: dict[str, Any] = {"trace_id": f"t{number}", "problem_id": f"p{number}", "run": "r", "created": ""}
    return said(f"{number:064x}", "ann", number % 5, **known)


def upload(number: int) -> bytes:
    """The traces of one round."""
    row = {"problem": f"Ben has {number} nuts and eats 2. How many are left?", "solution": f"{number}-2=5\n#### 5"}
    return (json.dumps(row) + "\n").encode()


def acknowledge(folder: Path, what: str) -> None:
    """Write down that something was told to be done."""
    with (folder / "acknowledged").open("a") as lines:
        lines.write(f"{what}\n")


def acknowledged(folder: Path) -> list[str]:
    """What was told to be done, whole lines alone."""
    path = folder / "acknowledged"
    return [line.rstrip("\n") for line in path.open() if line.endswith("\n")] if path.exists() else []
