"""The words of ``irl-lens inspect`` and of the helps: what scores are of, what views are called, that none is lost."""

from __future__ import annotations

from typing import Any

import typer

from irl_core.report import terminal
from irl_core.report.heatmap.payload import VIEW_NAMES, VIEWS
from tests.unit.test_cli import ROOT, printed, run, trace
from train.cli.main import cli


def test_what_the_scores_of_steps_are_of_is_said_with_the_view_that_shows_it() -> None:
    shown = printed(trace(rule="raw/min/argmin"), no_color=True)
    assert "raw (pages say: reward): in brackets" in shown
    assert "Steps, each scored by the lowest reward of its tokens (as coloured above; lower is more suspect):" in shown
    line = terminal.scores_line("raw/min/first_below+answer", "credit")
    assert (
        line
        == "Steps, each scored by the lowest reward of its tokens (--view raw colours those; lower is more suspect):"
    )
    line = terminal.scores_line("logprob/mean/argmin", "credit")  # no view has that
    assert line == "Steps, each scored by the mean log-probability of its tokens (lower is more suspect):"
    assert terminal.scores_line("own rule", "raw") == "Steps and their scores (lower is more suspect):"


def test_views_have_the_names_of_the_pages() -> None:
    renderer = (ROOT / "irl_core" / "report" / "heatmap" / "heatmap.js").read_text()
    assert list(VIEW_NAMES) == list(VIEWS)
    assert all(f'["{view}", "{name}"]' in renderer for view, name in VIEW_NAMES.items())
    told = run("inspect", "--help", COLUMNS="300").stdout
    assert all(f"{view} (" in told and name in told for view, name in VIEW_NAMES.items() if view != name)


def test_no_help_holds_brackets_that_the_terminal_takes_for_a_style() -> None:
    def options(command: Any) -> list[Any]:
        return [*command.params, *(one for each in getattr(command, "commands", {}).values() for one in options(each))]

    helps = [one.help for one in options(typer.main.get_command(cli)) if getattr(one, "help", None)]
    assert len(helps) > 50 and not [told for told in helps if "[" in told]
