"""Whole studies of tiny models: killed and gone on with, refused, diverged, with backbones of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from irl_core.checkpoints.load import load_json
from irl_core.errors import ConfigError
from irl_core.models.pretrained import load_causal_lm
from irl_core.reward.discriminator import load_discriminator
from irl_core.storage.training_run import machine, started
from tests.runs import SFT, Killed, status_of, tensors_of
from train.evaluate import rollouts
from train.evaluate.progress import Progress
from train.interruption import Interrupted
from train.run import train
from train.studies import plan
from train.studies.backbone import make_untrained
from train.studies.definitions import STUDIES, Arm, Backbone
from train.studies.runner import planned, study

TINY = (
    "data.train_problems=40", "data.max_completion_tokens=64", "policy.prompts_per_round=2",
    "policy.num_generations=2", "policy.batch_size=2",
)  # fmt: skip
SCALE = 0.02  # a few rounds, and four problems
SEEDS = (1, 2)
EVERY_TEACHING_ARM = {arm.name: arm for arm in STUDIES["teach"].arms}  # the fixture keeps two
MEASURED = ("created", "machine", "versions", "code", "seen")  # may differ between a study and its repetition

honest = rollouts.LoadedPolicy.trace_of


def judge_by_hash(self: rollouts.LoadedPolicy, *arguments: Any) -> Any:
    """An untrained policy solves nothing, and every figure would be 0: let chance, fixed by the text, be the judge."""
    trace = honest(self, *arguments)
    return replace(trace, correct=hashlib.sha256(trace.text.encode()).digest()[0] < 128, truth=None)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with finished starts in it; the studies are of tiny models, few problems and two arms."""
    folder = tmp_path_factory.mktemp("studies")
    train(SFT, folder / "runs" / "demo-sft")
    shutil.copytree(folder / "runs" / "demo-sft", folder / "runs" / "demo-expert")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(rollouts.LoadedPolicy, "trace_of", judge_by_hash)
        patch.setattr(plan, "PROBLEMS", 100)
        patch.setattr(plan, "LEAST_CALIBRATION", 4)
        for name, one in list(STUDIES.items()):
            arms = one.arms if name == "policies" else one.arms[:2]
            patch.setitem(STUDIES, name, replace(one, arms=arms, settings=(*one.settings, *TINY)))
        yield folder


@pytest.fixture(scope="module")
def unbroken(tiny: Path) -> Path:
    """A study of one seed that ran through."""
    small("wasserstein", "unbroken", seeds=(1,))
    return tiny / "unbroken"


def small(name: str, out: str, **more: Any) -> dict[str, Any]:
    return study(name, Path(out), **{"seeds": SEEDS, "scale": SCALE} | more)


def without_measured(path: Path) -> dict[str, Any]:
    return {key: value for key, value in load_json(path).items() if key not in MEASURED}


def assert_same_study(found: Path, expected: Path) -> None:
    assert without_measured(found / "study.json") == without_measured(expected / "study.json")
    for path in sorted(expected.glob("*/*.parquet")):
        assert pq.read_table(found / path.relative_to(expected)).equals(pq.read_table(path)), path.name
    for path in sorted(expected.glob("runs/*")):
        one, other = tensors_of(found / "runs" / path.name / "final"), tensors_of(path / "final")
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in other), path.name


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The process dies the n-th time that something of a training or of a sampling is told."""

    def at(count: int) -> None:
        told = [0]

        def within(self: Progress, *arguments: Any) -> None:
            told[0] += 1
            if told[0] == count:
                raise Killed

        monkeypatch.setattr(Progress, "within", within)

    honest_within = Progress.within
    yield at
    monkeypatch.setattr(Progress, "within", honest_within)


# -------------------------------------------------------------------------------------------------------- whole


def test_a_study_ends_with_its_tables_and_scored_runs(tiny: Path) -> None:
    found = small("policies", "policies")
    out = tiny / "policies"
    names = {f"{arm}-{seed}" for arm in ("start", "irl", "sft", "grpo") for seed in SEEDS}
    assert {path.stem for path in out.glob("samples/*.parquet")} == names
    assert {path.name for path in out.glob("runs/*")} == {name for name in names if not name.startswith("start")}
    assert found["seeds_done"] == [1, 2] and status_of(out)["state"] == "finished"
    assert load_json(out / "study.json")["policies"] == found["policies"]
    for arm in ("start", "irl", "sft", "grpo"):
        for k in (1, 3, 5, 10, 16):
            figure = found["policies"]["figures"][arm][f"pass@{k}"]
            assert figure["n"] == 8 and figure["value"] is not None  # four problems, twice: too few for an interval
            assert figure["interval"] is None and "fewer than 5 problems (4)" in figure["method"]
    assert len(found["policies"]["differences"]) == 6
    assert (out / "study.html").read_text().startswith("<!doctype html>")
    # the same problems for all, 16 samples each, and other samples for another seed
    tables = {path.stem: pq.read_table(path, columns=["problem", "text"]).to_pylist() for path in out.glob("samples/*")}
    problems = {name: [row["problem"] for row in rows] for name, rows in tables.items()}
    assert len({tuple(one) for one in problems.values()}) == 1 and len(problems["irl-1"]) == 4 * 16
    assert tables["start-1"] != tables["start-2"] and tables["irl-1"] != tables["start-1"]


def test_rewards_are_read_on_the_same_samples(unbroken: Path) -> None:
    names = ("bce", "clipped")
    paths = [*(unbroken / f"rewards/{name}-1.parquet" for name in names), unbroken / "samples/start-1.parquet"]
    texts = [pq.read_table(path, columns=["trace_id", "text", "true_first_error_step"]) for path in paths]
    assert {path.stem for path in unbroken.glob("rewards/*")} == {"bce-1", "clipped-1"}
    assert texts[0].equals(texts[2]) and texts[1].equals(texts[2])
    scores = [pq.read_table(path, columns=["score_mean_discounted"])[0].to_pylist() for path in paths]
    assert scores[0] != scores[1] and None not in scores[0] and set(scores[2]) == {None}
    found = load_json(unbroken / "study.json")["rewards"]
    assert {"pairs", "best", "best_lowest"} <= found["figures"]["bce"].keys()
    assert found["gains"].keys() == {"bce", "clipped"}


def test_problems_without_demonstrations(tiny: Path, killed_at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny / "runs" / "demo-sft", tiny / "runs" / "demo-teach-base", dirs_exist_ok=True)
    few = ("data.demonstrations=5", "policy.bare_prompts=1")
    names = ("likelihood", "start_reward", "irl", "process", "process_reward", "grpo")
    chosen = tuple(EVERY_TEACHING_ARM[name] for name in names)
    one = replace(STUDIES["teach"], settings=(*STUDIES["teach"].settings, *few), arms=chosen, problems=500)
    monkeypatch.setitem(STUDIES, "teach", one)
    killed_at(70)
    with pytest.raises(Killed):
        small("teach", "teach", seeds=(1,), scale=0.01)
    killed_at(-1)
    found = small("teach", "teach", seeds=(1,), scale=0.01)
    assert {path.name for path in (tiny / "teach" / "runs").iterdir()} == {f"{arm.name}-1" for arm in chosen}
    read = {path.stem for path in (tiny / "teach" / "rewards").iterdir()}
    assert read == {f"{name}-1" for name in names if name not in ("likelihood", "grpo")}
    # labels teach a reward and no policy; the next arm's policy follows that reward, which stays as it is
    labelled, followed = (tensors_of(tiny / f"teach/runs/{name}-1/final") for name in ("process", "process_reward"))
    assert all(torch.equal(value, followed[key]) == key.startswith("discriminator") for key, value in labelled.items())
    start = tensors_of(tiny / "teach" / "starts" / "start" / "final")
    assert all(torch.equal(value, labelled[key]) for key, value in start.items())
    assert set(found["starts"]) == {"demo-teach-base", "the start"}
    seen = found["seen"]
    assert {one["demonstrations"] for one in seen.values()} == {5}
    assert seen["irl"]["by_policy"] == seen["start_reward"]["by_discriminator"] == seen["likelihood"]["bare"] == 0
    assert seen["grpo"]["bare"] == seen["irl"]["bare"] > 0 and seen["irl"]["samples"] > seen["grpo"]["samples"]
    parts = {title: sum(n for n in (one["figures"]["irl"]["pass@1"]["n"],)) for title, one in found["parts"].items()}
    assert parts.keys() == {"families with demonstrations", "families without any"} and sum(parts.values()) == 10
    assert not any("ublished" in line for line in (tiny / "teach" / "study.md").read_text().splitlines())


# ----------------------------------------------------------------------------------------------- stopped, resumed


@pytest.mark.parametrize("count", [30, 66, 150])  # the start is sampled, the first arm trained, the second sampled
def test_a_killed_study_ends_as_an_unbroken_one(tiny: Path, unbroken: Path, count: int, killed_at: Any) -> None:
    out = tiny / f"killed-{count}"
    killed_at(count)
    with pytest.raises(Killed):
        small("wasserstein", out.name, seeds=(1,))
    assert not (out / "study.json").exists()
    killed_at(-1)
    small("wasserstein", out.name, seeds=(1,))
    assert_same_study(out, unbroken)


def test_what_is_finished_is_not_made_again(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **more: Any) -> None:
        raise AssertionError("made again")

    first = without_measured(unbroken / "study.json")
    monkeypatch.setattr("train.studies.runner.train", never)
    monkeypatch.setattr(rollouts, "unscored_row", never)
    monkeypatch.setattr(rollouts, "scored_rows", never)
    small("wasserstein", "unbroken", seeds=(1,))
    assert without_measured(unbroken / "study.json") == first


def test_a_stop_request_saves_and_says_so(tiny: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def within(self: Progress, *arguments: Any) -> None:
        told.append(True)
        if len(told) == 65:  # after the first round of the first arm
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "within", within)
        with pytest.raises(Interrupted):
            small("wasserstein", "asked", seeds=(1,))
    assert status_of(tiny / "asked")["state"] == "interrupted"
    assert status_of(tiny / "asked" / "runs" / "bce-1")["state"] == "interrupted"
    small("wasserstein", "asked", seeds=(1,))
    assert_same_study(tiny / "asked", unbroken)


# ---------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("name", "more", "what"),
    [
        ("wasserstein", {"seeds": (1, 2)}, r"seeds \(then \[1\], now \[1, 2\]\)"),
        ("wasserstein", {"scale": 0.05}, r"scale \(then [0-9.]+, now 0.05\), settings"),
        ("perturbation", {}, r'study \(then "wasserstein", now "perturbation"\)'),
    ],
)
def test_another_study_in_the_folder_is_refused(unbroken: Path, name: str, more: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=f"unbroken: holds a study that differs in {what}; name another --out"):
        small(name, "unbroken", **{"seeds": (1,)} | more)
    assert status_of(unbroken)["state"] == "finished"


def test_what_is_there_can_be_thrown_away(tiny: Path, unbroken: Path, killed_at: Any) -> None:
    out = tiny / "again"
    shutil.copytree(unbroken, out)
    (out / "mine.txt").write_text("kept")
    killed_at(1)
    with pytest.raises(Killed):
        small("wasserstein", "again", seeds=(5,), resume=False)
    assert not (out / "runs").exists() and not (out / "study.md").exists() and not (out / "rewards").exists()
    assert load_json(out / "order.json")["seeds"] == [5] and (out / "mine.txt").exists()


def test_a_folder_with_runs_of_something_else_is_left_alone(tiny: Path) -> None:
    kept = tiny / "mine" / "runs" / "irl-1"
    kept.mkdir(parents=True)
    for resume in (True, False):
        with pytest.raises(ConfigError, match="mine: holds runs of something else; name another --out"):
            small("policies", "mine", resume=resume)
    assert kept.is_dir()


def test_a_study_that_is_being_made_is_not_made_twice(tiny: Path) -> None:
    (tiny / "busy").mkdir()
    status = {"state": "running", "pid": os.getppid(), "process_started": started(os.getppid()), "machine": machine()}
    (tiny / "busy" / "status.json").write_text(json.dumps(status))
    with pytest.raises(ConfigError, match=f"busy is being written by .*{os.getppid()}"):
        small("policies", "busy")


def test_a_run_that_diverges_is_told_and_not_counted(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(config: Any, run_dir: Path, *arguments: Any, **more: Any) -> Path:
        if run_dir.name == "clipped-2":
            raise FloatingPointError("the loss is nan")
        return train(config, run_dir, *arguments, **more)

    monkeypatch.setattr("train.studies.runner.train", diverging)
    found = small("wasserstein", "diverged")
    assert found["failed"] == {"clipped-2": "the loss is nan"}
    policies = found["policies"]["figures"]
    assert (policies["bce"]["pass@1"]["n"], policies["clipped"]["pass@1"]["n"]) == (8, 4)
    (between,) = [one for one in found["policies"]["differences"] if one["theirs"] == "bce"]
    assert (between["ours"], between["figures"]["pass@1"]["n"]) == ("clipped", 4)
    assert "Diverged, and counted in no figure of its arm: clipped-2" in (tiny / "diverged" / "study.md").read_text()


def test_missing_starts_are_trained_first(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("trained first" in line for line in planned("policies", seeds=(1,), scale=SCALE))
    shutil.copytree(tiny / "runs" / "demo-sft", tmp_path / "runs" / "demo-sft")
    monkeypatch.chdir(tmp_path)
    assert any(line.startswith("demo-expert: trained first") for line in planned("policies", seeds=(1,), scale=SCALE))
    trained = []

    def stands_in(config: Any, run_dir: Path, *arguments: Any, **more: Any) -> Path:
        trained.append((config.run.preset, str(run_dir)))
        if run_dir.name != "demo-expert":
            raise Killed
        shutil.copytree(tiny / "runs" / "demo-expert", run_dir)
        return run_dir / "final"

    monkeypatch.setattr("train.studies.runner.train", stands_in)
    with pytest.raises(Killed):
        small("policies", "new", seeds=(1,))
    assert trained == [("demo-expert", "runs/demo-expert"), ("demo-irl", "new/runs/irl-1")]


# ------------------------------------------------------------------------------------------------- backbones


def test_backbones_read_the_same_tokens_and_are_what_they_say(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ("data.train_problems=40", "data.drills=0", "data.max_completion_tokens=64", "policy.batch_size=2")
    halved, nothing = Backbone("small", smaller=2, steps=100, settings=changes), Backbone("nothing")
    arms = tuple(Arm(name, name, "demo-irl", backbone=name) for name in ("small", "nothing"))
    one = replace(STUDIES["backbones"], backbones=(halved, nothing), arms=arms)
    monkeypatch.setitem(STUDIES, "backbones", one)
    found = small("backbones", "backbones", seeds=(1,))
    out = tiny / "backbones"
    assert set(found["starts"]) == {"demo-sft", "demo-expert", "backbone small", "backbone nothing"}
    start = load_causal_lm(tiny / "runs" / "demo-sft" / "final" / "policy")
    assert shape_of(out / "runs" / "nothing-1" / "final" / "discriminator") == (24, 2, start.config.vocab_size)
    assert shape_of(out / "runs" / "small-1" / "final" / "discriminator") == (12, 1, start.config.vocab_size)
    untrained = load_causal_lm(out / "starts" / "nothing-untrained" / "policy")
    assert not torch.equal(untrained.get_input_embeddings().weight, start.get_input_embeddings().weight)
    random, trained = tensors_of(out / "starts" / "small-untrained"), tensors_of(out / "starts" / "small" / "final")
    assert trained.keys() == random.keys() and all(not torch.equal(trained[key], random[key]) for key in random)
    again = make_untrained(tiny / "runs" / "demo-sft" / "final", tiny / "repeated", nothing)
    assert all(
        torch.equal(value, untrained.state_dict()[name.partition(":")[2]]) for name, value in tensors_of(again).items()
    )
    assert found["arms"]["small"]["backbone"] == "small"


def shape_of(folder: Path) -> tuple[int, int, int]:
    config = load_discriminator(folder).backbone.config
    return config.hidden_size, config.num_hidden_layers, config.vocab_size


def test_a_shape_that_cannot_be_divided_is_refused(tiny: Path) -> None:
    said = "the start's hidden_size is 24, which 5 does not divide; the backbone small cannot be made of it"
    with pytest.raises(ConfigError, match=said):
        make_untrained(tiny / "runs" / "demo-sft" / "final", tiny / "odd", Backbone("small", smaller=5))
    assert not (tiny / "odd").exists()
