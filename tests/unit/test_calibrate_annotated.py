"""irl-lens calibrate: annotations become a rule and limits, in a checkpoint of its own; refusals in words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from irl_core.checkpoints.manifest import verify
from irl_core.data.annotations import Annotation, Annotations, text_hash, to_jsonl
from irl_core.errors import InputError
from irl_core.reward import calibration
from irl_core.reward.calibration import HeldOut
from irl_core.reward.localisation import Calibration, Rule
from irl_core.statistics.first_error import NO_ERROR, UNDECIDED
from irl_core.storage.scored_run import read_run
from irl_core.types import Step
from train import calibrate_annotated as calibrate
from train.calibrate_annotated import CalibrationRequest, agreed_labels, calibrate_annotated, fit, labelled_traces
from train.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
RUN, DEMO = ROOT / "assets" / "scored_run" / "run.parquet", ROOT / "assets" / "demo"
OLD = Calibration(Rule("raw", "min"), -9.0, -8.0, 0.1, 0.2, 1, (-9.0,), (0.0, 1.0), (0.0, 1.0))


def said(key: str, annotator: str, step: int | None, *, verdict: str = "", **more: Any) -> Annotation:
    known = "error" if step is not None else "none"
    values = {"run": "r", "trace_id": key, "text_sha256": key, "problem_id": key, "created": "2026-11-23T00:00:00"}
    return Annotation(**{**values, "annotator": annotator, "verdict": verdict or known, "step": step, **more})


def test_labels_are_what_most_of_the_sure_say() -> None:
    words = [
        said("a", "x", 1), said("a", "y", 1), said("a", "z", None),  # two against one
        said("b", "x", 1), said("b", "y", None),  # a tie
        said("c", "x", None, verdict="unsure"), said("c", "y", 2),  # the unsure do not vote
        said("d", "x", None, verdict="unsure"),
        said("e", "x", 1), said("e", "x", None, created="2026-11-23T00:00:01"),  # the newest word counts
        said("f", "x", 3, blind=False),
    ]  # fmt: skip
    found = agreed_labels(words)
    assert found.steps == {"a": 1, "c": 2, "e": None} and found.annotators == 3
    assert found.left_out == {"not blind": 1, "annotators disagree": 1, "unsure": 1}
    assert agreed_labels(words, seen=True).steps["f"] == 3


def traces(n: int, seed: int = 0) -> list[HeldOut]:
    """Two steps of two tokens; where the trace is wrong, the wrong step's credit is -5, every other about 0."""
    rng, steps = np.random.default_rng(seed), (Step(0, 2, "ab"), Step(2, 4, "cd"))
    found = []
    for number in range(n):
        wrong = (None, 0, 1)[number % 3]
        values = rng.normal(0, 0.1, 4).astype(np.float32)
        if wrong is not None:
            values[2 * wrong] = -5.0
        signals = {"credit": values, "raw": rng.normal(size=4), "discounted": rng.normal(size=4)}
        found.append(HeldOut(signals, [(0, 1), (1, 2), (2, 3), (3, 4)], steps, wrong, f"p{number}"))
    return found


def test_the_telling_signal_is_chosen_and_judged_on_problems_it_was_not_chosen_on() -> None:
    found = fit(traces(120), OLD)
    assert found.calibration.rule.signal == "credit"
    assert found.figures.error_acc.value == 1.0 and found.figures.error_acc.n == 80
    assert 0.7 < found.figures.correct_acc.value <= 1.0
    assert found.before.error_acc.value == 0.0  # its threshold lies below every reward


def test_every_trace_is_judged_by_a_calibration_without_its_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    real = calibration.calibrate

    def spy(among: list[HeldOut], *args: Any, **named: Any) -> Calibration:
        seen.append({one.problem_id for one in among})
        return real(among, *args, **named)

    monkeypatch.setattr(calibrate, "calibrate", spy)
    fit(traces(30), OLD)
    everyone = {f"p{number}" for number in range(30)}
    held_out = [everyone - one for one in seen[:-1]]
    assert [len(part) for part in held_out] == [6] * 5 and set.union(*held_out) == everyone and seen[-1] == everyone


def test_decisions_as_labels() -> None:
    steady = np.zeros(4, np.float32)
    one = traces(2)[1]
    sure = replace(OLD, rule=Rule("credit", "min"), threshold=-1.0, uncertain_threshold=-0.9)
    assert calibrate.predicted_step(one, sure) == 0
    assert (
        calibrate.predicted_step(replace(one, signals={"credit": steady + np.float32([0, 0, 0, 1])}), sure) == NO_ERROR
    )
    assert calibrate.predicted_step(replace(one, signals={"credit": steady}), sure) == UNDECIDED  # no signal


# --------------------------------------------------------------------------------- the bundled run and checkpoint


def annotated(problems: int) -> list[Annotation]:
    """The truth of the first bundled problems, as a person would have said it."""
    columns = ["trace_id", "problem_id", "problem", "text", "true_first_error_step", "n_steps"]
    rows = [row for row in read_run(RUN, columns).to_pylist() if row["true_first_error_step"] is not None]
    chosen = set(list(dict.fromkeys(row["problem_id"] for row in rows))[:problems])
    return [
        said(
            text_hash(row["problem"], row["text"]), "ann", step if step >= 0 else None,
            trace_id=row["trace_id"], problem_id=row["problem_id"], run="scored_run",
        )
        for row in rows
        if row["problem_id"] in chosen and (step := row["true_first_error_step"]) < row["n_steps"]
    ]  # fmt: skip


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("annotations") / "annotations.jsonl"
    path.write_text(to_jsonl(annotated(30)), encoding="utf-8")
    return path


def test_a_new_checkpoint_is_written_and_the_old_one_stays(export: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in DEMO.rglob("*.json")}
    lines = list(calibrate_annotated(CalibrationRequest(export, RUN, DEMO, tmp_path / "mine")))
    assert {path: path.read_bytes() for path in DEMO.rglob("*.json")} == before
    verify(tmp_path / "mine")
    config, old = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "mine", DEMO))
    assert Calibration.from_json(config["localisation"]).rule.signal in ("raw", "credit", "discounted")
    assert config["localisation"] != old["localisation"] and config["name"] == "mine"
    assert config["reference"] == old["reference"] and config["train_config"] == old["train_config"]
    assert config["provenance"]["weights_of"] == calibrate.fingerprint(DEMO)
    assert config["provenance"]["calibrated_on"] in lines[0].replace("labelled", "annotated") + " annotators"
    assert any("5-fold by problem: F1 0." in line for line in lines)
    again = list(
        calibrate_annotated(CalibrationRequest(export, RUN, tmp_path / "mine", tmp_path / "more"))
    )  # a copy has the same weights
    assert again[:-1][0] == lines[0]


def test_a_database_gives_what_its_export_gives(export: Path, tmp_path: Path) -> None:
    store = Annotations(tmp_path / "annotations.sqlite")
    store.add_all(annotated(30))
    assert calibrate.read_annotations(store.path) == calibrate.read_annotations(export)


def test_labels_of_other_texts_and_impossible_steps_are_counted() -> None:
    words = annotated(2)
    words[0] = replace(words[0], text_sha256="0" * 64)
    index = next(place for place, one in enumerate(words[1:], 1) if one.text_sha256 != words[0].text_sha256)
    words = [one for one in words if one.text_sha256 != words[index].text_sha256] + [
        replace(words[index], verdict="error", step=99)
    ]
    found, lost = labelled_traces(RUN, agreed_labels(words))
    assert lost == {"not in this run": 1, "without rewards, or a step that the solution does not have": 1}
    assert len(found) == len({one.text_sha256 for one in words}) - 2


@pytest.mark.parametrize(("problems", "message"), [(3, "needed are 20 problems, there are 3"), (0, "there are 0")])
def test_too_few_are_refused_with_what_is_needed(tmp_path: Path, problems: int, message: str) -> None:
    path = tmp_path / "few.jsonl"
    path.write_text(to_jsonl(annotated(problems)), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(calibrate_annotated(CalibrationRequest(path, RUN, DEMO, tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_checkpoint_is_refused(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "read_provenance", lambda path: {"checkpoint_sha256": "1" * 64})
    with pytest.raises(InputError, match=r"run\.parquet was not scored by the checkpoint demo"):
        list(calibrate_annotated(CalibrationRequest(export, RUN, DEMO, tmp_path / "out")))


def test_faults_are_plain_lines(export: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name a new folder, since no checkpoint is changed"):
        list(calibrate_annotated(CalibrationRequest(export, RUN, DEMO, DEMO)))
    for name, data, message in (
        ("no.jsonl", None, "is not there"),
        ("other.jsonl", b'{"run": 1}\n', r"other\.jsonl: line 1: this is no annotation"),
        ("bad.jsonl", b'{"annotator": "ada", "run": 1}\n', r"bad\.jsonl: line 1: run is 1 \(a whole number\)"),
        ("latin.jsonl", b"\xff\xfe", "not UTF-8"),
        ("odd.sqlite", b"no database" * 100, "is damaged"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=message):
            list(calibrate_annotated(CalibrationRequest(tmp_path / name, RUN, DEMO, tmp_path / "out")))


def test_the_command(export: Path, tmp_path: Path) -> None:
    arguments = ["--annotations", str(export), "--run", str(RUN), "--out", str(tmp_path / "mine")]
    result = CliRunner().invoke(cli, ["calibrate", *arguments])
    assert result.exit_code == 0, result.output
    assert "Rule " in result.output and "demo is as it was" in result.output
