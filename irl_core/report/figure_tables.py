"""Tables of several scored runs beside each other: a row an estimate, to save, and the same wider, to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from irl_core.evaluation.section import Cell, Table
from irl_core.report.tables import across

if TYPE_CHECKING:
    from irl_core.evaluation.correlation import Correlations
    from irl_core.evaluation.reranking import Choice, Reranking
    from irl_core.evaluation.separation import SeparationByScore
    from irl_core.statistics.bootstrap import Estimate

Marks = list[tuple[str, str, "Estimate"]]  # scored run, label, estimate

TESTS: Final = {
    "difference": "difference of the means",
    "t": "Welch's t",
    "p": "p of Welch's t",
    "clustered_t": "t, errors over problems",
    "clustered_p": "p, errors over problems",
    "cohens_d": "Cohen's d",
    "auc": "AUC",
}
PAIRS: Final = {"pair_accuracy": "pairs ranked right", "minus_log_prob": "the same less log-probability's"}
REMOVED: Final = {"nothing": "nothing", "length": "length", "length_and_log_prob": "length and log-probability"}
LESS: Final = {
    "value": "accuracy",
    "minus_random_text": "less random per text",
    "minus_random_sample": "less a random sample",
    "minus_majority": "less majority",
}
NEEDED: Final = {
    "target": "accuracy to reach: majority among all samples",
    "majority": "samples that the majority needs",
    "weighted_vote": "samples that the weighted vote needs",
    "log_prob_vote": "samples that a vote by log-probability needs",
    "best_of": "samples that the highest score needs",
    "oracle": "samples that the oracle needs",
    "saved_to_majority": "saved beside the majority",
    "saved_to_log_prob_vote": "saved beside the vote by log-probability",
}


def separation_table(by_run: Mapping[str, SeparationByScore], score: str) -> Table:
    """Every estimate on a score: means of both classes, and the tests pooled and within problems."""
    rows: list[list[Cell]] = []
    for run, one in by_run.items():
        entry = one.scores[score]
        rows.append([run, "pooled", "mean of correct solutions", entry.correct])
        rows.append([run, "pooled", "mean of incorrect solutions", entry.incorrect])
        rows += [[run, "pooled", title, entry.pooled[name]] for name, title in TESTS.items()]
        rows += [[run, "within problems", title, entry.within[name]] for name, title in (TESTS | PAIRS).items()]
    return Table("The tests of a score", ("run", "where", "figure", "value"), rows, mixed=True)


def tests_summary(by_run: Mapping[str, SeparationByScore], score: str) -> Table:
    """`separation_table` with a column a run and place."""
    return across(separation_table(by_run, score), ["figure"], ["run", "where"] if len(by_run) > 1 else ["where"])


def scores_table(by_run: Mapping[str, SeparationByScore]) -> Table:
    """AUC pooled and the share of pairs ranked right within problems, by score."""
    rows: list[list[Cell]] = []
    for run, one in by_run.items():
        for name, entry in one.scores.items():
            rows.append([run, one.titles[name], "pooled: AUC", entry.pooled["auc"]])
            within = entry.within["pair_accuracy"]
            rows.append([run, one.titles[name], "within problems: pairs ranked right", within])
    return Table("All scores", ("run", "score", "where", "value"), rows)


def ranking_marks(by_run: Mapping[str, SeparationByScore], where: str) -> Marks:
    """How well every score ranks: its AUC ``pooled``, or the share of pairs ranked right ``within`` problems."""
    return [
        (run, one.titles[name], entry.pooled["auc"] if where == "pooled" else entry.within["pair_accuracy"])
        for run, one in by_run.items()
        for name, entry in one.scores.items()
    ]


def partial_table(by_run: Mapping[str, Correlations]) -> Table:
    """Correlations of each score with correctness, pooled and within problems, with something removed."""
    rows: list[list[Cell]] = [
        [run, one.titles[name], where, REMOVED[key], estimate]
        for run, one in by_run.items()
        for name, entry in one.partial.items()
        for where, by_removed in (("pooled", entry.pooled), ("within problems", entry.within))
        for key, estimate in by_removed.items()
    ]
    return Table("Correlations with correctness", ("run", "score", "where", "removed", "value"), rows)


def partial_summary(by_run: Mapping[str, Correlations]) -> Table:
    """`partial_table` with a column for what is removed."""
    long = partial_table(by_run)
    rows = [[*names, f"{removed} removed", estimate] for *names, removed, estimate in long.rows]
    down = ["run", "score", "where"] if len(by_run) > 1 else ["score", "where"]
    return across(Table(long.title, long.head, rows), down, ["removed"])


def choices_table(by_run: Mapping[str, Reranking]) -> Table:
    """pass@k|N by each way to choose, with the paired differences from random and majority."""
    rows: list[list[Cell]] = []

    def add(run: str, name: str, k: str, choice: Choice) -> None:
        held = ((words, getattr(choice, key)) for key, words in LESS.items())
        rows.extend([run, name, int(k), words, estimate] for words, estimate in held if estimate is not None)

    for run, one in by_run.items():
        for name, by_k in one.baselines.items():
            rows += [[run, one.titles[name], int(k), LESS["value"], estimate] for k, estimate in by_k.items()]
        for name, chosen in one.by_score.items():
            for k, choice in chosen.items():
                add(run, f"best by {one.titles[name]}", k, choice)
        for name, choice in one.votes.items():
            add(run, f"vote weighted by {one.titles[name]}", "1", choice)
        if one.weighted_vote:
            add(run, "the run's weighted vote", "1", one.weighted_vote)
    return Table("Ways to choose", ("run", "chosen by", "k", "figure", "value"), rows)


def choices_summary(by_run: Mapping[str, Reranking]) -> Table:
    """The accuracy of every way to choose one answer, and the paired differences in columns of their own."""
    long = choices_table(by_run)
    one = Table(long.title, long.head, [row for row in long.rows if row[2] == 1])
    return across(one, ["run", "chosen by"] if len(by_run) > 1 else ["chosen by"], ["figure"])


def choice_marks(by_run: Mapping[str, Reranking]) -> Marks:
    """The accuracy of every way to choose one answer among all samples."""
    marks: Marks = []
    for run, one in by_run.items():
        marks += [(run, one.titles[name], by_k["1"]) for name, by_k in one.baselines.items()]
        marks += [(run, f"best by {one.titles[name]}", by_k["1"].value) for name, by_k in one.by_score.items()]
        if one.weighted_vote:
            marks.append((run, "the run's weighted vote", one.weighted_vote.value))
    return marks


def saved_table(by_run: Mapping[str, Reranking]) -> Table:
    """The samples that each way to choose needs for the accuracy of the majority among all."""
    rows: list[list[Cell]] = [
        [run, title, one.samples_needed[name]]
        for run, one in by_run.items()
        for name, title in NEEDED.items()
        if name in one.samples_needed
    ]
    return Table("Samples needed", ("run", "figure", "value"), rows, mixed=True)


def saved_summary(by_run: Mapping[str, Reranking]) -> Table:
    """`saved_table` with a column a run."""
    return across(saved_table(by_run), ["figure"], ["run"])
