"""Freed tensors go back to the system."""

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
