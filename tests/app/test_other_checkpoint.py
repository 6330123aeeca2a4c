"""A page says where its figures are not those of the checkpoint that the sidebar has chosen."""

from __future__ import annotations

from app.analysis import catalogue, chooser
from irl_core.checkpoints.find import default_roots


def test_runs_of_another_checkpoint_are_named() -> None:
    chooser.listed_names.clear()  # another test's checkpoints are kept for some seconds
    runs = {info.name: info for info in catalogue.catalogue(default_roots()[:1])}
    demo, own = runs["scored_run"], runs["scored_run_gsm8k"]
    assert chooser.of_others([demo], "demo") == chooser.of_others([own], "gsm8k") == ""
    told = "Scored by another checkpoint than gsm8k, which the sidebar has chosen: scored_run by demo."
    assert chooser.of_others([demo, own], "gsm8k") == told
    assert chooser.of_others([demo, own], "not there") == ""
