"""The Training curves page: what trainings did and do, several beside each other, live while one runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Final

import streamlit as st

from app.components import cards, chart
from app.components.markdown import plain
from app.jobs import training_runs
from app.jobs.panel import metrics
from app.jobs.training_form import METHOD_WORDS, STARTED
from app.jobs.training_runs import Against, Lines, TrainingRun
from app.runs import table
from app.runs.labels import Label, LabelError, Labels
from irl_core.report.charts import training as training_charts
from irl_core.statistics.wording import true_minus

SECONDS_BETWEEN_LOOKS: Final = 3.0
MOST_RUNS: Final = 6
WARNINGS: Final = 3
AXES: Final[dict[Against, str]] = {"step": "Steps", "tokens": "Tokens", "hours": "Hours"}
KEPT: Final = (
    "training_runs", "training_axis", "training_smooth", "training_log", "training_seeds",
)  # fmt: skip
ASKED: Final = "training_asked"  # in the session: the archived runs whose curves were asked for on Runs
HELD_OUT: Final = "eval/pass@1"
GROUPS: Final = {
    "Reward by class": ("disc/reward_expert", "disc/reward_policy", "disc/reward_perturbed"),
    "Correctness, train and held-out": ("rollout/correct", HELD_OUT),
    "Discriminator right, by class": ("disc/accuracy_expert", "disc/accuracy_policy", "disc/accuracy_perturbed"),
}
UNITS: Final = {
    "Reward by class": "mean reward of a solution",
    "Correctness, train and held-out": "share of samples right",
    "Discriminator right, by class": "share of solutions told right",
}
MEANINGS: Final = {
    "Reward by class": "What the reward model gives to experts' solutions, to those that the model being trained (the "
    "policy) wrote, and to solutions with a mistake put in. It learns while the first lies above the others.",
    "Correctness, train and held-out": "How many of the policy's solutions end right: on the problems that it trains "
    "on, and (pass@1) on others that it never sees.",
    "Discriminator right, by class": "How often the reward model (the discriminator) tells rightly whether a solution "
    "is an expert's, for each kind of solution; a half is guessing.",
    "Other metrics": "policy/loss and disc/loss are what training makes smaller, of the policy and of the reward model "
    "(the discriminator); docs/runs.md lists every other name.",
}
OTHERS: Final = ("policy/loss", "disc/loss")  # the other metrics that are drawn until a person chooses some
WANTED: Final = "training_metrics_wanted"  # in the session: the other metrics that a person has chosen
COLUMNS: Final = {
    "method": "How it was trained: " + " ".join(METHOD_WORDS.values()),
    "seed": "Where chance starts: trainings that differ in it alone show how much is chance.",
    "state": "running, finished, or why it ended; bundled: it came with irl-lens, trained before.",
    "where": "The step that it has come to, and about how long it still takes.",
    "warnings": "What the training itself found odd; below, and in its log.",
    "reason": "Why it stopped, where it did not come to its end.",
}
WIDTHS: Final = {"state": 110}  # pixels: its longest word, which of itself gets the room of a short one
ACROSS: Final = (
    "Steps: rounds of training. Tokens: words, or parts of words, that were trained on. Hours: the time that it took."
)


def show() -> None:
    st.header("What does training do?")
    every_run = training_runs.catalogue()
    runs = offered_runs(every_run)
    if not runs and STARTED not in st.session_state:
        st.info(
            "Every training is archived: *Archived too* on Runs shows them, and takes them out." if every_run else
            "There is no training yet. *Train \u2026* in the sidebar starts one; it appears here at once."
        )  # fmt: skip
        return
    state = st.session_state
    for key, value in state.get("training_kept", {}).items():
        state.setdefault(key, value)
    chosen = choose_runs(runs)
    if STARTED in state:  # a run that was just started has no folder for some seconds
        st.info(plain(f"{state[STARTED]} is starting; its curves appear here."))
        st.fragment(look_for_started, run_every=SECONDS_BETWEEN_LOOKS)()
    if not chosen:
        st.info("Choose a run to see its curves.")
        return
    live = any(run.active for run in chosen)
    every = SECONDS_BETWEEN_LOOKS if live else None
    names = [run.name for run in chosen]
    st.fragment(tell_runs, run_every=every)(names)
    left, right, ways = st.columns([4, 5, 5], gap="medium", vertical_alignment="bottom")
    axis: Against = state.setdefault("training_axis", "step")
    left.segmented_control(
        "Against", list(AXES), key="training_axis", format_func=AXES.__getitem__, required=True, help=ACROSS
    )
    smooth = right.slider("Smoothing: mean of the last so many steps", 1, 50, key="training_smooth")
    groups_of_seeds = table.same_but_seed({run.name: run.path for run in chosen})
    with ways.container(horizontal=True):
        state.setdefault("training_log", False)
        state.setdefault("training_seeds", False)
        st.toggle("Log axis", key="training_log", help="Each tenfold is as far; values of 0 and below have no place.")
        st.toggle(
            "Seeds together", key="training_seeds", disabled=not groups_of_seeds,
            help="Runs that differ in their seed alone are one line, their mean, in the band from the lowest to the "
            "highest. Choose two or more such runs.",
        )  # fmt: skip
    offered = other_metrics(chosen)
    others = choose_metrics(offered)
    state["training_kept"] = {key: state[key] for key in KEPT}
    if live:
        st.fragment(look_for_more, run_every=every)(names, offered)
    st.fragment(draw_runs, run_every=every)(names, live, GROUPS | {"Other metrics": others}, axis, smooth)


def offered_runs(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """The runs to choose among: all but the archived ones that were not asked for on Runs."""
    try:
        known = Labels().all()
    except LabelError as error:
        st.error(plain(str(error)))
        return list(runs)
    asked = st.session_state.get(ASKED, ())
    archived = {run.name for run in runs if known.get(table.training_key(run.name), Label()).archived}
    return [run for run in runs if run.name not in archived or run.name in asked]


def choose_runs(runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """The training runs to show, remembered while other pages are looked at."""
    by_name = {run.name: run for run in runs}
    state = st.session_state
    first = next((run.name for run in runs if run.active), runs[0].name if runs else "")
    kept = [name for name in state.get("training_runs", [first]) if name in by_name]
    if (new := state.get(STARTED)) in by_name:
        kept = [new, *(name for name in kept if name != new)][:MOST_RUNS]
        del state[STARTED]
    if state.get("training_runs") != kept:  # what is written to is written over in the browser too, in mid-choice
        state["training_runs"] = kept
    st.multiselect("Runs", list(by_name), key="training_runs", max_selections=MOST_RUNS, placeholder="Choose runs")
    return [by_name[name] for name in state["training_runs"]]


def look_for_started() -> None:
    """Draw the page anew once the run that was just started has a folder."""
    if st.session_state.get(STARTED) in {run.name for run in training_runs.catalogue()}:
        st.rerun()


def look_for_more(names: Sequence[str], offered: Sequence[str]) -> None:
    """Draw the page anew once a run has a metric that could not be chosen yet, such as any at its first step."""
    if other_metrics([run for run in training_runs.catalogue() if run.name in names]) != offered:
        st.rerun()


def choose_metrics(offered: Sequence[str]) -> list[str]:
    """The chooser of any other metric. Until a person chooses, it takes the usual ones as soon as a run has them."""
    state = st.session_state
    kept = [name for name in state.get(WANTED, OTHERS) if name in offered]
    if state.get("training_metrics") != kept:
        state["training_metrics"] = kept

    def note() -> None:
        state[WANTED] = state["training_metrics"]

    return st.multiselect(
        "Other metrics", offered, key="training_metrics", placeholder="none", help=MEANINGS["Other metrics"],
        on_change=note,
    )  # fmt: skip


def other_metrics(runs: Sequence[TrainingRun]) -> list[str]:
    """The metrics of runs that belong to no group of their own."""
    grouped = {name for group in GROUPS.values() for name in group}
    return [name for name in training_runs.names([metrics(run) for run in runs]) if name not in grouped]


def tell_runs(names: Sequence[str]) -> None:
    """What the figures say of each run in words, then its numbers."""
    runs = [run for run in training_runs.catalogue() if run.name in names]
    lines = {run.name: metrics(run) for run in runs}
    for run in runs:
        # what a whole training comes to is not defined while it runs
        of_run = lines[run.name]
        said = (
            training_runs.so_far(run, of_run)
            if run.active
            else cached_paragraph(*training_runs.version(run.path), of_run)
        )
        st.markdown(f"**{plain(run.name)}** " * (len(runs) > 1) + plain(true_minus(said)))
    rows = [
        {
            "run": run.name,
            "method": run.method,
            "seed": "" if run.seed is None else str(run.seed),
            "state": run.state,
            "progress": run.share if run.steps else None,
            "where": training_runs.progress_words(run) if run.steps else f"{len(lines[run.name])} steps",
            "warnings": run.warnings,
            "reason": run.reason,
        }
        for run in runs
    ]
    column = st.column_config.ProgressColumn("progress", min_value=0.0, max_value=1.0, format="percent")
    told = {name: st.column_config.Column(help=meaning, width=WIDTHS.get(name)) for name, meaning in COLUMNS.items()}
    cards.table(rows, "training_table", title="Runs", columns=told | {"progress": column})


def draw_runs(
    names: Sequence[str], was_live: bool, groups: Mapping[str, Sequence[str]], axis: Against, smooth: int
) -> None:
    """The figures, which change while a run goes on, and what each run itself says."""
    runs = [run for run in training_runs.catalogue() if run.name in names]
    if was_live and not any(run.active for run in runs):
        st.rerun()
    lines = {run.name: metrics(run) for run in runs}
    drawn = {name: training_runs.against(of_run, axis) for name, of_run in lines.items()}
    if st.session_state["training_seeds"]:
        drawn = with_seeds_together({run.name: run for run in runs}, lines, drawn)
        st.caption(plain(f"Drawn: {'; '.join(drawn)}. Of a mean the band goes from the lowest seed to the highest."))
    known = set(training_runs.names(list(drawn.values())))
    places = cycle(st.columns(2, gap="medium"))  # two beside each other: a page that ends
    for title, group in groups.items():
        if wanted := [name for name in group if name in known]:
            with next(places):
                draw_chart(title, drawn, wanted, axis, smooth)
                if HELD_OUT in group:
                    say_what_is_missing(runs, lines)
    for run in runs:
        describe(run)


def with_seeds_together(
    runs: Mapping[str, TrainingRun], lines: Mapping[str, Lines], drawn: Mapping[str, Lines]
) -> dict[str, Lines]:
    """What is drawn, with trainings that differ in their seed alone as one line."""
    found = dict(drawn)
    for names in table.same_but_seed({name: run.path for name, run in runs.items()}):
        seeds = ", ".join(sorted(str(runs[name].seed) for name in names))
        preset = runs[names[0]].preset or names[0]
        mean = training_runs.mean_of_seeds([lines[name] for name in names], [drawn[name] for name in names])
        found = {name: of_run for name, of_run in found.items() if name not in names}
        found[f"{preset}, mean of seeds {seeds}"] = mean
    return found


def draw_chart(title: str, drawn: Mapping[str, Lines], wanted: Sequence[str], axis: Against, smooth: int) -> None:
    """A figure with its table."""
    st.subheader(title, help=MEANINGS[title])
    key = "training_" + "_".join(re.findall(r"[a-z]+", title.lower())[:2])
    unit = UNITS.get(title, "value")
    figure = training_charts.training(
        drawn, wanted, smooth=smooth, theme=chart.theme(), several=unit, logarithmic=st.session_state["training_log"]
    )
    figure.update_xaxes(title_text=AXES[axis].lower())
    figure.update_layout(uirevision=key)  # what was zoomed into stays, while the run goes on
    alt = f"{title} of {', '.join(drawn)}, against {AXES[axis].lower()}"
    chart.draw(figure, training_charts.training_table(drawn, wanted, axis), key=key, alt=alt)


def say_what_is_missing(runs: Sequence[TrainingRun], lines: Mapping[str, Lines]) -> None:
    """Why a run has no line on held-out problems."""
    for run in runs:
        if not any(HELD_OUT in line for line in lines[run.name]):
            every = table.settings(run.path).get("run.eval_every", "")
            st.caption(plain(f"No held-out line of {run.name}: {training_runs.no_held_out_words(run, every)}."))


def describe(run: TrainingRun) -> None:
    """Why a run stopped, its warnings, and the end of its log."""
    st.subheader(plain(run.name))
    if run.reason:
        st.caption(plain(run.reason))
    warnings = training_runs.warnings(run.path)
    for line in warnings[-WARNINGS:]:
        st.warning(plain(line))
    if len(warnings) > WARNINGS:
        st.caption(f"{len(warnings) - WARNINGS} earlier warnings are in the log.")
    with st.expander(f"Log of {plain(run.name)}"):
        st.code("\n".join(training_runs.log_lines(run.path)) or "This run has no log.", language=None, height=300)


@st.cache_data(max_entries=32, show_spinner=False)
def cached_paragraph(path: str, written: int, size: int, _lines: Lines) -> str:
    """The paragraph on a run's metrics, written anew when their file has changed."""
    return training_runs.outcome(_lines)


show()
