"""irl-lens core: dense reasoning rewards by adversarial inverse reinforcement learning.

In a notebook: ``lens = irl_core.load()``, then ``lens.show(problem, solution)`` and ``lens.score(rows)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irl_core.notebook import NotebookLens


def load(checkpoint: str = "auto", device: str = "auto") -> NotebookLens:
    """Load a checkpoint by its name or folder, as `irl_core.notebook.load` does."""
    from irl_core import notebook

    return notebook.load(checkpoint, device)
