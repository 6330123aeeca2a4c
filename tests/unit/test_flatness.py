"""What the attack of many sessions calls flat: its rule, without a server."""

from __future__ import annotations

import math

import pytest

from tests.soak.served import Held, rises

WARM = 15.0


def looks(memory_an_hour: float, files_an_hour: float) -> list[Held]:
    """An hour in which memory doubles in the first minutes, and then changes by so much, with waves in it."""
    found = []
    for number in range(361):
        minutes = number / 6
        start = 400 * min(1.0, minutes / 10)
        memory = 400 + start + memory_an_hour * minutes / 60 + 15 * math.sin(minutes)
        found.append(Held(minutes, memory, 60 + number % 5, 40, int(files_an_hour * minutes / 60)))
    return found


@pytest.mark.parametrize(
    ("memory", "files", "faults"),
    [(0, 0, set()), (30, 2, set()), (-300, 0, set()), (80, 0, {"megabytes of memory"}), (0, 8, {"files on the disk"})],
)
def test_a_rise_after_the_first_minutes_is_found(memory: float, files: float, faults: set[str]) -> None:
    found = rises(looks(memory, files), WARM)
    assert {name for name, (_, rise, most) in found.items() if rise > most} == faults
    assert found["megabytes of memory"][1] == pytest.approx(0.75 * memory, abs=5)  # the waves leave a little
