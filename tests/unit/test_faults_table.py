"""docs/faults.md names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_fault_has_tests_that_exist() -> None:
    table, _, _ = (ROOT / "docs" / "faults.md").read_text().partition("\n## ")
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 30
    for row in rows:
        named = re.findall(r"`([\w/]+\.py): (test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}: {test}"
