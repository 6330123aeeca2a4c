"""The command that starts vLLM for the policy of a preset, so that it can be sampled from and given new adapters."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from irl_core.config import TrainConfig
from irl_core.errors import ConfigError
from irl_core.models.bases import BASES, folder_of
from train.planning.presets import base_named

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM has room for
RELOADS = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
HOW = (
    "vllm is not installed: put it into an environment of its own, python3 -m venv engine && engine/bin/pip install "
    "vllm, and name it, --executable engine/bin/vllm, or have its bin folder on PATH. It pins a torch of its own; "
    "where that is this program's too, pip install -e '.[engine]' does"
)


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """A server's command line, and what its environment has besides."""

    arguments: Sequence[str]
    environment: Mapping[str, str]

    def __str__(self) -> str:
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*settings, shlex.join(self.arguments)])


def engine_command(
    config: TrainConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    gpus: int = 1,
    more: Sequence[str] = (),
    executable: Path | None = None,
) -> EngineCommand:
    """The command that serves the model that a preset's policy starts from.

    Args:
        config: the preset.
        host: the address to listen on.
        port: the port.
        gpus: over how many GPUs the model is divided.
        more: further options of ``vllm serve``.
        executable: vLLM's own command; default: `vllm_program`.

    Raises:
        ConfigError: vLLM serves no such model.
        CheckpointError: a known small model was not fetched.
    """
    model, quantisation = config.model, config.model.quantisation
    base = base_named(config, model.policy)
    if base is None:
        raise ConfigError(
            f"{config.run.preset}: its policy is made here from nothing, and no engine has it; name a preset whose "
            "model.policy is a pretrained model (see 'irl-lens presets')"
        )
    if quantisation == "int8":
        raise ConfigError(
            "model.quantisation is int8, which vLLM does not make of weights as it loads them; set it to nf4 or none"
        )
    revision = model.policy_revision if base == model.policy else None
    context = config.data.max_prompt_tokens + config.data.max_completion_tokens
    arguments = [
        str(executable or vllm_program()), "serve", str(folder_of(base)) if base in BASES else base,
        *(["--revision", revision] if revision else []),
        "--served-model-name", base, "--host", host, "--port", str(port), "--dtype", model.dtype,
        "--max-model-len", str(context), "--generation-config", "vllm",
    ]  # fmt: skip
    if quantisation == "nf4":
        arguments += ["--quantization", "bitsandbytes"]
    if gpus > 1:
        arguments += ["--tensor-parallel-size", str(gpus)]
    if model.lora.rank:
        room = next((rank for rank in RANKS if rank >= model.lora.rank), None)
        if room is None:
            raise ConfigError(f"model.lora.rank is {model.lora.rank}; vLLM takes at most {RANKS[-1]}")
        arguments += ["--enable-lora", "--max-lora-rank", str(room), "--max-loras", "2"]
    return EngineCommand([*arguments, *more], RELOADS if model.lora.rank else {})


def vllm_program() -> str:
    """vLLM's own command: that of this environment, or one on PATH; its name alone where there is none."""
    beside = Path(sys.executable).with_name("vllm")
    return str(beside) if beside.is_file() else shutil.which("vllm") or "vllm"


def check_vllm(command: EngineCommand) -> None:
    """Raise ConfigError where there is no vLLM, with how to get it."""
    program = Path(command.arguments[0])
    if not program.is_file():
        raise ConfigError(HOW if program.name == command.arguments[0] else f"{program} is not there; {HOW}")


def replace_process(command: EngineCommand) -> None:
    """Become the server: signals, output and exit status are its own."""
    os.execvpe(command.arguments[0], list(command.arguments), {**os.environ, **command.environment})
