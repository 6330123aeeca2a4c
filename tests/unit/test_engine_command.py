"""``irl-lens engine start``: the command that serves a preset's model, printed, run, or refused with the reason."""

from __future__ import annotations

import stat
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from irl_core.errors import CheckpointError, ConfigError
from irl_core.presets import load_config
from train.cli.main import cli
from train.planning.plan import PRESETS
from train.serving import engine_command as engines
from train.serving.engine_command import EngineCommand, engine_command


def command_of(preset: str, *settings: str, gpus: int = 1) -> EngineCommand:
    return engine_command(load_config(preset, list(settings), PRESETS), port=9000, gpus=gpus)


def options_of(command: EngineCommand) -> dict[str, str]:
    """The options that have a value, by name."""
    arguments = command.arguments
    return {a: b for a, b in pairwise(arguments) if a.startswith("--") and a != "--enable-lora"}


def test_it_serves_the_model_that_the_policy_starts_from_with_room_for_its_adapters() -> None:
    command = command_of("qwen-3b-05b", "model.lora.rank=20", gpus=2)
    assert command.arguments[1:3] == ["serve", "Qwen/Qwen2.5-3B-Instruct"] and "--enable-lora" in command.arguments
    options = options_of(command)
    assert options["--max-lora-rank"] == "32" and options["--tensor-parallel-size"] == "2"
    assert (options["--host"], options["--port"]) == ("127.0.0.1", "9000")
    assert options["--quantization"] == "bitsandbytes" and options["--generation-config"] == "vllm"
    assert command.environment == {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    assert str(command).startswith("VLLM_ALLOW_RUNTIME_LORA_UPDATING=True ")


def test_a_preset_that_trains_every_weight_is_served_without_room_for_adapters() -> None:
    command = command_of("qwen-3b-05b", "model.lora.rank=0", "model.quantisation=none")
    assert "--enable-lora" not in command.arguments and not command.environment
    assert "--quantization" not in command.arguments


def test_what_starts_from_an_earlier_preset_is_served_with_that_ones_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "folder_of", lambda name: Path("/models") / name)
    assert command_of("gsm8k-irl").arguments[2] == "/models/smollm2-135m"
    assert options_of(command_of("gsm8k-irl"))["--served-model-name"] == "smollm2-135m"

    def missing(name: str) -> Path:
        raise CheckpointError(f"{name} is not here; run 'irl-lens models fetch {name}'")

    monkeypatch.setattr(engines, "folder_of", missing)
    with pytest.raises(CheckpointError, match="irl-lens models fetch smollm2-135m"):
        command_of("gsm8k-irl")


@pytest.mark.parametrize(
    ("preset", "settings", "said"),
    [
        ("demo-irl", [], "its policy is made here from nothing"),
        ("grpo-qwen-3b", ["model.quantisation=int8"], "set it to nf4 or none"),
        ("qwen-3b-05b", ["model.lora.rank=1024"], "vLLM takes at most 512"),
    ],
)
def test_what_vllm_cannot_serve_is_refused(preset: str, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        command_of(preset, *settings)


def test_without_vllm_it_says_how_to_get_it_and_a_dry_run_prints_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    run = CliRunner().invoke
    printed = run(cli, ["engine", "start", "qwen-3b-05b", "--option=--seed=1", "--dry-run"])
    assert printed.exit_code == 0 and "vllm serve Qwen/Qwen2.5-3B-Instruct" in printed.output
    assert printed.output.rstrip().endswith("--seed=1")
    refused = run(cli, ["engine", "start", "qwen-3b-05b"])
    assert isinstance(refused.exception, ConfigError)
    assert "vllm is not installed: put it into an environment of its own" in str(refused.exception)
    elsewhere = run(cli, ["engine", "start", "qwen-3b-05b", "--executable", str(tmp_path / "bin" / "vllm")])
    assert str(elsewhere.exception).startswith(f"{tmp_path / 'bin' / 'vllm'} is not there; ")


def test_a_vllm_on_path_or_a_named_one_takes_over_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))
    ran: list[tuple[str, list[str], str | None]] = []
    monkeypatch.setattr(
        engines.os,
        "execvpe",
        lambda file, args, env: ran.append((file, args, env.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"))),
    )
    assert CliRunner().invoke(cli, ["engine", "start", "qwen-3b-05b"]).exit_code == 0
    other = program.rename(tmp_path / "own")
    named = ["engine", "start", "qwen-3b-05b", "--executable", str(other)]
    assert CliRunner().invoke(cli, named).exit_code == 0
    for (file, arguments, updating), expected in zip(ran, (program, other), strict=True):
        assert file == arguments[0] == str(expected) and updating == "True"
