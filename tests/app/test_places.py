"""The app started in an empty folder: what is put into its runs/ is offered without a restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import fakes
import pytest
from streamlit.testing.v1 import AppTest

from app.inspect import scoring_queue

ROOT = Path(__file__).resolve().parents[2]


def test_a_checkpoint_put_into_the_current_folder_is_offered(
    fake_lens: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("IRL_LENS_CHECKPOINTS", raising=False)
    monkeypatch.setattr(scoring_queue, "sources", scoring_queue.Sources(fakes.load))  # the checkpoints that are there
    page = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()
    assert not page.exception and page.sidebar.selectbox(key="checkpoint").options == ["demo"]
    shutil.copytree(ROOT / "assets" / "demo", tmp_path / "runs" / "mine" / "final")
    page.run()
    assert not page.exception and page.sidebar.selectbox(key="checkpoint").options == ["demo", "mine/final"]
    said = [one.value.replace("\\", "") for one in page.sidebar.caption]
    assert any(f"lie in {tmp_path / 'runs'} (the folder where irl-lens is started" in one for one in said)
