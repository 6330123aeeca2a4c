"""The app with a lens that has no models: ``streamlit run tests/browser/fake_app.py``."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "app")]

import fakes  # noqa: E402

from app.inspect import examples, scoring_queue  # noqa: E402

examples.PROBLEMS = ROOT / "tests" / "app" / "problems.jsonl"
scoring_queue.use(fakes.load, fakes.catalogue)
runpy.run_path(str(ROOT / "app" / "main.py"), run_name="__main__")
