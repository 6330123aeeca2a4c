"""The plan of a training: what is counted, what fits, and what to change where it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.devices import may_have_gpu
from irl_core.presets import load_config
from train.planning import plan as planning
from train.planning import sources
from train.planning.architectures import KNOWN
from train.planning.describe import count, hours, lines, size_of, to_json
from train.planning.fitting import refuse, settings_that_fit, shortage
from train.planning.memory import Processes, estimate_memory
from train.planning.plan import (
    Device,
    ParameterCount,
    Plan,
    earlier_training,
    launched_processes,
    make_plan,
    this_device,
)

PRESETS = planning.PRESETS
ROOT = Path(__file__).resolve().parents[2]


def preset(name: str, *overrides: str) -> TrainConfig:
    return load_config(name, overrides, PRESETS)


def planned(name: str, gb: float, *overrides: str) -> Plan:
    return make_plan(preset(name, *overrides), this_device(gb))


def with_fix(plan: Plan) -> Plan:
    """The plan with the settings that its fix names."""
    named = settings_that_fit(plan).removeprefix("Set ").partition(" (then")[0].split(" and ")
    config = preset(plan.config.run.preset, *_overrides(plan.config), *named)
    return replace(plan, config=config, memory=estimate_memory(config, plan.pair, plan.processes))


def _overrides(config: TrainConfig) -> list[str]:
    model = config.model
    return [
        f"model.quantisation={model.quantisation}", f"model.lora.rank={model.lora.rank}",
        f"model.gradient_checkpointing={str(model.gradient_checkpointing).lower()}",
        f"model.optimiser={model.optimiser}", f"policy.sampling_tokens={config.policy.sampling_tokens}",
        f"run.batch_tokens={config.run.batch_tokens}",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------- what it takes


def test_parameters_by_hand() -> None:
    found = planned("llama-8b-1b", 40).parameters
    assert found["policy"] == ParameterCount(8_030_261_248, 335_544_320)
    # Adapters of rank 128 on 16 layers of 2048, 512 and 8192; an anchored head of 2048 weights, a bias and an anchor.
    adapters = 128 * 16 * (2 * 4096 + 2 * 2560 + 3 * 10240)
    assert found["discriminator"] == ParameterCount(1_235_814_400 + 2050, adapters + 2050)
    assert planned("llama-8b-1b-paper", 40).parameters["discriminator"].trained == adapters + 2049
    for name in ("grpo-llama-8b", "sft-llama-8b"):
        without = planned(name, 40)
        assert set(without.parameters) == {"policy"}
        assert {origin.role for origin in without.origins} == {"policy", "data"}  # nothing else is downloaded


def test_downloads_are_added_up_and_a_model_named_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "find_data", lambda source, ask_hub: sources.Origin("data", source, "made"))
    sizes = [2 * KNOWN[f"Qwen/Qwen2.5-{size}-Instruct"].shape.parameters for size in ("3B", "0.5B")]
    assert planned("qwen-3b-05b", 40).download_bytes == sum(sizes)
    twice = planned("qwen-3b-05b", 40, "model.discriminator=Qwen/Qwen2.5-3B-Instruct")
    assert twice.download_bytes == sizes[0]
    unnamed = planned("qwen-3b-05b", 40, "model.discriminator=null")
    assert unnamed.download_bytes == sizes[0] and unnamed.pair.discriminator == unnamed.pair.policy


def test_what_is_trained_first_has_its_presets_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = make_plan(preset("demo-irl"), Device("this CPU", "cpu", 8e9, 8e9))
    assert [(o.role, o.kind, o.note) for o in plan.origins[:2]] == [
        ("policy", "trained first", "left by demo-sft"), ("discriminator", "trained first", "left by demo-expert")
    ]  # fmt: skip
    assert plan.pair.policy == plan.pair.discriminator == planning.tiny_shape(preset("demo-sft"))
    with pytest.raises(ConfigError, match=r"model\.policy: 'runs/demo-sft/final' is no folder that is there"):
        make_plan(preset("demo-irl", "run.after=[]"), Device("this CPU", "cpu", 8e9, 8e9))


def test_a_checkpoint_with_adapters_names_its_base(tmp_path: Path) -> None:
    name = "Qwen/Qwen2.5-0.5B-Instruct"
    (tmp_path / "policy").mkdir()
    (tmp_path / "manifest.json").write_text("{}")
    base = {"name": name, "revision": None, "quantisation": "nf4", "dtype": "bfloat16"}
    (tmp_path / "policy" / "base.json").write_text(json.dumps(base))
    plan = planned("sft-qwen-3b", 40, f"model.policy={tmp_path}")
    assert [(o.role, o.kind) for o in plan.origins] == [
        ("policy", "checkpoint"), ("base of the policy", "download"), ("data", "download")
    ]  # fmt: skip
    assert plan.pair.policy == KNOWN[name].shape


def test_the_machine_is_the_devices_where_it_is_known() -> None:
    config = preset("qwen-3b-05b")
    for name, machine in (("NVIDIA H200", "H200"), ("Something else", "A100 40 GB")):
        plan = make_plan(config, Device(name, "cuda", 1e11, 1e11))
        assert plan.durations.machine.name == machine
    assert make_plan(preset("demo-sft"), Device("a CPU", "cpu", 8e9, 8e9)).durations.machine.name == "2 CPU cores"


# -------------------------------------------------------------------------------------------------------- the device


def test_a_gpu_says_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "may_have_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (30e9 + index, 40e9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    assert this_device() == Device("GPU 0", "cuda", 40e9, 30e9)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert this_device() == Device("GPU 1", "cuda", 40e9, 30e9 + 1)
    assert this_device(12.5) == Device("a device of 12.5 GB", "planned", 12.5e9, 12.5e9)


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "nvhost-gpu", "kfd", "dxg"])
def test_torch_is_asked_for_a_gpu_only_where_a_driver_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "nvme0").touch()  # a disk
    assert not may_have_gpu(tmp_path)
    (tmp_path / name).touch()
    assert may_have_gpu(tmp_path)
    monkeypatch.setattr(sys, "platform", "win32")
    assert may_have_gpu(tmp_path / "absent")


def test_the_cpu_has_the_memory_that_is_free() -> None:
    found = this_device()
    assert found.kind in ("cpu", "cuda") and 0 < found.free <= found.total


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes(1, False)),
        ({"WORLD_SIZE": "4"}, Processes(4, False)),
        ({"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true"}, Processes(2, True)),
        ({"WORLD_SIZE": "x"}, Processes(1, False)),
        ({"WORLD_SIZE": "0"}, Processes(1, False)),
    ],
)
def test_processes_are_read_from_the_launcher(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: Processes
) -> None:
    for key in ("WORLD_SIZE", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert launched_processes() == expected


# ----------------------------------------------------------------------------------------------- what does not fit


def test_what_fits_is_not_refused() -> None:
    plan = planned("llama-8b-1b", 40)
    assert plan.fits
    refuse(plan)
    exactly = replace(plan, device=Device("x", "planned", plan.memory.total, plan.memory.total))
    assert exactly.fits
    less = replace(plan, device=Device("x", "planned", plan.memory.total, plan.memory.total - 1))
    assert not less.fits


@pytest.mark.parametrize(
    ("overrides", "gb", "setting"),
    [
        (["policy.sampling_tokens=400000"], 60, "policy.sampling_tokens=200000"),
        (["run.batch_tokens=32768"], 32, "run.batch_tokens=16384"),
        (["model.gradient_checkpointing=false"], 40, "model.gradient_checkpointing=true"),
        (["model.quantisation=none", "model.lora.rank=16"], 24, "model.quantisation=nf4"),
        (["run.method=grpo", "model.quantisation=int8", "model.lora.rank=16"], 18, "model.quantisation=nf4"),
        (["model.quantisation=none", "model.lora.rank=0", "model.optimiser=adamw"], 60, "model.lora.rank=16"),
    ],
)
def test_the_setting_that_would_fit_is_named(overrides: list[str], gb: float, setting: str) -> None:
    plan = planned("llama-8b-1b", gb, *overrides)
    assert not plan.fits
    with pytest.raises(ConfigError) as caught:
        refuse(plan)
    message = str(caught.value)
    assert setting in message and "--force trains all the same" in message and "a device of" in message
    assert with_fix(plan).fits


def test_a_fix_takes_small_steps_and_adapters_last() -> None:
    plan = planned("llama-8b-1b", 12.5)
    settings = settings_that_fit(plan)
    assert 0 < settings.index("run.batch_tokens=") < settings.index("model.lora.rank=")
    assert with_fix(plan).fits
    assert "model.lora.rank" not in settings_that_fit(planned("llama-8b-1b", 20))


def test_what_no_setting_fixes() -> None:
    plan = planned("llama-8b-1b", 4)
    assert settings_that_fit(plan).startswith("No setting makes it fit (the least is about ")
    assert settings_that_fit(plan).endswith("GB); take smaller models")


def test_the_shortage_names_the_largest_part() -> None:
    text = shortage(planned("llama-8b-1b", 12))
    assert text.startswith("llama-8b-1b needs about 25.9 GB, and a device of 12 GB is planned for; the largest part is")
    assert "policy: activations, 8.6 GB" in text
    here = replace(planned("llama-8b-1b", 12), device=Device("a GPU", "cuda", 16e9, 12.34e9))
    assert "a GPU has 12.3 GB free of 16.0" in shortage(here)


# ----------------------------------------------------------------------------------------------- as text, as data


def test_the_plan_as_data() -> None:
    plan = planned("llama-8b-1b", 12)
    found: dict[str, Any] = json.loads(json.dumps(to_json(plan), allow_nan=False))
    assert set(found) == {
        "preset", "method", "steps", "processes", "configuration", "models", "data", "parameters", "memory", "time",
        "download_bytes",
    }  # fmt: skip
    assert TrainConfig.from_dict(found["configuration"]) == plan.config
    assert [(m["role"], m["name"]) for m in found["models"]] == [
        ("policy", plan.config.model.policy), ("discriminator", plan.config.model.discriminator)
    ]  # fmt: skip
    assert found["data"]["name"] == "openai/gsm8k"
    memory = found["memory"]
    assert set(memory) == {
        "parts", "largest_phase", "total_bytes", "device", "device_kind", "device_bytes", "free_bytes", "fits", "fix",
    }  # fmt: skip
    at_peak = [part["bytes"] for part in memory["parts"] if part["phase"] in ("always", memory["largest_phase"])]
    assert sum(at_peak) == pytest.approx(memory["total_bytes"], abs=len(at_peak))
    assert not memory["fits"] and memory["fix"] == settings_that_fit(plan)
    assert to_json(planned("llama-8b-1b", 40))["memory"]["fix"] is None
    time = found["time"]
    assert set(time["step_seconds"]) == {"sampling", "discriminator", "scoring", "policy"}
    total = time["start_seconds"] + found["steps"] * sum(time["step_seconds"].values()) + time["evaluation_seconds"]
    assert time["calibration_seconds"] > 0
    assert time["total_seconds"] == pytest.approx(total + time["calibration_seconds"], rel=1e-3)
    assert found["parameters"]["policy"] == {"total": 8_030_261_248, "trained": 335_544_320}


def test_the_plan_as_text() -> None:
    text = list(lines(planned("llama-8b-1b", 40)))
    assert text[0] == "llama-8b-1b: irl, 550 steps"
    whole = "\n".join(text)
    assert "policy         meta-llama/Llama-3.1-8B-Instruct: 8.03 B parameters, 335.54 M trained" in whole
    assert "  a device of 40 GB is planned for: it fits" in text
    assert "Time, estimated for A100 40 GB" in whole and "  assumed: prompts of 120 tokens" in whole
    configuration = text[text.index("Configuration") + 1 :]
    assert configuration == [f"  {line}" for line in preset("llama-8b-1b").to_yaml().splitlines()]
    small = "\n".join(lines(planned("llama-8b-1b", 12)))
    assert "IT DOES NOT FIT. Set " in small


def test_several_processes_are_said() -> None:
    plan = make_plan(preset("llama-8b-1b"), this_device(40), Processes(2))
    assert next(lines(plan)) == "llama-8b-1b: irl, 550 steps, 2 processes"


def test_units() -> None:
    assert (hours(90), hours(3599), hours(3600), hours(20_000)) == ("2 min", "60 min", "1.0 h", "5.6 h")
    assert (count(8_030_261_248), count(335_544_320), count(1_500), count(7)) == ("8.03 B", "335.54 M", "1.50 k", "7")
    assert (size_of(None), size_of(0), size_of(2_725_633), size_of(16_060_522_496)) == (
        "size not known", "0.0 MB", "2.7 MB", "16.06 GB"
    )  # fmt: skip


def test_planning_for_another_machine_imports_no_torch() -> None:
    code = (
        "import sys; from irl_core.presets import load_config\n"
        "from train.planning.describe import lines; from train.planning.plan import PRESETS, make_plan, this_device\n"
        "config = load_config('llama-8b-1b', presets_dir=PRESETS)\n"
        "print(len(list(lines(make_plan(config, this_device(40))))) > 40)\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n[]\n"


def test_what_is_trained_first_takes_the_same_data() -> None:
    config = load_config("gsm8k-irl", ["data.source=/some/rows.jsonl"], PRESETS)
    earlier = earlier_training(config, "gsm8k-sft")
    assert earlier.data.source == "/some/rows.jsonl" and earlier.run.method == "sft"
