"""What the training form asks for: choices from the types, overrides, names, the plan and its refusals in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from app.jobs import machine, training_plan
from app.jobs.training_plan import (
    DATA,
    GROUP,
    LOSS,
    METHOD,
    PERTURBATIONS,
    SEED,
    STEPS,
    PlanError,
    TrainingRequest,
    allowed,
    limits,
    overrides,
)
from irl_core.config import PerturbationKind, TrainConfig
from irl_core.errors import ConfigError
from irl_core.presets import load_config
from train.planning.describe import hours, to_json
from train.planning.duration import A100, CPU, Durations
from train.planning.fitting import settings_that_fit, value_of
from train.planning.memory import Memory, Pair, Part
from train.planning.plan import Device, Plan, tiny_shape
from train.planning.sources import Origin

FIELDS = (METHOD, DATA, STEPS, SEED, GROUP, PERTURBATIONS, LOSS)
ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "train" / "configs"
DEMO = load_config("demo-irl", presets_dir=PRESETS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------------------ what can be asked for


def test_allowed_values_are_those_of_the_types() -> None:
    assert allowed("run.method") == ("sft", "irl", "grpo", "process")
    assert allowed("discriminator.loss") == ("bce", "wasserstein", "sequence", "relativistic", "maxent", "outcome")
    assert allowed("discriminator.perturbations") == get_args(PerturbationKind)
    assert allowed("data.source") == ()


def test_limits_are_those_of_the_types() -> None:
    assert limits("run.seed") == (0, 2**32 - 1)
    assert limits("run.steps") == (1, None)
    assert limits("policy.num_generations") == (1, None)


def test_every_field_of_the_form_is_a_setting() -> None:
    for key in FIELDS:
        assert value_of(TrainConfig(), key) is not None


def test_only_what_differs_from_the_preset_is_overridden() -> None:
    same = {key: value_of(DEMO, key) for key in FIELDS}
    same["discriminator.perturbations"] = list(same["discriminator.perturbations"])  # as the widget returns it
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
    request = TrainingRequest("demo-irl", ("run.steps=20", "--force=1"), "mine")
    command = request.command()
    assert command[1:] == [
        "-m", "train.cli.main", "train", "demo-irl", "--set=run.steps=20", "--set=--force=1", "--run-dir=runs/mine"
    ]  # fmt: skip
    assert request.command(force=True) == [*command, "--force"]
    assert request.shell_command() == ("irl-lens train demo-irl --set run.steps=20 --set --force=1 --run-dir runs/mine")
    assert request.title == request.name == "mine"  # one name in the sidebar, on Training curves and on Runs


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


def test_presets_are_those_of_the_planning() -> None:
    found = training_plan.presets()
    assert next(iter(found)) == "demo-best-of-n" and found["demo-irl"].config == DEMO


def test_a_preset_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise ConfigError("demo-irl.yaml: not YAML")

    monkeypatch.setattr(training_plan, "all_presets", damaged)
    with pytest.raises(PlanError, match=r"^demo-irl.yaml: not YAML\.$"):
        training_plan.presets()


def test_a_plan_is_made_without_starting_anything() -> None:
    plan = training_plan.plan(TrainingRequest("demo-sft", ("run.steps=20", "run.seed=5"), "x"))
    assert (plan.config.run.steps, plan.config.run.seed) == (20, 5)
    assert plan.device.kind in ("cpu", "cuda") and not Path("runs").exists()
    assert training_plan.lines_of(plan)[0].startswith("sft, 20 steps: about ")


def test_the_plan_is_that_of_the_command() -> None:
    """Memory that is free changes from one moment to the next; everything else must be the same."""
    request = TrainingRequest("demo-irl", ("run.steps=20",), "x")
    dry = [*(part for part in request.command() if not part.startswith("--run-dir")), "--dry-run", "--json"]
    done = subprocess.run(dry, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    told, plan = (
        json.loads(done.stdout),
        to_json(training_plan.plan(request)),
    )
    assert told["memory"].pop("free_bytes") > 0 and plan["memory"].pop("free_bytes") > 0
    assert plan == told


def test_planning_loads_no_torch() -> None:
    code = (
        "import sys; from app.jobs import training_plan as t\n"
        "t.presets(); t.plan(t.TrainingRequest('demo-irl', (), 'x'))\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
        training_plan.plan(TrainingRequest("demo-irl", (override,), "x"))


def test_a_setting_with_a_nul_is_refused() -> None:
    with pytest.raises(PlanError, match="could not be started"):
        training_plan.plan(TrainingRequest("demo-irl", ("data.source=a\0b",), "x"))


def test_a_hub_that_does_not_answer_is_waited_for_no_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(training_plan, "make_plan", lambda *_, **__: gate.wait())
    assert training_plan.SECONDS_FOR_ANSWER == 120
    monkeypatch.setattr(training_plan, "SECONDS_FOR_ANSWER", 0.2)
    with pytest.raises(PlanError, match=r"The plan of demo-irl gave no answer within 0.2 s; try again"):
        training_plan.plan(TrainingRequest("demo-irl", (), "x"))
    gate.set()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("unknown key 'run.stepz'", "Unknown key 'run.stepz'."),
        ("run.steps is -1;\n  it must be larger.", "run.steps is -1; it must be larger."),
        ("x" * 2000, "X" + "x" * 999 + "."),
    ],
)
def test_an_error_becomes_a_sentence(message: str, told: str) -> None:
    assert training_plan.sentence(message) == told


# ---------------------------------------------------------------------------------------------------------- the device


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs and a torch that can use them."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\nif [ \"$1$2\" = -i1 ]; then echo 'NVIDIA L40S, 40000, 46068'; "
        "else echo 'NVIDIA H200, 143000, 143771'; echo 'NVIDIA L40S, 40000, 46068'; fi\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(machine.shutil, "which", lambda _: str(program))
    monkeypatch.setattr(machine, "GPU_CONTROL", tmp_path)
    monkeypatch.setattr(machine.metadata, "version", lambda _: "2.9.1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return program


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, Device("NVIDIA H200", "cuda", 143771 * 2**20, 143000 * 2**20)),
        ("1,0", Device("NVIDIA L40S", "cuda", 46068 * 2**20, 40000 * 2**20)),
    ],
)
def test_the_first_gpu_that_may_be_used_is_planned_for(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: Device
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.training_device() == expected


@pytest.mark.parametrize("why", ["no driver", "no gpu is visible", "torch without CUDA"])
def test_the_cpu_is_planned_for_where_no_gpu_can_be_used(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "no driver":
        monkeypatch.setattr(machine, "GPU_CONTROL", Path("nowhere"))
    elif why == "no gpu is visible":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    else:
        monkeypatch.setattr(machine.metadata, "version", lambda _: "2.9.1+cpu")
    found = machine.training_device()
    assert (found.name, found.kind) == ("the CPU of this machine", "cpu") and 0 < found.free <= found.total


def test_torch_is_asked_where_nvidia_smi_does_not_say(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Device("GPU 0", "cuda", 2e9, 1e9)
    monkeypatch.setattr(machine, "this_device", lambda: asked)
    nvidia_smi.write_text("#!/bin/sh\necho 'NVIDIA GB10, [N/A], [N/A]'\n")
    assert machine.training_device() == asked
    nvidia_smi.write_text("#!/bin/sh\nexit 9\n")
    assert machine.training_device() == asked


# ------------------------------------------------------------------------------------------------------------ in words


CONFIG = load_config("demo-irl", ["run.steps=100", "run.eval_every=10", "run.after=[demo-sft]"], PRESETS)
POLICY = Origin("policy", "a/b", "download", download_bytes=5_000_000_000, note="gated")
PLAN = Plan(
    CONFIG, (POLICY, Origin("data", "demo", "made")), Pair(tiny_shape(CONFIG)), Memory((Part("a", 2.04e9, "policy"),)),
    Durations(CPU, 100, {"sampling": 40.0, "policy": 10.0}, evaluations=1000.0, start=0.0),
    Device("the CPU of this machine", "cpu", 16e9, 8e9),
)  # fmt: skip


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan.psutil, "cpu_count", lambda: 2)


def test_the_plan_in_words(two_cores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "trained_first", lambda plan: {})
    lines = training_plan.lines_of(PLAN)
    assert lines == [
        "irl, 100 steps: about 1.7 h on 2 CPU cores",  # 100 * (40 + 10) + 1000 = 6000 s
        "Memory: about 2.0 GB at the peak (policy); the CPU of this machine has 8.0 GB free",
        "Policy: a/b, download (gated)",
        "Data: demo, made",
        "To download: 5.0 GB",
    ]
    unknown = replace(PLAN, origins=(replace(POLICY, download_bytes=None), *PLAN.origins[1:]))
    assert training_plan.lines_of(unknown)[-1] == "Size of the download not known"
    here = replace(PLAN, origins=(replace(POLICY, download_bytes=0), *PLAN.origins[1:]))
    assert training_plan.lines_of(here)[-1] == "Data: demo, made"


def test_what_is_not_here_and_cannot_be_had_is_named_without_a_path() -> None:
    assert training_plan.missing(PLAN) == ""
    origin = replace(POLICY, kind="missing", note="not in the cache /home/me/.cache")
    plan = replace(PLAN, origins=(origin, replace(origin, role="discriminator"), *PLAN.origins[1:]))
    assert training_plan.missing(plan).startswith("Not on this machine, and the hub was not reached: a/b. Download it")
    assert "Policy: a/b, missing" in training_plan.lines_of(plan)


def test_a_time_of_another_machine_is_said_to_be_such(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, durations=replace(PLAN.durations, machine=A100))
    assert training_plan.machine_words(plan) == "an A100 40 GB, which this machine does not have"
    assert training_plan.needs_gpu(plan).startswith("demo-irl is made for a GPU, and this machine has none: its CPU")
    assert training_plan.needs_gpu(PLAN) == ""
    assert training_plan.needs_gpu(replace(plan, device=replace(PLAN.device, kind="cuda"))) == ""
    monkeypatch.setattr(training_plan.psutil, "cpu_count", lambda: 8)
    assert training_plan.machine_words(PLAN) == "2 CPU cores (this machine has 8)"


def test_what_does_not_fit_names_the_setting_to_change() -> None:
    assert training_plan.too_large(PLAN) == ""
    tight = replace(PLAN, device=replace(PLAN.device, free=2e9))
    assert training_plan.too_large(tight) == f"It does not fit. {settings_that_fit(tight)}."
    assert settings_that_fit(tight).startswith(("Set ", "No setting"))


def test_the_grace_is_thrice_a_step_with_its_evaluation_and_never_short() -> None:
    # 40 + 10 s a step, 1000 s in 100 // 10 = 10 evaluations: 3 * (50 + 100) = 450
    assert training_plan.grace_of(PLAN) == 450
    short = replace(PLAN, durations=replace(PLAN.durations, step={"policy": 1.0}, evaluations=0.0))
    assert training_plan.grace_of(short) == 120
    never = replace(PLAN, config=replace(CONFIG, run=replace(CONFIG.run, eval_every=0)))
    assert training_plan.grace_of(never) == 3150


def test_what_is_trained_first_is_in_the_total(folder: Path, two_cores: None) -> None:
    first = training_plan.trained_first(PLAN)
    assert list(first) == ["demo-sft"]
    lines, seconds = training_plan.lines_of(PLAN), first["demo-sft"]
    assert lines[:3] == [
        f"In all about {hours(6000 + seconds)} on 2 CPU cores",
        f"Trained before it, each alone: demo-sft {hours(seconds)}",
        "irl, 100 steps: about 1.7 h",
    ]  # fmt: skip
    known = training_plan.presets()

    def alone(*names: str) -> str:
        return hours(sum(known[name].seconds for name in names))

    assert training_plan.time_words(known, "demo-irl") == f"{alone('demo-irl', 'demo-sft', 'demo-expert')} in all"
    assert training_plan.time_words(known, "demo-sft") == alone("demo-sft")  # it starts from nothing
    final = folder / "runs" / "demo-sft" / "final"
    final.mkdir(parents=True)
    (final / "manifest.json").write_text("{}")
    assert training_plan.trained_first(PLAN) == {}
    assert training_plan.time_words(known, "demo-irl") == f"{alone('demo-irl', 'demo-expert')} in all"
    assert training_plan.time_words(known, "demo-expert") == alone("demo-expert")


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (3600, "1.0 h")])
def test_durations(seconds: float, words: str) -> None:
    assert hours(seconds) == words
