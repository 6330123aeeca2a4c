"""Freed tensors are used again, and go back when asked; kernels of numbers of tokens that do not come again go."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from irl_core.models import allocation

# Every second one of many blocks is freed, and larger ones, which fit no hole, take their place: the holes of a heap
# that has seen tensors of many shapes.
HOLES = """
import sys, torch
from irl_core.models.allocation import give_back_freed_tensors, keep_freed_tensors
assert keep_freed_tensors()
MB = 2**20
held = [torch.ones(4 * MB, dtype=torch.uint8) for _ in range(60)]
held = held[::2]
held += [torch.ones(6 * MB, dtype=torch.uint8) for _ in range(20)]
if sys.argv[1] == "given back":
    give_back_freed_tensors()
print(int(open("/proc/self/statm").read().split()[1]) * 4096 // MB - sum(one.numel() for one in held) // MB)
"""

# Pages that the system clears for ten layers whose wide tensors take 41 MB, in the first thread or in another, when ten
# came before.
LAYERS = """
import resource, sys, threading
from irl_core.models.allocation import keep_freed_tensors
if sys.argv[1] != "as it is":
    assert keep_freed_tensors(in_all_threads=sys.argv[1] == "kept in all threads")
import torch
torch.set_num_threads(1)
def layers():
    weight, states = torch.zeros(512, 16), torch.zeros(20_000, 16)
    for _ in range(10):
        states = torch.nn.functional.silu(states @ weight.T) @ weight
def work():
    layers()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layers()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
if sys.argv[1] == "kept in the first":
    work()
else:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""

glibc_alone = pytest.mark.skipif(allocation.glibc() is None, reason="glibc's allocator")


def told_by(script: str, how: str) -> int:
    """The number that a script prints in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in allocation.ENVIRONMENT}
    command = [sys.executable, "-c", script, how]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@glibc_alone
def test_holes_between_tensors_are_given_back() -> None:
    assert told_by(HOLES, "given back") < told_by(HOLES, "kept") - 80  # of the 120 MB that were freed


@glibc_alone
def test_a_tensor_takes_the_place_of_a_freed_one() -> None:
    cleared = told_by(LAYERS, "as it is")
    assert cleared > 100_000  # 10,000 for each of twenty tensors
    assert told_by(LAYERS, "kept in all threads") < cleared / 3
    assert told_by(LAYERS, "kept in the first") < cleared / 3


def test_variables_of_the_environment_are_left_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not allocation.keep_freed_tensors()


# The products of a small model's layers for 200 numbers of tokens, as many as batches of texts soon have.
MANY_SHAPES = """
import torch
import irl_core.models
torch.set_num_threads(1)
states = torch.zeros(1400, 1536, dtype=torch.bfloat16)
layers = [torch.zeros(*shape, dtype=torch.bfloat16) for shape in ((1536, 576), (576, 1536), (960, 576), (576, 576))]
def pass_of(tokens):
    for layer in layers:
        torch.nn.functional.linear(states[:tokens, :layer.shape[1]].contiguous(), layer)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
for tokens in (1400, 1399):
    pass_of(tokens)
before = resident()
for tokens in range(600, 800):
    pass_of(tokens)
print(resident() - before)
"""


def kept_for_shapes(**variables: str) -> int:
    """MB that a process keeps of products that are over."""
    environment = {name: value for name, value in os.environ.items() if name not in allocation.KERNELS}
    command = [sys.executable, "-c", MANY_SHAPES]
    run = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory as Linux tells it")
def test_kernels_of_many_numbers_of_tokens_are_not_all_kept() -> None:
    everything = kept_for_shapes(**dict.fromkeys(allocation.KERNELS, "1024"))
    if everything < 200:
        pytest.skip(f"this processor's bfloat16 products keep {everything} MB by default")
    assert kept_for_shapes() < everything / 2
