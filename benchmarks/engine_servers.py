"""Serving engines that `benchmarks.engines` starts itself, each a process of its own that ends with it.

Each may lie in an environment of its own: llama.cpp's server in one whose Python the variable `LLAMA_PYTHON` names,
vLLM in one whose `bin` folder is on PATH. One that is not installed is named with what is missing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from irl_core.models.bases import BASES, folder_of
from train.serving.engine_command import vllm_program
from train.serving.ports import free_port

LLAMA_PYTHON = "LLAMA_PYTHON"
SECONDS_TO_START = 600.0
SERVED = ("fastapi", "uvicorn", "openai")  # what transformers serve needs besides
HERE = Path(__file__).resolve().parent


class Engine(NamedTuple):
    """An engine that can be started: its command without port, the path that answers once it is ready, and the model's
    name where it has to be named."""

    name: str
    command: Sequence[str]
    ready: str
    model: str | None = None


class Missing(NamedTuple):
    """An engine that is not here, and why."""

    name: str
    reason: str


def engines(base: str, threads: int) -> list[Engine | Missing]:
    """llama.cpp, transformers serve and vLLM for a known small model (``irl_core.models.bases``)."""
    folder = str(folder_of(base))
    return [llama(base, threads), transformers_serve(folder), vllm(folder)]


def llama(base: str, threads: int) -> Engine | Missing:
    """llama.cpp's server on the model's GGUF file."""
    python = os.environ.get(LLAMA_PYTHON) or (sys.executable if importlib.util.find_spec("xllamacpp") else "")
    if not python:
        return Missing("llama.cpp", f"xllamacpp is not installed here, and {LLAMA_PYTHON} names no Python that has it")
    command = [python, str(HERE / "llama_server.py"), str(BASES[base].path), "--threads", str(threads)]
    return Engine("llama.cpp", command, "/health")


def transformers_serve(folder: str) -> Engine | Missing:
    """The server of transformers, which is installed in any case; what it needs besides may not be."""
    missing = [name for name in SERVED if importlib.util.find_spec(name) is None]
    if missing:
        return Missing("transformers", f"{', '.join(missing)} not installed")
    program = str(Path(sys.executable).with_name("transformers"))
    return Engine("transformers", [program, "serve", folder, "--device", "cpu"], "/health", folder)


def vllm(folder: str) -> Engine | Missing:
    """vLLM, which compiles nothing and takes a fifth of the memory."""
    program = vllm_program()
    if not Path(program).is_file():
        return Missing("vLLM", "no vllm on PATH")
    options = ["--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "1024", "--gpu-memory-utilization", "0.2"]
    return Engine("vLLM", [program, "serve", folder, *options], "/health", folder)


@contextmanager
def started(engine: Engine, threads: int) -> Iterator[str]:
    """Start an engine and wait until it answers; the URL. Raises RuntimeError where it does not."""
    port = free_port(None)
    process = subprocess.Popen([*engine.command, "--port", str(port)], env=environment(threads),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS_TO_START
    try:
        while not answers(url + engine.ready):
            if process.poll() is not None:
                raise RuntimeError(f"{engine.name} ended with {process.returncode}")
            if time.monotonic() > until:
                raise RuntimeError(f"{engine.name} does not answer after {SECONDS_TO_START:.0f} s")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment(threads: int) -> Mapping[str, str]:
    """A server's environment: as many threads as our loop has, and none of this project's packages."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}


def answers(url: str) -> bool:
    """Whether a server answers."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
