"""Figures of several runs as tables: as rows of numbers to save, and as short texts to read. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from irl_core.report.csv_export import safe_cell

if TYPE_CHECKING:
    import pandas as pd

HEADINGS: Final = ("value", "low", "high", "n", "method", "undefined because")


def _cells(figure: Mapping[str, Any]) -> dict[str, Any]:
    low, high = figure["interval"] or (None, None)
    values = (figure["value"], low, high, figure["n"], figure["method"], figure["reason"] or None)
    return dict(zip(HEADINGS, values, strict=True))


def _frame(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(list(rows), columns=[*first, *HEADINGS])
    for name in ("value", "low", "high"):
        table[name] = pd.to_numeric(table[name])
    return table


MEANS: Final = {"correct": "mean of correct traces", "incorrect": "mean of incorrect traces"}
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


def separation_table(found: Mapping[str, dict[str, Any]], score: str) -> pd.DataFrame:
    """Every figure on a score, by run: means of both classes, and the tests pooled and within problems."""
    rows = []
    for run, one in found.items():
        entry = one["scores"][score]
        for name, title in MEANS.items():
            rows.append({"run": run, "where": "pooled", "figure": title, **_cells(entry[name])})
        for where, names in (("pooled", TESTS), ("within", TESTS | PAIRS)):
            words = "pooled" if where == "pooled" else "within problems"
            rows += [
                {"run": run, "where": words, "figure": title, **_cells(entry[where][name])}
                for name, title in names.items()
            ]
    return _frame(rows, ("run", "where", "figure"))


def scores_table(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """AUC pooled and the share of pairs ranked right within problems, by run and score."""
    rows = [
        {"run": run, "score": one["titles"][name], "where": where, **_cells(entry[key][figure])}
        for run, one in found.items()
        for name, entry in one["scores"].items()
        for where, key, figure in (
            ("pooled: AUC", "pooled", "auc"),
            ("within problems: pairs ranked right", "within", "pair_accuracy"),
        )
    ]
    return _frame(rows, ("run", "score", "where"))


def ranking_rows(found: Mapping[str, dict[str, Any]], where: str) -> pd.DataFrame:
    """How well every score ranks, a row a run and ``label``: AUC ``pooled``, or pairs ranked right ``within``."""
    key = {"pooled": "auc", "within": "pair_accuracy"}[where]
    rows = [
        {"run": run, "label": one["titles"][name], **_cells(entry[where][key])}
        for run, one in found.items()
        for name, entry in one["scores"].items()
    ]
    return _frame(rows, ("run", "label"))


REMOVED: Final = {"nothing": "nothing", "length": "length", "length_and_log_prob": "length and log-probability"}


HEADS: Final = {"nothing": "nothing removed", "length": "length removed", "length_and_log_prob": "both removed"}


def partial_table(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Correlations of each score with correctness, pooled and within problems, with something removed, by run."""
    rows = [
        {"run": run, "score": one["titles"][name], "where": where, "removed": REMOVED[key], **_cells(figure)}
        for run, one in found.items()
        for name, entry in one["partial"].items()
        for where, words in (("pooled", entry["pooled"]), ("within problems", entry["within"]))
        for key, figure in words.items()
    ]
    return _frame(rows, ("run", "score", "where", "removed"))


def choices_table(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """pass@k|N by each way to choose, by run and k, with the paired differences from random and majority."""
    rows = []
    for run, one in found.items():
        for name, by_k in one["baselines"].items():
            rows += [_choice(run, one["titles"][name], k, "accuracy", figure) for k, figure in by_k.items()]
        for name, by_k in one["by_score"].items():
            for k, entry in by_k.items():
                rows += _beside(run, f"best by {one['titles'][name]}", k, entry)
        for name, entry in one["votes"].items():
            rows += _beside(run, f"vote weighted by {one['titles'][name]}", "1", entry)
        if "weighted_vote" in one:
            rows += _beside(run, "the run's weighted vote", "1", one["weighted_vote"])
    return _frame(rows, ("run", "chosen by", "k", "figure"))


LESS: Final = {
    "value": "accuracy",
    "minus_random_text": "less random per text",
    "minus_random_sample": "less a random sample",
    "minus_majority": "less majority",
}


def choice_rows(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """The accuracy of every way to choose one answer among all samples, a row a run and ``label``."""
    table = choices_table(found)
    chosen = (table["k"] == 1) & (table["figure"] == "accuracy") & ~table["chosen by"].str.startswith("vote weighted")
    return table[chosen].drop(columns=["k", "figure"]).rename(columns={"chosen by": "label"})


def _beside(run: str, name: str, k: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [_choice(run, name, k, words, entry[key]) for key, words in LESS.items() if key in entry]


def _choice(run: str, name: str, k: str, words: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    return {"run": run, "chosen by": name, "k": int(k), "figure": words, **_cells(figure)}


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


def saved_table(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """The samples that each way to choose needs for the accuracy of the majority among all, by run."""
    rows = [
        {"run": run, "figure": words, **_cells(one["samples_needed"][name])}
        for run, one in found.items()
        for name, words in NEEDED.items()
        if name in one["samples_needed"]
    ]
    return _frame(rows, ("run", "figure"))


# ------------------------------------------------------------------------------------------- figures as short texts


def _text(figure: Mapping[str, Any]) -> str:
    """'0.831 [0.789, 0.874], n 2,560', or 'undefined (why), n 3'."""
    from irl_core.evaluation.wording import shown

    return f"{shown(dict(figure))}, n {figure['n']:,}"


def _count(figure: Mapping[str, Any]) -> str:
    """A number of samples, which is whole: '3 [2, 4], n 160'."""
    from irl_core.evaluation.wording import count

    return f"{count(dict(figure))}, n {figure['n']:,}"


def tests_summary(found: Mapping[str, dict[str, Any]], score: str) -> pd.DataFrame:
    """The figures on a score as texts: a row a figure, a column a run and place (pooled, within problems)."""
    import pandas as pd

    rows: dict[str, dict[str, str]] = {name: {} for name in (*MEANS, *TESTS, *PAIRS)}
    for run, one in found.items():
        entry, head = one["scores"][score], f"{safe_cell(run)}, " if len(found) > 1 else ""
        for where, words in (("pooled", "pooled"), ("within", "within problems")):
            figures = {**({name: entry[name] for name in MEANS} if where == "pooled" else {}), **entry[where]}
            for name, cells in rows.items():
                cells[head + words] = _text(figures[name]) if name in figures else ""
    titles = MEANS | TESTS | PAIRS
    return pd.DataFrame([{"figure": titles[name], **cells} for name, cells in rows.items()])


def partial_summary(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """Correlations with correctness as texts: a row a run, score and place, a column for what is removed."""
    import pandas as pd

    rows = []
    for run, one in found.items():
        for name, entry in one["partial"].items():
            for where, words in (("pooled", "pooled"), ("within", "within problems")):
                cells = {HEADS[key]: _text(figure) for key, figure in entry[where].items()}
                rows.append({"run": safe_cell(run), "score": one["titles"][name], "where": words, **cells})
    return _read(pd.DataFrame(rows).fillna(""))


def choices_summary(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """The accuracy of every way to choose one answer as texts, with the paired differences: a row a run and way."""
    import pandas as pd

    table = choices_table(found)
    table = table[table["k"] == 1]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in table.to_dict("records"):
        figure = {"value": None if pd.isna(row["value"]) else row["value"], "n": row["n"], "method": row["method"]}
        figure["interval"] = None if pd.isna(row["low"]) else [row["low"], row["high"]]
        figure["reason"] = row["undefined because"]
        rows.setdefault((row["run"], row["chosen by"]), {})[row["figure"]] = _text(figure)
    found_rows = [{"run": safe_cell(run), "chosen by": name, **cells} for (run, name), cells in rows.items()]
    return _read(pd.DataFrame(found_rows, columns=["run", "chosen by", *LESS.values()]).fillna(""))


def saved_summary(found: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    """The samples that each way to choose needs as texts: a row a figure, a column a run."""
    import pandas as pd

    rows = []
    for name, words in NEEDED.items():
        said = _text if name == "target" else _count
        cells = {safe_cell(run): said(one["samples_needed"][name]) for run, one in found.items()}
        rows.append({"figure": words, **cells})
    return pd.DataFrame(rows)


def _read(table: pd.DataFrame) -> pd.DataFrame:
    """A table to read: without the run's name where it is the same everywhere."""
    return table.drop(columns="run") if table["run"].nunique() < 2 else table
