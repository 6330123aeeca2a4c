"""Files that two processes score or sample together, one of which is killed: they end as those of one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from irl_core.scorer import Lens
from irl_core.storage.scored_run import parts_folder, read_provenance, read_run
from tests.conftest import REPOSITORY
from tests.launching import SMALL, finished, launch
from tests.tiny import PROBLEM, SOLUTION
from train import score_file
from train.cli.evaluate import EvaluateRequest, run_evaluation
from train.evaluate import rollouts

pytestmark = pytest.mark.timeout(900)  # launches of two processes

DEMO = REPOSITORY / "assets" / "demo"
FAULT = "is_killed_in_its_second_part"
ROWS = 20


@pytest.fixture(scope="module")
def lens() -> Lens:
    return Lens.load(DEMO, "cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Solutions of several lengths, one line that is none, and one that is longer than the checkpoint reads."""
    rows: list[object] = [
        {"id": f"row-{n}", "question": PROBLEM, "solution": f"{n} + {n} = {2 * n}\n" * (n % 4) + SOLUTION}
        for n in range(ROWS)
    ]
    rows[7], rows[11] = {"question": PROBLEM}, {"question": PROBLEM, "solution": "3 + 4 = 7. " * 999}
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alone(source: Path, out: Path, lens: Lens, like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Score in this process, at the time at which the run ``like`` was begun."""
    monkeypatch.setattr(score_file, "now", lambda: read_provenance(like)["created"])
    score_file.score_file(source, out, lens, window=SMALL)


@pytest.mark.parametrize("fault", [FAULT, "is_killed_before_it_merges@0", "is_killed_when_it_has_merged@0"])
def test_a_killed_process_is_started_again_and_the_run_has_the_bytes_of_one_process(
    fault: str, source: Path, tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "two" / "run.parquet", tmp_path / "one" / "run.parquet"
    command = [fault, "score", str(source), "--out", str(out), "--checkpoint", "demo"]
    printed = finished(launch("tests.launching", *command, restarts=1))
    assert "failed (exitcode: -9)" in printed
    assert f"Scored {ROWS - 2} solutions (" in printed and "before it was interrupted" in printed
    assert printed.count("2 could not be scored") == 1, "one of the two says it"
    alone(source, whole, lens, out, monkeypatch)
    for name in ("run.parquet", "run.errors.jsonl"):
        assert (out.parent / name).read_bytes() == (whole.parent / name).read_bytes(), name
    assert sorted(path.name for path in out.parent.iterdir()) == ["run.errors.jsonl", "run.parquet"]


def test_without_a_restart_all_end_and_one_process_goes_on(
    source: Path, tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "two" / "run.parquet", tmp_path / "one" / "run.parquet"
    command = [f"{FAULT}@0", "score", str(source), "--out", str(out), "--checkpoint", "demo"]
    launcher = launch("tests.launching", *command)
    printed = launcher.communicate(timeout=200)[0]
    assert launcher.returncode != 0 and not out.exists(), printed
    made = len(list(parts_folder(out).glob("part-*.parquet")))
    assert made > 0
    summary = score_file.score_file(source, out, lens, window=SMALL)
    assert summary.continued > 0 and summary.scored == ROWS - 2
    alone(source, whole, lens, out, monkeypatch)
    assert out.read_bytes() == whole.read_bytes()


def test_an_evaluation_of_two_processes_is_that_of_one(
    tmp_path: Path, lens: Lens, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--data", "demo", "--problems", "2", "--samples", "2", "--checkpoint", str(DEMO), "--device", "cpu"]
    launcher = launch("tests.launching", f"{FAULT}@0", "evaluate", "--out", str(tmp_path / "two"), *asked, restarts=1)
    printed = finished(launcher)
    assert "failed (exitcode: -9)" in printed
    monkeypatch.setattr(rollouts, "QUESTIONS_AT_ONCE", 1)
    monkeypatch.setattr(Lens, "load", classmethod(lambda cls, path, device="auto": lens))
    run_evaluation(EvaluateRequest(DEMO, tmp_path / "one", problems=2, samples=2, device="cpu"))
    files = sorted(path.name for path in (tmp_path / "one").glob("*.parquet"))
    assert len(files) >= 4
    for name in files:
        assert read_run(tmp_path / "two" / name).equals(read_run(tmp_path / "one" / name)), name
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two")]
    for report in reports:
        report["provenance"].pop("created")
        report["provenance"]["machine"].pop("threads")  # the launcher's processes have one each
    assert reports[0] == reports[1]


def test_machines_that_see_other_inputs_are_refused(source: Path, tmp_path: Path) -> None:
    """Each process reads the file by itself: what the second one has there is another."""
    options = ["--out", str(tmp_path / "run.parquet"), "--checkpoint", "demo"]
    launcher = launch("tests.launching", "reads_another_file", "score", str(source), *options)
    printed = launcher.communicate(timeout=200)[0]
    assert launcher.returncode != 0
    assert "has other inputs, checkpoint or options than process 0" in printed
    assert "give every machine the same of them" in printed
