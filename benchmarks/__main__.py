"""The benchmarks that a CPU can run, one after the other, and what they print as docs/benchmarks.md.

    python -m benchmarks [--only scoring starts] [--out docs/benchmarks.md]
    python -m benchmarks --gpu --out docs/benchmarks-gpu.md       # those of a CUDA device in their place

Each runs in a process of its own with one thread, so that seconds of the processor are comparable, and does its own
comparisons side by side. A section of the file says when, at which commit, on which processor, with which versions and
by which command it was measured. A benchmark that is done replaces its section at once and leaves the others: one that
fails or is stopped loses nothing, and `--only` measures again what a change concerns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "peft", "streamlit", "pyarrow")
HEADING = """# Benchmarks

Written by `python -m benchmarks --out docs/benchmarks.md` (`make bench`). A speed is a ratio of two things that took
turns in one process; how each is measured is said in its module.
"""


class Benchmark(NamedTuple):
    """A module of this package, its arguments, and the question that it answers."""

    module: str
    arguments: tuple[str, ...]
    question: str


BENCHMARKS = (
    Benchmark("scoring", ("--traces", "16", "--repeats", "3"), "Scoring beside a padded loop and the bare passes"),
    Benchmark(
        "scoring", ("--traces", "16", "--repeats", "3", "--a-problem", "4"), "The same, four solutions to a problem"
    ),
    Benchmark("score_memory", (), "Memory and time of `irl-lens score` as files grow, with the tiny demo"),
    Benchmark(
        "training_round", ("--prompts", "4", "--samples", "8", "--repeats", "3"),
        "A training round beside trl's and beside a plain one",
    ),
    Benchmark("allocation", ("--batches", "3"), "What becomes of freed tensors in a training"),
    Benchmark("older_build", ("--rounds", "2", "--repeats", "1"), "This build beside an older one"),
    Benchmark(
        "sampling",
        ("--model", "smollm2-135m", "--dtype", "bfloat16", "--prompts", "4", "--num-samples", "16",
         "--max-new-tokens", "96", "--mean-tokens", "48", "--samplers", "loop", "--repeats", "3"),
        "Sampling beside `generate`, 16 of each prompt",
    ),
    Benchmark("engines", ("--repeats", "3"), "Sampling beside serving engines, those that are installed"),
    Benchmark(
        "serving", ("--checkpoint", "gsm8k", "--turns", "6", "--texts", "48", "--clients", "16"),
        "`serve` beside `score`",
    ),
    Benchmark("serving", ("--checkpoint", "demo", "--turns", "4"), "The same with the tiny demo, mostly answers"),
    Benchmark("packing", ("--repeats", "3"), "Packed rows beside padded ones, a small random model"),
    Benchmark("first_heatmap", ("--repeats", "1"), "From a pasted solution to coloured tokens"),
    Benchmark("scored_runs", ("--repeats", "5"), "The Failures page on 100,000 traces over 1,000"),
    Benchmark("starts", (), "What commands take to start"),
)  # fmt: skip
AT_3B = ("--hidden", "2048", "--layers", "36", "--heads", "16", "--key-heads", "2", "--vocab", "151936")
AT_05B = ("--hidden", "896", "--layers", "24", "--heads", "14", "--key-heads", "2", "--vocab", "151936")
ON_CUDA = (
    Benchmark(
        "sampling",
        ("--device", "cuda", *AT_3B, "--prompts", "8", "--num-samples", "16", "--max-new-tokens", "512",
         "--mean-tokens", "200"),
        "The samplers at the shape of a 3B model",
    ),
    Benchmark(
        "packing", ("--device", "cuda", *AT_05B, "--traces", "256", "--tokens", "16384"),
        "Packed rows beside padded ones at the shape of a 0.5B model",
    ),
    Benchmark(
        "packing", ("--device", "cuda", *AT_05B, "--traces", "256", "--tokens", "16384", "--checkpointing"),
        "The same, with layers computed again in the backward pass",
    ),
)  # fmt: skip


def main() -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    known = list(dict.fromkeys(one.module for one in (*BENCHMARKS, *ON_CUDA)))
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="of these alone [default: all]")
    parser.add_argument("--gpu", action="store_true", help="what needs a CUDA device, in place of what a CPU can run")
    parser.add_argument("--out", type=Path, default=None, help="file for the results, such as docs/benchmarks.md")
    asked = parser.parse_args()
    if asked.gpu and not torch.cuda.is_available():
        parser.error("--gpu: torch sees no CUDA device; run it where there is one, or leave it out")
    listed, failed = (ON_CUDA if asked.gpu else BENCHMARKS), 0
    for one in (one for one in listed if one.module in asked.only):
        piece, status = section(one)
        print(piece, flush=True)
        failed += status != 0
        if asked.out and not status:
            old = asked.out.read_text(encoding="utf-8") if asked.out.is_file() else ""
            asked.out.write_text(with_section(old, one.question, piece, listed), encoding="utf-8")
    return int(failed > 0)


def with_section(document: str, question: str, piece: str, listed: Sequence[Benchmark]) -> str:
    """A document with the section of a benchmark added, or in the place of its earlier one. Sections are in the order
    of ``listed``; one that is listed no more is left out."""
    pieces = {part.partition("\n")[0]: f"## {part.strip()}\n" for part in document.split("\n## ")[1:]}
    pieces[question] = piece
    return "\n".join([HEADING, *(pieces[one.question] for one in listed if one.question in pieces)])


def circumstances() -> str:
    """When, where and with what it is measured, and how many programs ran on the machine before it began."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = f"{processor()}, load {os.getloadavg()[0]:.1f} before"
    return f"{datetime.now(UTC).date().isoformat()}, commit {commit}; {machine}; {versions}"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's kind, how many cores, and which products of bfloat16 it has."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    has = [name for name, flag in (("AMX", "amx_bf16"), ("avx512_bf16", "avx512_bf16"), ("AVX-512", "avx512f"),
                                   ("AVX2", "avx2")) if flag in flags]  # fmt: skip
    kind = fields.get("model name", "a processor of an unknown kind")
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{kind}, {os.cpu_count()} cores, {has[0] if has else 'no vector extension that is known'} at best{gpu}"


def section(one: Benchmark) -> tuple[str, int]:
    """What a benchmark printed, and its exit status."""
    command: Sequence[str] = ("python", "-m", f"benchmarks.{one.module}", *one.arguments)
    about, started = circumstances(), time.monotonic()
    done = subprocess.run(
        [sys.executable, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    told = done.stdout.strip() if done.returncode == 0 else f"failed: {done.stderr.strip()[-500:]}"
    minutes = (time.monotonic() - started) / 60
    piece = f"## {one.question}\n\n`{' '.join(command)}`\n\n{about}; {minutes:.1f} min.\n\n```\n{told}\n```\n"
    return piece, done.returncode


if __name__ == "__main__":
    sys.exit(main())
