"""Parts that the pages on scored runs share: the chosen scored runs, their cached sections, their origin in words.

Rows are kept once for everybody and never changed; figures are kept a file, until it or one beside it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import streamlit as st

from app.analysis import chooser, sections
from app.components import chart
from app.components.markdown import plain
from irl_core.errors import StoreError
from irl_core.report.terms import term_of
from irl_core.statistics.wording import true_minus

if TYPE_CHECKING:
    import pandas as pd

    from app.analysis.catalogue import RunInfo
    from irl_core.evaluation.section import Section, Table
    from irl_core.report.headlines import Headline

RUNS_KEPT: Final = 8
FIGURES_KEPT: Final = 48


@dataclass(frozen=True, slots=True)
class Shown:
    """A chosen scored run: its file with time and size, and the sample of it that is shown.

    Attributes:
        name: it is known by it in links.
        listed: what it is listed as; every word, chart and table calls it so.
    """

    name: str
    listed: str
    file: tuple[str, int, int]
    sample: sections.Sample


@st.cache_resource(max_entries=RUNS_KEPT, show_spinner="Reading the run \u2026")
def _sample(path: str, changed: int, size: int) -> sections.Sample:
    return sections.sample(Path(path))


@st.cache_data(max_entries=FIGURES_KEPT, show_spinner=False)
def section_of(name: str, file: tuple[str, int, int], beside: tuple[tuple[str, int, int], ...]) -> Section[Any]:
    """A section of the report over a file, kept until the file or one beside it changes."""
    return sections.section(name, Path(file[0]), _sample(*file))


def opened() -> list[Shown]:
    """Draw the chooser of scored runs and the origin of each; returns those that can be read."""
    infos = chooser.choose(multiple=True)
    known = {info.name: info.provenance for info in infos}
    found = read(infos)
    for run in found:
        st.caption(plain(f"{run.listed}: {origin(known[run.name])}; {run.sample.words()}."))
    if found:
        with st.expander("Where these numbers come from", icon=":material/info:"):
            st.caption(sections.SETTINGS)
            for run in found:
                st.text(run.listed)
                st.json(known[run.name], expanded=1)
    return found


def read(infos: Iterable[RunInfo]) -> list[Shown]:
    """Scored runs with the samples of them that are shown; why one cannot be read is said."""
    found = []
    for info in infos:
        try:
            state = Path(info.path).stat()
            file = (str(info.path), state.st_mtime_ns, state.st_size)
            found.append(Shown(info.name, info.listed, file, _sample(*file)))
        except (StoreError, OSError) as error:
            st.error(plain(f"{info.listed}: {unreadable(error)}"))
    return found


def origin(known: Mapping[str, Any]) -> str:
    """Checkpoint, data and seed of a scored run in one line, the checkpoint by its name in the sidebar."""
    return sections.origin_line(known, chooser.checkpoint_of(known))


def unreadable(error: Exception) -> str:
    """Why a scored run is not shown, without its path."""
    return str(error) if isinstance(error, StoreError) else f"cannot be read: {getattr(error, 'strerror', None)}"


def section(name: str, runs: Sequence[Shown]) -> dict[str, Section[Any]]:
    """A section of the report by what a scored run is listed as; one that has none is said and left out."""
    found = {}
    for run in runs:
        try:
            with st.spinner(plain(sections.waiting_words(name, run.listed, run.sample)), show_time=True):
                found[run.listed] = section_of(name, run.file, sections.beside(Path(run.file[0])))
        except (StoreError, OSError) as error:
            st.error(plain(f"{run.listed}: {unreadable(error)}"))
    return found


def paragraphs(found: Mapping[str, Section[Any]]) -> None:
    """What the figures say, in words, a scored run after the other, a line a sentence."""
    for name, one in found.items():
        if len(found) > 1:
            st.markdown(f"**{plain(name)}**")
        st.markdown("\n".join(f"- {plain(true_minus(line))}" for line in sections.sentences(one.paragraph)))


def headlines(found: Mapping[str, Headline | None]) -> None:
    """The sentence and the numbers of each scored run that has some, before any chart; those of several runs beside
    each other."""
    from irl_core.report import figures

    drawn = []
    for name, one in found.items():
        if one is None:
            continue
        named = f"{name}: {one.sentence}" if len(found) > 1 else one.sentence
        drawn.append(figures.headline_html(replace(one, sentence=named)))
    beside = "headlines" if len(drawn) > 1 else ""
    st.html(f'<style>{figures.stylesheet()}</style><div class="{beside}">{"".join(drawn)}</div>')


def figures_of(tables: Mapping[str, tuple[Table, Table | None]], told: Mapping[str, Section[Any]]) -> None:
    """Every figure of a page behind one toggle: tables to read, each with the same as numbers to save under its name;
    then all of it in words."""
    from irl_core.report import figures
    from irl_core.report.tables import numbers

    with st.expander("Figures, with intervals and n", icon=":material/table:"):
        st.caption(sections.INTERVALS)
        for name, (shown, saved) in tables.items():
            st.markdown(f"**{plain(shown.title)}**")
            st.html(f"<style>{figures.stylesheet()}</style>{figures.table_html(shown)}")
            if saved is not None:
                chart.show_table(numbers(saved), name)
        st.markdown("**In full words**")
        paragraphs(told)


def frames(runs: Sequence[Shown]) -> dict[str, pd.DataFrame]:
    """The rows of each run, which nobody may change, by what it is listed as."""
    return {run.listed: run.sample.frame for run in runs}


def names(runs: Sequence[Shown]) -> dict[str, str]:
    """The names of runs in links, by what they are listed as."""
    return {run.listed: run.name for run in runs}


def kept(key: str, default: Any, options: Sequence[Any]) -> None:
    """Give the widget ``key`` the value that it had when this page was last seen, or the default. `keep` notes it."""
    state = st.session_state
    if state.get(key) not in options:
        state[key] = state.get(f"kept_{key}", default)
    if state[key] not in options:
        state[key] = default


def keep(key: str) -> None:
    """Remember a widget's value while other pages are shown."""
    st.session_state[f"kept_{key}"] = st.session_state[key]


def meanings(titles: Iterable[str]) -> str:
    """What scores mean, a paragraph each, of those that need it said."""
    return "\n\n".join(f"**{plain(title)}**: {plain(term)}" for title in titles if (term := term_of(title)))


def score_chooser(titles: Mapping[str, str], label: str = "Score", key: str = "score_shown", place: int = 0) -> str:
    """Draw a chooser of scores by their titles; returns the name of the chosen one."""
    names = list(titles)
    kept(key, names[place], names)
    chosen: str = st.selectbox(label, names, format_func=titles.__getitem__, key=key, help=meanings(titles.values()))
    keep(key)
    return chosen


def surprising(runs: Sequence[Shown], score: str) -> None:
    """A chooser of the traces that a score judges most wrongly, and the button that opens one: a way by keyboard."""
    many = len(runs) > 1
    found = {
        f"{run.listed} \u00b7 {trace}: {words}" if many else f"{trace}: {words}": (run.name, trace)
        for run in runs
        for trace, words in sections.surprising(run.sample.frame, score)
    }
    st.subheader("Solutions that this score misjudges most")
    if not found:
        st.info("No solution of which it is known whether it is right has this score.")
        return
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    choice = left.selectbox(
        "Solution",
        list(found),
        key="surprising",
        help="The highest scores among the incorrect and the lowest among the correct, in turns.",
    )
    if right.button("Open in Inspect", icon=":material/open_in_new:", width="stretch"):
        chart.open_trace(*found[choice])
