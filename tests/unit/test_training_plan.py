"""What the training form asks for: choices from the types, overrides, names, the plan and its refusals in words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from app.jobs import training_plan
from app.jobs.training_plan import FIELDS, PlanError, Wish, allowed, limits, overrides, value_of
from irl_core.config import PerturbationKind, TrainConfig, load_config

PRESETS = Path(__file__).resolve().parents[2] / "train" / "configs"
DEMO = load_config("demo-irl", presets_dir=PRESETS).to_dict()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------ what can be asked for


def test_allowed_values_are_those_of_the_types() -> None:
    assert allowed("run.method") == ("sft", "irl", "grpo")
    assert allowed("discriminator.loss") == ("bce", "wasserstein", "sequence")
    assert allowed("discriminator.perturbations") == get_args(PerturbationKind)
    assert allowed("data.source") == ()


def test_limits_are_those_of_the_types() -> None:
    assert limits("run.seed") == (0, 2**32 - 1)
    assert limits("run.steps") == (1, None)
    assert limits("policy.num_generations") == (1, None)


def test_every_field_of_the_form_is_a_setting() -> None:
    for key in FIELDS:
        assert value_of(TrainConfig().to_dict(), key) is not None


def test_only_what_differs_from_the_preset_is_overridden() -> None:
    same = {key: value_of(DEMO, key) for key in FIELDS}
    assert overrides(DEMO, same) == ()
    other = same | {"run.steps": 20, "discriminator.perturbations": ["swap_answer"], "data.source": "my data: a.jsonl"}
    assert overrides(DEMO, other, " run.keep=1 \n\n policy.gamma=0.8") == (
        'data.source="my data: a.jsonl"',
        "run.steps=20",
        'discriminator.perturbations=["swap_answer"]',
        "run.keep=1",
        "policy.gamma=0.8",
    )


@pytest.mark.parametrize("text", ["demo", "a/b.jsonl", "my data: a.jsonl", "3", "true", "[a", "é", " #x", "null"])
def test_a_text_is_read_back_as_the_same_text(text: str) -> None:
    (override,) = overrides(DEMO, {"data.source": text}) or ("data.source=demo",)
    assert load_config("demo-irl", [override], PRESETS).data.source == text


def test_the_command_trains_what_was_asked_for() -> None:
    wish = Wish("demo-irl", ("run.steps=20", "--force=1"), "mine")
    command = wish.command()
    assert command[1:] == [
        "-m", "train.cli.main", "train", "demo-irl", "--set=run.steps=20", "--set=--force=1", "--run-dir=runs/mine"
    ]  # fmt: skip
    assert wish.command(force=True) == [*command, "--force"]
    assert training_plan.shown_command(wish) == (
        "irl-lens train demo-irl --set run.steps=20 --set --force=1 --run-dir runs/mine"
    )
    assert (wish.title, Wish("demo-irl", (), "demo-irl").title) == ("mine (demo-irl)", "demo-irl")


def test_a_name_is_free_and_proper(folder: Path) -> None:
    assert training_plan.free_name("demo-irl") == "demo-irl"
    (folder / "runs" / "demo-irl").mkdir(parents=True)
    (folder / "runs" / "demo-irl-2").mkdir()
    assert training_plan.free_name("demo-irl") == "demo-irl-3"
    training_plan.check_name("demo-irl-3")
    with pytest.raises(PlanError, match="There is a run demo-irl already; take another name, or resume that one"):
        training_plan.check_name("demo-irl")


@pytest.mark.parametrize("name", ["", "..", "../x", "/tmp/x", "a/b", "-x", ".x", "a b", "a\0", "x" * 65, "é", "a\n"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="letters, digits"):
        training_plan.check_name(name)


# ------------------------------------------------------------------------------------------------------------ answers


def test_presets_come_from_the_command() -> None:
    found = training_plan.presets()
    assert next(iter(found)) == "demo-control" and found["demo-irl"]["configuration"] == DEMO


def test_a_plan_comes_from_a_dry_run() -> None:
    found = training_plan.plan(Wish("demo-sft", ("run.steps=20", "run.seed=5"), "x"))
    assert (found["steps"], found["configuration"]["run"]["seed"]) == (20, 5)
    assert training_plan.device_of(found) in ("cpu", "cuda") and not Path("runs").exists()
    assert training_plan.sentences(found)[0].startswith("sft, 20 steps: about ")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.stepz=5", "Unknown key 'run.stepz'; nearest is 'run.steps'."),
        ("run.steps=-1", r"run.steps is -1; it must lie in \[1, inf\)."),
        ("discriminator.loss=wasserstein", "discriminator.loss is 'wasserstein' without a bound; set "),
        ("nonsense", "Override 'nonsense'; key.sub=value is expected"),
        ("data.source=/nonexistent/x.jsonl", "x.jsonl"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_command(override: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        training_plan.plan(Wish("demo-irl", (override,), "x"))


def test_a_setting_with_a_nul_is_refused() -> None:
    with pytest.raises(PlanError, match="could not be started"):
        training_plan.plan(Wish("demo-irl", ("data.source=a\0b",), "x"))


def test_no_answer_and_an_answer_that_is_not_json_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "command_line", lambda *_: [sys.executable, "-c", "print('hello')"])
    with pytest.raises(PlanError, match="irl-lens presets answered with something other than JSON"):
        training_plan.presets()

    def late(*_: Any, **__: Any) -> None:
        raise subprocess.TimeoutExpired("x", 1)

    monkeypatch.setattr(training_plan.subprocess, "run", late)
    with pytest.raises(PlanError, match="irl-lens presets gave no answer within 120 s"):
        training_plan.presets()


# ------------------------------------------------------------------------------------------------------------ in words


def planned(**changes: Any) -> dict[str, Any]:
    memory = {
        "device": "the CPU of this machine", "device_kind": "cpu", "total_bytes": 2.04e9, "free_bytes": 8e9,
        "largest_phase": "policy", "fits": True, "mend": None,
    }  # fmt: skip
    origin = {"role": "policy", "name": "a/b", "kind": "download", "note": "gated", "download_bytes": 5_000_000_000}
    found: dict[str, Any] = {
        "method": "irl", "steps": 100, "memory": memory, "models": [origin],
        "data": {"role": "data", "name": "demo", "kind": "made", "note": "", "download_bytes": 0},
        "time": {"total_seconds": 5400, "machine": "2 CPU cores", "evaluation_seconds": 1000.0,
                 "step_seconds": {"sampling": 40.0, "policy": 10.0}},
        "configuration": {"run": {"steps": 100, "eval_every": 10, "after": ["demo-sft"]}},
        "download_bytes": 5_000_000_000,
    }  # fmt: skip
    return found | changes


def test_the_plan_in_words() -> None:
    assert training_plan.sentences(planned()) == [
        "irl, 100 steps: about 1.5 h on 2 CPU cores",
        "Memory: about 2.0 GB at the peak (policy); the CPU of this machine has 8.0 GB free",
        "Policy: a/b, download (gated)",
        "Data: demo, made",
        "To download: 5.0 GB",
    ]
    assert training_plan.sentences(planned(download_bytes=None))[-1] == "Size of the download not known"
    assert training_plan.sentences(planned(download_bytes=0))[-1] == "Data: demo, made"


def test_what_is_not_here_and_cannot_be_had_is_named_without_a_path() -> None:
    assert training_plan.lacking(planned()) == ""
    origin = planned()["models"][0] | {"kind": "missing", "note": "not in the cache /home/me/.cache"}
    found = planned(models=[origin, origin | {"role": "discriminator"}])
    assert training_plan.lacking(found).startswith("Not on this machine, and the hub was not reached: a/b. Download it")
    assert "Policy: a/b, missing" in training_plan.sentences(found)


def test_a_time_of_another_machine_is_said_to_be_such() -> None:
    time = planned()["time"] | {"machine": "A100 40 GB"}
    assert training_plan.sentences(planned(time=time))[0].endswith(
        "on A100 40 GB; this machine has no such GPU, and its CPU is many times slower"
    )


def test_what_does_not_fit_names_the_setting_to_change() -> None:
    assert training_plan.refusal(planned()) == ""
    memory = planned()["memory"] | {"fits": False, "mend": "Set run.batch_tokens=8192 (then about 7.0 GB)"}
    assert training_plan.refusal(planned(memory=memory)) == (
        "It does not fit. Set run.batch_tokens=8192 (then about 7.0 GB)."
    )


def test_the_grace_is_thrice_a_step_with_its_evaluation_and_never_short() -> None:
    # 40 + 10 s a step, 1000 s in 100 // 10 = 10 evaluations: 3 * (50 + 100) = 450
    assert training_plan.grace_of(planned()) == 450
    time = {"step_seconds": {"policy": 1.0}, "evaluation_seconds": 0.0}
    assert training_plan.grace_of(planned(time=time)) == 120
    never = {"run": {"steps": 100, "eval_every": 0, "after": []}}
    assert training_plan.grace_of(planned(configuration=never)) == 3150


def test_what_is_trained_first_is_named(folder: Path) -> None:
    assert training_plan.trained_first(planned()) == ["demo-sft"]
    final = folder / "runs" / "demo-sft" / "final"
    final.mkdir(parents=True)
    (final / "manifest.json").write_text("{}")
    assert training_plan.trained_first(planned()) == []


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (3600, "1.0 h")])
def test_durations(seconds: float, words: str) -> None:
    assert training_plan.duration(seconds) == words
