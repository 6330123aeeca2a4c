"""The three lines in a real Jupyter kernel: what a person sees in the notebook's cells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CELLS = (
    "import irl_core\nlens = irl_core.load('demo', device='cpu')",
    "lens.show('Tom has 3 bags with 4 pens. How many pens?', '3 * 4 = 13\\n#### 13', answer='12')",
    "lens.score([{'problem': 'Tom has 3 bags with 4 pens. How many pens?', 'solution': '3 * 4 = 13\\n#### 13'}])",
)


def outputs(cell: Any) -> dict[str, str]:
    """What a cell shows, by the type of its data."""
    return {kind: text for one in cell.outputs for kind, text in one.get("data", {}).items()}


@pytest.mark.timeout(300)
def test_the_three_lines_draw_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()  # raises where a cell does
    shown, frame = outputs(notebook.cells[1]), outputs(notebook.cells[2])
    assert shown["text/html"].startswith('<iframe title="irl-lens" sandbox="allow-scripts allow-downloads"')
    assert shown["text/plain"] == "Step 1: 3 * 4 is 12, not 13"
    assert "first_wrong_step" in frame["text/html"] and "Step 1: 3 * 4 is 12, not 13" in frame["text/html"]
