"""Freed tensors go back to the system, and kernels of numbers of tokens that do not come again are let go of."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from irl_core.models import allocation

# Blocks of growing sizes are freed, which raises glibc's own threshold to 32 MB; then every second one of many is
# freed, and larger ones, which fit no hole, take their place.
FRAGMENTED = """
import sys, torch
from irl_core.models.allocation import give_back_freed_tensors
if sys.argv[1] == "set":
    assert give_back_freed_tensors()
MB = 2**20
for size in range(1, 31):
    torch.ones(size * MB, dtype=torch.uint8)
held = [torch.ones(4 * MB, dtype=torch.uint8) for _ in range(60)]
held = held[::2]
held += [torch.ones(6 * MB, dtype=torch.uint8) for _ in range(20)]
print(int(open("/proc/self/statm").read().split()[1]) * 4096 // MB - sum(one.numel() for one in held) // MB)
"""


def beyond_its_tensors(how: str) -> int:
    """MB that a process takes beyond the tensors that it holds."""
    environment = {name: value for name, value in os.environ.items() if name not in allocation.ENVIRONMENT}
    command = [sys.executable, "-c", FRAGMENTED, how]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_holes_between_tensors_are_given_back() -> None:
    assert beyond_its_tensors("set") < beyond_its_tensors("as it is") - 80  # of the 120 MB that were freed


def test_variables_of_the_environment_are_left_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not allocation.give_back_freed_tensors()


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
